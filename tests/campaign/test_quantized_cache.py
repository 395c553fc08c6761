"""task.quantized_cache: what it takes, what it refuses, and that it is no part of what a run is known by."""

import pytest

from evoquant.api.same_call import NOT_HASHED_OF_TASK
from evoquant.campaign.config import config_from_dict
from evoquant.errors import ConfigError

TASKS = {
    "example": {"kind": "digits"},
    "torch": {"kind": "torch", "factory": "mine:make"},
    "onnx": {"kind": "onnx", "model": "m.onnx", "data": "m.npz"},
}


def config(task, **more):
    return config_from_dict({"name": "large", "task": {**TASKS[task], **more}}, "large.yaml")


@pytest.mark.parametrize("task", TASKS)
def test_a_size_is_taken_beside_every_network(task):
    assert config(task).task.quantized_cache_bytes is None
    sizes = {"256MB": 256 * 10**6, "1GiB": 2**30, "1.5 kB": 1500, 1000: 1000, 0: 0, "0": 0}
    assert {size: config(task, quantized_cache=size).task.quantized_cache_bytes for size in sizes} == sizes


@pytest.mark.parametrize("value", ["much", -1, "-1MB", 1.5, True, "2000TiB", "256 megabytes", "", []])
def test_what_is_no_size_is_named(value):
    with pytest.raises(ConfigError, match=r"large.yaml: task\.\w*\.?quantized_cache"):
        config("example", quantized_cache=value)


def test_the_remedy_is_said():
    with pytest.raises(ConfigError, match=r"'lots' is no size; write it as 256MB, 1GiB, or in bytes; 0 keeps nothing"):
        config("torch", quantized_cache="lots")


def test_it_changes_neither_the_hash_nor_the_form_of_configs_without_it():
    plain, other = config("example"), config("example", quantized_cache="1MB")
    assert "quantized_cache" not in plain.to_dict()["task"]
    assert other.to_dict()["task"]["quantized_cache"] == "1MB"
    assert plain.hash() == other.hash() and "quantized_cache" in NOT_HASHED_OF_TASK
    assert config_from_dict(other.to_dict(), "resolved.json").task == other.task


def test_campaigns_that_differ_in_it_alone_are_one(tmp_path):
    from evoquant.campaign.config_sweep import sweep_from_dict

    over = {"task.quantized_cache": ["1MB", "2MB"]}
    data = {"name": "s", "base": {"name": "large", "task": TASKS["example"]}, "over": over}
    with pytest.raises(ConfigError, match="are the same campaign"):
        sweep_from_dict(data, "s.yaml", tmp_path)
