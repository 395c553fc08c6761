import datetime
import random
import tempfile
import time
from pathlib import Path

import pytest

from evoquant.errors import InputError
from evoquant.export import TARGETS
from evoquant.testing import ConformanceError, check_exporter
from evoquant.testing.exporters import example_subject


class Ours:
    """A target of evoquant's own as an exporter."""

    def __init__(self, name):
        self.target = TARGETS[name]
        self.takes = "allocation" if self.target.one_model else "heuristic"

    def export(self, subject):
        return self.target.render(subject.champion, profile=subject.profile, menu=subject.menu)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Some of these write where they are."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_exporter_conforms(name):
    check_exporter(Ours(name))


class Widths:
    """A sound one, which each of those below breaks in one way."""

    takes = "allocation"

    def export(self, subject):
        return "".join(f"{layer} {width}\n" for layer, width in subject.widths.items())


class Codes:
    """A sound one of a recipe's codes: a file for each layer, and a table of contents."""

    takes = "recipe"

    def export(self, subject):
        layers = {layer.name: subject.recipe.values(layer).tobytes() for layer in subject.recipe.layers}
        weights = {name: subject.network.weight(name).shape for name in layers}
        files = {f"layers/{place}.bin": data for place, data in enumerate(layers.values())}
        return {"contents.txt": "\n".join(map(repr, weights)), **files}


@pytest.mark.parametrize("exporter", [Widths, Widths(), Codes])
def test_an_exporter_of_ones_own_conforms(exporter):
    check_exporter(exporter)


def test_a_subject_of_ones_own_is_taken():
    class Tall(Widths):
        def export(self, subject):
            assert subject is mine
            return super().export(subject)

    mine = example_subject("allocation")
    check_exporter(Tall, mine)


class Undecided(Widths):
    takes = "anything"


class Listed(Widths):
    def export(self, subject):
        return super().export(subject).splitlines()


class Numbered(Widths):
    def export(self, subject):
        return {"a.txt": 1}


class Escaping(Widths):
    def export(self, subject):
        return {"../a.txt": super().export(subject)}


class Rooted(Widths):
    def export(self, subject):
        return {"/tmp/a.txt": super().export(subject)}


class Empty(Widths):
    def export(self, subject):
        return {}


class Broken(Widths):
    def export(self, subject):
        return "\ud800"


class Dated(Widths):
    def export(self, subject):
        return f"# {datetime.datetime.now(tz=datetime.UTC):%Y-%m-%d}\n" + super().export(subject)


class Stamped(Widths):
    def export(self, subject):
        return f"# made at {int(time.time())}\n" + super().export(subject)


class Named(Widths):
    """Marks each file with a number of its own."""

    def export(self, subject):
        return f"# {id(object())}-{next(counter)}\n" + super().export(subject)


counter = iter(range(1000))


class Tossed(Widths):
    def export(self, subject):
        return f"# {random.random()}\n" + super().export(subject)


class Writing(Widths):
    def export(self, subject):
        text = super().export(subject)
        Path("widths.txt").write_text(text)
        return text


class Elsewhere(Widths):
    def export(self, subject):
        with tempfile.NamedTemporaryFile("w", delete=False) as stream:
            stream.write("left behind")
        made.append(Path(stream.name))
        return super().export(subject)


made = []


class Changing(Widths):
    def export(self, subject):
        subject.champion.provenance["exported"] = True
        return super().export(subject)


class Overwriting(Codes):
    """Scales the network's weights where they are."""

    def export(self, subject):
        for layer in subject.widths:
            subject.network.weight(layer)[...] *= 0.5
        return super().export(subject)


class Fragile(Widths):
    """Trips over names."""

    def export(self, subject):
        return "".join("{} {}\n".format(*f"{layer}|{width}".split("|")) for layer, width in subject.widths.items())[
            : -1 if all(layer.count("|") == 0 for layer in subject.widths) else 1 // 0
        ]


BROKEN = {
    Undecided: "takes: 'anything', expected one of heuristic, allocation, recipe",
    Listed: "a list, not text, bytes or a mapping",
    Numbered: "a int in 'a.txt', not text or bytes",
    Escaping: r"'\.\./a\.txt' is no path within the folder",
    Rooted: "'/tmp/a.txt' is no path within the folder",
    Empty: "a folder of no files",
    Broken: "text that UTF-8 cannot hold",
    Dated: "is the time of now",
    Stamped: "is the time of now",
    Named: "other bytes the second time",
    Tossed: "the global `random` module",
    Writing: r"writes files by itself: .*widths\.txt",
    Elsewhere: "writes files by itself",
    Changing: "changes its subject",
    Overwriting: "changes its subject",
}


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.__name__)
def test_the_suite_catches_each_sort_of_broken_exporter(broken):
    with pytest.raises(ConformanceError, match=BROKEN[broken]):
        check_exporter(broken)
    for path in made:
        path.unlink(missing_ok=True)


def test_an_exporter_that_trips_over_names_is_caught_and_one_that_refuses_them_is_not():
    with pytest.raises(ZeroDivisionError) as caught:
        check_exporter(Fragile)
    assert "Names from a stranger's file" in caught.value.__notes__[0]

    class Refusing(Widths):
        def export(self, subject):
            if any("|" in layer for layer in subject.widths):
                raise InputError("a table has no place for a | in a name; rename the layer.")
            return super().export(subject)

    check_exporter(Refusing)


def test_temporary_files_that_are_gone_are_nobodys_business():
    class Temporary(Widths):
        def export(self, subject):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "a"
                path.write_text(super().export(subject))
                return path.read_bytes()

    check_exporter(Temporary)
