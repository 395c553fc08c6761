"""The catalogue of named figures and tables that documents take from the rows of results/.

A name is `TOPIC.REST`; a topic's figures are computed together, from committed rows alone, and formatted once, here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from evoquant.errors import InputError, suggestion
from evoquant.report import figures_costs, figures_networks, figures_speed, figures_suite
from evoquant.report.study import read_rows

Rows = Callable[[str], Sequence[dict[str, Any]]]

FIGURES: dict[str, Callable[[Rows], dict[str, str]]] = {
    "suite": figures_suite.suite,
    "free_evolution": figures_suite.free_evolution,
    "searches": figures_suite.searches,
    "hypervolume": figures_suite.hypervolume,
    "transfer": figures_suite.transfer,
    "digits": figures_networks.digits,
    "own_models": figures_networks.own_models,
    "leave_one_out": figures_networks.leave_one_out,
    "onnx": figures_networks.onnx,
    "export": figures_networks.export,
    "tabular": figures_speed.tabular,
    "performance": figures_speed.performance,
    "costs": figures_costs.costs,
}
TABLES: dict[str, Callable[[Rows], list[tuple[str, ...]]]] = {
    "free_evolution": figures_suite.free_evolution_table,
    "transfer": figures_suite.transfer_table,
    "digits": figures_networks.digits_table,
    "own_models": figures_networks.own_models_table,
    "tabular": figures_speed.tabular_table,
}


class Catalogue:
    """Named figures and tables of the rows in one folder."""

    def __init__(self, results: Path) -> None:
        self._rows = functools.cache(lambda stem: read_rows(results / f"{stem}.jsonl"))
        self._topics: dict[str, dict[str, str]] = {}

    def figure(self, name: str) -> str:
        """The figure of this name, as text.

        Raises:
            InputError: there is none.
        """
        topic, _, rest = name.partition(".")
        if topic not in FIGURES:
            raise InputError(
                f"no figure is called {name!r}: topics are {', '.join(FIGURES)}.{suggestion(topic, FIGURES)}"
            )
        figures = self.topic(topic)
        if rest not in figures:
            raise InputError(f"no figure is called {name!r}.{suggestion(rest, figures)}")
        return figures[rest]

    def topic(self, topic: str) -> dict[str, str]:
        """All figures of a topic."""
        if topic not in self._topics:
            self._topics[topic] = FIGURES[topic](self._rows)
        return self._topics[topic]

    def table(self, name: str) -> str:
        """The table of this name in Markdown, without a newline at its end.

        Raises:
            InputError: there is none.
        """
        if name not in TABLES:
            raise InputError(f"no table is called {name!r}; known: {', '.join(TABLES)}.{suggestion(name, TABLES)}")
        header, *lines = TABLES[name](self._rows)
        return "\n".join(_line(cells) for cells in (header, ("---",) * len(header), *lines))


def _line(cells: Sequence[str]) -> str:
    return "|" + "|".join(f" {cell} " if cell else " " for cell in cells) + "|"
