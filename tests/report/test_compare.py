import csv
import io
import itertools
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from evoquant import api
from evoquant.errors import InputError
from evoquant.report import compare_statistics as statistics
from evoquant.report.compare import TOO_FEW, UNDECIDED, compare
from evoquant.report.compare_notes import notes_of
from evoquant.report.compare_tables import compare_csv, compare_data, compare_tables, seeds_text

CONFIGS = Path(__file__).parents[2] / "configs"
SEEDS = range(6)
SMALL = ("executor.kind=local", "stop.generations=6")


def made(folder, name, config, seed, *overrides):
    out = folder / f"{name}-{seed}"
    api.run(CONFIGS / f"{config}.yaml", out=out, overrides=(*SMALL, f"seed={seed}", *overrides))
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        "random": [made(folder, "random", "random", seed, "search.population=16") for seed in SEEDS],
        "evolve": [made(folder, "evolve", "evolve", seed, "search.population=20") for seed in SEEDS],
    }


def champion(path):
    return json.loads((path / "champion.json").read_text())["scores"]


def steps(path):
    """(evaluations, best so far) of every generation, straight from the journal."""
    lines = map(json.loads, (path / "journal.jsonl").read_text().splitlines())
    return [(line["evaluations"]["asked"], line["champion"]["fitness"]) for line in lines if line["champion"]]


def best_at(path, spent):
    return max((fitness for asked, fitness in steps(path) if asked <= spent), default=None)


def unfinished(path, copy, generations=3):
    shutil.copytree(path, copy)
    for name in ("champion.json", "report.json", "checkpoint.json"):
        (copy / name).unlink(missing_ok=True)
    lines = (copy / "journal.jsonl").read_text().splitlines(keepends=True)
    (copy / "journal.jsonl").write_text("".join(lines[:generations]))
    return copy


# The statistics, against SciPy.


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13, 40])
def test_signed_ranks_are_scipys(n):
    differences = np.random.default_rng(n).normal(0.3, 1.0, n)
    assert statistics.signed_rank_p(differences) == (
        pytest.approx(stats.wilcoxon(differences, method="exact").pvalue, rel=1e-9),
        True,
    )


@pytest.mark.parametrize("seed", range(6))
def test_signed_ranks_are_exact_with_ties_and_zeros(seed):
    differences = np.random.default_rng(seed).integers(-2, 4, 9).astype(float)
    kept = differences[differences != 0]
    signs = np.array(list(itertools.product((-1, 1), repeat=len(kept))))
    ranks = stats.rankdata(abs(kept))
    sums, found = (signs > 0) @ ranks, ranks[kept > 0].sum()
    expected = min(1.0, 2 * min((sums <= found).mean(), (sums >= found).mean()))
    assert statistics.signed_rank_p(differences)[0] == pytest.approx(expected, rel=1e-12)
    permuted = stats.wilcoxon(kept, method=stats.PermutationMethod(n_resamples=2**10)).pvalue
    assert expected == pytest.approx(permuted, rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 5), (6, 6), (12, 9)])
def test_rank_sums_are_scipys(n, m):
    rng = np.random.default_rng(n)
    values, others = rng.normal(0.5, 1.0, n), rng.normal(0.0, 1.0, m)
    expected = stats.mannwhitneyu(values, others, method="exact").pvalue
    assert statistics.rank_sum_p(values, others)[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_rank_sums_are_exact_with_ties(seed):
    rng = np.random.default_rng(seed)
    values, others = rng.integers(0, 4, 5).astype(float), rng.integers(1, 5, 6).astype(float)
    expected = stats.mannwhitneyu(values, others, method=stats.PermutationMethod(n_resamples=10_000)).pvalue
    assert statistics.rank_sum_p(values, others)[0] == pytest.approx(expected, rel=1e-9)


def test_many_values_are_approximated_and_say_so():
    rng = np.random.default_rng(0)
    many, others = rng.normal(0.2, 1.0, 400), rng.normal(0.0, 1.0, 400)
    assert statistics.signed_rank_p(many - others) == (pytest.approx(stats.wilcoxon(many - others).pvalue), False)
    p, exact = statistics.rank_sum_p(many, others)
    assert (p, exact) == (pytest.approx(stats.mannwhitneyu(many, others, method="asymptotic").pvalue), False)
    assert statistics.rank_sum_p(np.ones(60), np.ones(60))[0] == 1.0


def test_intervals_are_order_statistics_of_the_level_that_they_say():
    ordered = np.arange(1.0, 13.0)
    contrast = statistics.paired_contrast(ordered, np.zeros(12))
    assert contrast.interval == (3.0, 10.0)  # Conover: the third smallest and largest of twelve
    assert contrast.level == pytest.approx(1 - 2 * stats.binom.cdf(2, 12, 0.5))
    five = statistics.paired_contrast(np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.zeros(5))
    assert (five.interval, five.level) == ((1.0, 5.0), 0.9375)
    assert statistics.paired_contrast(ordered[:4], np.zeros(4)).interval is None
    rng = np.random.default_rng(1)
    covered = []
    for _ in range(400):
        shifted = statistics.unpaired_contrast(rng.normal(1.0, 1.0, 6), rng.normal(0.0, 1.0, 7))
        covered.append(shifted.interval[0] <= 1.0 <= shifted.interval[1])
    assert shifted.level >= 0.95
    assert np.mean(covered) == pytest.approx(shifted.level, abs=0.04)


def test_holm_steps_down():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert statistics.holm([0.5, 0.9]) == [1.0, 1.0]
    assert statistics.holm([]) == []


def test_pairs_needed():
    assert statistics.smallest_paired(5) == 0.0625
    assert [statistics.pairs_needed(k) for k in (1, 8)] == [6, 9]
    assert stats.wilcoxon(np.arange(1.0, 7.0), method="exact").pvalue <= 0.05
    assert statistics.smallest_unpaired(3, 3) == pytest.approx(
        stats.mannwhitneyu([4, 5, 6], [1, 2, 3], method="exact").pvalue
    )


def test_superiority_is_over_all_pairs_with_ties_half():
    assert statistics.superiority(np.array([1.0, 2.0, 3.0]), np.array([2.0, 0.0])) == pytest.approx(4.5 / 6)


def test_rounding_of_sums_breaks_no_tie():
    values = np.array([0.1 + 0.2, 3.0, 1.1 * 3, 2.0, 5.0, 7.0])
    others = np.array([0.3, 3.0, 3.3, 1.9, 4.9, 6.9])
    assert (values != others)[[0, 2]].all(), "as floats they differ"
    contrast = statistics.paired_contrast(values, others)
    assert (contrast.wins, contrast.ties, contrast.losses) == (3, 3, 0)
    assert contrast.p == pytest.approx(stats.wilcoxon([1, 1, 1], method=stats.PermutationMethod()).pvalue)
    assert statistics.unpaired_contrast(values[:1], others[:1]).ties == 1
    assert statistics.superiority(values[:1], others[:1]) == 0.5


def test_turned_is_the_same_from_the_other_side():
    rng = np.random.default_rng(2)
    values, others = rng.normal(0.4, 1.0, 7), rng.normal(0.0, 1.0, 9)
    for one, other in (
        (statistics.unpaired_contrast(values, others), statistics.unpaired_contrast(others, values)),
        (statistics.paired_contrast(values, others[:7]), statistics.paired_contrast(others[:7], values)),
    ):
        turned = statistics.turned(one)
        for name in ("runs", "others", "wins", "ties", "losses", "difference", "interval", "superiority", "p"):
            assert getattr(turned, name) == pytest.approx(getattr(other, name)), name


def test_a_curve_is_a_step_function_that_ends_in_its_last_value():
    curve = statistics.Curve(np.array([10.0, 20.0, 40.0]), np.array([1.0, 2.0, 5.0]))
    values = curve.at(np.array([5.0, 10.0, 19.9, 20.0, 39.0, 40.0, 1000.0]))
    assert np.isnan(values[0]) and values[1:].tolist() == [1.0, 1.0, 2.0, 2.0, 5.0, 5.0]
    assert curve.mean(10.0, 50.0) == pytest.approx((10 * 1 + 20 * 2 + 10 * 5) / 40)
    assert curve.mean(15.0, 20.0) == pytest.approx(1.0)
    assert math.isnan(curve.mean(5.0, 50.0)) and math.isnan(curve.mean(20.0, 20.0))
    later = statistics.Curve(np.array([15.0, 30.0]), np.array([0.0, 9.0]))
    grid, quartiles = statistics.band([curve, later])
    assert grid.tolist() == [15.0, 20.0, 30.0, 40.0]
    assert quartiles[1].tolist() == [0.5, 1.0, 5.5, 7.0]


# Real runs.


def test_figures_are_those_of_the_run_directories(runs):
    data = compare_data(compare([*runs["random"], *runs["evolve"]]))
    assert [group["label"] for group in data["groups"]] == ["random", "evolve"]
    assert (data["unit"], data["split"], data["searched"]) == ("evaluations", "test", "train")
    for group in data["groups"]:
        paths = runs[group["label"]]
        assert [run["seed"] for run in group["runs"]] == list(SEEDS)
        for split in ("valid", "test"):
            values = [champion(path)[split]["fitness"] for path in paths]
            expected = np.quantile(values, [0.25, 0.5, 0.75])
            found = [group["champions"][split][key] for key in ("first_quartile", "median", "third_quartile")]
            assert found == pytest.approx(expected.tolist(), rel=1e-12)
        assert group["best_found"]["median"] == pytest.approx(np.median([steps(path)[-1][1] for path in paths]))
        assert group["spent"]["median"] == steps(paths[0])[-1][0]


def test_tests_are_recomputed_with_scipy(runs):
    found = {test["measure"]: test for test in compare_data(compare([*runs["random"], *runs["evolve"]]))["tests"]}
    assert set(found) == {"fitness", "anytime"}
    end = min(steps(path)[-1][0] for path in itertools.chain(*runs.values()))
    start = max(steps(path)[0][0] for path in itertools.chain(*runs.values()))

    def along(path):
        return np.mean([best_at(path, spent) for spent in range(start, end)])

    for measure, figure in (("fitness", lambda path: champion(path)["test"]["fitness"]), ("anytime", along)):
        mine, theirs = (np.array([figure(path) for path in runs[name]]) for name in ("evolve", "random"))
        differences = mine - theirs
        test = found[measure]
        assert test["test"] == "wilcoxon" and test["runs"] == len(SEEDS)
        near = 1e-9
        counts = [(differences > near).sum(), (abs(differences) <= near).sum(), (differences < -near).sum()]
        assert [test["wins"], test["ties"], test["losses"]] == counts
        assert test["difference"] == pytest.approx(np.median(differences), abs=1e-9)
        kept = differences[abs(differences) > near].round(9)
        method = stats.PermutationMethod(n_resamples=2**8)
        expected = stats.wilcoxon(kept, method=method).pvalue if len(kept) > 1 else 1.0
        assert test["p"] == pytest.approx(expected, rel=1e-9)
        above = [(a > b + near) + 0.5 * (abs(a - b) <= near) for a in mine for b in theirs]
        assert test["superiority"] == pytest.approx(np.mean(above))
        assert test["p_holm"] == test["p"], "one comparison needs no correction"


def test_the_best_so_far_is_told_at_equal_budgets(runs):
    found = compare_data(compare([*runs["random"], *runs["evolve"]]))["anytime"]
    end = min(steps(path)[-1][0] for path in itertools.chain(*runs.values()))
    assert found["budget"] == end
    assert [at["spent"] for at in found["at"]] == [math.floor(share * end) for share in (0.1, 0.25, 0.5, 1.0)]
    for at in found["at"]:
        for name, paths in runs.items():
            values = [best_at(path, at["spent"]) for path in paths]
            if None in values:
                assert name not in at["best"]
            else:
                assert at["best"][name]["median"] == pytest.approx(np.median(values), rel=1e-12)
    assert "evolve" not in found["at"][0]["best"], "a tenth of the budget is less than a generation"
    assert "evolve" in found["at"][-1]["best"]


def test_other_seeds_are_unpaired_and_it_says_so(runs):
    result = compare([*runs["random"][:3], *runs["evolve"][3:]], split="train")
    (test,) = [test for test in compare_data(result)["tests"] if test["measure"] == "fitness"]
    mine, theirs = ([steps(path)[-1][1] for path in part] for part in (runs["evolve"][3:], runs["random"][:3]))
    method = stats.PermutationMethod(n_resamples=1000)
    assert test["test"] == "mann_whitney"
    assert test["p"] == pytest.approx(stats.mannwhitneyu(mine, theirs, method=method).pvalue, rel=1e-9)
    assert test["difference"] == pytest.approx(np.median(np.subtract.outer(mine, theirs)), abs=1e-12)
    assert any("unpaired" in note for note in notes_of(result))


def test_seeds_that_one_group_lacks_are_left_out_of_the_pairs(runs):
    result = compare([*runs["random"], *runs["evolve"][:4]])
    assert [test["runs"] for test in compare_data(result)["tests"]] == [4, 4]
    assert "evolve and random are paired on the 4 seeds that both have." in notes_of(result)


def test_too_few_seeds_say_so(runs):
    five = compare([*runs["random"][:5], *runs["evolve"][:5]])
    assert {measure.verdict(contrast) for measure in five.measures for contrast in measure.met} == {TOO_FEW}
    text = " ".join(note for table in compare_tables(five) for note in table.notes)
    assert "0.0625" in text and "6 paired seeds could" in text
    six = compare([*runs["random"], *runs["evolve"]])
    assert TOO_FEW not in {measure.verdict(contrast) for measure in six.measures for contrast in measure.met}
    assert all(measure.verdict(contrast) == UNDECIDED for measure in six.measures for contrast in measure.met)


def test_a_difference_is_seen_where_there_is_one(runs, tmp_path):
    worse = [made(tmp_path, "few", "evolve", s, "search={kind: random, population: 2}", "name=few") for s in SEEDS]
    result = compare([*runs["evolve"], *worse], split="train")
    (test,) = [test for test in compare_data(result)["tests"] if test["measure"] == "fitness"]
    assert (test["wins"], test["ties"], test["losses"], test["verdict"]) == (0, 0, 6, "worse")
    assert test["p"] == pytest.approx(2 / 2**6)
    assert any("Budgets differ" in note for note in notes_of(result))


def test_an_unfinished_run_counts_as_far_as_it_is(runs, tmp_path):
    cut = unfinished(runs["evolve"][0], tmp_path / "evolve-0")
    result = compare([*runs["random"], cut, *runs["evolve"][1:]])
    data = compare_data(result)
    run = data["groups"][1]["runs"][0]
    assert (run["finished"], run["scores"], run["spent"]) == (False, {}, steps(cut)[2][0])
    assert data["groups"][1]["champions"]["test"]["runs"] == 5
    assert [test["runs"] for test in data["tests"]] == [5, 6], "its test is unknown, its way is not"
    assert data["anytime"]["budget"] == steps(cut)[2][0]
    (note,) = [note for note in data["notes"] if "not finished" in note]
    assert str(cut) in note and note.startswith("1 of 6 runs of evolve")


def test_unfinished_runs_alone_are_judged_by_their_search(runs, tmp_path):
    cut = [unfinished(runs["evolve"][seed], tmp_path / f"cut-{seed}") for seed in (0, 1)]
    result = compare([*cut, *runs["random"][:2]])
    assert result.split == "train"
    assert any("what the searches saw" in note for note in notes_of(result))
    assert len(compare_tables(compare(cut))) == 2, "one group has nothing to be tested against"


def test_hypervolume_where_all_have_one(tmp_path):
    paths = [made(tmp_path, "map", "map_elites", seed, "search.batch=30") for seed in (0, 1)]
    others = [made(tmp_path, "big", "map_elites", seed, "search.batch=60", "name=big") for seed in (0, 1)]
    (test,) = [t for t in compare_data(compare([*paths, *others]))["tests"] if t["measure"] == "hypervolume"]
    shares = [json.loads((path / "archive.json").read_text())["hypervolume"]["share"] for path in (*paths, *others)]
    assert test["difference"] == pytest.approx(np.median([shares[2] - shares[0], shares[3] - shares[1]]))


def test_another_aim_of_the_search_leaves_its_own_figures_out(runs, tmp_path):
    relative = made(tmp_path, "relative", "evolve", 0, "search.population=20", "relative_to_optimum=true")
    result = compare([runs["evolve"][0], relative])
    data = compare_data(result)
    assert "best_found" in data["groups"][0] and "best_found" not in data["groups"][1]
    assert [test["measure"] for test in data["tests"]] == ["fitness"]
    assert any("relative_to_optimum" in note for note in data["notes"])
    other = made(tmp_path, "relative", "evolve", 1, "search.population=20", "relative_to_optimum=true")
    both = compare([relative, other])
    assert both.figure == "share_of_optimum"
    share = champion(relative)["test"]["share_of_optimum"]
    assert compare_data(both)["groups"][0]["runs"][0]["scores"]["test"]["share_of_optimum"] == share


def test_groups_of_one_name_are_told_apart_by_what_differs(runs, tmp_path):
    other = made(tmp_path, "evolve", "evolve", 0, "search.population=24")
    assert [group.label for group in compare([*runs["evolve"], other]).groups] == [
        "evolve, population 20",
        "evolve, population 24",
    ]


def test_groups_of_ones_own(runs):
    result = compare([*runs["random"], *runs["evolve"]], by=["early=*-[012]", "late=*"])
    found = [(group.label, len(group.results), group.configs) for group in result.groups]
    assert found == [("early", 6, 2), ("late", 6, 2)]
    assert "early pools runs of 2 configs." in notes_of(result)
    mixed = compare([*runs["random"], *runs["evolve"][:2]], by=["mine=evolve-1"])
    seeds = [(group.label, seeds_text(group)) for group in mixed.groups]
    assert seeds == [("random", "0–5"), ("evolve", "0"), ("mine", "1")]


def test_csv_has_a_row_a_run(runs):
    rows = list(csv.DictReader(io.StringIO(compare_csv(compare([*runs["random"], *runs["evolve"]])))))
    assert len(rows) == 12
    for row, path in zip(rows, [*runs["random"], *runs["evolve"]], strict=True):
        assert row["run"] == str(path)
        assert float(row["test_fitness"]) == champion(path)["test"]["fitness"]
        assert float(row["best_found_train"]) == steps(path)[-1][1]


# What cannot be compared, in one message.


def changed(path, copy, **keys):
    """A copy whose config says something else, hash and all."""
    shutil.copytree(path, copy)
    resolved = json.loads((copy / "resolved.json").read_text())
    resolved["config"].update(keys)
    (copy / "resolved.json").write_text(json.dumps(resolved))
    return copy


def test_a_run_counts_once(runs, tmp_path):
    first = runs["evolve"][0]
    with pytest.raises(InputError, match="named twice"):
        compare([first, first.parent / "." / first.name])
    copy = shutil.copytree(first, tmp_path / "copy")
    with pytest.raises(InputError, match="the same run as"):
        compare([first, Path(copy)])
    assert len(compare([first, Path(copy)], by=["new=copy"]).groups) == 2
    assert len(compare([first, Path(copy)], anyway=True).results) == 2


def test_fitness_of_another_meaning_is_refused(runs, tmp_path):
    first = runs["evolve"][0]
    for number, (key, value) in enumerate(
        [
            ("objective", {"kind": "cliff", "threshold": 0.9}),
            ("aggregate", "min"),
            ("menu", ["INT8", "FP16", "FP32"]),
            ("models", {"train": ["seed/valid"], "valid": ["seed/valid"], "test": ["seed/test"]}),
        ]
    ):
        other = changed(first, tmp_path / str(number), **{key: value})
        with pytest.raises(InputError, match=f"{other}: {key}.* is .*, and .* in {first}: .*--anyway"):
            compare([first, other])
        notes = notes_of(compare([first, other], anyway=True))
        assert any(note.startswith("Compared anyway") and key in note for note in notes)
    unlike = changed(first, tmp_path / "profile")
    environment = json.loads((unlike / "environment.json").read_text())
    environment["inputs"]["seed/train"] = "0" * 64
    (unlike / "environment.json").write_text(json.dumps(environment))
    with pytest.raises(InputError, match="the profile 'seed/train' is"):
        compare([first, unlike], by=["unlike=profile"])


def test_a_split_that_one_lacks_is_no_reason_to_refuse(runs, tmp_path):
    models = "models={train: [seed/train], valid: [], test: []}"
    alone = made(tmp_path, "alone", "evolve", 0, "search.population=20", models)
    result = compare([runs["evolve"][0], alone])
    assert (result.split, result.splits) == ("train", ("valid", "test"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere",), "nowhere: no such run directory"),
        (("--by", "mine", "RUN"), "NAME=GLOB"),
        (("--by", "<b>=*", "RUN"), "NAME=GLOB"),
        (("--by", "mine=other-*", "RUN"), "matches none"),
        (("--split", "selection", "RUN"), "no scores on it; choose train, valid, test"),
        (("--json", "--csv", "RUN"), "--json and --csv"),
    ],
)
def test_bad_input_ends_in_one_message(runs, cli, words, message):
    words = [str(runs["evolve"][0]) if word == "RUN" else word for word in words]
    out, err, code = cli("compare", *words)
    assert code == 2 and out == ""
    assert err.startswith("evoquant: ") and message in err and "Traceback" not in err


def test_replays_and_empty_runs_have_nothing_to_compare(runs, tmp_path):
    journey = tmp_path / "journey"
    api.run(CONFIGS / "journey.yaml", out=journey, overrides=["executor.kind=local"])
    with pytest.raises(InputError, match="a replay searches nothing"):
        compare([journey])
    fallen = unfinished(runs["evolve"][0], tmp_path / "fallen")
    text = (fallen / "journal.jsonl").read_text()
    assert '"asked":36' in text
    for asked, message in (("1", "what is spent falls"), (f"1{'0' * 400}", "is no figure of a run")):
        (fallen / "journal.jsonl").write_text(text.replace('"asked":36', f'"asked":{asked}'))
        with pytest.raises(InputError, match=message):
            compare([fallen])
    empty = unfinished(runs["evolve"][0], tmp_path / "empty", 0)
    with pytest.raises(InputError, match=f"{empty}: no generation is finished yet.*evoquant resume"):
        compare([runs["random"][0], empty])
    (runs["evolve"][1] / "champion.json").rename(tmp_path / "kept")
    try:
        (runs["evolve"][1] / "champion.json").write_text('{"schema": 1}')
        with pytest.raises(InputError, match=r"champion\.json: not a champion file"):
            compare(runs["evolve"])
    finally:
        (tmp_path / "kept").rename(runs["evolve"][1] / "champion.json")


def test_the_command_line_prints_what_the_functions_give(runs, cli):
    paths = [*runs["random"], *runs["evolve"]]
    out, _, code = cli("compare", *paths, "--json")
    assert code == 0 and json.loads(out) == json.loads(json.dumps(compare_data(compare(paths)), allow_nan=False))
    out, _, code = cli("compare", *paths)
    assert code == 0 and "Against random: fitness on test" in out and "6 pairs" in out
    out, _, code = cli("compare", *paths, "--markdown", "--split", "train")
    assert code == 0 and out.startswith("### Fitness") and "best found on train" in out
    out, _, code = cli("compare", *paths, "--csv")
    assert out == compare_csv(compare(paths))


def test_names_of_directories_cannot_steer_a_terminal_or_a_page(runs, tmp_path, monkeypatch, cli):
    cut = unfinished(runs["evolve"][0], tmp_path / "\x1b[31m<b>=1")
    out, _, code = cli("compare", runs["random"][0], cut)
    assert code == 0 and "\x1b[31m" not in out and "\\x1b[31m" in out
    out, _, _ = cli("compare", runs["random"][0], cut, "--markdown")
    assert "\x1b" not in out and "\\<b>" in out
    monkeypatch.chdir(tmp_path)
    formula = shutil.copytree(runs["evolve"][1], tmp_path / "=1+1")
    rows = list(csv.DictReader(io.StringIO(compare_csv(compare([Path(formula.name)])))))
    assert rows[0]["run"] == "./=1+1"
