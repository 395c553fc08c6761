import json

import pytest
from typer.testing import CliRunner

from evoquant.bench.speed import TOPICS
from evoquant.cli import app
from evoquant.errors import InputError, MissingExtraError


def run(*arguments):
    return CliRunner().invoke(app, ["bench", *arguments], catch_exceptions=True)


def test_a_table_is_drawn():
    done = run("tabular", "--table", "digits-cnn", "--searches", "flips,steepest", "--seeds", "1")
    assert done.exit_code == 0, done.output
    assert "65,536 allocations" in done.output and "steepest" in done.output


def test_rows_are_printed_as_json():
    done = run("tabular", "--table", "digits-cnn", "--searches", "flips", "--seeds", "1", "--json")
    (row,) = json.loads(done.stdout)
    assert row["search"] == "flips" and row["spent"] > 25


@pytest.mark.parametrize(
    "arguments",
    [
        ("--only", "rulse"),
        ("scaling", "--workers", "64,many"),
        ("scaling", "--workers", "0"),
        ("scaling", "--workers", "²"),
        ("--rounds", "3", "scaling"),
        ("--json", "tabular"),
        ("tabular", "--data", "x"),
        ("tabular", "--table", "nothing"),
    ],
)
def test_bad_input_is_named(arguments):
    done = run(*arguments)
    assert isinstance(done.exception, InputError)


def test_an_unknown_benchmark_shows_the_usage():
    done = run("tabulra")
    assert done.exit_code == 2 and "tabulra" in done.output


def test_rebuilding_names_the_missing_data(tmp_path):
    pytest.importorskip("torch")
    done = run("tabular", "--table", "fashion-mixer", "--rebuild", str(tmp_path), "--data", str(tmp_path / "none"))
    assert isinstance(done.exception, InputError) and "none" in str(done.exception)


def test_topics_without_their_extra_are_left_out_of_all_and_refused_when_asked_for(monkeypatch):
    def missing(rounds):
        raise MissingExtraError("measuring networks", "PyTorch", "torch")

    monkeypatch.setattr("evoquant.bench.speed._measures", lambda: dict.fromkeys(TOPICS, missing))
    done = run("--json")
    assert done.exit_code == 0 and "networks left out: measuring networks needs PyTorch" in done.stderr
    assert len(json.loads(done.stdout)) == 1, "the machine"
    assert isinstance(run("--only", "networks").exception, MissingExtraError)
