"""The live view on a real pseudo-terminal, whose output a small terminal of our own shows."""

import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest
from rich.cells import cell_len

from evoquant import api
from evoquant.report.dashboard import Board, Row, _lines, distinct_share, shortened, sparkline
from evoquant.report.screen import Beside, Live

CONFIGS = Path(__file__).parents[2] / "configs"
# Takes the terminal as its own, as a shell's command has it: so it gets Ctrl-C and the hang-up from there.
OWN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(2, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
)
ESCAPE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])")


class Terminal:
    """A screen that understands what a frame is drawn with; lines that are too long wrap, as on a real one."""

    def __init__(self, columns):
        self.columns, self.lines, self.row, self.column = columns, [""], 0, 0
        self.hidden = False

    def feed(self, text):
        place = 0
        while place < len(text):
            if found := ESCAPE.match(text, place):
                self._control(found[2], found[1])
                place = found.end()
                continue
            self._put(text[place])
            place += 1

    def _put(self, char):
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.row, self.column = self.row + 1, 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
        else:
            assert char.isprintable(), repr(char)
            if self.column >= self.columns:
                self._put("\n")
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + char + line[self.column + 1 :]
            self.column += 1

    def _control(self, what, number):
        if what == "A":
            self.row = max(self.row - int(number or 1), 0)
        elif what == "K":
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif what == "J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        else:
            assert what == "m", what


def size(handle, columns, rows):
    fcntl.ioctl(handle, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def start(columns, *words, rows=24, env=None):
    """The command with stderr on a new terminal of its own; its master's handle."""
    master, slave = pty.openpty()
    size(slave, columns, rows)
    command = [sys.executable, "-c", OWN_TERMINAL, sys.executable, "-m", "evoquant.cli", *map(str, words)]
    environment = {**os.environ, "TERM": "xterm", **(env or {})}
    process = subprocess.Popen(
        command, stdin=slave, stdout=subprocess.DEVNULL, stderr=slave, start_new_session=True, env=environment
    )
    os.close(slave)
    return process, master


def output(master, until=None):
    """All that comes until the terminal is closed, or until a text has come."""
    found = b""
    while until is None or until not in found:
        try:
            some = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not some:
            break
        found += some
    return found.decode()


def evolve(out, *more, generations=30):
    words = ["run", CONFIGS / "evolve.yaml", "--executor", "local", "--out", out, *more]
    return [*words, "--set", f"stop.generations={generations}", "--set", "search.population=20"]


def frames(text):
    return [ESCAPE.sub("", frame).replace("\r", "").splitlines() for frame in text.split("\x1b[J")]


@pytest.mark.parametrize(("columns", "env", "coloured"), [(80, {"NO_COLOR": ""}, True), (40, {"NO_COLOR": "1"}, False)])
def test_a_run_is_shown_and_leaves_a_plain_last_line(tmp_path, columns, env, coloured):
    began = time.monotonic()
    process, master = start(columns, *evolve(tmp_path / "run"), env=env)
    text = output(master)
    os.close(master)
    assert process.wait() == 0
    took = time.monotonic() - began
    said = ("search ended: ", "generation 30/30: fitness")  # not part of a frame, and broken by the terminal
    lines = [line for frame in frames(text) for line in frame if not line.startswith(said)]
    assert max(map(cell_len, lines)) < columns
    assert max(map(len, frames(text))) < 24
    shown = Terminal(columns)
    shown.feed(text)
    seen = "".join(shown.lines)  # as it is left
    assert seen.startswith("search ended: 30 generationsgeneration 30/30: fitness ")
    assert "elapsed" not in seen
    for part in (
        "evolve",
        "seed 0",
        "local, 1 worker",
        "elapsed",
        "evaluations",
        "best",
        "retention",
        "median",
        "cham",
    ):
        assert part in "\n".join(lines)
    assert "\x1b[?" not in text  # neither the cursor nor the screen is switched
    assert text.count("\x1b[J") <= took / 0.25 + took + 4  # four a second, the clock, messages and the end
    for write in text.split("\x1b[J")[1:-1]:
        assert write.startswith("\r\x1b[")  # over the frame before
    assert ("\x1b[36m" in text) == coloured


def test_a_dumb_terminal_gets_plain_lines(tmp_path):
    process, master = start(80, *evolve(tmp_path / "run", generations=4), env={"TERM": "dumb"})
    text = output(master)
    os.close(master)
    assert process.wait() == 0
    assert "\x1b" not in text
    assert "generation 4/4: fitness" in text


def test_ctrl_c_leaves_a_sane_terminal(tmp_path):
    process, master = start(80, *evolve(tmp_path / "run", generations=100_000))
    before = termios.tcgetattr(master)
    text = output(master, until=b"better")
    os.write(master, b"\x03")
    text += output(master)
    assert process.wait() == 130
    assert termios.tcgetattr(master) == before
    os.close(master)
    shown = Terminal(80)
    shown.feed(text)
    seen = "".join(shown.lines)
    assert "elapsed" not in seen
    assert re.search(r"interrupted after \d+ generations; continue with: evoquant resume", seen)
    assert shown.column == 0


def test_a_terminal_that_goes_away_does_not_end_the_run(tmp_path):
    process, master = start(80, *evolve(tmp_path / "run", generations=60))
    output(master, until=b"elapsed")
    os.close(master)  # the window is closed: SIGHUP, and every write fails
    process.wait(timeout=60)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["finished"]
    assert report["generations"] == 60


def test_a_terminal_that_gets_narrower(tmp_path):
    process, master = start(100, *evolve(tmp_path / "run", generations=100_000))
    output(master, until=b"better")
    size(master, 40, 12)
    text = "".join(output(master, until=b"elapsed") for _ in range(4))  # the first may have been under way
    os.write(master, b"\x03")
    text += output(master)
    os.close(master)
    assert process.wait() == 130
    last = [frame for frame in frames(text) if any("elapsed" in line for line in frame)][-1]
    assert 1 < len(last) < 12
    assert all(cell_len(line) < 40 for line in last)


class Screen(io.StringIO):
    """A stream that could be a terminal, of no size that can be found out."""

    encoding = "utf-8"

    def fileno(self):
        raise OSError


def watched(config, *overrides, hear=None, tmp_path=None):
    """A board that heard a small run; `hear` gets each step, too."""
    board = Board(time.monotonic())

    class Watcher:
        def generation(self, step):
            board.hear(step, time.monotonic())
            board.look(step)
            if hear is not None:
                hear(step)

        def message(self, text):
            pass

    api.run(CONFIGS / config, out=tmp_path / "run", overrides=["executor.kind=local", *overrides], observer=Watcher())
    return board


def text_of(board, columns=100, rows=40):
    return "\n".join(label + text for label, text in board.frame(time.monotonic(), columns, rows))


def test_figures_are_the_journals(tmp_path):
    steps = []
    small = ("stop.generations=8", "search.population=20", "stop.evaluations=1000", "stop.stagnation=50")
    board = watched("evolve.yaml", *small, hear=steps.append, tmp_path=tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "run" / "journal.jsonl").read_text().splitlines()]
    shown, champion = text_of(board), lines[-1]["champion"]
    assert f"fitness {champion['fitness']:.4f}" in shown
    assert f"retention {champion['retention'][0]:.2%}" in shown
    assert f"median {lines[-1]['summary']['fitness']['median']:.4f}" in shown
    assert f"{lines[-1]['evaluations']['asked']:,} of 1,000 evaluations" in shown
    assert f"{steps[-1].since_improvement} of 50 generations without" in shown
    fitness = [line["champion"]["fitness"] for line in lines]
    better = [i for i in range(1, 8) if fitness[i] > fitness[i - 1]]
    assert f"generation {better[-1] + 1}" in shown
    assert f"{fitness[better[-1] - 1]:.4f} → {fitness[better[-1]]:.4f}" in shown
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    train = report["champion"]["scores"]["train"]
    if train["fitness"] == champion["fitness"]:
        assert f"{train['share_of_optimum']:.2%} of optimum" in shown
    genes = {tuple(row) for row in lines[-1]["population"]["genes"]}
    assert distinct_share(steps[-1]) == (len(genes) / lines[-1]["population"]["size"], False)


@pytest.mark.parametrize(
    ("config", "size", "part"),
    [
        ("nsga2.yaml", "search.population=20", "archive "),
        ("map_elites.yaml", "search.batch=20", "archive "),
        ("tree.yaml", "search.population=20", "distinct"),
        ("level_switch.yaml", "search.offspring=10", "distinct"),
    ],
)
def test_every_kind_of_search_is_shown(tmp_path, config, size, part):
    board = watched(config, "stop.generations=4", size, tmp_path=tmp_path)
    assert part in text_of(board)
    assert "generation 4/4" in text_of(board)


def test_a_replay_is_shown(tmp_path):
    shown = text_of(watched("journey.yaml", tmp_path=tmp_path))
    lines = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
    assert f"generation {len(lines)}/{len(lines)}" in shown
    best = json.loads(lines[-1])["champion"]
    assert f"retention {best['retention'][best['on']]:.2%}" in shown
    share = json.loads((tmp_path / "run" / "report.json").read_text())["champion"]["scores"]["test"]["share_of_optimum"]
    assert f"{share:.2%} of optimum" in shown


def test_a_large_population_is_looked_through_in_part(tmp_path):
    steps = []
    watched("evolve.yaml", "stop.generations=1", "search.population=3000", hear=steps.append, tmp_path=tmp_path)
    share, part = distinct_share(steps[0])
    assert part
    assert 0.9 < share <= 1


@pytest.mark.parametrize("columns", [1, 5, 19, 20, 30, 40, 60, 80, 200])
@pytest.mark.parametrize("rows", [1, 3, 10, 50])
def test_a_frame_fits_any_size(board, columns, rows):
    lines = board.frame(time.monotonic(), columns, rows)
    assert 1 <= len(lines) <= rows
    assert all(cell_len(label + text) <= columns for label, text in lines)


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    return watched("evolve.yaml", "stop.generations=3", "search.population=10", tmp_path=tmp_path_factory.mktemp("b"))


def test_least_important_rows_go_first(board):
    def labels(rows):
        return [line.split()[0] for line in text_of(board, 80, rows).splitlines()]

    assert labels(1) == ["best"]
    assert labels(2) == ["generation", "best"]
    assert labels(3) == ["generation", "best", "population"]
    assert {"run", "champion", "diversity", "speed"} < set(labels(20))


def test_steering_characters_stay_text():
    (line,) = _lines(Row("champion", ("a\tb\nc",), 1, cut=True), 80)
    assert line == ("champion   ", "a b c")
    assert shortened("宽" * 30, 20) == "宽" * 8 + "..."
    stream = Screen()
    Live(stream, lambda step, pace: "").message("\x1b[2Jname\x07")
    assert "\\x1b[2Jname\\x07\n" in stream.getvalue().replace("\x1b[K", "")


@pytest.mark.parametrize(
    ("values", "width", "wanted"),
    [
        ([0, 7], 10, "▁█"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 10, "▁▂▃▄▅▆▇█"),
        ([0, 1, 2, 3, 4, 5, 6, 7], 2, "▁█"),
        ([3, 3], 10, "▁▁"),
        ([float("nan"), 0, 1], 10, " ▁█"),
    ],
)
def test_sparkline(values, width, wanted):
    finite = [value for value in values if value == value]
    assert sparkline(values, min(finite), max(finite), width) == wanted


def test_what_others_write_appears_above_the_frame(monkeypatch):
    stream = Screen()
    with Live(stream, lambda step, pace: "end") as view:
        beside = Beside(stream, view)
        beside.write("half a ")
        assert "half" not in stream.getvalue()
        beside.write("\x1b[31mline\x1b[0m\nrest")
        assert "half a line\n" in stream.getvalue().replace("\x1b[K", "")
        assert beside.rest() == "rest"
        beside._owner = -1  # as in a forked child
        beside.write("child")
    assert "child" in stream.getvalue()


def test_a_stream_that_fails_is_left_alone():
    class Broken(Screen):
        writes = 0

        def write(self, text):
            Broken.writes += 1
            raise OSError(5, "gone")

    with Live(Broken(), lambda step, pace: "") as view:
        view.message("one")
        view.message("two")
    assert Broken.writes == 1


def test_hangups_are_ignored_only_meanwhile():
    from evoquant.report.screen import _no_hangup

    before = signal.getsignal(signal.SIGHUP)
    with _no_hangup():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == before
    thread = threading.Thread(target=lambda: _no_hangup().__enter__())  # signals belong to the main thread
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGHUP) == before
