"""Deprecated names, as docs/compatibility.md promises: each says since when, until when, and what to use instead.

Found in the sources, so that none is forgotten: `@deprecated("…")` and `warnings.warn("…", DeprecationWarning)`.
"""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAID = re.compile(r"^(\S+) is deprecated since (\d+)\.(\d+) and goes in (\d+)\.(\d+): use .+\.$")
KINDS = ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
MINORS_KEPT = 2


def warned(tree):
    """`(line, message)` of everything that a module deprecates; '' where the message is not plain text."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func).rpartition(".")[2]
        kinds = [
            ast.unparse(one) for one in (*node.args[1:2], *(k.value for k in node.keywords if k.arg == "category"))
        ]
        if called == "deprecated" or (called == "warn" and set(kinds) & set(KINDS)):
            text = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
            yield node.lineno, str(text)


def faults(source, version, changelog, public):
    """What is wrong with the deprecations of a module; `version` is that of the package, `(major, minor)`."""
    for line, message in warned(ast.parse(source)):
        found = SAID.match(message)
        if not found:
            yield f"{line}: says {message!r}, not 'NAME is deprecated since X.Y and goes in X.Z: use OTHER.'"
            continue
        name, since, goes = found[1], tuple(map(int, found.group(2, 3))), tuple(map(int, found.group(4, 5)))
        if goes <= version:
            yield f"{line}: {name} was to go in {goes[0]}.{goes[1]}"
        if goes[0] == since[0] and goes[1] - since[1] < MINORS_KEPT:
            yield f"{line}: {name} goes after less than {MINORS_KEPT} minor versions"
        if f"`{name}`" not in changelog:
            yield f"{line}: CHANGELOG.md does not name `{name}`"
        if name.rpartition(".")[2] not in public:
            yield f"{line}: {name} is gone from public.txt already"


def test_deprecated_names_keep_the_promise():
    version = tuple(map(int, tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"].split(".")[:2]))
    changelog, public = (ROOT / "CHANGELOG.md").read_text(), (ROOT / "tests/api/public.txt").read_text()
    found = [
        f"{path.relative_to(ROOT)}:{fault}"
        for path in sorted((ROOT / "evoquant").rglob("*.py"))
        if re.search("deprecated|Warning", source := path.read_text(encoding="utf-8"))
        for fault in faults(source, version, changelog, public)
    ]
    assert not found, "\n" + "\n".join(found)


GOOD = "evoquant.old is deprecated since 0.2 and goes in 0.4: use evoquant.new."


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (f"@deprecated({GOOD!r})\ndef old(): ...", None),
        (f"def f():\n    warnings.warn({GOOD!r}, DeprecationWarning, stacklevel=2)", None),
        ("warnings.warn('an estimate', RuntimeWarning)", None),
        ("@typing_extensions.deprecated('old')\ndef old(): ...", "says 'old'"),
        ("warn(text, category=FutureWarning)", "says ''"),
        (f"@deprecated({GOOD.replace('0.4', '0.3')!r})\ndef old(): ...", "less than 2 minor versions"),
        (f"@deprecated({GOOD.replace('0.2', '0.0').replace('0.4', '0.2')!r})\ndef old(): ...", "was to go in 0.2"),
        (f"@deprecated({GOOD.replace('.old', '.older')!r})\ndef older(): ...", "CHANGELOG.md does not name"),
        (f"@deprecated({GOOD.replace('.old', '.gone')!r})\ndef gone(): ...", "gone from public.txt"),
    ],
)
def test_a_broken_promise_is_found(source, complaint):
    found = list(faults(source, (0, 2), "`evoquant.old` `evoquant.gone`", "def old() def older()"))
    assert found == [] if complaint is None else len(found) == 1 and complaint in found[0]
