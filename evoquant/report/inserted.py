"""Documents whose figures are inserted from the rows of results/, and those that are typed in spite of that.

A source is docs/<NAME>.in.md; what is rendered from it is docs/<NAME>.md, and README.md at the root. In a source
`{{ searches.random.needed_median }}` stands for a figure of the catalogue (`evoquant.report.figures_table`), and a line
`{{ table: transfer }}` for a table. Code blocks and code spans are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from evoquant.errors import InputError
from evoquant.files import read_text, write_atomic
from evoquant.report.figures_table import Catalogue

SUFFIX = ".in.md"
README = "README"
_MARK = re.compile(r"\{\{\s*(table:\s*)?([\w.-]+)\s*\}\}")
_FENCE = re.compile(r"^(?:```|~~~)")
_NUMBER = r"(?<![\w.,−-])\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?"
# What looks like a result: a decimal number, thousands, a share, a ratio, a count of a count.
_RESULT = re.compile(
    rf"{_NUMBER}\s?%|{_NUMBER}\s?(?:x\b|×|times\b)|{_NUMBER}\s+of\s+(?:the\s+)?{_NUMBER}|"
    r"(?<![\w.,−-])\d{1,3}(?:,\d{3})+|(?<![\w.,−-])\d+\.\d+(?:e-?\d+|[kMG]\b)?|(?<![\w.,−-])\d+e-?\d+"
)
_SPAN = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
_TARGET = re.compile(r"\]\([^)]*\)")


@dataclass(frozen=True)
class Typed:
    """A figure that stands in a source as it is: where, what, and its line."""

    file: str
    line: int
    figure: str
    text: str


def sources(root: Path) -> dict[Path, Path]:
    """Source → what is rendered from it."""
    found = {}
    for path in sorted((root / "docs").glob(f"*{SUFFIX}")):
        stem = path.name.removesuffix(SUFFIX)
        found[path] = root / "README.md" if stem == README else path.with_name(f"{stem}.md")
    return found


def rendered(path: Path, catalogue: Catalogue) -> str:
    """The text of a source with all its figures and tables.

    Raises:
        InputError: a figure or table that there is not, or a mark that is not closed; the message names the line.
    """
    lines = []
    for number, line, plain in _lines(read_text(path)):
        place = f"{path}: line {number}"
        lines.append(line if plain else _filled(line, catalogue, place))
    return "".join(lines)


def _filled(line: str, catalogue: Catalogue, place: str) -> str:
    def fill(mark: re.Match[str]) -> str:
        try:
            if not mark[1]:
                return catalogue.figure(mark[2])
            if line.strip() != mark[0]:
                raise InputError(f"a table stands on a line of its own; {mark[0]} does not.")
            return catalogue.table(mark[2])
        except InputError as error:
            raise InputError(f"{place}: {error}") from None

    text = _MARK.sub(fill, line)
    if "{{" in _SPAN.sub("", text):
        raise InputError(f"{place}: a mark is wrong; write {{{{ topic.figure }}}} or {{{{ table: name }}}}.")
    return text


def render_documents(root: Path) -> list[Path]:
    """Render every source below `root`; the files that changed.

    Raises:
        InputError: as `rendered`.
    """
    catalogue = Catalogue(root / "results")
    changed = []
    for source, target in sources(root).items():
        text = rendered(source, catalogue)
        if not target.is_file() or target.read_text(encoding="utf-8") != text:
            write_atomic(target, text)
            changed.append(target)
    return changed


def typed_figures(path: Path) -> list[Typed]:
    """What looks like a result and is typed in a source, outside code, link targets and marks."""
    found = []
    for number, line, plain in _lines(read_text(path)):
        if plain:
            continue
        text = _TARGET.sub("]", _SPAN.sub("``", _MARK.sub("{}", line)))
        found += [Typed(path.name, number, match[0], line.strip()) for match in _RESULT.finditer(text)]
    return found


def _lines(text: str) -> Iterator[tuple[int, str, bool]]:
    """(number, line with its end, whether it is of a code block)."""
    fenced = False
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        fence = bool(_FENCE.match(line.lstrip()))
        yield number, line, fenced or fence or line.startswith("    ")
        fenced = fenced != fence
