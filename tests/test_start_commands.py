"""`evoquant init` and `evoquant schema`: what they say of a campaign's file is what the file takes."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from evoquant import api
from evoquant.campaign.config import CampaignConfig, load_config
from evoquant.campaign.config_measured import source_of
from evoquant.campaign.config_words import WORDS
from evoquant.campaign.schema import config_schema, sweep_schema
from evoquant.campaign.starter import starter
from evoquant.errors import ConfigError
from tests.command import command

CONFIGS = Path(__file__).parents[1] / "configs"
SOURCES = {
    "models": None,
    "task": {"task": "tabular"},
    "mine": {"torch": "networks:mine"},
    "onnx": {"onnx": "net.onnx", "data": "net.npz"},
}


def cli(*words, cwd, code=0):
    return command(cwd, *words, code=code)


def validator():
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator.check_schema(config_schema())
    return jsonschema.Draft202012Validator(config_schema())


def written(tmp_path, kind):
    file = tmp_path / "evoquant.yaml"
    file.write_text(starter(file, source_of(**SOURCES[kind]) if SOURCES[kind] else None))
    return file


def commented(text):
    """`key.path`, words, default and alternatives of each key of a starter, read from its comments.

    The default is None where nothing is said of it, and '' where the value is it.
    """
    found, comment, outer = [], "", ""
    for line in text.splitlines():
        bare = line.strip()
        if bare.startswith("#"):
            comment = f"{comment} {bare.removeprefix('#').strip()}".strip()
        elif not bare:
            comment = ""
        else:
            key = bare.partition(":")[0]
            indented = line.startswith(" ")
            outer = outer if indented else key
            said = re.fullmatch(r"(.*?)(; default(?:: (.*?))?)?(?:; or: (.*))?", comment)
            default = None if said[2] is None else said[3] or ""
            path = f"{outer}.{key}" if indented else key
            found.append((path, said[1], default, said[4].split(" | ") if said[4] else []))
            comment = ""
    return found


def get(data, path):
    for part in path.split("."):
        data = data[part]
    return data


@pytest.mark.parametrize("kind", SOURCES)
def test_every_value_that_a_comment_names_is_accepted(tmp_path, kind):
    file = written(tmp_path, kind)
    text = file.read_text()
    keys = commented(text)
    assert len(keys) > 25
    config, _ = load_config(file)
    plain = config.model_dump(mode="json")
    for path, words, default, others in keys:
        assert words, path
        assert not re.search(r"\b(default|or):", words), path
        if default:
            load_config(file, [f"{path}={default}"])
        for other in others:
            changed, _ = load_config(file, [f"{path}={other}"])
            assert get(changed.model_dump(mode="json"), path) != get(plain, path), f"{path}={other} changes nothing"
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("kind", SOURCES)
def test_default_is_said_where_it_is_the_default(tmp_path, kind):
    file = written(tmp_path, kind)
    data, tried = yaml.safe_load(file.read_text()), 0
    whole = CampaignConfig.model_validate(data)
    for path, _, default, _ in commented(file.read_text()):
        outer, _, inner = path.rpartition(".")
        if default is None or inner == "kind":
            continue
        without = json.loads(json.dumps(data))
        del (get(without, outer) if outer else without)[inner]
        bare = CampaignConfig.model_validate(without)
        assert (bare.to_dict() == whole.to_dict()) == (default == ""), path
        if default:
            assert get(bare.to_dict(), path) == yaml.safe_load(default), path
        tried += 1
    assert tried > 12


@pytest.mark.parametrize("kind", SOURCES)
def test_a_starter_agrees_with_the_schema(tmp_path, kind):
    assert not list(validator().iter_errors(yaml.safe_load(written(tmp_path, kind).read_text())))


def test_a_starter_for_profiles_is_the_default_campaign(tmp_path):
    file = written(tmp_path, "models")
    (tmp_path / "bare.yaml").write_text("name: evoquant\nmodels: {}\n")
    assert load_config(file)[0].hash() == load_config(tmp_path / "bare.yaml")[0].hash()


def test_init_writes_a_file_that_runs(tmp_path):
    done = cli("init", cwd=tmp_path)
    assert done.stdout == ""
    assert "evoquant run evoquant.yaml" in done.stderr
    assert "# yaml-language-server: $schema=evoquant.schema.json" in done.stderr
    small = ["stop.generations=2", "search.population=20", "executor.kind=local"]
    assert api.run(tmp_path / "evoquant.yaml", out=tmp_path / "run", overrides=small).champion is not None
    before = (tmp_path / "evoquant.yaml").read_bytes()
    again = cli("init", cwd=tmp_path, code=2)
    assert again.stderr == "evoquant: evoquant.yaml: is there already; name another file, or remove it.\n"
    assert (tmp_path / "evoquant.yaml").read_bytes() == before


def test_paths_of_an_onnx_model_are_relative_to_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "made").mkdir()
    (tmp_path / "net: work.onnx").write_bytes(b"")
    np.savez(tmp_path / "d.npz", x=np.zeros(1))
    cli("init", "made/one.yaml", "--onnx", "net: work.onnx", "--data", "d.npz", cwd=tmp_path)
    config, _ = load_config(Path("made/one.yaml"))
    assert config.name == "one"
    assert (config.task.model, config.task.data) == (str(tmp_path / "net: work.onnx"), str(tmp_path / "d.npz"))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--task", "digtis"], ["digtis", "digits"]),
        (["--mine", "nofunction"], ["factory"]),
        (["--onnx", "nowhere.onnx", "--data", "d.npz"], ["nowhere.onnx", "does not exist"]),
        (["--task", "digits", "--mine", "a:b"], ["name one network"]),
        (["--models", "--task", "digits"], ["--models"]),
        (["--data", "d.npz"], ["d.npz"]),
    ],
)
def test_bad_input_writes_nothing(tmp_path, monkeypatch, words, parts):
    from typer.testing import CliRunner

    from evoquant.cli.commands import app
    from evoquant.errors import InputError

    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["init", *words])
    assert isinstance(done.exception, InputError)
    for part in parts:
        assert part in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_every_config_agrees_with_the_schema():
    check = validator()
    files = sorted(CONFIGS.glob("*.yaml"))
    assert len(files) > 15
    for file in files:
        assert not [error.message for error in check.iter_errors(yaml.safe_load(file.read_text()))], file.name


@pytest.mark.parametrize(
    "change",
    [
        {"populatoin": 3},
        {"search": {"kind": "genetic", "populatoin": 3}},
        {"search": {"kind": "gentic"}},
        {"search": {"kind": "nsga2", "elites": 3}},
        {"search": {"kind": "genetic", "population": 1}},
        {"search": {"kind": "genetic", "start": ["all_fp61"]}},
        {"objective": {"kind": "cliff", "threshold": 1.5}},
        {"genome": {"kind": "tree", "operators": ["addd"]}},
        {"genome": {"kind": "rule", "rungs": True}},
        {"stop": {"generations": "many"}},
        {"deploy_to": ["onxx"]},
        {"task": {"kind": "digtis"}},
        {"task": {"kind": "torch"}},
        {"trackers": [{"kind": "mlflow", "experimnt": "a"}]},
        {"seed": -1},
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(change):
    data = {"name": "a", **change}
    assert list(validator().iter_errors(data))
    with pytest.raises(ValueError, match="validation error"):
        CampaignConfig.model_validate(data)


def test_every_key_is_explained():
    schema = sweep_schema()  # a campaign's is in it
    parts = {"SweepConfig": schema, **schema["$defs"]}
    bare = [
        (name, key)
        for name, part in parts.items()
        for key in part.get("properties", {})
        if not WORDS.get(name, {}).get(key) and key not in WORDS[""]
    ]
    assert bare == []
    keys = {(name, key) for name, part in parts.items() for key in part.get("properties", {})}
    assert {(name, key) for name, words in WORDS.items() if name for key in words} <= keys  # of no key that is gone
    assert set(WORDS[""]) <= {key for _, key in keys}
    for part in parts.values():
        for value in part.get("properties", {}).values():
            assert value["description"]


def test_schema_goes_to_stdout_or_a_file(tmp_path):
    done = cli("schema", "-o", "s.json", cwd=tmp_path)
    assert json.loads((tmp_path / "s.json").read_text()) == config_schema()
    assert done.stdout == ""
    assert json.loads(cli("schema", cwd=tmp_path).stdout)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_starter_that_would_not_be_accepted_is_not_written(tmp_path, monkeypatch):
    from evoquant.campaign import starter as module

    monkeypatch.setattr(module, "NOMINAL", ["INT5x"])
    with pytest.raises(ConfigError, match="menu"):
        starter(tmp_path / "a.yaml")
