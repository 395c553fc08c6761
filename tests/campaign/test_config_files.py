"""Profiles in files: what they hold is in a campaign's hash, where they lie is not, and runs find them again."""

import json
import shutil

import pytest

import evoquant
from evoquant import api
from evoquant.api.sweeps import RECORD, resume_sweep, sweep
from evoquant.campaign.config import config_from_dict, load_config
from evoquant.campaign.config_sweep import sweep_from_dict
from evoquant.campaign.located import located
from evoquant.campaign.storage import CHAMPION, ENVIRONMENT, JOURNAL, RESOLVED
from evoquant.errors import ConfigError, InputError
from evoquant.files import pretty_json
from evoquant.profiles.builtin import any_profile
from evoquant.profiles.model import profile_to_json
from evoquant.report.compare_runs import differing
from evoquant.report.data import load_run
from evoquant.report.page_run import overrides_of
from evoquant.report.series import run_series
from evoquant.report.sweep import sweep_hash
from evoquant.report.tables import run_tables

CAMPAIGN = """
models: {train: [models/train.json], valid: [models/valid.json], test: []}
search: {kind: genetic, population: 20}
stop: {generations: 4}
executor: {kind: local}
"""


@pytest.fixture
def folder(tmp_path):
    """A campaign, and below it the profiles that it names."""
    place = tmp_path / "here"
    (place / "models").mkdir(parents=True)
    for split in ("train", "valid"):
        (place / "models" / f"{split}.json").write_text(profile_to_json(any_profile(f"seed/{split}")))
    (place / "own.yaml").write_text(CAMPAIGN)
    return place


def interrupted(run):
    """The journal, of which the run directory then has two generations."""
    whole = (run / JOURNAL).read_bytes()
    (run / JOURNAL).write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    for name in (CHAMPION, "checkpoint.json", "report.json"):
        (run / name).unlink(missing_ok=True)
    return whole


def test_where_a_profile_lies_changes_nothing_and_what_it_holds_does(folder, tmp_path):
    there = tmp_path / "there"
    shutil.copytree(folder, there)
    first, second = (load_config(place / "own.yaml")[0] for place in (folder, there))
    assert first.hash() == second.hash() and differing([first, second]) == []
    runs = [api.run(place / "own.yaml", out=place / "run").path for place in (folder, there)]
    for name in (JOURNAL, CHAMPION, ENVIRONMENT, "report.json"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes(), name
    assert "here" not in (runs[0] / CHAMPION).read_text()
    shutil.copy(there / "models/valid.json", there / "models/train.json")
    changed = load_config(there / "own.yaml")[0]
    assert changed.hash() != first.hash() and differing([first, changed]) == ["models.train"]
    with pytest.raises(InputError, match=r"what the run reads has changed.*train\.json"):
        interrupted(runs[1])
        api.resume(runs[1])


def test_a_run_goes_on_and_is_read_where_its_files_lie_now(folder, tmp_path, monkeypatch):
    run = api.run(folder / "own.yaml", out=folder / "runs" / "own").path
    whole = interrupted(run)
    moved = tmp_path / "moved"
    shutil.move(folder, moved)
    with pytest.raises(InputError, match=r"here/models/train\.json: does not exist"):
        api.resume(moved / "runs" / "own")
    monkeypatch.chdir(moved)
    assert api.resume("runs/own").fresh
    assert (moved / "runs/own" / JOURNAL).read_bytes() == whole
    found = load_run(moved / "runs/own")
    assert run_tables(found) and f'models.train=["{moved}/models/train.json"]' in overrides_of(found)
    assert evoquant.load("runs/own").champion
    shutil.copytree(moved, tmp_path / "copy")
    shutil.rmtree(moved)
    shutil.move(tmp_path / "copy", moved)  # a current folder that was removed and made again
    monkeypatch.setenv("PWD", str(moved))
    assert run_tables(load_run(moved / "runs/own"))
    monkeypatch.chdir(moved)
    (moved / "models/train.json").write_text((moved / "models/train.json").read_text() + " ")  # another file
    interrupted(moved / "runs/own")
    with pytest.raises(InputError, match=r"here/models/train\.json: does not exist"):
        api.resume("runs/own")


def test_the_page_of_an_unfinished_run_is_not_made_of_another_profile(folder):
    run = api.run(folder / "own.yaml", out=folder / "run").path
    interrupted(run)
    assert run_series(load_run(run))
    shutil.copy(folder / "models/valid.json", folder / "models/train.json")
    with pytest.raises(InputError, match=r"train\.json: was changed since .* was run on it; restore it"):
        run_series(load_run(run))
    (run / ENVIRONMENT).write_text("{")  # a resume tells of it
    assert run_series(load_run(run))


def test_a_path_in_a_run_directory_leads_nowhere_out_of_the_current_folder(folder, monkeypatch):
    config, _ = load_config(folder / "own.yaml")
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    out = "/x/../models/train.json"  # gone; from here the same parts lead to the file
    plain = config.to_dict()
    plain["files"] = {out: config.files[plain["models"]["train"][0]]}
    plain["models"]["train"] = [out]
    assert located(config_from_dict(plain, "made")).models.train == [out]


def test_a_run_from_before_goes_on(folder):
    """Without `files` the paths are in the hash, as they were when it was begun."""
    config, _ = load_config(folder / "own.yaml")
    plain = config.to_dict()
    del plain["files"]
    before = config_from_dict(plain, "before")
    assert before.hash() != config.hash()
    run = api.run(folder / "own.yaml", out=folder / "run").path
    (run / RESOLVED).write_text(pretty_json({"hash": before.hash(), "config": plain}))
    environment = json.loads((run / ENVIRONMENT).read_text())
    environment["inputs"] = {name: any_profile(name).digest for name in (*before.models.train, *before.models.valid)}
    (run / ENVIRONMENT).write_text(pretty_json(environment))
    whole = interrupted(run)
    assert api.resume(run).fresh and (run / JOURNAL).read_bytes() == whole
    assert run_tables(load_run(run))


def test_a_sweep_goes_on_where_its_files_lie_now(folder, tmp_path, monkeypatch):
    """Campaigns that had not begun as well, whatever varies."""
    table = {layer.name: {"INT8": 1.0, "FP32": 4.0} for layer in any_profile("seed/train").layers}
    lines = [f"{layer},{width},{value}" for layer, widths in table.items() for width, value in widths.items()]
    (folder / "phone.csv").write_text("\n".join(["layer,width,value", *lines]))
    (folder / "many.yaml").write_text(
        "base: own.yaml\n"
        "over:\n"
        "  models.train: [[models/train.json], [models/valid.json]]\n"
        "  costs: [{latency: {kind: table, file: phone.csv, unit: us}}, {}]\n"
        "exclude: [{models.train: [[models/valid.json]], costs: {latency: {kind: table}}}]\n"
    )
    words = ["menu=[INT8,FP32]", "models.valid=[seed/train]"]
    made = sweep(folder / "many.yaml", out=folder / "runs/many", executor="local", overrides=words)
    assert not made.failed
    journals = {run.name: (run / JOURNAL).read_bytes() for run in made.runs}
    moved = tmp_path / "moved"
    shutil.move(folder, moved)
    monkeypatch.chdir(moved)
    runs = sorted((moved / "runs/many").glob("*/"))
    shutil.rmtree(runs[0])
    interrupted(runs[1])
    shutil.rmtree(runs[2])
    (moved / "runs/many/sweep.json").unlink()
    again = resume_sweep(moved / "runs/many", executor="local")
    assert not again.failed
    assert {run.name: (run / JOURNAL).read_bytes() for run in again.runs} == journals
    other = sweep(moved / "many.yaml", out=moved / "runs/many", executor="local", overrides=words)
    assert not other.failed and {run.name: (run / JOURNAL).read_bytes() for run in other.runs} == journals


def test_a_sweep_from_before_goes_on(folder):
    """Its record says nothing of files, and its campaigns have paths in their hashes."""
    (folder / "many.yaml").write_text("base: own.yaml\nover: {seed: 0-1}\n")
    made = sweep(folder / "many.yaml", out=folder / "new", executor="local")
    journals = [(run / JOURNAL).read_bytes() for run in made.runs]
    record = json.loads((folder / "new" / RECORD).read_text())
    del record["sweep"]["base"]["files"]
    before = sweep_from_dict(record["sweep"], "before", folder, recorded=True)
    assert not any(cell.config.files for cell in before.cells)
    record["hash"] = sweep_hash(before)
    (folder / "many").mkdir()
    (folder / "many" / RECORD).write_text(pretty_json(record))
    again = resume_sweep(folder / "many", executor="local")
    assert not again.failed and [(run / JOURNAL).read_bytes() for run in again.runs] == journals
    with pytest.raises(InputError, match=r"goes on with: evoquant resume .*many$"):  # by its file the hashes are others
        sweep(folder / "many.yaml", out=folder / "many", executor="local")
    assert not resume_sweep(folder / "many", executor="local").failed


def test_a_file_that_changes_under_a_sweep_is_refused(folder):
    (folder / "many.yaml").write_text("base: own.yaml\nover: {seed: 0-1}\n")
    made = sweep(folder / "many.yaml", out=folder / "many", executor="local")
    shutil.rmtree(made.runs[1])
    (folder / "models/train.json").write_text((folder / "models/train.json").read_text() + "\n")
    again = resume_sweep(folder / "many", executor="local")
    assert again.failed == [made.runs[1].name]
    assert "train.json: has become another file: sha256" in again.data["failed"][0]["message"]
    assert not made.runs[1].exists()
    with pytest.raises(InputError, match="holds a run of another config than this sweep's"):
        sweep(folder / "many.yaml", out=folder / "many", executor="local")


def test_two_names_of_one_file_are_one_campaign(folder):
    shutil.copy(folder / "models/train.json", folder / "models/same.json")
    (folder / "many.yaml").write_text(
        "base: own.yaml\nover: {models.train: [[models/train.json], [models/same.json]]}\n"
    )
    with pytest.raises(ConfigError, match="are the same campaign, which would count twice"):
        sweep(folder / "many.yaml", out=folder / "many", executor="local")


def test_digests_that_somebody_writes_are_checked(folder):
    text = CAMPAIGN + f"files: {{{folder}/models/train.json: {'a' * 64}}}\n"
    (folder / "own.yaml").write_text(text)
    with pytest.raises(InputError, match=r"models/train\.json: has become another file: sha256 aaaaaaaaaaaa"):
        api.run(folder / "own.yaml", out=folder / "run")
    assert not (folder / "run").exists()
    (folder / "own.yaml").write_text(CAMPAIGN + "files: [a]\n")
    with pytest.raises(ConfigError, match="files"):
        load_config(folder / "own.yaml")
