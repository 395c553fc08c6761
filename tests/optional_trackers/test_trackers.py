"""Trackers, read back with their own readers: every figure is the journal's, no step is missing or there twice."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from evoquant import api
from evoquant.campaign.champion import load_champion
from evoquant.errors import Interrupted
from evoquant.report.trackers import final_figures

CONFIGS = Path(__file__).parents[2] / "configs"
SMALL = ("executor.kind=local", "stop.generations=6", "search.population=20")


class Heard:
    """Notes messages; presses Ctrl-C after so many generations."""

    def __init__(self, generations=None):
        self.messages = []
        self._left = generations

    def generation(self, progress):
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt

    def message(self, text):
        self.messages.append(text)


def read_tensorboard(run):
    """Tag → step → value; a step that is there twice fails."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    found = {}
    for tag in read.Tags()["scalars"]:
        points = [(event.step, event.value) for event in read.Scalars(tag)]
        assert max(Counter(step for step, _ in points).values()) == 1, tag
        found[tag] = dict(points)
    return found


def mlflow_run(run):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    state = json.loads((run / "trackers.json").read_text())["mlflow"]
    client = MlflowClient(tracking_uri=Path(state["path"]).as_uri())
    return client, client.get_run(state["run"])


def read_mlflow(run):
    """The same of the one MLflow run."""
    client, found = mlflow_run(run)
    assert len(client.search_runs([found.info.experiment_id])) == 1
    figures = {}
    for key in found.data.metrics:
        points = [(metric.step, metric.value) for metric in client.get_metric_history(found.info.run_id, key)]
        assert max(Counter(step for step, _ in points).values()) == 1, key
        figures[key] = dict(points)
    return figures


READERS = {"tensorboard": (read_tensorboard, np.float32), "mlflow": (read_mlflow, np.float64)}


def require(kind):
    pytest.importorskip(kind)


def journal(run):
    return [json.loads(line) for line in (run / "journal.jsonl").read_text().splitlines()]


def assert_as_journalled(kind, run):
    read, number = READERS[kind]
    found, lines = read(run), journal(run)
    wanted = {
        "fitness/best": [line["champion"]["fitness"] for line in lines],
        "fitness/median": [line["summary"]["fitness"]["median"] for line in lines],
        "fitness/mean": [line["summary"]["fitness"]["mean"] for line in lines],
        "best/retention": [line["champion"]["retention"][0] for line in lines],
        "best/compression": [line["champion"]["compression"][0] for line in lines],
        "best/effective_bits": [line["champion"]["effective_bits"][0] for line in lines],
        "evaluations/asked": [line["evaluations"]["asked"] for line in lines],
        "evaluations/distinct": [line["evaluations"]["distinct"] for line in lines],
        "evaluations/failed": [len(line["failures"]) for line in lines],
    }
    if "passes" in lines[0]:
        wanted["evaluations/passes"] = [line["passes"] for line in lines]
    for tag, values in wanted.items():
        assert found[tag] == {step: float(number(value)) for step, value in enumerate(values)}, tag
    assert set(found["evaluations/reused"]) == set(range(len(lines)))
    scores = final_figures(load_champion(run / "champion.json"))
    assert scores
    for tag, value in scores.items():
        assert found[tag] == {len(lines): float(number(value))}


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("config", ["evolve.yaml", "map_elites.yaml"])
def test_what_is_logged_is_what_is_journalled(tmp_path, kind, config):
    require(kind)
    size = "search.population=20" if config == "evolve.yaml" else "search.batch=20"
    overrides = [*SMALL[:2], size]
    api.run(CONFIGS / config, out=tmp_path / "run", overrides=overrides, track=[kind])
    assert_as_journalled(kind, tmp_path / "run")
    plain = tmp_path / "plain"
    api.run(CONFIGS / config, out=plain, overrides=overrides)
    assert (plain / "journal.jsonl").read_bytes() == (tmp_path / "run" / "journal.jsonl").read_bytes()


@pytest.mark.parametrize("kind", READERS)
def test_a_replay_is_logged_too(tmp_path, kind):
    require(kind)
    api.run(CONFIGS / "journey.yaml", out=tmp_path / "run", overrides=["executor.kind=local"], track=[kind])
    found, lines = READERS[kind][0](tmp_path / "run"), journal(tmp_path / "run")
    champions = [line["champion"] for line in lines]
    assert len(found["best/retention"]) == len(champions)
    for step, champion in enumerate(champions):
        assert found["best/retention"][step] == pytest.approx(champion["retention"][champion["on"]], rel=1e-6)


@pytest.mark.parametrize("kind", READERS)
def test_resume_goes_on_in_the_same_run_without_gaps_or_repeats(tmp_path, kind):
    require(kind)
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        api.run(CONFIGS / "evolve.yaml", out=run, overrides=SMALL, track=[kind], observer=Heard(3))
    before = json.loads((run / "trackers.json").read_text())
    if kind == "mlflow":
        assert mlflow_run(run)[1].info.status == "KILLED"
    api.resume(run, track=[kind])
    assert json.loads((run / "trackers.json").read_text()) == before
    assert_as_journalled(kind, run)
    api.resume(run, track=[kind])  # finished: there is nothing to add
    assert_as_journalled(kind, run)
    if kind == "mlflow":
        assert mlflow_run(run)[1].info.status == "FINISHED"


@pytest.mark.parametrize("kind", READERS)
def test_what_was_journalled_before_a_tracker_was_named_is_made_good(tmp_path, kind):
    require(kind)
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        api.run(CONFIGS / "evolve.yaml", out=run, overrides=SMALL, observer=Heard(4))
    api.resume(run, track=[kind])
    assert_as_journalled(kind, run)


def test_what_was_lost_of_an_event_file_is_made_good(tmp_path):
    require("tensorboard")
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        api.run(CONFIGS / "evolve.yaml", out=run, overrides=SMALL, track=["tensorboard"], observer=Heard(4))
    (events,) = (run / "tensorboard").iterdir()
    events.write_bytes(events.read_bytes()[:-20])  # killed in the middle of a record
    api.resume(run, track=["tensorboard"])
    assert_as_journalled("tensorboard", run)


def test_a_config_names_its_trackers(tmp_path):
    require("mlflow")
    text = (CONFIGS / "evolve.yaml").read_text()
    config = tmp_path / "evolve.yaml"
    config.write_text(text + f"trackers: [{{kind: mlflow, path: {tmp_path / 'store'}, experiment: bits}}]\n")
    api.run(config, out=tmp_path / "run", overrides=SMALL)
    assert_as_journalled("mlflow", tmp_path / "run")
    client, run = mlflow_run(tmp_path / "run")
    assert client.get_experiment(run.info.experiment_id).name == "bits"
    resolved = json.loads((tmp_path / "run" / "resolved.json").read_text())
    assert run.data.params["config_hash"] == resolved["hash"]
    assert run.data.params["search.population"] == "20"
    assert run.data.params["seed"] == "0"
    assert run.info.run_name == "evolve-0"
    artifact = client.download_artifacts(run.info.run_id, "champion.json")
    assert Path(artifact).read_text() == (tmp_path / "run" / "champion.json").read_text()


def test_the_config_is_shown_in_tensorboard(tmp_path):
    require("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    api.run(CONFIGS / "evolve.yaml", out=tmp_path / "run", overrides=SMALL, track=["tensorboard"])
    read = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    (event,) = read.Tensors("config")
    text = event.tensor_proto.string_val[0].decode()
    assert json.loads((tmp_path / "run" / "resolved.json").read_text())["hash"] in text


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("method", ["log", "flush", "finish", "close", "logged"])
def test_a_tracker_that_fails_warns_once_and_changes_nothing(tmp_path, monkeypatch, kind, method):
    require(kind)
    from evoquant.report import track_mlflow, track_tensorboard

    owner = {"tensorboard": track_tensorboard.TensorBoard, "mlflow": track_mlflow.Mlflow}[kind]

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(owner, method, full)
    heard = Heard()
    run = api.run(CONFIGS / "evolve.yaml", out=tmp_path / "run", overrides=SMALL, track=[kind], observer=heard)
    assert run.champion is not None
    warnings = [text for text in heard.messages if "warning" in text]
    assert warnings == [f"warning: {kind} is left out from here on: OSError: [Errno 28] No space left on device"]
    monkeypatch.undo()
    api.resume(tmp_path / "run", track=[kind])
    assert_as_journalled(kind, tmp_path / "run")


@pytest.mark.parametrize("kind", READERS)
def test_a_place_that_cannot_be_written_is_a_warning(tmp_path, kind):
    require(kind)
    (tmp_path / "file").write_text("in the way")
    heard = Heard()
    wanted = [*SMALL, f"trackers=[{{kind: {kind}, path: {tmp_path / 'file'}}}]"]
    run = api.run(CONFIGS / "evolve.yaml", out=tmp_path / "run", overrides=wanted, observer=heard)
    assert run.champion is not None
    assert sum(f"warning: {kind} is left out" in text for text in heard.messages) == 1


# A bound socket is none that speaks to anybody: urllib3 looks in this way whether there is IPv6.
WATCHED = """
import sys
heard = []
sys.addaudithook(lambda event, args: heard.append((event, repr(args)[:200])) if event in
    ("socket.connect", "socket.getaddrinfo", "socket.sendto", "socket.sendmsg") else None)
from evoquant import api
api.run(sys.argv[1], out=sys.argv[2], overrides=sys.argv[4:], track=sys.argv[3].split(","))
import socket
before = list(heard)
try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except OSError:
    pass
assert len(heard) > len(before), "the hook hears nothing"
print(before)
"""


def test_nothing_is_sent_anywhere(tmp_path):
    for kind in READERS:
        require(kind)
    command = [sys.executable, "-c", WATCHED, CONFIGS / "evolve.yaml", tmp_path / "run", ",".join(READERS), *SMALL]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
