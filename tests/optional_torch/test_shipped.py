"""A module as plain data and back: what comes out of it computes the same bits; what cannot be sent is named."""

import enum
import functools
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn

import evoquant
from evoquant.errors import InputError
from evoquant.models.shipped import rebuilt, shipped
from tests.optional_torch.networks import Everything, Images, seeded


class Way(enum.Enum):
    UP = 1


class Settings:
    def __init__(self, scale):
        self.scale = scale
        self.mine = self


class Slotted:
    __slots__ = ("__dict__", "a")


class Holding(nn.Module):
    """(n, 4) → (n, 4); an attribute of every kind that can be told in plain data."""

    def __init__(self):
        super().__init__()
        self.layer, self.way, self.settings = nn.Linear(4, 4), Way.UP, Settings(2.0)
        self.again = self.layer
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.layer.weight
        self.functions = {"act": torch.relu, "pool": nn.functional.max_pool1d, "gelu": nn.functional.gelu}
        self.part = functools.partial(nn.functional.softmax, dim=-1)
        self.plain = [None, True, 3, 0.1, 1j, "ü", b"\0", (1, (2,)), {1, 2}, frozenset({3}), slice(1, None)]
        self.typed = torch.float64, torch.device("cpu"), torch.Size([2, 3]), np.float32(0.1), np.arange(3.0)
        self.loose, self.kind, self.bound = torch.arange(4, dtype=torch.bfloat16), nn.Linear, self.scaled
        self.turned = nn.Parameter(torch.arange(8.0).reshape(2, 4).T, requires_grad=False)
        self.register_buffer("seen", torch.ones(4), persistent=False)
        self.slotted = Slotted()
        self.slotted.a, self.slotted.b = 1, self.slotted

    def scaled(self, x):
        return x * self.settings.scale

    def forward(self, x):
        x = self.bound(self.functions["act"](self.again(x)) + self.tied(x) * self.seen)
        return self.part(x + self.loose.float()) + (x @ self.turned).sum()


def computed(network, *inputs):
    with torch.no_grad():
        return network(*inputs)


@pytest.mark.parametrize(
    ("make", "inputs"),
    [
        (Everything, torch.arange(16).reshape(2, 8)),
        (Images, torch.linspace(-1, 1, 256).reshape(2, 2, 8, 8)),
        (Holding, torch.linspace(-1, 1, 8).reshape(2, 4)),
        (lambda: nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last), torch.linspace(0, 1, 144).view(1, 4, 6, 6)),
    ],
)
def test_it_computes_the_same(make, inputs):
    network = seeded(make()).eval()
    made = rebuilt(shipped(network, "model"), "model")
    assert torch.equal(computed(made, inputs), computed(network, inputs))
    ours, theirs = dict(network.named_parameters()), dict(made.named_parameters())
    assert list(ours) == list(theirs)
    assert all(one.stride() == theirs[name].stride() for name, one in ours.items())
    assert repr(made) == repr(network) and made.training is False


def test_what_is_one_object_stays_one():
    made = rebuilt(shipped(Holding(), "model"), "model")
    assert made.again is made.layer and made.tied.weight is made.layer.weight
    assert made.way is Way.UP and made.settings.mine is made.settings and made.slotted.b is made.slotted
    assert made.bound.__self__ is made and made.kind is nn.Linear
    assert made.plain == Holding().plain and made.typed[:4] == Holding().typed[:4]
    assert "seen" not in made.state_dict() and made.loose.dtype is torch.bfloat16


def holding(thing):
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    network[1].thing = thing
    return network


def local():
    class Inner(nn.Module):
        pass

    return Inner()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: holding(lambda x: x),
            "model: .*workers: '1.thing': the function '.*<lambda>' has no name .* top of a",
        ),
        (local, "the class 'local.<locals>.Inner' has no name that they could import"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "the class 'ParametrizedLinear' is not found"),
        (lambda: holding(torch.Generator()), "'1.thing': the Generator holds more than its attributes; or leave exec"),
        (lambda: holding(torch.eye(2).to_sparse()), "'1.thing': a Tensor with the layout torch.sparse_coo"),
        (lambda: holding({"a": [1, (x for x in "ab")]}), r"'1.thing.a\[1\]': the class 'generator'"),
    ],
)
def test_what_lives_in_this_process_alone_is_named(make, said):
    with pytest.raises(InputError, match=said) as raised:
        shipped(make(), "model")
    assert "\n" not in str(raised.value)


def test_a_class_of_the_running_program_is_named(monkeypatch):
    monkeypatch.setattr(Holding, "__module__", "__main__")
    with pytest.raises(InputError, match=r"class 'Holding' was defined in the running program or notebook.*\.py file"):
        shipped(Holding(), "model")


def test_what_a_worker_lacks_is_named():
    plain = shipped(Holding(), "model")
    for node in plain["nodes"]:
        if node[0] == "object" and node[1].endswith(":Holding"):
            node[1] = "no_such_module:Holding"
    with pytest.raises(InputError, match=r"no_such_module:Holding: cannot be imported in a worker.*PYTHONPATH"):
        rebuilt(plain, "model")


class Straight(nn.Module):
    """(n, 6) → (n, 1)."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Linear(6, 8), nn.Linear(8, 1)

    def forward(self, x):
        return self.head(torch.tanh(self.first(x)))


def near(outputs, targets):
    """1 where the output is near the target."""
    return 1.0 / (1.0 + np.abs(outputs - targets).reshape(len(outputs)))


def test_on_ray_the_journal_is_the_same(tmp_path):
    network = seeded(Straight())
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((80, 6), np.float32))
    options = {"metric": near, "budget": 12, "floor": 0.9}
    targets = computed(network, x) + 0.1
    for name, how in (("here", {}), ("ray", {"executor": "ray", "workers": 1})):
        evoquant.optimize(network, (x, targets), run_dir=tmp_path / name, **options, **how)
    assert (tmp_path / "here/journal.jsonl").read_bytes() == (tmp_path / "ray/journal.jsonl").read_bytes()
    config = json.loads((tmp_path / "ray/resolved.json").read_text())["config"]
    assert config["executor"]["kind"] == "ray"
    with pytest.raises(InputError, match=r"metric: cannot be sent .*<lambda>"):
        evoquant.optimize(network, (x, targets), **{**options, "metric": lambda o, t: near(o, t)}, executor="ray")
    monkeyed = evoquant.optimize(network, (x, targets), run_dir=tmp_path / "ray", **options)
    assert monkeyed.path == tmp_path / "ray"
