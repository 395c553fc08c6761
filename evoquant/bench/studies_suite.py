"""The studies on the seed suite and on families of models: no network is trained, every row repeats to the bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from evoquant import api
from evoquant.bench.settings import KEY, Settings, campaign_hash, objective_settings, profile_digest
from evoquant.bench.studies import PARTIAL, Cell, Place, Row, Study, by_cell, in_order
from evoquant.campaign.config import load_config
from evoquant.errors import InputError
from evoquant.genomes.strategies import STRATEGIES
from evoquant.profiles.seed_suite import DATA_SETS, seed_profile
from evoquant.quantization.precision import SEED_MENU
from evoquant.report import transfer
from evoquant.report.baselines import CLIFF, PUBLISHED, baseline_rows, baseline_table
from evoquant.report.data import RunData, load_run
from evoquant.report.study import hypervolume_row, hypervolume_table, study_row, study_table
from evoquant.report.table import Table, markdown
from evoquant.report.tables import run_tables

SUITE = ("seed/train", "seed/valid", "seed/test")
LEVEL = 3.2392 - 0.00005  # the train optimum, certified over all 5^131 allocations, to 4 decimals
REACHED = (
    "Reached: runs whose train fitness equals the certified train optimum 3.2392 when rounded to 4 decimals; the "
    "quartiles are candidates evaluated until then."
)


def _run(place: Place, config: str, cell: Cell, *overrides: str) -> RunData:
    out = place.work / "-".join(cell).replace("/", "-")
    api.run(place.config(config), out=out, overrides=[*overrides, "executor.kind=local"])
    return load_run(out)


Campaign = tuple[str, tuple[str, ...]]  # stem of a file in configs/, overrides


def _own_campaign(campaign_of: Callable[[Cell], Campaign]) -> Callable[[Cell, Row, Place], Settings]:
    """A `Study.settings` for cells that are one campaign each."""

    def settings(cell: Cell, row: Row, place: Place) -> Settings:
        config, changes = campaign_of(cell)
        return campaign_hash(place.config(config), changes)

    return settings


def _seeded(cell: Cell) -> Campaign:
    """Of a cell that ends with a config and a seed."""
    return cell[-2], (f"seed={cell[-1]}",)


def _head(title: str, script: str) -> str:
    return f"# {title}\n\nMade by `python {script}`.\n\n"


def journey() -> Study:
    """The published journey, replayed."""
    script = "experiments/01_journey.py"

    def measure(cell: Cell, place: Place) -> list[Row]:
        run = _run(place, "journey", cell)
        return [{**record, KEY: run.config_hash} for record in run.journal]

    def render(place: Place) -> dict[str, str]:
        config, _ = load_config(place.config("journey"))
        run = RunData(place.root, config, "", place.rows("journey"), None)
        return {"journey.md": _head("The published journey", script) + markdown(run_tables(run))}

    part = by_cell("journey", lambda row: ("journey",))
    settings = _own_campaign(lambda cell: ("journey", ()))
    return Study("journey", script, (("journey",),), measure, render, part, in_order("journey"), settings, 2, 0.1)


def baselines() -> Study:
    """Every strategy on every model of the seed suite."""
    script = "experiments/02_baselines.py"

    def render(place: Place) -> dict[str, str]:
        table = baseline_table(place.rows("baselines"))
        return {"baselines.md": _head("Strategies on the seed suite", script) + table.to_markdown()}

    def settings(cell: Cell, row: Row, place: Place) -> Settings:
        name, data, split = row["strategy"], row["data"], row["split"]
        return {
            "strategy": STRATEGIES[name].to_dict(),
            "profile": seed_profile(split, DATA_SETS[data]).digest,
            "menu": list(SEED_MENU.names),
            "objective": objective_settings(CLIFF),
            "published": PUBLISHED.get((name, data, split), {}),
        }

    return Study(
        "baselines",
        script,
        (("strategies",),),
        lambda cell, place: baseline_rows(),
        render,
        by_cell("baselines", lambda row: ("strategies",)),
        in_order("baselines"),
        settings,
        2,
        0.1,
    )


def free_evolution() -> Study:
    """Free evolution, rediscovery and random search over 20 seeds."""
    script, seeds, log = "experiments/03_free_evolution.py", range(20), ("log", "rediscover", "0")
    cells = [(name, str(seed)) for name in ("evolve", "rediscover", "random") for seed in seeds]
    notes = (
        REACHED,
        "Test fitness beside which to read it: the published champion 3.8273, uniform FP16 3.8843, certified optimum "
        "4.2731. Test was computed once for each champion and chose no champion; but the search's settings were chosen "
        "on runs whose test figures were in sight, so they are not blind.",
    )

    def measure(cell: Cell, place: Place) -> list[Row]:
        name, changes = _seeded(cell)
        run = _run(place, name, cell, *changes)
        if cell == log:
            return [{**_table_row(table), KEY: run.config_hash} for table in run_tables(run)]
        return [study_row(run, LEVEL)]

    def part(cell: Cell, place: Place) -> list[Row]:
        if cell == log:
            return place.rows("rediscovery")
        return by_cell("free_evolution", lambda row: (row["campaign"], str(row["seed"])))(cell, place)

    def whole(found: Mapping[Cell, list[Row]], place: Place) -> dict[str, list[Row]]:
        rows = [row for cell, mine in found.items() for row in mine if cell != log]
        return {"free_evolution": rows, "rediscovery": found[log]}

    def render(place: Place) -> dict[str, str]:
        table = study_table(f"{len(seeds)} seeds each", place.rows("free_evolution"), notes)
        tables = markdown([_table_of(row) for row in place.rows("rediscovery")])
        text = table.to_markdown() + "\n## The rediscovery of seed 0\n\n" + tables
        return {"free_evolution.md": _head("Free evolution and rediscovery", script) + text}

    settings = _own_campaign(_seeded)
    return Study("free_evolution", script, (*cells, log), measure, render, part, whole, settings, 4, 4)


def _table_row(table: Table) -> Row:
    return {
        "title": table.title,
        "columns": list(table.columns),
        "rows": [list(row) for row in table.rows],
        "notes": list(table.notes),
        "numeric": sorted(table.numeric),
    }


def _table_of(row: Row) -> Table:
    rows = [tuple(cells) for cells in row["rows"]]
    return Table(row["title"], tuple(row["columns"]), rows, tuple(row["notes"]), frozenset(row["numeric"]))


SPACES = {"rule": "transfer_rule", "tree": "transfer_tree", "direct": "level_switch"}  # genome space → config
CARRIED = tuple((name, str(seed)) for name in ("transfer_tree", "transfer_rule") for seed in range(20))
ALONE = tuple((name, str(seed)) for name in ("evolve", "tree") for seed in range(10))  # saw the train model alone


def gap() -> Study:
    """How far everything is from the certified optimum, and each genome space's ceiling.

    A ceiling is found by searching on the model itself; on TEST that is an oracle, which no honest search can consult.
    evolve and tree are trained on the train model alone; the transfer champions are those of results/transfer.jsonl.
    """
    script, named = "experiments/05_gap.py", ("named",)
    ceilings = [(space, model, str(seed)) for space in SPACES for model in SUITE for seed in range(2)]
    alone_rows = [{"campaign": name, "seed": int(seed)} for name, seed in ALONE]

    def strategies() -> dict[str, transfer.Allocator]:
        return transfer.strategies() | {transfer.GREEDY: transfer.baselines()[transfer.GREEDY]}

    def ceiling(cell: Cell) -> Campaign:
        space, model, seed = cell
        changes = (f"name=oracle_{space}", f"seed={seed}", f"models={{train: [{model}], valid: [], test: []}}")
        return SPACES[space], changes

    def measure(cell: Cell, place: Place) -> list[Row]:
        if cell == named:
            return transfer.share_rows(strategies() | transfer.champions_of(place.rows("transfer")), SUITE)
        if cell in ALONE:
            config, changes = _seeded(cell)
            champion = transfer.champion_row(_run(place, config, cell, *changes))
            return transfer.fitness_rows(transfer.champions_of([champion]), SUITE)
        config, changes = ceiling(cell)
        return [transfer.ceiling_row(_run(place, config, cell, *changes))]

    def settings(cell: Cell, row: Row, place: Place) -> Settings:
        if cell == named or cell in ALONE:
            return _shown(row["model"], strategies(), (*ALONE, *CARRIED), place)
        return _own_campaign(ceiling)(cell, row, place)

    def part(cell: Cell, place: Place) -> list[Row]:
        shares, found = _shares(place)
        if cell == named:
            labels = {" ".join(cell) for cell in ALONE}
            return [row | {"fitness": _only(row, row["fitness"].keys() - labels)} for row in shares]
        if cell in ALONE:
            return [_part(row, cell) for row in shares]
        key = (f"oracle_{cell[0]}", *cell[1:])
        return [row for row in found if (row["campaign"], row["model"], str(row["seed"])) == key]

    def whole(found: Mapping[Cell, list[Row]], place: Place) -> dict[str, list[Row]]:
        mine = [found[cell] for cell in ALONE]
        return {"gap": [*_merged(found[named], mine), *(row for cell in ceilings for row in found[cell])]}

    def render(place: Place) -> dict[str, str]:
        shares, found = _shares(place)
        groups = {name: [name] for name in strategies()}
        groups |= transfer.groups_of([*alone_rows, *place.rows("transfer")])
        table = transfer.gap_table("Fitness, and share of the certified optimum", shares, groups, found)
        return {"gap.md": _head("The gap to the certified optimum", script) + table.to_markdown()}

    return Study("gap", script, (named, *ALONE, *ceilings), measure, render, part, whole, settings, 15, 6)


def _shares(place: Place) -> tuple[list[Row], list[Row]]:
    """The rows of results/gap.jsonl: shares of the optimum, ceilings."""
    rows = place.rows("gap")
    return [row for row in rows if "fitness" in row], [row for row in rows if "ceiling" in row]


def _only(row: Row, labels: Any) -> dict[str, float]:
    return {label: value for label, value in row["fitness"].items() if label in labels}


def _part(row: Row, champion: Cell) -> Row:
    """What the cell of one champion measures of a model's row."""
    return {"model": row["model"], KEY: row[KEY], "fitness": _only(row, {" ".join(champion)})}


def _shown(model: str, named: Mapping[str, Any], champions: tuple[Cell, ...], place: Place) -> Settings:
    """The settings of a model's row: what stands in it, named heuristics and champions, whichever cell measured it."""
    genomes, campaign = transfer.stated(), _own_campaign(_seeded)
    return {
        "model": model,
        "profile": profile_digest(model),
        "menu": list(SEED_MENU.names),
        "objective": objective_settings(transfer.CLIFF),
        "named": {label: genomes.get(label) for label in named},
        "champions": {" ".join(cell): campaign(cell, {}, place) for cell in champions},
    }


def _merged(base: list[Row], others: list[list[Row]]) -> list[Row]:
    """Rows of models with the fitness of further heuristics, row by row.

    Raises:
        InputError: some cells were measured with other settings than others.
    """
    for i, row in enumerate(base):
        if {rows[i][KEY] for rows in others} - {row[KEY]}:
            raise InputError(
                f"results/{PARTIAL}: the parts of {row['model']} were measured with different settings; remove them "
                "and measure anew."
            )
    return [
        row | {"fitness": row["fitness"] | {k: v for rows in others for k, v in rows[i]["fitness"].items()}}
        for i, row in enumerate(base)
    ]


def searches() -> Study:
    """Every search over 20 seeds at one budget, on the suite's train model."""
    script, seeds, evaluations = "experiments/06_searches.py", range(20), 12_000
    names = ("evolve", "random", "cmaes", "map_elites", "islands", "tree", "nsga2", "level_switch")
    notes = (
        f"{REACHED} nsga2 and level_switch search one allocation of the train model (131 layers, 5^131 of them), from "
        "a random start; the others search heuristics.",
        "Test: computed once for each champion, which was chosen on valid; for the searches over heuristics only.",
    )

    def campaign(cell: Cell) -> Campaign:
        return cell[0], (f"seed={cell[1]}", f"stop={{generations: 100000, evaluations: {evaluations}}}")

    def measure(cell: Cell, place: Place) -> list[Row]:
        config, changes = campaign(cell)
        return [study_row(_run(place, config, cell, *changes), LEVEL)]

    def render(place: Place) -> dict[str, str]:
        table = study_table(f"{len(seeds)} seeds each, {evaluations} evaluations", place.rows("searches"), notes)
        return {"searches.md": _head("Searches side by side", script) + table.to_markdown()}

    cells = [(name, str(seed)) for name in names for seed in seeds]
    part = by_cell("searches", lambda row: (row["campaign"], str(row["seed"])))
    settings = _own_campaign(campaign)
    return Study("searches", script, cells, measure, render, part, in_order("searches"), settings, 5, 8)


UNSEEN = tuple(f"family/{kind}/{i}" for kind in ("mixture_of_experts", "unet") for i in range(25))


def carry() -> Study:
    """Heuristics that carry over, 20 seeds each.

    Trees and rules are evolved on random families and the train model and chosen on a kind of models that the search
    never saw. Their champions then meet 50 models of still other kinds, and TEST, once; results/test_log.jsonl lists
    every time.
    """
    script, seeds, plain = "experiments/07_transfer.py", range(20), ("baselines",)
    champions = CARRIED

    def measure(cell: Cell, place: Place) -> list[Row]:
        if cell == plain:
            return transfer.share_rows(transfer.baselines(), UNSEEN)
        config, changes = _seeded(cell)
        row = transfer.champion_row(_run(place, config, cell, *changes))
        return [row, *transfer.fitness_rows(transfer.champions_of([row]), UNSEEN)]

    def part(cell: Cell, place: Place) -> list[Row]:
        unseen = place.rows("unseen")
        if cell == plain:
            return [row | {"fitness": _only(row, transfer.baselines())} for row in unseen]
        mine = [row for row in place.rows("transfer") if (row["campaign"], str(row["seed"])) == cell]
        return mine + [_part(row, cell) for row in unseen]

    def settings(cell: Cell, row: Row, place: Place) -> Settings:
        if "model" in row:
            return _shown(row["model"], transfer.baselines(), champions, place)
        return _own_campaign(_seeded)(cell, row, place)

    def whole(found: Mapping[Cell, list[Row]], place: Place) -> dict[str, list[Row]]:
        rows = [found[cell][0] for cell in champions]
        looks = place.rows("test_log")
        look = transfer.test_log_row(rows, transfer.share_rows(transfer.champions_of(rows), SUITE))
        return {
            "transfer": rows,
            "unseen": _merged(found[plain], [found[cell][1:] for cell in champions]),
            "test_log": looks if looks[-1:] == [look] else [*looks, look],
        }

    def render(place: Place) -> dict[str, str]:
        rows, unseen = place.rows("transfer"), place.rows("unseen")
        suite = transfer.share_rows(transfer.champions_of(rows), SUITE)
        groups = {name: [name] for name in transfer.baselines()} | transfer.groups_of(rows)
        tables = [
            transfer.carry_table(f"{len(seeds)} seeds each: share of the certified optimum", rows, suite),
            transfer.spread_table(f"{len(UNSEEN)} models of kinds that no search saw", unseen, groups),
            transfer.champions_table("The champions", rows, suite),
        ]
        return {"transfer.md": _head("Heuristics that carry over", script) + markdown(tables)}

    return Study("transfer", script, (*champions, plain), measure, render, part, whole, settings, 45, 32)


def hypervolume() -> Study:
    """NSGA-II's Pareto front beside the exact one, on each suite model."""
    script, seeds = "experiments/08_hypervolume.py", range(3)

    def campaign(cell: Cell) -> Campaign:
        model, seed = cell
        return "nsga2", (f"seed={seed}", f"models={{train: [{model}], valid: [], test: []}}")

    def measure(cell: Cell, place: Place) -> list[Row]:
        config, changes = campaign(cell)
        return [hypervolume_row(_run(place, config, cell, *changes))]

    def render(place: Place) -> dict[str, str]:
        table = hypervolume_table(f"{len(seeds)} seeds each, 200,000 evaluations", place.rows("hypervolume"))
        return {"hypervolume.md": _head("NSGA-II beside the exact front", script) + table.to_markdown()}

    cells = [(model, str(seed)) for model in SUITE for seed in seeds]
    part = by_cell("hypervolume", lambda row: (row["model"], str(row["seed"])))
    settings = _own_campaign(campaign)
    return Study("hypervolume", script, cells, measure, render, part, in_order("hypervolume"), settings, 60, 5)
