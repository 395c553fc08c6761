"""The linter: a search with a target never makes a recipe that it refuses; whatever has a fault is named."""

import dataclasses
import re

import numpy as np
import pytest

from evoquant.errors import InputError
from evoquant.export.lint import Finding, lint, refuse
from evoquant.export.recipe import Recipe, build_recipe
from evoquant.export.recipe_schema import Promise, RecipeLayer
from evoquant.export.writers import SUFFIXES
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.profiles.narrowing import constrained
from evoquant.profiles.targets import TARGETS, fused_groups, scheme
from evoquant.quantization.precision import Menu, Precision
from evoquant.report.drawn import draw
from evoquant.report.lint import lint_table, targets_table
from evoquant.rng import generator_for
from evoquant.scoring.problem import compile_problem

MENU = Menu.parse(
    [
        *("INT2-channel", "INT2-g8", "INT3-g32", "INT4-channel", "INT4-g32", "INT4-g128", "INT4-channel-mse"),
        *("INT4-g32-asym", "INT4-g32-a8", "INT6-channel", "INT8-channel", "INT8-g32", "INT8-tensor", "INT8-channel-a8"),
        *("NF4-g32", "FP8-channel", "FP8-tensor", "FP8-g32", "FP16", "BF16", "FP32"),
    ]
)
BLOCK = [*(f"self_attn.{x}_proj" for x in "qkvo"), *(f"mlp.{x}_proj" for x in ("gate", "up", "down"))]
BLOCK += [f"mlp.experts.{i}.w{j}" for i in range(2) for j in (1, 2, 3)] + ["input_layernorm"]
LLAMA = ["model.embed_tokens", *(f"model.layers.0.{part}" for part in BLOCK if "experts" not in part), "lm_head"]
TYPES = ("Linear", "Attention", "Classifier", "Embedding", "Conv", "LayerNorm", "Recurrent", "Other")
SIZES = (1, 2, 3, 7, 9, 16, 32, 48, 64, 128)


def random_profile(seed, *, llama=False):
    """Layers of every type, of 1 to 4 axes, with odd sizes, groups, ties, and names that serving stacks fuse."""
    rng = generator_for(seed, 0, "random deployable profile")
    names = LLAMA if llama else [f"model.layers.0.{part}" for part in BLOCK] + [f"layer{i}" for i in range(4)]
    names = [*rng.permutation(names)[: int(rng.integers(1, 9))], *([] if llama else ["rnn.weight_ih_l0"])]
    layers = []
    for i, name in enumerate(names):
        axes = 2 if rng.random() < 0.5 else int(rng.integers(1, 5))
        shape = tuple(int(size) for size in rng.choice(SIZES[: 10 if axes < 3 else 6], size=axes))
        layers.append(
            LayerProfile(
                name=str(name),
                type=str(rng.choice(TYPES)),
                shape=shape,
                channel_axis=[0, 0, 0, axes - 1, None][int(rng.integers(5))],
                groups=int(rng.choice([1, 1, shape[0]])),
                position=i / max(len(names) - 1, 1),
                allowed=[None, None, (*rng.permutation(MENU.names[:-1])[:9].tolist(), "FP32")][int(rng.integers(3))],
                tie_group=[None, None, "a", "b"][int(rng.integers(4))],
            )
        )
    return ModelProfile(f"random {seed}", tuple(layers))


def recipe_of(profile, widths):
    """A recipe's text without its numbers, which the rules about widths do not read."""
    facts = ("name", "type", "shape", "channel_axis", "groups", "tie_group")
    layers = []
    for layer, width in zip(profile.layers, widths, strict=True):
        known = {key: getattr(layer, key) for key in facts}
        precision = Precision.parse(width)
        layers.append(
            RecipeLayer(
                precision=width, granularity=precision.granularity, effective_bits=float(precision.code_bits), **known
            )
        )
    promise = Promise(bits=0, effective_bits=0.0, compression=1.0, scores={})
    return Recipe(profile.name, "digest", 0, promise, tuple(layers), {}, {})


def errors(findings):
    return [finding for finding in findings if finding.severity == "error"]


@pytest.mark.parametrize("target", TARGETS)
def test_a_search_with_a_target_never_makes_a_recipe_that_its_linter_refuses(target):
    seen = set()
    for seed in range(12):
        profile = random_profile(seed, llama=target == "gguf")
        narrow = constrained(profile, MENU, [target])
        problem = compile_problem(narrow, MENU)
        drawn = generator_for(seed, 0, "allocations").integers(0, len(MENU), (200, len(problem.units)), dtype=np.int8)
        for row in {tuple(row) for row in problem.repair(drawn).tolist()}:
            widths = problem.unfold(np.array(row))
            seen |= set(widths)
            assert not errors(lint(recipe_of(narrow, widths), target, profile)), widths
    assert len(seen) > 2  # not FP32 alone


@pytest.mark.parametrize("target", TARGETS)
def test_every_layer_with_a_fault_is_named_and_its_remedy_leads_to_a_width_that_is_taken(target):
    stack = TARGETS[target]
    for seed in range(6):
        profile = random_profile(seed, llama=target == "gguf")
        rng = generator_for(seed, 0, "widths")
        for _ in range(20):
            widths = rng.choice(MENU.names, size=len(profile.layers)).tolist()
            recipe = recipe_of(profile, widths)
            found = errors(lint(recipe, target))
            faulty = [one.name for one in recipe.layers if stack.fault(one, one.width)]
            assert [finding.layer for finding in found if finding.layer is not None] == faulty
            for one in recipe.layers:
                width, steps = one.width, 0
                while fault := stack.fault(one, width):
                    width, steps = Precision.parse(re.search(r"choose ([\w-]+)", fault)[1]), steps + 1
                    assert steps < 7, (one, fault)
            groups = {}
            for one, width in zip(recipe.layers, widths, strict=True):
                groups.setdefault(one.tie_group, set()).add(width)
            broken = sum(len(held) > 1 for group, held in groups.items() if group is not None)
            merged = [
                {scheme(Precision.parse(widths[[o.name for o in recipe.layers].index(n)])) for n in names}
                for names in fused_groups(recipe.layers)
            ]
            broken += stack.fuses * sum(len(held) > 1 for held in merged)
            assert len([finding for finding in found if finding.layer is None]) == broken


def test_several_targets_together_are_obeyed_together():
    chosen = ["onnx", "openvino", "torchao", "modelopt", "coreml", "compressed-tensors"]
    for seed in range(4):
        narrow = constrained(random_profile(seed), MENU, chosen)
        problem = compile_problem(narrow, MENU)
        for width in range(len(MENU)):
            widths = problem.unfold(problem.repair_one(np.full(len(problem.units), width, np.int8)))
            for target in chosen:
                assert not errors(lint(recipe_of(narrow, widths), target))


def named(layers, widths, **more):
    profile = ModelProfile(
        "m", tuple(LayerProfile(name=n, type="Linear", shape=(4, 64), position=0, **more) for n in layers)
    )
    return recipe_of(profile, widths)


def test_ties_are_checked_for_every_target_and_fused_layers_where_they_are_fused():
    recipe = named(["a", "b", "c"], ["INT4-g32", "INT8-channel", "INT4-g32"], tie_group="t")
    for target in set(TARGETS) - {"gguf"}:
        texts = [finding.message for finding in errors(lint(recipe, target))]
        assert any("tie group 't' differ (a: INT4-g32, b: INT8-channel, … 3 in all)" in text for text in texts)
    names = ["x.gate_proj", "x.up_proj"]
    recipe = named(names, ["INT4-g32", "INT8-channel"])
    assert not errors(lint(recipe, "onnx"))
    (found,) = errors(lint(recipe, "compressed-tensors"))
    assert found.layer is None and "x.gate_proj: INT4-g32, x.up_proj: INT8-channel" in found.message
    # ranges found differently are of the same scheme; all agreeing passes
    assert not errors(lint(named(names, ["INT4-channel", "INT4-channel-mse"]), "compressed-tensors"))


def test_a_recipe_is_compared_with_the_profile():
    recipe = named(["fc1", "fcx", "fc3"], ["INT8-channel", "FP32", "FP32"])
    layers = [LayerProfile(name=f"fc{i}", type="Linear", shape=(4, 64 if i < 3 else 32), position=0) for i in (1, 2, 3)]
    tied = [dataclasses.replace(layer, tie_group="t") for layer in layers]
    found = errors(lint(recipe, "onnx", ModelProfile("net", tuple(tied))))
    assert [finding.layer for finding in found] == ["fcx", "fc3", "fc2", None]
    texts = [finding.message for finding in found]
    assert "no such layer" in texts[0] and "'fc2'" not in texts[3]
    assert "(4, 64)" in texts[1] and "(4, 32)" in texts[1]
    assert "FP32 leaves it" in texts[2]
    assert "tie group 't' differ (fc1: INT8-channel, fc3: FP32)" in texts[3]


@pytest.fixture
def real():
    """A recipe with numbers: two matrices, FP8, and a plain float."""
    rng = generator_for(0, 0, "lint weights")
    names = ("a", "b", "c", "d", "e")
    profile = ModelProfile("m", tuple(LayerProfile(name=n, type="Linear", shape=(4, 32), position=0) for n in names))
    weights = {name: rng.standard_normal((4, 32), dtype=np.float32) for name in names}
    widths = ("INT4-channel", "INT8-g32-asym", "FP8-channel", "FP16", "FP32")
    recipe = build_recipe(profile, widths, weights.__getitem__, "digest", {}, {})
    assert lint(recipe, "onnx") == []
    return recipe


@pytest.mark.parametrize(
    ("tensor", "value", "parts"),
    [
        ("a:scales", 0, ["1 of its 4 scales", "above 0"]),
        ("a:scales", np.nan, ["1 of its 4 scales", "not finite"]),
        ("a:scales", np.inf, ["scales"]),
        ("b:scales", -1, ["1 of its 4 scales"]),
        ("a:codes", 9, ["codes leave -8 to 7", "INT4-channel"]),
        ("c:codes", 0xFF, ["no number"]),
        ("d:values", np.inf, ["not finite"]),
        ("e:values", np.nan, ["not finite"]),
    ],
)
def test_numbers_that_no_consumer_can_use_are_errors(real, tensor, value, parts):
    numbers = real.tensors[tensor].copy()
    numbers.flat[0] = value
    bad = dataclasses.replace(real, tensors={**real.tensors, tensor: numbers})
    (found,) = lint(bad, "onnx")
    assert (found.layer, found.severity) == (tensor[0], "error")
    assert all(part in found.message for part in parts), found.message


def test_equal_weights_under_two_names_are_told_and_equal_constants_are_not():
    rng = generator_for(0, 0, "lint weights")
    shared, zeros = rng.standard_normal((4, 32), dtype=np.float32), np.zeros((4, 32), np.float32)
    weights = {"a": shared, "b": rng.standard_normal((4, 32), dtype=np.float32), "c": shared, "d": zeros, "e": zeros}
    profile = ModelProfile("m", tuple(LayerProfile(name=n, type="Linear", shape=(4, 32), position=0) for n in weights))
    recipe = build_recipe(profile, ["INT4-channel"] * 5, weights.__getitem__, "digest", {}, {})
    (found,) = lint(recipe, "onnx")
    assert found.severity == "warning" and found.message.startswith("a, c hold the same weights")


@pytest.mark.parametrize(
    ("target", "widths", "parts"),
    [
        ("onnx", ["INT2-channel"] * 6, ["a, b, c, d, … 6 in all: INT2 needs opset 25"]),
        ("onnx", ["INT4-channel"] * 6, []),
        ("onnx-matmulnbits", ["INT4-channel", *["INT4-g32"] * 5], ["expanded in memory"]),
        ("openvino", ["FP32"] * 6, ["DYNAMIC_QUANTIZATION_GROUP_SIZE 0"]),
        ("compressed-tensors", ["INT2-channel", *["FP32"] * 5], ["recent releases only", "5.23.0"]),
        ("compressed-tensors", ["INT8-tensor", *["FP32"] * 5], ["for each channel", "multiples of 64", "5.23.0"]),
        ("torchao", ["INT8-channel", *["FP32"] * 5], ["zero point of 8 bits"]),
        ("modelopt", ["FP8-tensor", *["FP32"] * 5], ["labels FP8", "scales in FP32", "own simulation"]),
        ("tensorrt", ["FP32"] * 6, ["nothing could be run"]),
        ("executorch", ["FP32"] * 6, ["by itself", "nothing could be run"]),
        ("coreml", ["FP32"] * 6, ["model's type", "by itself", "nothing could be run"]),
    ],
)
def test_what_is_taken_and_should_be_known_is_a_warning(target, widths, parts):
    found = lint(named(list("abcdef"), widths), target)
    assert {finding.severity for finding in found} <= {"warning"}
    assert len(found) == len(parts)
    assert all(part in finding.message for part, finding in zip(parts, found, strict=True))


def test_gguf_is_for_llamas_and_says_that_it_rounds():
    recipe = named(["model.layers.0.mlp.up_proj"], ["INT4-g32"])
    rounds, tokens = lint(recipe, "gguf")
    assert rounds.severity == tokens.severity == "warning" and "8 bits" in rounds.message and "bytes" in tokens.message
    (refused, *_) = lint(named(["features.0"], ["FP32"]), "gguf")
    assert refused.severity == "error" and "no architecture" in refused.message


def test_refuse_lists_at_most_eight_errors_and_lets_warnings_pass():
    refuse([Finding(None, "warning", "w")], "recipe.json")
    few = [Finding("a", "error", "one"), Finding(None, "error", "two"), Finding("b", "warning", "w")]
    with pytest.raises(InputError) as caught:
        refuse(few, "recipe.json: for onnx")
    assert str(caught.value) == "recipe.json: for onnx: cannot be deployed as it is:\n  layer 'a': one\n  two"
    with pytest.raises(InputError) as caught:
        refuse([Finding(str(i), "error", "bad") for i in range(20)], "r")
    assert str(caught.value).count("bad") == 8 and "and 12 more" in str(caught.value)


def test_an_unknown_target_is_refused():
    with pytest.raises(InputError, match=r"'gguff'.*'gguf'"):
        lint(named(["a"], ["FP32"]), "gguff")


def test_tables_fit_a_hundred_columns_and_leave_nothing_out(capsys):
    name = "model.layers.11.mlp.experts.63.gate_proj"
    findings = lint(named([name, "b"], ["INT4-g32-asym", "INT2-channel"]), "compressed-tensors")
    table = lint_table([dataclasses.asdict(finding) for finding in findings], "compressed-tensors")
    assert table.title == "compressed-tensors: cannot be deployed as it is (1 error, 2 warnings)"
    draw([table, targets_table(SUFFIXES)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    text = re.sub(r"\s+", " ", "".join(lines))
    for target in TARGETS.values():
        assert all(version in text for version in target.verified.values())
    named_so = [row[0].rpartition("\n(") for row in targets_table(SUFFIXES).rows]
    assert [name.replace("\n", "") for name, _, _ in named_so] == list(TARGETS)
    assert [ending.removesuffix(")") for _, _, ending in named_so] == [SUFFIXES[one] or "a folder" for one in TARGETS]
    assert table.rows[0][1].replace("\n", "") == name
    assert lint_table([], "onnx").title == "onnx: can be deployed as it is (0 errors, 0 warnings)"
