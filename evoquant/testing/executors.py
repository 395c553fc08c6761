"""Conformance of executors: what the campaign relies on.

    check_executor(make)
    check_executor(make, in_process=True)       one whose workers are threads of the campaign's own process

`make()` returns a fresh executor that has not started. Every check closes its own. The factories below are
module-level functions, as an executor's workers need them, and may serve other tests.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import CampaignError
from evoquant.execution.base import NOT_YET, Failure
from evoquant.testing.clauses import ConformanceError, require, run_checks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from evoquant.execution.base import Executor

HANG_S = 600.0
LIMIT_S = 1.0
AMPLE_S = 120.0


_driver: list[int] = []  # the process that checks, of which nothing is killed
_shared: list[int] = []  # of it, where a worker that should have been killed turned out to be the same


def check_executor(make: Callable[[], Executor], *, in_process: bool = False) -> None:
    """Run every check: a minute, most of it waiting.

    Args:
        make: gives an executor that has not started.
        in_process: its workers share the process of the campaign, so that nothing can stop one that hangs, and one that
            dies ends the campaign: both are left out.

    Raises:
        ConformanceError: naming the clause that is broken.
    """
    checks = (check_order, check_stream, check_values, check_failures, check_turns, check_state, check_unfinished_map)
    run_checks((*checks, check_factory), make)
    if not in_process:
        run_checks((check_deaths, check_time_limit, check_lost_worker), make)


def check_order(make: Callable[[], Executor]) -> None:
    """Results come in the order of the batches, however long each takes; no batch, no result."""
    with closing(make()) as executor:
        executor.start(sleeper, 10)
        require(isinstance(executor.name, str) and executor.name, f"name is {executor.name!r}, expected a word")
        require(executor.workers >= 1, f"workers is {executor.workers}, expected at least 1")
        naps = [0.2, 0.0, 0.05, 0.0, 0.1, 0.0, 0.0, 0.02]
        found = list(executor.map(naps))
        require(found == [10 + nap for nap in naps], f"results are not those of the batches, in their order: {found}")
        require(list(executor.map([])) == [], "no batches should give no results")


def check_stream(make: Callable[[], Executor]) -> None:
    """A stream yields each batch's number and result once; batches are taken one by one, when there is room."""
    with closing(make()) as executor:
        executor.start(sleeper, 10)
        naps = [0.2, 0.0, 0.05, 0.0, 0.1, 0.0]
        found = list(executor.stream(iter(naps)))
        expected = [(index, 10 + nap) for index, nap in enumerate(naps)]
        require(sorted(found) == expected, f"a stream should give each batch's number and result once: {found}")
        require(
            executor.workers > 1 or found == expected, f"one worker should work in the order of the batches: {found}"
        )
        require(list(executor.stream(iter([]))) == [], "no batches should give no results")
        executor.start(raiser, None)
        mixed = dict(executor.stream([0, "ValueError", 1]))
        _fails(mixed.pop(1), "raised:ValueError", "asked to raise")
        require(mixed == {0: 0, 2: 1}, f"batches beside one that raised should go on: {mixed}")
        _check_dependent(executor)


def _check_dependent(executor: Executor) -> None:
    """Batches that are made from the results before them."""
    executor.start(echo, None)
    yielded: list[Any] = []
    ahead: list[int] = []

    def dependent(most: float) -> Iterator[Any]:
        made = 0
        while made < 12:
            if made - len(yielded) >= most:
                yield NOT_YET
                continue
            ahead.append(made - len(yielded))
            made += 1
            yield len(yielded)

    for most in (1.0, 3.0, float("inf")):
        yielded.clear()
        ahead.clear()
        for _, result in executor.stream(dependent(most)):
            yielded.append(result)
        require(len(yielded) == 12, f"a stream of 12 batches gave {len(yielded)} results")
        room = 2 * executor.workers  # one that is worked on, and one that waits for it
        require(max(ahead) < room, f"{max(ahead) + 1} batches were taken by {executor.workers} workers before a result")
        require(most > 1 or yielded == list(range(12)), f"one at a time, each should know those before it: {yielded}")
    _refuses(lambda: list(executor.stream([NOT_YET])), "a batch that waits for nothing", "NOT_YET")
    require(list(executor.stream([1])) == [(0, 1)], "after a stream that was refused, the next should work")


def check_values(make: Callable[[], Executor]) -> None:
    """Batches and results are opaque: None, nested tuples and arrays arrive as they were sent."""
    with closing(make()) as executor:
        executor.start(echo, None)
        batches: list[Any] = [None, False, (), {"a": [1, (2.5, None)]}, "ü"]
        require(list(executor.map(batches)) == batches, "a result differs from what the function returned")
        array = np.arange(12, dtype=np.int64).reshape(3, 4)
        found: Any = next(iter(executor.map([array])))
        require(found.dtype == array.dtype and np.array_equal(found, array), "an array arrived changed")


def check_failures(make: Callable[[], Executor]) -> None:
    """What the function raises becomes that batch's `Failure`; the others go on, `sys.exit` or not."""
    with closing(make()) as executor:
        executor.start(raiser, None)
        found = list(executor.map([0, "ValueError", 1, "SystemExit", 2]))
        require(found[0::2] == [0, 1, 2], f"batches beside one that raised should go on: {found}")
        _fails(found[1], "raised:ValueError", "asked to raise")
        _fails(found[3], "raised:SystemExit", "asked to raise")


def check_turns(make: Callable[[], Executor]) -> None:
    """A map needs a start before it; closing twice is harmless; a closed executor can start again."""
    executor = make()
    with closing(executor):
        _refuses(lambda: list(executor.map([1])), "map before start", "start")
        _refuses(lambda: list(executor.stream([1])), "stream before start", "start")
        executor.close()
        executor.start(echo, None)
        require(list(executor.map([1])) == [1], "closed before its start, the executor should still work")
        executor.close()
        executor.close()
        _refuses(lambda: list(executor.map([1])), "map after close", "start")
        executor.start(echo, None)
        require(list(executor.map([2])) == [2], "closed and started again, the executor should work")


def check_state(make: Callable[[], Executor]) -> None:
    """State is built once per worker, also over several maps; another start replaces it."""
    with closing(make()) as executor, tempfile.TemporaryDirectory() as folder:
        for round_ in ("first", "second"):
            log = Path(folder) / round_
            executor.start(builder, (str(log), round_))
            found = list(executor.map(range(6))) + list(executor.map(range(6)))
            expected = [(round_, batch) for batch in (*range(6), *range(6))]
            require(found == expected, f"the {round_} start's state is not what the batches met: {found}")
            built = log.read_text("utf-8").count("\n")
            require(built == executor.workers, f"state was built {built} times by {executor.workers} workers")


def check_unfinished_map(make: Callable[[], Executor]) -> None:
    """A map that was given up half-way leaves nothing behind in the next one."""
    with closing(make()) as executor:
        executor.start(sleeper, 0, AMPLE_S)
        unfinished = iter(executor.map([0.0, 0.3, 0.3, 0.3]))
        require(next(unfinished) == 0.0, "the first result is wrong")
        found = list(executor.map([0.01, 0.02]))
        require(found == [0.01, 0.02], f"the next map got something else than its own results: {found}")
        halfway = executor.stream([0.0, 0.3, 0.3, 0.3])
        next(halfway)
        found = list(executor.map([0.01, 0.02]))
        require(found == [0.01, 0.02], f"the map after a stream got something else than its own results: {found}")


def check_factory(make: Callable[[], Executor]) -> None:
    """A factory that raises is a `CampaignError` with the exception's name and text, with or without a limit."""
    with closing(make()) as executor:
        for limit_s in (None, AMPLE_S):
            start = partial(executor.start, broken, "layer 3", limit_s)
            _refuses(start, "a broken factory", "KeyError")
            _refuses(start, "a broken factory", "layer 3")
        executor.start(echo, None)
        require(list(executor.map([1])) == [1], "after a factory that raised, another should start")


def check_deaths(make: Callable[[], Executor]) -> None:
    """A factory that kills its worker is a `CampaignError`, and takes nothing else along."""
    _driver[:], _shared[:] = [os.getpid()], []
    with closing(make()) as executor:
        _refuses(partial(executor.start, deadly, None, AMPLE_S), "a factory that kills its worker", "cannot start")
        require(
            not _shared,
            "workers share the campaign's process: one that hangs cannot be stopped, and one that dies takes it along; "
            "where that is meant, check_executor(make, in_process=True) leaves both out",
        )
        executor.start(echo, None)
        require(list(executor.map([1])) == [1], "after a factory that killed its worker, another should start")


def check_time_limit(make: Callable[[], Executor]) -> None:
    """A batch past its limit is `time_limit`; building the state again does not eat up the limit of those behind it."""
    with closing(make()) as executor:
        executor.start(slow_sleeper, 1.5 * LIMIT_S, LIMIT_S)
        began = time.monotonic()
        found = list(executor.map([0.0, HANG_S, 0.01, 0.02, 0.03]))
        require(time.monotonic() - began < HANG_S / 4, "a batch that hangs should be stopped soon after its limit")
        _fails(found.pop(1), "time_limit", "")
        require(found == [0.0, 0.01, 0.02, 0.03], f"batches beside one that hangs should go on: {found}")


def check_lost_worker(make: Callable[[], Executor]) -> None:
    """A batch whose worker is killed is tried again, with the same result; one that always kills is `worker_lost`."""
    with closing(make()) as executor, tempfile.TemporaryDirectory() as folder:
        executor.start(killer, folder, AMPLE_S)
        found = list(executor.map(["a", "once", "b", "always", "c"]))
        _fails(found.pop(3), "worker_lost", "")
        require(found == ["a", "once", "b", "c"], f"a worker that was killed once should not change results: {found}")
        require(list(executor.map(["d"])) == ["d"], "after lost workers the next map should work")


def echo(_: Any) -> Callable[[Any], Any]:
    """Factory: a batch's result is the batch."""
    return _same


def _same(batch: Any) -> Any:
    return batch


def sleeper(plus: float) -> Callable[[float], float]:
    """Factory: sleep for the batch's seconds, then return them plus the payload."""

    def sleep(seconds: float) -> float:
        time.sleep(seconds)
        return plus + seconds

    return sleep


def slow_sleeper(start_s: float) -> Callable[[float], float]:
    """Factory: `sleeper(0)` that takes the payload's seconds to build."""
    time.sleep(start_s)
    return sleeper(0)


def raiser(_: Any) -> Callable[[Any], Any]:
    """Factory: a batch that names an exception raises it."""

    def work(batch: Any) -> Any:
        if batch == "SystemExit":
            raise SystemExit("asked to raise")
        if batch == "ValueError":
            raise ValueError("asked to raise")
        return batch

    return work


def builder(payload: tuple[str, str]) -> Callable[[Any], Any]:
    """Factory: adds a line to the payload's file; results carry the payload's word."""
    log, word = payload
    with Path(log).open("a", encoding="utf-8") as stream:
        stream.write(f"{os.getpid()}\n")
    return lambda batch: (word, batch)


def broken(what: str) -> Callable[[Any], Any]:
    """Factory: raises."""
    raise KeyError(what)


def deadly(_: Any) -> Callable[[Any], Any]:
    """Factory: kills its worker."""
    _die()
    return _same


def killer(folder: str) -> Callable[[str], str]:
    """Factory: the batch `always` kills its worker, `once` does when it is first tried (a file in the folder tells)."""

    def work(batch: str) -> str:
        marker = Path(folder) / batch
        if batch == "always" or (batch == "once" and not marker.exists()):
            marker.touch()
            _die()
        return batch

    return work


def _die() -> None:
    if os.getpid() in _driver:
        _shared.append(os.getpid())
        raise ConformanceError("this worker is the process that checks")
    os.kill(os.getpid(), signal.SIGKILL)


def _fails(result: Any, reason: str, text: str) -> None:
    require(isinstance(result, Failure), f"expected a Failure with the reason {reason}, got {result!r}")
    require(result.reason == reason, f"expected the reason {reason}, got {result.reason}: {result.message}")
    require(text in result.message, f"the message of {reason} lacks {text!r}: {result.message}")


def _refuses(call: Callable[[], object], when: str, text: str) -> None:
    try:
        call()
    except CampaignError as error:
        require(text in str(error), f"{when}: the message lacks {text!r}: {error}")
        return
    raise ConformanceError(f"{when} should raise CampaignError")
