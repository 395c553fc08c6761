"""What a run says on stderr: plain lines, JSON for programs, nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evoquant.errors import InputError
from evoquant.report.progress import MODES, Json, Nothing, Plain, observer

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ["--executor", "local", "--set", "stop.generations=4", "--set", "search.population=20"]
GENERATION = {
    *("event", "generation", "generations", "replayed", "seconds", "elapsed_s", "remaining_s", "asked", "distinct"),
    *("passes", "store_hits", "failures", "since_improvement", "executor", "workers", "best", "population"),
}


def cli(*words, cwd, code=0, environment=None):
    command = [sys.executable, "-m", "evoquant.cli", *map(str, words)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, env={**os.environ, **(environment or {})})
    assert done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return folder, cli("run", CONFIGS / "evolve.yaml", *SMALL, cwd=folder)


def test_plain_lines_are_the_default_without_a_terminal(plain):
    assert "generation 4/4: fitness" in plain[1].stderr
    assert "\x1b" not in plain[1].stderr


def test_quiet_leaves_the_results_and_nothing_else(plain, tmp_path):
    done = cli("run", CONFIGS / "evolve.yaml", *SMALL, "-q", cwd=tmp_path)
    assert done.stderr == ""
    assert done.stdout == plain[1].stdout
    assert cli("resume", "runs/evolve-0", "--quiet", cwd=tmp_path).stderr == ""


def test_quiet_tells_errors(tmp_path):
    done = cli("run", CONFIGS / "evolve.yaml", "-q", "--set", "search.populatoin=3", cwd=tmp_path, code=2)
    assert "search.populatoin" in done.stderr
    assert not list(tmp_path.iterdir())


def test_quiet_and_loud_is_refused():
    from evoquant.cli.commands import _observer

    with pytest.raises(InputError, match="--progress json"):
        _observer("json", True)
    with _observer("none", True) as found:
        assert isinstance(found, Nothing)


def test_json_is_the_journal_line_by_line(plain, tmp_path):
    done = cli("run", CONFIGS / "evolve.yaml", *SMALL, "--progress", "json", cwd=tmp_path)
    assert done.stdout == plain[1].stdout
    events = [json.loads(line) for line in done.stderr.splitlines()]
    lines = [json.loads(line) for line in (tmp_path / "runs/evolve-0/journal.jsonl").read_text().splitlines()]
    told = [event for event in events if event["event"] == "generation"]
    assert [event["generation"] for event in told] == [0, 1, 2, 3]
    for event, line in zip(told, lines, strict=True):
        assert set(event) == GENERATION
        assert event["best"] == {key: line["champion"][key] for key in event["best"]}
        assert event["population"] == line["summary"]["fitness"]
        assert (event["asked"], event["distinct"]) == tuple(line["evaluations"].values())
        assert (event["generations"], event["executor"], event["workers"]) == (4, "local", 1)
        assert event["passes"] is None
    others = [event for event in events if event["event"] != "generation"]
    assert {"event": "message", "text": "search ended: 4 generations"} in others
    assert all(set(event) == {"event", "text"} for event in others)
    again = cli("resume", "runs/evolve-0", "--progress", "json", cwd=tmp_path).stderr
    assert json.loads(again)["text"] == "runs/evolve-0 is finished already; nothing to resume."


def test_a_message_is_one_line_of_json_whatever_it_holds(capsys):
    Json().message("two\nlines\x1b[2J\u202e")
    said = capsys.readouterr().err
    assert said.endswith("\n")
    assert said.count("\n") == 1
    assert said.isascii()
    assert json.loads(said) == {"event": "message", "text": "two\nlines\x1b[2J\u202e"}


def test_who_tells_by_name(capsys):
    for mode, kind in (
        ("plain", Plain),
        ("json", Json),
        ("none", Nothing),
        (None, Plain),
        ("live", Plain),
        ("bar", Plain),
    ):
        with observer(mode) as found:  # stderr is no terminal here
            assert isinstance(found, kind)
    assert set(MODES) == {"plain", "json", "none", "live", "bar"}
    with (
        pytest.raises(InputError, match=r"--progress loud: choose live, bar, plain, json or none\.$"),
        observer("loud"),
    ):
        pass
    assert capsys.readouterr().err == ""


def test_pace_counts_what_this_process_evaluated(tmp_path):
    from evoquant import api
    from evoquant.errors import Interrupted
    from evoquant.report.pace import Pace, done_share
    from evoquant.testing.interrupt import StopAfter

    overrides = ["executor.kind=local", "stop.generations=8", "search.population=20", "search.elites=0"]
    with pytest.raises(Interrupted):
        api.run(CONFIGS / "evolve.yaml", out=tmp_path / "run", overrides=overrides, observer=StopAfter(4))
    (tmp_path / "run" / "checkpoint.json").unlink()  # so that all is replayed
    steps, pace, now = [], Pace(), [100.0]

    class Heard:
        def generation(self, step):
            steps.append(step)
            if not step.replayed:
                now[0] += step.seconds
            pace.hear(step, now[0])

        def message(self, text):
            pass

    api.resume(tmp_path / "run", observer=Heard())
    fresh = [step for step in steps if not step.replayed]
    assert [step.replayed for step in steps] == [True] * 4 + [False] * 4
    assert pace.rate == pytest.approx(80 / sum(step.seconds for step in fresh))
    assert done_share(steps[-1]) == 1.0
    assert done_share(steps[5]) == 0.75
    assert pace.left(now[0]) == pytest.approx(0.0)
    two, spent = Pace(), fresh[0].seconds
    two.hear(fresh[0], spent)
    assert two.left(spent) == pytest.approx(3 * spent)  # one of four was done here, three are left
