"""The files of a frozen table: what is in them, how they are read and written."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from evoquant.bench.samples import SPLITS, Samples
from evoquant.errors import InputError, suggestion
from evoquant.files import write_atomic
from evoquant.models.arrays import Arrays, pack_arrays, unpack_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

DATA = Path(__file__).parent / "data"
MENU = ("INT2-channel", "INT3-channel", "INT4-channel", "INT8-channel")
MOST_BYTES = 2**26


@dataclass(frozen=True)
class Recipe:
    """How a table's network is trained.

    Attributes:
        seed: of splits, initial weights and order.
        epochs: passes over the training split.
    """

    seed: int
    epochs: int


RECIPES = {"digits-cnn": Recipe(seed=0, epochs=20), "fashion-mixer": Recipe(seed=0, epochs=8)}


def known_table(name: str) -> str:
    """The name itself.

    Raises:
        InputError: no such table.
    """
    if name not in RECIPES:
        raise InputError(f"no table is called {name!r}.{suggestion(name, RECIPES)}")
    return name


def network_path(name: str, folder: Path = DATA) -> Path:
    """Weights and samples."""
    return folder / f"{name}.network.npz.xz"


def table_path(name: str, folder: Path = DATA) -> Path:
    """What was measured."""
    return folder / f"{name}.table.npz.xz"


def profile_path(name: str, folder: Path = DATA) -> Path:
    """The network's profile."""
    return folder / f"{name}.json"


def write_arrays(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Write named arrays and their digest, compressed; equal arrays give equal bytes.

    Raises:
        InputError: the folder cannot be written to.
    """
    write_atomic(path, lzma.compress(pack_arrays(arrays), preset=9))


def read_arrays(path: Path) -> Arrays:
    """What `write_arrays` wrote.

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        with lzma.open(path) as stream:
            data = stream.read(MOST_BYTES)
    except (OSError, EOFError, lzma.LZMAError) as error:
        raise InputError(f"{path}: cannot be read: {error}; make it anew: evoquant bench tabular --rebuild.") from None
    return unpack_arrays(data, str(path))


def write_network(path: Path, weights: Arrays, samples: Samples) -> None:
    """Write a network's state and the splits that it is measured on."""
    judged = samples.only(SPLITS)
    arrays: Arrays = {f"weights/{name}": array for name, array in weights.items()}
    sizes = np.array([judged.sizes[split] for split in SPLITS], dtype=np.int64)
    arrays |= {"images": judged.images, "labels": judged.labels, "sizes": sizes}
    arrays["scale"] = np.array(judged.scale, dtype=np.int64)
    write_arrays(path, arrays)


def read_network(path: Path) -> tuple[Arrays, Samples]:
    """The network's state by name, and its samples.

    Raises:
        InputError: the file is missing or damaged.
    """
    arrays = read_arrays(path)
    weights = {name.removeprefix("weights/"): a for name, a in arrays.items() if name.startswith("weights/")}
    sizes = dict(zip(SPLITS, arrays["sizes"].tolist(), strict=True))
    images, labels = arrays["images"].astype(np.uint8), arrays["labels"].astype(np.uint8)
    return weights, Samples(images, labels, int(arrays["scale"]), sizes)
