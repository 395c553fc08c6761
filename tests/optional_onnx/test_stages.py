"""A graph in stages: the same outputs to the last bit as in one session, with only a stage's weights at a time."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper

from evoquant import api
from evoquant.execution.local import LocalExecutor
from evoquant.models.base import Failed, Request
from evoquant.models.deployable import deployable
from evoquant.models.measurer import start_measurer
from evoquant.models.onnx_network import Network
from evoquant.models.onnx_session import open_session
from evoquant.models.onnx_stages import CannotBeCutError, Stages, _cuts, _optimized, reads_of
from evoquant.models.onnx_task import load_onnx_task, open_network
from evoquant.models.onnx_variants import with_switches
from evoquant.quantization.numerics import fake_quantize
from evoquant.quantization.precision import Precision
from evoquant.rng import generator_for
from tests.optional_onnx.models import MODELS, build, cnn, tensor
from tests.optional_onnx.odd_models import ODD
from tests.optional_onnx.test_export_onnx import GRAPHS, TORCH

WIDTHS = ("INT2-channel", "INT4-channel", "INT8-tensor", "FP16", "FP32")


def load(name, **options):
    model, data = {**ODD, **GRAPHS}[name]()
    data = {key: array for key, array in data.items() if key not in ("labels", "targets")}
    task = load_onnx_task(model.SerializeToString(), data, kind="regression", name=name, block=12, batch=5, **options)
    return replace(task, outputs=tuple(value.name for value in task.opened.proto.graph.output))


def opened(name):
    """A network's graph, and its inputs for some samples."""
    if name.startswith("torch-"):
        pytest.importorskip("torch")
        from tests.optional_torch.networks import TASKS

        held = deployable(TASKS[name.removeprefix("torch-")]())
        return held.graph().opened, held.feeds("calibration", 0, 3)
    task = load(name)
    return task.opened, deployable(task).feeds("calibration", 0, task.fixed or 3)


def drawn(layers, key):
    """The graph's weights at widths that are drawn."""
    rng = generator_for(1, key, "test allocation")
    return [str(rng.choice(WIDTHS)) for _ in layers]


def quantized(found, widths):
    weights = {}
    for layer, width in zip(found.layers, widths, strict=True):
        held = found.weights[layer.name].reshape(layer.shape)
        if width != "FP32":
            held = fake_quantize(held, Precision.parse(width), layer.channel_axis)
        weights[layer.input] = np.asarray(held.reshape(layer.dims).astype(layer.stored, copy=False), order="C")
    return weights


@pytest.mark.parametrize(
    "name", [*ODD, *GRAPHS, *(pytest.param(f"torch-{name}", marks=pytest.mark.long) for name in TORCH)]
)
def test_stages_give_what_the_session_gives_to_the_last_bit(name):
    found, feeds = opened(name)
    plain = found.proto.SerializeToString()
    outputs = [value.name for value in found.proto.graph.output]
    sizes = {layer.input: found.weights[layer.name].nbytes for layer in found.layers}
    switches = {}
    for model in (plain, with_switches(plain, found.layers)):
        session = open_session(model, name)
        given = {value.name for value in session.get_inputs()}
        switches = {value: np.array(True) for value in given if value.startswith("evoquant.a8.")}
        data = {key: array for key, array in {**feeds, **switches}.items() if key in given}
        for limit in (0, sum(sizes.values()) // 3):
            stages = Stages(model, sizes, limit, name)
            assert len(stages) > 1
            for key in range(2):
                weights = quantized(found, drawn(found.layers, key))
                used = {value: array for value, array in weights.items() if value in given}
                expected = session.run(outputs, data | used)
                for here in stages.run(outputs, [data, data], weights.__getitem__):
                    assert [array.dtype for array in here] == [array.dtype for array in expected]
                    assert [array.tobytes() for array in here] == [array.tobytes() for array in expected]


def test_what_onnxruntime_has_fused_or_laid_out_anew_is_run():
    fused = {"convolutions": "com.microsoft.nchwc", "functions": "com.microsoft", "shared": "com.microsoft"}
    for name, domain in fused.items():
        found, _ = opened(name)
        assert domain in {node.domain for node in _optimized(found.proto.SerializeToString(), name).graph.node}


def test_stages_that_share_a_large_constant_do_not_keep_a_copy_each():
    found, _ = opened("constants")
    sizes = {layer.input: found.weights[layer.name].nbytes for layer in found.layers}
    stages = Stages(found.proto.SerializeToString(), sizes, 0, "constants")
    assert [stage.session is None for stage in stages._stages] == [True, True, False], "the last does not read it"
    found, _ = opened("functions")
    sizes = {layer.input: found.weights[layer.name].nbytes for layer in found.layers}
    assert None not in [stage.session for stage in Stages(found.proto.SerializeToString(), sizes, 0, "it")._stages]


@pytest.mark.parametrize("name", [*ODD, *GRAPHS])
def test_a_stage_has_the_weights_of_one_node_or_no_more_than_the_limit(name):
    found, _ = opened(name)
    graph = _optimized(found.proto.SerializeToString(), name).graph
    sizes = {layer.input: found.weights[layer.name].nbytes for layer in found.layers}
    read = set()
    for limit in (0, sum(sizes.values()) // 2):
        for cut in _cuts(graph, sizes, limit):
            read.update(cut.weights)
            assert sum(sizes[weight] for weight in cut.weights) <= limit or _smallest(graph, cut, sizes), cut.weights
    assert read == set(sizes)


def _smallest(graph, cut, sizes):
    """Whether the stage cannot be cut further: one node reads its weights, or what is made of them alone."""
    inside = [graph.node[place] for place in cut.nodes]
    for node in inside:
        read, waiting = set(), [node]
        while waiting:
            names = reads_of(waiting.pop())
            read |= names
            waiting += [one for one in inside if names & set(one.output)]
        if set(cut.weights) <= read:
            return True
    return False


def requests(task, split="calibration"):
    every = [tuple(drawn(task.table, key)) for key in range(3)]
    return [Request(widths, split, block.index) for widths in every for block in task.blocks(split)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("cache", [0, 300])
def test_outcomes_are_the_same_with_little_memory(name, cache):
    task = load(name)
    expected = start_measurer(task.payload())(requests(task))
    small = start_measurer(replace(task, quantized_cache=cache).payload())
    assert [one.tobytes() for one in small(requests(task))] == [one.tobytes() for one in expected]
    assert small.network._plain._stages is not None


def test_outcomes_are_the_same_with_inputs_quantized_in_a_worker_that_may_not_write():
    task = load("cnn")
    widths = ("INT4-channel-a8", "INT2-channel", "INT4-channel-a8", "FP32", "INT8-channel-a8")
    asked = [Request(widths, "calibration", 0), Request(widths, "test", 0)]
    expected = start_measurer(task.payload())(asked)
    payload = replace(task, quantized_cache=0).payload()
    for array in payload["weights"].values():
        array.flags.writeable = False
    with LocalExecutor() as executor:
        executor.start(start_measurer, payload, limit_s=120)
        (found,) = executor.map([asked])
    assert [one.tobytes() for one in found] == [one.tobytes() for one in expected]


WIDE, DEEP = 512, 10  # a megabyte each


def large(**options):
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", [f"y{i - 1}" if i else "x", f"w{i}"], [f"y{i}"], name=f"/l{i}/MatMul")
        for i in range(DEEP)
    ]
    held = [tensor(rng, f"w{i}", WIDE, WIDE, scale=WIDE**-0.5) for i in range(DEEP)]
    ends = [(f"y{DEEP - 1}", TensorProto.FLOAT, ["N", WIDE])]
    model = build(nodes, held, [("x", TensorProto.FLOAT, ["N", WIDE])], ends)
    data = {"x": rng.standard_normal((32, WIDE), dtype=np.float32)}
    task = load_onnx_task(model.SerializeToString(), data, kind="regression", block=16, batch=4, **options)
    return task, ("INT4-channel",) * DEEP


@pytest.mark.parametrize(("cache", "most"), [(None, 10.0), (3, 6.5), (0, 3.5)])
def test_memory_is_what_is_kept_and_a_stage(monkeypatch, cache, most):
    """NumPy's, in megabytes: what is kept, one stage's weight, what quantizing one takes, and a little."""
    monkeypatch.setattr("evoquant.models.onnx_network.STAGE_BYTES", 2**20)
    task, widths = large()
    measure = start_measurer(replace(task, quantized_cache=None if cache is None else cache * 2**20).payload())
    tracemalloc.start()
    try:
        for _ in range(3):
            assert not isinstance(measure([Request(widths, "calibration", 0)])[0], Failed)
        held, peak = (size / 2**20 for size in tracemalloc.get_traced_memory())
    finally:
        tracemalloc.stop()
    kept = measure.network._quantized.bytes / 2**20
    assert kept == (DEEP if cache is None else cache)
    assert kept <= held < kept + 0.5
    assert (peak < most + 0.5) if cache is not None else (peak > most), peak


def test_weights_are_quantized_once_for_the_batches_of_a_block(monkeypatch):
    made = []
    plain = fake_quantize

    def counted(weight, *rest):
        made.append(weight.shape)
        return plain(weight, *rest)

    monkeypatch.setattr("evoquant.models.onnx_network.fake_quantize", counted)
    task, widths = large()
    measure = start_measurer(replace(task, quantized_cache=0).payload())
    measure([Request(widths, "calibration", 0)])
    assert len(made) == 2 * DEEP, "the first batch alone, to see how much lies between stages"
    made.clear()
    measure([Request(widths, "calibration", 0)])
    assert len(made) == DEEP


def test_few_batches_go_through_together_where_much_lies_between_stages(monkeypatch):
    monkeypatch.setattr("evoquant.models.onnx_network.BETWEEN_BYTES", 2 * 4 * WIDE * 4 + 1)
    task, widths = large()
    measure = start_measurer(replace(task, quantized_cache=0).payload())
    measure([Request(widths, "calibration", 0)])
    assert measure.network._plain._stages.together(2 * 4 * WIDE * 4 + 1) == 2


def test_a_weight_that_is_an_output_keeps_the_graph_whole():
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="/a/MatMul"),
        helper.make_node("MatMul", ["h", "b"], ["y"], name="/b/MatMul"),
    ]
    ends = [("y", TensorProto.FLOAT, ["N", 4]), ("a", TensorProto.FLOAT, [4, 4])]
    held = [tensor(rng, "a", 4, 4), tensor(rng, "b", 4, 4)]
    model = build(nodes, held, [("x", TensorProto.FLOAT, ["N", 4])], ends)
    task = load_onnx_task(model.SerializeToString(), {"x": rng.standard_normal((20, 4), dtype=np.float32)})
    with pytest.raises(CannotBeCutError, match="the weight 'a' is an output"):
        Stages(task.model, {"a": 64, "b": 64}, 0, "it")
    (expected,) = start_measurer(task.payload())([Request(("INT4-channel",) * 2, "test", 0)])
    measure = start_measurer(replace(task, quantized_cache=0).payload())
    with pytest.warns(RuntimeWarning, match=r"cannot run in stages \(the weight 'a' is an output\); each worker needs"):
        (found,) = measure([Request(("INT4-channel",) * 2, "test", 0)])
    (again,) = measure([Request(("INT4-channel",) * 2, "test", 0)])
    assert found.tobytes() == again.tobytes() == expected.tobytes()


def test_where_a_stage_fails_the_whole_session_answers(monkeypatch):
    task = load("cnn")
    asked = [Request(("INT4-channel",) * 5, "test", 0)]
    (expected,) = start_measurer(task.payload())(asked)

    def fail(*_):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(Stages, "run", fail)
    measure = start_measurer(replace(task, quantized_cache=0).payload())
    with pytest.warns(RuntimeWarning, match="no such kernel"):
        (found,) = measure(asked)
    assert found.tobytes() == expected.tobytes()


def test_what_fails_fails_alike():
    task = load("cnn")
    asked = [
        Request(("INT9",) * 5, "test", 0),
        Request(("INT4-g5",) * 5, "test", 0),
        Request(("INT4-channel",) * 5, "test", 99),
    ]
    weights = {**task.opened.weights, "depth": np.full((4, 1, 3, 3), np.nan, np.float32)}
    for held in (task.opened.weights, weights):
        changed = {**task.payload(), "weights": held}
        whole, small = (start_measurer({**changed, "quantized_cache": cache})(asked) for cache in (None, 0))
        assert [getattr(one, "reason", "") for one in small] == [getattr(one, "reason", "") for one in whole]


CONFIG = """
task: {kind: onnx, model: net.onnx, data: net.npz, metric: agreement, block: 75, batch: 32}
objective: {kind: cliff, threshold: 0.8}
search: {kind: genetic, population: 12, elites: 1}
stop: {passes: 4, generations: 100}
executor: {kind: local}
"""


def test_a_campaign_with_little_memory_writes_the_same_journal(tmp_path):
    onnx.save(cnn()[0], tmp_path / "net.onnx")
    x = np.random.default_rng(1).standard_normal((600, 2, 6, 6)).astype(np.float32)
    np.savez(tmp_path / "net.npz", x=x)
    (tmp_path / "net.yaml").write_text(CONFIG)
    runs = {}
    for cache in ("1GiB", "100"):
        wanted = [f"cache={tmp_path / cache}", f"task.quantized_cache={cache}"]
        run = api.run(tmp_path / "net.yaml", out=tmp_path / f"run-{cache}", overrides=wanted).path
        names = ("journal.jsonl", "profile.json", "champion.json", "gate.json")
        runs[cache] = [(run / name).read_bytes() for name in names]
    assert runs["1GiB"] == runs["100"]


def test_a_network_takes_the_bound_from_its_task():
    task = load("cnn")
    assert isinstance(open_network(task), Network)
    limits = [open_network(replace(task, quantized_cache=cache))._quantized.limit_bytes for cache in (None, 7)]
    assert limits == [256 << 20, 7]
