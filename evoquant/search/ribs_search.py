"""pyribs' emitters with an archive as a search: the best of every degree of compression and complexity.

Tjanaka et al., pyribs: a bare-bones Python library for quality diversity optimization, GECCO 2023; the default is
CMA-ME of Fontaine, Togelius, Nikolaidis & Hoover, GECCO 2020. Genes are numbers in [0, 1], folded back where an emitter
leaves them; flags, options and widths are rounded. A failed candidate is not added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.rng import generator_for
from evoquant.search.outside import Outside, Told
from evoquant.search.outside_names import EMITTERS, accepted
from evoquant.search.unit import from_unit, to_unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIGMA = 0.3  # as `cmaes` begins


@dataclass(frozen=True)
class RibsSettings:
    """Settings of `RibsSearch`.

    Attributes:
        emitter: a name of `outside_names.EMITTERS`, or a class like those.
        options: what each is made with.
        emitters: so many.
        batch: candidates of each emitter at a time.
        bins, compression, parts: cells of the archive, as `MapElitesSettings` has them.
    """

    emitter: str | type = "EvolutionStrategyEmitter"
    options: Mapping[str, Any] = field(default_factory=dict)
    emitters: int = 4
    batch: int = 25
    bins: int = 16
    compression: tuple[float, float] = (1.0, 16.0)
    parts: int = 16


class RibsSearch(Outside[RibsSettings]):
    """See the module's docstring."""

    kind, package, part, names = "pyribs", "ribs", "emitter", EMITTERS
    defaults = RibsSettings()
    reads = ("fitness", "compression", "parts")

    def archive(self) -> NDArray[np.float64]:
        """`(k, genes)` the elites: from the fewest parts, and among equals from the best fitness."""
        self._turn.settled()
        found = self._archive.data(["objective", "measures", "index", "genes"])
        order = np.lexsort((found["index"], -found["objective"], found["measures"][:, 1]))
        return np.asarray(found["genes"][order], dtype=np.float64)

    def _make(self, restart: int) -> None:
        from ribs.archives import GridArchive

        made, settings, genes = self._class(), self._settings, len(self._genes)
        rng = generator_for(self._seed, restart, "sample")
        low, high = np.log(settings.compression)
        self._archive = GridArchive(
            solution_dim=genes,
            dims=(settings.bins, settings.parts + 1),
            ranges=((low, high), (-0.5, settings.parts + 0.5)),
            seed=self._seed_of(restart),
            extra_fields={"genes": ((len(self.space.genes),), np.float64)},
        )
        self._emitters = []
        for _ in range(settings.emitters):
            random = self.space.sample(rng, settings.batch)[:, self._varied]
            own = {
                "x0": rng.random(genes),
                "sigma0": SIGMA,
                "sigma": SIGMA,
                "initial_solutions": to_unit(self._genes, random),
                "batch_size": settings.batch,
                "seed": int(rng.integers(2**31)),
            }
            takes = accepted(made) & set(own)
            takes -= {"x0"} if "initial_solutions" in takes else set()
            self._emitters.append(made(self._archive, **{name: own[name] for name in takes} | dict(settings.options)))
        self._rows: list[NDArray[np.float64]] = []

    def _sample(self) -> NDArray[np.float64]:
        start = [to_unit(self._genes, self._start)] if not self._log and len(self._start) else []
        self._rows = [*start, *(np.asarray(emitter.ask(), dtype=np.float64) for emitter in self._emitters)]
        folded = 1.0 - np.abs(1.0 - np.mod(np.concatenate(self._rows), 2.0))
        return from_unit(self._genes, folded)

    def _learn(self, told: Told, whole: NDArray[np.bool_]) -> None:
        rows = np.concatenate(self._rows)
        measures = np.column_stack([np.log(told["compression"]), np.minimum(told["parts"], self._settings.parts)])
        known = np.isfinite(told["fitness"])
        good = known & whole
        info = {"status": np.zeros(len(rows), dtype=np.int32), "value": np.full(len(rows), -np.inf)}
        if not good.any():
            return  # says nothing about where to go
        added = self._archive.add(rows[good], told["fitness"][good], measures[good], genes=self._asked[good])
        info["status"][good], info["value"][good] = added["status"], added["value"]
        worst = min(float(added["value"].min()), 0.0) - 1.0
        info["value"][~good] = worst
        fitness = np.where(known, told["fitness"], told["fitness"][known].min() - 1.0)
        measures[~known] = measures[known][0]
        end = len(rows)
        for emitter, own in zip(reversed(self._emitters), reversed(self._rows), strict=False):
            mine = slice(end - len(own), end)
            end = mine.start
            mine_info = {name: values[mine] for name, values in info.items()}
            emitter.tell(own, fitness[mine], measures[mine], mine_info, genes=self._asked[mine])
