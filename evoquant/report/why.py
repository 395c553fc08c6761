"""Why the champion looks as it does: what each part is worth, whether places matter, who decides, what was measured.

why_data(run) → plain JSON data      why_tables(data) → tables

Nothing is measured for it: on profiles the separable estimate is what the search used, too; on a real network it
stands in for forward passes, shifted so that the champion has the retention that was measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError
from evoquant.report.why_measured import agreement_data, measurements
from evoquant.report.why_parts import knockout_data
from evoquant.report.why_places import cliff_data, swap_data
from evoquant.report.why_subject import figures, measured_of, other_train_models, subject_of
from evoquant.report.why_tables import why_tables

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evoquant.report.data import RunData
    from evoquant.report.why_subject import Subject

__all__ = ["why_data", "why_tables"]


def why_data(run: RunData) -> dict[str, Any]:
    """Everything that explains a run's champion, or the best so far, as plain data.

    Keys: `champion`, `knockouts`, `swaps`, `cliff`, `measured` (real networks) and `notes`: what is left out and why.
    Code that the config names is imported: ask `require_allowed` first.
    """
    notes: list[str] = []
    measured: Mapping[str, Mapping[str, Any]] = {}
    if run.config.task is not None:
        try:
            measured = measurements(run)
        except InputError as error:
            notes.append(str(error))
    try:
        subject = subject_of(run, measured)
    except InputError as error:
        return {"notes": [*notes, f"Nothing can be explained: {error}"]}
    data: dict[str, Any] = {
        "champion": _champion(subject),
        "knockouts": knockout_data(subject, lambda: other_train_models(run)),
        "swaps": swap_data(subject),
        "cliff": cliff_data(subject),
    }
    if measured:
        try:
            data["measured"] = agreement_data(run, subject)
        except InputError as error:
            notes.append(f"Estimate beside measurements: left out: {error}")
    data["notes"] = [*subject.notes, *notes]
    return data


def _champion(subject: Subject) -> dict[str, Any]:
    model, allocation = subject.model, subject.allocation
    data: dict[str, Any] = {
        "text": subject.genome.text,
        "finished": subject.finished,
        "model": model.problem.name,
        "split": model.label,
        "train_models": subject.train_models,
        "estimate": model.estimate,
        "network": model.label == "calibration",
        "anchored": model.offset != 0.0,
        **figures(model.scores(allocation[None]), 0),
    }
    (known,) = measured_of(subject, [allocation])
    return data if known is None else {**data, "measured": known}
