"""A run directory before and after it holds a run."""

import os

import pytest

from evoquant.api import run
from evoquant.campaign.storage import CONFIG, TIMINGS, RunDir
from evoquant.errors import InputError, RunDirError


def test_a_refused_campaign_leaves_nothing(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("models: {train: [nowhere.json]}\n")
    with pytest.raises(InputError, match=r"nowhere\.json"):
        run(config, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_somebody_else_put_there_stays(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with RunDir.create(tmp_path) as directory:
        directory.put(CONFIG, "name: mine\n")
        directory.abandon((CONFIG,))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_pipe_in_the_place_of_a_log_is_refused_rather_than_waited_for(tmp_path):
    with RunDir.create(tmp_path) as directory:
        os.mkfifo(tmp_path / TIMINGS)
        with pytest.raises(RunDirError, match=r"timings\.jsonl: is no file"):
            directory.append(TIMINGS, {})
