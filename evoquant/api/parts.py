"""Objects as parts of a campaign: how its config names them, and how one is told from another when a run goes on."""

from __future__ import annotations

import functools
import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.api import campaigns
from evoquant.api.same_call import require_same_call
from evoquant.campaign.config import config_from_dict
from evoquant.campaign.config_base import CODE
from evoquant.campaign.config_own import HeldConfig
from evoquant.campaign.in_memory import lent_parts
from evoquant.campaign.own import is_maker
from evoquant.campaign.storage import RESOLVED
from evoquant.errors import InputError, shown_value
from evoquant.files import is_file, pretty_json
from evoquant.models.code import code_digest, compiled_text
from evoquant.models.own_rounding import rounder_named
from evoquant.quantization.rounding import Rounder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from evoquant.api.campaigns import Run
    from evoquant.campaign.config import CampaignConfig
    from evoquant.campaign.observer import Observer
    from evoquant.quantization.protocol import Rounding

ARGUMENTS = {"search": "search", "genome": "space", "objective": "objective", "cost": "cost", "estimator": "estimator"}
"""Key of a config → argument of `run` and `optimize`."""
SEVERAL = "costs."  # before the name of one of several
VERSIONED = ("evoquant", "numpy", "scipy", "torch", *sys.stdlib_module_names)  # told by their versions, not their code
PLAIN = (type(None), bool, int, float, complex, str, bytes)
DEEPEST = 60


def run_parts(
    config: CampaignConfig,
    given: tuple[Any, ...],
    place: Path,
    source: str,
    *,
    track: Sequence[str] = (),
    observer: Observer | None = None,
) -> Run:
    """Begin, go on with, or return a campaign some of whose parts are objects.

    Args:
        config: of the file.
        given: search, space, objective, cost and estimator, each perhaps None.
        place: the run directory.
        source: what messages about the config begin with.
        track, observer: see `evoquant.run`.

    Raises:
        EvoquantError: as `evoquant.run`.
    """
    parts = parts_of(**dict(zip(ARGUMENTS, given, strict=True)))
    whole = config_from_dict({**config.to_dict(), **parts.entries}, source)
    names = ", ".join(f"{ARGUMENTS[key]}=" for key in parts.entries)
    text = f"# Written by evoquant.run, which was given {names}: the same call goes on. JSON is YAML.\n" + pretty_json(
        whole.to_dict()
    )
    with parts.lent():
        if is_file(place / RESOLVED):
            require_same_call(place, whole, "out")
            where = whole.executor
            return campaigns.resume(
                place,
                executor=where.kind,
                workers=where.workers,
                address=where.address,
                allow_code=[*whole.code(), *(["runtime_env"] if where.runtime_env else [])],
                track=track,
                observer=observer,
            )
        return campaigns.begin(whole, text, place, source, track=track, observer=observer)


@dataclass(frozen=True)
class Parts:
    """What a call gives as objects.

    Attributes:
        entries: key → what the config says of it.
        held: key → that as checked, and the object; of those that only this program has.
    """

    entries: Mapping[str, Any]
    held: Mapping[str, tuple[HeldConfig, Any]]

    def lent(self) -> AbstractContextManager[None]:
        """Within, campaigns find the objects."""
        return lent_parts(self.held)


def parts_of(**given: Any) -> Parts:
    """The parts that a call gives, by key of the config; None is none.

    `costs.NAME` is one of several costs. A mapping is taken as a config has it, a text as its kind. A class or function
    that can be imported by name is named as `module:Class`, so that the command line can go on, too; of anything else
    the config holds a digest.

    Raises:
        InputError: one holds something by which it cannot be told from another.
    """
    entries: dict[str, Any] = {}
    held: dict[str, tuple[HeldConfig, Any]] = {}
    for key, thing in given.items():
        if thing is None:
            continue
        kept, part = entries, key
        if key.startswith(SEVERAL):
            kept, part = entries.setdefault("costs", {}), "cost"
        place = key.removeprefix(SEVERAL)
        if isinstance(thing, Mapping):
            kept[place] = dict(thing)
        elif isinstance(thing, str):
            kept[place] = {"kind": thing}
        elif is_maker(part, thing) and (name := _by_name(thing)) is not None:
            kept[place] = {"kind": name}
        else:
            config = HeldConfig(kind="memory", what=_name(thing), code=_digest(thing, ARGUMENTS.get(key, key)))
            kept[place] = config.model_dump(mode="json")
            held[key] = config, thing
    return Parts(entries, held)


def rounder_of(rounding: Rounding | str) -> Rounder:
    """A rounding method of somebody's own: `module:function`, or an object, told from another by all that it holds.

    Raises:
        InputError: it cannot be imported or called, or holds something by which it cannot be told from another.
    """
    if isinstance(rounding, str):
        if not CODE.fullmatch(rounding):
            raise InputError(f"rounding: is {shown_value(rounding)}; it is a function, or its name, module:function.")
        return rounder_named(rounding)
    if not callable(rounding) or isinstance(rounding, type):
        raise InputError(
            f"rounding: is {shown_value(rounding)}; it is a function of evoquant.quantization.protocol.Rounding."
        )
    name = _by_name(rounding)
    if name is not None:
        return rounder_named(name)
    return Rounder(rounding, _name(rounding), _digest(rounding, "rounding"), imported=False)


def _by_name(thing: Any) -> str | None:
    """`module:name` by which another process can import this."""
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    if module in (None, "__main__") or not name.isidentifier():
        return None
    found = getattr(sys.modules.get(str(module)), name, None)
    return f"{module}:{name}" if found is thing else None


def _name(thing: Any) -> str:
    while isinstance(thing, functools.partial):
        thing = thing.func
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"


def _digest(thing: Any, argument: str) -> str:
    """sha256 of an object's code and of all that it holds.

    Raises:
        InputError: it holds something that has no plain form, such as a lock or an open file.
    """
    made = hashlib.sha256()
    try:
        _Walk(made.update).visit(thing, 0)
    except (TypeError, RecursionError) as error:
        raise InputError(
            f"{argument}: {_name(thing)} holds something by which it cannot be told from another, and a run that goes "
            f"on has to: {error}; give its class, or functools.partial(Class, option=…), and let that make it."
        ) from None
    return made.hexdigest()


class _Walk:
    """Feeds everything that makes an object what it is to a hash, each object once."""

    def __init__(self, feed: Any) -> None:
        self._feed = feed
        self._seen: dict[int, tuple[int, Any]] = {}  # the object, too, lest its id is given to another

    def visit(self, thing: Any, depth: int) -> None:
        """One object and what it holds."""
        if depth > DEEPEST:
            raise TypeError("it is nested too deeply")
        if isinstance(thing, PLAIN):
            self._say(f"{type(thing).__name__} {thing!r}")
            return
        if id(thing) in self._seen:
            self._say(f"again {self._seen[id(thing)][0]}")
            return
        self._seen[id(thing)] = len(self._seen), thing
        if isinstance(thing, np.ndarray) and thing.dtype != object:
            self._say(f"array {thing.dtype.str} {thing.shape}")
            self._feed(thing.tobytes())
        elif isinstance(thing, type) or hasattr(thing, "__code__") or hasattr(thing, "__func__"):
            self._say(_code(thing))
            self.visit(getattr(thing, "__self__", None), depth + 1)
        elif isinstance(thing, Mapping):
            self._all(type(thing).__qualname__, [part for pair in thing.items() for part in pair], depth)
        elif isinstance(thing, (list, tuple)):
            self._all(type(thing).__qualname__, thing, depth)
        elif isinstance(thing, (set, frozenset)):
            self._say(f"{type(thing).__name__} {sorted(map(repr, thing))}")
        else:
            self._instance(thing, depth)

    def _instance(self, thing: Any, depth: int) -> None:
        self._say(_code(type(thing)))
        made = thing.__reduce_ex__(4)  # what a copy is made of; nothing is pickled
        if isinstance(made, str):
            self._say(made)
            return
        made = [list(part) if i > 2 and part is not None else part for i, part in enumerate(made)]
        self._all("object", made, depth)

    def _all(self, kind: str, parts: Any, depth: int) -> None:
        self._say(f"{kind} {len(parts)}")
        for part in parts:
            self.visit(part, depth + 1)

    def _say(self, text: str) -> None:
        self._feed(f"{text}\n".encode())


def _code(thing: Any) -> str:
    """A class or function: its name, and its code where no version tells that."""
    name = f"{thing.__module__}.{thing.__qualname__}"
    if str(thing.__module__).partition(".")[0] in VERSIONED:
        return name
    held = sorted((key, value) for key, value in vars(thing).items() if isinstance(value, PLAIN) and key != "__doc__")
    return f"{name} {code_digest([thing])} {compiled_text(thing)} {held!r}"
