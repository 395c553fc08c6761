"""Page, plots and comparison of a run over three objectives with limits."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("plotly")
pytest.importorskip("matplotlib")

from evoquant import api
from evoquant.campaign.build import searched_profile
from evoquant.campaign.build_scoring import compiled, make_objective
from evoquant.genomes.load import genome_from_dict
from evoquant.report.ancestry import space_of
from evoquant.report.compare import compare
from evoquant.report.compare_tables import compare_tables
from evoquant.report.data import load_run
from evoquant.report.figures_front import front_figure
from evoquant.report.page import page_html
from evoquant.report.plots import run_figures
from evoquant.report.plots_archive import archive_figure
from evoquant.report.plots_style import picture, style
from evoquant.report.series import run_series
from evoquant.report.why import why_data
from evoquant.scoring.estimated import losses_of
from evoquant.scoring.objective import score
from evoquant.scoring.separable import all_cost_sums, retention_of

sys.path.insert(0, str(Path(__file__).parent.parent / "campaign"))
LIMITS = Path(__file__).parents[2] / "configs" / "limits.yaml"
CHANGES = [
    "stop.generations=6",
    "search.population=16",
    "search.floor=0",
    "search.objectives=[retention, bytes, latency]",
    'costs.latency={"kind": "own_parts:Nanoseconds"}',
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("limits")
    return [api.run(LIMITS, out=place / str(seed), overrides=[*CHANGES, f"seed={seed}"]).path for seed in range(2)]


def test_the_page_draws_projections_and_no_exact_front_and_says_what_is_left_of_limits(runs):
    run = load_run(runs[0])
    series = run_series(run)
    assert series.archive.axes == ("retention", "bytes (MB)", "latency (µs)") and series.front is None
    assert series.archive.pairs() == ((1, 0), (2, 0), (1, 2))
    text = page_html(run)
    assert "The front over all objectives" in text and "exact front" not in text
    data = json.loads(text.partition('id="archive-data"')[2].partition(">")[2].partition("</script>")[0])
    assert {trace["xaxis"] for trace in data["data"]} == {"x", "x2", "x3"}
    kept = all(row["margin"] >= 0 for row in run.champion.scores["train"]["limits"])
    assert ("All limits are kept" in text) == kept


def test_the_scatter_draws_the_limit_on_what_is_minimised_and_tells_who_keeps_all_of_them(runs):
    series = run_series(load_run(runs[0]))
    goal = series.goal
    assert goal.others == "bytes at most 26 MB, effective_bits at most 12 bits per weight"
    assert goal.amount.startswith("effective_bits at most 12") and goal.compression == pytest.approx(32 / 12, rel=1e-3)
    assert np.array_equal(series.points.feasible, series.points.fitness > 0)
    front = front_figure(series, {})
    said = json.dumps(front.plot)
    assert goal.amount in said and "floor at 95% retention" in said
    assert any(goal.others in text for text in (front.finding, *front.notes))
    with style():
        assert b"not within all limits" in picture(run_figures(series)["front"], "svg")


@pytest.mark.parametrize("population, floor", [(40, 0.9), (2100, 0.5)])
def test_with_several_models_the_points_of_one_keep_all_of_its_limits_or_do_not(tmp_path, population, floor):
    """The fitness is a mean over all models, and says nothing of one; of 2100 the journal lists the best alone."""
    changes = [
        "models.train=[seed/test, seed/train]",
        "genome={kind: rule}",
        f"search={{kind: genetic, population: {population}}}",
        "stop.generations=6",
        f"objective.retention={floor}",
        "objective.at_most={bytes: 40MB, effective_bits: 16}",
    ]
    run = load_run(api.run(LIMITS, out=tmp_path / "run", overrides=changes).path)
    points = run_series(run).points
    (problem,) = compiled(run.config, [searched_profile(run.config, "seed/test")])
    objective = make_objective(run.config, (problem,))
    space, kept = space_of(run), []
    for record in run.journal:
        if "genes" in record["population"]:
            allocations = space.allocate(np.array(record["population"]["genes"], dtype=np.float64), problem)
        else:
            genome = genome_from_dict(record["best"]["genome"], "journal")
            allocations = genome.allocate(problem)[None]
        retention = retention_of(losses_of(problem, allocations, None))[:, None]
        costs = all_cost_sums(problem, allocations)[:, None]
        kept.append(score(objective, (problem,), retention, costs).fitness > 0)
    assert np.array_equal(points.feasible, np.concatenate(kept))
    above = points.retention >= floor
    assert points.feasible.sum() > 0 and (points.feasible & ~above).sum() == 0
    assert population > 2000 or points.feasible.sum() < above.sum()  # else the floor alone would tell


def test_plots_have_the_projections_with_equal_bytes_for_equal_runs(runs):
    archive = run_series(load_run(runs[0])).archive
    with style():
        first, second = (picture(archive_figure(archive), "svg") for _ in range(2))
    assert first == second and "latency (µs)".encode() in first


def test_comparisons_say_which_limits_were_kept_and_why_knows_all_costs(runs):
    tables = {table.title: table for table in compare_tables(compare(runs))}
    limits = tables["Limits on train"]
    assert limits.columns == ("Group", "All kept", "retention", "bytes", "effective_bits")
    assert limits.rows[0][1].endswith("of 2")
    assert why_data(load_run(runs[0]))["swaps"]
