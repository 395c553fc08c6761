"""What `optimize` and `load` return: champion, allocation, scores and gate, and what can be done with them."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evoquant.campaign.config_measured import MemoryTaskConfig
from evoquant.campaign.in_memory import lent
from evoquant.campaign.storage_remote import download
from evoquant.campaign.storage_url import Url
from evoquant.errors import InputError
from evoquant.files import is_folder, write_atomic
from evoquant.report.data import load_run
from evoquant.report.table import Table
from evoquant.scoring.problem import compile_problem

if TYPE_CHECKING:
    import torch

    from evoquant.campaign.champion import Champion
    from evoquant.campaign.config_measured import TaskConfig
    from evoquant.export.lint import Finding
    from evoquant.export.protocol import Exporter
    from evoquant.genomes.base import Genome
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
    """A finished run. Its run directory is one that the command line reports and compares.

    A search on profiles has found a heuristic: it has no gate, no model of its own, and `allocate` applies it to any.

    Attributes:
        path: the run directory; one that was not asked for (`run_dir=None`) lasts as long as this object.
        champion: the best genome that the search found, whatever the gate says of it.
        recommended: what the gate recommends, the champion or something simpler; what `allocation`, `scores`, `apply`
            and `export` are about. Without a gate the champion.
        gate: the comparison with simpler ways, as in gate.json; None for a search on profiles.
        allocation: layer → width; None for a search on profiles.
        profile: of the model; None for a search on profiles.
        samples: how many each split has.
        drawn: the splits that were drawn from the calibration data because they were not given.
    """

    path: Path
    champion: Champion
    recommended: Champion
    gate: Mapping[str, Any] | None
    allocation: Allocation | None
    profile: ModelProfile | None
    samples: Mapping[str, int]
    drawn: tuple[str, ...]
    _task: MeasuredTask | None = field(repr=False)
    _source: TaskConfig | None = field(repr=False)
    _menu: Menu = field(repr=False)
    _kept: Temporary | None = field(default=None, repr=False)
    _allowed: tuple[str, ...] = field(default=(), repr=False)

    @property
    def genome(self) -> Genome:
        """The champion's."""
        return self.champion.genome

    @property
    def provenance(self) -> Mapping[str, Any]:
        """The champion's: campaign, config hash, seed, versions, ancestry."""
        return self.champion.provenance

    @property
    def scores(self) -> Mapping[str, Mapping[str, Any]]:
        """Split → `retention` with its `interval`, `compression`, `effective_bits`, … of what is recommended."""
        return self.recommended.scores

    @property
    def verdict(self) -> str:
        """One sentence: what is recommended, and why."""
        if self.gate is None:
            return f"a heuristic, found on profiles: {self.champion.genome.text}"
        name = self.gate["recommended"]["name"]
        if name == "champion":
            beaten = sum(row.get("verdict") == "ahead" for row in self.gate["rivals"])
            return f"recommended: the champion; it beats {beaten} of {len(self.gate['rivals'])} rivals of the gate"
        return f"recommended: {name}, which the champion cannot be told from, or does not beat"

    def allocate(self, profile: ModelProfile | str | Path, *, ungated: bool = False) -> Allocation:
        """The widths that the heuristic gives to another model, which is not measured.

        Args:
            profile: of that model, its file, or a built-in name.
            ungated: take the champion, whatever the gate recommends.

        Raises:
            InputError: no such profile, it lacks a signal, or the genome is an allocation of one model.
        """
        from evoquant.profiles.builtin import any_profile

        model = any_profile(str(profile)) if isinstance(profile, (str, Path)) else profile
        chosen = self.champion if ungated else self.recommended
        return allocation_of(replace(chosen, scores={}), model, self._menu)

    def apply(self, model: torch.nn.Module | None = None, *, ungated: bool = False) -> torch.nn.Module:
        """A copy of the model with every layer at its width, by fake quantization: bit for bit what was measured.

        Args:
            model: the module that was optimized, or one with the same layers; None for a copy of the former, where it
                is at hand. It stays as it is; the copy is float32, in eval mode, on the CPU.
            ungated: take the champion, whatever the gate recommends.

        Raises:
            InputError: the model is an ONNX file, is not at hand, or has other layers; the message names one.
            PrecisionError: a weight that its width cannot hold.
        """
        from evoquant.api.loaded import applied_to

        chosen = self.champion if ungated else self.recommended
        return applied_to(model, chosen, self.profile, self._menu, self._source, self._network(model))

    def export(
        self,
        target: str | Exporter | type[Exporter],
        path: str | Path,
        *,
        ungated: bool = False,
        base: str | Path | None = None,
    ) -> tuple[list[Path], list[Finding]]:
        """Write what is recommended in the form that a stack loads: the files, and the linter's warnings.

        Args:
            target: onnx, openvino, recipe, …, or json, yaml, python, rust, csv, as for `evoquant export --to`; or
                an exporter of one's own, `module:Class`, its class or an object: see `evoquant.export.protocol`.
            path: the main file, or the folder.
            ungated: take the champion, whatever the gate recommends.
            base: for gguf, see `evoquant.export.deploy.deploy`.

        Raises:
            InputError: the target cannot take it as it is, or a file cannot be written.
            MissingExtraError: the target's packages are not installed.
        """
        from evoquant.export import TARGETS, render
        from evoquant.export.deploy import deploy

        if not isinstance(target, str) or ":" in target:
            from evoquant.export.own_exporter import content_of, exporter_of, write_content

            made, name = exporter_of(target)
            with self._lending():
                content, findings = content_of(self.path, made, ungated=ungated, allow_code=self._allowed)
            return write_content(content, name, Path(path)), findings
        if target in TARGETS:
            of_model = self.profile is not None and TARGETS[target].one_model
            chosen = self.recommended if of_model and not ungated else self.champion
            more = (self.profile, self._menu) if of_model else ()
            write_atomic(Path(path), render(target, chosen, *more))
            return [Path(path)], []
        with self._lending():
            return deploy(self.path, target, path, ungated=ungated, base=base, allow_code=self._allowed)

    def verify(self, target: str, *, ungated: bool = False) -> dict[str, Any]:
        """Export, run the file in a fresh process of its consumer, and compare with what was promised.

        Raises:
            InputError: as `export`; or a fresh process cannot make the network.
        """
        from evoquant.export.deploy import verify

        with self._lending():
            return verify(self.path, target, ungated=ungated, allow_code=self._allowed)

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
            if isinstance(self.path, Url):
                download(self.path, place)
            else:
                shutil.copytree(self.path, place, ignore=shutil.ignore_patterns(*UNSAVED), dirs_exist_ok=True)
        except OSError as error:
            raise InputError(f"{place}: cannot be written: {error.strerror or error}.") from None
        return place

    def tables(self) -> list[Table]:
        """Scores, gate and allocation."""
        from evoquant.report.counted import counted_of
        from evoquant.report.gate import gate_table
        from evoquant.report.tables import scores_table

        shown = [scores_table(self.champion.genome.text, self.champion.scores)]
        if self.gate is not None:
            said = self.champion.provenance.get("warnings", ())
            shown.append(gate_table(self.gate, said, counted_of(self.champion.scores)))
        return shown if self.allocation is None else [*shown, self.allocation.table()]

    def __str__(self) -> str:
        """The tables for a terminal."""
        return "\n".join(filter(None, [_drawn(self.tables()), self.verdict, self._said()]))

    def __repr__(self) -> str:
        """One line."""
        return f"<evoquant.Result {str(self.path)!r}: {self.verdict}>"

    def _said(self) -> str:
        if not self.samples:
            return ""
        counts = ", ".join(f"{split} {count}" for split, count in self.samples.items())
        drawn = f"; {' and '.join(self.drawn)} drawn from the calibration data" if self.drawn else ""
        return f"samples: {counts}{drawn}"

    def _repr_html_(self) -> str:
        from evoquant.report.page_html import element, joined, table_html

        said = [element("p", text) for text in (self._said(),) if text]
        return str(joined([element("p", self.verdict), *map(table_html, self.tables()), *said]))

    def _network(self, model: Any) -> MeasuredTask | None:
        """The network, live or made anew from the run's config; None where only a program that is gone has held it."""
        if self._task is not None or model is not None or self._source is None or self._source.kind == "memory":
            return self._task
        from evoquant.campaign.build_measured import make_task
        from evoquant.store import cache_folder

        return make_task(self._source, cache_folder(None, self.path))

    def _lending(self) -> AbstractContextManager[None]:
        if self._task is None or not isinstance(self._source, MemoryTaskConfig):
            return nullcontext()
        return lent(self._source, self._task)


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


def allocation_of(champion: Champion, profile: ModelProfile, menu: Menu) -> Allocation:
    """What a champion gives to each layer of a model."""
    from evoquant.quantization.precision import Precision
    from evoquant.scoring.quantity import amount_text
    from evoquant.scoring.separable import cost_sums

    problem = compile_problem(profile, menu)
    chosen = champion.genome.allocate(problem)
    rows = []
    for layer, width in zip(profile.layers, problem.unfold(chosen), strict=True):
        bits = Precision.parse(width).bits(layer.shape, layer.channel_axis) / layer.parameters
        rows.append((layer.name, layer.type, layer.parameters, width, float(bits)))
    cost = float(cost_sums(problem, chosen[None])[0])
    compression = problem.cost.reference / cost
    effective = (cost - problem.cost.constant) / (problem.weights * problem.bit)
    totals = [f"compression {compression:.4f}x, {effective:.3f} bits per weight"]
    counted = champion.scores.get("test", {}).get("cost")
    if counted is not None:  # by the campaign, instead of bits
        taken, full = (amount_text(counted[key], counted["name"]) for key in ("value", "reference"))
        totals = [f"in bits {totals[0]}", f"{counted['name']}: {taken}, all in FP32 {full}"]
    if "test" in champion.scores:
        figures = champion.scores["test"]
        low, high = figures["interval"]
        totals.append(f"retention on test {figures['retention']:.2%} (95%: {low:.2%} to {high:.2%})")
    return Allocation(f"{profile.name}: {champion.genome.text}", tuple(rows), tuple(totals))


def _drawn(tables: list[Table]) -> str:
    from evoquant.report.drawn import drawn_text

    return drawn_text(tables, shutil.get_terminal_size((100, 24)).columns)
