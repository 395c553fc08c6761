"""Costs of a deployment target against the real thing: bytes of exported files, latency of each layer and of wholes."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

from evoquant.campaign.build_measured import bare_profile
from evoquant.errors import InputError
from evoquant.export.latency import Settings, measure_latency, predicted
from evoquant.export.latency_table import latency_data
from evoquant.export.timing import evicting, interleaved, timing_of
from evoquant.models.deployable import deployable
from evoquant.models.onnx_parts import parts_of
from evoquant.models.onnx_task import load_onnx_task
from evoquant.quantization.precision import Menu
from evoquant.report.costs import cost_data, latency_tables
from evoquant.scoring.cost_file import TableCost
from evoquant.scoring.cost_schema import table_from_dict
from tests.optional_onnx.models import MODELS
from tests.optional_torch.exported import counted_and_stored
from tests.optional_torch.networks import language_task

SLICES = ("tensor", "channel", "g16")
MENU = Menu.parse(
    [
        *(f"INT{bits}-{part}{asym}" for bits in (2, 3, 4, 6, 8) for part in SLICES for asym in ("", "-asym")),
        *("FP8-channel", "NF4-g16", "FP16", "BF16", "FP32"),
    ]
)
WIDTHS = Menu.parse(["INT4-g16", "INT8-channel", "FP32"])
READERS_OWN = 24  # bytes that OpenVINO's reader adds to a network
UNREAD = 4 * (16 * 16 + 16)  # of a module that forward never calls, which no graph holds


def task_of(name):
    if name == "language":
        return language_task()
    model, data = MODELS[name]()
    return load_onnx_task(model.SerializeToString(), data, name=name, block=8, batch=4)


@pytest.mark.parametrize("target", ["onnx", "onnx-matmulnbits", "openvino"])
@pytest.mark.parametrize("name", ["cnn", "transformer", "language"])
def test_bytes_are_those_of_the_file(target, name, tmp_path):
    for widths, counted, stored in counted_and_stored(task_of(name), MENU, target, tmp_path, 2):
        unread = UNREAD if name == "language" else 0
        off = counted - unread - stored
        assert -(READERS_OWN if target == "openvino" else 0) <= off <= 0 or (unread and abs(off) <= 40), widths


def test_every_layer_stands_by_itself_with_what_reads_it():
    ready = deployable(language_task())
    parts = parts_of(ready.graph(), ready.feeds("calibration", 0, 1), "language")
    operators = {name: [node.op_type for node in part.graph.opened.proto.graph.node] for name, part in parts.items()}
    assert operators["embed"] == ["Gather", "Transpose", "MatMul"]  # tied: looked up, and the classifier
    assert operators["turned"] == ["Transpose", "MatMul"]
    assert operators["rnn.weight_ih_l0"][-1] == "LSTM"
    assert parts["q"].key == parts["k"].key != parts["block.linear1"].key
    assert parts["q"].feeds[next(iter(parts["q"].feeds))].shape == (1, 8, 16)


@pytest.fixture(scope="module", params=["openvino", "onnx-matmulnbits"])
def measured(request):
    task = task_of("transformer")
    profile = bare_profile(task, WIDTHS)
    return measure_latency(
        deployable(task), profile, WIDTHS, "digest", Settings(request.param, batch=32, rounds=5, wholes=1)
    )


def test_latency_of_layers_and_of_wholes(measured):
    names = [layer.name for layer in measured.profile.layers]
    assert set(measured.cells) == set(names)
    assert "INT4-g16" not in measured.cells["attn.q"]  # groups of 16 do not divide its 8 inputs
    assert all(cell.timing.value >= 0 and cell.kernels for row in measured.cells.values() for cell in row.values())
    assert measured.distinct < sum(len(row) for row in measured.cells.values())  # q, k and v are alike
    first = measured.wholes[0]
    assert set(first.widths) == {"FP32"}
    rests = [whole.timing.value - predicted(measured, whole.widths) for whole in measured.wholes]
    assert np.median(rests) == pytest.approx(0, abs=0.02 * first.timing.value)
    assert measured.noise >= 0


def test_the_table_is_one_that_campaigns_read(measured):
    data = json.loads(json.dumps(latency_data(measured), allow_nan=False))
    table = table_from_dict(data, "table.json")
    menu = Menu.parse(["INT8-channel", "FP32"])
    cost = TableCost(table, refuse=False)(measured.profile, menu, [(i,) for i in range(len(measured.profile.layers))])
    assert cost.name == "nanoseconds"
    assert cost.reference == pytest.approx(measured.wholes[0].predicted, rel=0.01)
    cells, wholes = latency_tables(data)
    assert len(cells.rows) == len(measured.profile.layers)
    assert len(wholes.rows) == len(measured.wholes)
    assert cost_data(measured.profile, menu, TableCost(table))["signal"]["noise"] == table.noise


def test_a_target_that_is_not_measured_here_is_told():
    task = task_of("transformer")
    with pytest.raises(InputError, match=r"--to gguf: its latency is not measured here.*cost: {kind: table"):
        measure_latency(deployable(task), bare_profile(task, WIDTHS), WIDTHS, "", Settings("gguf"))


def test_calls_take_turns():
    seen = []
    times = interleaved([lambda: seen.append("a"), lambda: seen.append("b")], 3, between=lambda: seen.append("-"))
    assert "".join(seen).endswith("-a-b" + "-b-a" + "-a-b")
    assert times.shape == (2, 3)
    assert evicting(100) is None
    evicting(2**21)()
    timing = timing_of(np.array([1.0, 2.0, 3.0, 4.0, 100.0]))
    assert (timing.value, timing.spread) == (3.0, 2.0)
