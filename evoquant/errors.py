"""The whole error tree. Every message names the value, the limit and the remedy.

EvoquantError               exit code 1
├── CampaignError           the campaign itself failed (all candidates failed, a worker cannot start)
├── Interrupted             stopped by the user, resumable (exit code 130)
└── InputError              something the user gave is wrong (exit code 2)
    ├── ConfigError         a campaign's YAML file
    ├── ProfileError        a model profile
    ├── PrecisionError      a precision or a menu
    ├── InfeasibleError     limits that no allocation keeps together
    ├── GenomeError         a genome or champion file
    ├── RunDirError         a run directory that cannot be used as asked
    │   └── HeldError       another process is at work in it
    ├── SearchError         a search was used out of order: asked twice, told the wrong number of values
    └── MissingExtraError   an optional package is not installed
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import reprlib
    from collections.abc import Iterable

    from pydantic import ValidationError


class EvoquantError(Exception):
    """Base of all errors that evoquant raises on purpose; `exit_code` is the command line's."""

    exit_code = 1


class CampaignError(EvoquantError):
    """The campaign could not go on."""


class Interrupted(EvoquantError):
    """Stopped by the user; what was journalled is complete and the run can be resumed."""

    exit_code = 130


class InputError(EvoquantError):
    """Bad input: the message names the file, the key or layer, the fault and the remedy."""

    exit_code = 2


class ConfigError(InputError):
    """A campaign's YAML file is wrong."""


class ProfileError(InputError):
    """A model profile is wrong or lacks what was asked of it."""


class InfeasibleError(InputError):
    """No allocation keeps all the limits; the message says which contradict."""


class PrecisionError(InputError):
    """A precision's name or a menu is wrong."""


class GenomeError(InputError):
    """A genome or a champion file is wrong, or does not fit the problem."""


class RunDirError(InputError):
    """A run directory cannot be used as asked."""


class HeldError(RunDirError):
    """Another process is at work in a run directory."""


class SearchError(InputError):
    """`ask` and `tell` were called out of order or with the wrong number of values."""


class MissingExtraError(InputError):
    """An optional package is missing.

    The message names the extra that brings it.
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} needs {package}, which is not installed: pip install 'evoquant[{extra}]'")
        self._given = (what, package, extra)

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        """Rebuilt from what it was made of, so that it can come back from a worker process."""
        return type(self), self._given


LONGEST_VALUE, LONGEST_NAME = 60, 200  # characters of what a file gives, in a message


def quoted(value: Any, longest: int = LONGEST_NAME) -> str:
    """A name that a file gives, for a message: in quotes, at most so long.

    What would steer a terminal, or cannot be printed at all, is escaped.
    """
    text = value if isinstance(value, str) else shown_value(value, longest)
    whole = repr(text[:longest])
    if len(text) <= longest and len(whole) <= longest + 2:
        return whole
    return f"{whole[: longest - 2]}...{whole[-1]}"


def shown_value(value: Any, longest: int = LONGEST_VALUE) -> str:
    """Any value that a file gives, for a message: its `repr`, at most so long.

    Of a large one only the beginning is looked at: written out, it may take all memory, and Python refuses to write
    integers of thousands of digits.
    """
    text = _short().repr(value)
    return text if len(text) <= longest else text[: longest - 3] + "..."


@functools.cache
def _short() -> reprlib.Repr:
    import reprlib

    class Short(reprlib.Repr):
        def __init__(self) -> None:
            super().__init__()
            self.maxstring = self.maxother = self.maxlong = 2 * LONGEST_VALUE
            self.maxlevel = 4

        def repr_int(self, x: int, level: int) -> str:
            if x.bit_length() <= 400:
                return repr(x)
            return f"an integer of about {int(x.bit_length() * 0.30103) + 1} digits"

    return Short()


def named_in(error: InputError, source: str) -> InputError:
    """The error with the file that asked for what is wrong, where its message does not name it."""
    if source in str(error) or isinstance(error, MissingExtraError):
        return error
    return type(error)(f"{source}: {error}")


def sentence(text: object) -> str:
    """A message with a full stop, where it does not end with one, or with the question of a suggestion."""
    said = str(text)
    return said if said.endswith((".", "?")) else f"{said}."


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ' Did you mean X?' for the closest of `known`, or ' Known: …' when nothing is close."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(word[:LONGEST_NAME], names, n=1, cutoff=0.6)
    if close:
        return f" Did you mean {close[0]!r}?"
    return f" Known: {', '.join(names)}." if names else ""


def other_version(found: Any, known: object) -> str:
    """What to say of a file whose version is not read."""
    return (
        f"this evoquant reads version {known} (got {shown_value(found)}); make the file anew with it, or read it with "
        f"the one that wrote it."
    )


def raised_by(error: BaseException) -> str:
    """What somebody's own code raised, and where: 'ValueError: no weights (network.py, line 12)'.

    The place is the last one outside of installed packages; PyTorch's or NumPy's own lines help nobody.
    """
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "site-packages" not in frame.filename and "importlib" not in frame.filename]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own and not isinstance(error, SyntaxError) else ""
    return f"{type(error).__name__}: {error}{place}"


TAGGED = (
    ("objective",),
    ("search",),
    ("genome",),
    ("task",),
    ("cost",),
)  # parts whose kind stands in pydantic's location
MOST_KEYS = 20


def _place(location: tuple[int | str, ...]) -> str:
    """`search.population` of pydantic's location, which also names the chosen kind after a tagged key."""
    parts = [
        part
        if isinstance(part, str) and part.isprintable() and len(part) <= LONGEST_NAME
        else quoted(part)
        if isinstance(part, str)
        else str(part)
        for i, part in enumerate(location)
        if not (i == 1 and location[:1] in TAGGED and len(location) > 2)
        and not (i == 2 and location[:1] == ("costs",))  # each by its name, and of a kind
    ]
    return ".".join(parts) or "(top level)"


def _owner(location: tuple[int | str, ...], data: Any) -> str:
    """The name that an item of a list has in the data, as `'conv2': `: nobody counts to the 57th layer."""
    for part in location:
        try:
            data = data[part]
        except (LookupError, TypeError):
            return ""
        if isinstance(part, int) and isinstance(data, dict) and isinstance(data.get("name"), str):
            return f"{quoted(data['name'])}: "
    return ""


def describe_validation(error: ValidationError, source: str, known_keys: Iterable[str] = (), data: Any = None) -> str:
    """Turn pydantic's report into one line per fault: file, key, fault, value and, for a misspelt key, the remedy.

    Given the `data` that was checked, an item of a list is also called by the name that it has there.
    """
    keys = list(known_keys)
    lines = []
    faults = error.errors(include_url=False)
    broken = {fault["loc"][:1] for fault in faults if len(fault["loc"]) > 1}
    for fault in faults[:8]:
        if fault["type"] == "too_short" and fault["loc"] in broken:
            continue  # only because every item of the list is faulty, which is said already
        place = _owner(fault["loc"], data) + _place(fault["loc"])
        if fault["type"] == "union_tag_invalid":
            context = fault["ctx"]
            expected = [tag.strip().strip("'") for tag in context["expected_tags"].split(",")]
            known = [tag for tag in expected if tag not in ("code", "memory")]
            tag = context["tag"]
            meant = suggestion(tag, known) or " Name your own class as module:Class."
            lines.append(f"{source}: {place}.kind: unknown kind {quoted(tag, LONGEST_VALUE)}.{meant}")
        elif fault["type"] == "extra_forbidden":
            key = str(fault["loc"][-1])
            meant = " It is known elsewhere, not here." if key in keys else suggestion(key, keys)
            if meant.startswith(" Known") and len(keys) > MOST_KEYS:  # of all objects together, which helps nobody
                meant = " Leave it out."
            lines.append(f"{source}: {place}: unknown key.{meant}")
        elif fault["type"] == "model_type":  # whose own message names a class of ours
            place = _place(fault["loc"][:1] if fault["loc"][:1] in TAGGED else fault["loc"])
            lines.append(f"{source}: {place}: should hold keys and their values (got {shown_value(fault['input'])}).")
        elif fault["type"] == "missing":
            lines.append(f"{source}: {place}: this key is required.")
        elif fault["type"] == "literal_error" and fault["loc"][-1] in ("version", "schema_version"):
            lines.append(f"{source}: {place}: {other_version(fault['input'], fault['ctx']['expected'])}")
        else:
            shown = shown_value(fault["input"])
            message = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
            if not fault["loc"] and fault["type"] == "value_error":  # of keys together, which it names itself
                lines.append(f"{source}: {sentence(message)}")
                continue
            lines.append(f"{source}: {place}: {message.removesuffix('.')} (got {shown}).")
    return "\n".join(lines)
