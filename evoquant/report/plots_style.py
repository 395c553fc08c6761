"""How plots look and how they are written: sizes of a paper's columns, small print, the same bytes every time."""

from __future__ import annotations

import contextlib
import io
import warnings
from typing import TYPE_CHECKING, Any

from evoquant.errors import MissingExtraError
from evoquant.report.palette import QUIET
from evoquant.report.terminal import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SINGLE, DOUBLE = 3.5, 7.0  # inches: one column of a paper, and two
SMALL = 6.5  # points: what stands beside data
DPI = 300  # of PNG
LONGEST = 28  # characters of a name
DARK = "#333333"  # ink
WORDS = 140  # characters of the small print below a figure of two columns
METADATA: dict[str, dict[str, Any]] = {"svg": {"Date": None, "Creator": "evoquant"}, "png": {"Software": None}}

SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "evoquant",  # ids that do not change from run to run
    "svg.fonttype": "none",  # letters stay letters: found by a search, set in a paper's own font
    "text.parse_math": False,  # a layer may be called `$x$`
    "font.family": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.labelsize": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": DARK,
    "axes.labelcolor": DARK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "text.color": DARK,
    "xtick.color": DARK,
    "ytick.color": DARK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.borderaxespad": 0.2,
    "legend.labelspacing": 0.3,
    "lines.linewidth": 1.2,
    "hatch.linewidth": 0.5,
}
_NOT_STYLE = ("backend", "interactive", "toolbar", "tk.", "webagg.", "savefig.directory", "timezone", "datapath")


@contextlib.contextmanager
def style() -> Iterator[None]:
    """matplotlib with these settings and none of the user's; as it was, afterwards.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise MissingExtraError("a plot", "matplotlib", "report") from None
    chosen: Any = {key: value for key, value in matplotlib.rcParamsDefault.items() if not key.startswith(_NOT_STYLE)}
    chosen.update(SETTINGS)
    with warnings.catch_warnings(), matplotlib.rc_context(chosen):
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)  # in a name
        yield


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches; to be used within `style`."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02))


def picture(figure: Figure, kind: str) -> bytes:
    """The figure as `svg` or `png`: the same bytes for the same data; to be used within `style`."""
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, dpi=DPI, metadata=METADATA[kind])
    return stream.getvalue()


def printed(name: str, longest: int = LONGEST) -> str:
    """A name that comes from a file, on one line, cut in the middle with an ellipsis where it is very long."""
    text = " ".join(plain(name[: 40 * longest]).split())
    if len(text) <= longest:
        return text
    head = (longest - 1) // 2
    return f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def cut(text: str, longest: int) -> str:
    """Words on one line, cut at the end with an ellipsis where they are too long."""
    line = " ".join(plain(text[: 40 * longest]).split())
    return line if len(line) <= longest else f"{line[: longest - 1].rstrip()}…"


def light_grid(axes: Axes, axis: str = "y") -> None:
    """Thin lines behind the data."""
    axes.grid(axis=axis, color=QUIET, alpha=0.25, linewidth=0.5)  # type: ignore[arg-type]


def legend_above(figure: Figure, handles: Sequence[Any], columns: int = 3) -> None:
    """One legend for the whole figure, over it, where it hides nothing."""
    figure.legend(handles=list(handles), loc="outside upper left", ncols=columns, columnspacing=1.2, borderpad=0.1)


def small_print(figure: Figure, text: str) -> None:
    """One line below the figure: which model, and what is not shown."""
    figure.supxlabel(cut(text, WORDS), x=0.01, ha="left", fontsize=SMALL)
