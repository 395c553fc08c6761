"""The product of a sweep's axes: which campaigns there are, and what each is called."""

from __future__ import annotations

import hashlib
import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evoquant.errors import InputError, quoted, shown_value, suggestion
from evoquant.files import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SEEDS = ("seed", "task.seed")  # campaigns that differ in these alone are repetitions
NOT_VARIED = ("name", "out", "cache", "executor", "trackers", "files", "schema_version")
RANGE = re.compile(r"(\d{1,18})(?:-|\.\.)(\d{1,18})")
KEY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
LONGEST_WORD, LONGEST_NAME = 40, 64

Axes = dict[str, list[Any]]


@dataclass(frozen=True)
class Combination:
    """What one campaign sets.

    Attributes:
        name: of the campaign.
        combination: the same without seeds.
        values: by dotted key.
    """

    name: str
    combination: str
    values: Mapping[str, Any]

    @property
    def varied(self) -> list[str]:
        """The keys, seeds left out."""
        return [key for key in self.values if key not in SEEDS]


def valid_key(key: str) -> None:
    """Refuse what is no key of a campaign that can vary.

    Raises:
        ValueError: for pydantic, which names the place.
    """
    if not KEY.fullmatch(key):
        raise ValueError(f"{shown_value(key)} is no dotted key such as stop.evaluations")
    if key.split(".", maxsplit=1)[0] in NOT_VARIED:
        raise ValueError(f"{key} cannot vary: it changes no result, or names the campaign; set it for the whole sweep")


def expanded_axes(axes: Mapping[str, Any]) -> Axes:
    """Every axis as a list: `0-19` stands for twenty whole numbers.

    Raises:
        InputError: a text that is no range, a value that stands twice.
    """
    found: Axes = {}
    for key, given in axes.items():
        values = _range(key, given) if isinstance(given, str) else list(given)
        seen: set[str] = set()
        for value in values:
            text = canonical_json(value)
            if text in seen:
                raise InputError(f"over.{key}: {shown_value(value)} stands twice; name each value once.")
            seen.add(text)
        found[key] = values
    return found


def _range(key: str, text: str) -> list[int]:
    match = RANGE.fullmatch(text.strip())
    if match is None:
        raise InputError(
            f"over.{key}: {quoted(text)} is neither a list of values nor a range of whole numbers such as 0-19."
        )
    first, last = int(match[1]), int(match[2])
    if last < first or last - first >= 1_000_000:
        raise InputError(f"over.{key}: {quoted(text)} should go from a number to a larger one, by less than a million.")
    return list(range(first, last + 1))


def combinations(
    name: str,
    over: Axes,
    include: Sequence[Axes],
    exclude: Sequence[Mapping[str, Any]],
    most: int,
) -> list[Combination]:
    """All campaigns: the product of `over` without what `exclude` matches, then the products of `include`.

    Args:
        name: of the sweep.
        over: key → its values.
        include: the same, each a product of its own; `exclude` does not touch them.
        exclude: key → a value, or a list of values; what has all of them is left out. Of a mapping the keys count that
            are named.
        most: more are refused.

    Raises:
        InputError: too many, or an exclude that matches nothing.
    """
    blocks = [over, *include] if over or not include else list(include)
    count = sum(_product(block) for block in blocks)
    if count > most:
        raise InputError(f"{count:,} campaigns; {most:,} are the most that a sweep may have. Split it.")
    _check_exclude(over, exclude)
    chosen: list[dict[str, Any]] = []
    used: set[int] = set()
    for block in blocks:
        for values in _rows(block):
            hits = {i for i, rule in enumerate(exclude) if block is over and _excluded(values, rule)}
            used |= hits
            if not hits:
                chosen.append(values)
    for i, rule in enumerate(exclude):
        if i not in used:
            raise InputError(f"exclude: {shown_value(dict(rule))} matches no campaign; correct it, or leave it out.")
    return _named(name, chosen, _words(blocks))


def _product(block: Axes) -> int:
    count = 1
    for values in block.values():
        count *= len(values)
    return count


def _rows(block: Axes) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*block.values()):
        yield dict(zip(block, values, strict=True))


def _check_exclude(over: Axes, exclude: Sequence[Mapping[str, Any]]) -> None:
    for rule in exclude:
        for key in rule:
            if key not in over:
                raise InputError(f"exclude: {quoted(key)} does not vary under `over`.{suggestion(key, over)}")


def _excluded(values: Mapping[str, Any], rule: Mapping[str, Any]) -> bool:
    return all(key in values and _matches(values[key], wanted) for key, wanted in rule.items())


def _matches(value: Any, wanted: Any) -> bool:
    if isinstance(value, dict) and isinstance(wanted, dict):
        return all(key in value and _matches(value[key], item) for key, item in wanted.items())
    if canonical_json(value) == canonical_json(wanted):
        return True
    if isinstance(wanted, str) and RANGE.fullmatch(wanted) and isinstance(value, int):
        return value in _range("exclude", wanted)
    return isinstance(wanted, list) and any(_matches(value, item) for item in wanted)


def _words(blocks: Sequence[Axes]) -> dict[str, dict[str, str]]:
    """Key → value, as canonical JSON → the word for it in names."""
    values: dict[str, dict[str, Any]] = {}
    for block in blocks:
        for key, given in block.items():
            values.setdefault(key, {}).update({canonical_json(value): value for value in given})
    return {key: _axis_words(key, list(given.values())) for key, given in values.items()}


def _axis_words(key: str, values: Sequence[Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    alike: dict[str, list[Any]] = {}
    for value in values:
        alike.setdefault(_word(key, value), []).append(value)
    for word, group in alike.items():
        apart = _differing(group) if len(group) > 1 else []
        for value in group:
            told = [word, *(_word(path, _at(value, path)) for path in apart)]
            made = "-".join(told)[:LONGEST_WORD].rstrip("-._")
            number = 1
            while (made if number == 1 else f"{made}-{number}") in found.values():
                number += 1
            found[canonical_json(value)] = made if number == 1 else f"{made}-{number}"
    return found


def _word(key: str, value: Any) -> str:
    """A word for a value: `genetic`, `evaluations100`, `no-stagnation`, `digits`."""
    last = key.rpartition(".")[2]
    if key == "task.seed":
        last = "taskseed"
    if value is None:
        return f"no-{last}"
    if isinstance(value, bool):
        return f"{last}-{'on' if value else 'off'}"
    if isinstance(value, (int, float)):
        return f"{last}{value:g}" if isinstance(value, float) else f"{last}{value}"
    if isinstance(value, dict):
        told = value.get("kind")
        return _plain(told, last) if isinstance(told, str) else last
    if isinstance(value, list):
        return _plain("-".join(str(item) for item in value if isinstance(item, (str, int, float))), last)
    return _plain(str(value), last)


def _plain(text: str, otherwise: str) -> str:
    """Letters, digits and `._-` alone."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:LONGEST_WORD].strip("-._") or otherwise


def _differing(group: Sequence[Any]) -> list[str]:
    """Dotted keys in which mappings differ; none where they are no mappings."""
    if not all(isinstance(value, dict) for value in group):
        return []
    paths = dict.fromkeys(path for value in group for path in _paths(value))
    return [path for path in paths if len({canonical_json(_at(value, path)) for value in group}) > 1]


def _paths(value: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, item in value.items():
        if isinstance(item, dict):
            yield from _paths(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _at(value: Any, path: str) -> Any:
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _named(name: str, chosen: Sequence[dict[str, Any]], words: Mapping[str, Mapping[str, str]]) -> list[Combination]:
    """Each with a name of its own; those that differ in seeds alone share the first part of it."""
    of: dict[str, str] = {}  # what is set apart from seeds → combination
    found: list[Combination] = []
    for values in chosen:
        kept = {key: value for key, value in values.items() if key not in SEEDS}
        key = canonical_json(kept)
        if key not in of:
            told = "-".join(words[axis][canonical_json(value)] for axis, value in kept.items()) or name
            of[key] = _unused(told, key, set(of.values()))
        seeds = [words[axis][canonical_json(values[axis])] for axis in SEEDS if axis in values]
        found.append(Combination("-".join([of[key], *seeds]), of[key], values))
    return found


def _unused(told: str, key: str, taken: set[str]) -> str:
    """At most 64 characters; where that cuts something off, or another has the name, with a digest behind it."""
    if len(told) <= LONGEST_NAME and told not in taken:
        return told
    return f"{told[: LONGEST_NAME - 9].rstrip('-._')}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
