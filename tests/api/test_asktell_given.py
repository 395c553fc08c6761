"""What `ask_tell` and `search_space` are given, saved files, and the lines of docs/asktell.md."""

import functools
import json
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import evoquant
from evoquant.api.ask_space import search_space
from evoquant.api.asktell import ask_tell
from evoquant.errors import InputError, SearchError
from evoquant.genomes.rule import LAYER_TYPES, RuleSpace
from evoquant.genomes.strategies import STRATEGIES
from evoquant.profiles.model import profile_from_dict, profile_to_json
from evoquant.profiles.seed_suite import seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.scoring.cost import bits_cost
from evoquant.scoring.objective import Cliff
from evoquant.search.random import RandomSearch
from evoquant.testing.searches import check_search

ROOT = Path(__file__).parents[2]
ME = "asktell_given_tests"
sys.modules[ME] = sys.modules[__name__]
SPACE = search_space("rule", "seed/test")
OWN_SPACE = RuleSpace(SEED_MENU, LAYER_TYPES, ("gradient_sensitivity",), 1)


class OwnSearch(RandomSearch):
    """As a researcher may bring it."""

    needs = ("retention",)


class OwnSpace(RuleSpace):
    """One that takes options."""

    def __init__(self, problems, rungs=1):
        super().__init__(problems[0].menu, LAYER_TYPES, ("gradient_sensitivity",), rungs)


class Calls:
    """A cost: as much for a layer as for its bits."""

    def __init__(self, call=0):
        self.call = call

    def __call__(self, profile, menu, members):
        made = bits_cost(profile, menu, members)
        return replace(made, name="calls", table=made.table + self.call, reference=made.reference + self.call)


def test_the_lines_of_the_documentation_run():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/asktell.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+\.0 .*INT8.*\n", done.stdout), done.stdout
    assert float(done.stdout.split()[0]) > 100 and done.stderr == ""


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("genetic", {"popultion": 8}, r"ask_tell\('genetic'\): search\.popultion: unknown key\. Did you mean 'popul"),
        ("genetic", {"population": 1}, r"search\.population: .*greater than or equal to 2 \(got 1\)"),
        ("genetic", {"population": 4, "elites": 4}, r"elites \(4\) must be fewer than population \(4\)"),
        ("genetic", {"start": ["hybird"]}, r"no strategy is called 'hybird'\. Did you mean 'hybrid'"),
        ("genetic", {"seed": -1}, r"seed: .*greater than or equal to 0 \(got -1\)"),
        ("islands", {"genetic": {"populaton": 4}}, r"search\.genetic\.populaton: unknown key"),
        ("genetc", {}, r"search\.kind: unknown kind 'genetc'\. Did you mean 'genetic'\?"),
        ("replay", {}, r"unknown kind 'replay'"),
        ("no_such_module:Search", {}, r"ask_tell\('no_such_module:Search'\): .*cannot be imported: No module named"),
        (f"{ME}:SPACE", {}, r"tests:SPACE is no class, so nothing can be made of it; name a class"),
        (
            f"{ME}:OwnSearch",
            {"popultion": 4},
            r"OwnSearch cannot be called as OwnSearch\(space, seed=seed, \*\*options\)",
        ),
        ("level_switch", {}, r"ask_tell\('level_switch'\): search\.kind: level_switch moves single units' widths"),
        ("genetic", {"objective": "clif"}, r"objective\.kind: unknown kind 'clif'\. Did you mean 'cliff'"),
        ("genetic", {"objective": {"kind": "feasible_first", "flor": 0.9}}, r"objective\.flor: unknown key"),
        ("genetic", {"objective": 3}, r"objective: 3 has no `score`"),
        (3, {}, r"3 is no search; give a kind \(genetic, random"),
        (RandomSearch(OWN_SPACE, seed=0, population=4), {"population": 3}, r"population: a search of your own has"),
        (RandomSearch(OWN_SPACE, seed=0, population=4), {"seed": 3}, r"seed: a search of your own has its options"),
        (OwnSearch, {"population": np.arange(2)}, r"ask_tell\('OwnSearch'\): options are plain data"),
    ],
)
def test_a_wrong_option_is_one_line(kind, options, message):
    with pytest.raises(InputError, match=message) as caught:
        ask_tell(kind, SPACE, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "profile", "options", "message"),
    [
        ("rul", "seed/test", {}, r"search_space\('rul'\): genome\.kind: unknown kind 'rul'\. Did you mean 'rule'"),
        ("rule", "seed/test", {"rung": 3}, r"genome\.rung: unknown key\. Did you mean 'rungs'"),
        ("rule", "seed/tst", {}, r"no built-in profile is called 'seed/tst'\. Did you mean 'seed/test'"),
        ("rule", (), {}, r"name a model: a built-in profile such as 'seed/train'"),
        ("rule", 3, {}, r"3 is no model; give a built-in name, a file or a profile"),
        ("rule", "seed/test", {"menu": ["INT5x"]}, r"menu: .*INT5x"),
        ("direct", ["seed/test", "seed/valid"], {}, r"a direct allocation is of one model, and there are 2"),
        (OWN_SPACE, (), {"rungs": 2}, r"rungs: a space of your own has its options already"),
        (
            f"{ME}:OwnSpace",
            "seed/test",
            {"rugs": 2},
            r"cannot be called as OwnSpace\(problems, \*\*options\): .*'rugs'",
        ),
        (f"{ME}:Space", "seed/test", {}, r"search_space\('asktell_given_tests:Space'\): .*has no attribute 'Space'"),
        ("rule", "seed/test", {"cost": 3}, r"search_space\('rule'\): cost\.kind: builtins\.int lacks __call__"),
        ("rule", "seed/test", {"cost": "bitz"}, r"search_space\('rule'\): cost\.kind: unknown kind 'bitz'"),
        (
            "rule",
            "seed/test",
            {"cost": {"kind": f"{ME}:Calls", "options": {"cal": 2}}},
            r"Calls\(\*\*options\): .*'cal'",
        ),
    ],
)
def test_a_wrong_space_is_one_line(kind, profile, options, message):
    with pytest.raises(InputError, match=message) as caught:
        search_space(kind, profile, **options)
    assert "\n" not in str(caught.value)


def test_a_space_and_a_search_of_ones_own_by_name_are_those_of_the_class():
    spaces = [search_space(given, "seed/test", rungs=2) for given in (f"{ME}:OwnSpace", OwnSpace)]
    spaces.append(search_space(OwnSpace(spaces[0].problems, 2), "seed/test"))
    searches = [
        ask_tell(given, space, seed=3, population=4)
        for space in spaces
        for given in (f"{ME}:OwnSearch", OwnSearch, RandomSearch)
    ]
    asked = [[genome.text for genome in search.ask()] for search in searches]
    assert all(one == asked[0] for one in asked)
    assert len(spaces[0].widths(searches[0].open[0])) == len(spaces[0].problems[0].layers)


def test_a_cost_of_ones_own_is_what_compression_is_of(tmp_path):
    """By name, as a class, as an object; a budget is in its unit, and a state of another cost is refused."""
    costly = 2**50
    given = (Calls(costly), {"kind": f"{ME}:Calls", "options": {"call": costly}})
    told = []
    for cost in (*given, f"{ME}:Calls", Calls, None, "bits"):
        search = ask_tell("genetic", search_space("rule", "seed/test", cost=cost), population=6)
        search.tell([{"retention": 1.0} for _ in search.ask()])
        told.append(search.best.fitness)
    assert told[0] == told[1] < told[2] == told[3] == told[4] == told[5]
    space = search_space("rule", "seed/test", cost=Calls(costly))
    search = ask_tell("genetic", space, population=6, objective={"kind": "budget", "cost": 10})
    search.tell([{"retention": 1.0} for _ in search.ask()])
    assert search.best.fitness < 0  # over the budget, whatever the widths
    search.save(tmp_path / "search.json")
    other = search_space("rule", "seed/test", cost=Calls(costly + 1))
    with pytest.raises(InputError, match="state of a search with another space"):
        ask_tell("genetic", other, population=6, objective={"kind": "budget", "cost": 10}).load(
            tmp_path / "search.json"
        )


def test_the_published_rules_start_a_search_by_name_and_as_they_are():
    named = ask_tell("genetic", SPACE, population=4, elites=1, start=["all_fp16"])
    given = ask_tell("genetic", SPACE, population=4, elites=1, start=[STRATEGIES["all_fp16"]])
    assert named.ask()[0] == given.ask()[0] == STRATEGIES["all_fp16"]


def test_a_network_without_losses_is_searched_by_what_its_profile_has(tmp_path):
    data = json.loads(profile_to_json(seed_profile("test")))
    for layer in data["layers"]:
        layer["fisher"] = layer.pop("loss")
    path = tmp_path / "network.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    for profile in (path, str(path), profile_from_dict(data)):
        rule, tree = search_space("rule", profile), search_space("tree", profile)
        assert "fisher:INT4" in rule.space.signals and not any("loss" in name for name in rule.space.signals)
        assert "fisher" in tree.space.signals and "loss" not in tree.space.signals
        search = ask_tell("surrogate", rule, rounds=1, population=4)
        search.tell([{"retention": 0.9}] * len(search.ask()))


def test_several_models_each_have_their_retention_and_widths():
    space = search_space("rule", ["seed/test", "seed/valid"])
    searches = [ask_tell("nsga2", space, population=3) for _ in range(2)]
    for search, value in zip(searches, ([0.9, 0.9], 0.9), strict=True):
        search.ask()
        search.tell([{"retention": value}, {"retention": [0.2, 0.4]}, None])
    assert searches[0].state() == searches[1].state()
    assert searches[0].best.told == {"retention": [0.9, 0.9]} or searches[0].best.told == {"retention": [0.2, 0.4]}
    genome = searches[0].best.genome
    assert len(space.widths(genome, 1)) == len(space.problems[1].layers)
    with pytest.raises(InputError, match="model 2: this space has 2 models"):
        space.widths(genome, 2)
    with pytest.raises(InputError, match="surrogate models one network's loss; there are 2 models"):
        ask_tell("surrogate", space)


def test_a_space_of_ones_own_needs_no_model():
    search = ask_tell("genetic", OWN_SPACE, population=4, elites=1)
    for _ in range(3):
        search.tell([-float(genome.parts) for genome in search.ask()])
    assert search.best.fitness == -search.best.genome.parts
    front = ask_tell("nsga2", OWN_SPACE, population=4, objective={"kind": "feasible_first", "floor": 0.4})
    front.ask()
    with pytest.raises(InputError, match=r'tell {"effective_bits": …} \(got retention\)'):
        front.tell([{"retention": 0.5}] * 4)
    front.tell([{"retention": 0.5, "compression": 2.0 + i} for i in range(4)])
    assert [one.to_dict() for one in front.archive()] == [front.best.genome.to_dict()]


@pytest.mark.parametrize("form", ["class", "partial", "object"])
def test_a_search_of_ones_own(form, tmp_path):
    def made():
        if form == "object":
            return ask_tell(OwnSearch(OWN_SPACE, seed=2, population=3), OWN_SPACE)
        kind = OwnSearch if form == "class" else functools.partial(OwnSearch)
        return ask_tell(kind, OWN_SPACE, seed=2, population=3)

    search = made()
    search.ask()
    if form != "partial":
        with pytest.raises(InputError, match=r'OwnSearch compares retention; tell {"retention": …} \(got fitness\)'):
            search.tell([1.0] * 3)
    search.tell([{"fitness": float(i), "retention": 0.5} for i in range(3)])
    asked = search.ask()
    search.save(tmp_path / "own.json")
    later = made().load(tmp_path / "own.json")
    assert later.open.genomes == asked.genomes and later.best.genome == search.best.genome
    if form == "object":
        with pytest.raises(SearchError, match="load into one that is fresh"):
            later.load(tmp_path / "own.json")


def test_a_search_that_does_not_ask_the_same_again_is_found_out(tmp_path):
    seeds = iter(range(9))
    made = [ask_tell(lambda space, seed: RandomSearch(space, seed=next(seeds), population=3), OWN_SPACE) for _ in "ab"]
    made[0].ask()
    made[0].save(tmp_path / "s.json")
    with pytest.raises(InputError, match="asks other candidates than were open when it was saved"):
        made[1].load(tmp_path / "s.json")


@dataclass(frozen=True)
class Mine(Cliff):
    """An objective of one's own."""

    weight: float = 1.0


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"population": 5},
        {"space": search_space("rule", "seed/test", rungs=1)},
        {"space": search_space("rule", "seed/valid")},
        {"space": search_space("rule", "seed/test", menu=["INT4", "FP16", "FP32"])},
        {"kind": "random"},
        {"objective": {"kind": "cliff", "threshold": 0.9}},
        {"objective": Mine()},
        {"objective": Mine(weight=2.0)},
    ],
)
def test_a_state_is_of_its_own_search_only(other, tmp_path):
    def made(kind="genetic", space=SPACE, **options):
        return ask_tell(kind, space, **({"population": 6} | options))

    path = tmp_path / "s.json"
    search = made()
    search.tell([1.0] * len(search.ask()))
    search.save(path)
    later = made(**other)
    before = later.state()
    with pytest.raises(InputError, match=r"s\.json: is the state of a search with another space, seed, ob"):
        later.load(path)
    assert later.state() == before


def test_damaged_files_are_refused_and_change_nothing(tmp_path):
    path = tmp_path / "s.json"
    search = ask_tell("genetic", SPACE, population=4, elites=1)
    search.ask()
    search.tell([1.0, 2.0, None, 3.0])
    search.save(path)
    whole = path.read_text(encoding="utf-8")
    before = search.state()
    for text, message in (
        ("", "not JSON"),
        (whole[: len(whole) // 2], "not JSON"),
        ("[]", "is no state of a search"),
        ("{}", "is no state of a search"),
        (whole.replace('"version":1', '"version":2'), "this evoquant reads version 1"),
        (whole.replace('"evaluations":4', '"evaluations":5'), "was changed or damaged"),
        (whole.replace('"evaluations"', '"evaluation"'), "was changed or damaged"),
        ('{"version": 1}', "was changed or damaged"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=message) as caught:
            search.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
        assert search.state() == before
    with pytest.raises(InputError, match="does not exist"):
        search.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    "change",
    [
        {"search": {}},
        {"search": []},
        {"search": None},
        {"evaluations": "many"},
        {"best": {}},
        {"best": []},
        {"open": 5},
    ],
)
def test_a_forged_state_with_a_fitting_sum_is_refused_too(change):
    from evoquant.api.ask_state import sha256

    search = ask_tell("genetic", SPACE, population=4, elites=1)
    search.ask()
    search.tell([1.0, 2.0, None, 3.0])
    before = search.state()
    body = {key: before[key] for key in ("evaluations", "search", "open", "best")} | change
    with pytest.raises(InputError, match=r"state: (is no state that this search can go on|the search asks other cand)"):
        search.restore({**before, **body, "sha256": sha256(body)})
    assert search.state() == before


def test_saving_is_whole_and_the_same_bytes(tmp_path):
    search = ask_tell("genetic", SPACE, population=4, elites=1)
    for name in ("a.json", "b.json"):
        search.save(tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.json", "b.json"]
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be written"):
        search.save(tmp_path / "file" / "s.json")


def test_evoquant_offers_it():
    search = evoquant.ask_tell("random", evoquant.search_space("rule", "seed/test"), population=2)
    assert len(search.ask()) == 2


def test_a_search_of_ones_own_can_be_checked():
    from evoquant.scoring.problem import compile_problem
    from evoquant.search.told import Judge

    problem = compile_problem(seed_profile("test"), SEED_MENU)
    judge = Judge("own", (), OWN_SPACE, (problem,), Cliff())

    def evaluate(batch):
        return judge.evaluations(batch, judge.read([{"retention": 0.5 + i / 100} for i in range(len(batch))]))

    check_search(lambda: OwnSearch(OWN_SPACE, seed=1, population=4), evaluate)
