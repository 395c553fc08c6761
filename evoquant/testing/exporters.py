"""Conformance of exporters: what evoquant relies on when it writes what they return.

check_exporter(MyExporter)                      on a made-up champion, allocation or recipe
check_exporter(MyExporter, subject)             on one of your own: a recipe with its network, say
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.campaign.champion import Champion
from evoquant.errors import InputError
from evoquant.export.protocol import TAKES, Subject
from evoquant.export.recipe import build_recipe
from evoquant.files import canonical_json
from evoquant.genomes.direct import Direct
from evoquant.genomes.strategies import STRATEGIES
from evoquant.profiles.model import LayerProfile, ModelProfile
from evoquant.quantization.precision import SEED_MENU, Menu
from evoquant.rng import generator_for
from evoquant.testing.clauses import no_global_randomness, require, run_checks
from evoquant.testing.examples import SCALED, example_profile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from evoquant.export.protocol import Exporter, Takes

MENUS: dict[str, Menu] = {"heuristic": SEED_MENU, "allocation": SEED_MENU, "recipe": Menu.parse(SCALED)}
HOSTILE = 'a|b, "c"\n<script>alert(1)</script> \x1b[2J ü {{x}} ../d'
DAYS = 2 * 86_400


def check_exporter(exporter: Exporter | type[Exporter], subject: Subject | None = None) -> None:
    """Put an exporter through all that the protocol promises.

    Args:
        exporter: the class, which is made without arguments as `--to module:Class` does, or an exporter.
        subject: what it exports; by default made up for what it takes, and again with names from a hostile file. The
            network beside a made-up recipe has weights, and neither graph nor outputs.

    Raises:
        ConformanceError: naming the clause that is broken.
    """
    made: Any = exporter() if isinstance(exporter, type) else exporter
    takes: Any = getattr(made, "takes", None)
    require(takes in TAKES, f"takes: {takes!r}, expected one of {', '.join(TAKES)}")
    if subject is not None:
        run_checks((check_repeats, check_writes_nothing), made, subject)
        return
    run_checks((check_repeats, check_writes_nothing), made, example_subject(takes))
    run_checks((check_hostile,), made, example_subject(takes, hostile=True))


def example_subject(takes: Takes, *, hostile: bool = False) -> Subject:
    """A made-up subject for what an exporter takes; `hostile` has names as they come from a stranger's file."""
    menu = MENUS[takes]
    name = HOSTILE if hostile else "example"
    scores = {"train": {"fitness": 2.5, "retention": 0.96, "compression": 2.5, "effective_bits": 12.8}}
    provenance = {"campaign": name, "seed": 0, "menu": list(menu.names)}
    if takes == "heuristic":
        return Subject(Champion(STRATEGIES["layer_type_aware"], scores, provenance), menu)
    profile = _network(name) if takes == "recipe" else _renamed(example_profile(), name if hostile else "")
    widths = {layer.name: menu.names[i % len(menu)] for i, layer in enumerate(profile.layers)}
    champion = Champion(Direct(profile.name, tuple(widths.items())), scores, provenance)
    if takes == "allocation":
        return Subject(champion, menu, profile, widths)
    weights = _Weights(profile)
    recipe = build_recipe(profile, list(widths.values()), weights.weight, "0" * 64, {}, provenance)
    return Subject(champion, menu, profile, widths, recipe, weights)  # weights are all it has


def check_repeats(exporter: Exporter, subject: Subject) -> None:
    """Text, bytes, or several of them by name: the same for the same subject, which stays as it is."""
    before = _bytes(subject)
    with no_global_randomness("export"):
        first = _files(exporter.export(subject))
    require(_bytes(subject) == before, "export: changes its subject")
    stamp = next((found for text in first.values() if (found := _clock(text)) and found not in before), None)
    require(stamp is None, f"export: {stamp!r} is the time of now: the same subject gives other bytes tomorrow")
    require(_files(exporter.export(subject)) == first, "export: other bytes the second time")


def check_writes_nothing(exporter: Exporter, subject: Subject) -> None:
    """It writes no file: evoquant does, whole or not at all, once the gate has said what."""
    with tempfile.TemporaryDirectory() as folder, _written() as paths:
        home = Path.cwd()
        os.chdir(folder)
        try:
            exporter.export(subject)
            left = sorted({path for path in paths if path.is_file() and "__pycache__" not in path.parts})
        finally:
            os.chdir(home)
    require(not left, f"export: writes files by itself: {', '.join(map(str, left))}")


def check_hostile(exporter: Exporter, subject: Subject) -> None:
    """Names from a stranger's file make no other mistake than an `InputError`."""
    try:
        _files(exporter.export(subject))
    except InputError:
        return


class _Weights:
    """A network of which nothing but its weights is there."""

    def __init__(self, profile: ModelProfile) -> None:
        rng = generator_for(0, 0, "conformance")
        self._weights = {layer.name: rng.normal(0, 0.1, layer.shape).astype(np.float32) for layer in profile.layers}

    def weight(self, layer: str) -> NDArray[np.generic]:
        return self._weights[layer]

    def __getattr__(self, name: str) -> Any:
        raise InputError(f"the made-up network of check_exporter has no {name}; pass a subject of your own.")


def _network(name: str) -> ModelProfile:
    shapes = {f"{name}.0": (16, 8), f"{name}.1": (16, 16), f"{name}.2": (4, 16), f"{name}.3": (4, 4)}
    layers = [LayerProfile(key, "Linear", shape, i / 3) for i, (key, shape) in enumerate(shapes.items())]
    return ModelProfile(name, tuple(layers))


def _renamed(profile: ModelProfile, name: str) -> ModelProfile:
    layers = [dataclasses.replace(layer, name=f"{name}{layer.name}") for layer in profile.layers]
    return ModelProfile(f"{name}{profile.name}", tuple(layers))


def _files(content: Any) -> dict[str, bytes]:
    """Name → bytes; the name of a single file is empty."""
    if isinstance(content, (str, bytes)):
        return {"": _encoded(content)}
    require(hasattr(content, "items"), f"export: a {type(content).__name__}, not text, bytes or a mapping of them")
    require(len(content) > 0, "export: a folder of no files")
    found = {}
    for name, part in content.items():
        require(isinstance(name, str), f"export: {name!r} is no name of a file")
        path = PurePosixPath(name)
        inside = name and not path.is_absolute() and ".." not in path.parts and "\\" not in name and str(path) == name
        require(inside, f"export: {name!r} is no path within the folder")
        found[name] = _encoded(part, f" in {name!r}")
    return found


def _encoded(part: Any, where: str = "") -> bytes:
    require(isinstance(part, (str, bytes)), f"export: a {type(part).__name__}{where}, not text or bytes")
    try:
        data: bytes = part.encode("utf-8") if isinstance(part, str) else part
    except UnicodeEncodeError as error:
        require(False, f"export: text{where} that UTF-8 cannot hold: {error}")
    return data


def _bytes(subject: Subject) -> bytes:
    """All of a subject that an exporter might change."""
    profile, recipe, network = subject.profile, subject.recipe, subject.network
    parts = [b"" if subject.champion is None else subject.champion.to_json().encode()]
    parts.append(canonical_json([list(pair) for pair in subject.widths.items()]).encode())
    parts.append(b"" if profile is None else profile.digest.encode())
    if recipe is not None:
        parts += [array.tobytes() for _, array in sorted(recipe.tensors.items())]
        parts.append(canonical_json(dict(recipe.provenance)).encode())
    if isinstance(network, _Weights):
        parts += [network.weight(layer).tobytes() for layer in subject.widths]
    return b"|".join(parts)


def _clock(text: bytes) -> bytes | None:
    """A date of today, or seconds since 1970 that are about now."""
    now = time.time()
    for moment in (time.gmtime(now), time.localtime(now)):
        for form in ("%Y-%m-%d", "%Y%m%d", "%d.%m.%Y", "%d %b %Y", "%b %d"):
            if (day := time.strftime(form, moment).encode()) in text:
                return day
    for found in re.finditer(rb"(?<!\d)\d{10}(?=\.\d|\D|$)", text):
        if abs(int(found[0]) - now) < DAYS:
            return found[0]
    return None


_watching: list[list[Path]] = []
_hooked: list[bool] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or event != "open":
        return
    path, _, flags = arguments
    writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes and isinstance(path, (str, bytes, os.PathLike)):
        _watching[-1].append(Path(os.fsdecode(path)).absolute())


@contextmanager
def _written() -> Iterator[list[Path]]:
    """Paths that this process opens for writing within the block."""
    if not _hooked:  # a hook cannot be taken away again
        sys.addaudithook(_audit)
        _hooked.append(True)
    _watching.append([])
    try:
        yield _watching[-1]
    finally:
        _watching.pop()
