import inspect
import pickle
import re
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from evoquant import errors
from evoquant.campaign.config import config_from_dict
from evoquant.errors import ConfigError, EvoquantError, InputError, MissingExtraError, describe_validation, suggestion

CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, Exception)]


def test_one_tree_with_one_root():
    assert all(issubclass(error, EvoquantError) for error in CLASSES)
    drawn = set(re.findall(r"\b[A-Z]\w*(?:Error|Interrupted)\b|\bInterrupted\b", errors.__doc__))
    assert drawn == {error.__name__ for error in CLASSES}


@pytest.mark.parametrize("error", CLASSES)
def test_exit_codes_follow_the_tree(error):
    expected = 2 if issubclass(error, InputError) else 130 if error is errors.Interrupted else 1
    assert error.exit_code == expected


def test_missing_extra_names_package_and_extra():
    message = str(MissingExtraError("The digits task", "PyTorch", "torch"))
    assert message == "The digits task needs PyTorch, which is not installed: pip install 'evoquant[torch]'"


@pytest.mark.parametrize("error", CLASSES)
def test_errors_come_back_from_worker_processes(error):
    made = error("a", "b", "c") if error is MissingExtraError else error("a")
    back = pickle.loads(pickle.dumps(made))
    assert type(back) is error and str(back) == str(made)


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("genetc", ["genetic", "random"], " Did you mean 'genetic'?"),
        ("zzz", ["random", "genetic"], " Known: genetic, random."),
        ("zzz", [], ""),
    ],
)
def test_suggestion(word, known, expected):
    assert suggestion(word, known) == expected


class Genetic(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["genetic"]
    population: Annotated[int, Field(ge=1)] = 1

    @field_validator("population")
    @classmethod
    def _even(cls, value):
        if value % 2:
            raise ValueError("must be even")
        return value


class Random(BaseModel):
    kind: Literal["random"]


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    search: Annotated[Genetic | Random, Field(discriminator="kind")]


def described(data):
    with pytest.raises(ValidationError) as fault:
        Config.model_validate(data)
    return describe_validation(fault.value, "c.yaml", ("name", "search", "kind", "population"))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"search": {"kind": "random"}}, "c.yaml: name: this key is required."),
        (
            {"name": "a", "search": {"kind": "genetik"}},
            "c.yaml: search.kind: unknown kind 'genetik'. Did you mean 'genetic'?",
        ),
        (
            {"name": "a", "search": {"kind": "genetic", "populaton": 2}},
            "c.yaml: search.populaton: unknown key. Did you mean 'population'?",
        ),
        (
            {"name": "a", "search": {"kind": "genetic", "population": 3}},
            "c.yaml: search.population: must be even (got 3).",
        ),
        (
            {"name": "a", "search": {"kind": "genetic", "population": 0}},
            "c.yaml: search.population: Input should be greater than or equal to 1 (got 0).",
        ),
    ],
)
def test_validation_faults_name_file_key_fault_and_remedy(data, expected):
    assert described(data) == expected


def test_every_fault_has_a_line_and_long_values_are_cut():
    lines = described({"nam": "a", "name": ["x" * 500], "search": {"kind": "random"}}).splitlines()
    assert len(lines) == 2
    assert all(line.startswith("c.yaml: nam") and len(line) < 160 for line in lines)


def test_faults_of_keys_together_and_of_costs_are_told_without_what_helps_nobody():
    with pytest.raises(ConfigError) as caught:
        config_from_dict({"name": "a", "objective": {"kind": "limits", "at_most": {"byte": 3}}}, "c.yaml")
    assert str(caught.value).startswith("c.yaml: objective.at_most: nothing is counted under the name 'byte'.")
    assert "got" not in str(caught.value)
    for costs, key in (
        ({"cost": {"kind": "bytes", "target": "onx"}}, "cost"),
        (
            {"costs": {"mine": {"kind": "bytes", "target": "onx"}}},
            "costs.mine",
        ),
    ):
        with pytest.raises(ConfigError, match=rf"c\.yaml: {key}\.target: unknown deployment target 'onx'"):
            config_from_dict({"name": "a", **costs}, "c.yaml")


def test_a_top_level_fault_has_a_place():
    assert described([1]).startswith("c.yaml: (top level): ")
