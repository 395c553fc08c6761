"""Campaigns over trees: from the config to the exported champion, on the seed suite."""

import dataclasses
import json
from pathlib import Path

import pytest

from evoquant import api
from evoquant.campaign.apply import load_any_champion
from evoquant.campaign.build import make_space
from evoquant.campaign.config import config_from_dict, load_config
from evoquant.campaign.signals import TREE_SIGNALS
from evoquant.campaign.storage import CHAMPION, JOURNAL
from evoquant.errors import ConfigError, GenomeError, Interrupted, ProfileError
from evoquant.export import TARGETS, render
from evoquant.genomes.rule import LAYER_TYPES
from evoquant.genomes.tree import Tree, TreeSpace
from evoquant.profiles.model import ModelProfile
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.problem import compile_problem
from evoquant.testing.interrupt import StopAfter

CONFIG = Path(__file__).parents[2] / "configs" / "tree.yaml"
SMALL = ["executor.kind=local", "stop.generations=5", "search.population=20", "models.test=[]"]
PLAIN = seed_profile("train")
KNOWN = ModelProfile(
    "with fisher", tuple(dataclasses.replace(x, fisher=dict.fromkeys(SEED_MENU.names, 0.5)) for x in PLAIN.layers)
)
PROBLEM, WITH_FISHER = compile_problem(PLAIN, SEED_MENU), compile_problem(KNOWN, SEED_MENU)


def space_of(problems, **genome):
    return make_space(config_from_dict({"name": "x", "genome": {"kind": "tree", **genome}}, "x"), problems)


def test_signals_and_types_are_filled_in():
    space = space_of((WITH_FISHER,))
    assert isinstance(space, TreeSpace)
    assert space.signals == (*TREE_SIGNALS, "fisher")
    assert set(LAYER_TYPES) <= set(space.types)
    assert space_of((WITH_FISHER, PROBLEM)).signals == TREE_SIGNALS, "fisher only where every model has it"
    given = space_of((PROBLEM,), signals=["loss", "fisher"], types=["Conv"], max_nodes=9, max_depth=3)
    assert (given.signals, given.types, given.max_nodes, given.max_depth) == (("loss", "fisher"), ("Conv",), 9, 3)


def test_a_search_begins_with_trees_that_are_given(tmp_path):
    start = "[{kind: tree, expression: [add, loss, mul, 0.0062, size_share]}]"
    overrides = [*SMALL, "genome.signals=null", f"search.start={start}", "stop.generations=1"]
    run = api.run(CONFIG, out=tmp_path / "run", overrides=overrides)
    first = json.loads((run.path / JOURNAL).read_text().splitlines()[0])["population"]
    assert [name for name in first["operators"] if name == "start"] == ["start"]
    with pytest.raises(GenomeError, match=r"has no signal 'size_share'; add it to genome\.signals"):
        api.run(CONFIG, out=tmp_path / "refused", overrides=[*SMALL, f"search.start={start}"])


def test_faults_name_the_key_and_the_profile(tmp_path):
    with pytest.raises(ConfigError, match=r"genome.signals: trees have no signal 'los'. Did you mean 'loss'"):
        load_config(CONFIG, ["genome.signals=[los]"])
    with pytest.raises(ConfigError, match=r"genome.max_node: unknown key. Did you mean 'max_nodes'"):
        load_config(CONFIG, ["genome.max_node=3"])
    with pytest.raises(ConfigError, match=r"genome.types: no model has layers of type 'Liner'. Did you mean 'Linear'"):
        space_of((PROBLEM,), types=["Conv", "Liner"])
    with pytest.raises(ProfileError, match="'seed/train' has no fisher for INT2"):
        api.run(CONFIG, out=tmp_path / "run", overrides=[*SMALL, "genome.signals=[loss, fisher]"])


def test_interrupted_and_resumed_is_byte_identical_and_the_champion_travels(tmp_path):
    whole, out = tmp_path / "whole", tmp_path / "run"
    api.run(CONFIG, out=whole, overrides=SMALL)
    with pytest.raises(Interrupted):
        api.run(CONFIG, out=out, overrides=SMALL, observer=StopAfter(2))
    api.resume(out)
    for name in (JOURNAL, CHAMPION):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    champion = load_any_champion(out)
    assert isinstance(champion.genome, Tree)
    assert json.loads((out / CHAMPION).read_text())["text"] == champion.genome.text
    for target in TARGETS:
        assert render(target, champion, profile=PLAIN, menu=SEED_MENU)


def test_random_search_over_trees(tmp_path):
    text = CONFIG.read_text().split("search:")[0] + "search: {kind: random, population: 20}\nstop: {generations: 3}\n"
    config = tmp_path / "tree.yaml"
    config.write_text(text)
    outcome = api.run(config, out=tmp_path / "run", overrides=["executor.kind=local", "models.test=[]"])
    assert isinstance(load_any_champion(outcome.path).genome, Tree)
