"""Profiles by name: the seed suite's `seed/train`, …, and the random families' `family/cnn/3`.

builtin_profile(name) → ModelProfile      any_profile(name or path) → ModelProfile
expand_names(["family/cnn/0..11"]) → twelve names
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from evoquant.errors import ProfileError, quoted, suggestion
from evoquant.files import is_file
from evoquant.profiles.model import load_profile
from evoquant.profiles.seed_suite import DATA_SETS, SPLITS, seed_profile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evoquant.profiles.model import ModelProfile

_FAMILY = re.compile(r"family/([^/]*)/(.*)")
_INDEX = re.compile(r"0|[1-9]\d{0,8}", re.ASCII)


def any_profile(name: str) -> ModelProfile:
    """A profile by built-in name (`seed/train`) or path of a JSON file.

    Raises:
        ProfileError: neither.
    """
    return load_profile(Path(name)) if name.endswith(".json") or is_file(Path(name)) else builtin_profile(name)


def builtin_profile(name: str) -> ModelProfile:
    """The built-in profile of that name: `seed/train`, `seed-additive/test`, `family/transformer/0`, ….

    Raises:
        ProfileError: no such built-in name, or a range of them.
    """
    match = _FAMILY.fullmatch(name)
    if match:
        from evoquant.profiles.families import family_profile

        kind, indices = _indices(match[1], match[2])
        if len(indices) > 1:
            raise ProfileError(
                f"{name} names {len(indices)} models; give one of them, such as family/{kind}/{indices[0]}."
            )
        return family_profile(kind, indices[0])
    data, _, split = name.partition("/")
    if data not in DATA_SETS or split not in SPLITS:
        from evoquant.profiles.families import FAMILIES

        known = [f"{data}/{split}" for data in DATA_SETS for split in SPLITS] + [
            f"family/{kind}/0" for kind in FAMILIES
        ]
        raise ProfileError(
            f"no profile file and no built-in profile is called {quoted(name)}.{suggestion(name, known)}"
        )
    return seed_profile(split, DATA_SETS[data])


def expand_names(names: Iterable[str], limit: int) -> list[str]:
    """Profile names where a range of a family, both ends included, has become one name a model.

    Names that are none of a family's stay as they are.

    Raises:
        ProfileError: a name of a family that is wrong, or more than `limit` names.
    """
    expanded: list[str] = []
    for name in names:
        match = _FAMILY.fullmatch(name)
        kind, indices = _indices(match[1], match[2]) if match else ("", range(0))
        if len(expanded) + max(len(indices), 1) > limit:
            raise ProfileError(f"{name} brings the list above {limit} models, the most it may have; take fewer.")
        expanded += [f"family/{kind}/{index}" for index in indices] if match else [name]
    return expanded


def _indices(kind: str, text: str) -> tuple[str, range]:
    """The kind, and the models that `17` or `0..11` stands for.

    Raises:
        ProfileError: the name is wrong.
    """
    from evoquant.profiles.families import FAMILIES, LARGEST_INDEX

    name = f"family/{kind}/{text}"
    if kind not in FAMILIES:
        raise ProfileError(f"{name}: no family of models is called {kind!r}.{suggestion(kind, FAMILIES)}")
    first, dots, last = text.partition("..")
    if not dots:
        last = first
    if not _INDEX.fullmatch(first) or not _INDEX.fullmatch(last):
        raise ProfileError(
            f"{name}: write family/{kind}/INDEX, or family/{kind}/FIRST..LAST, such as family/{kind}/0..11."
        )
    if int(last) > LARGEST_INDEX:
        raise ProfileError(f"{name}: models are numbered from 0 to {LARGEST_INDEX}; choose among these.")
    if int(first) > int(last):
        raise ProfileError(f"{name}: this range is empty; write family/{kind}/{last}..{first}.")
    return kind, range(int(first), int(last) + 1)
