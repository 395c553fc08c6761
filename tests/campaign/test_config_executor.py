"""executor.resources and executor.runtime_env: what they take, what they refuse, and that they change no result."""

import pytest
import yaml

from evoquant.campaign.config import config_from_dict, load_config
from evoquant.campaign.config_executor import instead
from evoquant.errors import ConfigError
from evoquant.execution.need import Need

PLAIN = {"name": "far"}


def config(**executor):
    return config_from_dict({**PLAIN, "executor": {"kind": "ray", **executor}}, "far.yaml")


def test_resources_are_what_a_worker_takes():
    assert config().executor.need == Need()
    found = config(resources={"cpus": 2, "gpus": 0.5, "memory": "4GB"})
    assert found.executor.need == Need(2, 0.5, 4 * 10**9)
    sizes = {"512MiB": 512 * 2**20, 2**30: 2**30, "1.5 GB": 1_500_000_000, "2GiB": 2**31}
    assert {size: config(resources={"memory": size}).executor.need.memory_bytes for size in sizes} == sizes


def test_neither_changes_the_hash_nor_the_form_of_configs_without_it():
    plain = config_from_dict(PLAIN, "far.yaml")
    assert set(plain.to_dict()["executor"]) == {"kind", "options", "workers", "address", "batch", "limit_s"}
    other = config(resources={"cpus": 2}, runtime_env={"env_vars": {"A": "1"}})
    assert other.hash() == plain.hash()
    assert config_from_dict(other.to_dict(), "resolved.json").executor == other.executor


@pytest.mark.parametrize(
    ("executor", "message"),
    [
        ({"resources": {"cpus": 0}}, r"executor.resources.cpus.*greater than 0"),
        ({"resources": {"cpus": 2.5}}, r"2.5 is more than 1 and no whole number"),
        ({"resources": {"memory": "4 apples"}}, r"'4 apples' is no memory of a worker; write it as 4GB, 512MiB"),
        ({"resources": {"memory": "10kB"}}, r"'10kB' is no memory"),
        ({"resources": {"gpu": 1}}, r"gpus"),
        ({"resources": {"cpus": 2}, "kind": "local"}, r"resources is for Ray's workers; set kind: ray"),
        ({"runtime_env": {"env_var": {}}}, r"no key is called 'env_var'.*env_vars"),
        ({"runtime_env": {"worker_process_setup_hook": "a.b"}}, r"no key is called 'worker_process_setup_hook'"),
    ],
)
def test_what_is_wrong_is_named(executor, message):
    with pytest.raises(ConfigError, match=f"(?s)far.yaml.*{message}"):
        config(**executor)


def test_resume_asks_before_a_runtime_environment_of_a_run_directory_is_used(tmp_path):
    from evoquant import api
    from evoquant.campaign.storage import RESOLVED
    from evoquant.errors import InputError
    from evoquant.files import pretty_json

    found = config(runtime_env={"pip": ["something"]})
    (tmp_path / "config.yaml").write_text("name: far\n")
    (tmp_path / RESOLVED).write_text(pretty_json({"hash": found.hash(), "config": found.to_dict()}))
    with pytest.raises(InputError, match=r"\(pip\), which can install and run code.*--allow-code runtime_env"):
        api.resume(tmp_path)


@pytest.mark.parametrize("kind", ["local", "ray", "auto", "mine:Executor"])
def test_another_executor_than_the_files_takes_only_what_is_its_own(tmp_path, kind):
    file = tmp_path / "far.yaml"
    ray = {"kind": "ray", "workers": 3, "resources": {"cpus": 2}, "runtime_env": {"pip": ["a"]}}
    for before in (ray, {"kind": "mine:Executor", "options": {"a": 1}}, {}):
        file.write_text(yaml.safe_dump(PLAIN | {"executor": before}))
        found = load_config(file, instead(kind))[0].executor
        assert (found.kind, found.workers) == (kind, before.get("workers"))
        assert found.options == (before.get("options", {}) if kind == "mine:Executor" else {})
        assert (found.resources is None) == (before is not ray or kind in ("local", "mine:Executor"))
        assert (found.runtime_env is None) == (found.resources is None)
