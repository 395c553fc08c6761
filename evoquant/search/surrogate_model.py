"""A model of measured loss over allocations: a prior from signals, corrected by what has been measured.

The loss y = −ln(retention) of an allocation a is taken as α · D(a)^β, D(a) = Σ over units of a table of divergences
(the Fisher costs), times an unknown factor near 1. That factor is a Gaussian process (Rasmussen & Williams, Gaussian
processes for machine learning, 2006, ch. 2) whose covariance says what may be wrong:

    Σ_u q_u(a) q_u(a′) σ_unit² ρ^[a_u ≠ a′_u]      a unit matters more or less than its signal says
    + σ_all²                                        all of them do
    + σ_local² exp(−d(a, a′) / λ)                   widths interact, alike in allocations that differ little

where q_u is the unit's share of D, and d the share of D in which the two differ. Divergence itself adds up much better
than loss does, so its table is corrected first, by the same process, with the divergences that were measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALLEST_SHARE = 1e-6  # of the table's median: a signal of exactly 0 is never certain
JITTER = 1e-9
ENOUGH = 8  # measurements before beliefs are learnt from them
MANY = 96  # that they are learnt from at most
LEARNT = ("local", "reach", "unit", "sampling")
FACTORS = (0.25, 0.5, 2.0, 4.0)
WIDE = 2.0  # standard deviation of the binary logarithm of each of these
BETAS = np.linspace(0.4, 1.6, 25)


@dataclass(frozen=True)
class Beliefs:
    """What is believed before anything is measured; standard deviations are relative to the prediction.

    Attributes:
        unit: how far one unit's signal may be off.
        width: correlation of that error between two widths of a unit (ρ).
        overall: how far all of them may be off together.
        local: of interactions.
        reach: λ, the share of D within which interactions are alike.
        noise: of a measurement, beyond its standard error.
        sampling: how much of its standard error a measurement has of its own; the rest it shares with its like, which
            were measured on the same samples.
    """

    unit: float
    width: float
    overall: float
    local: float
    reach: float
    noise: float
    sampling: float = 0.5


DIVERGENCE = Beliefs(unit=0.35, width=0.6, overall=0.4, local=0.08, reach=0.5, noise=0.02)
LOSS = Beliefs(unit=0.8, width=0.6, overall=0.3, local=0.25, reach=0.4, noise=0.02)


@dataclass(frozen=True)
class Link:
    """y = α · D^β; the prior of ln α and β is normal."""

    alpha: float = 0.6
    beta: float = 0.9
    alpha_sd: float = 1.0
    beta_sd: float = 0.2


@dataclass(frozen=True, eq=False)
class Measured:
    """What has been measured so far, `n` allocations.

    Attributes:
        allocations: `(n, units)` menu indices.
        loss: `(n,)` −ln(retention).
        standard_error: `(n,)` of the loss.
        divergence: `(n,)` in nats, NaN where unknown.
    """

    allocations: NDArray[np.int8]
    loss: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    divergence: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Points:
    """Allocations `(n, units)`, the share of the table's sum that each unit has there, and the `(n,)` sums."""

    allocations: NDArray[np.int8]
    shares: NDArray[np.float64]
    sums: NDArray[np.float64]

    def like(self, others: _Points) -> NDArray[np.float64]:
        """`(3, n, others)`: see `likeness`."""
        from evoquant.search.surrogate_kernel import likeness

        columns = np.ascontiguousarray(others.allocations.T), np.ascontiguousarray(others.shares.T)
        return np.asarray(likeness(self.allocations, self.shares, *columns), dtype=np.float64)


class _Process:
    """The Gaussian process of the relative error of a table's sums, given observed relative errors."""

    def __init__(self, beliefs: Beliefs) -> None:
        self._beliefs = beliefs
        self._weights: NDArray[np.float64] | None = None
        self._factor: NDArray[np.float64] | None = None

    def observe(self, like: NDArray[np.float64], errors: NDArray[np.float64], noise: NDArray[np.float64]) -> None:
        """Take in `(n,)` relative errors with their standard deviations.

        Args:
            like: `(3, n, n)` likeness of those allocations.
            errors, noise: `(n,)`.
        """
        if len(errors) >= ENOUGH:
            some = np.unique(np.linspace(0, len(errors) - 1, MANY).round().astype(np.intp))
            self._learn(like[:, some][:, :, some], errors[some], noise[some])
        self._factor = self._factor_of(self._beliefs, like, noise)
        self._weights = _solve(self._factor, errors)

    def _learn(self, like: NDArray[np.float64], errors: NDArray[np.float64], noise: NDArray[np.float64]) -> None:
        """Take the beliefs under which the errors are most probable, one after the other on a coarse grid.

        Type II maximum likelihood (Rasmussen & Williams, section 5.4), with a normal prior on the logarithms.
        """
        first = best = self._beliefs
        most = self._evidence(first, first, like, errors, noise)
        for name in LEARNT:
            for factor in FACTORS:
                trial = replace(best, **{name: getattr(first, name) * factor})
                evidence = self._evidence(trial, first, like, errors, noise)
                if evidence > most:
                    best, most = trial, evidence
        self._beliefs = best

    def _evidence(
        self,
        beliefs: Beliefs,
        first: Beliefs,
        like: NDArray[np.float64],
        errors: NDArray[np.float64],
        noise: NDArray[np.float64],
    ) -> float:
        factor = self._factor_of(beliefs, like, noise)
        half = _forward(factor, errors)
        prior = sum(math.log2(getattr(beliefs, name) / getattr(first, name)) ** 2 for name in LEARNT)
        return -0.5 * float(half @ half) - float(np.log(np.diagonal(factor)).sum()) - 0.5 * prior / WIDE**2

    def _factor_of(
        self, beliefs: Beliefs, like: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        own = self._covariance(like, beliefs)
        own[np.diag_indices_from(own)] += np.square(beliefs.sampling * noise) + beliefs.noise**2 + JITTER
        return np.linalg.cholesky(own).astype(np.float64)

    def expect(self, like: NDArray[np.float64]) -> NDArray[np.float64]:
        """`(m,)` expected relative errors, from the `(3, m, n)` likeness to what was observed."""
        if self._weights is None:
            return np.zeros(like.shape[1])
        return np.asarray(self._covariance(like) @ self._weights, dtype=np.float64)

    def predict(self, points: _Points, like: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`(m,)` expected relative errors and their standard deviations."""
        beliefs = self._beliefs
        variance = beliefs.unit**2 * np.square(points.shares).sum(axis=1) + beliefs.overall**2 + beliefs.local**2
        if self._weights is None or self._factor is None:
            return np.zeros(len(variance)), np.sqrt(variance)
        cross = self._covariance(like)
        explained = np.square(_forward(self._factor, cross.T)).sum(axis=0)
        return cross @ self._weights, np.sqrt(np.maximum(variance - explained, 1e-12))

    def _covariance(self, like: NDArray[np.float64], beliefs: Beliefs | None = None) -> NDArray[np.float64]:
        beliefs = beliefs or self._beliefs
        anyhow, same, roots = like
        unit = beliefs.unit**2 * (beliefs.width * anyhow + (1.0 - beliefs.width) * same)
        local = beliefs.local**2 * np.exp((np.minimum(roots, 1.0) - 1.0) / beliefs.reach)
        return np.asarray(unit + beliefs.overall**2 + local, dtype=np.float64)


class SurrogateModel:
    """Predicts −ln(retention) with its uncertainty for any allocation of one model."""

    def __init__(
        self,
        table: NDArray[np.float64],
        *,
        divergence: Beliefs = DIVERGENCE,
        loss: Beliefs = LOSS,
        link: Link | None = None,
    ) -> None:
        """Begin with a table of divergences.

        Args:
            table: `(units, P)` in nats, as the Fisher cost gives it; anything not above 0 counts as next to nothing.
            divergence, loss: beliefs about the table, and about the link from divergence to loss.
            link: prior of the link.
        """
        positive = table[table > 0]
        floor = SMALLEST_SHARE * (float(np.median(positive)) if len(positive) else 1.0)
        self.table = np.maximum(table, floor)
        self._beliefs = divergence, loss
        self._prior = link or Link()
        self._units = np.arange(len(table))
        self._divergence, self._loss = _Process(divergence), _Process(loss)
        self._seen = self._points(np.empty((0, len(table)), dtype=np.int8))
        self._known = np.empty(0, dtype=bool)
        self.alpha, self.beta = self._prior.alpha, self._prior.beta

    def fit(self, measured: Measured) -> None:
        """Learn from everything measured so far."""
        if not len(measured.loss):
            return
        seen = self._seen = self._points(measured.allocations)
        known = self._known = np.isfinite(measured.divergence) & (measured.divergence > 0)
        self._divergence, self._loss = (_Process(beliefs) for beliefs in self._beliefs)
        like = seen.like(seen)
        if known.any():
            ratio = measured.divergence[known] / seen.sums[known] - 1.0
            own = like[:, known][:, :, known]
            self._divergence.observe(own, np.clip(ratio, -0.95, 4.0), np.zeros(len(ratio)))
        expected = self._expected_divergence(seen, like)
        divergence = np.where(known, measured.divergence, expected)
        self.alpha, self.beta = self._fit_link(divergence, measured)
        mean = self.alpha * expected**self.beta
        errors = np.clip(measured.loss / mean - 1.0, -4.0, 4.0)
        self._loss.observe(like, errors, np.minimum(measured.standard_error / mean, 10.0))

    def predict(self, allocations: NDArray[np.int8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """`(n,)` expected losses and their standard deviations."""
        points = self._points(allocations)
        like = points.like(self._seen)
        mean = self.alpha * self._expected_divergence(points, like) ** self.beta
        error, deviation = self._loss.predict(points, like)
        return mean * (1.0 + error), mean * deviation

    def unit_table(self, around: NDArray[np.int8]) -> NDArray[np.float64]:
        """`(units, P)` what each width of each unit is expected to lose, the other units as in `around`."""
        units, widths = self.table.shape
        trials = np.repeat(around[None], units * widths, axis=0)
        trials[np.arange(units * widths), np.repeat(np.arange(units), widths)] = np.tile(np.arange(widths), units)
        values = self.predict(trials)[0].reshape(units, widths)
        return np.asarray(values - values.min(axis=1, keepdims=True), dtype=np.float64)

    def _points(self, allocations: NDArray[np.int8]) -> _Points:
        values = self.table[self._units, allocations]
        sums = values.sum(axis=1)
        return _Points(allocations, values / sums[:, None], sums)

    def _expected_divergence(self, points: _Points, like: NDArray[np.float64]) -> NDArray[np.float64]:
        error = self._divergence.expect(like[:, :, self._known])
        return np.asarray(points.sums * np.maximum(1.0 + error, 0.05), dtype=np.float64)

    def _fit_link(self, divergence: NDArray[np.float64], measured: Measured) -> tuple[float, float]:
        """The most probable α and β; a loss is off by its standard error and by a quarter of itself."""
        prior = self._prior
        best = (math.inf, prior.alpha, prior.beta)
        for beta in BETAS.tolist():
            shape = divergence**beta
            start = prior.alpha * 0.02 ** (prior.beta - beta)  # priors of α agree at a divergence of 0.02
            alpha = start
            for _ in range(4):
                variance = np.square(measured.standard_error) + np.square(0.25 * alpha * shape) + 1e-12
                precision = float((shape**2 / variance).sum())
                prior_variance = (prior.alpha_sd * start) ** 2
                alpha = (float((shape * measured.loss / variance).sum()) + start / prior_variance) / (
                    precision + 1.0 / prior_variance
                )
                alpha = max(alpha, 0.05 * start)
            variance = np.square(measured.standard_error) + np.square(0.25 * alpha * shape) + 1e-12
            misfit = float((np.square(measured.loss - alpha * shape) / variance + np.log(variance)).sum())
            misfit += ((beta - prior.beta) / prior.beta_sd) ** 2 + ((alpha - start) / (prior.alpha_sd * start)) ** 2
            best = min(best, (misfit, alpha, beta))
        return best[1], best[2]


def _forward(factor: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """L⁻¹ · right for a lower triangle L."""
    from scipy.linalg import solve_triangular

    solved: NDArray[np.float64] = solve_triangular(factor, right, lower=True, check_finite=False)
    return solved


def _solve(factor: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """(L·Lᵀ)⁻¹ · right."""
    from scipy.linalg import cho_solve

    solved: NDArray[np.float64] = cho_solve((factor, True), right, check_finite=False)
    return solved
