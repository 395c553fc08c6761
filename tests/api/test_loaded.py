"""`evoquant.load`: what a finished run has found, and what can be done with it."""

from pathlib import Path

import pytest

import evoquant
from evoquant.api.result import Result
from evoquant.campaign.champion import Champion
from evoquant.cli import main
from evoquant.errors import InputError, Interrupted
from evoquant.testing.interrupt import StopAfter

CONFIG = Path(__file__).parents[2] / "configs" / "evolve.yaml"
SMALL = ["executor.kind=local", "stop.generations=3", "search.population=20"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return evoquant.run(CONFIG, out=tmp_path_factory.mktemp("loaded") / "run", overrides=SMALL)


def test_a_search_on_profiles_has_a_heuristic(run, tmp_path):
    found = evoquant.load(run.path)
    assert isinstance(found, Result)
    assert found.genome == run.champion.genome == found.recommended.genome
    assert dict(found.provenance) == dict(run.champion.provenance)
    assert (found.gate, found.allocation, found.profile, found.samples) == (None, None, None, {})
    assert found.scores == run.champion.scores
    assert found.verdict in str(found) and "samples" not in str(found) and found.verdict in repr(found)
    assert found._repr_html_().count("<table") == 1
    widths = found.allocate("seed/test")
    assert widths == found.allocate(evoquant.profile("seed/test")) and len(widths) > 20
    assert "retention" not in str(widths), "nothing of that model was measured"


def test_it_exports_what_the_command_line_does(run, tmp_path, monkeypatch):
    found = evoquant.load(run.path)
    for target in ("python", "yaml", "json", "rust"):
        files, findings = found.export(target, tmp_path / target)
        assert (files, findings) == ([tmp_path / target], [])
        words = ["evoquant", "export", str(run.path), "--to", target, "-o", str(tmp_path / "cli")]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit):
            main()
        assert (tmp_path / "cli").read_bytes() == (tmp_path / target).read_bytes()
    with pytest.raises(InputError, match="no weights to quantize"):
        found.export("onnx", tmp_path / "x.onnx")
    with pytest.raises(InputError, match=r"apply: a search on profiles has no network of its own; \.allocate"):
        found.apply()


def test_a_champions_file_is_a_champion(run):
    assert isinstance(evoquant.load(run.path / "champion.json"), Champion)
    assert evoquant.load(run.path / "champion.json").genome == run.champion.genome


def test_an_unfinished_run_says_how_to_go_on(run, tmp_path):
    place = tmp_path / "cut"
    with pytest.raises(Interrupted):
        evoquant.run(CONFIG, out=place, overrides=SMALL, observer=StopAfter(1))
    with pytest.raises(InputError, match=r"cut: the run is not finished; go on with evoquant\.resume"):
        evoquant.load(place)
    evoquant.resume(place)
    assert evoquant.load(place).genome == run.champion.genome
    assert (place / "journal.jsonl").read_bytes() == (run.path / "journal.jsonl").read_bytes()


def test_what_is_no_run(tmp_path):
    with pytest.raises(InputError, match="nothing"):
        evoquant.load(tmp_path / "nothing")
    with pytest.raises(InputError, match="no run directory"):
        evoquant.load(tmp_path)
