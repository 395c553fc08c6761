import dataclasses
import hashlib
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from evoquant.errors import GenomeError, ProfileError
from evoquant.genomes.base import digest_of
from evoquant.genomes.expression import ALL_SIGNALS, NUMBER_SIGNALS, OPERATOR, depth_of, written_out
from evoquant.genomes.load import genome_from_dict
from evoquant.genomes.strategies import strategy
from evoquant.genomes.tree import COMPILED_FROM, CONSTANT, LARGEST_CONSTANT, SMALLEST_CONSTANT, Tree, TreeSpace
from evoquant.genomes.tree_numpy import cheapest, costs, signal_values, state_of
from evoquant.profiles.families import family_profile
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU, Menu
from evoquant.rng import generator_for
from evoquant.scoring.problem import compile_problem

TYPES = ("Classifier", "Conv", "Embedding", "LayerNorm")
SIGNALS = ("loss", "bits", "share", "gradient_sensitivity", "position", "units", "model_loss")
SPACE = TreeSpace(SEED_MENU, TYPES, SIGNALS)
SPACE_OF_ALL = TreeSpace(SEED_MENU, TYPES, ALL_SIGNALS)
PROBLEM = compile_problem(seed_profile("train"), SEED_MENU)
SCALED = Menu.parse(["INT4-channel", "FP16"])


def layer(name, **figures):
    losses = {"INT4-channel": 0.25, "FP16": 0.0}
    return LayerProfile(name, "Conv", (2, 8), 0.5, **{"loss": losses, **figures})


TIED = compile_problem(
    ModelProfile(
        "tied", (layer("a", tie_group="t"), layer("b", weight_mean=2.5), layer("c", tie_group="t", allowed=("FP16",)))
    ),
    SCALED,
)


def stream(purpose, generation=0):
    return generator_for(5, generation, purpose)


def names(genome, problem):
    return problem.unfold(genome.allocate(problem))


def test_each_unit_takes_the_allowed_width_of_least_cost():
    # Losses against 0.01 per bit: hand-computed for one unit.
    table = SPACE.encode(Tree(("add", "loss", "mul", 0.01, "bits")))
    widths = SPACE.decode(table).allocate(PROBLEM)
    loss, bits = PROBLEM.loss / 2**40, np.array([2, 4, 8, 16, 32])
    np.testing.assert_array_equal(widths, (loss + 0.01 * bits).argmin(axis=1))
    assert len(set(widths.tolist())) > 1
    assert names(Tree(("bits",)), TIED) == ("FP16", "INT4-channel", "FP16")  # the forbidden one never


def test_of_equal_costs_the_narrowest():
    assert set(Tree(("share",)).allocate(PROBLEM).tolist()) == {0}
    assert set(Tree(("neg", "bits")).allocate(PROBLEM).tolist()) == {4}
    # 2, 4 and 8 bits cost the same, 16 and 32 more.
    assert set(Tree(("max", "bits", 8.0)).allocate(PROBLEM).tolist()) == {0}
    assert names(Tree((3.0,)), TIED) == ("FP16", "INT4-channel", "FP16")


def test_signals_are_those_of_units():
    loss = np.array([[2 * -np.log(0.75), 0.0], [-np.log(0.75), 0.0]])
    np.testing.assert_allclose(signal_values(TIED, "loss"), loss, rtol=1e-11)
    assert (signal_values(TIED, "loss") == TIED.loss / 2**40).all()
    np.testing.assert_array_equal(signal_values(TIED, "bits"), [[6.0, 16.0]] * 2)  # 4 + 2 scales of 16 bits on 16
    np.testing.assert_array_equal(signal_values(TIED, "share"), [[2 / 3], [1 / 3]])
    np.testing.assert_array_equal(signal_values(TIED, "weight_mean"), [[0.0], [2.5]])
    assert signal_values(TIED, "units").tolist() == [[2.0]]
    assert signal_values(TIED, "model_loss").tolist() == [[TIED.loss[:, 0].sum() / 2**40, 0.0]]
    assert signal_values(TIED, "is_Conv").all() and not signal_values(TIED, "is_Other").any()


def test_arithmetic_saturates_and_division_by_zero_gives_one():
    def value(*expression):
        return costs(expression, TIED)[0, 0].item()

    assert value("div", 3.0, "sub", 1.0, 1.0) == 1.0
    assert value("div", 0.0, "neg", 0.0) == 1.0
    assert value("square", 1e100) == 1e100
    assert value("mul", "neg", 1e100, 1e60) == -1e100
    assert value("add", 1e100, 1e100) == 1e100
    assert value("sub", "neg", 1e100, 1e100) == -1e100
    assert value("div", 1e100, "mul", 1e-100, "mul", 1e-100, "mul", 1e-100, 1e-20) == 1e100
    assert value("sqrt", "neg", 4.0) == 2.0
    assert value("where", "greater", "bits", 6.0, 1.0, 2.0) == 2.0
    assert value("where", "not", "and", "is_Conv", "or", "is_Conv", "is_Linear", 1.0, 2.0) == 2.0
    extreme = dataclasses.replace(TIED, scalars={**TIED.scalars, "weight_mean": np.array([1e300, -1e300])})
    assert costs(("weight_mean",), extreme)[:, 0].tolist() == [1e100, -1e100]


@pytest.mark.parametrize("name", ["fisher", "weight_error", "divergence", "hessian", "expected_loss"])
def test_a_missing_signal_names_profile_and_signal(name):
    with pytest.raises(ProfileError, match=rf"'tied' has no {name} for INT4-channel, which the signal '{name}:INT4"):
        Tree((name,)).allocate(TIED)
    silent = compile_problem(ModelProfile("silent", (layer("a", loss={"FP16": 0.0}),)), SCALED)
    for reads in ("loss", "model_loss"):
        with pytest.raises(ProfileError, match=rf"'silent' has no loss for INT4-channel.* signal '{reads}'"):
            SPACE.allocate(SPACE.encode(Tree((reads,)))[None], silent)


def test_round_trips_and_rejections():
    for row in SPACE.sample(stream("x"), 40):
        tree = SPACE.decode(row)
        assert genome_from_dict(tree.to_dict(), "x") == tree
        assert len(tree.expression) == tree.parts == SPACE.parts(row[None])[0]
    assert genome_from_dict({"kind": "tree", "expression": ["add", "loss", 1]}, "x") == Tree(("add", "loss", 1.0))
    small = TreeSpace(SEED_MENU, (), ("loss",), max_nodes=3, max_depth=1)
    for genome, fault in [
        (strategy("hybrid"), "is no tree"),
        (Tree(("add", "loss", "neg", "loss")), "has 4 nodes; max_nodes allows 3"),
        (Tree(("neg", "neg", "loss")), "2 levels deep; max_depth allows 1"),
        (Tree(("bits",)), "no signal 'bits'; add it to genome.signals"),
        (Tree((0.0,)), "holds constants from 1e-06 to 1000, and 0.0 is none"),
    ]:
        with pytest.raises(GenomeError, match=fault):
            small.encode(genome)
    with pytest.raises(GenomeError, match=r"no signal 'los'. Did you mean 'loss'"):
        TreeSpace(SEED_MENU, (), ("los",))
    with pytest.raises(GenomeError, match="is empty"):
        TreeSpace(SEED_MENU, (), ())


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ([], r"file: expression: "),
        ("loss", r"file: expression: "),
        (["add", "loss"], r"file: expression: ends where 'add' still takes a number"),
        (["loss", "bits"], r"file: expression\[1\]: the tree is complete before 'bits'"),
        (["add", "loss", "los"], r"file: expression\[2\]: unknown operator or signal 'los'. Did you mean 'loss'"),
        (["is_Conv"], r"file: expression\[0\]: the tree takes a number here, and 'is_Conv' is a flag"),
        (["where", "loss", 1, 2], r"file: expression\[1\]: 'where' takes a flag here, and 'loss' is a number"),
        (["is_"], r"unknown operator or signal 'is_'"),
        ([float("nan")], r"file: expression.0: a node is the name .* or a finite number \(got nan\)"),
        ([float("inf")], r"file: expression.0: .*finite number"),
        ([10**400], r"file: expression.0: .*finite number"),
        ([True], r"file: expression.0: .*finite number"),
        ([["loss"]], r"file: expression.0: .*finite number"),
        ([1e101], r"file: expression\[0\]: 1e\+101 is not within ±1e\+100"),
        (["neg"] * 61 + ["loss"], r"file: expression\[61\]: lies deeper than 60 levels"),
        (["add", "loss"] * 500 + ["loss"], r"file: expression: .*1000"),
    ],
)
def test_faults_name_source_and_position(expression, fault):
    with pytest.raises(GenomeError, match=fault):
        genome_from_dict({"kind": "tree", "expression": expression}, "file")


def test_unknown_keys_are_refused():
    with pytest.raises(GenomeError, match=r"file: expresion: unknown key. Did you mean 'expression'"):
        genome_from_dict({"kind": "tree", "expression": ["loss"], "expresion": []}, "file")
    with pytest.raises(GenomeError, match="expression: this key is required"):
        genome_from_dict({"kind": "tree"}, "file")


def test_rows_without_a_tree_are_one_constant():
    zeros = np.zeros((1, len(SPACE.genes)))
    assert SPACE.decode(zeros[0]) == Tree((SMALLEST_CONSTANT,))
    unfinished = zeros.copy()
    unfinished[0, :2] = 1  # add(add(…
    for rows in (zeros, unfinished):
        assert set(SPACE.allocate(rows, PROBLEM)[0].tolist()) == {0}
        assert SPACE.parts(rows).tolist() == [1]
        canonical = SPACE.canonical(rows)
        np.testing.assert_array_equal(SPACE.canonical(canonical), canonical)


@pytest.mark.parametrize("space", [SPACE, TreeSpace(SEED_MENU, (), NUMBER_SIGNALS, max_nodes=7, max_depth=2)])
def test_operators_keep_the_limits_and_are_canonical(space):
    genes = space.sample(stream("sample"), 150)
    low, high = (np.array([getattr(gene, end) for gene in space.genes]) for end in ("low", "high"))
    for generation in range(4):
        genes = space.cross(genes, genes[::-1], stream("cross", generation))
        genes = space.mutate(genes, 0.3, stream("mutate", generation))
        genes = space.tune(genes, stream("tune", generation))
        np.testing.assert_array_equal(space.canonical(genes), genes)
        assert ((genes >= low) & (genes <= high)).all()
        for row in genes:
            tree = space.decode(row)  # complete and well-typed, or Tree would say so
            assert tree.parts <= space.max_nodes
            assert depth_of(tree.expression) <= space.max_depth


def test_samples_are_diverse():
    genes = SPACE.sample(stream("sample"), 300)
    trees = [SPACE.decode(row) for row in genes]
    assert len(set(trees)) > 250
    depths = {depth_of(tree.expression) for tree in trees}
    assert depths == {1, 2, 3, 4, 5}
    assert {token for tree in trees for token in tree.expression if isinstance(token, str)} == {
        *(operator for operator in SPACE.tokens[1:CONSTANT]),
        *SIGNALS,
        *(f"is_{kind}" for kind in TYPES),
    }


def test_crossover_mixes_parents():
    first = np.array([SPACE.encode(Tree(("add", "loss", "loss")))] * 40)
    second = np.array([SPACE.encode(Tree(("mul", "bits", "bits")))] * 40)
    children = {SPACE.decode(row).expression for row in SPACE.cross(first, second, stream("x"))}
    assert children == {("add", "loss", "bits"), ("add", "bits", "loss")}


def test_mutation_rate_is_per_node():
    row = SPACE.encode(Tree(("add", "loss", "mul", 0.01, "bits")))
    rows = np.repeat(row[None], 2000, axis=0)
    changed = (SPACE.mutate(rows, 0.1, stream("x")) != rows).any(axis=1).mean()
    assert abs(changed - (1 - 0.9**5)) < 0.04
    np.testing.assert_array_equal(SPACE.mutate(rows[:9], 0.0, stream("x")), rows[:9])
    assert (SPACE.mutate(rows, 1.0, stream("x")) != rows).any(axis=1).mean() > 0.99


def test_tuning_moves_constants_alone_and_always():
    expression = ("add", "loss", "mul", 1.0, "max", SMALLEST_CONSTANT, "min", LARGEST_CONSTANT, "bits")
    row = SPACE.encode(Tree(expression))
    rows = np.repeat(row[None], 2000, axis=0)
    tuned = SPACE.tune(rows, stream("x"))
    codes = slice(0, SPACE.max_nodes)
    np.testing.assert_array_equal(tuned[:, codes], rows[:, codes])
    assert (tuned != rows).any(axis=1).all()
    assert (tuned[:, SPACE.max_nodes + 3] > 10).any() and (tuned[:, SPACE.max_nodes + 3] < 0.1).any()
    assert np.median(np.abs(np.log(tuned[:, SPACE.max_nodes + 3]))) < 0.3
    for value in (1.0, 9.9, SMALLEST_CONSTANT, LARGEST_CONSTANT):
        alone = np.repeat(SPACE.encode(Tree(("mul", value, "bits")))[None], 500, axis=0)
        assert (SPACE.tune(alone, stream("y")) != alone).any(axis=1).all()
    without = SPACE.encode(Tree(("add", "loss", "bits")))[None]
    np.testing.assert_array_equal(SPACE.tune(without, stream("x")), without)


def test_global_randomness_is_untouched():
    random.seed(3)
    state = random.getstate()
    genes = SPACE.sample(stream("a"), 20)
    SPACE.mutate(SPACE.cross(genes, genes[::-1], stream("b")), 0.5, stream("c"))
    assert random.getstate() == state
    random.seed(4)
    np.testing.assert_array_equal(SPACE.sample(stream("a"), 20), genes)


PROCESS = """
import hashlib, sys
sys.path.insert(0, {tests!r})
from test_tree import trajectory
print(trajectory())
"""


def trajectory():
    genes = SPACE.sample(stream("a"), 60)
    for generation in range(3):
        genes = SPACE.mutate(SPACE.cross(genes, genes[::-1], stream("b", generation)), 0.1, stream("c", generation))
    return hashlib.sha256(genes.tobytes()).hexdigest()


def test_another_process_draws_the_same():
    code = PROCESS.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == trajectory()


def test_spaces_travel_to_workers():
    SPACE.sample(stream("a"), 2)
    SPACE.allocate(SPACE.sample(stream("a"), 2), PROBLEM)
    there, problem = pickle.loads(pickle.dumps((SPACE, PROBLEM)))
    genes = SPACE.sample(stream("a"), 20)
    np.testing.assert_array_equal(there.sample(stream("a"), 20), genes)
    np.testing.assert_array_equal(there.allocate(genes, problem), SPACE.allocate(genes, PROBLEM))


def test_equal_trees_have_equal_digests():
    row = SPACE.encode(Tree(("add", "loss", "mul", 0.01, "bits")))
    other = row.copy()
    other[9] = 3
    other[SPACE.max_nodes + 9] = 7.0
    other[SPACE.max_nodes] = 7.0
    assert digest_of(SPACE.decode(row)) == digest_of(SPACE.decode(other))
    np.testing.assert_array_equal(SPACE.canonical(other[None])[0], row)


def test_rounds_go_on_until_the_allocation_is_the_one_it_was_weighed_with():
    problem = compile_problem(family_profile("cnn", 1), SEED_MENU)
    expression = ("add", "loss", "div", "mul", 0.08, "mul", "bits", "share", "mean_bits")
    allocation = Tree(expression).allocate(problem)
    state = state_of(problem, allocation)
    np.testing.assert_array_equal(cheapest(costs(expression, problem, state), problem.allowed), allocation)
    bits = float(state["mean_bits"])
    plain = Tree(("add", "loss", "div", "mul", 0.08, "mul", "bits", "share", bits))
    np.testing.assert_array_equal(plain.allocate(problem), allocation)
    first = ("add", "loss", "div", "mul", 0.08, "mul", "bits", "share", 32.0)
    assert not np.array_equal(Tree(first).allocate(problem), allocation), "one round is not enough here"


def test_size_share_is_short_for_size_by_mean_bits():
    problem = compile_problem(family_profile("cnn", 2), SEED_MENU)
    short = Tree(("add", "loss", "mul", 0.07, "size_share"))
    written = Tree(("add", "loss", "mul", 0.07, "div", "size", "mean_bits"))
    assert written_out(short.expression) == written.expression
    np.testing.assert_array_equal(short.allocate(problem), written.allocate(problem))
    together = SPACE_OF_ALL.allocate(np.repeat(SPACE_OF_ALL.encode(short)[None], COMPILED_FROM, axis=0), problem)
    np.testing.assert_array_equal(together[0], written.allocate(problem))
    np.testing.assert_array_equal(signal_values(problem, "size"), problem.cost.table / 1024 / problem.weights)


def test_rounds_that_never_settle_end():
    problem = compile_problem(seed_profile("train"), SEED_MENU)
    flips = Tree(("mul", "bits", "sub", "mean_bits", 16.0))  # wide: take the narrowest; narrow: take the widest
    found = flips.allocate(problem)
    assert found.min() == found.max() == len(problem.menu) - 1, "16 rounds from the widest end at the widest"
    row = SPACE_OF_ALL.encode(flips)[None]
    np.testing.assert_array_equal(SPACE_OF_ALL.allocate(np.repeat(row, COMPILED_FROM, axis=0), problem)[-1], found)


def test_of_the_signals_of_the_allocation_only_the_loss_needs_losses():
    profile = ModelProfile("bare", (LayerProfile("a", "Conv", (4,), 0.5),))
    problem = compile_problem(profile, SEED_MENU)
    with pytest.raises(ProfileError, match=r"'bare' has no loss.*'total_loss'"):
        SPACE_OF_ALL.allocate(SPACE_OF_ALL.encode(Tree(("mul", "bits", "total_loss")))[None], problem)
    narrowest = Tree(("add", "size_share", "mean_bits"))
    assert narrowest.allocate(problem).tolist() == [0]
    rows = np.repeat(SPACE_OF_ALL.encode(narrowest)[None], COMPILED_FROM, axis=0)
    assert SPACE_OF_ALL.allocate(rows, problem).tolist() == [[0]] * COMPILED_FROM


def test_only_the_operators_that_were_named_are_drawn():
    space = TreeSpace(SEED_MENU, ("Conv",), ("loss", "bits"), operators=("add", "mul"))
    rng = np.random.default_rng(0)
    rows = space.mutate(space.sample(rng, 200), 0.5, rng)
    used = {token for row in rows for token in space.decode(row).expression if token in OPERATOR}
    assert used == {"add", "mul"}


@pytest.mark.parametrize(
    ("operators", "types", "fault"),
    [
        (("where", "add"), TYPES, "gives a flag; add one of greater, and, or, not"),
        (("greater", "and"), TYPES, "gives a number; add one of add, sub"),
        (("where",), (), "without layer types there are no flags"),
    ],
)
def test_operators_that_no_tree_can_grow_from_are_refused(operators, types, fault):
    with pytest.raises(GenomeError, match=fault):
        TreeSpace(SEED_MENU, types, ("loss", "bits"), operators=operators)


@pytest.mark.parametrize("operators", [("where", "add", "not"), ("add",), ("greater", "add")])
def test_few_operators_are_enough_to_grow_from(operators):
    rng = np.random.default_rng(0)
    for types in ((), TYPES):
        space = TreeSpace(SEED_MENU, types, ("loss", "bits"), operators=operators)
        rows = space.sample(rng, 50)
        assert len(np.unique(space.cross(space.mutate(rows, 0.5, rng), rows[::-1], rng), axis=0)) > 10
