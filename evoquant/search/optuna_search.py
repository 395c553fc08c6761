"""Any sampler of Optuna as a search, a batch of trials at a time.

Akiba, Sano, Yanase, Ohta & Koyama, Optuna, KDD 2019. Flags and options are categories, widths whole numbers, fractions
and thresholds (on their log scale) floats; CmaEsSampler, which knows no categories, takes whole numbers for those. A
failed candidate is a failed trial. Start genomes are enqueued.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.search.outside import Outside, Told
from evoquant.search.outside_names import SAMPLERS, accepted
from evoquant.search.unit import from_mixed, is_number, to_mixed

if TYPE_CHECKING:
    from numpy.typing import NDArray

NUMBERS_ALONE = ("CmaEsSampler",)


@dataclass(frozen=True)
class OptunaSettings:
    """Settings of `OptunaSearch`.

    Attributes:
        sampler: a name of `outside_names.SAMPLERS`, or a class like those.
        options: what it is made with.
        batch: trials asked for at a time; more than one keeps workers busy and teaches the sampler less.
    """

    sampler: str | type = "TPESampler"
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1


class OptunaSearch(Outside[OptunaSettings]):
    """See the module's docstring."""

    kind = package = "optuna"
    part, names = "sampler", SAMPLERS
    defaults = OptunaSettings()

    def _make(self, restart: int) -> None:
        import optuna
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        made = self._class()
        seed = {"seed": self._seed_of(restart)} if "seed" in accepted(made) else {}
        self._study = optuna.create_study(direction="maximize", sampler=made(**seed, **self._settings.options))
        self._distributions: dict[str, Any] = {}
        for j, gene in enumerate(self._genes):
            low, high = int(gene.low), int(gene.high)
            if is_number(gene):
                chosen: Any = FloatDistribution(0.0, 1.0)
            elif gene.kind == "width" or made.__name__ in NUMBERS_ALONE:
                chosen = IntDistribution(low, high)
            else:
                chosen = CategoricalDistribution(range(low, high + 1))
            self._distributions[str(j)] = chosen
        for row in to_mixed(self._genes, self._start).tolist():
            values = [x if is_number(gene) else int(x) for gene, x in zip(self._genes, row, strict=True)]
            self._study.enqueue_trial({str(j): value for j, value in enumerate(values)})

    def _sample(self) -> NDArray[np.float64]:
        self._trials = [self._study.ask(self._distributions) for _ in range(self._settings.batch)]
        rows = [[trial.params[name] for name in self._distributions] for trial in self._trials]
        return from_mixed(self._genes, np.array(rows, dtype=np.float64))

    def _learn(self, told: Told, whole: NDArray[np.bool_]) -> None:
        from optuna.trial import TrialState

        for trial, fitness in zip(self._trials, told["fitness"].tolist(), strict=True):
            if np.isfinite(fitness):
                self._study.tell(trial, fitness)
            else:
                self._study.tell(trial, state=TrialState.FAIL)

    @contextlib.contextmanager
    def _library(self, purpose: str) -> Iterator[None]:
        import optuna

        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with super()._library(purpose):
                yield
        finally:
            optuna.logging.set_verbosity(before)
