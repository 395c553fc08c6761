"""Exporters of somebody's own: on what they are called, what is refused, what is written."""

import sys

import pytest

import evoquant
from evoquant.errors import InputError
from evoquant.export.own_exporter import content_of, exporter_of, write_content
from evoquant.testing import check_exporter

ME = "own_exporters"
sys.modules[ME] = sys.modules[__name__]


class Text:
    takes = "heuristic"

    def export(self, subject):
        return f"{subject.champion.genome.text}\n{', '.join(subject.menu.names)}\n"


class Widths:
    takes = "allocation"

    def export(self, subject):
        lines = "".join(f"{layer} {width}\n" for layer, width in subject.widths.items())
        return {"widths.txt": lines, "sub/size.bin": len(lines).to_bytes(4, "little")}


class Needs:
    takes = "recipe"

    def export(self, subject):
        return subject.recipe.model


class Raising(Text):
    def export(self, subject):
        raise KeyError("lost")


class NoTakes(Text):
    takes = "heuristics"


class Argued(Text):
    def __init__(self, needed):
        pass


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    (folder / "own.yaml").write_text("search: {population: 8}\nstop: {generations: 1}\nexecutor: {kind: local}\n")
    return evoquant.run(folder / "own.yaml", out=folder / "run").path


def test_a_heuristic_goes_to_stdout_or_a_file(found, cli, tmp_path):
    out, _, code = cli("export", found, "--to", f"{ME}:Text")
    assert code == 0 and out.endswith("INT2, INT4, INT8, FP16, FP32\n")
    assert evoquant.load(found).export(Text, tmp_path / "text") == ([tmp_path / "text"], [])
    assert (tmp_path / "text").read_text() == out


def test_an_allocation_is_of_the_model_that_is_named(found, cli, tmp_path):
    _, said, code = cli("export", found, "--to", f"{ME}:Widths")
    assert code == 2
    assert said == f"evoquant: {ME}:Widths takes one model's allocation: name the model with --profile PROFILE.\n"
    given = ("export", found, "--to", f"{ME}:Widths", "--profile", "seed/test")
    assert "makes files: name where with -o OUT" in cli(*given)[1]
    assert cli(*given, "-o", tmp_path / "out")[2] == 0
    lines = (tmp_path / "out" / "widths.txt").read_text()
    csv, _, _ = cli("export", found, "--to", "csv", "--profile", "seed/test")
    assert [line.split() for line in lines.splitlines()] == [row.split(",")[:2] for row in csv.splitlines()[1:]]
    assert int.from_bytes((tmp_path / "out" / "sub" / "size.bin").read_bytes(), "little") == len(lines)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Needs", "a search on profiles has no weights to quantize"),
        ("Raising", "Raising: export raised KeyError: 'lost'"),
        ("NoTakes", "`takes` is 'heuristics'; it is heuristic, allocation, recipe. Did you mean 'heuristic'?"),
        ("Argued", "making it raised TypeError"),
        ("Nope", "cannot be imported"),
        ("pytest", "lacks export(subject), so it is no exporter"),
    ],
)
def test_one_that_does_not_fit_is_refused_by_name(found, cli, tmp_path, name, message):
    out, err, code = cli("export", found, "--to", f"{ME}:{name}", "-o", tmp_path / "out")
    assert (code, out) == (2, "") and message in err
    assert not (tmp_path / "out").exists()


def test_verify_and_lint_say_that_they_know_nothing(found, cli):
    assert "evoquant does not know what runs what it writes" in cli("verify", found, "--to", f"{ME}:Needs")[1]
    assert "Nope: cannot be imported" in cli("lint", found, "--for", f"{ME}:Nope")[1]


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "", "a\\b", "a\nb", 3])
def test_files_stay_in_their_folder(tmp_path, name):
    with pytest.raises(InputError, match="is no name of a file within the folder"):
        write_content({"fine": "1", name: "2"}, "Own", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [None, 3, {}, {"a": 3}, ["a"]])
def test_content_is_text_bytes_or_files(tmp_path, content):
    with pytest.raises(InputError, match=r"^Own: "):
        write_content(content, "Own", tmp_path / "out")


def test_an_object_is_taken_as_it_is(found):
    own = Text()
    assert exporter_of(own) == (own, "Text")
    assert content_of(found, own)[0].startswith(evoquant.load(found).genome.text)
    check_exporter(Text)
    check_exporter(Widths)
