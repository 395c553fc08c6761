import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from evoquant import api
from evoquant.bench import ablation
from evoquant.bench.ablation import COMPONENTS, ablate, jobs_of, parts_of
from evoquant.campaign.config import load_config
from evoquant.errors import InputError, Interrupted
from evoquant.report.compare_runs import differing
from evoquant.report.compare_worth import worth_data, worth_tables

CONFIGS = Path(__file__).parents[2] / "configs"
EVOLVE = CONFIGS / "evolve.yaml"
SMALL = ("search.population=20", "stop.generations=5")
PARTS = {"no-crossover": "crossover", "no-ladder": "ladder"}
CHANGED = {  # where it is not the one key that the part's name says
    "search": "search",
    "surrogate": "search",
    "fisher": "signals",
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A whole ablation, run by worker processes."""
    folder = tmp_path_factory.mktemp("ablation")
    heard = []
    made = ablate(EVOLVE, seeds=3, overrides=SMALL, only=list(PARTS.values()), out=folder, say=heard.append)
    return folder, made, heard


def again(folder, **options):
    options = {"seeds": 3, "overrides": SMALL, "only": list(PARTS.values())} | options
    return ablate(EVOLVE, out=folder, **options)


def nothing_runs(monkeypatch):
    def fail(*arguments, **options):
        raise AssertionError("something was run")

    for name in ("run", "resume"):
        monkeypatch.setattr(api, name, fail)
    monkeypatch.setattr(ablation, "run_job", fail)


# What can be switched off.


def test_parts_depend_on_the_config():
    def parts(name):
        config, _ = load_config(CONFIGS / f"{name}.yaml")
        return set(parts_of(config, name))

    assert parts("evolve") == {
        *("search", "crossover", "mutation", "selection", "elites", "immigrants", "ladder", "finalists")
    }
    assert parts("tabular") == {"search", "surrogate", "fisher", "racing", "finalists"}
    assert parts("level_switch") == {"search", "steps", "switches", "moves"}
    assert {"migration", "elite-forms", "tuning", "parsimony", "relative"} <= parts("transfer_tree")
    assert {"start", "in-flight", "racing"} <= parts("steady")
    assert parts("random") == {"ladder", "finalists"}
    reached = set().union(*(parts(path.stem) for path in CONFIGS.glob("*.yaml") if path.stem != "journey"))
    assert reached == set(COMPONENTS), "every part is one of a shipped campaign"


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "journey"))
def test_a_part_switches_off_itself_and_nothing_else(name):
    path = CONFIGS / f"{name}.yaml"
    whole, _ = load_config(path)
    for part, component in parts_of(whole, name).items():
        without, _ = load_config(path, component.overrides(whole))
        keys = differing([whole, without])
        if part in CHANGED:
            assert {key.split(".")[0] for key in keys} == {CHANGED[part]}, part
        else:
            assert len(keys) == 1, (part, keys)
        assert not component.applies(without), f"{part} is still on"


def test_parts_are_listed(cli):
    out, _, code = cli("ablate", EVOLVE, "--list")
    assert code == 0 and "children of one parent" in out and "--set search.crossover_rate=0" in out
    out, _, code = cli("ablate", EVOLVE, "--list", "--json", "--only", "ladder,search")
    assert [row["part"] for row in json.loads(out)] == ["search", "ladder"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere.yaml",), "nowhere.yaml"),
        ((CONFIGS / "journey.yaml",), "a replay searches nothing"),
        ((EVOLVE, "--only", "crosover"), "Did you mean 'crossover'?"),
        ((EVOLVE, "--only", "racing"), "has no such part. It has: search, crossover"),
        ((EVOLVE, "--set", "search.population=many"), "search.population"),
        ((EVOLVE, "--json", "--csv"), "--json and --csv"),
        ((EVOLVE, "--list", "--csv"), "--csv"),
    ],
)
def test_bad_input_ends_in_one_message(monkeypatch, cli, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    out, err, code = cli("ablate", *words)
    assert code == 2 and out == ""
    assert err.startswith("evoquant: ") and message in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


# Real runs.


def test_all_runs_have_the_same_seeds_and_a_directory_each(done):
    folder, made, heard = done
    assert [group.label for group in made.groups] == ["whole", *PARTS]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{group}-{seed}" for group in ("whole", *PARTS) for seed in range(3)
    )
    assert heard[0] == f"9 runs of 3 seeds in {folder}; 0 are finished already"
    assert len(heard) == 10 and heard[-1].endswith("0 to go")
    config = json.loads((folder / "no-crossover-2" / "resolved.json").read_text())["config"]
    assert (config["seed"], config["search"]["crossover_rate"], config["name"]) == (2, 0, "no-crossover")


def test_worth_is_the_whole_less_what_is_left_without(done):
    folder, made, _ = done

    def test_fitness(group):
        paths = [folder / f"{group}-{seed}" / "champion.json" for seed in range(3)]
        return np.array([json.loads(path.read_text())["scores"]["test"]["fitness"] for path in paths])

    found = {row["part"]: row for row in worth_data(made, PARTS)["worth"] if row["measure"] == "fitness"}
    assert set(found) == set(PARTS.values())
    ps = []
    for group, part in PARTS.items():
        differences = test_fitness("whole") - test_fitness(group)
        assert found[part]["worth"] == pytest.approx(np.median(differences), abs=1e-10)
        kept = differences[differences != 0]
        ps.append(stats.wilcoxon(kept, method=stats.PermutationMethod()).pvalue if len(kept) > 1 else 1.0)
        assert found[part]["verdict"] == "too few seeds", "three pairs cannot say anything"
    for part, p in zip(PARTS.values(), ps, strict=True):
        assert min(1.0, 2 * min(ps)) <= found[part]["p_holm"] + 1e-12 and found[part]["p_holm"] >= p - 1e-12
    table = worth_tables(made, PARTS)[2]
    assert {row[0] for row in table.rows} == set(PARTS.values())
    assert "a whole run beats one without the part" in table.notes[0]


def test_a_restart_runs_nothing_again(done, monkeypatch):
    folder, made, _ = done
    nothing_runs(monkeypatch)
    assert worth_data(again(folder), PARTS) == worth_data(made, PARTS)


def test_what_was_interrupted_goes_on_and_the_rest_is_kept(done, tmp_path, monkeypatch):
    folder = shutil.copytree(done[0], tmp_path / "copy")
    cut = folder / "no-ladder-1"
    whole = (cut / "journal.jsonl").read_bytes()
    (cut / "journal.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:2]))
    for name in ("champion.json", "report.json", "checkpoint.json"):
        (cut / name).unlink()
    ran = []

    def one_process(jobs, heard):
        for job in jobs:
            if not ablation.is_done(job):
                ran.append(job.out.name)
                ablation.run_job(job)

    monkeypatch.setattr(ablation, "run_jobs", one_process)
    assert worth_data(again(folder), PARTS)["worth"] == worth_data(done[1], PARTS)["worth"]
    assert ran == ["no-ladder-1"] and (cut / "journal.jsonl").read_bytes() == whole
    ran.clear()
    again(folder, seeds=4)
    assert ran == ["whole-3", "no-crossover-3", "no-ladder-3"], "more seeds add runs"
    ran.clear()
    again(folder, seeds=1, only=["ladder", "immigrants"])
    assert ran == ["no-immigrants-0"]


def test_ctrl_c_ends_the_workers_and_says_how_to_go_on(tmp_path, monkeypatch):
    before = multiprocessing.active_children()

    def stop(text):
        if "done" in text:
            raise KeyboardInterrupt

    long = ("search.population=20", "stop.generations=20000")  # hours, which nobody waits for
    jobs = [api.Job(EVOLVE, tmp_path / "out" / f"whole-{seed}", (*long, f"seed={seed}")) for seed in (1, 2)]
    quick = api.Job(EVOLVE, tmp_path / "out" / "quick", SMALL)
    with pytest.raises(KeyboardInterrupt):
        ablation.run_jobs([quick, *jobs], lambda job, left: stop("done"))
    assert multiprocessing.active_children() == before
    assert not any(map(ablation.is_done, jobs))
    monkeypatch.setattr(ablation, "run_jobs", lambda jobs, heard: stop("done"))
    with pytest.raises(Interrupted, match="the same command goes on"):
        again(tmp_path / "other")


def test_another_config_in_the_folder_is_refused_before_anything_runs(done, monkeypatch):
    nothing_runs(monkeypatch)
    with pytest.raises(InputError, match="whole-0: holds a run of another config"):
        again(done[0], overrides=("search.population=24", "stop.generations=5"))


def test_seeds_begin_with_the_configs(tmp_path):
    jobs = jobs_of(EVOLVE, ["elites"], 2, ["seed=7"], tmp_path)
    assert [job.out.name for job in jobs["no-elites"]] == ["no-elites-7", "no-elites-8"]
    assert [load_config(job.config, job.overrides)[0].seed for job in jobs["whole"]] == [7, 8]


def test_the_command_line_prints_the_worth(done, cli):
    folder, made, _ = done
    words = ("ablate", EVOLVE, "--seeds", "3", "--only", "crossover,ladder", "--out", folder)
    words += tuple(word for change in SMALL for word in ("--set", change))
    out, err, code = cli(*words)
    assert code == 0 and "What each part is worth: fitness on test" in out
    assert "3 seeds can show no part's worth at 95% (2 tests); 7 could: --seeds 7" in err
    out, _, _ = cli(*words, "--json")
    assert json.loads(out) == json.loads(json.dumps(worth_data(made, PARTS), allow_nan=False))
    out, _, _ = cli(*words, "--csv")
    assert len(out.splitlines()) == 10
