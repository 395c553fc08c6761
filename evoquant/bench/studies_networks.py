"""The studies on real networks: training, splits and searches of their own for every seed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evoquant import api
from evoquant.bench import leave_one_out as leaving
from evoquant.bench import own_models as own
from evoquant.bench.runtimes import runtime_rows, runtime_settings, runtime_table
from evoquant.bench.settings import Settings, campaign_hash
from evoquant.bench.studies import Cell, Place, Row, Study, by_cell, in_order
from evoquant.errors import InputError
from evoquant.report.data import load_run
from evoquant.report.leave_one_out import leave_one_out_tables
from evoquant.report.measured import EVOLVED, measured_rows, measured_table
from evoquant.report.own_models import own_models_tables
from evoquant.report.table import markdown
from evoquant.report.verify import export_table, written_table

FASHION = ("fashion_cnn", "fashion_vit")
TASKS = (*FASHION, "char_lm", "tabular")
TORCH = ("torch", "sklearn")


def _head(title: str, script: str) -> str:
    return f"# {title}\n\nMade by `python {script}`.\n\n"


def _fashion(cell: Cell) -> bool:
    return cell[0] in FASHION


def _seeds(seed: str) -> tuple[str, str]:
    """Overrides: a training, a split and a search of its own."""
    return f"seed={seed}", f"task.seed={seed}"


def digits() -> Study:
    """Measured retention on a real network over five seeds, each a new training, a new split and a new search."""
    script = "experiments/04_digits.py"
    baselines = ("uniform_int8", "uniform_int4", "all_fp16", "wider_fp16_zone")

    def measure(cell: Cell, place: Place) -> list[Row]:
        out = place.work / f"digits-{cell[0]}"
        overrides = [*_seeds(cell[0]), f"cache={place.work}/cache", "executor.kind=local"]
        api.run(place.config("digits"), out=out, overrides=overrides)
        return measured_rows(load_run(out), baselines)

    def render(place: Place) -> dict[str, str]:
        rows = place.rows("digits")
        champions = "".join(f"- seed {row['seed']}: {row['text']}\n" for row in rows if row["name"] == EVOLVED)
        text = measured_table(rows).to_markdown() + "\nThe evolved champions:\n\n" + champions
        return {"digits.md": _head("Digits: measured retention", script) + text}

    cells = [(str(seed),) for seed in range(5)]
    part = by_cell("digits", lambda row: (str(row["seed"]),))
    return Study(
        "digits",
        script,
        cells,
        measure,
        render,
        part,
        in_order("digits"),
        lambda cell, row, place: campaign_hash(place.config("digits"), _seeds(cell[0])),
        60,
        3,
        trained=True,
        elsewhere=True,
        needs=TORCH,
    )


BUDGETS = {"direct": (400, 80, 25, 15), "rule": (80, 25, 15), "tree": (80, 25, 15)}
LATER = {"rule": (400,), "tree": (400,)}  # the longest, last
WAYS = (own.RIVALS, "random search", own.PLAIN)


def own_models() -> Study:
    """evoquant beside today's ways on four real networks, five seeds each."""
    script = "experiments/10_own_models.py"
    ours = [f"evoquant {genome}, {n} passes" for genome, budgets in BUDGETS.items() for n in budgets]
    later = [f"evoquant {genome}, {n} passes" for genome, budgets in LATER.items() for n in budgets]
    cells = [
        (task, str(seed), way)
        for ways in ((*WAYS, *ours), later)
        for task in TASKS
        for seed in range(5)
        for way in ways
    ]

    def measure(cell: Cell, place: Place) -> list[Row]:
        task, seed, way = cell
        return own.way_rows(own.Study(place.config(task), int(seed), place.work), way)

    def settings(cell: Cell, row: Row, place: Place) -> Settings:
        task, seed, way = cell
        return own.way_settings(own.Study(place.config(task), int(seed), place.work), way, row["name"])

    def cell_of(row: Row) -> Cell:
        name = row["name"].removesuffix(", best on calibration")
        return row["task"], str(row["seed"]), name if name in (*WAYS, *ours, *later) else WAYS[0]

    def render(place: Place) -> dict[str, str]:
        text = markdown(own_models_tables(place.rows("own_models")))
        return {"own_models.md": _head("A network of one's own", script) + text}

    return Study(
        "own_models",
        script,
        cells,
        measure,
        render,
        by_cell("own_models", cell_of),
        in_order("own_models"),
        settings,
        75,
        240,
        trained=True,
        needs=TORCH,
        fashion=_fashion,
    )


REFERENCES = {passes: f"evoquant direct, {passes} passes" for passes in (80, 400)}


def leave_one_out() -> Study:
    """Heuristics evolved on three tasks, applied to the fourth without measuring anything there.

    Takes the searches that experiments/10_own_models.py has left in runs/own_models. Measured again, where they are
    not there, the committed heuristics are judged anew on newly trained networks, and not evolved.
    """
    script = "experiments/11_leave_one_out.py"

    def source(cell: Cell, place: Place) -> leaving.Source:
        task, seed = cell
        runs = place.work if place.again else place.root / "runs/own_models"
        run = runs / f"{task}-{seed}/evoquant-direct-80-passes"
        return leaving.Source(place.config(task), int(seed), run, runs / f"cache-{task}-{seed}")

    def measure(cell: Cell, place: Place) -> list[Row]:
        task = cell[0]
        mine = source(cell, place)
        if place.again:
            return _judged_again(mine, part(cell, place))
        every = {(t, s): source((t, str(s)), place) for t in TASKS for s in range(5)}
        if not all((one.run / "champion.json").is_file() for one in every.values()):
            raise InputError("runs/own_models: lacks finished searches; run experiments/10_own_models.py first.")
        others = [every[other, s] for other in TASKS if other != task for s in range(5)]
        rows = leaving.leave_out([mine], others, place.work)
        runs = {name: mine.run.with_name(f"evoquant-direct-{n}-passes") for n, name in REFERENCES.items()}
        return [*rows, *(leaving.searched(mine, run, name) for name, run in runs.items())]

    def part(cell: Cell, place: Place) -> list[Row]:
        rows = by_cell("leave_one_out", lambda row: (row["task"], str(row["seed"])))(cell, place)
        return [row for row in rows if not (place.again and row["name"] in REFERENCES.values())]

    def settings(cell: Cell, row: Row, place: Place) -> Settings:
        task, seed = cell

        def searched(task: str, seed: int, way: str) -> str:
            return str(own.way_settings(own.Study(place.config(task), seed, place.work), way, way))

        if row["name"] in REFERENCES.values():
            return searched(task, int(seed), row["name"])
        others = [searched(other, s, REFERENCES[80]) for other in TASKS if other != task for s in range(5)]
        return leaving.judged_settings(source(cell, place), row["name"], others)

    def whole(found: Mapping[Cell, list[Row]], place: Place) -> dict[str, list[Row]]:
        rows = []
        for task in TASKS:
            mine = [row for cell, some in found.items() if cell[0] == task for row in some]
            rows += [row for row in mine if row["name"] not in REFERENCES.values()]
            rows += [row for name in REFERENCES.values() for row in mine if row["name"] == name]
        return {"leave_one_out": rows}

    def render(place: Place) -> dict[str, str]:
        tables = leave_one_out_tables(place.rows("leave_one_out"), list(REFERENCES.values()))
        return {"leave_one_out.md": _head("A heuristic on a task that it has not seen", script) + markdown(tables)}

    return Study(
        "leave_one_out",
        script,
        [(task, str(seed)) for task in TASKS for seed in range(5)],
        measure,
        render,
        part,
        whole,
        settings,
        60,
        20,
        trained=True,
        alone=True,
        needs=TORCH,
        fashion=_fashion,
    )


def _judged_again(source: leaving.Source, rows: list[Row]) -> list[Row]:
    """The committed heuristics of one task and seed, and what needs none, measured anew."""
    found = leaving.judge_genomes(source, {row["name"]: row["genome"] for row in rows if "genome" in row})
    kept = ("text", "genome", "train")  # of the evolution, which is not repeated
    return [
        {"task": source.config.stem, "seed": source.seed, **new, **{key: old[key] for key in kept if key in old}}
        for old, new in zip(rows, found, strict=True)
    ]


def onnx() -> Study:
    """PyTorch and ONNX Runtime side by side, 40 passes each; the same random allocations measured by both."""
    script = "experiments/12_onnx.py"

    def render(place: Place) -> dict[str, str]:
        text = runtime_table(place.rows("onnx")).to_markdown()
        return {"onnx.md": _head("The same network in two runtimes", script) + text}

    return Study(
        "onnx",
        script,
        [(task,) for task in ("tabular", "char_lm", "fashion_cnn", "fashion_vit")],
        lambda cell, place: runtime_rows(place.root / "configs", cell[0], place.work),
        render,
        by_cell("onnx", lambda row: (row["task"],)),
        in_order("onnx"),
        lambda cell, row, place: runtime_settings(place.config(cell[0]), row["runtime"]),
        60,
        4,
        trained=True,
        needs=(*TORCH, "onnx", "onnxruntime"),
        fashion=_fashion,
    )


GRAPHS = ("onnx", "onnx-matmulnbits", "openvino")
GROUPS = "menu=[INT4-g32, INT8-channel, FP16, FP32]"  # MatMulNBits takes groups
NARROW = "menu=[INT4-g32, INT8-g32, INT8-channel, FP16, FP32]"
# (task, first target) → overrides, targets; the runnable ones are verified, the others only written
EXPORTS: dict[Cell, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **{(task, GRAPHS[0]): ((GROUPS,), GRAPHS) for task in ("digits", "tabular", "char_lm", *FASHION)},
    ("llama", "onnx"): (
        (NARROW, "deploy_to=[onnx, openvino, compressed-tensors, gguf]"),
        (*GRAPHS, "compressed-tensors", "torchao", "gguf"),
    ),
    ("llama", "modelopt"): ((GROUPS, "deploy_to=[modelopt]"), ("modelopt",)),
    ("llama", "tensorrt"): (
        ("menu=[INT4-g64, INT8-channel, FP16, FP32]", "deploy_to=[tensorrt, coreml]"),
        ("tensorrt", "coreml"),
    ),
    ("llama", "executorch"): (
        ("menu=[INT4-channel, INT4-g32-a8, INT8-channel-a8, FP32]", "deploy_to=[executorch]"),
        ("executorch",),
    ),
}
CHANGES = (
    "signals=[fisher]",
    "genome={kind: direct}",
    "search={kind: surrogate}",
    "objective={kind: cliff}",
    "stop={passes: 15, generations: 1000}",
    "executor.kind=local",
)


def export() -> Study:
    """Champions of the example tasks on every stack that runs here.

    Each task is searched with 15 passes on a menu with groups; what its gate recommends is exported, loaded by the
    consumer in a fresh process, and compared with what was promised. The small Llama is searched four times, each time
    within what some stacks take (`deploy_to`). What cannot run here is written and counted. Latencies are one thread's.
    """
    script = "experiments/13_export.py"

    def render(place: Place) -> dict[str, str]:
        rows = place.rows("export")
        verified, written = ([row for row in rows if ("written" in row) is which] for which in (False, True))
        tables = [export_table(verified), written_table(written)]
        text = "\n".join(table.to_markdown() for table in tables if table.rows)
        return {"export.md": _head("What was promised, and what the stacks make of it", script) + text}

    def cell_of(row: Row) -> Cell:
        task, target = row["task"], row["target"]
        return next(cell for cell, (_, targets) in EXPORTS.items() if cell[0] == task and target in targets)

    def settings(cell: Cell, row: Row, place: Place) -> Settings:
        overrides, _ = EXPORTS[cell]
        return {"campaign": campaign_hash(place.config(cell[0]), (*CHANGES, *overrides)), "target": row["target"]}

    def whole(found: Mapping[Cell, list[Row]], place: Place) -> dict[str, list[Row]]:
        rows = [row for some in found.values() for row in some]
        return {"export": sorted(rows, key=lambda row: "written" in row)}

    return Study(
        "export",
        script,
        list(EXPORTS),
        _exported,
        render,
        by_cell("export", cell_of),
        whole,
        settings,
        70,
        10,
        loose=frozenset({"latency"}),
        why="latencies are of the machine and of what else it does",
        trained=True,
        needs=(*TORCH, "onnx", "onnxruntime", "openvino", "transformers", "compressed_tensors", "torchao", "gguf"),
        fashion=_fashion,
    )


def _exported(cell: Cell, place: Place) -> list[Row]:
    """Search, export, verify."""
    from evoquant.export.consumers.table import CONSUMERS

    task, first = cell
    overrides, targets = EXPORTS[cell]
    out = place.work / f"{task}-{first}"
    if (out / "resolved.json").is_file():
        api.resume(out)
    else:
        fixed = (*CHANGES, f"cache={place.work}/cache-{task}-{first}", *overrides)
        api.run(place.config(task), out=out, overrides=fixed)
    return [
        {"task": task, "target": target, **api.verify(out, target)}
        if target in CONSUMERS
        else _written(task, out, target, place.work / "written" / f"{task}-{target}")
        for target in targets
    ]


def _written(task: str, out: Path, target: str, folder: Path) -> Row:
    """Export a run for a target that cannot run here; what was written."""
    from evoquant.export.writers import SUFFIXES

    folder.mkdir(parents=True, exist_ok=True)
    files, findings = api.deploy(out, target, folder / f"model{SUFFIXES[target]}")
    return {
        "task": task,
        "target": target,
        "written": {path.name: path.stat().st_size for path in files},
        "warnings": [finding.message for finding in findings],
    }
