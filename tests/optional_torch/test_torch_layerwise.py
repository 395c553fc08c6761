"""Layer by layer: whatever a network does, its outcomes are those of the network quantized whole, to the last bit."""

import warnings
import weakref
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

import evoquant.models.torch
from evoquant.models import torch_reusable
from evoquant.models.base import Failed, Request
from evoquant.models.kept import LEAST_BYTES, MOST_BYTES, Kept, cache_bytes
from evoquant.models.measurer import start_measurer
from evoquant.models.torch import Measurer
from evoquant.models.torch_kinds import Judge
from evoquant.models.torch_task import classification
from evoquant.rng import generator_for
from tests.optional_torch.networks import TASKS, measurer, normal, seeded
from tests.optional_torch.odd_networks import AFTER, ODD, Failing, Handed, Writing, inputs_of
from tests.optional_torch.test_placed import frozen
from tests.optional_torch.test_torch_reuse import NETWORKS, requests

pytestmark = pytest.mark.usefixtures("always")


def odd(name, cache=None, reuses=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TorchScript
        network = seeded(ODD[name][0]())
    return measurer(AFTER.get(name, lambda x: x)(network), inputs_of(name), cache, reuses)


def assert_same(ours, whole, asked):
    for one, other in zip(ours(asked), whole(asked), strict=True):
        if isinstance(other, Failed):
            assert one == other
        else:
            assert not isinstance(one, Failed) and one.tobytes() == other.tobytes()


def assert_as_it_was(measure):
    for parameter, original in zip(measure._parameters, measure._originals, strict=True):
        assert parameter.data_ptr() == original.data_ptr()
    forwards = [module.__dict__["forward"] for module in measure._modules.values() if "forward" in module.__dict__]
    assert not [forward for forward in forwards if isinstance(forward, torch_reusable._Instead)]
    assert measure._quantized.bytes <= measure._quantized.limit_bytes


@pytest.mark.parametrize(("cache", "reuses"), [(0, False), (200, True)])  # bytes: nothing is kept, a tensor is
@pytest.mark.parametrize("name", ODD)
def test_networks_that_read_their_weights_in_odd_ways(name, cache, reuses, trusting):
    ours = odd(name, cache, reuses)
    assert_same(ours, odd(name), requests(ours._layers, count=4))
    assert ours._layerwise is not None and ours._reuses == (reuses and name != "functional")
    assert_as_it_was(ours)


@pytest.mark.parametrize(("cache", "reuses"), [(0, False), (200, True)])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_that_write_into_values(name, cache, reuses, trusting):
    make, shape = NETWORKS[name]
    ours, whole = (measurer(seeded(make()), normal(20, *shape), *how) for how in ((cache, reuses), (None, False)))
    assert_same(ours, whole, requests(ours._layers, count=4))
    assert ours._layerwise is not None
    assert_as_it_was(ours)


@pytest.mark.parametrize("name", TASKS)
def test_networks_of_many_kinds(name, trusting):
    def start(cache, reuses):
        task = TASKS[name]()
        judge = Judge(task.kind, task.variance)
        measure = Measurer(task.network, task.found, task.data, judge, block=12, batch=5, quantized_cache=cache)
        measure._reuses = reuses
        return measure

    ours = start(200, True)
    assert_same(ours, start(None, False), requests(ours._layers, count=4))
    assert ours._layerwise is not None and ours._reuse.hits > 5 and ours._reuses
    assert_as_it_was(ours)


def readers(measure):
    """Layer → the classes of the modules that were seen to read it; None where it is in place throughout."""
    found, throughout = measure._layerwise._readers, measure._layerwise._throughout
    return {
        layer.name: None if i in throughout else sorted(type(module).__name__ for module in found[i])
        for i, layer in enumerate(measure._layers)
    }


@pytest.mark.parametrize(
    ("name", "layer", "expected"),
    [
        ("parent", "child", ["Parent"]),
        ("handed over", "holder", ["Given"]),
        ("handed over as a view", "holder", ["Given", "Handed"]),
        ("provided", "provider.matrix", ["Given", "Provider"]),
        ("tied", "embed", ["Embedding", "Linear"]),
        ("attention", "attention.q_proj", ["MultiheadAttention"]),
        ("recurrence", "both.weight_hh_l1", ["LSTM"]),
        ("one memory", "0", None),
        ("characters", "blocks.0.expand", ["Linear"]),
    ],
)
def test_who_reads_a_weight(name, layer, expected):
    measure = odd(name, 0)
    measure(requests(measure._layers, count=2))
    assert readers(measure)[layer] == expected


def test_a_branch_that_was_not_taken_before_is_measured_again():
    """What the first batch did not read is read at FP32 once, noticed, and never again."""
    ours, whole = odd("branching", 0), odd("branching")
    asked = requests(ours._layers, count=30)
    first = asked[:1]
    assert_same(ours, whole, first)
    known = sum(map(len, ours._layerwise._readers))
    assert_same(ours, whole, asked)
    assert sum(map(len, ours._layerwise._readers)) > known, "no other branch was taken"


def test_what_was_taken_before_a_reader_began_is_in_place_throughout():
    for how in ("data", "array"):
        ours, whole = (measurer(seeded(Handed(how)), normal(20, 6), cache, reuses=False) for cache in (0, None))
        assert_same(ours, whole, requests(ours._layers, count=4))


def test_weights_that_are_written_into_are_in_place_throughout():
    ours, whole = (measurer(seeded(Writing()), normal(20, 6), cache, reuses=False) for cache in (0, None))
    assert_same(ours, whole, requests(ours._layers, count=4))
    assert readers(ours)["writer.line"] is None


@pytest.mark.parametrize("reuses", [False, True])
def test_a_failure_within_a_layer_is_the_same_and_leaves_the_fp32_weights(reuses):
    ours, whole = (measurer(seeded(Failing()), normal(20, 6), cache, reuses) for cache in (0, None))
    found = []
    ours([Request(("FP32", "FP32"), "calibration", 0)])
    for widths in (("INT2-channel", "INT8-channel"), ("INT8-channel", "INT2-channel")):
        asked = [Request(widths, "calibration", block) for block in (0, 1)]
        assert_same(ours, whole, asked)
        found += ours(asked)
        assert_as_it_was(ours)
    assert any(isinstance(one, Failed) and one.reason == "raised:ValueError" for one in found)


def test_a_width_that_cannot_be_held_fails_whether_the_network_reads_it_or_not():
    def start(cache):
        measure = odd("branching", cache)
        measure._originals[0].fill_(1e30)
        return measure

    ours, whole = start(0), start(None)
    asked = [Request(("FP16", *["INT8-channel"] * (len(ours._layers) - 1)), "calibration", 0)]
    (failed,) = whole(asked)
    assert isinstance(failed, Failed) and failed.reason == "raised:PrecisionError"
    assert_same(ours, whole, asked * 2)


def test_a_network_that_draws_numbers_is_run_whole():
    class Drawing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last, self.calls = nn.Linear(6, 6), nn.Linear(6, 4), 0

        def forward(self, x):
            self.calls += 1
            return self.last(self.first(x) + self.calls)

    measure = measurer(seeded(Drawing()), normal(20, 6), 0, reuses=False)
    with pytest.warns(RuntimeWarning, match="when it is watched.*cannot be measured layer by layer"):
        measure(requests(measure._layers, count=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure(requests(measure._layers, count=2))
    assert measure._layerwise is None


@pytest.mark.parametrize("cache", [0, 2000, 5000])
def test_no_more_is_alive_than_the_bound_and_what_the_running_module_reads(cache, monkeypatch):
    """All quantized tensors that live are counted whenever a layer runs."""
    alive: dict[int, int] = {}
    most = [0]
    make = evoquant.models.torch.fake_quantize_tensor

    def counted(weight, *arguments):
        made = make(weight, *arguments)
        storage = made.untyped_storage()
        alive[id(made)] = storage.nbytes()
        weakref.finalize(storage, alive.pop, id(made))
        most[0] = max(most[0], sum(alive.values()))
        return made

    def forward(module, x):
        most[0] = max(most[0], sum(alive.values()))
        return forwards(module, x)

    forwards = nn.Linear.forward
    monkeypatch.setattr(nn.Linear, "forward", forward)
    monkeypatch.setattr("evoquant.models.torch.fake_quantize_tensor", counted)
    layers = [nn.Linear(16, 16, bias=False) for _ in range(8)]  # of 1,024 bytes each
    ours = measurer(seeded(nn.Sequential(*layers)), normal(20, 16), cache, reuses=False)
    ours(requests(ours._layers, count=6))
    assert 0 < most[0] <= cache // 1024 * 1024 + 1024
    assert ours._layerwise is not None and ours._quantized.bytes == cache // 1024 * 1024


def test_weights_that_cannot_be_written_are_measured_layer_by_layer():
    """As on a node, where they lie in the object store."""
    rng = generator_for(0, 0, "test read-only")
    x, y = rng.standard_normal((40, 6), dtype=np.float32), rng.integers(0, 4, 40)
    network = seeded(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4)))
    splits = dict.fromkeys(("calibration", "selection", "test"), (x, y))
    task = replace(classification(network, **splits, block=20), travels=True)
    found = []
    for cache in (None, 0):
        payload = frozen(replace(task, quantized_cache=cache).payload(elsewhere=True))
        measure = start_measurer(payload)
        found.append([outcome.tobytes() for outcome in measure(requests(task.found, count=3))])
        assert (measure._layerwise is not None) == (cache == 0)
    assert found[0] == found[1]


def test_how_much_is_kept_by_default():
    assert cache_bytes(1000, None) == LEAST_BYTES
    assert cache_bytes(400 << 20, None) == 600 << 20
    assert cache_bytes(MOST_BYTES, None) == cache_bytes(10 * MOST_BYTES, None) == MOST_BYTES
    assert cache_bytes(10 * MOST_BYTES, 0) == 0


def walk(kept, keys, size=1):
    """A request for these values; those that had to be made."""
    made = []
    kept.begin(len(keys) * size, keys)
    for key in keys:
        kept.get(key, size, lambda key=key: made.append(key) or key)
        assert kept.bytes <= kept.limit_bytes
    return "".join(made)


def test_what_does_not_fit_keeps_what_it_can():
    kept = Kept(3)
    assert walk(kept, "abcde") == "abcde"
    assert walk(kept, "abcde") == "de", "the least recently used, let go first, would make all of them again"
    assert walk(kept, "abcde") == "de"
    assert walk(kept, "vwcxa") == "vwx", "of what is there it asks for two, which stay"
    assert walk(kept, "vwcxa") == "wx", "a third has made room for the first that was asked for"


def test_what_fits_makes_room_for_itself():
    kept = Kept(3)
    assert kept.begin(3, "abc") and not kept.begin(4, "abcd")
    assert walk(kept, "abc") == "abc" and walk(kept, "cde") == "de" and walk(kept, "ced") == ""
    assert walk(kept, "bc") == "b", "what this request asks for later stays"
    assert walk(kept, "dc") == "", "the least recently used went first"


def test_nothing_is_kept_within_no_bytes():
    kept = Kept(0)
    assert walk(kept, "aab") == "aab" and kept.bytes == 0
