"""Any sampler of Optuna as a search, a batch of trials at a time.

Akiba, Sano, Yanase, Ohta & Koyama, Optuna, KDD 2019. Flags and options are categories, widths whole numbers, fractions
and thresholds (on their log scale) floats; CmaEsSampler, which knows no categories, takes whole numbers for those. A
failed candidate is a failed trial. Start genomes are enqueued.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.search.cmaes import from_unit
from evoquant.search.outside import Outside, Told, accepted, found_class, name_of, to_unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space

SAMPLERS = dict.fromkeys(
    ("TPESampler", "CmaEsSampler", "GPSampler", "NSGAIISampler", "NSGAIIISampler", "QMCSampler", "RandomSampler"),
    "optuna.samplers",
)
NUMBERS_ALONE = ("CmaEsSampler",)


@dataclass(frozen=True)
class OptunaSettings:
    """Settings of `OptunaSearch`.

    Attributes:
        sampler: a name of `SAMPLERS`, or a class like those.
        options: what it is made with.
        batch: trials asked for at a time; more than one keeps workers busy and teaches the sampler less.
    """

    sampler: str | type = "TPESampler"
    options: Mapping[str, Any] = field(default_factory=dict)
    batch: int = 1


class OptunaSearch(Outside):
    """See the module's docstring."""

    kind = package = "optuna"

    def __init__(
        self, space: Space, *, seed: int, settings: OptunaSettings | None = None, start: Sequence[Genome] = ()
    ) -> None:
        self._settings = settings or OptunaSettings()
        super().__init__(space, seed, start)

    def _make(self, restart: int) -> None:
        import optuna
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        made = found_class(self._settings.sampler, SAMPLERS, "sampler", self.kind)
        seed = {"seed": self._seed_of(restart)} if "seed" in accepted(made) else {}
        self._study = optuna.create_study(direction="maximize", sampler=made(**seed, **self._settings.options))
        self._distributions: dict[str, Any] = {}
        for j, gene in enumerate(self._genes):
            low, high = int(gene.low), int(gene.high)
            if gene.kind in ("fraction", "log"):
                chosen: Any = FloatDistribution(0.0, 1.0)
            elif gene.kind == "width" or made.__name__ in NUMBERS_ALONE:
                chosen = IntDistribution(low, high)
            else:
                chosen = CategoricalDistribution(range(low, high + 1))
            self._distributions[str(j)] = chosen
        self._numbers = [j for j, gene in enumerate(self._genes) if gene.kind in ("fraction", "log")]
        start = self._start.copy()
        start[:, self._numbers] = to_unit([self._genes[j] for j in self._numbers], start[:, self._numbers])
        for row in start.tolist():
            values = {str(j): value if j in self._numbers else int(value) for j, value in enumerate(row)}
            self._study.enqueue_trial(values)

    def _sample(self) -> NDArray[np.float64]:
        self._trials = [self._study.ask(self._distributions) for _ in range(self._settings.batch)]
        rows = [[trial.params[name] for name in self._distributions] for trial in self._trials]
        values = np.array(rows, dtype=np.float64)
        values[:, self._numbers] = from_unit([self._genes[j] for j in self._numbers], values[:, self._numbers])
        return values

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

    def _name(self) -> str:
        return name_of(self._settings.sampler)
