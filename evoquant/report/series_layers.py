"""What the champion makes of the searched model: layer by layer, its size, and beside uniform widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.genomes.load import genome_from_dict
from evoquant.report.series_model import BYTE_UNITS, frozen
from evoquant.scoring.separable import cost_sums, loss_sums, retention_of, table_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evoquant.genomes.base import Genome
    from evoquant.profiles.model import LayerProfile
    from evoquant.report.data import RunData
    from evoquant.report.series_model import Subject

LOSSES = ("loss", "expected_loss", "divergence", "fisher")  # measured before estimated


@dataclass(frozen=True)
class Mark:
    """One allocation as a point.

    Attributes:
        name: `champion`, or `uniform INT8-channel`.
        width: the width's name where it is uniform; else None.
        retention: as `source` has it.
        interval: of the retention, 95%; None where it is not known, or exact.
        compression, effective_bits: scales counted.
        size_bytes: of the model, what no width applies to included.
        source: `profile` (the run's own measure), `estimate` (separable, of a network that the run measures), or the
            data on which it was measured: `calibration`, `gate`.
    """

    name: str
    width: str | None
    retention: float
    interval: tuple[float, float] | None
    compression: float
    effective_bits: float
    size_bytes: float
    source: str


@dataclass(frozen=True)
class Size:
    """Bytes of the searched model; weights and scales.

    Attributes:
        champion, fp32: weights with their scales.
        other: what no width applies to, in both.
    """

    champion: float
    fp32: float
    other: float


@dataclass(frozen=True, eq=False)
class LayerStrip:
    """The layers in order of execution, under the champion's allocation; read-only arrays of one entry a layer.

    Attributes:
        model: in words.
        name, type, width: names.
        code_bits: of the width's codes.
        effective_bits: per weight, scales counted.
        parameters: weights that the width applies to.
        size_bytes: of the layer at its width, scales counted.
        share: of the size of all layers, at their widths.
        sensitivity: of `sensitivity_name`; None where the profile has no such signal.
        sensitivity_name: `gradient_sensitivity`, or `fisher cost at INT4`, the narrowest width that all know.
        loss: what the layer alone costs at its width, of `loss_name`; NaN where that is not known.
        loss_name: `loss` (of retention), `expected_loss`, `divergence` (nats), `fisher`; None where there is none.
    """

    model: str
    name: tuple[str, ...]
    type: tuple[str, ...]
    width: tuple[str, ...]
    code_bits: NDArray[np.int64]
    effective_bits: NDArray[np.float64]
    parameters: NDArray[np.int64]
    size_bytes: NDArray[np.float64]
    share: NDArray[np.float64]
    sensitivity: NDArray[np.float64] | None
    sensitivity_name: str | None
    loss: NDArray[np.float64] | None
    loss_name: str | None

    def __len__(self) -> int:
        return len(self.name)


def marks_of(run: RunData, subject: Subject | None) -> tuple[Mark, ...]:
    """The champion, where there is one, then the uniform widths, narrowest first."""
    if subject is None:
        return ()
    made = []
    if (genome := _champion(run)) is not None:
        made.append(_champion_mark(run, subject, genome))
    return (*made, *_uniform_marks(run, subject))


def _champion_mark(run: RunData, subject: Subject, genome: Genome) -> Mark:
    allocation = genome.allocate(subject.problem)
    cost = float(cost_sums(subject.problem, allocation[None])[0])
    source, interval = "profile", None
    if not subject.measured:
        retention = float(subject.retention_of(allocation[None])[0])
    elif run.gate is not None:
        source, retention = "gate", float(run.gate["champion"]["retention"])
        figures = run.champion.scores.get("gate", {}) if run.champion is not None else {}
        interval = pair_of(figures.get("interval"))
    elif run.champion is not None and "calibration" in run.champion.scores:
        figures = run.champion.scores["calibration"]
        source, retention, interval = "calibration", float(figures["retention"]), pair_of(figures.get("interval"))
    else:
        source, retention = "calibration", float(run.journal[-1]["champion"]["retention"][0])
    return _mark("champion", None, subject, cost, retention, interval, source)


def _uniform_marks(run: RunData, subject: Subject) -> list[Mark]:
    """Of every width that some layer may take; where the gate has measured it, as it did."""
    problem, scored = subject.problem, subject.scored
    rivals = {row["name"]: row for row in run.gate["rivals"]} if run.gate is not None else {}
    made = []
    for width, name in enumerate(problem.menu.names):
        if not problem.allowed[:, width].any():
            continue
        allocation = problem.repair_one(np.full(len(problem.units), width, dtype=np.int8))[None]
        cost = float(cost_sums(problem, allocation)[0])
        label = f"uniform {name}"
        if label in rivals:
            row = rivals[label]
            made.append(_mark(label, name, subject, cost, float(row["retention"]), None, "gate"))
        elif scored is not None or subject.model is not None:
            separable = None if scored is None else retention_of(loss_sums(scored, allocation))
            retention = float((subject.retention_of(allocation) if separable is None else separable)[0])
            source = "estimate" if subject.measured else "profile"
            made.append(_mark(label, name, subject, cost, retention, None, source))
    return made


def _mark(
    name: str,
    width: str | None,
    subject: Subject,
    cost: float,
    retention: float,
    interval: tuple[float, float] | None,
    source: str,
) -> Mark:
    total = np.array([cost])
    return Mark(
        name,
        width,
        retention,
        interval,
        compression=float(subject.compression_of(total)[0]),
        effective_bits=float(subject.bits_of(total)[0]),
        size_bytes=float(subject.bytes_of(total)[0]),
        source=source,
    )


def size_of(run: RunData, subject: Subject | None) -> Size | None:
    """Bytes of the model under the champion, and in FP32."""
    genome = _champion(run)
    if subject is None or genome is None:
        return None
    cost = subject.problem.bits
    champion = float(table_sums(cost, genome.allocate(subject.problem)[None])[0])
    return Size(
        champion / BYTE_UNITS,
        (cost.reference - cost.constant) / BYTE_UNITS,
        cost.constant / BYTE_UNITS,
    )


def strip_of(run: RunData, subject: Subject | None) -> LayerStrip | None:
    """The layers of the model under the champion's allocation."""
    genome = _champion(run)
    if subject is None or genome is None:
        return None
    layers, problem = subject.profile.layers, subject.problem
    widths = problem.unfold(genome.allocate(problem))
    chosen = {precision.name: precision for precision in problem.menu}
    taken = [chosen[width] for width in widths]
    bits = np.array([p.bits(layer.shape, layer.channel_axis) for p, layer in zip(taken, layers, strict=True)])
    parameters = np.array([layer.parameters for layer in layers], dtype=np.int64)
    sensitivity, sensitivity_name = _sensitivity(layers, problem.menu.names)
    loss, loss_name = _losses(layers, widths, problem.menu.names)
    return LayerStrip(
        model=subject.label,
        name=tuple(layer.name for layer in layers),
        type=tuple(layer.type for layer in layers),
        width=widths,
        code_bits=frozen(np.array([precision.code_bits for precision in taken], dtype=np.int64)),
        effective_bits=frozen(bits / parameters),
        parameters=frozen(parameters),
        size_bytes=frozen(bits / 8.0),
        share=frozen(bits / float(bits.sum())),
        sensitivity=None if sensitivity is None else frozen(sensitivity),
        sensitivity_name=sensitivity_name,
        loss=None if loss is None else frozen(loss),
        loss_name=loss_name,
    )


def _sensitivity(
    layers: tuple[LayerProfile, ...], menu: tuple[str, ...]
) -> tuple[NDArray[np.float64] | None, str | None]:
    """The gradient sensitivity where a layer has any, else the Fisher cost of the narrowest width that all know."""
    gradients = np.array([layer.gradient_sensitivity for layer in layers], dtype=np.float64)
    if gradients.any():
        return gradients, "gradient_sensitivity"
    for width in menu:
        if all(width in layer.fisher for layer in layers):
            return np.array([layer.fisher[width] for layer in layers], dtype=np.float64), f"fisher cost at {width}"
    return None, None


def _losses(
    layers: tuple[LayerProfile, ...], widths: tuple[str, ...], menu: tuple[str, ...]
) -> tuple[NDArray[np.float64] | None, str | None]:
    """What each layer costs at its width by the first signal that knows it; FP32 costs nothing where it is not said."""
    for kind in LOSSES:
        tables: list[Any] = [getattr(layer, kind) for layer in layers]
        if not any(table for table in tables):
            continue
        values = [
            table.get(width, 0.0 if width == "FP32" else np.nan) for table, width in zip(tables, widths, strict=True)
        ]
        if not np.isnan(values).all():
            return np.array(values, dtype=np.float64), kind
    return None, None


def _champion(run: RunData) -> Genome | None:
    """The champion's genome; of an unfinished run the best so far."""
    if run.champion is not None:
        return run.champion.genome
    found = run.journal[-1]["champion"] if run.journal else None
    return None if found is None else genome_from_dict(found["genome"], str(run.path))


def pair_of(interval: Any) -> tuple[float, float] | None:
    """An interval of a file, whose reader has checked it; None where there is none."""
    return None if interval is None else (float(interval[0]), float(interval[1]))
