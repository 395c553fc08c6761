"""The surrogate search in a steady state: one candidate at a time, chosen beside those that are in flight.

Those in flight count as if they had come out as the model expects (the kriging believer: Ginsbourger, Le Riche &
Carraro, Kriging is well-suited to parallelize optimization, 2010); with each ask the model expects anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.rng import generator_for
from evoquant.search.base import NO_PARENT, CandidateBatch, EvaluationBatch
from evoquant.search.steady import SteadySearch
from evoquant.search.surrogate import SurrogateSearch, SurrogateSettings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space
    from evoquant.scoring.objective import Objective
    from evoquant.scoring.problem import Problem


class SteadySurrogate(SteadySearch):
    """See the module's docstring; `settings.batch` arrivals count as a generation."""

    def __init__(
        self,
        space: Space,
        *,
        seed: int,
        problem: Problem,
        objective: Objective,
        in_flight: int,
        settings: SurrogateSettings | None = None,
        start: Sequence[Genome] = (),
    ) -> None:
        settings = settings or SurrogateSettings()
        super().__init__(space, seed, start, in_flight, settings.batch)
        self._model = SurrogateSearch(space, seed=seed, problem=problem, objective=objective, settings=settings)
        # Told one by one, and those in flight may be repeats of one another.
        self._model.patience *= max(settings.batch, in_flight)

    def done(self) -> bool:
        """Whether no genome can be found any more that means something new."""
        return self._model.done()

    def _propose(self, number: int) -> CandidateBatch:
        started = number < len(self._start)
        if started:
            row = self.space.encode(self._start[number])
        else:
            pending = [one.genes for one in self._open.values() if one.genes is not None]
            beside = np.concatenate([np.empty((0, len(self.space.genes))), *pending])
            row = self._model.choose_beside(beside, generator_for(self._seed, number, "steady surrogate"))
        return CandidateBatch(
            number,
            np.full((1, 2), NO_PARENT, dtype=np.int64),
            ("start" if started else "surrogate",),
            genes=self.space.canonical(row[None]),
        )

    def _learn(self, arrival: int, number: int, genes: NDArray[np.float64], evaluations: EvaluationBatch) -> None:
        self._model.take_in(genes, evaluations, chosen=number >= len(self._start))

    def _learnt(self) -> dict[str, Any]:
        return {"model": self._model.state()}

    def _relearn(self, state: Mapping[str, Any]) -> None:
        self._model.restore(state["model"])
