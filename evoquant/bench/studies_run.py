"""All studies: rendered from committed rows, measured again in part to be compared, or measured anew as a whole."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from evoquant.bench import studies_costs, studies_networks, studies_outside, studies_scale, studies_speed, studies_suite
from evoquant.bench.studies import (
    PARTIAL,
    ROOT,
    Cell,
    Difference,
    Place,
    Row,
    Study,
    differences,
    keep_rows,
    render,
)
from evoquant.errors import EvoquantError, InputError, suggestion
from evoquant.execution.cluster import environment_variables
from evoquant.files import canonical_json
from evoquant.rng import generator_for

STUDIES: dict[str, Callable[[], Study]] = {
    "journey": studies_suite.journey,
    "baselines": studies_suite.baselines,
    "free_evolution": studies_suite.free_evolution,
    "digits": studies_networks.digits,
    "transfer": studies_suite.carry,
    "gap": studies_suite.gap,
    "searches": studies_suite.searches,
    "hypervolume": studies_suite.hypervolume,
    "tabular": studies_speed.tabular,
    "own_models": studies_networks.own_models,
    "leave_one_out": studies_networks.leave_one_out,
    "onnx": studies_networks.onnx,
    "outside": studies_outside.outsiders,
    "outside_networks": studies_outside.outside_networks,
    "export": studies_networks.export,
    "costs": studies_costs.cost_tables,
    "performance": studies_speed.performance,
    "reliability": studies_speed.reliability,
    "scale": studies_scale.scale,
}
X86 = ("x86_64", "AMD64")
SHORT_S = 60.0  # a study whose cells take less is measured again in every check

Say = Callable[[str], None]


def to_stderr(text: str) -> None:
    """One line of progress."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def chosen(names: Sequence[str]) -> list[Study]:
    """The studies of these names, by default all, in the order in which one takes from another.

    Raises:
        InputError: no study is called so.
    """
    for name in names:
        if name not in STUDIES:
            raise InputError(f"no study is called {name!r}; known: {', '.join(STUDIES)}.{suggestion(name, STUDIES)}")
    return [make() for name, make in STUDIES.items() if name in names or not names]


def render_all(studies: Sequence[Study], say: Say, root: Path = ROOT) -> None:
    """Render every study's texts from its committed rows."""
    place = Place(root, root / "runs")
    for study in studies:
        changed = render(study, place)
        said = ", ".join(str(path.relative_to(root)) for path in changed) + " changed" if changed else "as it was"
        say(f"{study.name}: rendered, {said}")


@dataclass(frozen=True)
class Job:
    """A cell of a study, and where it is measured."""

    study: str
    cell: Cell
    place: Place


@dataclass(frozen=True)
class Measured:
    """What came of a job: its rows, or why there are none."""

    job: Job
    rows: list[Row]
    seconds: float
    fault: str | None = None

    @property
    def label(self) -> str:
        """Study and cell."""
        return f"{self.job.study} {' '.join(self.job.cell)}"


def measure(job: Job) -> Measured:
    """Measure one cell, in this process."""
    began = time.perf_counter()
    try:
        rows = STUDIES[job.study]().measured(job.cell, job.place)
    except EvoquantError as error:
        return Measured(job, [], time.perf_counter() - began, str(error))
    return Measured(job, rows, time.perf_counter() - began)


def measure_all(jobs: Sequence[Job], workers: int, until: float | None = None) -> Iterator[Measured]:
    """Measure cells side by side as they come; those that need the machine for themselves last, one by one.

    Args:
        jobs: in the order in which they are begun.
        workers: side by side.
        until: `time.monotonic()` after which none is begun; those left out are not among the results.
    """
    native = {name for name in {job.study for job in jobs} if STUDIES[name]().native}
    alone = {name for name in {job.study for job in jobs} if STUDIES[name]().alone}
    trained = {name for name in {job.study for job in jobs} if STUDIES[name]().trained}
    crowd = [job for job in jobs if job.study not in native | alone]
    with plain_vectors():
        yield from _in_processes([job for job in crowd if job.study not in trained], workers, until)
    yield from _in_processes([job for job in crowd if job.study in trained], workers, until)
    yield from _in_processes([job for job in jobs if job.study in alone - native], 1, until)
    for job in jobs:
        if job.study in native and not _late(until):
            yield measure(job)


def _late(until: float | None) -> bool:
    return until is not None and time.monotonic() > until


def _in_processes(jobs: Sequence[Job], workers: int, until: float | None) -> Iterator[Measured]:
    """Measure cells in processes that read the environment anew."""
    queue = list(jobs)
    if not queue:
        return
    # Forking a process that has started threads can hang; a fresh interpreter cannot.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        running: set[Future[Measured]] = set()
        while queue or running:
            while queue and len(running) < workers and not _late(until):
                running.add(pool.submit(measure, queue.pop(0)))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()


@contextlib.contextmanager
def plain_vectors() -> Iterator[None]:
    """Processes begun within use AVX2 and nothing wider, as those did that measured the rows on profiles.

    With other vector instructions exp, sums and products end in other last digits, and CMA-ES takes another way. Where
    a CPU has more than AVX2, each library is asked by its own variable. Rows of networks come from one with AVX-512.
    """
    import numpy as np

    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    wider = [name for name in found if name.startswith("AVX512") or name == "X86_V4"]
    wanted = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(wider),
        "OPENBLAS_CORETYPE": "Haswell",
    }
    with environment_variables(wanted if platform.machine() in X86 else {}):
        yield


def drawn(studies: Sequence[Study], share: float, seed: int, minutes: float, workers: int) -> list[tuple[Study, Cell]]:
    """Cells to be measured again: a random share, at least one of every study whose cells are short.

    Those of long cells take part by chance in proportion to their number, as far as the time is enough.
    """
    draw = generator_for(seed, 0, "measured again")
    short: list[tuple[Study, Cell]] = []
    long: list[tuple[Study, Cell]] = []
    for study in studies:
        count = int(share * len(study.cells) + draw.random())
        order = [study.cells[i] for i in draw.permutation(len(study.cells)).tolist()]
        brief = [cell for cell in order if study.cost(cell) <= SHORT_S]
        mine = order[:count]
        if not any(cell in brief for cell in mine):
            mine = [*brief[:1], *mine[: max(count - 1, 0)]] if brief else mine
        for cell in mine:
            (short if study.cost(cell) <= SHORT_S else long).append((study, cell))
    left = minutes * 60 * workers - sum(study.cost(cell) for study, cell in short)
    kept: list[tuple[Study, Cell]] = []
    for place in draw.permutation(len(long)).tolist():
        study, cell = long[place]
        if study.cost(cell) * (workers if study.alone else 1) <= left:
            left -= study.cost(cell) * (workers if study.alone else 1)
            kept.append((study, cell))
    seen: set[str] = set()
    first: list[tuple[Study, Cell]] = []
    more: list[tuple[Study, Cell]] = []
    for study, cell in short:
        (more if study.name in seen else first).append((study, cell))
        seen.add(study.name)
    return [*first, *more, *kept]  # where time is short, every study has its turn first


def check_again(
    studies: Sequence[Study],
    *,
    share: float = 0.02,
    seed: int = 0,
    minutes: float = 15.0,
    workers: int | None = None,
    words: Sequence[str] = (),
    say: Say = to_stderr,
    root: Path = ROOT,
) -> int:
    """Measure random cells again and hold them against the committed rows; the number of values that differ.

    Args:
        studies: to draw from.
        share: of each study's cells.
        seed: of the draw.
        minutes: no cell is begun after so many.
        workers: side by side, by default one a core.
        words: measure all cells that hold one of these instead of drawing.
        say: told line by line.
        root: of the repository.
    """
    count = workers or os.cpu_count() or 1
    say(f"measuring {share:.0%} of the rows again, seed {seed}, at most {minutes:g} minutes, {count} at a time")
    if words:
        cells = [(study, cell) for study in studies for cell in study.cells if set(words) & {*cell, study.name}]
    else:
        cells = drawn(studies, share, seed, minutes, count)
    by_name = {study.name: study for study in studies}
    known = Place(root, root, again=True)
    same_cpu = _same_features(known)
    faults = compared = 0
    for name, why in _missing(cells).items():
        say(f"{name}: left out: {why}")
    with tempfile.TemporaryDirectory(prefix="evoquant-again-") as folder:
        jobs = [
            Job(study.name, cell, Place(root, Path(folder) / str(number), again=True))
            for number, (study, cell) in enumerate(cells)
            if study.missing(cell) is None
        ]
        for done in measure_all(jobs, count, time.monotonic() + minutes * 60):
            study = by_name[done.job.study]
            verdict, differing = _verdict(study, done, known, same_cpu and not study.elsewhere)
            faults += differing
            compared += len(done.rows)
            say(verdict)
    say(f"{compared} rows of {len(jobs)} cells measured again (seed {seed}): {faults} values differ")
    return faults


def _verdict(study: Study, done: Measured, known: Place, same_cpu: bool) -> tuple[str, int]:
    """What to say of a cell that was measured again, and how many of its values count as faults."""
    label = f"{done.label} ({done.seconds:.0f} s)"
    if done.fault is not None:
        return f"{label}: FAILED: {done.fault}", 1
    found = differences(study, done.job.cell, study.part(done.job.cell, known), done.rows)
    faults = [one for one in found if not one.of_rounding]
    notes = f"; {study.why}" if study.why and not faults else ""
    if rounded := sum(one.of_rounding for one in found):
        notes += f"; {rounded} values in their last digits only, as between CPUs"
    if not faults:
        return f"{label}: {len(done.rows)} rows equal{notes}", 0
    lines = "".join(f"\n  {one}" for one in faults[:20])
    if study.trained and not same_cpu and not any(one.of_settings for one in faults):
        return (
            f"{label}: differs, as it may: networks are trained, and the rows come from a CPU with other vector "
            f"instructions than this one{lines}",
            0,
        )
    return f"{label}: {len(faults)} VALUES DIFFER{lines}", len(faults)


def _same_features(place: Place) -> bool:
    """Whether this CPU has the vector instructions of the one that measured networks and speed."""
    from evoquant.bench.speed import machine

    rows = [row["row"] for row in place.rows("performance") if row.get("part") == studies_speed.MACHINE]
    return not rows or bool(rows[0].get("processor_features") == machine()["processor_features"])


def _missing(cells: Sequence[tuple[Study, Cell]]) -> dict[str, str]:
    """Study → why some of its cells cannot be measured here."""
    return {study.name: why for study, cell in cells if (why := study.missing(cell)) is not None}


def measure_whole(
    study: Study, *, words: Sequence[str] = (), workers: int | None = None, say: Say = to_stderr, root: Path = ROOT
) -> list[Difference]:
    """Measure all cells of a study, going on where it stopped; what differs from the rows that were committed.

    Rows and tables are replaced once all cells are there. Finished cells are kept in results/.partial until then.

    Args:
        study: to measure.
        words: only cells that hold one of these; the others keep their rows where the study allows it.
        workers: side by side, by default one a core.
        say: told line by line.
        root: of the repository.
    """
    partial = root / "results" / PARTIAL / f"{study.name}.jsonl"
    place = Place(root, root / "runs" / study.name)
    known = Place(root, root)
    wanted = [cell for cell in study.cells if not words or set(words) & set(cell)]
    if words and not wanted:
        raise InputError(f"{study.name}: no cell has the word {words[0]!r}; e.g. {' '.join(study.cells[0])}.")
    found = _finished(partial, study)
    todo = [cell for cell in wanted if cell not in found]
    if found:
        say(f"{study.name}: going on with {len(found)} finished cells of {partial} (delete it to begin anew)")
    for name, why in _missing([(study, cell) for cell in todo]).items():
        raise InputError(f"{name}: {why}")
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("a", encoding="utf-8") as stream:
        jobs = [Job(study.name, cell, place) for cell in todo]
        for number, done in enumerate(measure_all(jobs, workers or os.cpu_count() or 1), 1):
            if done.fault is not None:
                raise InputError(f"{done.label}: {done.fault}")
            found[done.job.cell] = json.loads(json.dumps(done.rows))
            stream.write(canonical_json({"cell": list(done.job.cell), "rows": done.rows}) + "\n")
            stream.flush()
            say(f"[{number}/{len(jobs)}] {done.label}: {done.seconds:.0f} s")
    anew = [cell for cell in wanted if cell in found]
    differing = [one for cell in anew for one in differences(study, cell, study.part(cell, known), found[cell])]
    if study.kept:
        found = {cell: study.part(cell, known) for cell in study.cells} | found
    if all(cell in found for cell in study.cells):
        keep_rows(study, {cell: found[cell] for cell in study.cells}, place)
        render(study, place)
        partial.unlink()
    return [one for one in differing if not one.of_rounding]


def _finished(path: Path, study: Study) -> dict[Cell, list[Row]]:
    """Cells that an earlier call has finished; a torn last line is none."""
    found: dict[Cell, list[Row]] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
            cell = tuple(record["cell"])
        except (ValueError, KeyError, TypeError):
            continue
        if cell in set(study.cells):
            found[cell] = record["rows"]
    return found
