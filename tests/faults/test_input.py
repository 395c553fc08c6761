"""Whatever a file holds, it is used or refused in one message: no traceback, no hang, nothing on disk changed."""

import json
import shutil

import numpy as np
import pytest
import yaml

from evoquant import api
from evoquant.api import campaigns
from evoquant.campaign.apply import load_any_champion
from evoquant.campaign.config import config_from_dict, load_config
from evoquant.files import pretty_json
from evoquant.genomes.load import genome_from_dict
from evoquant.profiles.model import load_profile, profile_to_json
from evoquant.quantization.precision import SEED_MENU
from evoquant.report.allocation import allocate
from evoquant.scoring.problem import compile_problem

from . import mutations
from .judging import (
    BYTES,
    CONFIG_TEXTS,
    PROFILE,
    RULE,
    VALUES,
    Tally,
    champions,
    input_folder,
    small_profile,
    state,
    structured,
    tried,
    tried_cli,
)

folder = pytest.fixture(input_folder)


# ---- configs --------------------------------------------------------------------------------------------------------


@pytest.fixture
def built(monkeypatch):
    """Campaigns are built and not run."""
    monkeypatch.setattr(campaigns, "run_loop", lambda campaign, *_: campaign.close())


def check_config(path, data, out):
    path.write_bytes(data)
    before = state(path.parent)

    def use():
        config, _ = load_config(path)
        again = config_from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False)), str(path))
        assert again.hash() == config.hash()
        if config.task is None:  # else a network would be trained
            api.run(path, out=out, overrides=["executor.kind=local"])
            shutil.rmtree(out)

    used = tried([str(path)], use)
    assert state(path.parent) == before
    assert not [name for name in state(out) if name != ".lock"]
    return used


@pytest.mark.parametrize("count", BYTES)
def test_configs_with_changed_bytes(folder, tmp_path, built, record, count):
    rng, tally = np.random.default_rng(1), Tally()
    for i in range(count):
        data = mutations.garbled(CONFIG_TEXTS[i % len(CONFIG_TEXTS)], rng, CONFIG_TEXTS)
        tally.add(check_config(folder / "c.yaml", data, tmp_path / "out"))
    record("input", "configs with changed bytes", tried=tally.tried, held=tally.tried, used=tally.used)


@pytest.mark.parametrize("count", VALUES)
def test_configs_with_changed_values(folder, tmp_path, built, record, count):
    all_used = all_tried = 0
    for i, text in enumerate(CONFIG_TEXTS):
        plain = yaml.safe_load(text)
        share = max(count // len(CONFIG_TEXTS), 4)
        tally = structured(
            plain, share, i, lambda case: check_config(folder / "c.yaml", mutations.as_yaml(case), tmp_path / "out")
        )
        all_tried, all_used = all_tried + tally.tried, all_used + tally.used
    record("input", "configs with changed values", tried=all_tried, held=all_tried, used=all_used)


# ---- profiles -------------------------------------------------------------------------------------------------------


def check_profile(path, data):
    path.write_bytes(data)
    rule = genome_from_dict(RULE, "rule")

    def use():
        profile = load_profile(path)
        again = profile_to_json(profile)
        path.write_bytes(again.encode())
        assert load_profile(path).digest == profile.digest
        pretty_json(allocate(rule, profile))

    return tried([str(path), "profile ", "applied to ", "layers ", "layer "], use)


@pytest.mark.parametrize("count", BYTES)
def test_profiles_with_changed_bytes(folder, record, count):
    rng, tally = np.random.default_rng(2), Tally()
    for i in range(count):
        data = mutations.garbled(PROFILE, rng)
        tally.add(check_profile(folder / "p.json", data))
        if i % 50 == 0:
            (folder / "p.json").write_bytes(data)
            tried_cli(["p.json", "profile ", "layer"], "apply", "wider_fp16_zone", folder / "p.json", "--json")
            tried_cli(["p.json", "profile ", "layer"], "bound", folder / "p.json", "--json")
    record("input", "profiles with changed bytes", tried=tally.tried, held=tally.tried, used=tally.used)


@pytest.mark.parametrize("count", VALUES)
def test_profiles_with_changed_values(folder, record, count):
    tally = structured(
        json.loads(PROFILE), count, 0, lambda case: check_profile(folder / "p.json", mutations.as_json(case))
    )
    record("input", "profiles with changed values", tried=tally.tried, held=tally.tried, used=tally.used)


# ---- champions ------------------------------------------------------------------------------------------------------


def check_champion(path, data):
    path.write_bytes(data)
    before = state(path.parent)
    problem = compile_problem(small_profile(), SEED_MENU)

    def use():
        champion = load_any_champion(path)
        pretty_json(allocate(champion.genome, small_profile()))
        assert champion.genome.allocate(problem).shape == (4,)
        json.loads(champion.to_json())
        for target in ("json", "yaml", "python", "rust", "csv"):
            render(target, champion)

    used = tried([str(path), "'small'", "signal", "menu", "rule ", "python", "rust", "export", "Rust"], use)
    assert state(path.parent) == before
    return used


def render(target, champion):
    from evoquant.export import TARGETS
    from evoquant.export import render as rendered

    rendered(target, champion, small_profile() if TARGETS[target].one_model else None).encode()


@pytest.mark.parametrize("count", BYTES)
def test_champions_with_changed_bytes(folder, record, count):
    rng, tally = np.random.default_rng(3), Tally()
    texts = [pretty_json(one).encode() for one in champions()]
    for i in range(count):
        data = mutations.garbled(texts[i % len(texts)], rng, texts)
        path = folder / ("c.json" if i % 7 else "c.yaml")
        tally.add(check_champion(path, data))
        if i % 50 == 0:
            tried_cli([path.name, "small"], "export", path, "--to", ("python", "rust")[i // 50 % 2])
        path.unlink()
    record("input", "champions with changed bytes", tried=tally.tried, held=tally.tried, used=tally.used)


@pytest.mark.parametrize("count", VALUES)
def test_champions_with_changed_values(folder, record, count):
    all_used = all_tried = 0
    for i, plain in enumerate(champions()):
        tally = structured(
            plain, count // 5, i, lambda case: check_champion(folder / "c.json", mutations.as_json(case))
        )
        all_tried, all_used = all_tried + tally.tried, all_used + tally.used
    record("input", "champions with changed values", tried=all_tried, held=all_tried, used=all_used)
