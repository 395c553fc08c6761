"""Patterns that come from a file: regular expressions that cannot run for hours, and shell wildcards.

Python's `re` runs no code, but it tries ways to match one after the other, and there may be more of these than anyone
can wait for: of `(a+)+b` on forty letters a trillion. So patterns are checked before they are used: nothing that
repeats stands in something that repeats, and the ways to match a name, which are then not hard to count, are few. Only
the usual syntax is let through, so that there is nothing in a pattern that this check does not see.
"""

from __future__ import annotations

import fnmatch
import math
import re
import warnings
from typing import TYPE_CHECKING

from evoquant.errors import InputError, quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST, MOST = 4096, 1000
MOST_STEPS = 10**9
WILDCARDS = "*?["

_TOKEN = re.compile(
    r"""
      \\(?:[dDwWsSbB]|[^a-zA-Z0-9])                              # a class, an edge of words, an escaped sign
    | \[\^?\]?(?:\\(?:[dDwWsS]|[^a-zA-Z0-9])|[^\]\\])*\]          # a set of characters
    | \((?:\?[:=!])?                                           # a group begins; the last two look ahead
    | [)|^$.]
    | (?:[*+?]|\{\d+(?:,\d*)?\})\??                            # the thing before it repeats; lazily with ?
    | [^\\\[({*+?]                                             # a character
    """,
    re.VERBOSE | re.DOTALL,
)
"""All that is let through; what could change the meaning of the rest (comments, flags, names, conditions) is not."""
_REPEATS = ("*", "+", "{", "?")


class Patterns:
    """Regular expressions from one file, anchored at the start as `re.match` is; together they may take so many steps.

    Raises:
        InputError: (as each is added) it is too long, has unusual syntax, or could take too long.
    """

    def __init__(self, source: str, names: Sequence[str]) -> None:
        self._source = source
        self._longest = max((len(name) for name in names), default=0)
        self._names = len(names)
        self._steps = 0
        self._count = 0

    def add(self, pattern: str) -> re.Pattern[str]:
        """The compiled pattern."""
        place = f"{self._source}: the pattern {quoted(pattern, 60)}"
        self._count += 1
        if self._count > MOST:
            raise InputError(f"{self._source}: has more than {MOST} patterns; name layers exactly.")
        if len(pattern) > LONGEST:
            raise InputError(f"{place} has {len(pattern)} characters, not up to {LONGEST}.")
        self._steps += self._names * _ways(_tokens(pattern, place), self._longest, place)
        if self._steps > MOST_STEPS:
            raise InputError(
                f"{place} could take too long: too much in it repeats or is a choice; name layers exactly."
            )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what may mean something else one day
                return re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise InputError(f"{place} is no regular expression: {quoted(str(error), 80)}.") from None


def _tokens(pattern: str, place: str) -> list[str]:
    """The parts of a pattern.

    Raises:
        InputError: it has syntax that is not let through.
    """
    tokens: list[str] = []
    at = 0
    while at < len(pattern):
        found = _TOKEN.match(pattern, at)
        behind = pattern[at + 1 : at + 2] if pattern[at] == "(" else ""
        twice = bool(tokens) and tokens[-1].startswith(_REPEATS) and pattern[at].startswith(_REPEATS)
        if found is None or twice or (behind == "?" and found.end() == at + 1):
            raise InputError(
                f"{place} has {quoted(pattern[at : at + 4], 20)}, which is not read: letters, sets, ., groups (…) and "
                f"(?:…), (?=…), (?!…), |, *, +, ?, {{n}}, ^, $, \\d, \\w, \\s, \\b and escaped signs are; "
                f"or name layers exactly."
            )
        tokens.append(found.group())
        at = found.end()
    return tokens


def _ways(tokens: Sequence[str], length: int, place: str) -> int:
    """At most so many ways to match a name of `length` are tried.

    Each of k repetitions may end anywhere, after the one before it; each group may be any of its choices.

    Raises:
        InputError: something that repeats holds something that repeats, or a choice.
    """
    repeats, choices = 0, 1
    open_groups = [[1, 0]]  # choices and repetitions so far, of each group that is open
    closed = [1, 0]
    for previous, token in zip(["", *tokens], tokens, strict=False):
        if token.startswith("(") or token in ("|", ")"):
            if token.startswith("("):
                open_groups.append([1, 0])
            elif token == "|":
                open_groups[-1][0] += 1
            elif len(open_groups) > 1:
                closed = open_groups.pop()
                choices = min(choices * closed[0], MOST_STEPS + 1)
                open_groups[-1][1] += closed[1] + closed[0] - 1
        elif token.startswith(_REPEATS):
            once = token[0] == "?"
            if previous == ")" and not once and (closed[0] > 1 or closed[1]):
                raise InputError(
                    f"{place} repeats something that repeats, which can take forever; name layers exactly."
                )
            repeats += 1
            open_groups[-1][1] += 1
    choices = min(choices * open_groups[0][0], MOST_STEPS + 1)
    return choices * math.comb(length + min(repeats, length + 50), min(repeats, length + 50))


def wildcard(pattern: str, names: Sequence[str], source: str) -> list[str]:
    """The names that a shell pattern (`*`, `?`, `[…]`) matches as a whole, upper and lower case apart.

    Raises:
        InputError: the pattern is too long.
    """
    if len(pattern) > LONGEST:
        raise InputError(
            f"{source}: a pattern has {len(pattern)} characters, not up to {LONGEST}: {quoted(pattern, 60)}."
        )
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)]
