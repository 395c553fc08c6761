"""What `make package` would refuse, and that the lowest versions tried are the bounds that are promised."""

import importlib.util
import io
import re
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def package():
    spec = importlib.util.spec_from_file_location("make_package", Path(__file__).with_name("make_package.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


METADATA = (
    "Metadata-Version: 2.4\nName: evoquant\nVersion: 0.1.0\nLicense-Expression: MIT\n"
    "Description-Content-Type: text/markdown\nRequires-Dist: numpy>=2.0\n\n# evoquant\n"
)
PATHS = ["evoquant/__init__.py", "evoquant/py.typed", "tests/test_a.py", ".gitignore"]


def wheel(folder, names=("evoquant/__init__.py", "evoquant/py.typed"), metadata=METADATA):
    path, info = folder / "evoquant-0.1.0-py3-none-any.whl", "evoquant-0.1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
        for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE"):
            archive.writestr(f"{info}/{name}", metadata if name == "METADATA" else "")
    return path


def sdist(folder, names, *, mtime=0, order=False):
    path = folder / "evoquant-0.1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in sorted(names, reverse=order):
            member = tarfile.TarInfo(f"evoquant-0.1.0/{name}")
            member.mtime = mtime
            archive.addfile(member, io.BytesIO())
    return path


def test_a_wheel_as_it_should_be(package, tmp_path):
    assert package.wheel_faults(wheel(tmp_path), PATHS) == []


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["evoquant/__init__.py"], "the wheel lacks evoquant/py.typed"),
        ([*PATHS[:2], "tests/test_a.py"], "the wheel has tests/test_a.py, which does not belong there"),
    ],
)
def test_a_wheel_with_other_files(package, tmp_path, names, fault):
    assert package.wheel_faults(wheel(tmp_path, names), PATHS) == [fault]


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("numpy>=2.0", "numpy", "numpy has no lower bound"),
        ("numpy>=2.0", "numpy>=two", "requires-dist"),
        ("MIT", "the usual", "license"),
        ("text/markdown", "text/plain", "Description-Content-Type"),
        ("# evoquant\n", "", "no description"),
    ],
)
def test_metadata_that_is_wrong(package, tmp_path, before, after, fault):
    found = package.wheel_faults(wheel(tmp_path, metadata=METADATA.replace(before, after)), PATHS)
    assert any(fault.lower() in one.lower() for one in found), found


def test_an_sdist_without_its_tests(package, tmp_path):
    whole = ["evoquant/__init__.py", "evoquant/py.typed", "tests/test_a.py", "PKG-INFO", "setup.cfg"]
    assert package.sdist_faults(sdist(tmp_path, whole), PATHS) == []
    lacking = sdist(tmp_path, [name for name in whole if not name.startswith("tests")])
    assert package.sdist_faults(lacking, PATHS) == ["the sdist lacks tests/test_a.py"]


def test_an_sdist_whose_bytes_are_its_content(package, tmp_path):
    (tmp_path / "again").mkdir()
    first = package.settled(sdist(tmp_path, ["a", "b"], mtime=1), "7")
    again = package.settled(sdist(tmp_path / "again", ["a", "b"], mtime=2, order=True), "7")
    assert first.read_bytes() == again.read_bytes()


def pinned(text):
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    return {
        name.lower().replace("_", "-"): version for name, _, version in (one.partition("==") for one in lines) if name
    }


def test_the_lowest_versions_are_the_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = pinned((ROOT / "constraints-lowest.txt").read_text())
    for one in project["dependencies"]:
        name, bound = re.match(r"([\w-]+)>=([\d.]+)", one).groups()
        length = max(bound.count("."), found[name].count(".")) + 1
        padded = [[*map(int, text.split(".")), *[0] * length][:length] for text in (bound, found[name])]
        assert padded[0] == padded[1], (
            f"{one}: constraints-lowest.txt has {found[name]}; its head says how to make it anew"
        )


def test_the_constraints_keep_the_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = pinned((ROOT / "constraints.txt").read_text())
    for one in project["dependencies"]:
        name, bound = re.match(r"([\w-]+)>=([\d.]+)", one).groups()
        assert [*map(int, found[name].split("."))] >= [*map(int, bound.split("."))], one
