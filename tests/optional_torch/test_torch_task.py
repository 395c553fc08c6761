"""Tasks of one's own: the four kinds, their scores and divergences, factories, and what is refused."""

import gc
import importlib
import sys

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

from evoquant.errors import InputError, ProfileError
from evoquant.execution.local import LocalExecutor
from evoquant.models.base import DIVERGENCE, SCORE, Request
from evoquant.models.measurer import start_measurer
from evoquant.models.torch_factory import load_factory
from evoquant.models.torch_task import (
    LIVE,
    OwnMetric,
    classification,
    embedding,
    language_model,
    regression,
)
from evoquant.quantization.precision import Menu
from evoquant.scoring.statistics import paired_retention

from .networks import TASKS, Everything, normal, seeded, splits, tokens, volume_task

MENU = Menu.parse(["INT4-channel", "FP32"])


def outcomes(task, width="INT4-channel", split="calibration"):
    measure = start_measurer(task.payload())
    requests = [Request((width,) * len(task.layers), split, block.index) for block in task.blocks(split)]
    return np.concatenate(measure(requests))


def outputs(task, width, split="calibration"):
    measure = start_measurer(task.payload())
    with torch.inference_mode(), measure.quantized((width,) * len(task.layers)):
        return task.network(torch.from_numpy(task.data[split]["inputs"])).double()


def linear(inputs=4, classes=3, seed=0):
    return seeded(nn.Linear(inputs, classes), seed)


@pytest.mark.parametrize("name", TASKS)
def test_fp32_is_its_own_reference_and_retains_all_of_itself(name):
    task = TASKS[name](n=40)
    found = outcomes(task, "FP32")
    assert found.shape == (40, 2) and not found[:, DIVERGENCE].any()
    score = found[:, SCORE]
    if name != "volumes":  # random values predict worse than the mean does
        assert paired_retention(score, score, task.metric).value == pytest.approx(1)
    assert outcomes(task)[:, DIVERGENCE].min() > 0
    profile = task.profile(MENU, start_measurer(task.payload()), ("divergence",))
    assert all(layer.divergence["INT4-channel"] >= 0 for layer in profile.layers)


def test_selection_is_cut_in_halves_and_blocks_cover_every_split():
    task = volume_task(block=4)
    sizes = {split: [block.samples for block in task.blocks(split)] for split in task.data}
    assert sizes == {"calibration": [4] * 6, "selection": [4], "gate": [3], "test": [4, 1]}
    both = np.concatenate([task.data[s]["inputs"] for s in ("selection", "gate")])
    assert sorted(map(bytes, both)) == sorted(map(bytes, normal(7, 1, 4, 4, 4)))
    assert len({block.digest for split in task.data for block in task.blocks(split)}) == 10


def test_sorted_selection_data_gives_halves_that_are_alike():
    """Cut in the user's order, the champion would be chosen by one class and gated on the other."""
    y = np.repeat([0, 1], 200)
    data = (normal(400, 4), y)
    tasks = [
        classification(nn.Linear(4, 2), calibration=data, selection=data, test=data, seed=seed) for seed in (0, 0, 1)
    ]
    halves = [task.data["selection"]["targets"] for task in tasks]
    assert all(0.4 < half.mean() < 0.6 for half in halves)
    inputs = [task.data["selection"]["inputs"] for task in tasks]
    assert np.array_equal(inputs[0], inputs[1]) and not np.array_equal(inputs[0], inputs[2])


def test_language_models_predict_the_next_token_and_are_scored_in_nats():
    network = seeded(Everything())
    task = language_model(network, **splits(tokens))
    logits, fp32 = outputs(task, "INT4-channel"), outputs(task, "FP32")
    words = torch.from_numpy(task.data["calibration"]["inputs"])
    nll = nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), words[:, 1:], reduction="none").mean(dim=1)
    kl = nn.functional.kl_div(logits.log_softmax(2), fp32.log_softmax(2), log_target=True, reduction="none")
    found = outcomes(task)
    assert found[:, SCORE] == pytest.approx(nll.numpy(), rel=1e-5)
    assert found[:, DIVERGENCE] == pytest.approx(kl[:, :-1].sum(dim=2).mean(dim=1).numpy(), rel=1e-3)
    assert task.metric.figure(float(nll.mean())) == pytest.approx(float(nll.mean().exp()))

    def given(n):
        targets = np.roll(tokens(n), -1, axis=1)
        targets[:, -1] = -100
        return tokens(n), targets

    assert np.array_equal(outcomes(language_model(network, **splits(given))), found)


def test_regressions_are_scored_by_r2_and_diverge_in_units_of_the_targets_variance():
    task = volume_task(n=30)
    targets = task.data["calibration"]["targets"].astype(np.float64)
    values, fp32 = outputs(task, "INT4-channel").numpy(), outputs(task, "FP32").numpy()
    found = outcomes(task)
    variance = targets.var(axis=0)
    assert found[:, SCORE] == pytest.approx((1 - (targets - values) ** 2 / variance).mean(axis=1), rel=1e-4)
    assert found[:, DIVERGENCE] == pytest.approx(((values - fp32) ** 2 / variance).mean(axis=1) / 2, rel=1e-3)
    r2 = 1 - ((targets - values) ** 2).sum(axis=0) / ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    assert task.metric.figure(found[:, SCORE].mean()) == pytest.approx(r2.mean(), rel=1e-4)


def test_embeddings_diverge_by_one_minus_their_cosine():
    task = TASKS["time"](n=30)
    cosine = nn.functional.cosine_similarity(outputs(task, "INT4-channel"), outputs(task, "FP32"), dim=-1).numpy()
    found = outcomes(task)
    assert found[:, SCORE] == pytest.approx(cosine, rel=1e-6)
    assert found[:, DIVERGENCE] == pytest.approx(1 - cosine, rel=1e-2, abs=1e-7)


def test_without_labels_a_classifier_is_scored_by_agreement():
    network = linear()
    task = classification(network, **splits(lambda n: normal(n, 4)), agreement=True)
    found = outcomes(task, "INT4-tensor")
    same = outputs(task, "INT4-tensor").argmax(1) == outputs(task, "FP32").argmax(1)
    assert task.metric.name == "agreement" and found[:, SCORE].tolist() == same.double().tolist()
    labelled = classification(network, **splits(lambda n: (normal(n, 4), np.zeros(n, int))))
    assert labelled.identity != task.identity
    assert labelled.numeric_environment != task.numeric_environment, "scores differ, so the store has to know"


def test_one_logit_is_that_of_class_1_and_a_class_a_position_counts_as_a_share():
    two = classification(linear(classes=1), **splits(lambda n: (normal(n, 4), normal(n, 1)[:, 0] > 0)))
    found, logit = outcomes(two, "FP32"), outputs(two, "FP32")[:, 0]
    assert found[:, SCORE].tolist() == ((logit > 0).numpy() == (two.data["calibration"]["targets"] == 1)).tolist()
    maps = classification(
        seeded(nn.Conv2d(2, 3, 1)), **splits(lambda n: (normal(n, 2, 4, 4), np.where(normal(n, 4, 4) > 1, -100, 1)))
    )
    labels = torch.from_numpy(maps.data["calibration"]["targets"])
    right = (outputs(maps, "FP32").argmax(1) == labels).sum((1, 2)) / (labels != -100).sum((1, 2))
    assert outcomes(maps, "FP32")[:, SCORE] == pytest.approx(right.numpy())


def test_several_inputs_by_place_and_by_keyword():
    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

        def forward(self, first, second, *, scale=None):
            return {"logits": (self.a(first) + self.b(second)) * (1 if scale is None else scale)}

    network = seeded(Adds())
    places = classification(
        network, **splits(lambda n: ((normal(n, 4), torch.from_numpy(normal(n, 2))), np.arange(n) % 3))
    )
    words = classification(
        network,
        **splits(
            lambda n: (
                {"first": normal(n, 4), "second": normal(n, 2), "scale": np.ones((n, 1), np.float64)},
                np.arange(n) % 3,
            )
        ),
    )
    assert set(places.data["test"]) == {"inputs", "inputs.1", "targets"}
    assert np.array_equal(outcomes(places), outcomes(words))


def test_a_metric_of_ones_own():
    metric = OwnMetric(lambda out, targets: -np.abs(out[:, 0] - targets[:, 0]), "error", retention=lambda q, r: r / q)
    task = volume_task(metric=metric)
    first = outputs(task, "INT4-channel").numpy()[:, 0]
    assert outcomes(task)[:, SCORE] == pytest.approx(-np.abs(first - task.data["calibration"]["targets"][:, 0]))
    assert (task.metric.name, task.metric.retention(-2.0, -1.0)) == ("error", 0.5)


def test_slices_follow_their_samples():
    names = {"calibration": list("ab" * 12), "selection": list("abcdefg")}
    task = volume_task(slices=names)
    assert task.slices("calibration") == tuple("ab" * 12)
    name_of = dict(zip(map(bytes, normal(7, 1, 4, 4, 4)), "abcdefg", strict=True))
    for split in ("selection", "gate"):
        assert task.slices(split) == tuple(name_of[bytes(x)] for x in task.data[split]["inputs"])
    assert task.slices("test") is None
    assert task.blocks("calibration") == volume_task().blocks("calibration"), "names change no outcome"


PAIR = (normal(6, 4), np.arange(6) % 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classification(linear(), calibration=normal(6, 4), selection=PAIR, test=PAIR),
         "calibration: give a pair"),
        (lambda: classification(linear(), calibration=(normal(5, 4), PAIR[1]), selection=PAIR, test=PAIR),
         "calibration: arrays of one split have one row a sample, and these differ: inputs 5, targets 6"),
        (lambda: classification(linear(), calibration=PAIR, selection=PAIR, test=(PAIR[0], np.arange(6))),
         "test: has a label 3; the network knows classes 0 to 2"),
        (lambda: classification(linear(), calibration=PAIR, selection=PAIR, test=(PAIR[0], PAIR[1] + 0.5)),
         "test: labels are classes"),
        (lambda: classification(linear(), calibration=PAIR, selection=(normal(1, 4), [0]), test=PAIR),
         "selection: has 1 sample"),
        (lambda: classification(linear(5), calibration=PAIR, selection=PAIR, test=PAIR),
         "the network does not take the calibration inputs: RuntimeError"),
        (lambda: classification(nn.Sequential(linear(), nn.Flatten(0)), calibration=PAIR, selection=PAIR, test=PAIR),
         r"for 2 samples the network returned outputs of shape \(6,\); classification needs"),
        (lambda: classification(linear(), calibration=(PAIR[0], np.zeros((6, 2), int)), selection=PAIR, test=PAIR),
         r"outputs of shape \(2, 3\) do not fit targets of shape \(2, 2\)"),
        (lambda: regression(linear(), calibration=(PAIR[0], np.ones((6, 3))), selection=PAIR, test=PAIR), "no scale"),
        (lambda: regression(linear(), calibration=(PAIR[0] * np.nan, PAIR[0][:, :3]), selection=PAIR, test=PAIR),
         "calibration: inputs: holds values that are not finite"),
        (lambda: language_model(linear(), **splits(lambda n: normal(n, 4))), "tokens and targets are integers"),
        (lambda: language_model(Everything(), **splits(lambda n: tokens(n)[:, :1])), "no position to score"),
        (lambda: embedding(linear(), **splits(lambda n: ["x"] * n)), "calibration: inputs: is of type"),
        (lambda: embedding(nn.Identity(), **splits(lambda n: normal(n, 4))).layers, "no weight that could take"),
        (lambda: embedding(linear(), calibration=[], selection=PAIR[0], test=PAIR[0]), "calibration: has no samples"),
        (lambda: volume_task(slices={"test": ["a"]}), "test: arrays of one split .* slices 1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_error(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_an_unknown_signal_and_a_metric_without_retention_are_refused():
    task = volume_task()
    measure = start_measurer(task.payload())
    with pytest.raises(InputError, match=r"unknown signal 'fischer'. Did you mean 'fisher'"):
        task.profile(MENU, measure, ("fischer",))
    with pytest.raises(ProfileError, match=r"metric: r2 of the FP32 network .* is -.*has to be above 0"):
        task.profile(MENU, measure, ("loss",))


FACTORY = """
import numpy as np, torch
from torch import nn
from evoquant.models.torch_task import classification

calls = []

def factory(seed=0):
    calls.append(seed)
    rng = np.random.Generator(np.random.Philox(seed + len(calls) * DRIFT))
    network = nn.Linear(4, 3)
    network.weight.data = torch.from_numpy(rng.standard_normal((3, 4), dtype=np.float32))
    network.bias.data.zero_()
    x = np.arange(48, dtype=np.float32).reshape(12, 4) % 7
    y = np.arange(12) % 3
    return classification(network, calibration=(x, y), selection=(x, y), test=(x, y))

def other():
    return nn.Linear(2, 2)

def broken():
    return [][calls.append(0) or 1]

value = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    def write(drift=0):
        (tmp_path / "own_network.py").write_text(FACTORY.replace("DRIFT", str(drift)))
        sys.modules.pop("own_network", None)

    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    write()
    yield write
    sys.modules.pop("own_network", None)


def test_a_factory_is_called_once_in_this_process(own):
    task = load_factory("own_network:factory", seed=5, block=5, batch=2)
    assert (task.name, task.seed, len(task.blocks("calibration"))) == ("own_network:factory", 5, 3)
    measure = start_measurer(task.payload())
    assert measure._network is task.network
    assert sys.modules["own_network"].calls == [5]
    assert all(not isinstance(value, bytes) for value in task.payload().values())


def test_a_worker_builds_it_again_and_gives_the_same_outcomes(own):
    task = load_factory("own_network:factory", seed=5)
    here = outcomes(task)
    with LocalExecutor() as executor:
        executor.start(start_measurer, task.payload(), 60.0)  # with a time limit: in a child process
        ((there,),) = executor.map([[Request(("INT4-channel",), "calibration", 0)]])
    assert np.array_equal(here, there)


def test_samples_of_a_factory_are_in_a_drawn_order_each_with_its_own_target(own):
    task = load_factory("own_network:factory", seed=5)
    given, drawn = task.network, task.data["calibration"]
    x = (np.arange(48, dtype=np.float32).reshape(12, 4) % 7).tolist()
    places = [x.index(row) for row in drawn["inputs"].tolist()]
    assert places != sorted(places), "sorted by class, the first blocks would say nothing of the others"
    pairs = {(tuple(row), int(y)) for row, y in zip(drawn["inputs"].tolist(), drawn["targets"], strict=True)}
    assert pairs == {(tuple(row), i % 3) for i, row in enumerate(x)}
    again = load_factory("own_network:factory", seed=5)
    assert again.network is not given and again.identity == task.identity


def test_a_factory_that_makes_something_else_each_time_is_refused(own):
    own(drift=1)
    task = load_factory("own_network:factory")
    payload = task.payload()
    del task
    gc.collect()
    assert payload["identity"] not in LIVE
    with pytest.raises(InputError, match="made another network or other data in a worker"):
        start_measurer(payload)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_network:nothing", "cannot be imported"),
        ("no_such_module:factory", "cannot be imported.*PYTHONPATH"),
        ("own_network", "cannot be imported"),
        ("own_network:value", "is a int; name a function"),
        ("own_network:other", "returned a Linear; return what classification"),
        ("own_network:broken", r"raised IndexError: list index out of range \(.*own_network.py, line \d+\)"),
        ("no_syntax:factory", r"raised SyntaxError: .*\(no_syntax.py, line 1\)"),
        ("no_import:factory", r"raised ZeroDivisionError: division by zero \(.*no_import.py, line 2\)"),
    ],
)
def test_what_is_no_factory_is_refused(own, tmp_path, name, message):
    (tmp_path / "no_syntax.py").write_text("def factory(:\n")
    (tmp_path / "no_import.py").write_text("\nx = 1 / 0\n")
    with pytest.raises(InputError, match=message):
        load_factory(name)


def test_a_network_without_a_factory_is_measured_in_this_process_only():
    task = volume_task()
    payload = task.payload()
    assert len(outcomes(task)) == 24
    del task
    gc.collect()
    with pytest.raises(InputError, match="lives in another process; give it a factory"):
        start_measurer(payload)


def test_edited_code_is_another_network_and_another_metric(tmp_path, monkeypatch):
    source = """
from torch import nn
from evoquant.models.torch_task import OwnMetric, classification
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.only = nn.Linear(4, 3)
        nn.init.constant_(self.only.weight, 0.5)
        nn.init.zeros_(self.only.bias)
    def forward(self, x):
        return self.only(x)
def score(outputs, targets):
    return outputs[:, 0] > 0
def task(data):
    return classification(Net(), **data, metric=OwnMetric(score))
"""
    monkeypatch.syspath_prepend(tmp_path)
    data, found = splits(lambda n: (normal(n, 4), np.zeros(n, int))), []
    for name, text in (("first", source), ("same", source), ("other", source.replace("self.only(x)", "-self.only(x)"))):
        (tmp_path / f"edited_{name}.py").write_text(text)
        found.append(importlib.import_module(f"edited_{name}").task(data))
    first, same, other = found
    assert (first.model_digest, first.numeric_environment) == (same.model_digest, same.numeric_environment)
    assert first.model_digest != other.model_digest, "its weights are the same, its outputs are not"
    assert first.numeric_environment != other.numeric_environment, "nor is it sure that its metric is"
