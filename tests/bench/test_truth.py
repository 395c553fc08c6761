"""The tables against fresh measurements of the networks; needs PyTorch."""

import numpy as np
import pytest

from evoquant.bench.samples import SPLITS, Samples
from evoquant.bench.shipped import MENU, network_path, read_network, write_network
from evoquant.bench.table import NAMES, load_table
from evoquant.models.base import DIVERGENCE, SCORE, Failed, Request
from evoquant.quantization.precision import Menu

torch = pytest.importorskip("torch")

from evoquant.bench import tasks
from evoquant.bench.networks import build_chain, train_chain
from evoquant.bench.rebuild import measured
from evoquant.bench.truth import measure_all, quantized_weights
from evoquant.models.measurer import start_measurer
from evoquant.models.torch_threads import one_thread


def task_of(name):
    return {"digits-cnn": tasks.digits_cnn, "fashion-mixer": tasks.fashion_mixer}[name]()


@pytest.mark.parametrize("name", NAMES)
def test_entries_equal_fresh_measurements_of_the_shipped_network(name):
    table, task = load_table(name), task_of(name)
    measure = start_measurer(task.payload())
    rows = np.array([table.optimum, len(table) - 1, len(table) // 3, 1234, int(np.argsort(-table.fitness)[17])])
    for row, allocation in zip(rows.tolist(), table.allocations(rows), strict=True):
        widths = table.problem.unfold(allocation)
        for split in ("calibration", "test"):
            answers = measure([Request(widths, split, block.index) for block in task.blocks(split)])
            assert not any(isinstance(one, Failed) for one in answers)
            outcome = np.concatenate(answers)
            # the order of float sums differs, and with it a sample whose two best logits are equal up to rounding
            assert abs(int(outcome[:, SCORE].sum()) - int(table.right[split][row])) <= 1
        if split == "calibration":
            assert outcome[:, DIVERGENCE].mean() == pytest.approx(table.divergence[row], rel=2e-3, abs=1e-5)


def test_the_walk_measures_what_whole_networks_give():
    menu = Menu.parse(("INT2-channel", "INT8-channel"))
    weights, samples = read_network(network_path("digits-cnn"))
    inputs, labels = samples.inputs[:60], samples.classes[:60]
    splits = [slice(0, 40), slice(40, 60)]
    with one_thread(), torch.inference_mode():
        truth = measure_all(build_chain("digits-cnn", weights), menu, inputs, labels, splits)
        full = build_chain("digits-cnn", weights)(torch.from_numpy(inputs))
        assert len(truth.both) == 2**8
        assert truth.reference.tolist() == [int((full.argmax(1).numpy() == labels)[part].sum()) for part in splits]
        for row in (0, 3, 0b10110100, 255):
            chain = build_chain("digits-cnn", weights)
            for place, stage in enumerate(chain.children()):
                stage.layer.weight.data = quantized_weights(stage, menu)[(row >> (7 - place)) & 1]
            logits = chain(torch.from_numpy(inputs))
            right = logits.argmax(1).numpy() == labels
            assert truth.right[row].tolist() == [int(right[part].sum()) for part in splits]
            assert truth.both[row] == (right & (full.argmax(1).numpy() == labels))[:40].sum()
            kl = torch.nn.functional.kl_div(
                logits.log_softmax(1), full.log_softmax(1), log_target=True, reduction="none"
            )
            assert truth.divergence[row] == pytest.approx(float(kl.sum(1)[:40].mean()), rel=1e-3, abs=1e-6)


def test_training_repeats_and_learns():
    _, samples = read_network(network_path("digits-cnn"))
    inputs, labels = samples.inputs[:320], samples.classes[:320]
    with one_thread():
        first, again = (train_chain("digits-cnn", inputs, labels, 3, 3) for _ in range(2))
        other = train_chain("digits-cnn", inputs, labels, 4, 3)
    assert all((first[key] == again[key]).all() for key in first)
    assert any((first[key] != other[key]).any() for key in first)


def test_networks_and_samples_survive_their_file(tmp_path):
    weights, samples = read_network(network_path("digits-cnn"))
    with_train = Samples(
        np.concatenate([samples.images[:7], samples.images]),
        np.concatenate([samples.labels[:7], samples.labels]),
        16,
        {"train": 7, **samples.sizes},
    )
    write_network(tmp_path / "n", weights, with_train)
    back, judged = read_network(tmp_path / "n")
    assert back.keys() == weights.keys() and (judged.images == samples.images).all()
    assert list(judged.sizes) == list(SPLITS) and judged.inputs.max() == 1.0


def test_a_table_of_few_samples_has_all_arrays():
    weights, samples = read_network(network_path("digits-cnn"))
    few = Samples(samples.images[:3], samples.labels[:3], 16, {"calibration": 1, "selection": 1, "test": 1})
    with one_thread():
        found = measured("digits-cnn", weights, few)
    assert set(found) == {*SPLITS, "gained", "divergence", "reference", "samples"}
    assert len(MENU) == 4
