"""Which cheap signals rank units and widths as the measured ones do, and what each has cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.profiles.model import PER_WIDTH
from evoquant.quantization.precision import Menu
from evoquant.scoring.problem import Problem, compile_problem

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.profiles.model import ModelProfile

MEASURED = ("loss", "divergence")
FREE = {"weight_error": 0.0, "sqnr": 0.0}


@dataclass(frozen=True)
class SignalAgreement:
    """One signal beside the measured ones.

    Attributes:
        signal: a signal per width, `sqnr` (of which less is worse), or `gradient_sensitivity`.
        passes: full passes over the calibration split that it took; None where the profile does not say.
        loss, divergence: Spearman's rank correlation with the measured one over all units and widths that may be
            chosen and change anything; None where either is not known, or all its values are equal.
    """

    signal: str
    passes: float | None
    loss: float | None
    divergence: float | None


def signal_agreement(profile: ModelProfile) -> tuple[SignalAgreement, ...]:
    """A row for each signal that the profile has for all layers: the measured ones, then the others.

    Loss and divergence come from the same measurements, so one of them carries the passes of both.
    """
    names = {name for layer in profile.layers for kind in PER_WIDTH for name in getattr(layer, kind)}
    if not names:
        return ()
    problem = compile_problem(profile, Menu.parse(names))
    tables = _tables(problem)
    noise = _noise(profile, problem)
    if noise is not None:
        tables["sqnr"] = noise
    if problem.scalars["gradient_sensitivity"].any():
        tables["gradient_sensitivity"] = np.repeat(
            problem.scalars["gradient_sensitivity"][:, None], len(problem.menu), axis=1
        )
    changed = problem.allowed & np.array([name != "FP32" for name in problem.menu.names])

    def correlation(signal: str, measured: str) -> float | None:
        if measured not in tables:
            return None
        cells = changed & ~np.isnan(tables[signal]) & ~np.isnan(tables[measured])
        return spearman(tables[signal][cells], tables[measured][cells])

    return tuple(
        SignalAgreement(
            name, profile.passes.get(name, FREE.get(name)), correlation(name, "loss"), correlation(name, "divergence")
        )
        for name in tables
    )


def spearman(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Spearman's rank correlation in [−1, 1], equal values at their mean rank; None where it is not defined."""
    if len(first) < 2:
        return None
    a, b = (_ranks(values) - (len(values) + 1) / 2 for values in (first, second))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale > 0 else None


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = (ends - (counts - 1) / 2)[inverse]
    return ranks


def _tables(problem: Problem) -> dict[str, NDArray[np.float64]]:
    """Signal → `(units, P)`, NaN where the profile lacks a width."""
    tables = {}
    order = (*MEASURED, *(kind for kind in PER_WIDTH if kind not in MEASURED))
    for kind in order:
        known = problem.widths[kind]
        if known:
            absent = np.full(len(problem.units), np.nan)
            tables[kind] = np.stack([known.get(name, absent) for name in problem.menu.names], axis=1)
    return tables


def _noise(profile: ModelProfile, problem: Problem) -> NDArray[np.float64] | None:
    """`(units, P)` squared error over Σw²: 10^(−SQNR / 10), so that more is worse; None where it is not known."""
    known = problem.widths["weight_error"]
    powers = np.array([layer.parameters * (layer.weight_std**2 + layer.weight_mean**2) for layer in profile.layers])
    power = np.bincount(problem.unit_of_layer, weights=powers, minlength=len(problem.units))
    if not known or not power.all():
        return None
    absent = np.full(len(problem.units), np.nan)
    return np.stack([known.get(name, absent) / power for name in problem.menu.names], axis=1)
