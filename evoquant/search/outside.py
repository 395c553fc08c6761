"""Other people's optimisers as searches: what the adapters for pymoo, Optuna and pyribs share.

An adapter makes its library's optimiser, asks it for rows of genes and tells it how they did. Whatever the library
keeps is never saved: the state is what has been told, and `restore` asks and tells it again, which the library answers
in the same way as long as it is the same library. A digest of all that was asked says whether it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import random
import warnings
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np

from evoquant.errors import EvoquantError, InputError, MissingExtraError, SearchError, quoted
from evoquant.genomes.base import NumericOperators, tidy
from evoquant.rng import generator_for
from evoquant.search.base import FAILED, NO_PARENT, OK, CandidateBatch, EvaluationBatch, Turn
from evoquant.search.cmaes import one_thread
from evoquant.search.outside_names import found_class, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome, Space

Told = dict[str, "NDArray[np.float64]"]
"""Column → `(n,)` values, means over the models; NaN where failed."""
Settings = TypeVar("Settings")


class Outside(Generic[Settings]):
    """An optimiser of another library; adapters say how it is made, asked and told.

    Attributes:
        kind: its name under `search.kind`, and the extra that brings it.
        package: the distribution whose version decides what is asked.
        part: the setting that names a class of the library, or is one.
        names: that it may have there, and the modules where they are.
        defaults: its settings where none are given.
        reads: columns that it is told.
    """

    kind: str
    package: str
    part: str
    names: Mapping[str, str]
    defaults: Settings
    reads: tuple[str, ...] = ("fitness",)

    def __init__(
        self, space: Space, *, seed: int, settings: Settings | None = None, start: Sequence[Genome] = ()
    ) -> None:
        if not isinstance(space, NumericOperators):
            raise InputError(
                f"search.kind: {self.kind} varies numbers, and {space.kind} genomes are none; use it with genome.kind: "
                f"rule or direct, or search with genetic, map_elites or islands."
            )
        self.space = space
        self._seed = seed
        self._settings = settings or self.defaults
        self._varied = [j for j, gene in enumerate(space.genes) if gene.high > gene.low]
        self._genes = [space.genes[j] for j in self._varied]
        if not self._genes:
            raise InputError(f"search.kind: {self.kind}: these genomes have no gene that can vary.")
        rows = [space.encode(genome) for genome in start]
        self._start = np.array(rows, dtype=np.float64).reshape(-1, len(space.genes))[:, self._varied]
        try:
            self._version = importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            raise MissingExtraError(f"search.kind: {self.kind}", self.package, self.kind) from None
        self._turn = Turn()
        self._begin()

    def ask(self) -> CandidateBatch:
        """What the library asks for, as canonical genes."""
        self._turn.ready()
        genes = self._next()
        self._turn.asked(len(genes))
        parents = np.full((len(genes), 2), NO_PARENT, dtype=np.int64)
        return CandidateBatch(self._next_id, parents, (self.kind,) * len(genes), genes=genes)

    def tell(self, evaluations: EvaluationBatch) -> None:
        """Tell the library; a candidate that was measured in part is told by its estimate where it has one."""
        self._turn.told(len(evaluations))
        read: dict[str, NDArray[np.float64]] = {}
        for name in self.reads:
            values = np.asarray(getattr(evaluations, name), dtype=np.float64)
            read[name] = values if values.ndim == 1 else values.mean(axis=1)
        failed = (evaluations.status == FAILED) | ~np.isfinite(np.array(list(read.values()))).all(axis=0)
        columns: dict[str, list[Any]] = {
            name: [None if lost else value for value, lost in zip(values.tolist(), failed.tolist(), strict=True)]
            for name, values in read.items()
        }
        columns["partial"] = np.flatnonzero(evaluations.status != OK).tolist()
        self._hear(columns)

    def done(self) -> bool:
        """Never: the campaign decides."""
        return False

    def state(self) -> dict[str, Any]:
        """All that has been told, batch by batch, and a digest of all that was asked."""
        self._turn.settled()
        return {"told": list(self._log), "asked": self._digest, "package": f"{self.package} {self._version}"}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state: ask and tell again.

        Raises:
            SearchError: the library asks for other candidates than it did.
        """
        self._begin()
        for columns in state["told"]:
            if len(self._next()) != len(columns[self.reads[0]]):
                break
            self._hear(columns)
        if self._digest != state["asked"]:
            raise SearchError(
                f"search.kind: {self.kind}: told the same, {self.package} {self._version} asks for other candidates "
                f"than {quoted(state['package'])} did when the run began; install that version, or begin a new run."
            )

    def _begin(self) -> None:
        self._log: list[dict[str, list[Any]]] = []
        self._digest = ""
        self._next_id = 0
        self._asked = np.empty((0, len(self.space.genes)))
        with self._library("make"):
            self._make(0)

    def _next(self) -> NDArray[np.float64]:
        with self._library(f"ask {len(self._log)}"):
            values = self._sample()
        genes = np.tile([gene.low for gene in self.space.genes], (len(values), 1))
        genes[:, self._varied] = values
        self._asked = self.space.canonical(tidy(self.space.genes, genes))
        self._digest = hashlib.sha256(self._digest.encode() + self._asked.tobytes()).hexdigest()
        return self._asked

    def _hear(self, columns: dict[str, list[Any]]) -> None:
        told: Told = {name: np.array(columns[name], dtype=np.float64) for name in self.reads}
        whole = np.ones(len(self._asked), dtype=bool)
        whole[columns["partial"]] = False
        with self._library(f"tell {len(self._log)}"):
            self._learn(told, whole)
        self._next_id += len(self._asked)
        self._log.append(columns)

    def _make(self, restart: int) -> None:
        """Make the optimiser; anew where it has come to its end."""
        raise TypeError(f"{type(self).__name__} has to say what it makes")

    def _sample(self) -> NDArray[np.float64]:
        """`(n, varied genes)` values of the genes that vary."""
        raise TypeError(f"{type(self).__name__} has to say what it samples")

    def _learn(self, told: Told, whole: NDArray[np.bool_]) -> None:
        """Take in how the candidates did; `(n,)` whether each was measured in full."""
        raise TypeError(f"{type(self).__name__} has to say what it learns")

    def _class(self) -> Any:
        """The class that was chosen of the library.

        Raises:
            InputError: it has none of that name.
            MissingExtraError: the library is not installed.
        """
        return found_class(getattr(self._settings, self.part), self.names, self.part, self.kind)

    def _seed_of(self, restart: int, largest: int = 2**31) -> int:
        """A seed above 0, which is none to some libraries."""
        return int(generator_for(self._seed, restart, self.kind).integers(1, largest))

    @contextlib.contextmanager
    def _library(self, purpose: str) -> Iterator[None]:
        """Around every call: quiet, one thread, global streams seeded and restored, errors as one message."""
        rng = generator_for(self._seed, 0, f"{self.kind} {purpose}")
        with one_thread(), warnings.catch_warnings(), global_streams(rng):
            warnings.simplefilter("ignore")
            try:
                yield
            except EvoquantError:
                raise
            except Exception as error:
                chosen = name_of(getattr(self._settings, self.part))
                raise InputError(
                    f"search.kind: {self.kind}: {chosen} raised {type(error).__name__}, "
                    f"{quoted(str(error))}; look at search.options."
                ) from error


@contextlib.contextmanager
def global_streams(rng: np.random.Generator) -> Iterator[None]:
    """`random`, NumPy's global stream and generators made without a seed are seeded from `rng`; restored afterwards."""
    before, before_numpy, make = random.getstate(), np.random.get_state(), np.random.default_rng  # noqa: NPY002

    def seeded(seed: Any = None) -> np.random.Generator:
        return make(int(rng.integers(2**63)) if seed is None else seed)

    random.seed(int(rng.integers(2**63)))
    np.random.seed(int(rng.integers(2**32)))  # noqa: NPY002
    np.random.default_rng = seeded
    try:
        yield
    finally:
        np.random.default_rng = make
        np.random.set_state(before_numpy)  # noqa: NPY002
        random.setstate(before)
