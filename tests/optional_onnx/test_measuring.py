"""ONNX networks: each layer is found, is measured, and gives what the whole graph gives with that weight baked in."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from onnx import numpy_helper

from evoquant.execution.local import LocalExecutor
from evoquant.models.base import DIVERGENCE, REFERENCE, SCORE, SPLITS, Failed, Request
from evoquant.models.kept import Bounded
from evoquant.models.measurer import start_measurer
from evoquant.models.onnx_graph import subgraphs
from evoquant.models.onnx_task import load_onnx_task, open_network
from evoquant.quantization.activations import fake_quantize_activations
from evoquant.quantization.numerics import fake_quantize
from evoquant.quantization.precision import Menu, Precision
from tests.optional_onnx.models import MODELS, TENSORS, build, tensor

MENU = Menu.parse(["INT2-channel", "INT4-channel", "INT8-channel", "FP16", "FP32"])


def load(name, **options):
    model, data = MODELS[name]()
    kind = {"branches": "regression"}.get(name)
    return load_onnx_task(model.SerializeToString(), data, kind=kind, name=name, block=8, batch=5, **options)


@pytest.fixture(scope="module", params=MODELS)
def task(request):
    return load(request.param)


def alone(task, index, width):
    return tuple(width if i == index else REFERENCE for i in range(len(task.layers)))


def outputs(task, widths, split="calibration"):
    samples = task.data[split]
    count = min(task.batch, samples.count)
    return open_network(task).run(widths, samples.part(0, count), samples.shared, count)[0]


def bake(graph, name, change):
    """Replace the tensor `name` wherever it is held; returns how often."""
    found = 0
    for held in graph.initializer:
        if held.name == name:
            held.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(held)), name))
            found += 1
    for node in graph.node:
        if node.op_type == "Constant" and node.output[0] == name:
            node.attribute[0].t.CopyFrom(
                numpy_helper.from_array(change(numpy_helper.to_array(node.attribute[0].t)), name)
            )
            found += 1
        found += sum(bake(inner, name, change) for inner in subgraphs(node))
    return found


def baked_outputs(task, changes):
    """The outputs of the model as built, with tensors changed, in a session of its own with every optimization."""
    model, _ = MODELS[task.name]()
    for name, change in changes.items():
        assert bake(model.graph, name, change) == 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    samples = task.data["calibration"]
    part = samples.part(0, task.batch)
    return session.run(None, {spec.name: part[f"input{i}"] for i, spec in enumerate(task.specs)})[0]


def test_the_layers_are_those_of_the_model(task):
    assert task.layers == tuple(TENSORS[task.name])


def test_a_layer_alone_at_the_lowest_width_moves_the_output_as_the_baked_graph_does(task):
    reference = outputs(task, (REFERENCE,) * len(task.layers))
    np.testing.assert_allclose(reference, baked_outputs(task, {}), rtol=1e-4, atol=1e-5)
    for index, layer in enumerate(task.table):
        precision = Precision.parse("INT2-channel")

        def change(weight, layer=layer, precision=precision):
            quantized = fake_quantize(weight.reshape(layer.shape), precision, layer.channel_axis)
            return quantized.reshape(weight.shape)

        moved = outputs(task, alone(task, index, precision.name))
        expected = baked_outputs(task, {TENSORS[task.name][layer.name]: change})
        np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-5, err_msg=layer.name)
        if layer.name not in ("slow.W",):  # the branch that a rate of 16000 does not take
            assert np.abs(moved - reference).max() > 1e-4, layer.name


def test_outcomes_are_scores_and_divergences(task):
    measure = start_measurer(task.payload())
    for split in SPLITS:
        for block in task.blocks(split):
            (outcome,) = measure([Request((REFERENCE,) * len(task.layers), split, block.index)])
            assert outcome.shape == (block.samples, 2) and outcome.dtype == np.float32
            assert not outcome[:, DIVERGENCE].any()
    (low, again) = measure([Request(("INT2-channel",) * len(task.layers), "test", 0)] * 2)
    (high,) = measure([Request(("INT8-channel",) * len(task.layers), "test", 0)])
    assert (low == again).all()
    assert low[:, DIVERGENCE].mean() > 10 * high[:, DIVERGENCE].mean() > 0


def test_a_worker_of_its_own_gives_the_same_bytes(task):
    request = Request(("INT4-channel",) * len(task.layers), "gate", 0)
    (first,) = start_measurer(task.payload())([request])
    with LocalExecutor() as executor:
        executor.start(start_measurer, task.payload(), limit_s=120)
        ((second,),) = executor.map([[request]])
    assert first.tobytes() == second.tobytes()


def test_arrays_may_be_read_only_as_rays_object_store_gives_them():
    task = load("cnn")
    payload = task.payload()
    for array in (*payload["weights"].values(), *payload["data"]["test"]["arrays"].values()):
        array.flags.writeable = False
    (outcome,) = start_measurer(payload)([Request(("INT4-channel",) * 5, "test", 0)])
    assert isinstance(outcome, np.ndarray)


def test_accuracy_is_that_of_the_outputs():
    task = load("cnn")
    samples = task.data["test"]
    logits = open_network(task).run((REFERENCE,) * 5, samples.arrays, (), samples.count)[0]
    outcomes = start_measurer(task.payload())([Request((REFERENCE,) * 5, "test", b.index) for b in task.blocks("test")])
    expected = logits.argmax(axis=1) == samples.arrays["targets"]
    assert np.concatenate(outcomes)[:, SCORE].tolist() == expected.astype(float).tolist()
    assert task.slices("test") == tuple(str(label) for label in samples.arrays["targets"])


def test_a_fixed_batch_is_filled_up_and_the_filling_is_not_scored():
    task = load("transformer")
    assert task.fixed == task.batch == 4
    samples = task.data["selection"]
    widths = ("INT4-channel",) * len(task.layers)
    network = open_network(task)
    last = network.run(widths, samples.part(4, 7), (), 3)[0]
    shifted = network.run(widths, samples.part(3, 7), (), 4)[0]
    np.testing.assert_allclose(last, shifted[1:], rtol=1e-5)


def test_types_and_ties_are_found_and_can_be_declared():
    found = {layer.name: layer for layer in load("transformer").table}
    assert [found[f"attn.{k}"].tie_group for k in "qkv"] == ["attn.q+k+v"] * 3
    assert [layer.type for layer in found.values()] == ["Embedding", "LayerNorm", *["Attention"] * 3, "LayerNorm"]
    assert found["attn.q"].channel_axis == 1
    declared = load(
        "transformer", tie_groups={"own": ["attn.q", "norm1"], "free": ["attn.k"]}, types={"norm1": "Other"}
    )
    ties = {layer.name: layer.tie_group for layer in declared.table}
    assert ties["attn.q"] == ties["norm1"] == "own"
    assert ties["attn.k"] is None and ties["attn.v"] is None
    assert declared.table[1].type == "Other"
    assert [layer.type for layer in load("cnn").table] == ["Conv", "LayerNorm", "Conv", "Conv", "Classifier"]
    assert [layer.channel_axis for layer in load("cnn").table] == [0, None, 0, 1, 0]
    assert {layer.type for layer in load("branches").table[:3]} == {"Recurrent"}


def test_activations_are_quantized_where_a_width_says_so():
    task = load("cnn")
    samples = task.data["calibration"].part(0, 5)
    network = open_network(task)
    plain = network.run(alone(task, 0, "INT8-channel"), samples, (), 5)[0]
    dynamic = network.run(alone(task, 0, "INT8-channel-a8"), samples, (), 5)[0]
    samples["input0"] = fake_quantize_activations(samples["input0"], "sample")
    np.testing.assert_allclose(
        dynamic, network.run(alone(task, 0, "INT8-channel"), samples, (), 5)[0], rtol=1e-5, atol=1e-6
    )
    assert np.abs(dynamic - plain).max() > 1e-5
    (failed,) = start_measurer(task.payload())([Request(alone(task, 1, "INT8-channel-a8"), "test", 0)])
    assert isinstance(failed, Failed) and "no inputs to quantize" in failed.message


def test_what_cannot_be_measured_is_data():
    task = load("cnn")
    measure = start_measurer(task.payload())
    few, unknown, no_block, fine = measure(
        [
            Request(("FP32",), "test", 0),
            Request(("INT9",) * 5, "test", 0),
            Request(("FP32",) * 5, "test", 99),
            Request(("FP32",) * 5, "test", 0),
        ]
    )
    assert [r.reason for r in (few, unknown, no_block)] == [
        "raised:InputError",
        "raised:PrecisionError",
        "raised:InputError",
    ]
    assert isinstance(fine, np.ndarray)
    payload = task.payload()
    payload["weights"] = {**payload["weights"], "conv": np.full((4, 2, 3, 3), np.nan, dtype=np.float32)}
    (broken,) = start_measurer(payload)([Request(("FP32",) * 5, "test", 0)])
    assert isinstance(broken, Failed) and broken.reason == "not_finite"


def test_arrays_are_kept_within_a_bound():
    cache = Bounded(100)
    made = []

    def make(key):
        def array():
            made.append(key)
            return np.zeros(10, dtype=np.float32)

        return array

    for key in ("a", "b", "a", "c", "a", "b"):
        cache.get(key, make(key), lambda x: x.nbytes)
    assert made == ["a", "b", "c", "b"] and cache.bytes <= 100
    cache.get("large", lambda: np.zeros(100, dtype=np.float32), lambda x: x.nbytes)
    assert cache.bytes <= 100


def halved_error(outputs, targets):
    return -np.abs(outputs[0].argmax(axis=1) - targets) / 2


halved_error.lower_is_better = False
halved_error.retention = lambda quantized, reference: 1 + quantized - reference


def test_a_metric_of_ones_own():
    task = load("cnn", metric=halved_error)
    assert task.metric.name.endswith(":halved_error") and task.metric.own is not None
    (outcome,) = start_measurer(task.payload())([Request((REFERENCE,) * 5, "test", 0)])
    assert (outcome[:, SCORE] <= 0).all() and outcome[:, SCORE].any()
    wrong = load("cnn", metric=lambda outputs, targets: np.zeros(3))
    (failed,) = start_measurer(wrong.payload())([Request((REFERENCE,) * 5, "test", 0)])
    assert isinstance(failed, Failed) and "one finite number per sample" in failed.message


def test_without_labels_it_is_agreement_or_cosine():
    model, data = MODELS["cnn"]()
    task = load_onnx_task(model.SerializeToString(), {"x": data["x"]}, metric="agreement")
    assert task.metric.name == "agreement" and task.slices("test") is None
    (outcome,) = start_measurer(task.payload())([Request((REFERENCE,) * 5, "test", 0)])
    assert (outcome[:, SCORE] == 1).all()
    embedding = load_onnx_task(model.SerializeToString(), {"x": data["x"]}, kind="embedding")
    assert embedding.metric.name == "cosine"
    (outcome,) = start_measurer(embedding.payload())([Request(("INT2-channel",) * 5, "test", 0)])
    np.testing.assert_allclose(1 - outcome[:, SCORE], outcome[:, DIVERGENCE], atol=1e-6)


def test_equal_matrices_share_a_width_even_if_one_is_transposed():
    rng = np.random.default_rng(0)
    table = tensor(rng, "emb.weight", 7, 4)
    turned = numpy_helper.from_array(np.ascontiguousarray(numpy_helper.to_array(table).T), "onnx::MatMul_3")
    nodes = [
        onnx.helper.make_node("Gather", ["emb.weight", "ids"], ["e"]),
        onnx.helper.make_node("MatMul", ["e", "onnx::MatMul_3"], ["y"], name="/out/MatMul"),
    ]
    inputs, output = [("ids", 7, ["N", 3])], [("y", 1, ["N", 3, 7])]
    model = build(nodes, [table, turned], inputs, output)
    task = load_onnx_task(model.SerializeToString(), {"ids": rng.integers(0, 7, (20, 3))})
    assert task.layers == ("emb", "out") and len({layer.tie_group for layer in task.table} - {None}) == 1


def first_share(task):
    sizes = [block.samples for block in task.blocks("calibration")]
    return sizes[0] / sum(sizes)


def test_a_profile_of_one_measurement_per_unit():
    task = load("transformer")
    asked = []

    def measure(requests):
        asked.extend(requests)
        return start_measurer(task.payload())(requests)

    profile = task.profile(MENU, measure, ("divergence", "activation_range"))
    units = 4  # tokens, norm1, q + k + v, norm2
    assert len({request.widths for request in asked}) == 1 + units
    assert {request.block for request in asked} == {0}, "an eighth of so few samples is less than a block"
    assert sum(profile.passes.values()) == pytest.approx((1 + units) * first_share(task) + 1)
    assert {w for r in asked for w in r.widths} == {"INT4-channel", "FP32"}
    together = tuple("INT4-channel" if name.startswith("attn") else REFERENCE for name in task.layers)
    (outcome,) = start_measurer(task.payload())([Request(together, "calibration", 0)])
    measured = outcome[:, DIVERGENCE].mean()
    unit = [layer for layer in profile.layers if layer.tie_group]
    assert sum(layer.fisher["INT4-channel"] for layer in unit) == pytest.approx(measured, rel=1e-5)
    for layer in profile.layers:
        ratio = layer.weight_error["INT2-channel"] / layer.weight_error["INT4-channel"]
        assert layer.fisher["INT2-channel"] == pytest.approx(ratio * layer.fisher["INT4-channel"])
        assert layer.fisher["FP32"] == 0 and layer.activation_range > 0 and not layer.loss
    assert "INT4-channel" in profile.provenance["fisher"]


def test_a_measurement_that_fails_is_no_sign_that_a_layer_is_harmless():
    task = load("cnn")
    fails = alone(task, 0, "INT4-channel")

    def measure(requests):
        answers = start_measurer(task.payload())(requests)
        return [Failed("not_finite", "") if r.widths == fails else a for r, a in zip(requests, answers, strict=True)]

    costs = [layer.fisher["INT4-channel"] for layer in task.profile(MENU, measure, ("fisher",)).layers]
    assert costs[0] == pytest.approx(max(costs[1:])) and costs[0] > 0


def test_a_profile_with_losses_has_each_layer_alone():
    task = load("branches")
    measure = start_measurer(task.payload())
    profile = task.profile(MENU, measure, ("loss", "gradient_sensitivity"))
    assert sum(profile.passes.values()) == 1 + 4 * 4
    assert profile.provenance["not_available"] == ["gradient_sensitivity"]

    def figure(widths):
        blocks = [Request(widths, "calibration", block.index) for block in task.blocks("calibration")]
        return np.concatenate(measure(blocks)).mean(axis=0, dtype=np.float64)

    reference = figure((REFERENCE,) * 4)
    for index, layer in enumerate(profile.layers):
        score, divergence = figure(alone(task, index, "INT2-channel"))
        assert layer.loss["INT2-channel"] == pytest.approx(1 - score / reference[SCORE], abs=1e-6)
        assert layer.fisher["INT2-channel"] == pytest.approx(divergence)
    assert profile.layers[0].loss["INT2-channel"] == 0 < profile.layers[1].loss["INT2-channel"]


def test_activation_ranges_are_those_of_the_outputs():
    task = load("cnn")
    samples = task.data["calibration"]
    logits = open_network(task).run((REFERENCE,) * 5, samples.arrays, (), samples.count)[0]
    assert task.activation_ranges()[-1] == pytest.approx(float(np.ptp(logits)), rel=1e-5)


def test_widths_that_quantize_activations_cost_more_in_the_profile():
    task = load("cnn")
    menu = Menu.parse(["INT4-channel", "INT4-channel-a8", "FP32"])
    profile = task.profile(menu, start_measurer(task.payload()), ("fisher",))
    conv, norm = profile.layers[:2]
    assert conv.fisher["INT4-channel-a8"] >= conv.fisher["INT4-channel"] > 0
    assert norm.allowed == ("INT4-channel", "FP32")
    assert profile.passes["fisher"] == pytest.approx((1 + 5 + 4) * first_share(task))


def test_learned_positions_are_a_layer_and_a_mask_is_none():
    rng = np.random.default_rng(0)
    nodes = [
        onnx.helper.make_node("Add", ["x", "pos_embed"], ["p"]),
        onnx.helper.make_node("Add", ["p", "onnx::Add_7"], ["m"]),
        onnx.helper.make_node("MatMul", ["m", "onnx::MatMul_8"], ["y"], name="/blocks/blocks.0/fc/MatMul"),
    ]
    held = [
        tensor(rng, "pos_embed", 1, 3, 4),
        numpy_helper.from_array(np.triu(np.full((3, 4), -1e9, dtype=np.float32)), "onnx::Add_7"),
        tensor(rng, "onnx::MatMul_8", 4, 5),
    ]
    model = build(nodes, held, [("x", 1, ["N", 3, 4])], [("y", 1, ["N", 3, 5])])
    task = load_onnx_task(model.SerializeToString(), {"x": rng.standard_normal((20, 3, 4)).astype(np.float32)})
    assert [(layer.name, layer.type) for layer in task.table] == [
        ("pos_embed", "Embedding"),
        ("blocks.0.fc", "Classifier"),
    ]
    assert task.table[0].channel_axis == 1 and task.opened.constant_bits == 12 * 32


def test_r2_has_the_variance_of_each_target_as_its_scale():
    rng = np.random.default_rng(0)
    model = build(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        [tensor(rng, "w", 3, 2)],
        [("x", 1, ["N", 3])],
        [("y", 1, ["N", 2])],
    )
    x = rng.standard_normal((60, 3)).astype(np.float32)
    targets = x @ numpy_helper.to_array(model.graph.initializer[0]) * [1, 1] + rng.standard_normal((60, 2)) * [0.1, 1]
    task = load_onnx_task(model.SerializeToString(), {"x": x, "targets": targets})
    assert task.metric.name == "r2"
    held = task.data["calibration"].arrays["targets"]
    variance = held.var(axis=0)
    low, fp32 = start_measurer(task.payload())(
        [Request(("INT2-tensor",), "calibration", 0), Request((REFERENCE,), "calibration", 0)]
    )
    reference = task.data["calibration"].arrays["input0"] @ task.opened.weights["w"]
    np.testing.assert_allclose(fp32[:, SCORE], 1 - (np.square(reference - held) / variance).mean(axis=1), rtol=1e-4)
    weight = fake_quantize(task.opened.weights["w"], Precision.parse("INT2-tensor"), 1)
    moved = task.data["calibration"].arrays["input0"] @ weight
    expected = (np.square(moved - reference) / variance).mean(axis=1) / 2
    np.testing.assert_allclose(low[:, DIVERGENCE], expected, rtol=1e-4)
