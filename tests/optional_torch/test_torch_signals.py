"""Signals are what their definitions say, whichever way they are computed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn

from evoquant.errors import ProfileError
from evoquant.models import torch_fisher
from evoquant.models.measurer import start_measurer
from evoquant.models.torch_data import call_network
from evoquant.models.torch_direct import Subject, direct_layers
from evoquant.models.torch_fisher import fisher_costs
from evoquant.models.torch_kinds import Judge
from evoquant.models.torch_signals import hessian_costs, weight_figures
from evoquant.models.torch_task import classification, regression
from evoquant.quantization.numerics import fake_quantize
from evoquant.quantization.precision import Menu
from evoquant.rng import generator_for
from evoquant.scoring.agreement import signal_agreement

from .networks import TASKS, image_task, normal, seeded

MENU = Menu.parse(["INT3-channel", "INT4-channel", "INT8-channel", "FP32"])


def subject_of(task, batch=10):
    judge = Judge(task.kind, task.variance)
    return Subject(task.network, task.found, task.data["calibration"], judge, batch, seed=3)


def everywhere(subject):
    return np.ones((len(subject.layers), len(MENU)), dtype=bool)


def brute_force(subject, samples):
    """½ · mean (g · Δ)² from the gradient of one sample after another."""
    rows = subject.rows(samples)
    output = call_network(subject.network, subject.data, slice(0, 1))
    noise = subject.judge.noise(output, len(rows), generator_for(subject.seed, 0, "fisher draws"))
    weights = subject.weights
    total = np.zeros((len(weights), len(MENU)))
    for sample, row in enumerate(rows):
        for weight in weights:
            weight.requires_grad_(True)
        one = slice(row, row + 1)
        targets = subject.targets(rows[sample : sample + 1])
        score = subject.judge.score(
            call_network(subject.network, subject.data, one), noise[sample : sample + 1], targets
        )
        gradients = torch.autograd.grad(score.sum(), weights)
        for i, (gradient, weight) in enumerate(zip(gradients, weights, strict=True)):
            weight.requires_grad_(False)
            for j, precision in enumerate(MENU):
                quantized = fake_quantize(weight.numpy(), precision, subject.layers[i].channel_axis)
                total[i, j] += float((gradient.double().numpy() * (quantized - weight.numpy())).sum()) ** 2
    return total / 2 / len(rows)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("vectorised", [True, False])
def test_fisher_costs_are_those_of_one_sample_after_another(name, vectorised, monkeypatch):
    if not vectorised:
        monkeypatch.setattr(torch_fisher, "GRADIENT_BYTES", 0)
    subject = subject_of(TASKS[name]())
    costs, passes = fisher_costs(subject, tuple(MENU), everywhere(subject), 12)
    np.testing.assert_allclose(costs, brute_force(subject, 12), rtol=2e-3, atol=1e-12)
    one_pair = name == "images" or (name in ("volumes", "language") and vectorised)
    assert passes == pytest.approx(((3 if one_pair else 6) + len(MENU) - 1) * 12 / 24)
    assert all(not p.requires_grad and p.grad is None for p in subject.network.parameters())
    assert not any(module._forward_hooks for module in subject.network.modules())


def test_layers_whose_rows_are_not_the_samples_are_not_taken_for_such():
    assert set(direct_layers(subject_of(TASKS["images"]()))) == {
        *("first", "norm", "twice", "up", "groups", "line", "rms", "classifier"),
    }
    assert set(direct_layers(subject_of(TASKS["time"]()))) == {"out"}, "time comes first inside, also where n = T"
    assert "embed" not in direct_layers(subject_of(TASKS["language"]())), "its weight is read by a plain product, too"


def test_a_direct_layer_whose_input_is_overwritten_is_not_taken_for_one():
    class Overwrites(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            x = x * 1.0
            y = self.a(x)
            x += 1.0
            return self.b(x + y)

    task = classification(seeded(Overwrites()), calibration=normal(9, 4), selection=normal(2, 4), test=normal(2, 4),
                          agreement=True)  # fmt: skip
    assert set(direct_layers(subject_of(task))) == {"b"}
    with pytest.raises(ProfileError, match=r"signal 'fisher' needs gradients, and the network has none: .*inplace"):
        task.profile(MENU, start_measurer(task.payload()), ("fisher",))


def test_batches_and_caches_change_nothing(monkeypatch):
    task = image_task()
    costs, _ = fisher_costs(subject_of(task, batch=24), tuple(MENU), everywhere(subject_of(task)), 24)
    monkeypatch.setattr(torch_fisher, "ERROR_BYTES", 200)
    again, _ = fisher_costs(subject_of(task, batch=5), tuple(MENU), everywhere(subject_of(task)), 24)
    np.testing.assert_allclose(costs, again, rtol=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_fisher_costs_estimate_the_measured_divergence(name):
    """To second order and in the mean over draws: INT4 and INT8 of all layers within a third, ranks almost equal."""
    task = TASKS[name](n=400)
    profile = task.profile(MENU, start_measurer(task.payload()), ("divergence", "fisher"))
    for width, tolerance in (("INT8-channel", 1.35), ("INT4-channel", 1.5)):
        fisher = sum(layer.fisher[width] for layer in profile.layers)
        divergence = sum(layer.divergence[width] for layer in profile.layers)
        assert divergence / tolerance < fisher < divergence * tolerance, width
    rows = {row.signal: row for row in signal_agreement(profile)}
    assert rows["fisher"].divergence > 0.97
    assert rows["fisher"].divergence > rows["weight_error"].divergence


def test_ranges_are_watched_without_getting_in_the_way_of_fisher_costs():
    """Within vmap there are no numbers to read: one pass for the costs, another for the ranges."""
    profile = TASKS["volumes"]().profile(MENU, None, ("fisher", "activation_range"))
    assert dict(profile.passes) == {"fisher": 3.0 + len(MENU) - 1, "activation_range": 1.0}
    assert all(layer.activation_range > 0 for layer in profile.layers)


def test_activations_count_in_the_fisher_cost():
    task = image_task(n=200)
    menu = Menu.parse(["INT8-channel", "INT8-channel-a8", "FP32"])
    profile = task.profile(menu, start_measurer(task.payload()), ("divergence", "fisher"))
    for layer in profile.layers:
        if layer.type == "LayerNorm":
            assert layer.allowed == ("INT8-channel", "FP32")
        else:
            assert layer.fisher["INT8-channel-a8"] == pytest.approx(layer.divergence["INT8-channel-a8"], rel=0.5)
            assert layer.fisher["INT8-channel-a8"] != layer.fisher["INT8-channel"]


def test_hessian_costs_of_a_quadratic_are_exact():
    """One-hot inputs of a linear regression: H is diagonal, so each probe gives its trace."""
    network = nn.Linear(4, 1, bias=False)
    inputs = np.eye(4, dtype=np.float32)[np.arange(20) % 4]
    network.weight.data = torch.tensor([[0.3, -1.0, 0.7, 0.1]])
    data = (inputs, np.linspace(-1, 1, 20, dtype=np.float32))
    task = regression(network, calibration=data, selection=data, test=data)
    subject = subject_of(task, batch=7)
    errors = np.stack([figure.errors for figure in weight_figures(subject, tuple(MENU))])
    costs, passes = hessian_costs(subject, errors, samples=20, probes=2)
    curvature = 1 / 4 / task.variance.item()  # mean over samples and weights of x² / v
    assert costs == pytest.approx(curvature / 2 * errors, rel=1e-5)
    assert passes == 3 + 2 * 6


@pytest.mark.parametrize("name", TASKS)
def test_hessians_of_recurrent_and_attention_layers_can_be_had(name):
    subject = subject_of(TASKS[name]())
    errors = np.ones((len(subject.layers), len(MENU)))
    costs, passes = hessian_costs(subject, errors, samples=6, probes=1)
    assert np.isfinite(costs).all() and costs.max() > 0 and passes == pytest.approx(9 * 6 / 24)
    assert torch._C._get_mkldnn_enabled()


def test_a_width_that_cannot_hold_a_layer_is_not_allowed_and_tables_stay_full():
    network = seeded(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)))
    network[0].weight.data[0, 0] = 7e4
    inputs = [normal(k, 6) * 1e-4 for k in (12, 4, 3)]
    task = classification(network, calibration=inputs[0], selection=inputs[1], test=inputs[2], agreement=True)
    menu = Menu.parse(["INT4-g4", "INT8-channel", "FP16", "FP32"])
    profile = task.profile(menu, start_measurer(task.payload()), ("loss", "divergence", "fisher"))
    first, last = profile.layers
    assert first.allowed == ("INT8-channel", "FP32") and last.allowed is None
    assert first.loss["FP16"] == 1.0 and set(first.fisher) == set(first.divergence) == set(menu.names)
    power = first.parameters * (first.weight_std**2 + first.weight_mean**2)
    assert first.weight_error["FP16"] == pytest.approx(power)
