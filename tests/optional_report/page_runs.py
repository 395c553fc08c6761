"""Small real runs for the page's tests, and one whose names are hostile."""

import dataclasses
import json
import shutil
from pathlib import Path

from evoquant import api
from evoquant.profiles.model import profile_to_json
from evoquant.profiles.seed_suite import seed_profile

ROOT = Path(__file__).parents[2]
ATTACK = "</script><script>alert(1)</script>"
MARKUP = "<img src=x onerror=alert(1)>"
SMALL = ("stop.generations=5", "executor.kind=local", "finalists=4")


def small_run(folder, config="evolve", *overrides):
    """The run directory of a few generations of a shipped config."""
    return api.run(ROOT / f"configs/{config}.yaml", out=folder, overrides=[*SMALL, *overrides]).path


def unfinished(path, folder, lines=3):
    """A copy of a run that looks as it did after so many generations."""
    shutil.copytree(path, folder)
    for name in ("champion.json", "report.json", "checkpoint.json", "archive.json"):
        (folder / name).unlink(missing_ok=True)
    journal = folder / "journal.jsonl"
    journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:lines]))
    return folder


def hostile_run(folder):
    """A run on a profile whose model and layers have hostile names, in a folder and with operators of such names."""
    profile = seed_profile("test")
    layers = [
        dataclasses.replace(layer, name=f"{ATTACK}{i}$x^2$%{{y}}", tie_group=None)
        for i, layer in enumerate(profile.layers)
    ]
    profile = dataclasses.replace(profile, name=f"{ATTACK}{MARKUP}", layers=tuple(layers))
    folder.mkdir(parents=True)
    (folder / "hostile.json").write_text(profile_to_json(profile))
    config = folder / "hostile.yaml"
    config.write_text(
        "name: hostile\nmodels: {train: [hostile.json], valid: [], test: []}\ngenome: {kind: direct}\n"
        "search: {kind: genetic, population: 12}\n"
    )
    path = api.run(config, out=folder / MARKUP, overrides=SMALL).path
    journal = path / "journal.jsonl"
    records = [json.loads(line) for line in journal.read_text().splitlines()]
    for record in records:
        record["champion"]["operator"] = f"{ATTACK}{MARKUP}"
    journal.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path
