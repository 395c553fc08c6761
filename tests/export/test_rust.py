import shutil
import subprocess

import numpy as np
import pytest

from evoquant.errors import InputError
from evoquant.export import render
from evoquant.genomes.rule import Rule, Rung
from evoquant.genomes.strategies import STRATEGIES, strategy
from evoquant.profiles.model import PER_WIDTH, LayerProfile, ModelProfile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.problem import PER_BIT, compile_problem

from .conftest import GROUPED_MENU, at_prices, champion_of, prices, random_rules

RUSTC = shutil.which("rustc")
needs_rustc = pytest.mark.skipif(RUSTC is None, reason="rustc is not installed: the Rust export is not compiled")
SCALARS = ("gradient_sensitivity", "parameters", "weight_mean", "weight_std", "weight_range", "activation_range")


def table(profile, menu=SEED_MENU):
    """A profile as the program's tab-separated input."""
    kinds = [kind for kind in PER_WIDTH if any(getattr(layer, kind) for layer in profile.layers)]
    signals = [(kind, name) for kind in kinds for name in menu.names]
    header = ["name", "type", "position", *SCALARS, *(f"{kind}:{name}" for kind, name in signals), "allowed"]
    lines = ["\t".join(header)]
    for layer in profile.layers:
        cells = [layer.name, layer.type, repr(layer.position)]
        cells += [repr(float(getattr(layer, name))) for name in SCALARS]
        cells += [repr(getattr(layer, kind)[name]) for kind, name in signals]
        lines.append("\t".join([*cells, ",".join(layer.allowed or ())]))
    return "\n".join(lines) + "\n"


def build(tmp_path, champion, **options):
    source, program = tmp_path / "champion.rs", tmp_path / "champion"
    source.write_text(render("rust", champion, **options), encoding="utf-8")
    command = [RUSTC, "-D", "warnings", "--edition", "2021", "-C", "debuginfo=0", source, "-o", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return program


def run(program, text):
    return subprocess.run([program], input=text, capture_output=True, text=True, encoding="utf-8", check=False)


def check(program, rule, profile, menu=SEED_MENU):
    done = run(program, table(profile, menu))
    assert (done.returncode, done.stderr) == (0, "")
    problem = compile_problem(profile, menu)
    names = [layer.name for layer in profile.layers]
    expected = [f"{name}\t{width}" for name, width in zip(names, problem.unfold(rule.allocate(problem)), strict=True)]
    assert done.stdout.splitlines() == expected


def unit_table(problem):
    """A problem's units as the program's tab-separated input, merged as its header says."""
    names = problem.menu.names
    losses = -np.expm1(-problem.loss / 2**40)
    columns = {"name": [f"unit {i}" for i in range(len(problem.units))], "type": problem.types.tolist()}
    columns["position"] = problem.position.tolist()
    columns |= {name: values.tolist() for name, values in problem.scalars.items()}
    for i, name in enumerate(names):
        columns[f"loss:{name}"] = losses[:, i].tolist()
        columns[f"bits:{name}"] = (problem.cost.table[:, i] // 1024).tolist()
        for kind in PER_WIDTH[1:]:
            if name in problem.widths[kind]:
                columns[f"{kind}:{name}"] = problem.widths[kind][name].tolist()
    columns["allowed"] = [",".join(np.array(names)[row].tolist()) for row in problem.allowed]
    rows = zip(*columns.values(), strict=True)
    return "".join("\t".join(map(str, row)) + "\n" for row in [tuple(columns), *rows])


def check_units(program, genome, problem):
    done = run(program, unit_table(problem))
    assert (done.returncode, done.stderr) == (0, "")
    widths = [problem.menu.names[i] for i in genome.allocate(problem)]
    assert [line.split("\t")[1] for line in done.stdout.splitlines()] == widths


NAMED = ("wider_fp16_zone", "greedy_sensitivity", "uniform_int4", "first_last_fp16", "layer_type_aware")


@needs_rustc
@pytest.mark.parametrize("name", NAMED)
def test_strategies_on_every_suite_model(tmp_path, suite, name):
    program = build(tmp_path, champion_of(STRATEGIES[name]))
    for profile in suite:
        check(program, STRATEGIES[name], profile)


@needs_rustc
@pytest.mark.parametrize("index", range(4))
def test_random_rules_on_every_suite_model(tmp_path, suite, index):
    rules = [rule for rule in random_rules(40, seed=7) if rule.parts >= 4]
    program = build(tmp_path, champion_of(rules[index]))
    for profile in suite:
        check(program, rules[index], profile)


@needs_rustc
def test_hostile_names(tmp_path, hostile):
    rule = Rule("INT8", protected=frozenset(hostile), protected_width="FP16")
    champion = champion_of(rule, **{name: name for name in hostile})
    program = build(tmp_path, champion)
    # A type with a tab or a line break cannot stand in a table; in the program it can.
    types = [name for name in hostile if not set(name) & set("\t\r\n\x00")]
    layers = [LayerProfile(f"l{i}", kind, (2,), 0.5) for i, kind in enumerate([*types, "Conv", types[0] + "x"])]
    check(program, rule, ModelProfile("m", tuple(layers)), SEED_MENU)


@needs_rustc
def test_forbidden_widths_and_a_nominal_signal(tmp_path):
    rule = Rule("INT2", (Rung("loss:INT4", 0.2, "FP16"),))
    options = [None, ("INT4-channel", "FP32"), ("INT8-channel",), ("INT4-channel", "INT3")]
    layers = [
        LayerProfile(f"l{i}", "Conv", (4, 4), 0.5, allowed=allowed, loss=dict.fromkeys(GROUPED_MENU.names, s))
        for i, (allowed, s) in enumerate((allowed, s) for allowed in options for s in (0.2, 0.20000000000000004))
    ]
    program = build(tmp_path, champion_of(rule), menu=GROUPED_MENU)
    check(program, rule, ModelProfile("m", tuple(layers)), GROUPED_MENU)


@needs_rustc
@pytest.mark.parametrize("below", [0, 1])
def test_prices_to_the_last_bit(tmp_path, suite, below):
    problems = [compile_problem(profile, SEED_MENU) for profile in suite]
    exact = at_prices(problems)
    rungs = [exact[8 * i + 2 * i + below].rungs[0] for i in range(4)]  # signal i, of model i
    rule = Rule("INT2", tuple(Rung(r.signal, r.above, w) for r, w in zip(rungs, SEED_MENU.names[1:], strict=True)))
    program = build(tmp_path, champion_of(rule))
    for profile in suite:
        check(program, rule, profile)


@needs_rustc
@pytest.mark.parametrize(
    "signals",
    [("loss_per_bit:INT4",), ("fisher_per_bit:INT4",), (*prices(GROUPED_MENU, PER_BIT), "parameters", "loss:INT4")],
)
def test_prices_of_merged_units_with_scales(tmp_path, tied_models, signals):
    rungs = tuple(Rung(name, 0.3, width) for name, width in zip(signals, GROUPED_MENU.names[::-1] * 2, strict=False))
    rule = Rule("INT2", rungs, protected=frozenset({"LayerNorm"}), protected_width="FP32")
    program = build(tmp_path, champion_of(rule), menu=GROUPED_MENU)
    for profile in tied_models:
        check_units(program, rule, compile_problem(profile, GROUPED_MENU))


@needs_rustc
def test_thresholds_to_the_last_bit(tmp_path):
    values = [1e-5, 0.1 + 0.2, 5e-324, 1e16, 123456789.123456789, 1.7976931348623157e308, -0.25]
    rungs = tuple(Rung(name, value, "FP32") for name, value in zip((*SCALARS, "loss:INT4"), values, strict=True))
    source = render("rust", champion_of(Rule("INT4", rungs, edges=0.1 + 0.2, edge_width="FP16")))
    for value in (*values, 0.1 + 0.2):
        assert repr(value) in source
    build(tmp_path, champion_of(Rule("INT4", rungs)))
    rule = Rule("INT4", (Rung("weight_mean", 0.1 + 0.2, "FP32"),))
    program = build(tmp_path, champion_of(rule))
    layers = [
        LayerProfile(f"l{i}", "Conv", (2,), 0.5, weight_mean=mean)
        for i, mean in enumerate((0.3, 0.1 + 0.2, 0.30000000000000010, -0.0))
    ]
    check(program, rule, ModelProfile("m", tuple(layers)))


@needs_rustc
def test_faults_end_with_a_message(tmp_path, suite):
    program = build(tmp_path, champion_of(strategy("wider_fp16_zone")))
    for text, fault in (
        ("", "the first line names no column name"),
        ("name\ttype\tposition\n", "the first line names no column loss:FP16"),
        ("name\ttype\tposition\tloss:FP16\na\tConv\tx\t0\n", '"x" is not a number'),
        ("name\ttype\tposition\tloss:FP16\na\tConv\n", '"" is not a number'),
        ("name\ttype\tposition\tloss:FP16\tallowed\na\tConv\t0\t0\tINT3\n", "a: nothing of the menu is allowed"),
    ):
        done = run(program, text)
        assert (done.returncode, done.stdout) == (2, "")
        assert fault in done.stderr
        assert "panicked" not in done.stderr


def test_comments_cannot_be_broken_out_of(hostile):
    rule = Rule("INT8", protected=frozenset(hostile), protected_width="FP16")
    source = render("rust", champion_of(rule, **{name: name for name in hostile}))
    header = source.split("\nuse std")[0]
    assert all(line.startswith("//!") for line in header.split("\n") if line)
    assert all(c.isprintable() or c == "\n" for c in source)


def test_a_type_that_is_no_unicode_text_is_refused():
    with pytest.raises(InputError, match="not Unicode text"):
        render("rust", champion_of(Rule("INT8", protected=frozenset({"\ud800"}), protected_width="FP16")))
