"""What `optimize` returns: champion, allocation, scores and gate, and what can be done with them."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.campaign.finished import gated
from evoquant.campaign.in_memory import lent
from evoquant.errors import InputError
from evoquant.files import is_folder, write_atomic
from evoquant.report.data import load_run
from evoquant.report.table import Table
from evoquant.scoring.problem import compile_problem

if TYPE_CHECKING:
    import torch

    from evoquant.campaign.champion import Champion
    from evoquant.campaign.config_measured import MemoryTaskConfig
    from evoquant.export.lint import Finding
    from evoquant.models.base import MeasuredTask
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu

UNSAVED = (".lock", "cache")


class Temporary:
    """A folder that lasts as long as this object, or the process; unlike Python's own it goes without a warning."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="evoquant-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


@dataclass(frozen=True, eq=False)
class Allocation(Mapping[str, str]):
    """Layer → width, in order of execution; printed it is a table, in a notebook one in HTML.

    Attributes:
        title: what the table is called.
        rows: of each layer its name, type, parameters, width and effective bits per weight.
        totals: what is said below them.
    """

    title: str
    rows: tuple[tuple[str, str, int, str, float], ...]
    totals: tuple[str, ...] = ()

    def __getitem__(self, layer: str) -> str:
        """The width of a layer.

        Raises:
            KeyError: no such layer.
        """
        for name, _, _, width, _ in self.rows:
            if name == layer:
                return width
        raise KeyError(layer)

    def __iter__(self) -> Iterator[str]:
        """Names of the layers."""
        return iter(row[0] for row in self.rows)

    def __len__(self) -> int:
        """How many layers take a width."""
        return len(self.rows)

    def table(self) -> Table:
        """As plain data, for any of the reports."""
        cells = [(name, kind, f"{count:,}", width, f"{bits:.3f}") for name, kind, count, width, bits in self.rows]
        columns = ("Layer", "Type", "Parameters", "Width", "Bits/weight")
        return Table(self.title, columns, cells, self.totals, frozenset({2, 4}))

    def __str__(self) -> str:
        """The table for a terminal, as wide as that is."""
        return _drawn([self.table()])

    def _repr_html_(self) -> str:
        from evoquant.report.page_html import table_html

        return str(table_html(self.table()))


@dataclass(frozen=True, eq=False)
class Result:
    """A finished run on a model in memory. Its run directory is one that the command line reports and compares.

    Attributes:
        path: the run directory; one that was not asked for (`run_dir=None`) lasts as long as this object.
        champion: the best genome that the search found, whatever the gate says of it.
        recommended: what the gate recommends, the champion or something simpler; what `allocation`, `scores`, `apply`
            and `export` are about.
        gate: the comparison with simpler ways, as in gate.json.
        allocation: layer → width.
        profile: of the model.
        samples: how many each split has.
        drawn: the splits that were drawn from the calibration data because they were not given.
    """

    path: Path
    champion: Champion
    recommended: Champion
    gate: Mapping[str, Any]
    allocation: Allocation
    profile: ModelProfile
    samples: Mapping[str, int]
    drawn: tuple[str, ...]
    _task: MeasuredTask = field(repr=False)
    _source: MemoryTaskConfig = field(repr=False)
    _menu: Menu = field(repr=False)
    _kept: Temporary | None = field(default=None, repr=False)

    @property
    def scores(self) -> Mapping[str, Mapping[str, Any]]:
        """Split → `retention` with its `interval`, `compression`, `effective_bits`, … of what is recommended."""
        return self.recommended.scores

    @property
    def verdict(self) -> str:
        """One sentence: what is recommended, and why."""
        name = self.gate["recommended"]["name"]
        if name == "champion":
            beaten = sum(row.get("verdict") == "ahead" for row in self.gate["rivals"])
            return f"recommended: the champion; it beats {beaten} of {len(self.gate['rivals'])} rivals of the gate"
        return f"recommended: {name}, which the champion cannot be told from, or does not beat"

    def apply(self, model: torch.nn.Module | None = None, *, ungated: bool = False) -> torch.nn.Module:
        """A copy of the model with every layer at its width, by fake quantization: bit for bit what was measured.

        Args:
            model: the module that was optimized, or one with the same layers; None for a copy of the former. It stays
                as it is; the copy is float32, in eval mode, on the CPU.
            ungated: take the champion, whatever the gate recommends.

        Raises:
            InputError: the model is an ONNX file, or has other layers; the message names one.
            PrecisionError: a weight that its width cannot hold.
        """
        from evoquant.models.torch_task import TorchTask

        if not isinstance(self._task, TorchTask):
            raise InputError("apply: the model is an ONNX file; write the quantized one with .export('onnx', path).")
        from evoquant.models.torch_memory import applied

        chosen = self.champion if ungated else self.recommended
        problem = compile_problem(self.profile, self._menu)
        widths = problem.unfold(chosen.genome.allocate(problem))
        return applied(self._task.network if model is None else model, self._task, widths)

    def export(
        self, target: str, path: str | Path, *, ungated: bool = False, base: str | Path | None = None
    ) -> tuple[list[Path], list[Finding]]:
        """Write what is recommended in the form that a stack loads: the files, and the linter's warnings.

        Args:
            target: onnx, openvino, recipe, …, as for `evoquant export --to`.
            path: the main file, or the folder.
            ungated: take the champion, whatever the gate recommends.
            base: for gguf, see `evoquant.export.deploy.deploy`.

        Raises:
            InputError: the target cannot take it as it is, or a file cannot be written.
            MissingExtraError: the target's packages are not installed.
        """
        from evoquant.export.deploy import deploy

        with lent(self._source, self._task):
            return deploy(self.path, target, path, ungated=ungated, base=base)

    def verify(self, target: str, *, ungated: bool = False) -> dict[str, Any]:
        """Export, run the file in a fresh process of its consumer, and compare with what was promised.

        Raises:
            InputError: as `export`; or a fresh process cannot make the network.
        """
        from evoquant.export.deploy import verify

        with lent(self._source, self._task):
            return verify(self.path, target, ungated=ungated)

    def plot(self, path: str | Path | None = None, *, kind: str = "png") -> Plots:
        """The run's figures by name, drawn with matplotlib; a notebook shows them.

        Args:
            path: a folder to write them to, too.
            kind: of the files, png or svg.

        Raises:
            MissingExtraError: matplotlib is not installed.
            InputError: no such kind, or the folder cannot be written to.
        """
        from evoquant.report.plots import KINDS, run_figures, write_plots
        from evoquant.report.plots_style import style
        from evoquant.report.series import run_series

        if kind not in KINDS:
            raise InputError(f"plot: kind is {kind!r}; it is {' or '.join(KINDS)}.")
        run = load_run(self.path)
        if path is not None:
            write_plots(run, {kind: Path(path)})
        with style():
            return Plots(run_figures(run_series(run)))

    def report(self, path: str | Path) -> Path:
        """Write the run as one HTML page, as `evoquant report --html` does.

        Raises:
            MissingExtraError: plotly is not installed.
            InputError: the file cannot be written.
        """
        from evoquant.report.page import page_html

        write_atomic(Path(path), page_html(load_run(self.path)))
        return Path(path)

    def save(self, path: str | Path) -> Path:
        """Copy the run directory to a new place, without what only speeds things up.

        Raises:
            InputError: there is something already, or it cannot be written to.
        """
        place = Path(path)
        if place.exists() and not (is_folder(place) and not any(place.iterdir())):
            raise InputError(f"{place}: is there already; name a folder that is not.")
        try:
            shutil.copytree(self.path, place, ignore=shutil.ignore_patterns(*UNSAVED), dirs_exist_ok=True)
        except OSError as error:
            raise InputError(f"{place}: cannot be written: {error.strerror or error}.") from None
        return place

    def tables(self) -> list[Table]:
        """Scores, gate and allocation."""
        from evoquant.report.gate import gate_table
        from evoquant.report.tables import scores_table

        return [
            scores_table(self.champion.genome.text, self.champion.scores),
            gate_table(self.gate, self.champion.provenance.get("warnings", ())),
            self.allocation.table(),
        ]

    def __str__(self) -> str:
        """The tables for a terminal."""
        return f"{_drawn(self.tables())}\n{self.verdict}\n{self._said()}"

    def __repr__(self) -> str:
        """One line."""
        return f"<evoquant.Result {str(self.path)!r}: {self.verdict}>"

    def _said(self) -> str:
        counts = ", ".join(f"{split} {count}" for split, count in self.samples.items())
        drawn = f"; {' and '.join(self.drawn)} drawn from the calibration data" if self.drawn else ""
        return f"samples: {counts}{drawn}"

    def _repr_html_(self) -> str:
        from evoquant.report.page_html import element, joined, table_html

        return str(joined([element("p", self.verdict), *map(table_html, self.tables()), element("p", self._said())]))


class Plots(dict[str, Any]):
    """Name → matplotlib figure; a notebook shows all of them."""

    def _repr_html_(self) -> str:
        import base64

        from evoquant.report.page_html import element, joined
        from evoquant.report.plots_style import picture, style

        with style():
            data = {name: base64.b64encode(picture(figure, "png")).decode() for name, figure in self.items()}
        return str(
            joined([element("img", src=f"data:image/png;base64,{text}", alt=name) for name, text in data.items()])
        )


def read_result(
    path: Path,
    task: MeasuredTask,
    source: MemoryTaskConfig,
    kept: Temporary | None = None,
) -> Result:
    """The result of a finished run directory.

    Args:
        path: of the run.
        task: the model that it is about.
        source: as the run's config names it.
        kept: what the directory lives in.

    Raises:
        InputError: it is not finished, or damaged.
    """
    found = gated(path)
    run = load_run(path)
    if found is None or run.champion is None or run.gate is None:
        raise InputError(f"{path}: holds no finished run on a network.")
    recommended, profile, menu = found
    return Result(
        path,
        run.champion,
        recommended,
        run.gate,
        allocation_of(recommended, profile, menu),
        profile,
        source.samples,
        tuple(source.drawn),
        task,
        source,
        menu,
        kept,
    )


def allocation_of(champion: Champion, profile: ModelProfile, menu: Menu) -> Allocation:
    """What a champion gives to each layer of a model."""
    from evoquant.quantization.precision import Precision
    from evoquant.scoring.separable import cost_sums

    problem = compile_problem(profile, menu)
    chosen = champion.genome.allocate(problem)
    rows = []
    for layer, width in zip(profile.layers, problem.unfold(chosen), strict=True):
        bits = Precision.parse(width).bits(layer.shape, layer.channel_axis) / layer.parameters
        rows.append((layer.name, layer.type, layer.parameters, width, float(bits)))
    cost = float(cost_sums(problem, chosen[None])[0])
    compression = problem.cost.reference / cost
    effective = (cost - problem.cost.constant) / (problem.weights * 1024.0)
    totals = [f"compression {compression:.4f}x, {effective:.3f} bits per weight"]
    if "test" in champion.scores:
        figures = champion.scores["test"]
        low, high = figures["interval"]
        totals.append(f"retention on test {figures['retention']:.2%} (95%: {low:.2%} to {high:.2%})")
    return Allocation(f"{profile.name}: {champion.genome.text}", tuple(rows), tuple(totals))


def _drawn(tables: list[Table]) -> str:
    from evoquant.report.drawn import drawn_text

    return drawn_text(tables, shutil.get_terminal_size((100, 24)).columns)
