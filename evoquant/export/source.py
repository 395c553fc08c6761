"""What the exporters of source code share: a rule resolved for one menu, and text that cannot break out of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evoquant.errors import InputError, PrecisionError, suggestion
from evoquant.files import canonical_json
from evoquant.genomes.rule import Rule
from evoquant.quantization.precision import SEED_MENU, Menu, Precision
from evoquant.scoring.problem import PER_BIT, SCALAR_SIGNALS, WIDTH_SIGNALS, narrower_width, rule_signals

if TYPE_CHECKING:
    from evoquant.campaign.champion import Champion


@dataclass(frozen=True)
class PlannedRung:
    """One rung.

    Attributes:
        signal: as the rule writes it.
        names: the signal's possible names in a profile, the first known one counts: a rule written with `INT8` reads
            the losses of `INT8-channel` where the menu has that instead.
        above: finite.
        width: a name of the menu.
        step: the width of a price (`loss_per_bit`, …) and the next wider one; None for other signals.
    """

    signal: str
    names: tuple[str, ...]
    above: float
    width: str
    step: tuple[Precision, Precision] | None = None

    @property
    def price(self) -> str | None:
        """What a price is made of (`loss`, `divergence`, `fisher`); None for other signals."""
        return PER_BIT[self.signal.partition(":")[0]] if self.step else None


@dataclass(frozen=True)
class Plan:
    """A rule with all its widths resolved to names of `menu`; fields as in `Rule`, types sorted."""

    menu: Menu
    protected: tuple[str, ...]
    protected_width: str | None
    edges: float
    edge_width: str | None
    rungs: tuple[PlannedRung, ...]
    otherwise: str

    def words(self) -> list[str]:
        """The rule, a line for each step."""
        lines = []
        if self.protected_width is not None:
            lines.append(f"type {', '.join(self.protected)}: {self.protected_width}")
        if self.edge_width is not None:
            lines.append(f"position < {self.edges!r} or > 1 - {self.edges!r}: {self.edge_width}")
        lines += [f"{rung.signal} > {rung.above!r}: {rung.width}" for rung in self.rungs]
        lines.append(f"else: {self.otherwise}")
        for kind in dict.fromkeys(rung.price for rung in self.rungs if rung.price):
            what = "-ln(1 - s)" if kind == "loss" else kind
            lines.append(f"where {kind}_per_bit:W is {_PRICE[0]}")
            lines.append(f"{what} {_PRICE[1]}")
        return lines

    @property
    def priced(self) -> bool:
        """Whether a rung reads a price."""
        return any(rung.step for rung in self.rungs)


_PRICE = (
    "what a step down from the next wider width of the menu to W costs: the rise of",
    "for each bit per weight, scales counted, that the whole model saves.",
)


def plan_of(champion: Champion, target: str, menu: Menu | None) -> Plan:
    """The champion's rule resolved for `menu`, by default the one it was evolved with.

    Raises:
        InputError: the genome is no rule, the menu lacks a width of the rule, or a figure of it is not finite.
    """
    rule = champion.genome
    if not isinstance(rule, Rule):
        raise InputError(
            f"{target} exports rules and trees, and this champion is neither ({one_line(rule.text)}); export what it "
            f"gives to one model with --to csv --profile PROFILE, or the genome as data with --to json."
        )
    if menu is None:
        menu = own_menu(champion)

    def width(name: str) -> str:
        return menu.names[menu.resolve(name)]

    return Plan(
        menu=menu,
        protected=tuple(sorted(rule.protected)),
        protected_width=None if rule.protected_width is None else width(rule.protected_width),
        edges=_finite(rule.edges, "edges"),
        edge_width=None if rule.edge_width is None else width(rule.edge_width),
        rungs=tuple(
            PlannedRung(
                r.signal,
                _signal_names(r.signal, menu),
                _finite(r.above, r.signal),
                width(r.width),
                _step(r.signal, menu),
            )
            for r in rule.rungs
        ),
        otherwise=width(rule.otherwise),
    )


def own_menu(champion: Champion) -> Menu:
    """The menu that the champion was evolved with, or the nominal widths where it does not say."""
    names = champion.provenance.get("menu")
    if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
        return Menu.parse(names)
    return SEED_MENU


def _finite(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise InputError(f"the rule's figure for {one_line(what)} is {value}, which no source code can hold.")
    return float(value)


def has_scales(width: Precision) -> bool:
    """Whether tensors of this width have scales, whose number depends on the shape."""
    return width.granularity not in ("nominal", "none")


def _step(signal: str, menu: Menu) -> tuple[Precision, Precision] | None:
    if signal.partition(":")[0] not in PER_BIT:
        return None
    narrow = narrower_width(signal, menu)
    return menu.precisions[narrow], menu.precisions[narrow + 1]


def _signal_names(signal: str, menu: Menu) -> tuple[str, ...]:
    kind, colon, width = signal.partition(":")
    if signal in SCALAR_SIGNALS:
        return (signal,)
    if kind in PER_BIT and colon:
        return (f"{kind}:{menu.names[narrower_width(signal, menu)]}",)
    if not colon or kind not in WIDTH_SIGNALS:
        raise InputError(f"the rule reads an unknown signal {signal!r}.{suggestion(signal, rule_signals(menu))}")
    Precision.parse(width)
    try:
        meant = menu.names[menu.resolve(width)]
    except PrecisionError:
        return (signal,)
    return (signal,) if meant == width else (signal, f"{kind}:{meant}")


def provenance_lines(champion: Champion) -> list[str]:
    """Scores and provenance, one line each, as `one_line` makes them."""
    lines = []
    for split, figures in champion.scores.items():
        shown = ", ".join(f"{name} {value:.6g}" for name, value in figures.items() if isinstance(value, (int, float)))
        lines.append(f"{split}: {shown}")
    for key, value in champion.provenance.items():
        lines.append(f"{key}: {value if isinstance(value, str) else canonical_json(value)}")
    return [one_line(line) for line in lines]


def one_line(text: str) -> str:
    """`text` for a comment: whatever is not printable (line breaks, direction marks, …) is written as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
