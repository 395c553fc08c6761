"""Other libraries' searches in a config: without the libraries themselves."""

import importlib.metadata

import pytest

from evoquant.campaign.build_search import built_in_search
from evoquant.campaign.config import config_from_dict
from evoquant.campaign.schema import config_schema
from evoquant.errors import ConfigError, InputError, MissingExtraError
from evoquant.scoring.objective import Cliff
from evoquant.search.outside_names import found_class
from evoquant.testing.examples import example_problem, example_spaces

PARTS = {"pymoo": "algorithm", "optuna": "sampler", "pyribs": "emitter"}
PACKAGES = {"pymoo": "pymoo", "optuna": "optuna", "pyribs": "ribs"}


def config(**search):
    return config_from_dict({"name": "test", "search": search}, "test.yaml")


@pytest.mark.parametrize("kind", PARTS)
def test_a_class_of_ones_own_counts_as_code(kind):
    assert config(kind=kind).code() == []
    assert config(kind=kind, **{PARTS[kind]: "mine.search:Own"}).code() == ["mine.search:Own"]


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("name", ["os.system", "a b", "mine:", "mine:f()", "../mine", ""])
def test_a_name_is_a_word_or_code(kind, name):
    with pytest.raises(ConfigError, match=rf"search\.{PARTS[kind]}|{PARTS[kind]}"):
        config(kind=kind, **{PARTS[kind]: name})


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("value", ["__import__('os').system('true')", ["x", {"y": "1; 2"}], {"a b": 1}, "é" * 65])
def test_no_option_can_be_an_expression(kind, value):
    with pytest.raises(ConfigError, match=r"search\.options.*is no plain word"):
        config(kind=kind, options={"key": value})


def test_plain_options_are_taken():
    options = {"variant": "DE/rand/1/bin", "pop_size": 20, "CR": 0.3, "list": [1, None, True], "es": "sep_cma_es"}
    assert config(kind="pymoo", options=options).search.options == options


@pytest.mark.parametrize("size", [0, 10_001, 1e9])
def test_no_generation_is_larger_than_memory(size):
    with pytest.raises(ConfigError, match=r"search\.options: pop_size lies between 1 and 10000"):
        config(kind="pymoo", options={"pop_size": size})


@pytest.mark.parametrize("kind", PARTS)
def test_a_library_that_is_not_there_is_named_with_its_extra(kind, monkeypatch):
    def version(name):
        if name == PACKAGES[kind]:
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    known = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", version)
    problem = example_problem()
    message = rf"search\.kind: {kind} needs {PACKAGES[kind]}, .* pip install 'evoquant\[{kind}\]'"
    with pytest.raises(MissingExtraError, match=message):
        built_in_search(config(kind=kind).search, example_spaces(problem)["rules"], 0, (problem,), Cliff())


def test_names_are_looked_up_in_a_table_alone():
    with pytest.raises(
        InputError, match=r"search\.key: nothing is called 'path', nor is it a class of your own as module:Class. "
    ):
        found_class("path", {"sep": "os"}, "key", "kind")
    with pytest.raises(MissingExtraError, match=r"needs no_such_package, .*evoquant\[kind\]"):
        found_class("sep", {"sep": "no_such_package"}, "key", "kind")


def test_the_schema_knows_them_with_words():
    parts = config_schema()["$defs"]
    for name in ("PymooConfig", "OptunaConfig", "PyribsConfig"):
        assert all(value.get("description") for value in parts[name]["properties"].values()), name
