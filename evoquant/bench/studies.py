"""What every table of results/ rests on: cells that are measured alone, and tables that follow from their rows."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evoquant.bench.settings import KEY, Settings, settings_hash, with_hash
from evoquant.files import write_atomic
from evoquant.report.study import read_rows, write_rows

Row = dict[str, Any]
Cell = tuple[str, ...]

ROOT = Path(__file__).resolve().parents[2]
PARTIAL = ".partial"  # below results/: finished cells of a study that is not whole yet
LAST_DIGITS = 1e-12


@dataclass(frozen=True)
class Place:
    """Where a study reads and writes.

    Attributes:
        root: of the repository: configs/ and results/ are below.
        work: folder for run directories and caches of one cell.
        again: measured only to be compared: nothing that was measured before is taken.
    """

    root: Path
    work: Path
    again: bool = False

    def rows(self, stem: str) -> list[Row]:
        """The committed rows of results/<stem>.jsonl, [] where there is no such file.

        Raises:
            InputError: a line is no JSON object.
        """
        path = self.root / f"results/{stem}.jsonl"
        if not path.is_file():
            return []
        about = path.stat()
        return list(_rows(path, about.st_mtime_ns, about.st_size))

    def config(self, name: str) -> Path:
        """configs/<name>.yaml."""
        return self.root / f"configs/{name}.yaml"


@functools.lru_cache(maxsize=64)
def _rows(path: Path, changed: int, size: int) -> tuple[Row, ...]:
    """The rows of a file as it was then; each cell asks for them."""
    return tuple(read_rows(path))


@dataclass(frozen=True)
class Study:
    """One experiment: its cells, how one is measured, and what is rendered from all rows.

    Attributes:
        name: of the study, and of its first file of rows.
        script: that runs it alone, relative to the repository.
        cells: what is measured independently, in the order of the rows.
        measure: a cell's rows.
        render: file below results/ → its text, from the committed rows.
        part: of the committed rows, those that `measure` gives for a cell, in its order.
        whole: all cells' rows → stem of a file below results/ → its rows.
        settings: what a row of a cell comes from, as the code has it now; see `evoquant.bench.settings`.
        seconds: that a cell takes, as measured on two shared cores with nothing in a cache.
        minutes: that all cells take.
        costs: a cell's last word → the seconds it takes, where not `seconds`.
        loose: keys whose values may differ when measured again, for they depend on time.
        within: key → factor by which its values may differ then.
        seen: what of a row is compared.
        why: what makes them differ.
        trained: trains networks, which repeats with the same vector instructions only.
        elsewhere: trained on a CPU with other vector instructions than results/performance.jsonl states.
        alone: must have the machine for itself.
        native: measures what this machine can do, with all of its instructions; in this process.
        kept: cells that are not asked for keep their rows.
        needs: packages that it imports beside the core's.
        fashion: cells that need the Fashion-MNIST files.
        protocol: of rows that report no campaign: raised when they are measured in another way that no setting shows.
    """

    name: str
    script: str
    cells: Sequence[Cell]
    measure: Callable[[Cell, Place], list[Row]]
    render: Callable[[Place], dict[str, str]]
    part: Callable[[Cell, Place], list[Row]]
    whole: Callable[[Mapping[Cell, list[Row]], Place], dict[str, list[Row]]]
    settings: Callable[[Cell, Row, Place], Settings]
    seconds: float
    minutes: float
    costs: Mapping[str, float] = field(default_factory=dict)
    loose: frozenset[str] = frozenset()
    within: Mapping[str, float] = field(default_factory=dict)
    seen: Callable[[Row], Row] = lambda row: row
    why: str = ""
    trained: bool = False
    elsewhere: bool = False
    alone: bool = False
    native: bool = False
    kept: bool = False
    needs: tuple[str, ...] = ()
    fashion: Callable[[Cell], bool] = lambda cell: False
    protocol: int = 1

    def hash_of(self, cell: Cell, row: Row, place: Place) -> str:
        """What a row's `config_hash` has to be by the settings that the code has now."""
        return settings_hash(self.name, self.settings(cell, row, place), self.protocol)

    def measured(self, cell: Cell, place: Place) -> list[Row]:
        """A cell's rows, measured, each with its `config_hash`.

        Raises:
            InputError: a row comes from a run with other settings.
        """
        label = f"{self.name} {' '.join(cell)}"
        return [with_hash(row, self.hash_of(cell, row, place), label) for row in self.measure(cell, place)]

    def cost(self, cell: Cell) -> float:
        """Seconds that a cell takes, about."""
        return self.costs.get(cell[-1], self.seconds)

    def missing(self, cell: Cell) -> str | None:
        """Why a cell cannot be measured here, None where it can."""
        for package in self.needs:
            if importlib.util.find_spec(package) is None:
                return f"needs {package}, which is not installed (make install-… brings it)"
        if self.fashion(cell):
            from evoquant.models.tasks.fashion import VARIABLE, data_folder

            if not data_folder().is_dir():
                return f"needs Fashion-MNIST: apt install dataset-fashion-mnist, or name its folder by {VARIABLE}"
        return None


def by_cell(stem: str, cell_of: Callable[[Row], Cell]) -> Callable[[Cell, Place], list[Row]]:
    """A `Study.part` for rows that belong to one cell each."""
    return lambda cell, place: [row for row in place.rows(stem) if cell_of(row) == cell]


def in_order(stem: str) -> Callable[[Mapping[Cell, list[Row]], Place], dict[str, list[Row]]]:
    """A `Study.whole` for one file with all cells' rows as they come."""
    return lambda found, place: {stem: [row for rows in found.values() for row in rows]}


@dataclass(frozen=True)
class Difference:
    """A value that came out otherwise: where, as committed, as measured."""

    row: str
    key: str
    committed: Any
    measured: Any

    @property
    def of_settings(self) -> bool:
        """Whether the row was measured with other settings than the code has now."""
        return self.key == KEY

    @property
    def of_rounding(self) -> bool:
        """Whether two floats differ in their last digits alone: exp and sums do so between CPUs."""
        old, new = self.committed, self.measured
        return isinstance(old, float) and isinstance(new, float) and math.isclose(old, new, rel_tol=LAST_DIGITS)

    def __str__(self) -> str:
        return f"{self.row}: {self.key} is {_brief(self.committed)} in results/, {_brief(self.measured)} measured again"


def differences(study: Study, cell: Cell, committed: Sequence[Row], measured: Sequence[Row]) -> list[Difference]:
    """What differs between a cell's committed rows and those that were measured again, but for what may."""
    label = f"results/{study.name}.jsonl, {' '.join(cell)}"
    if len(committed) != len(measured):
        return [Difference(label, "rows", len(committed), len(measured))]
    found: list[Difference] = []
    for i, (old, new) in enumerate(zip(committed, measured, strict=True)):
        row = f"{label}, row {i + 1} of {len(measured)}" if len(measured) > 1 else label
        # A measured row has been through no file yet: tuples are lists there, keys are strings.
        _compare(study, row, "", study.seen(old), study.seen(json.loads(json.dumps(new))), found)
    return found


def _compare(study: Study, row: str, key: str, old: Any, new: Any, found: list[Difference]) -> None:
    last = key.rpartition(".")[2]
    if last in study.loose:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            below = f"{key}.{name}" if key else name
            _compare(study, row, below, old.get(name), new.get(name), found)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (mine, theirs) in enumerate(zip(old, new, strict=True)):
            _compare(study, row, f"{key}[{i}]", mine, theirs, found)
    elif factor := _factor(study, key):
        if not _near(old, new, factor):
            found.append(Difference(row, key, old, new))
    elif old != new or type(old) is not type(new):
        found.append(Difference(row, key, old, new))


def _factor(study: Study, key: str) -> float | None:
    """By which a value may differ: that of its name, or of what it is a part of."""
    names = [part.partition("[")[0] for part in key.split(".")]
    return next((study.within[name] for name in reversed(names) if name in study.within), None)


def _near(old: Any, new: Any, factor: float) -> bool:
    numbers = isinstance(old, int | float) and isinstance(new, int | float)
    if not numbers or old <= 0 or new <= 0:
        return bool(old == new)
    return abs(math.log(new / old)) <= math.log(factor)


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else text[:117] + "..."


def render(study: Study, place: Place) -> list[Path]:
    """Write the study's texts and figures from the committed rows; the files that changed."""
    changed = []
    for name, text in study.render(place).items():
        path = place.root / "results" / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomic(path, text)
            changed.append(path)
    return changed


def keep_rows(study: Study, found: Mapping[Cell, list[Row]], place: Place) -> None:
    """Replace the study's rows; every cell must be there."""
    assert list(found) == list(study.cells)
    for stem, rows in study.whole(found, place).items():
        write_rows(place.root / f"results/{stem}.jsonl", rows)
