"""Ask/tell: a search in somebody's own loop, who evaluates as they please.

    space = search_space("rule", "seed/train")
    search = ask_tell("genetic", space, seed=0, population=20)
    while search.evaluations < 1000:
        search.tell([fitness(genome) for genome in search.ask()])

The searches, their options and their defaults are those of a campaign's config.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from evoquant.api.ask_state import VERSION, Found, best_data, checked, digest, plain, sha256
from evoquant.campaign.checkpoint import kept_state
from evoquant.errors import InputError, SearchError, raised_by, shown_value
from evoquant.files import MAX_BYTES, MAX_VALUES, canonical_json, read_json, write_atomic
from evoquant.genomes.base import Genome
from evoquant.genomes.load import genome_from_dict
from evoquant.search.base import Archiving
from evoquant.search.steady import SteadySearch
from evoquant.search.told import genomes_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from evoquant.search.base import CandidateBatch, EvaluationBatch, Search
    from evoquant.search.told import Judge


class Candidates(Sequence[Genome]):
    """Genomes to evaluate, in the order in which their values are told; `ids` names them over the whole search."""

    def __init__(self, genomes: Sequence[Genome], ids: Sequence[int]) -> None:
        self.genomes = tuple(genomes)
        self.ids = tuple(ids)

    @overload
    def __getitem__(self, place: int) -> Genome: ...

    @overload
    def __getitem__(self, place: slice) -> Candidates: ...

    def __getitem__(self, place: int | slice) -> Genome | Candidates:
        if isinstance(place, slice):
            return Candidates(self.genomes[place], self.ids[place])
        return self.genomes[place]

    def __len__(self) -> int:
        return len(self.genomes)


class AskTell:
    """A search that its user drives; made by `ask_tell`."""

    def __init__(self, make: Callable[[], Search], judge: Judge, made_of: dict[str, Any]) -> None:
        self._make = make
        self._search = make()
        self._judge = judge
        self._made_of = sha256(made_of)
        self._batch: CandidateBatch | None = None
        self._before: Callable[[], Mapping[str, Any]] | None = None
        self.evaluations = 0
        self.best: Found | None = None

    @property
    def steady(self) -> bool:
        """Whether candidates are asked and told one by one (`in_flight`), not by generations."""
        return isinstance(self._search, SteadySearch)

    @property
    def open(self) -> Candidates:
        """The candidates that were asked and not yet told."""
        if isinstance(self._search, SteadySearch):
            flying = self._search.flying
            return Candidates([self._genomes(one)[0] for one in flying.values()], list(flying))
        if self._batch is None:
            return Candidates((), ())
        first = self._batch.first_id
        return Candidates(self._genomes(self._batch), range(first, first + len(self._batch)))

    def done(self) -> bool:
        """Whether the search has nothing new to ask any more; most never are."""
        return self._search.done()

    def ask(self, count: int | None = None) -> Candidates:
        """The next candidates: a generation; with `in_flight`, `count` of them or as many as may be asked.

        Raises:
            SearchError: the last ones have not been told, more are asked than may be, or the search is at its end.
        """
        if isinstance(self._search, SteadySearch):
            return self._ask_steady(self._search, count)
        if count is not None:
            raise SearchError(f"ask({count}): this search asks whole generations: ask(), or make it with in_flight=….")
        if self._batch is not None:
            raise SearchError(
                f"ask() was called twice: tell the {len(self._batch)} values of the last candidates first; `open` has "
                f"them."
            )
        self._require_more()
        before = kept_state(self._search)
        self._batch = self._search.ask()
        self._before = before
        return self.open

    def tell(self, values: Sequence[Any], ids: Sequence[int] | None = None) -> None:
        """What came out, one value a candidate, in the order of `ask`; nothing is taken in where one is wrong.

        Args:
            values: each a fitness where more is better; or a mapping with `fitness`, `retention`, `compression`,
                `effective_bits`, `standard_error` (of retention), of which `retention` alone is enough for the
                objective. None or NaN: the candidate failed.
            ids: whose they are, in any order; with `in_flight` those of any open candidates.

        Raises:
            SearchError: nothing was asked, or the number or the ids are not what was asked.
            InputError: a value is no number, or lacks what the search needs.
        """
        rows = _listed(values)
        if self.steady:
            self._tell_steady(rows, ids)
            return
        batch = self._batch
        if batch is None:
            raise SearchError("tell() was called before ask(): there are no candidates to tell about.")
        n = len(batch)
        if len(rows) != n:
            raise SearchError(f"tell() takes {n} values, one for each candidate asked; got {len(rows)}.")
        if ids is not None:
            rows = self._in_order(rows, list(ids), range(batch.first_id, batch.first_id + n))
        told = self._judge.read(rows)
        evaluations = self._judge.evaluations(batch, told)
        self._search.tell(evaluations)
        self._batch = self._before = None
        self.evaluations += n
        self._note(batch, evaluations, told)

    def archive(self) -> list[Genome]:
        """The collection that `nsga2` and `map_elites` keep: a Pareto front, elites.

        Raises:
            InputError: this search keeps none.
            SearchError: candidates are open.
        """
        if not isinstance(self._search, Archiving):
            raise InputError(f"{self._judge.search} keeps no archive; nsga2 and map_elites do. `best` has the fittest.")
        if self._batch is not None:
            raise SearchError(f"{len(self._batch)} candidates are open: tell their values before reading the archive.")
        space = self._judge.space
        assert space is not None
        return [space.decode(row) for row in self._search.archive()]

    def state(self) -> dict[str, Any]:
        """Plain data from which `restore` goes on identically; at any time, also with candidates open."""
        open_digest = None if self._batch is None else digest(self._batch)
        search = self._search.state() if self._before is None else dict(self._before())
        body = {
            "evaluations": self.evaluations,
            "search": plain(search),
            "open": open_digest,
            "best": None if self.best is None else best_data(self.best),
        }
        return {"version": VERSION, "made_of": self._made_of, **body, "sha256": sha256(body)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a state of a search that was made alike; where it cannot be, this one stays as it is.

        Raises:
            InputError: the state is damaged, or another search's.
        """
        self._restore(state, "state")

    def save(self, path: str | Path) -> None:
        """Write the state as JSON, whole or not at all.

        Raises:
            InputError: the file cannot be written, or would be too large.
        """
        text = canonical_json(self.state()) + "\n"
        if len(text) > MAX_BYTES or sum(map(text.count, ",[{")) > MAX_VALUES:
            raise InputError(f"{path}: this state is larger than `load` would read; lower the population.")
        write_atomic(Path(path), text)

    def load(self, path: str | Path) -> AskTell:
        """Go on from a file that `save` wrote, of a search that was made alike; returns this search.

        Raises:
            InputError: there is no such file, it is damaged, or another search's.
        """
        self._restore(read_json(Path(path)), str(path))
        return self

    def _ask_steady(self, search: SteadySearch, count: int | None) -> Candidates:
        flying = len(search.flying)
        free = search.in_flight - flying
        wanted = free if count is None else count
        if isinstance(wanted, bool) or not isinstance(wanted, int) or wanted < 1 or wanted > free:
            asked = "" if count is None else shown_value(count)
            raise SearchError(
                f"ask({asked}): {free} candidates may be asked; {flying} of {search.in_flight} in flight have not been "
                f"told: tell some first."
            )
        self._require_more()
        made: list[CandidateBatch] = []
        while len(made) < wanted and not search.done():
            made.append(search.ask())
        return Candidates([self._genomes(one)[0] for one in made], [one.first_id for one in made])

    def _tell_steady(self, rows: list[Any], ids: Sequence[int] | None) -> None:
        search = self._search
        assert isinstance(search, SteadySearch)
        flying = search.flying
        if not flying:
            raise SearchError("tell() was called before ask(): no candidate is in flight.")
        if ids is None and len(rows) != len(flying):
            raise SearchError(
                f"tell() takes {len(flying)} values, one for each candidate in flight; got {len(rows)}: tell some of "
                f"them with their ids."
            )
        whose = list(flying) if ids is None else list(ids)
        if len(rows) != len(whose):
            raise SearchError(f"tell() takes one value for each id: {len(whose)} ids; got {len(rows)} values.")
        for place, number in enumerate(whose):
            if number not in flying or number in whose[:place]:
                known = ", ".join(map(str, flying))
                raise SearchError(f"tell(): {shown_value(number)} is not in flight, or stands twice; ids: {known}.")
        told = self._judge.read(rows)
        made = [self._judge.evaluations(flying[number], [one]) for number, one in zip(whose, told, strict=True)]
        for number, evaluations, one in zip(whose, made, told, strict=True):
            search.tell(evaluations, number)
            self.evaluations += 1
            self._note(flying[number], evaluations, [one])

    def _in_order(self, rows: list[Any], ids: list[int], expected: range) -> list[Any]:
        if len(ids) != len(rows) or set(ids) != set(expected):
            raise SearchError(
                f"tell(): ids should be {expected.start} to {expected.stop - 1}, each once; got {shown_value(ids)}."
            )
        return [row for _, row in sorted(zip(ids, rows, strict=True), key=lambda pair: pair[0])]

    def _require_more(self) -> None:
        if self._search.done():
            raise SearchError(
                f"after {self.evaluations} evaluations the search has nothing new to ask: end the loop where done()."
            )

    def _genomes(self, batch: CandidateBatch) -> tuple[Genome, ...]:
        return genomes_of(batch, self._judge.space)

    def _note(self, batch: CandidateBatch, evaluations: EvaluationBatch, told: Sequence[dict[str, Any]]) -> None:
        """Keep the best of all that were told."""
        space = self._judge.space
        for place in evaluations.best(1).tolist():
            row = batch.genes[place] if batch.genes is not None and space is not None else None
            found = Found(
                batch.first_id + place,
                batch.genomes[place] if row is None or space is None else space.decode(row),
                float(evaluations.fitness[place]),
                plain(told[place]),
                int(evaluations.parts[place]),
                int(evaluations.cost[place]),
                evaluations.digest(place),
                None if row is None else tuple(row.tolist()),
            )
            if self.best is None or found.order < self.best.order:
                self.best = found

    def _restore(self, state: Any, source: str) -> None:
        body = checked(state, self._made_of, source)
        search = self._make()
        if search is self._search and self._batch is not None:
            raise SearchError(f"{source}: candidates are open in a search of your own: load into one that is fresh.")
        before = batch = best = None
        try:
            search.restore(body["search"])
            if body["open"] is not None:
                before = kept_state(search)
                batch = search.ask()
            if body["best"] is not None:
                best = self._best_from(body["best"], source)
            evaluations = int(body["evaluations"])
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError) as error:
            raise InputError(
                f"{source}: is no state that this search can go on from ({raised_by(error)}); begin anew."
            ) from None
        if batch is not None and digest(batch) != body["open"]:
            raise InputError(
                f"{source}: the search asks other candidates than were open when it was saved; begin anew."
            )
        self._search, self._before, self._batch, self.best, self.evaluations = search, before, batch, best, evaluations

    def _best_from(self, data: Mapping[str, Any], source: str) -> Found:
        row, space = data["row"], self._judge.space
        if row is not None and space is not None:
            genome = space.decode(np.array(row, dtype=np.float64))
        else:
            genome = genome_from_dict(data["genome"], source)
        return Found(**{**data, "genome": genome, "row": None if row is None else tuple(row)})


def _listed(values: Any) -> list[Any]:
    """The values one by one.

    Raises:
        InputError: they are no list.
    """
    if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
        raise InputError(f"tell() takes a list of values, one for each candidate; got {shown_value(values)}.")
    try:
        return list(values)
    except TypeError:  # an array without dimensions
        raise InputError(f"tell() takes a list of values, one for each candidate; got {shown_value(values)}.") from None
