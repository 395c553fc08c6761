import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from evoquant.campaign.evaluate import separable_worker
from evoquant.errors import GenomeError, ProfileError
from evoquant.genomes import rule_compiled, rule_kernel, rule_prefix
from evoquant.genomes.base import Fused
from evoquant.genomes.direct import DirectSpace
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace, default_signals
from evoquant.profiles.builtin import builtin_profile
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.precision import SEED_MENU, Menu
from evoquant.rng import generator_for
from evoquant.scoring.problem import compile_problem
from evoquant.scoring.separable import cost_sums, loss_sums

SIGNALS = [*default_signals(SEED_MENU), "weight_mean"]
MANY_TYPES = ("Linear", "Conv", *(f"kind {i}" for i in range(9)), "Attention")


def model(units, seed):
    """Figures that coincide, vanish, are negative or infinite; types that no space knows; forbidden widths."""
    rng = np.random.default_rng(seed)
    layers = tuple(
        LayerProfile(
            name=f"l{i}",
            type=str(rng.choice([*LAYER_TYPES, "kind 3", "kind 8", "Unknown"])),
            shape=(int(rng.integers(1, 99)), 3),
            position=float(rng.choice([i / max(units - 1, 1), round(rng.random(), 1)])),
            weight_mean=float(rng.choice([0.0, -0.0, -0.5, 1e-9, 0.1, rng.normal()])),
            gradient_sensitivity=float(rng.choice([0.0, 0.1, 0.2, rng.random()])),
            loss={p: float(rng.choice([0.0, -0.1, 1e-4, 0.02, rng.random()])) for p in SEED_MENU.names},
            allowed=None if rng.random() < 0.7 else ("INT4", "FP16"),
        )
        for i in range(units)
    )
    return compile_problem(ModelProfile(f"{units} units", layers), SEED_MENU)


def with_odd_values(problem, seed):
    """The problem with NaN and infinities of both signs among its signals and positions."""
    rng = np.random.default_rng(seed)

    def spoilt(values):
        odd = rng.choice([np.nan, -np.nan, np.inf, -np.inf, -1.0, 0.0], len(values))
        return np.where(rng.random(len(values)) < 0.2, odd, values)

    scalars = {name: spoilt(values) for name, values in problem.scalars.items()}
    return dataclasses.replace(problem, scalars=scalars, position=spoilt(problem.position))


PROBLEMS = [
    compile_problem(builtin_profile("seed/train"), SEED_MENU),
    *(model(units, seed) for seed, units in enumerate((1, 3, 56, 143, 144, 145, 431))),
    with_odd_values(model(200, 7), 8),
]


def population(space, n, seed, problem):
    """Rows as a search has them, and others: rungs after gaps, numbers that are values of the model, odd thresholds."""
    rng = generator_for(seed, 0, "test")
    rows = space.mutate(space.sample(rng, n), 0.5, rng)
    rows[::2] = space.canonical(rows[::2])
    first = len(space.types) + 3
    for column in range(first, rows.shape[1] - 1, 3):
        values = problem.signal(space.signals[int(rng.integers(len(space.signals)))])
        odd = [np.inf, np.nan, -np.nan, 0.0, -0.0, -1.0, 1e-7, 1e9]
        drawn = np.where(rng.random(n) < 0.2, rng.choice(odd, n), rng.choice(values, n))
        rows[:, column + 1] = np.where(rng.random(n) < 0.5, drawn, rows[:, column + 1])
    at = rng.choice([*problem.position, 0.5, 1.0, np.nan], n)
    rows[:, first - 2] = np.where(rng.random(n) < 0.3, at, rows[:, first - 2])
    return rows


def through_allocations(space, rows, problem):
    allocations = space.allocate(rows, problem)
    return loss_sums(problem, allocations), cost_sums(problem, allocations)


@pytest.fixture
def only_kernel(monkeypatch):
    def refuse(*_):
        raise AssertionError("scored with NumPy")

    monkeypatch.setattr(rule_compiled, "KERNEL_FROM", 0)
    monkeypatch.setattr(rule_compiled, "_by_numpy", refuse)


@pytest.mark.usefixtures("only_kernel")
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
@pytest.mark.parametrize(
    "space",
    [
        RuleSpace(SEED_MENU, LAYER_TYPES, default_signals(SEED_MENU), 3),
        RuleSpace(SEED_MENU, MANY_TYPES, SIGNALS, 5),
        RuleSpace(SEED_MENU, ("Conv",), ["weight_mean"], 2),
    ],
    ids=["default", "many types", "one signal"],
)
def test_sums_are_those_of_the_allocations(space, problem):
    rows = population(space, 700, 1, problem)
    np.testing.assert_array_equal(space.sums(rows, problem), through_allocations(space, rows, problem))


@pytest.fixture
def prefixes(monkeypatch):
    """Prefix sums for all that they are possible for, with as fine a grid as there may be."""
    monkeypatch.setattr(rule_compiled, "ONE_SIGNAL_FROM", 0)
    monkeypatch.setattr(rule_prefix, "ASKED", 1)
    monkeypatch.setattr(rule_prefix, "LEAST_SHIFT", 0)
    monkeypatch.setattr(rule_compiled, "_made", {})


def of_one_signal(space, rows, seed):
    """The rows, with every present rung of most of them reading one signal."""
    ladder = range(len(space.types) + 3, rows.shape[1] - 1, 3)
    rng = np.random.default_rng(seed)
    signal, alone = rng.integers(1, len(space.signals) + 1, len(rows)), rng.random(len(rows)) < 0.8
    for column in ladder:
        rows[:, column] = np.where(alone & (rows[:, column] > 0), signal, rows[:, column])
    return rows, np.array([len({*row[list(ladder)]} - {0.0}) > 1 for row in rows])


@pytest.mark.usefixtures("only_kernel", "prefixes")
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
@pytest.mark.parametrize(
    "space",
    [
        RuleSpace(SEED_MENU, LAYER_TYPES, default_signals(SEED_MENU), 3),
        RuleSpace(SEED_MENU, MANY_TYPES, SIGNALS, 5),
        RuleSpace(SEED_MENU, ("Conv",), ["weight_mean"], 2),
    ],
    ids=["default", "many types", "one signal"],
)
def test_prefix_sums_are_those_of_the_allocations(space, problem):
    if np.isnan(problem.position).any():  # which only masks can do; signals may be anything
        problem = dataclasses.replace(problem, position=np.round(np.linspace(-0.1, 1.1, len(problem.units)), 2))
    rows, several = of_one_signal(space, population(space, 700, 1, problem), 2)
    expected = through_allocations(space, rows, problem)
    np.testing.assert_array_equal(space.sums(rows, problem), expected)
    ((_, one),) = rule_compiled._made[problem].values()
    assert (one.tables.place >= 0).all()
    losses, costs = np.zeros((2, len(rows)), dtype=np.int64)
    rest = one.score(rows, losses, costs)
    np.testing.assert_array_equal(rest, np.flatnonzero(several))
    np.testing.assert_array_equal(losses[~several], expected[0][~several])
    assert not losses[several].any()


@pytest.mark.usefixtures("only_kernel", "prefixes")
@pytest.mark.parametrize("places", [0, 1, 3], ids="{} places".format)
def test_signals_without_room_are_left_to_masks(monkeypatch, places):
    problem = PROBLEMS[7]
    space = RuleSpace(SEED_MENU, LAYER_TYPES, SIGNALS, 3)
    rows, _ = of_one_signal(space, population(space, 700, 1, problem), 2)
    whole = rule_prefix.OneSignal(problem, space.types, space.signals, rule_compiled._entries(problem)).tables
    tables = (whole.values, whole.slots, whole.sums, whole.positions, whole.ranks, whole.grid)
    monkeypatch.setattr(rule_prefix, "LIMIT_BYTES", places * sum(table[0].nbytes for table in tables))
    np.testing.assert_array_equal(space.sums(rows, problem), through_allocations(space, rows, problem))
    ((_, one),) = rule_compiled._made[problem].values()
    assert (one.tables.place >= 0).sum() == len(one.tables.values) == places


@pytest.mark.usefixtures("only_kernel", "prefixes")
def test_tables_are_made_for_signals_that_are_asked_for(monkeypatch):
    monkeypatch.setattr(rule_prefix, "ASKED", 21)
    problem = PROBLEMS[7]
    space = RuleSpace(SEED_MENU, LAYER_TYPES, SIGNALS, 3)
    rows = np.tile(space.canonical(space.sample(generator_for(4, 0, "test"), 1)), (20, 1))
    rows[:, 9:18:3] = (3, 0, 3)
    expected = through_allocations(space, rows, problem)
    for made in (False, True):
        np.testing.assert_array_equal(space.sums(rows, problem), expected)
        ((_, one),) = rule_compiled._made[problem].values()
        assert set(np.flatnonzero(one.tables.place >= 0)) == ({0, 3} if made else set())


@pytest.mark.usefixtures("only_kernel", "prefixes")
def test_positions_that_are_no_numbers_are_left_to_masks():
    problem = PROBLEMS[-1]
    assert np.isnan(problem.position).any()
    space = RuleSpace(SEED_MENU, LAYER_TYPES, SIGNALS, 3)
    rows, _ = of_one_signal(space, population(space, 300, 1, problem), 2)
    np.testing.assert_array_equal(space.sums(rows, problem), through_allocations(space, rows, problem))
    ((_, one),) = rule_compiled._made[problem].values()
    assert one is None


def test_cells_are_no_more_than_units():
    for members in ([1], [100_000], [40, 3, 1], [17_000] * 6, [2] * 50):
        shift, sides = rule_prefix._blocks(np.array(members))
        assert (sides << shift >= members).all()
        assert ((sides + 1) ** 2).sum() <= max(sum(members), 4 * len(members))


@pytest.mark.usefixtures("only_kernel")
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "made"])
@pytest.mark.parametrize("prefix", [True, False], ids=["prefix sums", "masks"])
def test_chunks_threads_and_tables_change_nothing(monkeypatch, request, kept, prefix):
    if prefix:
        request.getfixturevalue("prefixes")
    problem = PROBLEMS[7]
    space = RuleSpace(SEED_MENU, LAYER_TYPES, SIGNALS, 3)
    monkeypatch.setattr(rule_compiled, "KEPT_BYTES", 2**30 if kept else 0)
    monkeypatch.setattr(rule_compiled, "ROWS_KEPT", 64)
    monkeypatch.setattr(rule_compiled, "ROWS_MADE", 64)
    monkeypatch.setattr(rule_compiled, "THREADS_FROM", 0)
    monkeypatch.setattr("evoquant.scoring.threads.thread_count", lambda: 3)
    monkeypatch.setattr(rule_compiled, "_made", {})
    rows = population(space, 1000, 2, problem)
    rows.setflags(write=False)
    np.testing.assert_array_equal(space.sums(rows, problem), through_allocations(space, rows, problem))
    ((tables, _),) = rule_compiled._made[problem].values()
    assert len(tables.full) == 3
    assert len(tables.sums) == (3 if kept else 0)


@pytest.mark.usefixtures("only_kernel")
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_direct_sums_are_those_of_the_allocations(problem):
    space = DirectSpace(problem)
    rows = space.sample(generator_for(0, 0, "test"), 100)
    np.testing.assert_array_equal(space.sums(rows, problem), through_allocations(space, rows, problem))
    with pytest.raises(GenomeError, match="cannot be applied"):
        space.sums(rows, dataclasses.replace(problem, name="another"))


@pytest.mark.parametrize("column", [6, 8, 9, 11, -1], ids=["protected", "edge", "signal", "rung", "otherwise"])
@pytest.mark.parametrize("value", [99.0, -1.0])
@pytest.mark.parametrize("prefix", [False, True], ids=["masks", "prefix sums"])
def test_rows_beyond_the_limits_are_left_to_numpy(monkeypatch, request, column, value, prefix):
    if prefix:
        request.getfixturevalue("prefixes")
    monkeypatch.setattr(rule_compiled, "KERNEL_FROM", 0)
    problem = PROBLEMS[0]
    space = RuleSpace(SEED_MENU, LAYER_TYPES, default_signals(SEED_MENU), 3)
    rows = np.tile(space.sample(generator_for(3, 0, "test"), 1), (20, 1))
    rows[:, [7, 9, 12, 15]], rows[5, column] = (0.2, 1, 0, 0), value
    asked = []
    monkeypatch.setattr(rule_compiled, "_by_numpy", lambda *some: asked.append(some))
    space.sums(rows, problem)
    assert len(asked) == 1


def test_a_profile_without_losses_or_signals_is_named(monkeypatch):
    monkeypatch.setattr(rule_compiled, "KERNEL_FROM", 0)
    layer = LayerProfile(name="a", type="Conv", shape=(3,), position=0.0, loss={"INT2": 0.1})
    problem = compile_problem(ModelProfile("lacking", (layer,)), SEED_MENU)
    for signals, match in ((["loss:INT4"], "loss for INT4"), (["loss:INT2"], "no loss for")):
        space = RuleSpace(SEED_MENU, LAYER_TYPES, signals, 3)
        rows = space.sample(generator_for(0, 0, "test"), 9)
        with pytest.raises(ProfileError, match=match):
            space.sums(rows, problem)


def test_no_rungs_and_few_types_are_left_to_numpy(monkeypatch):
    monkeypatch.setattr(rule_compiled, "KERNEL_FROM", 0)
    space = RuleSpace(SEED_MENU, ("Conv",), [], 3)
    rows = space.sample(generator_for(0, 0, "test"), 50)
    expected = through_allocations(space, rows, PROBLEMS[0])
    np.testing.assert_array_equal(space.sums(rows, PROBLEMS[0]), expected)


def test_workers_use_it():
    space = RuleSpace(SEED_MENU, LAYER_TYPES, default_signals(SEED_MENU), 3)
    assert isinstance(space, Fused)
    assert isinstance(DirectSpace(PROBLEMS[0]), Fused)
    rows = space.sample(generator_for(0, 0, "test"), 300)
    two = (PROBLEMS[0], PROBLEMS[3])
    losses, costs = separable_worker((space, two))(rows)
    for column, problem in enumerate(two):
        expected = through_allocations(space, rows, problem)
        np.testing.assert_array_equal((losses[:, column], costs[:, column]), expected)


def test_masks_fit_int64():
    assert rule_kernel.WORD_BYTES < 8
    assert rule_kernel.TILE <= 255  # ranks are kept as uint8


def test_small_populations_load_no_compiler():
    code = (
        "import sys\n"
        "from evoquant.genomes.rule import *\n"
        "from evoquant.profiles.builtin import builtin_profile\n"
        "from evoquant.quantization.precision import SEED_MENU\n"
        "from evoquant.rng import generator_for\n"
        "from evoquant.scoring.problem import compile_problem\n"
        "problem = compile_problem(builtin_profile('seed/train'), SEED_MENU)\n"
        "space = RuleSpace(SEED_MENU, LAYER_TYPES, default_signals(SEED_MENU), 3)\n"
        "space.sums(space.sample(generator_for(0, 0, 'test'), 1000), problem)\n"
        "print('numba' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_menus_of_other_sizes(monkeypatch):
    monkeypatch.setattr(rule_compiled, "KERNEL_FROM", 0)
    menu = Menu(list(SEED_MENU)[1:4])
    problem = compile_problem(builtin_profile("seed/train"), menu)
    space = RuleSpace(menu, LAYER_TYPES, default_signals(menu), 2)
    rows = population(space, 300, 5, problem)
    np.testing.assert_array_equal(space.sums(rows, problem), through_allocations(space, rows, problem))
