"""The samples of an ONNX task: read from an .npz, checked against the graph's inputs, cut into splits."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evoquant.errors import InputError, suggestion
from evoquant.models.base import SPLITS, Split
from evoquant.rng import generator_for

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from evoquant.models.arrays import Arrays

MAX_DATA_BYTES = 32 * 2**30
SHARES: dict[Split, float] = {"selection": 0.15, "gate": 0.15, "test": 0.2}
"""Of one set of samples; the rest, about half, is the calibration split."""
TARGETS, SLICES = "targets", "slices"
_TARGET_NAMES = ("labels", "targets")


@dataclass(frozen=True)
class InputSpec:
    """An input of a graph.

    Attributes:
        name: its name.
        dtype: NumPy type.
        dims: size of each axis, None where it is free.
    """

    name: str
    dtype: str
    dims: tuple[int | None, ...]


@dataclass(frozen=True, eq=False)
class Samples:
    """A split's arrays: all with the samples first, but for inputs of the graph that are one for all samples.

    Attributes:
        arrays: `input<i>` for the graph's i-th input; `targets` and `slices` where there are any.
        shared: names of the inputs that are one for all samples.
        count: number of samples.
    """

    arrays: Arrays
    shared: tuple[str, ...]
    count: int

    def part(self, start: int, stop: int) -> Arrays:
        """The arrays of the samples from `start` to before `stop`."""
        return {name: a if name in self.shared else a[start:stop] for name, a in self.arrays.items()}

    def take(self, order: NDArray[np.int64]) -> Samples:
        """These samples in this order."""
        arrays = {name: a if name in self.shared else a[order] for name, a in self.arrays.items()}
        return Samples(arrays, self.shared, len(order))


def read_npz(path: Path) -> Arrays:
    """All arrays of an .npz file.

    Raises:
        InputError: the file is missing, damaged, too large, or holds Python objects.
    """
    if not path.is_file():
        raise InputError(f"{path}: {'is a directory, not a file' if path.is_dir() else 'does not exist'}.")
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(entry.file_size for entry in archive.infolist())
        if total > MAX_DATA_BYTES:
            raise InputError(f"{path}: {total} bytes once unpacked; at most {MAX_DATA_BYTES} are read.")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        bare = next((name for name, array in arrays.items() if not isinstance(array, np.ndarray)), None)
        if bare is not None:
            raise ValueError(f"{bare!r} is no array")
        return arrays
    except InputError:
        raise
    except Exception as error:  # zip, its codecs and NumPy's header each raise their own, MemoryError among them
        hint = "save numbers, not Python objects" if "pickle" in str(error) else "write it with numpy.savez"
        raise InputError(f"{path}: cannot be read as .npz ({type(error).__name__}: {error}); {hint}.") from None


def split_samples(
    arrays: Mapping[str, NDArray[np.generic]], specs: list[InputSpec], seed: int, source: str
) -> dict[Split, Samples]:
    """The four splits, each in an order drawn with `seed`, so that every block is like every other.

    Arrays are named after the graph's inputs, with `labels` or `targets` and `slices` beside them. One set is cut into
    calibration (about 50%), selection (15%), gate (15%) and test (20%). Given as `calibration.x`, `selection.x` and
    `test.x`, the splits stay what they are, and selection is cut in halves unless there is a `gate.x`.

    Raises:
        InputError: an array is missing or does not fit the graph; too few samples.
    """
    plain = {spec.name for spec in specs}
    parts = {name: name.split(".", 1) for name in arrays}
    prefixed = all(part[0] in SPLITS and len(part) == 2 for part in parts.values()) and not plain <= set(arrays)
    if not prefixed:
        samples = _checked(arrays, specs, source)
        return _cut(samples, seed, source)
    groups: dict[str, dict[str, NDArray[np.generic]]] = {}
    for name, (split, rest) in parts.items():
        groups.setdefault(split, {})[rest] = arrays[name]
    for split in ("calibration", "selection", "test"):
        if split not in groups:
            raise InputError(f"{source}: no array of the split {split!r}; name them {split}.<input>.")
    found = {split: _checked(group, specs, f"{source}: {split}") for split, group in groups.items()}
    shuffled = {
        split: samples.take(generator_for(seed, 0, f"order of {split}").permutation(samples.count))
        for split, samples in found.items()
    }
    if "gate" not in shuffled:
        both = shuffled["selection"]
        if both.count < 2:
            raise InputError(f"{source}: selection has {both.count} sample; it is cut in halves, so give at least 2.")
        half = np.arange(both.count, dtype=np.int64)
        middle = both.count - both.count // 2
        shuffled["selection"], shuffled["gate"] = both.take(half[:middle]), both.take(half[middle:])
    return {split: shuffled[split] for split in SPLITS}


def _cut(samples: Samples, seed: int, source: str) -> dict[Split, Samples]:
    if samples.count < len(SPLITS):
        raise InputError(f"{source}: {samples.count} samples; four splits need at least 4, and hundreds to mean much.")
    order = generator_for(seed, 0, "splits").permutation(samples.count)
    sizes: dict[Split, int] = {split: max(1, int(share * samples.count)) for split, share in SHARES.items()}
    splits: dict[Split, Samples] = {}
    start = samples.count - sum(sizes.values())
    splits["calibration"] = samples.take(order[:start])
    for split, size in sizes.items():
        splits[split] = samples.take(order[start : start + size])
        start += size
    return splits


def _checked(arrays: Mapping[str, NDArray[np.generic]], specs: list[InputSpec], source: str) -> Samples:
    """The arrays of one set, converted to the graph's types."""
    named = {spec.name for spec in specs}
    targets = [name for name in _TARGET_NAMES if name in arrays and name not in named]
    if len(targets) > 1:
        raise InputError(f"{source}: both {' and '.join(targets)} are given; keep one.")
    known = {*named, *_TARGET_NAMES, SLICES}
    for name in arrays:
        if name not in known:
            raise InputError(f"{source}: the array {name!r} is no input of the graph.{suggestion(name, known)}")
    missing = [spec.name for spec in specs if spec.name not in arrays]
    if missing:
        raise InputError(
            f"{source}: no array for the graph's input {missing[0]!r}; there are {', '.join(sorted(arrays)) or 'none'}."
        )
    count = max((len(array) for array in arrays.values() if array.ndim), default=0)
    if count == 0:
        raise InputError(f"{source}: no samples.")
    result: Arrays = {}
    shared = []
    for index, spec in enumerate(specs):
        array = _typed(arrays[spec.name], spec, source)
        fixed = array.ndim == 0 or (len(array) != count and len(array) == spec.dims[0])
        if fixed:
            shared.append(f"input{index}")
        elif len(array) != count:
            raise InputError(
                f"{source}: the input {spec.name!r} has {len(array)} samples, others have {count}; samples come first."
            )
        result[f"input{index}"] = array
    for name in (*targets, *([SLICES] if SLICES in arrays and SLICES not in named else [])):
        array = arrays[name]
        if array.ndim == 0 or len(array) != count:
            raise InputError(
                f"{source}: {name!r} has shape {array.shape}; it needs {count} samples, as the inputs have."
            )
        result[SLICES if name == SLICES else TARGETS] = array
    return Samples(result, tuple(shared), count)


def _typed(array: NDArray[np.generic], spec: InputSpec, source: str) -> NDArray[np.generic]:
    """The array in the graph's type: floats become floats and integers integers where nothing is lost by range."""
    wanted = np.dtype(spec.dtype)
    if array.ndim != len(spec.dims):
        shape = ", ".join("N" if d is None else str(d) for d in spec.dims)
        raise InputError(f"{source}: the input {spec.name!r} has shape {array.shape}; the graph takes ({shape}).")
    for axis, size in enumerate(spec.dims[1:], start=1):
        if size is not None and array.shape[axis] != size:
            raise InputError(
                f"{source}: axis {axis} of the input {spec.name!r} has {array.shape[axis]} entries, not {size}, as "
                "the graph has it."
            )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{source}: the input {spec.name!r} holds values that are not finite; remove those samples.")
    if array.dtype == wanted:
        return array
    integers = array.dtype.kind in "iub" and wanted.kind in "iu"
    if integers and array.size:
        limits = np.iinfo(wanted)
        low, high = int(array.min()), int(array.max())
        if low < limits.min or high > limits.max:
            raise InputError(f"{source}: the input {spec.name!r} has {low} … {high}, which {wanted} cannot hold.")
    if not integers and not (array.dtype.kind == "f" and wanted.kind == "f"):
        raise InputError(
            f"{source}: the input {spec.name!r} is {array.dtype}; the graph takes {wanted}: save it with "
            f".astype(numpy.{wanted})."
        )
    return array.astype(wanted)
