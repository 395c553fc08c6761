import ast
import importlib.util
import json
import subprocess
import sys

import pytest

from evoquant.errors import InputError, PrecisionError
from evoquant.export import render
from evoquant.genomes.rule import Rule, Rung
from evoquant.genomes.strategies import strategy
from evoquant.profiles.model import PER_WIDTH, LayerProfile, ModelProfile, profile_to_dict, profile_to_json
from evoquant.quantization.precision import SEED_MENU, Menu
from evoquant.scoring.problem import PER_BIT, compile_problem

from .conftest import GROUPED_MENU, SIGNALS, at_prices, champion_of, prices, random_rules, with_types

# Runs in an interpreter that sees nothing but the standard library.
DRIVER = """
import importlib.util, json, pathlib, sys
modules, models = (sorted(pathlib.Path(folder).iterdir()) for folder in sys.argv[1:])
profiles = [json.loads(path.read_text(encoding="utf-8"))["layers"] for path in models]
result = []
for path in modules:
    spec = importlib.util.spec_from_file_location("champion", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    result.append([module.allocate(layers) for layers in profiles])
assert not any(name.partition(".")[0] in ("numpy", "evoquant", "yaml") for name in sys.modules)
print(json.dumps(result))
"""


def expected(rules, profiles, menu=SEED_MENU):
    problems = [compile_problem(profile, menu) for profile in profiles]
    return [[list(problem.unfold(rule.allocate(problem))) for problem in problems] for rule in rules]


def run_alone(folder, sources, profiles):
    for name, texts in (("modules", sources), ("models", [profile_to_json(profile) for profile in profiles])):
        (folder / name).mkdir()
        for i, text in enumerate(texts):
            suffix = "py" if name == "modules" else "json"
            (folder / name / f"f{i:04}.{suffix}").write_text(text, encoding="utf-8")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", DRIVER, folder / "modules", folder / "models"],
        capture_output=True,
        text=True,
        cwd=elsewhere,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def load(tmp_path, source, name="champion"):
    path = tmp_path / f"{name}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_allocates_exactly_as_the_rule_on_the_suite(tmp_path, rules, suite):
    sources = [render("python", champion_of(rule)) for rule in rules]
    assert run_alone(tmp_path, sources, suite) == expected(rules, suite)


def test_tie_groups_forbidden_widths_and_groups(tmp_path, tied_models):
    widths = [f"{kind}:{name}" for kind in PER_WIDTH for name in GROUPED_MENU.names]
    nominal = ["loss:INT4", "fisher:INT8", "weight_error:INT2"]
    rules = random_rules(60, 5, GROUPED_MENU, (*(s for s in SIGNALS if ":" not in s), *widths, *nominal))
    rules += [Rule("INT4"), Rule("INT2", (Rung("loss:INT4", 0.2, "INT8"),))]
    champions = [champion_of(rule, menu=list(GROUPED_MENU.names)) for rule in rules]
    sources = [render("python", champion) for champion in champions]
    assert run_alone(tmp_path, sources, tied_models) == expected(rules, tied_models, GROUPED_MENU)


def test_prices_to_the_last_bit_on_the_suite(tmp_path, suite):
    rules = at_prices([compile_problem(profile, SEED_MENU) for profile in suite])
    rules += random_rules(20, 3, signals=prices(SEED_MENU))
    sources = [render("python", champion_of(rule)) for rule in rules]
    assert run_alone(tmp_path, sources, suite) == expected(rules, suite)


def test_prices_of_tie_groups_and_scales(tmp_path, tied_models):
    rules = at_prices([compile_problem(profile, GROUPED_MENU) for profile in tied_models[:8]])
    rules += random_rules(30, 4, GROUPED_MENU, (*prices(GROUPED_MENU, PER_BIT), "loss_per_bit:INT8", "loss:INT4"))
    sources = [render("python", champion_of(rule, menu=list(GROUPED_MENU.names))) for rule in rules]
    assert run_alone(tmp_path, sources, tied_models) == expected(rules, tied_models, GROUPED_MENU)


def test_prices_say_what_they_are_and_what_is_missing(tmp_path):
    rule = Rule("INT4", (Rung("loss_per_bit:INT4", 0.1, "INT8"),))
    module = load(tmp_path, render("python", champion_of(rule)))
    assert "where loss_per_bit:W is what a step down from the next wider width" in module.__doc__
    layer = {"name": "a", "type": "Conv", "shape": [2], "loss": {"INT4": 0.4, "INT8": 0.0}}
    assert module.allocate([layer]) == ["INT8"]
    del layer["loss"]["INT8"]
    with pytest.raises(ValueError, match="reads loss:INT4 and loss:INT8, which some layer lacks"):
        module.allocate([layer])
    for width, fault in (("FP32", "FP32 is the widest of the menu"), ("INT3", "has no INT3")):
        for target in ("python", "rust"):
            with pytest.raises(InputError, match=fault):
                render(target, champion_of(Rule("INT4", (Rung(f"loss_per_bit:{width}", 0.1, "INT8"),))))


def test_hostile_names(tmp_path, hostile, suite):
    rules, sources, models = [], [], [with_types(suite[2], hostile), with_types(suite[0], hostile)]
    for name in hostile:
        rule = Rule("INT8", protected=frozenset({name, "Conv"}), protected_width="FP16")
        champion = champion_of(rule, **{name: name, "model": name, "nested": {name: [name]}})
        rules.append(rule)
        sources.append(render("python", champion))
    assert run_alone(tmp_path, sources, models) == expected(rules, models)


def test_source_is_python_3_9_and_printable(rules, hostile):
    hostile_rules = [Rule("INT8", protected=frozenset({name}), protected_width="FP16") for name in hostile]
    for rule in [*rules, *hostile_rules]:
        source = render("python", champion_of(rule))
        tree = ast.parse(source, feature_version=(3, 9))
        imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        assert imported == {"json", "math", "sys"}
        assert all(c.isprintable() or c == "\n" for c in source)
        assert source.isascii() or rule in hostile_rules


def test_docstring_says_the_rule_and_where_it_comes_from(tmp_path):
    source = render("python", champion_of(strategy("wider_fp16_zone"), config_hash="abc"))
    doc = load(tmp_path, source).__doc__
    steps = ["type Classifier, LayerNorm: FP32", "position < 0.075", "loss:FP16 > 0.001: FP32", "else: FP16"]
    places = [doc.index(step) for step in steps]
    assert places == sorted(places)
    assert "config_hash: abc" in doc
    assert "train: fitness 2.5, retention 0.96" in doc


def test_script_prints_json(tmp_path, suite):
    module, model = tmp_path / "champion.py", tmp_path / "model.json"
    module.write_text(render("python", champion_of(strategy("wider_fp16_zone"))), encoding="utf-8")
    model.write_text(profile_to_json(suite[2]), encoding="utf-8")

    def run(*arguments):
        command = [sys.executable, "-I", "-S", module, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)

    done = run(model)
    assert (done.returncode, done.stderr) == (0, "")
    (widths,) = expected([strategy("wider_fp16_zone")], [suite[2]])[0]
    assert json.loads(done.stdout) == dict(zip((layer.name for layer in suite[2].layers), widths, strict=True))
    assert run().returncode == 2
    model.write_text('{"layers": [{"name": "a", "type": "Conv"}]}')
    done = run(model)
    assert done.returncode == 2
    assert "the heuristic reads loss:FP16, which some layer lacks" in done.stderr
    assert "Traceback" not in done.stderr
    for text in ("{", "3", '{"layers": 3}', '[{"type": "Conv", "loss": {"FP16": 0}}]', '{"other": []}'):
        model.write_text(text)
        done = run(model)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert str(model) in done.stderr
    assert run(tmp_path / "missing.json").returncode == 2


def test_position_is_derived_where_it_is_missing(tmp_path, suite):
    module = load(tmp_path, render("python", champion_of(strategy("position_aware"))))
    for profile in suite:
        layers = profile_to_dict(profile)["layers"]
        with_position = module.allocate(layers)
        for layer in layers:
            del layer["position"]
        assert module.allocate(layers) == with_position
    assert module.allocate([{"name": "a", "type": "Conv"}]) == ["INT8"]
    assert module.allocate([]) == []


def test_nothing_allowed_is_an_error(tmp_path):
    module = load(tmp_path, render("python", champion_of(Rule("INT8"))))
    with pytest.raises(ValueError, match="nothing of the menu is allowed for 'a'"):
        module.allocate([{"name": "a", "type": "Conv", "allowed": ["INT3"]}])


@pytest.mark.parametrize("value", [1e-5, 0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.25, 123456789.123456789, 1e16])
def test_thresholds_to_the_last_bit(tmp_path, value):
    rule = Rule("INT4", (Rung("weight_mean", value, "FP16"),), edges=0.1 + 0.2, edge_width="FP32")
    module = load(tmp_path, render("python", champion_of(rule)))
    ((names, above, width),) = module.RUNGS
    assert (names, above, width) == (("weight_mean",), value, "FP16")
    assert module.EDGES == 0.1 + 0.2


def test_menu_argument_and_default(tmp_path):
    menu = Menu.parse(["INT8-channel", "FP16"])
    champion = champion_of(Rule("INT8"))
    assert load(tmp_path, render("python", champion, menu=menu), "a").allocate([{"type": "Conv"}]) == ["INT8-channel"]
    del champion.provenance["menu"]
    menu_of_none = load(tmp_path, render("python", champion), "b").MENU
    assert menu_of_none == SEED_MENU.names
    with pytest.raises(PrecisionError, match="has no INT4"):
        render("python", champion_of(Rule("INT4")), menu=menu)


def test_rules_that_no_code_can_hold_are_refused():
    with pytest.raises(InputError, match="unknown signal"):
        render("python", champion_of(Rule("INT8", (Rung("x = 1", 0.1, "FP16"),))))
    with pytest.raises(InputError, match="which no source code can hold"):
        render("python", champion_of(Rule("INT8", (Rung("parameters", float("inf"), "FP16"),))))


def test_a_nominal_signal_reads_the_menu_s_own(tmp_path):
    menu = Menu.parse(["INT8-channel", "FP16"])
    layers = tuple(
        LayerProfile(f"l{i}", "Conv", (2, 2), i / 2, loss={"INT8-channel": i / 10, "FP16": 0.0}) for i in range(3)
    )
    rule = Rule("INT8", (Rung("loss:INT8", 0.1, "FP16"),))
    module = load(tmp_path, render("python", champion_of(rule), menu=menu))
    profile = ModelProfile("m", layers)
    assert [module.allocate(profile_to_dict(profile)["layers"])] == expected([rule], [profile], menu)[0]
