"""README.md and docs/: their figures come from rows, their commands exist."""

import re
import shlex
from pathlib import Path

import pytest

from evoquant.report.figures_table import FIGURES, TABLES, Catalogue
from evoquant.report.inserted import README, SUFFIX, rendered, sources, typed_figures

ROOT = Path(__file__).parents[1]
SOURCES = sources(ROOT)
PLAIN = [path for path in sorted((ROOT / "docs").glob("*.md")) if path not in {*SOURCES, *SOURCES.values()}]

# (file, figure) → why it may be typed: what is no result has no row.
TYPED = {
    ("README", "3.11"): "the oldest Python that is supported: pyproject.toml",
    ("README", "10,000"): "how many generations the soak test runs: tests/faults/test_soak.py",
    ("campaigns", "0.90"): "the range of retention that the hypervolume is taken over",
    ("campaigns", "1,000"): "from this population on rules are bred by compiled code: evoquant/search/breeding.py",
    ("campaigns", "10,000"): "the size of a problem whose gap tests/bounds holds",
    ("campaigns", "0.1%"): "the gap that tests/bounds holds",
    **{("compatibility", figure): "an example of versions" for figure in ("1.0", "0.2", "0.3", "0.4")},
    **{("compatibility", figure): "what tests/package/installed.py tries" for figure in ("3.11", "3.13")},
    **{("remote", figure): "of the version of a server that was tried" for figure in ("5.2", "16.2", "3.7")},
    ("deploy", "1%"): "the tolerance of verify in bytes",
    ("deploy", "1e-4"): "the tolerance of verify in outputs",
    ("deploy", "1e-3"): "the tolerance of verify in retention",
    ("deploy", "4%"): "the tolerance of verify for llama.cpp in outputs",
    ("deploy", "5e-3"): "the tolerance of verify for llama.cpp in retention",
    ("networks", "4.4"): "the version of the Jargon File",
    ("results", "2%"): "the share of rows that make results measures again",
    ("results", "65,536"): "the size of a frozen table: tests/bench/test_table.py",
    ("results", "262,144"): "the size of a frozen table: tests/bench/test_table.py",
    ("results", "1,000"): "the population of the contest",
    ("results", "100,000"): "the population of the contest",
    ("results", "0.1"): "the seconds that an item sleeps",
}


@pytest.fixture(scope="module")
def catalogue():
    return Catalogue(ROOT / "results")


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_what_is_committed_is_what_the_rows_give(source, catalogue):
    target = SOURCES[source]
    assert target.read_text(encoding="utf-8") == rendered(source, catalogue), (
        f"{target.relative_to(ROOT)} is rendered from docs/{source.name}: edit that, then "
        "`python experiments/results.py --render`"
    )


def test_the_readme_has_a_source():
    assert ROOT / f"docs/{README}{SUFFIX}" in SOURCES


@pytest.mark.parametrize("path", [*SOURCES, *PLAIN], ids=lambda path: path.name)
def test_no_result_is_typed(path):
    name = path.name.removesuffix(SUFFIX).removesuffix(".md")
    found = [typed for typed in typed_figures(path) if (name, typed.figure) not in TYPED]
    assert not found, "insert it from a row, or say in TYPED why none is needed:\n" + "\n".join(map(str, found))


def test_what_may_be_typed_is_typed():
    there = {
        (path.name.removesuffix(SUFFIX).removesuffix(".md"), typed.figure)
        for path in [*SOURCES, *PLAIN]
        for typed in typed_figures(path)
    }
    assert not TYPED.keys() - there, "left over"


RESULTS = (
    *("reaches 98.6% of it", "is 12 times faster", "3.41x smaller", "on 19 of 20 seeds", "scores 3.8843", "1.7e-6 off"),
    *("in 12,345 steps", "| 7.47 | 6.94 |", "**93.7%**", "(0.36)", "5 of the 7", "0.4M rules", "ahead by 5 %"),
)
NO_RESULTS = (
    *(
        "INT4 at group 128",
        "`stop.passes=80.5`",
        "[x](a-1.5.md)",
        "{{ suite.optimum_test }}",
        "20 seeds",
        "Gen 1 → Gen 6",
    ),
    *("```sh\nx --share 0.02\n```", "    fitness = 0.1 · retention", "W8A8, 2 to 32 bits"),
)


@pytest.mark.parametrize("text", RESULTS)
def test_a_typed_result_is_seen(tmp_path, text):
    source = tmp_path / f"x{SUFFIX}"
    source.write_text(f"# Title\n\nIt {text}, as measured.\n", encoding="utf-8")
    assert typed_figures(source)


@pytest.mark.parametrize("text", NO_RESULTS)
def test_what_is_no_result_is_left_alone(tmp_path, text):
    source = tmp_path / f"x{SUFFIX}"
    source.write_text(f"# Title\n\n{text}\n", encoding="utf-8")
    assert typed_figures(source) == []


@pytest.mark.parametrize("topic", FIGURES)
def test_every_figure_is_a_text(topic, catalogue):
    for name, text in catalogue.topic(topic).items():
        assert isinstance(text, str), name
        assert text, name
        assert "nan" not in text, name


@pytest.mark.parametrize("name", TABLES)
def test_every_table_is_whole(name, catalogue):
    lines = catalogue.table(name).splitlines()
    assert len(lines) > 3
    assert len({line.count("|") for line in lines}) == 1


def commands(path):
    """Every command line in a document's shell blocks, without its comment."""
    for block in re.findall(r"^```sh\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield line, words


def fault_of(words):
    """Why the command line would not understand these words, None where it does."""
    import typer

    from evoquant.cli import app

    command, words = typer.main.get_command(app), words[1:]
    while hasattr(command, "commands"):
        if words[:1] and words[0] in command.commands:
            command, words = command.commands[words[0]], words[1:]
        elif words[:1] and not words[0].startswith("-"):
            return f"there is no command {words[0]!r}"
        else:
            break
    context = command.context_class(command, info_name=command.name)
    try:
        _, left, _ = command.make_parser(context).parse_args(list(words))
    except Exception as error:
        return str(getattr(error, "message", error))
    return f"what is {left[0]!r}?" if left else None


@pytest.mark.parametrize("target", [*SOURCES.values(), *PLAIN], ids=lambda path: path.name)
def test_every_command_exists(target):
    found = list(commands(target))
    faults = [f"{line}: {fault}" for line, words in found if words[0] == "evoquant" and (fault := fault_of(words))]
    assert not faults, "\n".join(faults)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    goals = {word for _, words in found if words[0] == "make" for word in words[1:] if "=" not in word}
    assert not [goal for goal in goals if f"\n{goal}:" not in makefile]


@pytest.mark.parametrize("line", ["evoquant dance", "evoquant run x.yaml --sat 3", "evoquant version one two"])
def test_a_wrong_command_is_seen(line):
    assert fault_of(shlex.split(line))


def test_every_script_that_is_named_exists():
    for path in [*SOURCES.values(), *PLAIN]:
        for script in re.findall(r"python (experiments/\w+\.py)", path.read_text(encoding="utf-8")):
            assert (ROOT / script).is_file(), f"{path.name}: {script}"
