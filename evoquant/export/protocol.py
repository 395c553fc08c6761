"""What an exporter promises: the content of a file, or of several, for a champion or for a network's recipe.

    evoquant export RUN_DIR --to module:Class -o OUT          evoquant.load(RUN_DIR).export("module:Class", OUT)

It is made as `Class()`; in Python an instance does as well. It writes nothing itself: evoquant asks the gate first,
then writes what it returns, whole or not at all.

    class Widths:
        takes = "allocation"

        def export(self, subject):
            return "".join(f"{layer} {width}\\n" for layer, width in subject.widths.items())
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evoquant.campaign.champion import Champion
    from evoquant.export.lint import Finding
    from evoquant.export.recipe import Recipe
    from evoquant.models.deployable import Deployable
    from evoquant.profiles.model import ModelProfile
    from evoquant.quantization.precision import Menu

Takes: TypeAlias = Literal["heuristic", "allocation", "recipe"]
TAKES: tuple[Takes, ...] = ("heuristic", "allocation", "recipe")

Content: TypeAlias = "str | bytes | Mapping[str, str | bytes]"
"""Of one file; or of several, by their names in a folder (`model/weights.bin` is fine, `../weights.bin` is not)."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What is exported.

    Attributes:
        champion: genome, scores, provenance; for one model what the gate recommends. None of a recipe's file.
        menu: the precisions.
        profile: of the one model; None for a heuristic.
        widths: layer → name of its precision, in order of execution; empty for a heuristic.
        recipe: codes and scales, where they are taken; else None.
        network: weights, graph and outputs of the recipe's network; else None.
    """

    champion: Champion | None
    menu: Menu
    profile: ModelProfile | None = None
    widths: Mapping[str, str] = field(default_factory=dict)
    recipe: Recipe | None = None
    network: Deployable | None = None


@runtime_checkable
class Exporter(Protocol):
    """Turns what was found into what somebody deploys."""

    takes: Takes
    """`heuristic`: the champion, whatever the model; there is no gate. `allocation`: one model's widths, and `recipe`:
    a measured network's codes and scales, too; of a real network both have to pass the gate."""

    def export(self, subject: Subject) -> Content:
        """The content of the file, or of the files of a folder.

        It changes nothing of what it gets. The same subject gives the same bytes: no clock, no random names.

        Raises:
            InputError: it cannot take this as it is; the message names the layer and the remedy.
        """
        ...


@runtime_checkable
class Linting(Protocol):
    """An exporter that also says beforehand what it has against a recipe; `evoquant lint --for` asks it."""

    def lint(self, recipe: Recipe) -> Iterable[Finding]:
        """What it has against a recipe; an `error` keeps it from being exported, a `warning` is shown.

        `evoquant.export.lint.Finding(layer, severity, message)`; a recipe's text alone may be there, without tensors.
        """
        ...
