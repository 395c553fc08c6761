import numpy as np
import pytest

from evoquant.errors import ProfileError
from evoquant.profiles.model import LayerProfile, ModelProfile, profile_from_dict, profile_to_dict
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import Menu
from evoquant.rng import generator_for
from evoquant.scoring.expected_loss import LOSS_PER_NAT, with_expected_loss
from evoquant.scoring.problem import compile_problem

MENU = Menu.parse(["INT4", "INT8"])


def profile(*nats):
    layers = [LayerProfile(f"l{i}", "Linear", (8,), i, fisher={"INT4": n, "INT8": n / 100}) for i, n in enumerate(nats)]
    return ModelProfile("small", tuple(layers))


def test_it_is_a_signal_like_any_other():
    found = with_expected_loss(profile(0.1, 0.3), "r2")
    problem = compile_problem(found, MENU)
    assert problem.signal("expected_loss:INT4").tolist() == pytest.approx([0.2, 0.6])
    saved = 4 * 8 / 16  # bits per weight of the model that a step of one of the two layers saves
    assert problem.signal("expected_loss_per_bit:INT4").tolist() == pytest.approx([0.198 / saved, 0.594 / saved])
    assert profile_from_dict(profile_to_dict(found)) == found


@pytest.mark.parametrize(
    ("made", "metric", "fault"),
    [
        (profile(0.1), "agreement", "nothing is known of 'agreement'; it is for perplexity, r2"),
        (seed_profile("train"), "r2", "has no Fisher costs"),
    ],
)
def test_what_cannot_be_expected_is_refused(made, metric, fault):
    with pytest.raises(ProfileError, match=fault):
        with_expected_loss(made, metric)


def test_a_nat_of_noise_costs_a_regression_what_is_said():
    rng = generator_for(0, 0, "regression")
    targets = rng.normal(size=200_000)
    outputs = 0.99 * targets + rng.normal(0.0, 0.1, targets.shape)  # R² = 0.99
    noisy = outputs + rng.normal(0.0, 0.1, targets.shape)
    r2, quantized = (1 - np.square(targets - y).mean() / targets.var() for y in (outputs, noisy))
    nats = 0.5 * np.square(noisy - outputs).mean() / targets.var()
    assert -np.log(quantized / r2) / nats == pytest.approx(LOSS_PER_NAT["r2"], rel=0.05)


def test_a_nat_of_noise_costs_a_calibrated_classifier_what_is_said():
    rng = generator_for(0, 0, "classifier")
    logits = rng.normal(0.0, 10.0, (100_000, 10))  # accuracy 0.89
    noisy = logits + rng.normal(0.0, 0.4, logits.shape)
    before, after = (z - np.log(np.exp(z).sum(axis=1, keepdims=True)) for z in (logits, noisy))
    p = np.exp(before)  # of being right, the classifier being calibrated
    nats = (p * (before - after)).sum(axis=1).mean()
    kept = p[np.arange(len(p)), noisy.argmax(axis=1)].mean() / p.max(axis=1).mean()
    assert -np.log(kept) / nats == pytest.approx(LOSS_PER_NAT["accuracy"], rel=0.25)
