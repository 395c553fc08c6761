"""Named arrays as bytes, and back: for payloads and cached networks. Never pickles."""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from evoquant.errors import InputError
from evoquant.files import canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

Arrays = dict[str, "NDArray[np.generic]"]
Packed = dict[str, Any]
"""Arrays beside their digest, for Ray: its object store holds them once for all workers of a node."""

_DIGEST = "sha256"


def digest_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> str:
    """sha256 over names, types, shapes and bytes; the order of the names does not matter."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(canonical_json([name, array.dtype.str, list(array.shape)]).encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)  # no copy: weights may be large
    return digest.hexdigest()


def pack_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    """The arrays and their digest as an uncompressed .npz: equal arrays give equal bytes."""
    stream = io.BytesIO()
    stamp = np.frombuffer(bytes.fromhex(digest_arrays(arrays)), dtype=np.uint8)
    ordered = {name: arrays[name] for name in sorted(arrays)}
    with zipfile.ZipFile(stream, "w") as archive:
        for name, array in {**ordered, _DIGEST: stamp}.items():
            entry = io.BytesIO()
            np.save(entry, array, allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), entry.getvalue())  # ZipInfo's fixed date, not today's
    return stream.getvalue()


def unpack_arrays(data: bytes, source: str) -> Arrays:
    """The arrays that `pack_arrays` wrote, writable.

    Raises:
        InputError: `data` is damaged; the message begins with `source`.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays: Arrays = {name: archive[name] for name in archive.files}
        stamp = arrays.pop(_DIGEST).tobytes().hex()
    except Exception as error:  # zip, its codecs and NumPy's header each raise their own, MemoryError among them
        raise InputError(f"{source}: damaged: {type(error).__name__}: {error}.") from None
    if stamp != digest_arrays(arrays):
        raise InputError(f"{source}: damaged: its content does not match its digest {stamp[:12]}.")
    return arrays


def placed_arrays(arrays: Mapping[str, NDArray[np.generic]]) -> Packed:
    """The arrays as they are, with their digest: what is sent of them is no copy in each worker."""
    return {"arrays": dict(arrays), _DIGEST: digest_arrays(arrays)}


def arrays_of(given: bytes | Packed, source: str) -> Arrays:
    """What `pack_arrays` wrote, or `placed_arrays` holds; the latter may be read-only.

    Raises:
        InputError: damaged; the message begins with `source`.
    """
    if isinstance(given, bytes):
        return unpack_arrays(given, source)
    arrays: Arrays = given["arrays"]
    if digest_arrays(arrays) != given[_DIGEST]:
        raise InputError(f"{source}: damaged: its content does not match its digest {given[_DIGEST][:12]}.")
    return arrays
