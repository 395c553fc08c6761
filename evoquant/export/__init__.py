"""Export: a champion as data or as code.

    render("python", champion)                     → a module without dependencies
    render("csv", champion, profile)               → one model's allocation

`TARGETS` is the table of all targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from evoquant.errors import InputError, suggestion
from evoquant.export import as_csv, as_json, as_python, as_rust, as_yaml

if TYPE_CHECKING:
    from evoquant.campaign.champion import Champion
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu

__all__ = ["TARGETS", "Render", "Target", "render"]


class Render(Protocol):
    """A target's function; whatever it has no use for it ignores."""

    def __call__(self, champion: Champion, *, profile: ModelProfile | None, menu: Menu | None) -> str:
        """The exported file's text."""
        ...


@dataclass(frozen=True)
class Target:
    """One thing that a champion can be exported to.

    Attributes:
        render: makes the text.
        description: one line, for `export --list`.
        suffix: of the file.
        one_model: whether it holds one model's allocation rather than the heuristic; of a real network such a one has
            to pass the gate.
    """

    render: Render
    description: str
    suffix: str
    one_model: bool = False


TARGETS: dict[str, Target] = {
    "json": Target(
        as_json.render, "the heuristic, its scores and provenance as JSON; `evoquant apply` reads it", ".json"
    ),
    "yaml": Target(as_yaml.render, "the same as YAML", ".yaml"),
    "python": Target(as_python.render, "a Python module without dependencies, also a script", ".py"),
    "rust": Target(as_rust.render, "a Rust program of one file, standard library only", ".rs"),
    "csv": Target(as_csv.render, "one model's allocation, a line for each layer; needs --profile", ".csv", True),
}


def render(target: str, champion: Champion, profile: ModelProfile | None = None, menu: Menu | None = None) -> str:
    """The text of `champion` exported to `target`.

    Args:
        target: a key of `TARGETS`.
        champion: what to export.
        profile: the model, for targets that hold one model's allocation.
        menu: the precisions; by default the champion's own, or the model's for targets that need a model.

    Raises:
        InputError: no such target, or the champion cannot be exported to it; the message names the remedy.
    """
    if target not in TARGETS:
        raise InputError(f"unknown export target {target!r}.{suggestion(target, TARGETS)}")
    return TARGETS[target].render(champion, profile=profile, menu=menu)
