"""Trackers, so far as their packages are not needed: configs, what is refused, what a run directory may bring about."""

import json
import sys

import pytest

from evoquant import api
from evoquant.campaign.config import CampaignConfig, config_from_dict
from evoquant.errors import ConfigError, Interrupted, MissingExtraError
from evoquant.report.trackers import figures, params
from evoquant.testing.interrupt import StopAfter

SMALL = ["executor.kind=local", "stop.generations=4", "search.population=10"]


class Heard(StopAfter):
    def __init__(self, generations=10**9):
        super().__init__(generations)
        self.messages = []

    def message(self, text):
        self.messages.append(text)


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("name: a\n")
    return file


def test_trackers_change_neither_hash_nor_what_a_config_without_them_says():
    bare = CampaignConfig(name="a")
    tracked = config_from_dict({"name": "a", "trackers": [{"kind": "mlflow"}, {"kind": "tensorboard"}]}, "a")
    assert tracked.hash() == bare.hash()
    assert "trackers" not in bare.to_dict()
    assert CampaignConfig.model_validate(tracked.to_dict()) == tracked.model_copy(
        update={"menu": list(tracked.resolved_menu.names)}
    )


@pytest.mark.parametrize(
    ("trackers", "said"),
    [
        ([{"kind": "mflow"}], "unknown kind 'mflow'. Did you mean 'mlflow'"),
        ([{"kind": "mlflow", "path": "https://example.org"}], "nothing is sent anywhere"),
        ([{"kind": "mlflow", "path": "sqlite:///a.db"}], "nothing is sent anywhere"),
        ([{"kind": "mlflow", "path": ""}], "at least 1 character"),
        ([{"kind": "tensorboard", "path": "a\0b"}], "folder of this machine"),
        ([{"kind": "tensorboard", "experiment": "a"}], "unknown key"),
        ([{"kind": "mlflow", "experiment": "../../a"}], "pattern"),
        ([{"kind": "mlflow"}, {"kind": "mlflow"}], "name each kind once"),
        ([{}], "unknown kind"),
    ],
)
def test_a_wrong_tracker_is_refused(trackers, said):
    with pytest.raises(ConfigError, match="trackers") as error:
        config_from_dict({"name": "a", "trackers": trackers}, "a.yaml")
    assert said in str(error.value)
    assert str(error.value).startswith("a.yaml: trackers")


def test_a_tracker_that_nobody_knows_starts_nothing(config, tmp_path):
    with pytest.raises(ConfigError, match=r"--track mflow.*Did you mean 'mlflow'"):
        api.run(config, out=tmp_path / "run", track=["mflow"])
    assert not (tmp_path / "run" / "resolved.json").exists()


@pytest.mark.parametrize(("kind", "package"), [("mlflow", "mlflow-skinny"), ("tensorboard", "tensorboard")])
def test_a_missing_package_names_its_extra_and_starts_nothing(config, tmp_path, monkeypatch, kind, package):
    for name in [name for name in sys.modules if name.partition(".")[0] == kind]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, kind, None)
    with pytest.raises(MissingExtraError, match=rf"{kind} needs {package}.*evoquant\[{kind}\]"):
        api.run(config, out=tmp_path / "run", overrides=SMALL, track=[kind])
    assert not (tmp_path / "run" / "resolved.json").exists()
    assert not (tmp_path / "mlflow").exists()


@pytest.mark.parametrize("kind", ["mlflow", "tensorboard"])
def test_a_run_directory_begins_nothing_outside_of_itself(config, tmp_path, kind):
    run, outside = tmp_path / "run", tmp_path / "outside"
    with pytest.raises(Interrupted):
        api.run(config, out=run, overrides=SMALL, observer=StopAfter(2))
    resolved = json.loads((run / "resolved.json").read_text())
    resolved["config"]["trackers"] = [{"kind": kind, "path": str(outside)}]  # which is not in the hash
    (run / "resolved.json").write_text(json.dumps(resolved))
    (run / "trackers.json").write_text(json.dumps({kind: {"path": str(outside), "run": "../" * 12}}))
    outside.mkdir()
    heard = Heard()
    assert api.resume(run, observer=heard).champion is not None
    assert list(outside.iterdir()) == []
    assert sum(f"{kind} is left out" in text for text in heard.messages) == 1


@pytest.mark.parametrize("text", ["", "[]", "{", '{"mlflow": 3}', '{"mlflow": {"path": 3, "run": "x"}}', "null"])
def test_a_damaged_state_is_none(tmp_path, text):
    from evoquant.campaign.storage import RunDir
    from evoquant.report.trackers import _read_state

    (tmp_path / "trackers.json").write_text(text)
    assert not any(_read_state(RunDir(tmp_path)).values())


@pytest.mark.parametrize(
    "change",
    [
        lambda line: {},
        lambda line: line | {"champion": 3},
        lambda line: line | {"champion": {"fitness": 10**400, "retention": [1], "compression": [1], "on": 5}},
        lambda line: line | {"summary": None, "failures": 7},
        lambda line: line | {"evaluations": {"asked": 10**400, "distinct": 1}},
    ],
)
def test_a_journal_that_is_none_is_left_to_the_run(config, tmp_path, change):
    from evoquant.campaign.storage import RunDir
    from evoquant.report.trackers import _make_good

    with pytest.raises(Interrupted):
        api.run(config, out=tmp_path / "run", overrides=SMALL, observer=StopAfter(2))
    journal = tmp_path / "run" / "journal.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[1] = change(lines[1]) | {"generation": 1}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))

    class Noted:
        def __init__(self):
            self.steps = []

        def log(self, step, found, when_s):
            self.steps.append(step)

        def flush(self):
            pass

    noted = Noted()
    assert _make_good(RunDir(tmp_path / "run"), [noted]) == 2
    assert noted.steps == [0]


def test_figures_leave_out_what_is_not_known():
    record = {
        "evaluations": {"asked": 20, "distinct": 15},
        "failures": {"3": "not_finite"},
        "summary": {"fitness": None},
        "champion": None,
    }
    assert figures(record) == {
        "evaluations/asked": 20.0,
        "evaluations/distinct": 15.0,
        "evaluations/reused": 0.25,
        "evaluations/failed": 1.0,
    }


def test_parameters_are_short_and_few():
    search = {"kind": "own:Search", "options": {"k\n$" * 200: "v" * 5000, "many": {str(i): i for i in range(1000)}}}
    found = params(config_from_dict({"name": "a", "search": search}, "a"))
    assert found["seed"] == "0"
    assert len(found) == 500
    assert max(map(len, found.values())) == 500
    assert all(len(key) <= 200 and key.isprintable() and "$" not in key for key in found)
