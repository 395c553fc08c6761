"""How much faster candidates are measured on real networks than by quantizing everything and running it whole.

What is measured is a search's own mix: the (allocation, block of samples) pairs that a campaign's search asks for,
replayed generation by generation from a cold start. Once as it asks, for every candidate: many are copies, which the
campaign's measurer knows. Once only those that are distinct: these reach the network, where calls of modules are
remembered. Outcomes are compared with the plain way's, bit for bit.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evoquant.bench.contest import ROUNDS, Measure, Way, interleaved, ratios
from evoquant.errors import CampaignError
from evoquant.execution.local import LocalExecutor
from evoquant.models.base import REFERENCE, Failed, Request
from evoquant.models.networks import require_torch
from evoquant.rng import generator_for
from evoquant.store import Store, cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from evoquant.models.base import MeasuredTask, Outcome
    from evoquant.models.torch import Measurer

TOPIC: Literal["networks"] = "networks"
GOAL = 5.0
MENU = ["INT2-channel", "INT4-channel", "INT8-channel", "FP16", "FP32"]
START = ["all_fp16", "uniform_int8", "uniform_int4", "wider_fp16_zone"]
ALL, DISTINCT, PLAIN = "all candidates, copies included", "distinct allocations only", "quantizing and running each"


def rules(population: int, generations: int, **more: Any) -> dict[str, Any]:
    """The search of configs/digits.yaml, cut short."""
    start = START if "signals" not in more else START[:3]  # the last reads a signal of the default ones
    search = {"kind": "genetic", "population": population, "elites": 2, "start": start}
    return {"genome": {"kind": "rule", "rungs": 2}, "search": search, "stop": {"generations": generations}, **more}


def surrogate(passes: int) -> dict[str, Any]:
    """The search of configs/tabular.yaml, cut short."""
    stop = {"passes": passes, "generations": 1000}
    return {"genome": {"kind": "direct"}, "search": {"kind": "surrogate"}, "signals": ["fisher"], "stop": stop}


@dataclass(frozen=True)
class Contest:
    """A search on a task that needs no download.

    Attributes:
        task: its kind.
        search: the campaign's settings.
        sample: how many requests the plain way answers at least: those of candidates drawn at random, all of each.
        distinct: so many of the distinct requests at most, the first, are measured by themselves.
    """

    task: str
    search: Mapping[str, Any]
    sample: int
    distinct: int = 10_000


CONTESTS = {
    "digits, rules": Contest("digits", rules(60, 10), 20, 60),
    "tabular, rules": Contest("tabular", rules(60, 10), 80, 200),
    "tabular, one width per layer": Contest("tabular", surrogate(40), 80),
    "char_lm, rules": Contest("char_lm", rules(10, 20, signals=["fisher"]), 8, 40),
}


class Plain:
    """Every layer quantized once a candidate, the whole network on its blocks, the outcomes; in one thread, as ours."""

    def __init__(self, measurer: Measurer) -> None:
        self._measurer, self._judge = measurer, measurer._judge
        self._references: dict[tuple[str, int], Any] = {}

    def __call__(self, requests: Sequence[Request]) -> list[Outcome | Failed]:
        """The outcome of each request; the FP32 network runs once for each block, however often this is called."""
        import numpy as np
        import torch

        from evoquant.models.torch_data import TARGETS, call_network, samples_of
        from evoquant.models.torch_quantize import fake_quantize_tensor
        from evoquant.models.torch_threads import one_thread
        from evoquant.quantization.precision import Precision

        own = self._measurer
        originals = [parameter.data for parameter in own._parameters]
        found: list[Outcome | Failed] = []
        quantized: list[torch.Tensor] = []
        with one_thread(), torch.inference_mode():
            for number, request in enumerate(requests):
                arrays = own._samples(request)
                rows = [slice(i, i + own._batch) for i in range(0, samples_of(arrays), own._batch)]
                place = request.split, request.block
                if place not in self._references:
                    self._references[place] = [call_network(own._network, arrays, part) for part in rows]
                if number == 0 or request.widths != requests[number - 1].widths:
                    quantized = [
                        weight
                        if width == REFERENCE
                        else fake_quantize_tensor(weight, Precision.parse(width), layer.channel_axis)
                        for layer, weight, width in zip(own._layers, originals, request.widths, strict=True)
                    ]
                for parameter, weight in zip(own._parameters, quantized, strict=True):
                    parameter.data = weight
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


@dataclass(frozen=True)
class Asked:
    """What a search asked for.

    Attributes:
        candidates: how many.
        generations: the requests of every candidate of each, for as many blocks as its race took.
    """

    candidates: int
    generations: list[list[Request]]

    def distinct(self, most: int) -> list[list[Request]]:
        """Those that are passed on to a network, in the order in which they are; `most` at most."""
        from evoquant.campaign.measurer import neighbours

        seen: set[Request] = set()
        found: list[list[Request]] = []
        for requests in self.generations:
            new = sorted(set(requests) - seen, key=neighbours)[: most - len(seen)]
            seen.update(new)
            found.append(new)
        return found


def asked_for(contest: Contest, networks: Path) -> Asked:
    """What a campaign's search asks for, whose store is empty at first; `networks`: folder of trained ones."""
    from evoquant.campaign.build_measured import build_measured
    from evoquant.campaign.config import load_config
    from evoquant.campaign.measurer import allocation_digest

    generations: list[list[Request]] = []
    candidates = 0
    with tempfile.TemporaryDirectory() as folder, LocalExecutor() as executor:
        path = Path(folder)
        networks.mkdir(parents=True, exist_ok=True)
        (path / "networks").symlink_to(networks)
        config = {"name": contest.task, "seed": 0, "task": {"kind": contest.task, "seed": 0}, "menu": MENU}
        (path / "config.yaml").write_text(json.dumps(config | dict(contest.search)), encoding="utf-8")
        campaign = build_measured(load_config(path / "config.yaml")[0], path, executor)
        assert campaign.space is not None and campaign.store is not None
        (problem,) = campaign.problems["calibration"]
        while len(generations) < campaign.config.stop.generations and not campaign.estimator.counters.spent:
            batch = campaign.search.ask()
            evaluations = campaign.estimator.evaluate(batch, {})
            campaign.search.tell(evaluations)
            assert batch.genes is not None and evaluations.details is not None
            measurements = evaluations.details["measurements"]
            generations.append([])
            for allocation in campaign.space.allocate(batch.genes, problem):
                widths = problem.unfold(allocation)
                blocks = measurements[allocation_digest(widths)]["blocks"]
                generations[-1] += [Request(widths, "calibration", block) for block in blocks]
            candidates += len(batch)
        campaign.store.close()
    return Asked(candidates, generations)


def measure(rounds: int = ROUNDS) -> list[Measure]:
    """Measured requests per second, ours against the plain way, for each of `CONTESTS`.

    Raises:
        CampaignError: an outcome differs from the plain way's.
        MissingExtraError: PyTorch is not installed.
    """
    require_torch("measuring networks")
    return [row for name, contest in CONTESTS.items() for row in measured(name, contest, rounds)]


def measured(name: str, contest: Contest, rounds: int) -> list[Measure]:
    """The figures of one contest, and of its distinct requests.

    Raises:
        CampaignError: an outcome differs from the plain way's.
    """
    from evoquant.models.tasks import load_task

    cache = cache_folder(None, Path(tempfile.gettempdir()))
    asked = asked_for(contest, (cache / "networks").resolve())
    task = load_task(contest.task, seed=0, cache=cache)
    everything = [request for requests in asked.generations for request in requests]
    chosen = drawn(everything, contest.sample)
    sample = [everything[i] for i in chosen]
    distinct = asked.distinct(contest.distinct)
    plain = Plain(started(task))
    found: dict[str, list[Outcome | Failed]] = {}  # by each way's last call

    def ours() -> None:
        found[ALL] = [outcome for part in by_campaign(task, asked.generations) for outcome in part]

    def plainly() -> None:
        found[PLAIN] = plain(sample)

    count, different = len(everything), sum(map(len, distinct))
    rates = interleaved(
        {
            ALL: Way(ours, count),
            DISTINCT: Way(lambda: by_network(task, distinct), different),
            PLAIN: Way(plainly, len(sample)),
        },
        rounds,
    )
    _check(name, [found[ALL][i] for i in chosen], found[PLAIN])
    generations = len(asked.generations)
    share = len(set(everything)) / count
    remark = (
        f"{asked.candidates} candidates of {generations} generations are {count} requests, {share:.0%} of them "
        f"distinct; ours from an empty store, the plain way {len(sample)} of them; outcomes equal to the bit"
    )
    alone = (
        f"{different} requests in their order, nothing stored: what remembered calls of modules bring, less the start, "
        f"FP32 passes and passes that check them, which over so few weigh more than over a campaign"
    )
    return [
        *ratios(TOPIC, rates, ALL, {PLAIN: GOAL}, what=name, remark=remark),
        *ratios(TOPIC, rates, DISTINCT, {PLAIN: None}, what=name, remark=alone),
    ]


def drawn(requests: Sequence[Request], least: int) -> list[int]:
    """Places of at least so many requests: all that follow one another for a candidate, of candidates at random."""
    candidates = [list(group) for _, group in itertools.groupby(range(len(requests)), lambda i: requests[i].widths)]
    found: list[int] = []
    for candidate in generator_for(0, 0, "sample of candidates").permutation(len(candidates)).tolist():
        if len(found) < least:
            found += candidates[candidate]
    return sorted(found)


def started(task: MeasuredTask) -> Measurer:
    """A worker's measurer that has not measured yet."""
    from evoquant.models.measurer import start_measurer
    from evoquant.models.torch import Measurer

    measurer = start_measurer(task.payload())
    assert isinstance(measurer, Measurer)
    return measurer


def by_network(task: MeasuredTask, batches: Sequence[Sequence[Request]]) -> list[list[Outcome | Failed]]:
    """The outcomes of batches, by a measurer that has not measured yet."""
    measurer = started(task)
    return [measurer(batch) for batch in batches]


def by_campaign(task: MeasuredTask, batches: Sequence[Sequence[Request]]) -> list[list[Outcome | Failed]]:
    """The same as a campaign gets them, from an empty store."""
    from evoquant.campaign.measurer import Measurer

    with (
        tempfile.TemporaryDirectory() as folder,
        Store.open(Path(folder)) as store,
        LocalExecutor() as executor,
    ):
        measurer = Measurer(task, store)
        measurer.use(executor)
        return [measurer.outcomes(batch) for batch in batches]


def _check(name: str, ours: Sequence[Outcome | Failed], plain: Sequence[Outcome | Failed]) -> None:
    """Raises `CampaignError` where outcomes differ from the plain way's."""
    for one, other in zip(ours, plain, strict=True):
        if isinstance(one, Failed) != isinstance(other, Failed) or (
            not isinstance(one, Failed) and not isinstance(other, Failed) and one.tobytes() != other.tobytes()
        ):
            raise CampaignError(f"{name}: an outcome differs from the one that the plain way gives.")
