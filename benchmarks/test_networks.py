"""A search's candidates on a real network: as a campaign measures them, and quantizing and running each, side by side.

python -m pytest benchmarks/test_networks.py        (rates are requests; the plain way answers a sample of them)
"""

import tempfile
from pathlib import Path

import pytest

pytest.importorskip("torch")

from evoquant.bench.speed_networks import CONTESTS, Plain, asked_for, by_campaign, by_network, started
from evoquant.models.tasks import load_task
from evoquant.store import cache_folder

pytestmark = pytest.mark.benchmark(disable_gc=True)


@pytest.fixture(scope="module", params=CONTESTS)
def mix(request):
    contest = CONTESTS[request.param]
    cache = cache_folder(None, Path(tempfile.gettempdir()))
    asked = asked_for(contest, (cache / "networks").resolve())
    return request.param, contest, asked, load_task(contest.task, seed=0, cache=cache)


def timed(benchmark, mix, count, call, *arguments):
    benchmark.group = mix[0]
    benchmark.extra_info["requests"] = count
    benchmark.pedantic(call, arguments, rounds=3, warmup_rounds=1)
    benchmark.extra_info["requests_per_second"] = count / benchmark.stats.stats.mean


def test_all_candidates(benchmark, mix):
    _, _, asked, task = mix
    timed(benchmark, mix, sum(map(len, asked.generations)), by_campaign, task, asked.generations)


def test_distinct(benchmark, mix):
    _, contest, asked, task = mix
    distinct = asked.distinct(contest.distinct)
    timed(benchmark, mix, sum(map(len, distinct)), by_network, task, distinct)


def test_quantizing_and_running_each(benchmark, mix):
    _, contest, asked, task = mix
    sample = [request for requests in asked.generations for request in requests][: contest.sample]
    timed(benchmark, mix, len(sample), Plain(started(task)), sample)
