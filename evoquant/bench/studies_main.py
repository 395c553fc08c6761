"""The command line of experiments/: one study, or all that README.md and results/ show."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from evoquant.bench.studies import ROOT, Study
from evoquant.bench.studies_run import check_again, chosen, measure_whole, render_all, to_stderr
from evoquant.errors import EvoquantError, InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SHARE, MINUTES = 0.02, 15.0


def study_main(name: str, arguments: Sequence[str] | None = None) -> int:
    """One study: measured whole, rendered, or measured again in part; the exit code."""
    study = chosen([name])[0]
    parser = argparse.ArgumentParser(
        description=f"{study.name}: {len(study.cells)} cells, about {_duration(study.minutes)} on two idle cores. With "
        "no option all cells are measured (finished ones are kept, so that an interrupted call goes on), then "
        f"results/{study.name}.jsonl and the tables are replaced.",
    )
    parser.add_argument("words", nargs="*", metavar="WORD", help="only cells with one of these words, as --cells")
    parser.add_argument("--cells", nargs="+", default=[], metavar="WORD", help="only cells with one of these words")
    parser.add_argument("--render", action="store_true", help="only the tables, from the committed rows")
    _again_options(parser, None)
    options = parser.parse_args(arguments)
    words = [*options.words, *options.cells]

    def work() -> int:
        if options.render:
            render_all([study], to_stderr)
            return 0
        if options.again is not None:
            return _again([study], options, words)
        return _differing(measure_whole(study, words=words, workers=options.workers))

    return _guarded(work)


def results_main(arguments: Sequence[str] | None = None) -> int:
    """All studies: render everything, measure a share of the rows again; the exit code.

    With `--full` measure all of them anew, table by table.
    """
    parser = argparse.ArgumentParser(
        description="Renders every table and figure of results/ and README.md from the committed rows, then measures "
        f"a random {SHARE:.0%} of the rows again and compares. Exit code 1 where a value differs.",
    )
    parser.add_argument("--full", action="store_true", help="measure every row anew instead; goes on where it stopped")
    parser.add_argument("--render", action="store_true", help="only render")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these studies")
    parser.add_argument("--cells", nargs="+", default=[], metavar="WORD", help="measure cells with these words again")
    _again_options(parser, SHARE)
    options = parser.parse_args(arguments)

    def work() -> int:
        studies = chosen(options.only)
        if options.full:
            return _full(studies, options.workers)
        render_all(studies, to_stderr)
        _documents()
        return 0 if options.render else _again(studies, options, options.cells)

    return _guarded(work)


def _again_options(parser: argparse.ArgumentParser, share: float | None) -> None:
    parser.add_argument(
        "--again", type=_share, default=share, metavar="SHARE", help="measure this share of the cells again, compare"
    )
    parser.add_argument("--seed", type=int, help="of the draw; by default another each time, and printed")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"for measuring again (default {MINUTES:g})")
    parser.add_argument("--workers", type=int, help="side by side, by default one a core")


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: a share lies between 0 and 1")
    return value


def _again(studies: Sequence[Study], options: argparse.Namespace, words: Sequence[str]) -> int:
    seed = options.seed if options.seed is not None else time.time_ns() // 1000 % 2**31
    faults = check_again(
        studies, share=options.again, seed=seed, minutes=options.minutes, workers=options.workers, words=words
    )
    return 1 if faults else 0


def _full(studies: Sequence[Study], workers: int | None) -> int:
    possible = []
    for study in studies:
        reasons = [why for cell in study.cells if (why := study.missing(cell)) is not None]
        if reasons:
            to_stderr(f"{study.name}: left out: {reasons[0]}")
        else:
            to_stderr(f"{study.name}: {len(study.cells)} cells, {_duration(study.minutes)}")
            possible.append(study)
    to_stderr(f"all together {_duration(sum(study.minutes for study in possible))} on two idle cores")
    codes = [_differing(measure_whole(study, workers=workers)) for study in possible]
    _documents()
    return max(codes, default=0)


def _documents() -> None:
    """Draw the figures and fill the documents; without matplotlib the figures stay as they are."""
    from evoquant.report.figures_drawn import draw_figures
    from evoquant.report.inserted import render_documents

    try:
        changed = draw_figures(ROOT)
    except MissingExtraError as error:
        to_stderr(f"figures left as they are: {error}")
        changed = []
    for path in [*changed, *render_documents(ROOT)]:
        to_stderr(f"{path.relative_to(ROOT)} changed")


def _differing(found: Sequence[object]) -> int:
    for one in found:
        to_stderr(f"DIFFERS: {one}")
    return 1 if found else 0


def _duration(minutes: float) -> str:
    return f"{minutes / 60:.1f} hours" if minutes >= 60 else f"{max(minutes, 1):.0f} min"


def _guarded(work: Callable[[], int]) -> int:
    """The exit code of `work`; a fault that the user can mend is one message."""
    try:
        if not (ROOT / "results").is_dir() or not (ROOT / "configs").is_dir():
            raise InputError(
                f"{ROOT}: holds no configs/ and results/; experiments run in the repository, not installed."
            )
        return work()
    except EvoquantError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command goes on\n")
        return 130
