"""Tables of deployment: what the linter found in a recipe, and what targets there are."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from evoquant.profiles.targets import TARGETS
from evoquant.report.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH = 48  # of a message, so that tables fit 100 columns
_LONGEST = 34  # of a layer's name on one line
_EXPRESSES, _EXECUTES, _VERIFIED = 29, 25, 15


def lint_table(findings: Sequence[dict[str, Any]], target: str) -> Table:
    """The linter's findings, errors first.

    Args:
        findings: `layer`, `severity` and `message` of each, as plain data.
        target: for the title.
    """
    rows: list[tuple[str, ...]] = []
    for finding in sorted(findings, key=lambda finding: str(finding["severity"])):
        layer = finding["layer"]
        name = "" if layer is None else "\n".join(textwrap.wrap(layer, _LONGEST, break_on_hyphens=False))
        rows.append((finding["severity"], name, textwrap.fill(finding["message"], _WIDTH)))
    errors = sum(row[0] == "error" for row in rows)
    warnings = len(rows) - errors
    verdict = "can be deployed as it is" if not errors else "cannot be deployed as it is"
    title = f"{target}: {verdict} ({_count(errors, 'error')}, {_count(warnings, 'warning')})"
    return Table(title, ("Severity", "Layer", "What, and what can be had instead"), rows)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def targets_table(exported: Mapping[str, str]) -> Table:
    """Deployment targets: what each can express, where it runs, and with which versions that was verified.

    Args:
        exported: target → ending of its main file; empty for a folder.
    """
    rows = []
    for name, target in TARGETS.items():
        ending = exported[name]
        versions = "\n".join(f"{package}\n  {version}" for package, version in target.verified.items())
        rows.append(
            (
                "\n".join([*textwrap.wrap(name, 12, break_on_hyphens=True), f"({ending or 'a folder'})"]),
                textwrap.fill(target.expresses, _EXPRESSES),
                textwrap.fill(target.executes, _EXECUTES),
                versions or "not run here",
            )
        )
    notes = (
        "What a target cannot take, lint refuses; where it makes its own codes, lint warns.",
        "-asym: with zero points; -a8: inputs in INT8, too; g32: groups of 32 weights.",
        "deploy_to in a campaign keeps the search to what its targets take.",
    )
    return Table("Deployment targets", ("Target", "Expresses", "Executes", "Verified with"), rows, notes)
