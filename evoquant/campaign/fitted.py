"""What a search has measured of a network, as a profile: models for searching heuristics that carry over."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from evoquant.scoring.problem import compile_problem
from evoquant.search.surrogate import prior_table
from evoquant.search.surrogate_model import Measured, SurrogateModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu


def fitted_profile(
    profile: ModelProfile, menu: Menu, measured: Measured, around: NDArray[np.int8], optimism: float = 0.0
) -> ModelProfile:
    """The profile with `loss` as a surrogate model sees it after these measurements; all other signals stay.

    The model's losses do not add up, so they are taken where they matter: one unit's width changed, the others as in
    `around`; then all are multiplied by what makes the loss of `around` itself come out as predicted.

    Args:
        profile: of the network, with Fisher costs or divergences.
        menu: its widths.
        measured: allocations measured in full.
        around: `(units,)`, the champion.
        optimism: what the calibration data flatter allocations like the champion by, in −ln(retention): its loss on
            data that did not choose it, minus that on the data that did. It is added to every measurement.

    Raises:
        InputError: the profile has no table to start from.
    """
    problem = compile_problem(profile, menu)
    model = SurrogateModel(prior_table(problem))
    model.fit(dataclasses.replace(measured, loss=measured.loss + optimism))
    table = model.unit_table(around)
    total = float(table[np.arange(len(around)), around].sum())
    predicted = float(model.predict(around[None])[0][0])
    if total > 0 and predicted > 0:
        table *= predicted / total
    members = np.bincount(problem.unit_of_layer, minlength=len(around))
    layers = tuple(
        dataclasses.replace(
            layer,
            loss={
                name: -math.expm1(-value / members[unit])
                for name, value in zip(menu.names, table[unit].tolist(), strict=True)
            },
        )
        for layer, unit in zip(profile.layers, problem.unit_of_layer.tolist(), strict=True)
    )
    return dataclasses.replace(profile, layers=layers)
