"""How much faster candidates are measured on real networks than by quantizing everything and running it whole.

What is measured is a search's own mix: the (allocation, block of samples) pairs that a campaign's first generations ask
for, replayed in their order from a cold start. First every outcome is compared with the plain way's, bit for bit.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evoquant.bench.contest import ROUNDS, Measure, Way, interleaved, ratios
from evoquant.errors import CampaignError, MissingExtraError
from evoquant.execution.local import LocalExecutor
from evoquant.models.base import REFERENCE, Failed, Request
from evoquant.models.networks import require_torch
from evoquant.store import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evoquant.execution.base import Failure
    from evoquant.models.base import Outcome
    from evoquant.models.torch import Measurer

TOPIC: Literal["networks"] = "networks"
GOAL = 5.0
RULES = {"genome": {"kind": "rule", "rungs": 2}, "search": {"kind": "genetic", "population": 60, "elites": 2}}
DIRECT = {"genome": {"kind": "direct"}, "search": {"kind": "surrogate"}, "signals": ["fisher"]}
CAMPAIGNS: dict[str, dict[str, Any]] = {
    "digits": {**RULES, "stop": {"generations": 6}},
    "tabular": {**DIRECT, "stop": {"passes": 60, "generations": 1000}},
    "char_lm": {**DIRECT, "stop": {"passes": 20, "generations": 1000}},
}
"""Tasks that need no download, with the search of their example campaigns, cut short."""
BATCHES = {"digits": 24, "tabular": 80, "char_lm": 8}
MENU = ["INT2-channel", "INT4-channel", "INT8-channel", "FP16", "FP32"]


class Plain:
    """Every layer quantized anew, the whole network, the outcomes; in one thread, as the measurer does."""

    def __init__(self, measurer: Measurer) -> None:
        self._measurer, self._judge = measurer, measurer._judge
        self._references: dict[tuple[str, int], Any] = {}

    def __call__(self, requests: Sequence[Request]) -> list[Outcome | Failed]:
        """The outcome of each request; the FP32 network runs once for each block."""
        import numpy as np
        import torch

        from evoquant.models.torch_data import TARGETS, call_network, samples_of
        from evoquant.models.torch_quantize import fake_quantize_tensor
        from evoquant.models.torch_threads import one_thread
        from evoquant.quantization.precision import Precision

        own = self._measurer
        originals = [parameter.data for parameter in own._parameters]
        found: list[Outcome | Failed] = []
        with one_thread(), torch.inference_mode():
            for request in requests:
                arrays = own._samples(request)
                rows = [slice(i, i + own._batch) for i in range(0, samples_of(arrays), own._batch)]
                place = request.split, request.block
                if place not in self._references:
                    self._references[place] = [call_network(own._network, arrays, part) for part in rows]
                for layer, parameter, weight, width in zip(
                    own._layers, own._parameters, originals, request.widths, strict=True
                ):
                    if width != REFERENCE:
                        precision = Precision.parse(width)
                        parameter.data = fake_quantize_tensor(weight, precision, layer.channel_axis)
                outputs = [call_network(own._network, arrays, part) for part in rows]
                for parameter, weight in zip(own._parameters, originals, strict=True):
                    parameter.data = weight
                targets = arrays.get(TARGETS)
                parts = [
                    self._judge.outcome(output, reference, None if targets is None else targets[part])
                    for output, reference, part in zip(outputs, self._references[place], rows, strict=True)
                ]
                bad = any(part is None for part in parts)
                found.append(Failed("not_finite", "") if bad else np.concatenate([p for p in parts if p is not None]))
        return found


class Enough(Exception):
    """Ends a campaign of which enough is known."""


class Recording(LocalExecutor):
    """The local executor, which notes what it was asked for, until that are `limit` batches."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit
        self.asked: list[list[Request]] = []

    def map(self, batches: Sequence[Any]) -> Iterator[Any | Failure]:
        """As the local one's.

        Raises:
            Enough: there were as many before.
        """
        if len(self.asked) >= self.limit:
            raise Enough
        self.asked += batches
        return super().map(batches)


def asked_for(name: str, networks: Path) -> list[list[Request]]:
    """The batches of requests of a task's campaign, whose store is empty at first; `networks`: trained ones."""
    from evoquant.api import Silent
    from evoquant.campaign.build_measured import build_measured
    from evoquant.campaign.config import load_config
    from evoquant.campaign.loop import run_loop
    from evoquant.campaign.storage import RunDir

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        networks.mkdir(parents=True, exist_ok=True)
        (path / "networks").symlink_to(networks)
        config = {"name": name, "seed": 0, "task": {"kind": name, "seed": 0}, "menu": MENU, **CAMPAIGNS[name]}
        (path / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
        checked, _ = load_config(path / "config.yaml")
        executor = Recording(BATCHES[name])
        with RunDir.create(path / "run") as directory, executor, contextlib.suppress(Enough):
            run_loop(build_measured(checked, path, executor), directory, Silent())
        return executor.asked[: executor.limit]


def measure(rounds: int = ROUNDS) -> list[Measure]:
    """Measured requests per second, ours against the plain way, for each of `CAMPAIGNS`.

    Raises:
        CampaignError: an outcome differs from the plain way's.
    """
    try:
        require_torch("measuring networks")
    except MissingExtraError as error:
        return [Measure(TOPIC, "real networks", (), "x", GOAL, remark=str(error))]
    found: list[Measure] = []
    for name in CAMPAIGNS:
        found += _measured(name, rounds)
    return found


def _measured(name: str, rounds: int) -> list[Measure]:
    from evoquant.models.measurer import start_measurer
    from evoquant.models.tasks import load_task
    from evoquant.models.torch import Measurer

    cache = cache_folder(None, Path(tempfile.gettempdir()))
    batches = asked_for(name, (cache / "networks").resolve())
    task = load_task(name, seed=0, cache=cache)

    def started() -> Measurer:
        measurer = start_measurer(task.payload())
        assert isinstance(measurer, Measurer)
        return measurer

    def ours() -> list[Outcome | Failed]:
        measurer = started()
        return [outcome for batch in batches for outcome in measurer(batch)]

    def plain() -> list[Outcome | Failed]:
        way = Plain(started())
        return [outcome for batch in batches for outcome in way(batch)]

    for one, other in zip(ours(), plain(), strict=True):
        if isinstance(one, Failed) != isinstance(other, Failed) or (
            not isinstance(one, Failed) and not isinstance(other, Failed) and one.tobytes() != other.tobytes()
        ):
            raise CampaignError(f"{name}: an outcome differs from the one that the plain way gives.")
    count = sum(map(len, batches))
    remark = f"{count} requests of its campaign in their order, from a cold start; outcomes are equal to the bit"
    rates = interleaved({"ours": Way(ours, count), "the plain way": Way(plain, count)}, rounds)
    return ratios(TOPIC, rates, "ours", {"the plain way": GOAL}, what=name, remark=remark)
