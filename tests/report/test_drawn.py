"""Tables on terminals of any width."""

import pytest
from rich import console as rich_console

from evoquant.report import drawn
from evoquant.report.table import Table

WORDS = "a rule that goes on and on, which nobody can read in a column of eight letters"
TABLE = Table(
    "Changes",
    ("Gen", "Fitness", "By", "What changed"),
    [("0", "1.0000", "random", "all FP32"), ("12", "3.2392", "mutation of #3", WORDS)],
    ("a note",),
    frozenset({0, 1}),
)


def lines(monkeypatch, capsys, width, table=TABLE):
    class Narrow(rich_console.Console):
        def __init__(self, **options):
            super().__init__(**options | {"width": width})

    monkeypatch.setattr(rich_console, "Console", Narrow)
    drawn.draw([table])
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_columns_stand_side_by_side_where_there_is_room(monkeypatch, capsys):
    found = lines(monkeypatch, capsys, 150)
    assert any("3.2392" in line and WORDS in line for line in found)


@pytest.mark.parametrize("width", [40, 80])
def test_words_go_below_their_figures_where_there_is_none(monkeypatch, capsys, width):
    found = lines(monkeypatch, capsys, width)
    assert max(map(len, found)) <= width
    place = next(number for number, line in enumerate(found) if "3.2392" in line)
    assert " ".join(found[place + 1 :]).split()[:5] == ["by", "mutation", "of", "#3;", "a"]
    assert WORDS in " ".join(" ".join(found[place + 1 :]).split())
    assert found[-2].strip() == "a note"


def test_a_table_without_words_at_its_end_keeps_its_columns(monkeypatch, capsys):
    table = Table("T", ("What", "Figure"), [(WORDS, "1.0")], (), frozenset({1}))
    found = lines(monkeypatch, capsys, 40, table)
    assert max(map(len, found)) <= 40 and any("1.0" in line for line in found)


def test_hostile_cells_stay_text(monkeypatch, capsys):
    table = Table("T", ("Gen", "What"), [("1", "[red]\x1b[2J" + WORDS * 2)], (), frozenset({0}))
    found = "\n".join(lines(monkeypatch, capsys, 60, table))
    assert "\x1b" not in found and "[red]" in found
