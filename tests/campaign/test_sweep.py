"""A sweep: turns, one store, kills and restarts, failures; every journal is that of its campaign run alone."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

from evoquant import api
from evoquant.api import sweep_turns, sweeps
from evoquant.api.sweeps import opened_sweep, read_sweep, resume_sweep, sweep
from evoquant.campaign.config_sweep import load_sweep
from evoquant.errors import HeldError, InputError, Interrupted, RunDirError
from evoquant.report.compare import compare
from evoquant.report.compare_tables import compare_data
from evoquant.report.sweep import sweep_table

BASE = {"search": {"kind": "genetic", "population": 20}, "stop": {"generations": 8}, "models": {"test": []}}
OVER = {"search": [{"kind": "genetic", "population": 20}, {"kind": "random", "population": 20}], "seed": "0-1"}
AT_ONCE = 1e-6  # seconds of a turn, of which one generation is the least


def written(folder, over=OVER, base=BASE, **keys):
    file = folder / "s.yaml"
    file.write_text(yaml.safe_dump({"base": base, "over": over, **keys}, sort_keys=False))
    return file


def journals(folder):
    found = {path.parent.name: path.read_bytes() for path in folder.glob("*/journal.jsonl")}
    assert found
    return found


def turns(folder):
    return [json.loads(line) for line in (folder / "turns.jsonl").read_text().splitlines()]


@pytest.fixture
def at_once(monkeypatch):
    """Turns end behind their first generation, however long it took to get there."""
    monkeypatch.setattr(sweep_turns, "CATCHING_UP", 0.0)


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A sweep of four campaigns that nothing disturbed, each in one turn."""
    folder = tmp_path_factory.mktemp("calm")
    made = sweep(written(folder), out=folder / "out", executor="local")
    return folder / "out", made


# What it gives.


def test_each_journal_is_that_of_its_campaign_run_alone(calm, tmp_path):
    out, made = calm
    assert made.data["finished"] == made.data["campaigns"] == 4 and made.failed == []
    for name, journal in journals(out).items():
        api.run(out / name / "config.yaml", out=tmp_path / name)
        assert (tmp_path / name / "journal.jsonl").read_bytes() == journal


def test_a_row_for_each_combination_and_the_best_of_its_budget(calm):
    out, made = calm
    rows = {row["combination"]: row for row in made.data["rows"]}
    assert list(rows) == ["genetic", "random"]
    assert rows["genetic"]["seeds"] == "0–1" and rows["genetic"]["finished"] == 2
    for name, row in rows.items():
        found = []
        for seed in (0, 1):
            last = json.loads(journals(out)[f"{name}-seed{seed}"].splitlines()[-1])
            found.append(last["champion"]["fitness"])
        assert row["best_found"]["median"] == pytest.approx(sum(found) / 2)
        (group,) = [one for one in compare_data(compare(made.runs))["groups"] if one["label"] == name]
        for told, split in ((row["best_found"], "best_found"), (row["spent"], "spent")):
            assert {key: told[key] for key in told if key != "split"} == {
                key: group[split][key] for key in group[split] if key != "runs"
            }
    assert json.loads((out / "sweep.json").read_text()) == made.data
    table = sweep_table(made.data)
    assert [row[0] for row in table.rows] == ["genetic", "random"]
    assert read_sweep(out).data == made.data


def test_the_commands_take_its_directory(calm, cli):
    out, made = calm
    shown, _, code = cli("report", out)
    assert code == 0 and "genetic" in shown and "4 of 4 campaigns" in shown
    shown, _, code = cli("report", out, "--json")
    assert json.loads(shown) == made.data
    shown, _, code = cli("compare", out, "--json")
    assert [group["label"] for group in json.loads(shown)["groups"]] == ["genetic", "random"]
    _, err, code = cli("report", out, "--why")
    assert code == 2 and "a sweep has one table" in err
    before = journals(out)
    shown, err, code = cli("resume", out)
    assert code == 0 and "4 are finished already; nothing is left" in err and journals(out) == before


def test_python_runs_it_too(calm):
    import evoquant

    assert evoquant.sweep is sweep
    assert [path.name for path in calm[1].runs] == [cell.name for cell in opened_sweep(calm[0]).cells]


# Turns.


def test_campaigns_take_turns_and_none_starves(tmp_path, calm, at_once):
    """One worker, a long campaign first: between two turns of one, all others that are not done have had one."""
    over = {"stop.generations": [16, 8], "seed": "0-1"}
    made = sweep(written(tmp_path, over, turn_s=AT_ONCE), out=tmp_path / "out", executor="local")
    assert made.data["finished"] == 4
    order = [(turn["cell"], turn["state"]) for turn in turns(tmp_path / "out")]
    count = Counter(name for name, _ in order)
    assert count["generations16-seed0"] > count["generations8-seed0"] > 2
    left = list(dict.fromkeys(name for name, _ in order))
    queue = list(left)
    for name, state in order:
        assert name == queue.pop(0)
        if state == "suspended":
            queue.append(name)
    assert queue == []
    for name, journal in journals(tmp_path / "out").items():  # suspended or not, nothing of it is in the journal
        if "generations8" in name:
            assert [json.loads(line)["champion"]["fitness"] for line in journal.splitlines()] == [
                json.loads(line)["champion"]["fitness"]
                for line in journals(calm[0])[f"genetic-seed{name[-1]}"].splitlines()
            ]


@pytest.mark.long  # with Ray's workers it is always asked
def test_turns_leave_no_trace_in_the_journals(calm, tmp_path, at_once):
    made = sweep(written(tmp_path, turn_s=AT_ONCE), out=tmp_path / "out", executor="local")
    assert any(turn["state"] == "suspended" for turn in turns(tmp_path / "out"))
    assert journals(tmp_path / "out") == journals(calm[0]) and made.data == calm[1].data


def test_on_ray_with_more_campaigns_than_workers(calm, tmp_path, at_once):
    file = written(tmp_path, turn_s=AT_ONCE)
    made = sweep(file, out=tmp_path / "out", executor="ray", workers=2)
    assert any(turn["state"] == "suspended" for turn in turns(tmp_path / "out"))
    assert journals(tmp_path / "out") == journals(calm[0]) and made.data == calm[1].data
    assert not (tmp_path / "out" / sweep_turns.PROBE).exists()


def test_a_worker_elsewhere_has_to_see_the_folder(tmp_path):
    given = sweep_turns.Turns(str(tmp_path), str(tmp_path / "cache"), "here", (), "probe")
    with pytest.raises(RuntimeError, match=r"does not see the sweep's folder .* file system that all of them share"):
        sweep_turns.start_turns(given)


def test_another_machine_keeps_a_store_of_its_own(tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(sweep_turns, "_take", lambda turn, folder, cache, turns: used.append(cache))
    (tmp_path / sweep_turns.PROBE).write_text("probe")
    here = sweep_turns.socket.gethostname()
    for machine in (here, "another"):
        given = sweep_turns.Turns(str(tmp_path), str(tmp_path / "shared"), machine, (), "probe")
        sweep_turns.start_turns(given)(None)
    assert used == [tmp_path / "shared", tmp_path / "cache" / here]


# One store.


def test_an_outcome_that_one_campaign_measured_is_measured_by_no_other(tiny, tmp_path):
    base = {"task": {"kind": "tiny", "block": 100}, "genome": {"kind": "direct"}, "stop": {"generations": 3}}
    base |= {"search": {"kind": "genetic", "population": 8}}
    over = {"seed": "0-1"}
    file = written(tmp_path, over, base, cache=str(tmp_path / "cache"))
    made = sweep(file, out=tmp_path / "out", executor="local")
    assert made.data["finished"] == 2
    calls = [(call.widths, call.split, call.block) for task in tiny for call in task.calls]
    failed = {call for call in calls if call[0][0] == "FP16" and call[1:] == ("calibration", 1)}  # is not kept
    assert all(times == 1 for call, times in Counter(calls).items() if call not in failed)
    assert made.measured == len(calls)
    assert made.needed > made.measured > 0
    assert opened_sweep(tmp_path / "out").config.cache == str(tmp_path / "cache")
    record = tmp_path / "out" / sweeps.RECORD
    record.write_text(record.read_text().replace(str(tmp_path / "cache"), str(tmp_path / "elsewhere")))
    assert opened_sweep(tmp_path / "out").config.cache is None, "nothing is made wherever a directory says"
    before = len(calls)
    tight = sweep(written(tmp_path, over, base, cache=str(tmp_path / "cache"), turn_s=AT_ONCE),
                  out=tmp_path / "again", executor="local")  # fmt: skip
    calls = [call for task in tiny for call in task.calls]
    assert {(call.widths, call.split, call.block) for call in calls[before:]} <= failed
    assert tight.data == made.data and journals(tmp_path / "again") == journals(tmp_path / "out")


# Interrupted, killed, started again.


def started(file, out, *words):
    command = [sys.executable, "-m", "evoquant.cli", "sweep", str(file), "--out", str(out), "--executor", "local", "-q"]
    return subprocess.Popen([*command, *words], stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)


def test_killed_and_started_again_it_ends_the_same(tmp_path):
    base = BASE | {"stop": {"generations": 60}}
    file = written(tmp_path, base=base, turn_s=0.1)
    process = started(file, tmp_path / "out")
    wait_for(lambda: len(list((tmp_path / "out").glob("*/journal.jsonl"))) >= 2, process)
    with pytest.raises(HeldError, match="another process is running this sweep"):
        resume_sweep(tmp_path / "out", executor="local")
    process.kill()
    process.communicate()
    with (tmp_path / "out" / "turns.jsonl").open("a") as torn:
        torn.write('{"cell": "gen')
    shown = read_sweep(tmp_path / "out")
    assert shown.data["finished"] < 4 and shown.data["unfinished"]
    made = resume_sweep(tmp_path / "out")  # on the executor that it was begun with
    calm = sweep(file, out=tmp_path / "calm", executor="local")
    assert journals(tmp_path / "out") == journals(tmp_path / "calm") and made.data == calm.data
    assert (tmp_path / "out" / "sweep.json").read_bytes() == (tmp_path / "calm" / "sweep.json").read_bytes()


def test_an_interrupt_ends_it_with_130_and_says_how_to_go_on(tmp_path):
    file = written(tmp_path, base=BASE | {"stop": {"generations": 10_000}})
    process = started(file, tmp_path / "out")
    wait_for(lambda: list((tmp_path / "out").glob("*/checkpoint.json")), process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"0 of 4 campaigns are finished; continue with: evoquant resume {tmp_path / 'out'}" in errors
    assert "Traceback" not in errors


def test_an_interrupt_here_is_told_from_the_end_of_a_turn(tmp_path, monkeypatch):
    class Stops(sweep_turns._Watch):
        def generation(self, progress):
            raise KeyboardInterrupt

    monkeypatch.setattr(sweep_turns, "_Watch", Stops)
    with pytest.raises(Interrupted, match="evoquant resume"):
        sweep(written(tmp_path), out=tmp_path / "out", executor="local")


def test_more_seeds_in_the_same_directory_keep_what_is_there(calm, tmp_path, monkeypatch):
    first = sweep(written(tmp_path, {"seed": [0]}), out=tmp_path / "out", executor="local")
    ran = []
    monkeypatch.setattr(
        sweep_turns, "begin", lambda *given, **named: ran.append(given[2].name) or api.begin(*given, **named)
    )
    more = sweep(written(tmp_path, {"seed": [0, 1]}), out=tmp_path / "out", executor="local")
    assert ran == ["s-seed1"] and first.data["finished"] == 1 and more.data["finished"] == 2
    with pytest.raises(RunDirError, match="holds a run of another config than this sweep's"):
        sweep(written(tmp_path, {"seed": [0]}, BASE | {"finalists": 3}), out=tmp_path / "out", executor="local")


def test_a_campaign_that_fails_is_told_and_the_others_go_on(tmp_path, monkeypatch, cli):
    def no(*given, **named):
        raise ZeroDivisionError("of the test")

    real = sweep_turns.begin
    monkeypatch.setattr(
        sweep_turns, "begin", lambda *given, **named: (no if "random-seed1" in str(given[2]) else real)(*given, **named)
    )
    file = written(tmp_path)
    shown, err, code = cli("sweep", file, "--out", tmp_path / "out", "--executor", "local")
    assert code == 1 and "1 of 4 campaigns failed, 3 are finished" in err and "Traceback" not in err
    assert "1 failed" in shown and "random-seed1: ZeroDivisionError: of the test" in shown
    told = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [one["campaign"] for one in told["failed"]] == ["random-seed1"] and told["finished"] == 3
    assert read_sweep(tmp_path / "out").data == told
    monkeypatch.setattr(sweep_turns, "begin", real)
    assert resume_sweep(tmp_path / "out", executor="local").data["finished"] == 4


def test_a_campaigns_own_wall_time_is_its_own_and_the_command_goes_on_with_it(tmp_path):
    base = BASE | {"stop": {"generations": 50, "wall_time_s": 0.001}}
    file = written(tmp_path, {"seed": [0]}, base)
    made = sweep(file, out=tmp_path / "out", executor="local")
    assert made.data["unfinished"] == ["s-seed0"] and [turn["state"] for turn in turns(tmp_path / "out")] == [
        "out_of_time"
    ]
    length = len(journals(tmp_path / "out")["s-seed0"].splitlines())
    sweep(file, out=tmp_path / "out", executor="local")
    assert len(journals(tmp_path / "out")["s-seed0"].splitlines()) > length


def test_the_shipped_sweep_runs(tmp_path):
    configs = Path(__file__).parents[2] / "configs"
    data = yaml.safe_load((configs / "sweeps" / "searches.yaml").read_text())
    data["over"]["seed"] = [0]
    file = written(tmp_path, data["over"], str(configs / "evolve.yaml"))
    made = sweep(file, out=tmp_path / "out", overrides=["stop.generations=1", "finalists=1"], executor="local")
    assert made.data["finished"] == made.data["campaigns"] == 10


# What is refused.


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere.yaml",), "nowhere.yaml: does not exist"),
        (("S", "--json", "--markdown"), "--json and --markdown"),
        (("S", "--progress", "loud"), "--progress loud: choose bar"),
        (("S", "--progress", "bar", "--quiet"), "--quiet tells nothing"),
        (("S", "--executor", "rey"), "rey"),
        (("S", "--set", "executor.kind=local"), "executor.kind=local: is of the whole sweep"),
        (("BAD",), "campaign genetic-population0: search.population"),
        (("LACKS",), "campaign train-nowhere.json: "),
    ],
)
def test_bad_input_ends_in_one_message_before_anything_starts(monkeypatch, cli, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    files = {"S": OVER, "BAD": {"search": [{"kind": "genetic", "population": 9}, {"kind": "genetic", "population": 0}]}}
    files["LACKS"] = {"models.train": [["seed/train"], ["train-nowhere.json"]]}
    given = [str(written(tmp_path, files[word])) if word in files else word for word in words]
    out, err, code = cli("sweep", *given)
    assert code == 2 and out == "" and message in err and "Traceback" not in err
    assert not (tmp_path / "runs").exists()


def test_directories_of_others_are_refused(tmp_path):
    file = written(tmp_path)
    api.run(load_sweep_config(tmp_path), out=tmp_path / "run", overrides=["stop.generations=1"])
    with pytest.raises(RunDirError, match="holds the run of one campaign"):
        sweep(file, out=tmp_path / "run", executor="local")
    with pytest.raises(RunDirError, match="no sweep's directory"):
        resume_sweep(tmp_path / "nowhere")


def load_sweep_config(folder):
    path = folder / "one.yaml"
    path.write_text(load_sweep(folder / "s.yaml").cells[0].text)
    return path


def test_a_damaged_record_says_what_to_do(tmp_path, calm):
    out = tmp_path / "out"
    out.mkdir()
    record = json.loads((calm[0] / sweeps.RECORD).read_text())
    for text in ("{", "[]", json.dumps(record | {"hash": "0"}), json.dumps(record | {"sweep": {"base": 3}})):
        (out / sweeps.RECORD).write_text(text)
        with pytest.raises(InputError, match="resolved_sweep"):
            opened_sweep(out)


def test_code_that_only_the_directory_names_does_not_run(tmp_path, monkeypatch):
    (tmp_path / "a_cost_of_a_sweep.py").write_text("class Cost:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    file = written(tmp_path, base=BASE | {"cost": {"kind": "a_cost_of_a_sweep:Cost"}})
    with contextlib.suppress(InputError):
        sweep(file, out=tmp_path / "out", executor="local")  # each fails: it is no cost
    with pytest.raises(InputError, match="repeat it: --allow-code a_cost_of_a_sweep:Cost"):
        resume_sweep(tmp_path / "out")


def test_code_that_cannot_be_imported_is_told_before_anything_is_written(tmp_path):
    file = written(tmp_path, base=BASE | {"cost": {"kind": "no_such_module:Cost"}})
    with pytest.raises(InputError, match=r"s: no_such_module:Cost: cannot be imported"):
        sweep(file, out=tmp_path / "out", executor="local")
    assert not (tmp_path / "out").exists()


def test_it_goes_on_where_it_was_begun_and_joins_no_cluster_that_only_the_directory_names(calm, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    record = json.loads((calm[0] / sweeps.RECORD).read_text())
    record["executor"] = {"kind": "ray", "workers": 3, "resources": {"cpus": 2}}
    (out / sweeps.RECORD).write_text(json.dumps(record))
    asked = []
    monkeypatch.setattr(sweeps, "_held", lambda loaded, folder, where, observer: asked.append(where))
    resume_sweep(out)
    resume_sweep(out, executor="local")
    assert (asked[0].kind, asked[0].workers, asked[0].need.cpus) == ("ray", 3, 2)
    assert (asked[1].kind, asked[1].resources) == ("local", None)
    record["executor"] |= {"address": "far:6379", "runtime_env": {"pip": ["x"]}}
    (out / sweeps.RECORD).write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"names a Ray cluster.* repeat it: --address far:6379"):
        resume_sweep(out)
    with pytest.raises(InputError, match="--allow-code runtime_env"):
        resume_sweep(out, address="far:6379")
    resume_sweep(out, address="far:6379", allow_code=["runtime_env"])
    assert asked[2].runtime_env == {"pip": ["x"]}


# How it goes.


def test_progress_for_programs(tmp_path, cli):
    file = written(tmp_path, {"seed": "0-1"})
    words = ("sweep", file, "--out", tmp_path / "out", "--executor", "local", "--progress", "json", "--json")
    out, err, code = cli(*words)
    events = [json.loads(line) for line in err.splitlines()]
    assert code == 0 and json.loads(out)["finished"] == 2
    last = [event for event in events if event["event"] == "turn"][-1]
    assert (last["campaigns"], last["finished"], last["running"], last["waiting"]) == (2, 2, 0, 0)


def test_a_sweep_and_a_campaign_are_told_apart(tmp_path, cli):
    file = written(tmp_path)
    assert f"a sweep, not one campaign; run it with: evoquant sweep {file}" in cli("run", file)[1]
    one = load_sweep_config(tmp_path)
    assert f"one campaign, not a sweep; run it with: evoquant run {one}" in cli("sweep", one)[1]


def test_list_runs_nothing(tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    out, _, code = cli("sweep", written(tmp_path), "--list", "--json")
    assert code == 0 and [row["campaign"] for row in json.loads(out)][:2] == ["genetic-seed0", "genetic-seed1"]
    assert not Path("runs").exists()
