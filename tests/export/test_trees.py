import ast
import json

import numpy as np
import pytest

from evoquant.campaign.champion import champion_from_dict
from evoquant.campaign.yaml_file import parse_yaml
from evoquant.errors import InputError
from evoquant.export import render
from evoquant.genomes.expression import ALL_SIGNALS, NUMBER_SIGNALS, OPERATOR, PER_UNIT, PER_WIDTH, STATE, signals_of
from evoquant.genomes.tree import Tree, TreeSpace
from evoquant.genomes.tree_simplify import simplify
from evoquant.profiles.model import LayerProfile, ModelProfile, profile_to_dict
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.problem import compile_problem

from .conftest import GROUPED_MENU, TYPES, champion_of, with_types
from .test_python import expected, load, run_alone
from .test_rust import build, check_units, needs_rustc, run

SUITE_SIGNALS = tuple(name for name in ALL_SIGNALS if name not in PER_WIDTH or name in ("loss", "bits"))
GROUPED = {"menu": list(GROUPED_MENU.names)}
# Every operator, and no part that simplifying takes away.
ALL = (
    "where", "and", "or", "not", "is_Conv", "is_Attention", "greater", "share", 1e-05,
    "add", "loss", "mul", 0.0062, "div", "bits", "max", "position", 0.1,
    "sub", "min", "sqrt", "model_loss", "square", "bits", "max", "neg", "div", "units", "loss", "share",
)  # fmt: skip
WIDE = ("add", "mul", "divergence", "hessian", "add", "mul", 3.0, "fisher", "add", "mul", 0.25, "bits",
        "sub", "mul", "weight_error", "weight_mean", "div",
        "mul", "expected_loss", "weight_std", "add", "weight_range", "activation_range")  # fmt: skip


SHORT = ("add", "loss", "mul", "sub", 0.1, "total_loss", "size_share")
STATEFUL = ("add", "mul", "loss", "add", 1.0, "total_loss", "div", "mul", 0.08, "mul", "bits", "share", "mean_bits")


def random_trees(n, seed, signals):
    """Trees that read some per-width signal, so that units differ."""
    space = TreeSpace(SEED_MENU, TYPES, signals)
    rng = np.random.default_rng(seed)
    trees = [space.decode(row) for row in space.mutate(space.sample(rng, 4 * n), 0.2, rng)]
    return [tree for tree in trees if len(simplify(tree.expression)) > 2][:n]


def test_what_is_exported_covers_every_operator_and_signal():
    assert set(OPERATOR) <= set(simplify(ALL))
    read = {*signals_of(simplify(ALL)), *signals_of(simplify(WIDE)), *signals_of(simplify(STATEFUL))}
    assert {*STATE, *PER_WIDTH, *PER_UNIT, "units", "model_loss"} - {"gradient_sensitivity"} <= read


def test_python_allocates_exactly_as_the_tree_on_the_suite(tmp_path, suite):
    trees = [Tree(ALL), Tree(STATEFUL), Tree((0.5,)), *random_trees(30, 1, SUITE_SIGNALS)]
    sources = [render("python", champion_of(tree)) for tree in trees]
    assert run_alone(tmp_path, sources, suite) == expected(trees, suite)


def test_python_tie_groups_forbidden_widths_and_scales(tmp_path, tied_models):
    trees = [Tree(ALL), Tree(WIDE), Tree(STATEFUL), Tree(SHORT), *random_trees(50, 2, ALL_SIGNALS)]
    sources = [render("python", champion_of(tree, **GROUPED)) for tree in trees]
    assert run_alone(tmp_path, sources, tied_models) == expected(trees, tied_models, GROUPED_MENU)


def test_python_hostile_types(tmp_path, hostile, suite):
    models = [with_types(suite[2], hostile)]
    trees = [Tree(("where", f"is_{name}", "loss", "mul", "loss", "neg", "share")) for name in hostile]
    sources = [render("python", champion_of(tree, **{name: name})) for tree, name in zip(trees, hostile, strict=True)]
    assert run_alone(tmp_path, sources, models) == expected(trees, models)
    for source in sources:
        parsed = ast.parse(source, feature_version=(3, 9))
        assert {a.name for node in ast.walk(parsed) if isinstance(node, ast.Import) for a in node.names} == {
            "json",
            "math",
            "sys",
        }
        assert all(c.isprintable() or c == "\n" for c in source)


def test_python_says_the_formula_and_what_is_missing(tmp_path, suite):
    module = load(tmp_path, render("python", champion_of(Tree(("add", "loss", "mul", 0.0062, "bits")))))
    assert "    loss + 0.0062·bits\n" in module.__doc__
    assert module.cost("Conv", 1.0, 2.0) == 1.0 + 0.0062 * 2.0
    with pytest.raises(ValueError, match="reads loss:INT4, which some layer lacks"):
        module.allocate([{"name": "a", "type": "Conv", "shape": [2], "loss": {"INT2": 0.1}}])
    layers = profile_to_dict(suite[0])["layers"]
    layers[0]["allowed"] = ["INT3"]
    with pytest.raises(ValueError, match="nothing of the menu is allowed for"):
        module.allocate(layers)
    assert module.allocate([]) == []


def test_long_formulas_are_broken_into_lines():
    tree = ("gradient_sensitivity",)
    for signal in ("activation_range", "weight_range", "model_loss", "gradient_sensitivity"):
        tree = ("mul", *("add", *tree, signal), *("sub", *tree, signal))
    for target in ("python", "rust"):
        source = render(target, champion_of(Tree(tree)))
        start = source.index("def cost(" if target == "python" else "pub fn cost(")
        lines = source[start : source.index("\n\n", start)].splitlines()
        assert len(lines) > 40
        assert max(map(len, lines)) <= 110


def test_figures_saturate_alike(tmp_path):
    model = ModelProfile(
        "m",
        tuple(
            LayerProfile(f"l{i}", "Conv", (2,), i / 3, weight_mean=mean, loss=dict.fromkeys(SEED_MENU.names, s))
            for i, (mean, s) in enumerate([(1e300, 1.0), (-1e300, 0.9999999999), (0.0, -1.0), (5e-324, 0.0)])
        ),
    )
    trees = [
        Tree(("mul", "mul", "weight_mean", "weight_mean", "bits")),
        Tree(("add", "div", "loss", "weight_mean", "bits")),
        Tree(("sub", "div", 1e100, "weight_mean", "mul", 1e99, "bits")),
        Tree(("add", "square", "weight_mean", "mul", "loss", "neg", "bits")),
    ]
    sources = [render("python", champion_of(tree)) for tree in trees]
    assert run_alone(tmp_path, sources, [model]) == expected(trees, [model])


def test_json_and_yaml_give_the_tree_back():
    champion = champion_of(Tree(ALL))
    assert champion_from_dict(json.loads(render("json", champion)), "x").genome == Tree(ALL)
    assert champion_from_dict(parse_yaml(render("yaml", champion), "x"), "x").genome == Tree(ALL)


@needs_rustc
@pytest.mark.parametrize("index", range(3))
def test_rust_allocates_exactly_as_the_tree_on_the_suite(tmp_path, suite, index):
    trees = [tree for tree in random_trees(60, 5, SUITE_SIGNALS) if tree.parts > 12]
    tree = [Tree(ALL), Tree(STATEFUL), Tree(SHORT), *trees][index]
    program = build(tmp_path, champion_of(tree))
    for profile in suite:
        check_units(program, tree, compile_problem(profile, SEED_MENU))


@needs_rustc
@pytest.mark.parametrize("index", range(4))
def test_rust_merged_units_and_scales(tmp_path, tied_models, index):
    trees = [tree for tree in random_trees(60, 6, NUMBER_SIGNALS) if tree.parts > 9]
    tree = [Tree(WIDE), Tree(ALL), Tree(STATEFUL), *trees][index]
    program = build(tmp_path, champion_of(tree, **GROUPED))
    for profile in tied_models:
        check_units(program, tree, compile_problem(profile, GROUPED_MENU))


@needs_rustc
@pytest.mark.parametrize(
    "expression",
    [(0.5,), ("bits",), ("neg", "fisher"), ("mul", "mean_bits", "neg", "bits"), ("div", "bits", "total_loss")],
    ids=str,
)
def test_rust_small_trees_compile_without_warnings(tmp_path, tied_models, expression):
    tree = Tree(expression)
    check_units(build(tmp_path, champion_of(tree, **GROUPED)), tree, compile_problem(tied_models[4], GROUPED_MENU))


@needs_rustc
def test_rust_hostile_types_and_faults(tmp_path, hostile):
    tree = ("loss",)
    for name in hostile:
        tree = ("where", f"is_{name}", "mul", "loss", "neg", "bits", *tree)
    tree = Tree(tree)
    program = build(tmp_path, champion_of(tree, **{name: name for name in hostile}))
    types = [name for name in hostile if not set(name) & set("\t\r\n\x00")]
    losses = {name: i / 7 for i, name in enumerate(SEED_MENU.names)}
    layers = [LayerProfile(f"l{i}", kind, (2,), 0.5, loss=losses) for i, kind in enumerate([*types, types[0] + "x"])]
    check_units(program, tree, compile_problem(ModelProfile("m", tuple(layers)), SEED_MENU))
    done = run(program, "name\ttype\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert "names no column loss:INT2" in done.stderr
    with pytest.raises(InputError, match="not Unicode text"):
        render("rust", champion_of(Tree(("where", "is_\ud800", "loss", "bits"))))
