"""An executor of somebody's own: a thread pool, its state built once in each thread."""

from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from evoquant.errors import CampaignError
from evoquant.execution.base import CAUGHT, NOT_YET, cannot_start, guarded, not_started, stuck


class Threads:
    name = "threads"

    def __init__(self, workers=2, say=None):
        self.workers = workers
        self.started = 0
        self._pool = None
        self._functions = []

    def start(self, factory, payload, limit_s=None):
        self.close()
        try:
            self._functions = [factory(payload) for _ in range(self.workers)]
        except CAUGHT as error:
            raise CampaignError(cannot_start(f"{type(error).__name__}: {error}")) from error
        self.started += 1
        self._pool = ThreadPoolExecutor(self.workers)

    def _submit(self, batch):
        def work():
            function = self._functions.pop()
            try:
                return guarded(function, batch)
            finally:
                self._functions.append(function)

        return self._pool.submit(work)

    def map(self, batches):
        if self._pool is None:
            raise CampaignError(not_started(self.name))
        return (future.result() for future in [self._submit(batch) for batch in batches])

    def stream(self, batches):
        if self._pool is None:
            raise CampaignError(not_started(self.name))
        batches, count, waiting = iter(batches), 0, []
        while True:
            not_yet = False
            for batch in islice(batches, self.workers - len(waiting)):
                not_yet = batch is NOT_YET
                if not_yet:
                    break
                waiting.append((count, self._submit(batch)))
                count += 1
            if not waiting:
                if not_yet:
                    raise stuck()
                return
            index, future = waiting.pop(0)
            yield index, future.result()

    def close(self):
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
