"""Measurements: the store is asked first, workers second; no (allocation, block of samples) is measured twice."""

from __future__ import annotations

import hashlib
import time
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import CampaignError
from evoquant.execution.base import Failure
from evoquant.execution.sizing import Sizer
from evoquant.files import canonical_json
from evoquant.models.base import REFERENCE, Failed, Request
from evoquant.models.own_rounding import quantizer_of
from evoquant.store import outcome_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from evoquant.execution.base import Executor
    from evoquant.models.base import MeasuredTask, Outcome, Split
    from evoquant.store import Store

Widths = tuple[str, ...]
REQUESTS_PER_BATCH = 4  # before it is known what one costs


def allocation_digest(widths: Widths) -> str:
    """First 32 hex digits of the sha256 of the precision names, layer by layer."""
    return hashlib.sha256(canonical_json(list(widths)).encode()).hexdigest()[:32]


class Measurer:
    """Answers requests; the driver alone writes the store.

    Attributes:
        task: the network and its data.
        store_hits: outcomes that the store had, however often the same.
        measured: outcomes that were measured.
        needed: keys of all outcomes that were asked for.
        messages: of failures.
    """

    def __init__(self, task: MeasuredTask, store: Store, *, limited: bool = False) -> None:
        self.task = task
        self.store_hits = 0
        self.measured = 0
        self.needed: set[str] = set()
        self.messages: list[str] = []
        self._store = store
        self._limited = limited
        self._quantizer = quantizer_of(task)
        self._executor: Executor | None = None
        self._sizer = Sizer(REQUESTS_PER_BATCH)

    def use(self, executor: Executor, limit_s: float | None = None) -> None:
        """Place the network and the data on the executor's workers."""
        from evoquant.models.measurer import start_measurer

        elsewhere = bool(getattr(executor, "elsewhere", False))
        executor.start(start_measurer, self.task.payload(elsewhere=elsewhere), limit_s)
        self._executor = executor
        self._limited = limit_s is not None

    def outcomes(self, requests: Sequence[Request]) -> list[Outcome | Failed]:
        """Per-sample outcomes of each request, in order; failures are never stored."""
        keys = [self._key(request) for request in requests]
        found: dict[str, Outcome | Failed] = dict(self._store.get(sorted(set(keys))))
        self.store_hits += len(found)
        self.needed.update(keys)
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in found}
        while missing:
            with self._store.claim(list(missing)) as mine:
                measured = dict(zip(mine, self._measure([missing[key] for key in mine]), strict=True)) if mine else {}
                self._store.put({key: value for key, value in measured.items() if not isinstance(value, Failed)})
            self.measured += len(measured)
            left = [key for key in missing if key not in measured]
            late = self._store.wait(left) if left else {}  # another campaign is at it
            self.store_hits += len(late)
            found.update(measured)
            found.update(late)
            missing = {key: missing[key] for key in left if key not in late}
        return [found[key] for key in keys]

    def split(self, allocations: Sequence[Widths], split: Split) -> list[Outcome | Failed]:
        """Outcomes of each allocation over all blocks of a split, `(samples, 2)`; the first failure otherwise."""
        blocks = self.task.blocks(split)
        requests = [Request(widths, split, block.index) for widths in allocations for block in blocks]
        outcomes = self.outcomes(requests)
        return [joined(outcomes[i : i + len(blocks)]) for i in range(0, len(outcomes), len(blocks))]

    def _key(self, request: Request) -> str:
        block = self.task.blocks(request.split)[request.block]
        return outcome_key(
            request.widths, self.task.model_digest, block.digest, self._quantizer, self.task.numeric_environment
        )

    def _measure(self, requests: list[Request]) -> list[Outcome | Failed]:
        assert self._executor is not None
        order = sorted(range(len(requests)), key=lambda i: neighbours(requests[i]))
        batches = self.batched([requests[i] for i in order])
        began, workers = time.monotonic(), self._executor.workers
        results = list(self._executor.map(batches))
        self._sizer.observe(len(requests), time.monotonic() - began, workers)
        measured = self._blamed(batches, results)
        found = dict(zip(order, measured, strict=True))
        return [found[i] for i in range(len(requests))]

    def _blamed(self, batches: list[list[Request]], results: list[Any]) -> list[Outcome | Failed]:
        """What each request came to; a batch's end is blamed on those that come to it alone, not on their batch.

        A worker that died, or a network that called `sys.exit`: who shares a batch depends on workers and timing.
        """
        assert self._executor is not None
        shared = [
            len(batch) > 1 and isinstance(result, Failure) for batch, result in zip(batches, results, strict=True)
        ]
        again = [[request] for batch, hit in zip(batches, shared, strict=True) if hit for request in batch]
        alone = iter(self._executor.map(again) if again else ())
        measured: list[Outcome | Failed] = []
        for batch, result, hit in zip(batches, results, shared, strict=True):
            if hit:
                for request in batch:
                    measured += self._answers([request], next(alone))
            else:
                measured += self._answers(batch, result)
        return measured

    def _answers(self, batch: list[Request], result: Any) -> list[Outcome | Failed]:
        """What a worker's result says of each request."""
        if isinstance(result, Failure):
            self.messages.append(result.message)
            return [Failed(result.reason, result.message)] * len(batch)
        self.messages += [answer.message for answer in result if isinstance(answer, Failed)]
        return list(result)

    def batched(self, requests: Sequence[Request]) -> list[list[Request]]:
        """Requests in the batches that workers get, by their cost; alone where there is a time limit."""
        assert self._executor is not None
        if self._limited:
            return [[request] for request in requests]
        left = iter(requests)
        return [list(islice(left, size)) for size in self._sizer.sizes(len(requests), self._executor.workers)]

    def stored(self, requests: Sequence[Request]) -> dict[Request, Outcome]:
        """The outcomes of those requests that the store has."""
        keys = {self._key(request): request for request in requests}
        found = self._store.get(sorted(keys))
        self.store_hits += len(found)
        self.needed.update(keys)
        return {keys[key]: outcome for key, outcome in found.items()}

    def stream(self, batches: Iterable[list[Request]]) -> Iterator[tuple[int, Any]]:
        """What workers make of batches, in the order in which it comes; see `Executor.stream`, and `take`."""
        assert self._executor is not None
        return self._executor.stream(batches)

    def take(self, batch: list[Request], result: Any) -> list[Outcome | Failed]:
        """What a streamed result says of each request of its batch; outcomes are stored."""
        answers = self._answers(batch, result)
        self.measured += len(answers)
        pairs = zip(batch, answers, strict=True)
        self._store.put({self._key(request): answer for request, answer in pairs if not isinstance(answer, Failed)})
        return answers


def neighbours(request: Request) -> tuple[str, int, Widths]:
    """Sorted by this, requests follow one another that agree in the block and in most of the layers run first."""
    return request.split, request.block, request.widths


def reference_outcomes(measurer: Measurer, split: Split) -> Outcome:
    """The FP32 network's outcomes on a split.

    Raises:
        CampaignError: it cannot be measured.
    """
    (result,) = measurer.split([(REFERENCE,) * len(measurer.task.layers)], split)
    if isinstance(result, Failed):
        raise CampaignError(f"the FP32 network of task {measurer.task.name!r} cannot be measured: {result.message}")
    return result


def joined(outcomes: Sequence[Outcome | Failed]) -> Outcome | Failed:
    """The outcomes of consecutive blocks as one, or their first failure."""
    parts = []
    for outcome in outcomes:
        if isinstance(outcome, Failed):
            return outcome
        parts.append(outcome)
    return np.concatenate(parts)
