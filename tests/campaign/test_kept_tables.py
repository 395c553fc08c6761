"""A run keeps a copy of the cost tables that it read, and where they lay is no part of its hash."""

import shutil

import pytest

from evoquant import api
from evoquant.api.sweeps import resume_sweep
from evoquant.campaign.config import load_config
from evoquant.campaign.storage import ARCHIVE, CHAMPION, JOURNAL
from evoquant.errors import ConfigError, InputError
from evoquant.profiles.builtin import any_profile
from evoquant.report.compare_runs import differing
from evoquant.report.data import load_run
from evoquant.report.tables import run_tables

SHARES = {"INT4": 0.4, "INT8": 0.5, "FP32": 1.0}
CAMPAIGN = """
models: {train: [seed/test], valid: [], test: []}
menu: [INT4, INT8, FP32]
costs: {latency: {kind: table, file: phone.csv, unit: us}}
objective: {kind: limits, minimise: latency, retention: 0.5}
genome: {kind: direct}
search: {kind: nsga2, objectives: [retention, latency], population: 8}
stop: {generations: 4}
executor: {kind: local}
"""


@pytest.fixture
def folder(tmp_path):
    """A campaign beside the table that it names."""
    place = tmp_path / "here"
    place.mkdir()
    lines = [
        f"{layer.name},{width},{layer.parameters * share / 1000:.3f}"
        for layer in any_profile("seed/test").layers
        for width, share in SHARES.items()
    ]
    (place / "phone.csv").write_text("\n".join(["layer,width,value", *lines, ",,4.5"]))
    (place / "own.yaml").write_text(CAMPAIGN)
    return place


def test_a_run_goes_on_and_is_read_without_the_file_it_began_with(folder, tmp_path):
    run = api.run(folder / "own.yaml", out=tmp_path / "run").path
    whole = (run / JOURNAL).read_bytes()
    (copy,) = run.glob("table-*.csv")
    assert copy.read_bytes() == (folder / "phone.csv").read_bytes()
    moved = tmp_path / "moved"
    shutil.move(run, moved)
    shutil.rmtree(folder)
    (moved / JOURNAL).write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    for name in (CHAMPION, ARCHIVE, "checkpoint.json"):
        (moved / name).unlink()
    assert api.resume(moved).fresh
    assert (moved / JOURNAL).read_bytes() == whole
    assert run_tables(load_run(moved))


def test_a_copy_that_has_changed_is_refused(folder, tmp_path):
    run = api.run(folder / "own.yaml", out=tmp_path / "run").path
    (copy,) = run.glob("table-*.csv")
    copy.write_text(copy.read_text() + "\n")
    (run / CHAMPION).unlink()
    with pytest.raises(ConfigError, match=rf"costs\.latency\.file: .*{copy.name} is another file.*sha256 differs"):
        api.resume(run)


def test_where_a_table_lies_changes_no_hash_and_what_it_holds_does(folder, tmp_path):
    there = tmp_path / "there"
    shutil.copytree(folder, there)
    first, second = (load_config(place / "own.yaml")[0] for place in (folder, there))
    assert first.hash() == second.hash() and differing([first, second]) == []
    (there / "phone.csv").write_text((there / "phone.csv").read_text().replace(",,4.5", ",,4.6"))
    changed = load_config(there / "own.yaml")[0]
    assert changed.hash() != first.hash() and differing([first, changed]) == ["costs.latency.sha256"]


def test_a_run_that_never_began_leaves_no_copy(folder, tmp_path):
    text = (folder / "phone.csv").read_text().splitlines()
    (folder / "phone.csv").write_text("\n".join(text[:1] + text[4:]))  # a layer is missing
    with pytest.raises(InputError, match=r"phone\.csv: a table of another model.*no layer"):  # the user's own file
        api.run(folder / "own.yaml", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_finished_sweep_is_read_without_the_tables_it_began_with(folder, tmp_path):
    (folder / "sweep.yaml").write_text("name: s\nbase: own.yaml\nover: {objective.retention: [0.5, 0.6]}\n")
    api.sweep(folder / "sweep.yaml", out=tmp_path / "s")
    (folder / "phone.csv").unlink()
    assert len(resume_sweep(tmp_path / "s").data["rows"]) == 2
