"""The JSON Schema of a campaign's YAML file, for editors and other programs.

Everything that can be said of a key by itself is in it. What several keys have to agree in (a task or models, not both)
is checked when the file is read.
"""

from __future__ import annotations

from typing import Any

from evoquant.campaign.config import CampaignConfig
from evoquant.campaign.config_sweep import OF_A_CAMPAIGN, SweepConfig
from evoquant.campaign.config_words import words_of
from evoquant.campaign.sweep_cells import NOT_VARIED
from evoquant.genomes.expression import ALL_SIGNALS, OPERATOR
from evoquant.genomes.strategies import STRATEGIES
from evoquant.models.base import SIGNALS
from evoquant.models.tasks import TASKS
from evoquant.profiles.targets import TARGETS

DRAFT = "https://json-schema.org/draft/2020-12/schema"
IDENTITY = "urn:evoquant:campaign:1"
SWEEP_IDENTITY = "urn:evoquant:sweep:1"
EDITOR_LINE = "# yaml-language-server: $schema={}"


def config_schema() -> dict[str, Any]:
    """The schema as plain data: every key with what it means, its default and its limits."""
    made = CampaignConfig.model_json_schema()
    _described("CampaignConfig", made)
    made["required"] = [key for key in made["required"] if key != "name"]  # by default the file's name
    if not made["required"]:
        del made["required"]
    _choices(made["$defs"], made["properties"])
    head = {
        "$schema": DRAFT,
        "$id": IDENTITY,
        "title": "A campaign of evoquant",
        "description": made.pop("description"),
    }
    return head | made


def sweep_schema() -> dict[str, Any]:
    """The same of a sweep's file: its base is a campaign, and what varies takes what the campaign's key takes."""
    made, campaign = SweepConfig.model_json_schema(), config_schema()
    for key in OF_A_CAMPAIGN:
        del made["$defs"]["SweepExecutorConfig"]["properties"][key]
    _described("SweepConfig", made)
    for key in ("$schema", "$id", "title"):
        del campaign[key]
    made["$defs"] = {**campaign.pop("$defs"), **made["$defs"], "CampaignConfig": campaign}
    whole = made["properties"]
    made["required"] = ["base"]
    whole["base"]["anyOf"][1] = {"$ref": "#/$defs/CampaignConfig"}
    varied = {key: value for key, value in campaign["properties"].items() if key not in NOT_VARIED}
    for block in (whole["over"], whole["include"]["items"]):
        block["properties"] = {
            key: {"anyOf": [{"type": "array", "minItems": 1, "items": value}, {"type": "string"}]}
            for key, value in varied.items()
        }
    head = {"$schema": DRAFT, "$id": SWEEP_IDENTITY, "title": "A sweep of evoquant"}
    return head | made


def _described(name: str, made: dict[str, Any]) -> None:
    """Every key with its words; no titles, which are the names of our classes."""
    for part_name, part in {name: made, **made["$defs"]}.items():
        part.pop("title", None)
        for key, value in part.get("properties", {}).items():
            value.pop("title", None)
            if words := words_of(part_name, key):
                value["description"] = words


def _choices(parts: dict[str, Any], whole: dict[str, Any]) -> None:
    """Names that are checked by code, as lists to choose from."""
    parts["ExampleTaskConfig"]["properties"]["kind"]["enum"] = list(TASKS)
    lists = (
        (whole["signals"], SIGNALS),
        (whole["deploy_to"], TARGETS),
        (parts["TreeSpaceConfig"]["properties"]["signals"], ALL_SIGNALS),
        (parts["TreeSpaceConfig"]["properties"]["operators"], OPERATOR),
    )
    for key, names in lists:
        of = next((form for form in key.get("anyOf", ()) if form.get("type") == "array"), key)
        of["items"]["enum"] = list(names)
    for part in parts.values():
        start = part.get("properties", {}).get("start")
        for form in [] if start is None else start["items"]["oneOf"]:
            if form.get("type") == "string":
                form["enum"] = list(STRATEGIES)
