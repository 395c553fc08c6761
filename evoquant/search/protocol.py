"""What a search promises: ask for candidates, be told what they are worth. It owns no loop, no clock, no files.

A campaign names one as `search: {kind: module:Class, options: {...}}` and makes it, on the driver, as
`Class(space, seed=seed, **options)`; in Python a class, a function of the same form or an instance does as well. It
never runs in a worker. The loop calls

    ask → (candidates are evaluated) → tell → ask → tell → …        until `done()` or the campaign's `stop`

and never out of this order. A search is a function of its seed and of what it was told: randomness comes from
`evoquant.rng.generator_for(seed, generation, purpose)`, keyed, so that nothing of it has to be saved. The number of
candidates of an `ask` comes from its options, never from the machine. `evoquant.testing.check_search` holds it to this;
`evoquant.search.batch` has the two batches, and `evoquant.search.base.Turn` raises where the order is wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from evoquant.search.batch import CandidateBatch, EvaluationBatch


@runtime_checkable
class Search(Protocol):
    """Ask for candidates, be told their evaluations; state is plain data."""

    def ask(self) -> CandidateBatch:
        """The next candidates: at least one, with consecutive ids from 0 on, as `(n, genes)` rows of the space.

        Raises:
            SearchError: the last ones have not been told yet.
        """
        ...

    def tell(self, evaluations: EvaluationBatch) -> None:
        """The evaluations of the candidates asked for, row for row; read-only.

        A failed candidate (`status`) has fitness NaN and must never be preferred to one that is ok. The arrays may be
        shared with the campaign: copy what is kept and changed.

        Raises:
            SearchError: nothing was asked, or the number differs.
        """
        ...

    def done(self) -> bool:
        """Whether the search has nothing more to ask; asked before every `ask`."""
        ...

    def state(self) -> dict[str, Any]:
        """JSON data from which `restore` goes on identically; only between a tell and the next ask.

        Raises:
            SearchError: a batch is open.
        """
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state that `state` gave, in a search made with the same space, seed and options.

        Where it is lost or damaged a resumed campaign starts from the seed instead, and tells all again.
        """
        ...


@runtime_checkable
class Archiving(Protocol):
    """A search that also keeps a collection to choose from: a Pareto front, elites by complexity."""

    def archive(self) -> NDArray[np.float64]:
        """`(k, genes)` rows of the kept genomes, in an order that means something; only between tell and ask."""
        ...


@runtime_checkable
class Snapshotting(Protocol):
    """A search that can hold its state fast without writing it out, which a large population takes long for."""

    def snapshot(self) -> Callable[[], dict[str, Any]]:
        """What gives the state of now later, too: plain data but for arrays. Only between a tell and the next ask."""
        ...
