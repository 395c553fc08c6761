"""The studies on the frozen tables, of speed, and of reliability."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from evoquant.bench import study as tables
from evoquant.bench.settings import KEY, Settings, files_digest, settings_hash, stated
from evoquant.bench.speed import TOPICS, machine, measured
from evoquant.bench.studies import Cell, Place, Row, Study, by_cell, in_order
from evoquant.bench.table import NAMES
from evoquant.errors import CampaignError
from evoquant.report.performance import machine_note, performance_table
from evoquant.report.reliability import reliability_tables
from evoquant.report.scaling import scaling_tables
from evoquant.report.study import read_rows
from evoquant.report.tabular import tabular_table


def tabular() -> Study:
    """Searches on the frozen tables, 100 seeds each, beside the true optimum."""
    script, seeds = "experiments/09_tabular.py", range(100)
    head = f"""# Searches where the truth is known

Made by `python {script}`; the tables of the truth by `evoquant bench tabular --rebuild FOLDER`.
level_switch, genetic, nsga2 and tpe begin with the uniform allocations; the settings of all but the surrogate were
chosen for these tables, on other seeds.

"""

    def measure(cell: Cell, place: Place) -> list[Row]:
        table, search, seed = cell
        return [tables.row_of(tables.Job(table, search, int(seed)))]

    def settings(cell: Cell, row: Row, place: Place) -> Settings:
        table, search, seed = cell
        return tables.job_settings(tables.Job(table, search, int(seed)))

    def render(place: Place) -> dict[str, str]:
        rows = place.rows("tabular")
        return {"tabular.md": head + "\n".join(tabular_table(tables.facts(name), rows).to_markdown() for name in NAMES)}

    cells = [
        (table, search, str(seed))
        for table in NAMES
        for search, entry in tables.SEARCHES.items()
        for seed in (seeds if entry.seeded else seeds[:1])
    ]
    part = by_cell("tabular", lambda row: (row["table"], row["search"], str(row["seed"])))
    whole = in_order("tabular")
    return Study("tabular", script, cells, measure, render, part, whole, settings, 4, 32, needs=("optuna",))


SCALING = "scaling"
MACHINE = "machine"
OF_MACHINE = {"row": MACHINE}  # a row that says where the others were measured
# Of a row of speed, what says which figure it is; the rest was measured.
NAMED = {"what", "unit", "goal", "part", "workers", "batching", "item_s", "mode", "population", "generations"}
BENCH = Path(__file__).parent
# Spreads of one and the same figure between rounds reach 3 times where the machine is shared; a change of the code
# that matters is larger than this, or shows in an idle machine's full measurement.
FACTOR = 3.0


def performance() -> Study:
    """How fast it is on this machine, and how it scales."""
    script = "experiments/14_performance.py"
    head = f"""# Speed

Made by `python {script}`; `evoquant bench` and `evoquant bench scaling` print the same for your
machine.

"""

    def measure(cell: Cell, place: Place) -> list[Row]:
        if cell[0] == SCALING:
            from evoquant.bench.scaling import measure_scaling

            return [{"part": SCALING, "row": row} for row in measure_scaling()]
        return [{"part": topic, "row": one.to_row()} for topic, measures in measured([cell[0]]) for one in measures]

    def whole(found: Mapping[Cell, list[Row]], place: Place) -> dict[str, list[Row]]:
        rows = [row for some in found.values() for row in some]
        row = {"part": MACHINE, "row": machine()}
        return {"performance": [{**row, KEY: settings_hash("performance", OF_MACHINE)}, *rows]}

    def settings(cell: Cell, row: Row, place: Place) -> Settings:
        if row["part"] == MACHINE:
            return OF_MACHINE
        what = {key: value for key, value in row["row"].items() if key in NAMED}
        if row["part"] == SCALING:
            return {"part": SCALING, "row": what, "stated": stated(BENCH / "scaling.py", also=("simulation",))}
        module = BENCH / f"speed_{row['part']}.py"
        loops = {"loops": files_digest(BENCH / "data/rule_scalar.c")} if row["part"] == "rules" else {}
        return {"part": row["part"], "row": what, "stated": stated(module, also=("contest",)), **loops}

    def render(place: Place) -> dict[str, str]:
        parts: dict[str, list[Row]] = {part: [] for part in (MACHINE, *TOPICS, SCALING)}
        for row in place.rows("performance"):
            parts[row["part"]].append(row["row"])
        shown = [performance_table(topic, parts[topic]) for topic in TOPICS] + scaling_tables(parts[SCALING])
        text = "\n".join(table.to_markdown() for table in shown)
        return {"performance.md": f"{head}{machine_note(parts[MACHINE][0])}\n\n{text}"}

    names = ("median", "value", "seconds", "measured_s", "simulated_s", "efficiency", "speedup", "wall_s")
    return Study(
        "performance",
        script,
        [(topic,) for topic in (*TOPICS, SCALING)],
        measure,
        render,
        by_cell("performance", lambda row: (row["part"],)),
        whole,
        settings,
        80,
        10,
        costs={"cluster": 30, "start": 50, "scaling": 180},
        loose=frozenset({"values", "rates", "met", "remark", "losses", "why", "batches"}),
        within=dict.fromkeys(names, FACTOR),
        why=f"times: medians are held to within {FACTOR:g} times, for the machine may be shared",
        alone=True,
        native=True,
        kept=True,
        needs=("torch", "sklearn", "pymoo", "deap", "ray"),
    )


FUZZ = "fuzz"
FUZZED = ("profile", "rule", "tree", "direct", "champion", "config")
FUZZ_S = 300
FILES = {  # files of tests/faults with rows, without test_ → seconds that one takes
    "cluster": 700,
    "damage": 60,
    "disk": 600,
    "evaluations": 150,
    "hostile": 90,
    "input": 300,
    "input_absurd": 30,
    "input_networks": 120,
    "input_runs": 300,
    "kill": 600,
    "repeat": 1500,
    "soak": 600,
}


BY_CHANCE = frozenset(
    {
        *("seconds", "run_seconds", "resume_seconds", "peak_mb", "peak_MiB", "resume_peak_MiB", "growth_MiB"),
        *("memory_bytes_a_generation", "runs", "at_a_write", "at_a_time"),
    }
)


def _fuzzed(row: Row) -> Row:
    """A row as it is compared: how many inputs a fuzzer tries in five minutes is of the machine."""
    if _file(row) != FUZZ:
        return row
    return {"what": row["what"], "all": row["tried"] == row["held"], KEY: row[KEY]}


def _file(row: Row) -> str:
    return str(row["file"]).removeprefix("test_").removesuffix("_parsers")


def reliability() -> Study:
    """Faults tried as often as it takes to trust it."""
    script = "experiments/15_reliability.py"
    head = f"""# Reliability

Made by `python {script}`, which runs the long tests of tests/faults (`make test-long` runs them
alone) and fuzzes the parsers (`make fuzz`): whole campaigns in processes of their own, real faults, and the undisturbed
run's bytes to compare with. Rows are kept test file by test file, so they may be of several runs and commits.
"""

    def measure(cell: Cell, place: Place) -> list[Row]:
        name = cell[0]
        found = place.work / f"{name}.jsonl"
        place.work.mkdir(parents=True, exist_ok=True)
        found.write_text("", encoding="utf-8")
        pytest = ["-m", "pytest", "-q", "-m", "long", "--rows", str(found), f"tests/faults/test_{name}.py"]
        fuzz = [["tests/faults/fuzz_parsers.py", t, "--rows", str(found), f"-max_total_time={FUZZ_S}"] for t in FUZZED]
        for words in fuzz if name == FUZZ else [pytest]:
            done = subprocess.run([sys.executable, *words], cwd=place.root, check=False, stdout=sys.stderr)
            if done.returncode:
                raise CampaignError(f"python {' '.join(words)} ended with exit code {done.returncode}.")
        return read_rows(found)

    def whole(found: Mapping[Cell, list[Row]], place: Place) -> dict[str, list[Row]]:
        rows = sorted((row for some in found.values() for row in some), key=lambda row: str(row["file"]))
        row = {"file": MACHINE, **machine()}
        return {"reliability": [{**row, KEY: settings_hash("reliability", OF_MACHINE)}, *rows]}

    def settings(cell: Cell, row: Row, place: Place) -> Settings:
        if row["file"] == MACHINE:
            return OF_MACHINE
        found = {
            "file": row["file"],
            "what": row["what"],
            "stated": stated(place.root / f"tests/faults/{row['file']}.py"),
        }
        return found | ({"parsers": list(FUZZED), "seconds": FUZZ_S} if _file(row) == FUZZ else {})

    def render(place: Place) -> dict[str, str]:
        rows = place.rows("reliability")
        note = "\n\n".join(machine_note(row) for row in rows if row["file"] == MACHINE)
        shown = reliability_tables([row for row in rows if row["file"] != MACHINE])
        text = "\n".join(table.to_markdown() for table in shown)
        return {"reliability.md": f"{head}\n{note}\n\n{text}"}

    return Study(
        "reliability",
        script,
        [*((name,) for name in FILES), (FUZZ,)],
        measure,
        render,
        by_cell("reliability", lambda row: (_file(row),)),
        whole,
        settings,
        300,
        90,
        costs=FILES | {FUZZ: FUZZ_S * len(FUZZED)},
        loose=BY_CHANCE,
        seen=_fuzzed,
        why="what was tried and held must be equal; times, memory and where chance struck may differ",
        alone=True,
        native=True,
        kept=True,
        needs=("pytest", "torch", "ray"),
    )
