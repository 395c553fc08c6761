"""Trackers: a run's course in the tools that people compare their experiments with, on this machine only.

What is logged comes from the journal: whatever of it a tracker has not got yet is made good when a run goes on, and a
step is never logged twice. A tracker that fails says so once and is left alone; it cannot change or end a run.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from evoquant.campaign.champion import load_champion
from evoquant.campaign.config_trackers import tracker_named
from evoquant.campaign.storage import CHAMPION, RunDir
from evoquant.campaign.storage_url import Url
from evoquant.errors import InputError, MissingExtraError
from evoquant.files import parse_json, pretty_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from evoquant.campaign.champion import Champion
    from evoquant.campaign.config import CampaignConfig
    from evoquant.campaign.config_trackers import MlflowConfig, TensorBoardConfig
    from evoquant.campaign.observer import Observer, Progress

STATE = "trackers.json"
FLUSH_EVERY_S = 1.0
LONGEST_PARAM = 500  # characters
MOST_PARAMS = 500
_ID = re.compile(r"[0-9a-f]{32}")


class Tracker(Protocol):
    """One tool's run, open for writing."""

    def logged(self) -> Mapping[str, set[int]]:
        """Figure → the steps that it has already."""
        ...

    def log(self, step: int, figures: Mapping[str, float], when_s: float) -> None:
        """Figures of a step that it has not got."""
        ...

    def flush(self) -> None:
        """Write what is waiting."""
        ...

    def finish(self, run: Path) -> None:
        """The run is finished; its files are in `run`."""
        ...

    def close(self, *, finished: bool) -> None:
        """End; the run is not `finished` where an error, the user or its wall time ended it."""
        ...

    def state(self) -> dict[str, str]:
        """Plain data by which it is found again."""
        ...


def figures(record: Mapping[str, Any]) -> dict[str, float]:
    """What is logged of a generation, from its journal line; what is not known is left out."""
    asked, distinct = record["evaluations"]["asked"], record["evaluations"]["distinct"]
    found: dict[str, Any] = {
        "evaluations/asked": asked,
        "evaluations/distinct": distinct,
        "evaluations/reused": max(1.0 - distinct / asked, 0.0) if asked else 0.0,
        "evaluations/failed": len(record["failures"]),
    }
    if "passes" in record:
        found["evaluations/passes"] = record["passes"]
    if record["summary"]["fitness"] is not None:
        found["fitness/median"] = record["summary"]["fitness"]["median"]
        found["fitness/mean"] = record["summary"]["fitness"]["mean"]
    champion = record["champion"]
    if champion is not None:
        on = champion.get("on", 0)
        found["fitness/best"] = champion["fitness"]
        for name in ("retention", "compression", "effective_bits"):
            found[f"best/{name}"] = champion[name][on]
    return {key: float(value) for key, value in found.items() if value is not None and math.isfinite(value)}


def final_figures(champion: Champion) -> dict[str, float]:
    """The champion's scores, as `champion/<split>/<figure>`."""
    return {
        f"champion/{split}/{name}": float(value)
        for split, scores in champion.scores.items()
        for name, value in scores.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    }


def params(config: CampaignConfig) -> dict[str, str]:
    """The resolved config as `key.path` → text, and its hash; long values are cut."""
    found = {"config_hash": config.hash()}

    def walk(value: Any, key: str) -> None:
        if isinstance(value, dict) and value:
            for name, item in value.items():
                walk(item, f"{key}.{name}" if key else str(name))
            return
        text = value if isinstance(value, str) else json.dumps(value)
        short = text if len(text) <= LONGEST_PARAM else text[: LONGEST_PARAM - 3] + "..."
        found.setdefault(re.sub(r"[^A-Za-z0-9_. /-]", "_", key)[:200], short)

    walk(config.to_dict(), "")
    return dict(list(found.items())[:MOST_PARAMS])


class _Guarded:
    """A tracker and what it has got; after its first fault it is left alone."""

    def __init__(self, kind: str, tracker: Tracker, warn: Callable[[str], None]) -> None:
        self._kind = kind
        self._tracker: Tracker | None = tracker
        self._warn = warn
        self._known: Mapping[str, set[int]] = {}
        self._flushed = time.monotonic()
        self._do(lambda t: setattr(self, "_known", t.logged()))

    def _do(self, what: Callable[[Tracker], object]) -> None:
        if self._tracker is None:
            return
        try:
            what(self._tracker)
        except Exception as error:  # whatever a library or a full disk raises; the run is what matters
            broken, self._tracker = self._tracker, None
            self._warn(f"warning: {self._kind} is left out from here on: {type(error).__name__}: {error}"[:500])
            with contextlib.suppress(Exception):
                broken.close(finished=False)

    def log(self, step: int, found: Mapping[str, float], when_s: float) -> None:
        new = {key: value for key, value in found.items() if step not in self._known.get(key, ())}
        if new:
            self._do(lambda tracker: tracker.log(step, new, when_s))

    def flush(self, *, now: bool = True) -> None:
        if now or time.monotonic() - self._flushed > FLUSH_EVERY_S:
            self._do(lambda tracker: tracker.flush())
            self._flushed = time.monotonic()

    def finish(self, run: Path, step: int, found: Mapping[str, float]) -> None:
        self.log(step, found, time.time())
        self.flush()  # what a close that fails would leave for later, when a resume has logged it again
        self._do(lambda tracker: tracker.finish(run))

    def close(self, *, finished: bool) -> None:
        self._do(lambda tracker: tracker.close(finished=finished))


class _Tracked:
    """An observer that hands on what it hears, and logs it."""

    def __init__(self, observer: Observer, trackers: Sequence[_Guarded], generations: int) -> None:
        self._observer = observer
        self._trackers = trackers
        self.generations = generations

    def generation(self, progress: Progress) -> None:
        self.generations = progress.generation + 1
        self._observer.generation(progress)
        found, now = figures(progress.record), time.time()
        for tracker in self._trackers:
            tracker.log(progress.generation, found, now)
            tracker.flush(now=False)

    def message(self, text: str) -> None:
        self._observer.message(text)


@contextlib.contextmanager
def tracked(
    config: CampaignConfig, run: RunDir, observer: Observer, track: Sequence[str] = (), *, resumed: bool = False
) -> Iterator[Observer]:
    """An observer that also tells the trackers of a config, and those of `track` by name.

    Args:
        config: of the run.
        run: its directory, held; `trackers.json` in it says where each is gone on with.
        observer: who hears all that this one hears, and of a tracker that fails.
        track: more kinds, at their default places.
        resumed: the config comes from the run directory: outside of it, a folder that only it names is gone on with
            where the tracker was begun there, and begun nowhere.

    Raises:
        ConfigError: no such tracker.
        MissingExtraError: its package is not installed.
    """
    wanted = {tracker.kind: tracker for tracker in (*map(tracker_named, track), *config.trackers)}
    if not wanted:
        yield observer
        return
    state = _read_state(run)
    opened: dict[str, Tracker] = {}
    for kind, tracker in wanted.items():
        place = _place(tracker, run, state.get(kind, {}))
        strange = resumed and not (_begun(kind, place) or _inside(place, run.path))
        if strange and kind in track:
            tracker = tracker_named(kind)
            place = _place(tracker, run, state.get(kind, {}))
        elif strange:
            observer.message(
                f"warning: {kind} is left out: {place} holds nothing of it, and a resume begins nothing where only the "
                f"run directory says so; to begin at the default place: --track {kind}."
            )
            continue
        one = _open(tracker, place, config, run.path, state.get(kind, {}), observer)
        if one is not None:
            opened[kind] = one
    run.put(STATE, pretty_json(state | {kind: one.state() for kind, one in opened.items()}))
    trackers = [_Guarded(kind, one, observer.message) for kind, one in opened.items()]
    finished = False
    try:
        told = _Tracked(observer, trackers, _make_good(run, trackers))
        yield told
        finished = run.has(CHAMPION)
        if finished:
            scores = final_figures(load_champion(run.path / CHAMPION))
            for guarded in trackers:
                guarded.finish(run.path, told.generations, scores)
    finally:
        for guarded in trackers:
            guarded.close(finished=finished)


def _make_good(run: RunDir, trackers: Sequence[_Guarded]) -> int:
    """Log what is journalled and was not, because the process ended before or the tracker is new; how many there are.

    A line that is no generation's ends it: the run itself will say what is wrong with it.
    """
    lines = run.journal() if trackers else []
    for number, line in enumerate(lines):
        try:
            found = figures(json.loads(line))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            break
        for tracker in trackers:
            tracker.log(number, found, time.time())
    for tracker in trackers:
        tracker.flush()
    return len(lines)


def _open(
    tracker: TensorBoardConfig | MlflowConfig,
    place: Path,
    config: CampaignConfig,
    run: Path,
    state: Mapping[str, str],
    observer: Observer,
) -> Tracker | None:
    try:
        if tracker.kind == "tensorboard":
            from evoquant.report.track_tensorboard import TensorBoard

            return TensorBoard(place, params(config))
        from evoquant.report.track_mlflow import Mlflow

        return Mlflow(place, tracker.experiment, f"{config.name}-{config.seed}", params(config), run, state.get("run"))
    except (MissingExtraError, KeyboardInterrupt):
        raise
    except Exception as error:
        observer.message(f"warning: {tracker.kind} is left out: {type(error).__name__}: {error}"[:500])
        return None


def _place(tracker: TensorBoardConfig | MlflowConfig, run: RunDir, state: Mapping[str, str]) -> Path:
    """The folder of a tracker: as configured, else where it was begun, else its default."""
    if tracker.path is not None:
        return Path(tracker.path)
    # What they write has to be a folder of this machine.
    here = Path("runs", run.path.name).absolute() if isinstance(run.path, Url) else run.path.absolute()
    if tracker.kind == "tensorboard":
        return here / "tensorboard"
    if "path" in state and _begun("mlflow", Path(state["path"])):  # the run directory was moved, the store was not
        return Path(state["path"])
    return here.parent / "mlflow"


def _begun(kind: str, place: Path) -> bool:
    """Whether the folder holds what a tracker of that kind writes."""
    pattern = "events.out.tfevents.*" if kind == "tensorboard" else "*/meta.yaml"
    try:
        return next(place.glob(pattern), None) is not None
    except OSError:
        return False


def _inside(place: Path, folder: Path) -> bool:
    return place.resolve().is_relative_to(folder.resolve())


def _read_state(run: RunDir) -> dict[str, dict[str, str]]:
    """What `trackers.json` says, so far as it is what was written there."""
    if not run.has(STATE):
        return {}
    try:
        found = parse_json(run.text(STATE), STATE)
    except InputError:  # it only says where to go on; without it a tracker begins anew
        return {}
    state: dict[str, dict[str, str]] = {}
    for kind, one in found.items() if isinstance(found, dict) else ():
        if isinstance(one, dict):
            path, number = one.get("path"), one.get("run")
            kept = {"path": path} if isinstance(path, str) and "\0" not in path else {}
            state[kind] = kept | ({"run": number} if isinstance(number, str) and _ID.fullmatch(number) else {})
    return state
