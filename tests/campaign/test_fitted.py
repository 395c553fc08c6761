import dataclasses

import numpy as np
import pytest

from evoquant.campaign.fitted import fitted_profile
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.precision import Menu
from evoquant.rng import generator_for
from evoquant.scoring.problem import LOSS_UNITS, compile_problem
from evoquant.scoring.separable import loss_sums
from evoquant.search.surrogate_model import Measured

MENU = Menu.parse(["INT2", "INT4", "INT8", "FP16"])
NATS = (0.2, 0.01, 0.0002, 0.0)
PROFILE = ModelProfile(
    "ten",
    tuple(
        LayerProfile(
            f"l{i}",
            "Conv",
            (50 + i,),
            i / 9,
            fisher=dict(zip(MENU.names, [nats * (1 + i % 3) for nats in NATS], strict=True)),
            tie_group="both" if i in (4, 5) else None,
        )
        for i in range(10)
    ),
)
PROBLEM = compile_problem(PROFILE, MENU)
CHAMPION = np.array([1, 1, 2, 1, 1, 2, 1, 1, 2], dtype=np.int8)
IMPORTANT = 3  # matters eight times as much as its Fisher cost says


def measured(count=120):
    rng = generator_for(0, 0, "allocations")
    allocations = np.where(rng.random((count, 9)) < 0.3, rng.integers(1, 4, (count, 9)), CHAMPION).astype(np.int8)
    table = np.stack([PROBLEM.widths["fisher"][name] for name in MENU.names], axis=1)
    divergence = table[np.arange(9), allocations].sum(axis=1)
    true = table.copy()
    true[IMPORTANT] *= 8
    loss = 0.5 * true[np.arange(9), allocations].sum(axis=1)
    return Measured(allocations, loss, np.full(count, 1e-4), divergence)


def losses(profile):
    return compile_problem(profile, MENU).loss / LOSS_UNITS


def test_what_was_measured_stands_in_the_losses():
    table = losses(fitted_profile(PROFILE, MENU, measured(), CHAMPION))
    assert table.shape == (9, 4), "tied layers stay one unit"
    fisher = np.stack([PROBLEM.widths["fisher"][name] for name in MENU.names], axis=1)
    ratio = (table[:, 1] - table[:, 3]) / (fisher[:, 1] - fisher[:, 3])
    others = np.delete(ratio, IMPORTANT)
    assert ratio[IMPORTANT] > 3 * np.median(others)


def test_the_champion_loses_what_it_was_measured_to_lose():
    data = measured()
    problem = compile_problem(fitted_profile(PROFILE, MENU, data, CHAMPION), MENU)
    true = data.loss[(data.allocations == CHAMPION).all(axis=1)]
    assert len(true)
    assert loss_sums(problem, CHAMPION[None])[0] / LOSS_UNITS == pytest.approx(true[0], rel=0.15)


def test_optimism_raises_the_losses_and_signals_stay():
    plain, raised = (fitted_profile(PROFILE, MENU, measured(), CHAMPION, optimism) for optimism in (0.0, 0.05))
    rows = np.arange(9)
    difference = losses(raised)[rows, CHAMPION].sum() - losses(plain)[rows, CHAMPION].sum()
    assert difference == pytest.approx(0.05, rel=0.25)
    for before, after in zip(PROFILE.layers, raised.layers, strict=True):
        assert dataclasses.replace(after, loss={}) == before
