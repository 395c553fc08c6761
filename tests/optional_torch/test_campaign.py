"""Campaigns on a real network: the same loop with measured retention."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

import evoquant
from evoquant import api
from evoquant.campaign.evaluate import KnownFailure
from evoquant.errors import Interrupted, RunDirError
from evoquant.models.tasks import load_task
from evoquant.testing.interrupt import StopAfter

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ["executor.kind=local", "stop.generations=3", "search.population=8"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def run(out, cache, *more, observer=None):
    return api.run(CONFIGS / "digits.yaml", out=out, overrides=[*SMALL, f"cache={cache}", *more], observer=observer)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, cache):
    out = tmp_path_factory.mktemp("whole") / "run"
    run(out, cache)
    return out


def test_scores_budget_and_intervals(whole):
    report = json.loads((whole / "report.json").read_text())
    scores = report["champion"]["scores"]
    assert list(scores) == ["calibration", "selection", "gate", "test"]
    low, high = scores["test"]["interval"]
    assert low <= scores["test"]["retention"] <= high
    assert report["budget"]["search_passes"] == report["evaluations"]["distinct"]
    assert (whole / "profile.json").exists()


def test_nothing_is_measured_twice_in_this_run_or_the_next(whole, cache, tmp_path):
    run(tmp_path / "again", cache)
    assert (tmp_path / "again/journal.jsonl").read_bytes() == (whole / "journal.jsonl").read_bytes()
    assert (tmp_path / "again/report.json").read_bytes() == (whole / "report.json").read_bytes()
    lines = [json.loads(line) for line in (tmp_path / "again/journal.jsonl").read_text().splitlines()]
    digests = {digest for line in lines for digest in line["measured"]["measurements"]}
    assert len(digests) <= lines[-1]["evaluations"]["distinct"]


def test_resumed_with_the_cache_deleted_is_byte_identical(whole, tmp_path):
    cache, out = tmp_path / "cache", tmp_path / "run"
    with pytest.raises(Interrupted):
        run(out, cache, observer=StopAfter(2))
    shutil.rmtree(cache)
    api.resume(out)
    assert (out / "journal.jsonl").read_bytes() == (whole / "journal.jsonl").read_bytes()
    assert (out / "champion.json").read_bytes() == (whole / "champion.json").read_bytes()


def test_an_outcome_that_differs_is_refused_naming_the_generation(cache, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Interrupted):
        run(out, cache, observer=StopAfter(2))
    lines = (out / "journal.jsonl").read_text().splitlines()
    line = json.loads(lines[1])
    first = next(iter(line["measured"]["measurements"].values()))
    lines[1] = lines[1].replace(first["outcomes"], "0" * 32)
    (out / "journal.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(RunDirError, match="generation 1 evaluates differently"):
        api.resume(out)


def test_a_failure_in_the_journal_stays_failed(cache, tmp_path):
    """A candidate that a time limit cut off is kept as it was journalled; a resume does not try it again."""
    from evoquant.campaign.build import build_campaign
    from evoquant.campaign.config import load_config

    config, _ = load_config(CONFIGS / "digits.yaml", [*SMALL, f"cache={cache}"])
    campaign = build_campaign(config, cache)
    try:
        batch = campaign.search.ask()
        evaluations = campaign.estimator.evaluate(batch, {2: KnownFailure("time_limit")})
    finally:
        campaign.close()
    assert evaluations.reasons == {2: "time_limit"}
    assert 2 not in evaluations.best(len(batch)).tolist()


def test_a_loaded_run_makes_its_network_anew(whole, monkeypatch, cache, tmp_path):
    import torch

    monkeypatch.setenv("EVOQUANT_CACHE", str(cache))
    found = evoquant.load(whole)
    assert found.samples["test"] == found.scores["test"]["samples"]
    task = load_task("digits", seed=0, cache=cache)
    made = found.apply()
    x = torch.from_numpy(task.data["test"]["inputs"][:50])
    with torch.no_grad():
        assert torch.equal(made(x), found.apply(task.network)(x))
        assert not torch.equal(made(x), task.network(x))
    assert [file.name for file in found.export("recipe", tmp_path / "r.json")[0]] == ["r.json", "r.safetensors"]


def test_page_of_a_measured_run(whole):
    pytest.importorskip("plotly")
    from evoquant.report.data import load_run
    from evoquant.report.page import page_html, run_figures
    from evoquant.report.series import run_series

    run = load_run(whole)
    series = run_series(run)
    figures = {figure.name: figure for figure in run_figures(run, series)}
    assert list(figures) == ["fitness", "front", "layers", "gate"]
    rivals = sum(len(trace["x"]) for trace in figures["gate"].plot["data"])
    assert rivals == len(series.gate) - 1
    front = next(trace for trace in figures["front"].plot["data"] if trace["name"].startswith("front"))
    assert front["name"] == "front of the separable estimate"
    assert front["line"]["dash"] == "dash"
    page = page_html(run)
    low, high = run.champion.scores["test"]["interval"]
    assert f"95% interval {low:.2%} to {high:.2%}" in page
    assert f"Recommended for deployment: <strong>{run.gate['recommended']['name']}</strong>" in page
    assert f"{run.champion.scores['test']['samples']} samples" in page


@pytest.mark.long
def test_how_much_is_kept_of_quantized_weights_changes_no_byte(whole, tmp_path):
    """Layer by layer, with outcomes that are measured anew."""
    run(tmp_path / "run", tmp_path / "cache", "task.quantized_cache=1kB")
    for name in ("journal.jsonl", "champion.json"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes(), name
    resolved = json.loads((tmp_path / "run/resolved.json").read_text())
    assert resolved["config"]["task"]["quantized_cache"] == "1kB"
    assert resolved["hash"] == json.loads((whole / "resolved.json").read_text())["hash"]
