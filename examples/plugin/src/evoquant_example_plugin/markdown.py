"""One model's allocation as a table in Markdown, to paste into a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evoquant.export.protocol import Subject


class Markdown:
    """A line for each layer, and the scores above them."""

    takes = "allocation"

    def export(self, subject: Subject) -> str:
        """The file's text: the same for the same subject."""
        assert subject.profile is not None  # of `takes = "allocation"` it is there
        lines = [f"## {_cell(subject.profile.name)}", ""]
        if subject.champion is not None:
            for split, figures in subject.champion.scores.items():
                numbers = (f"{key} {value:.4g}" for key, value in figures.items() if isinstance(value, float))
                lines.append(f"- {_cell(split)}: {', '.join(numbers)}")
        lines += ["", "| layer | type | weights | width |", "| --- | --- | ---: | --- |"]
        for layer in subject.profile.layers:
            width = subject.widths[layer.name]
            lines.append(f"| {_cell(layer.name)} | {_cell(layer.type)} | {layer.parameters:,} | {_cell(width)} |")
        return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A name as it is, whatever file it came from: no markup, no line of its own, no end of a cell."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return "".join(f"\\{character}" if character in "\\`*_{}[]<>()#+-!|&~" else character for character in printable)
