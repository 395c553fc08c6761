"""Who is blamed where a worker dies: the request that kills one alone."""

from types import SimpleNamespace

import numpy as np

from evoquant.campaign.measurer import Measurer
from evoquant.execution.base import Failure
from evoquant.models.base import Failed, Request
from evoquant.store import Store

DEADLY = ("INT2",)


class Mortal:
    """An executor whose worker dies of one allocation, and takes the whole batch along."""

    name, workers = "mortal", 2

    def start(self, factory, payload, limit_s=None):
        self.batches = []

    def map(self, batches):
        for batch in batches:
            self.batches.append(batch)
            if any(request.widths == DEADLY for request in batch):
                yield Failure("worker_lost", "it died")
            else:
                yield [np.full((3, 2), request.block, dtype=np.float32) for request in batch]


def test_a_deadly_request_takes_no_other_along(tmp_path):
    blocks = [SimpleNamespace(index=i, digest=f"block {i}") for i in range(3)]
    task = SimpleNamespace(
        blocks=lambda split: blocks, model_digest="m", numeric_environment="e", payload=dict, layers=("a",)
    )
    executor = Mortal()
    with Store.open(tmp_path) as store:
        measurer = Measurer(task, store)
        measurer.use(executor)
        widths = [("INT4",), DEADLY, ("INT8",), ("FP16",)]
        requests = [Request(width, "calibration", block) for width in widths for block in range(3)]
        answers = measurer.outcomes(requests)
    assert max(map(len, executor.batches)) > 1
    for request, answer in zip(requests, answers, strict=True):
        assert isinstance(answer, Failed) == (request.widths == DEADLY)
        assert isinstance(answer, Failed) or (answer == request.block).all()
