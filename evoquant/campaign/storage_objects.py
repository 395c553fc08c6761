"""Object stores, through fsspec: whole objects under one prefix, by name.

A store neither appends nor renames. What a run directory needs of it is here: to write an object whole, to create one
only where there is none, and to replace one only where it is still the one that was read.
"""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Any, Protocol

from evoquant.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable

REFUSED = (409, 412)  # HTTP: another conditional write is under way; the condition does not hold
_MEMORY = threading.RLock()  # memory:// is of this process alone


class Objects(Protocol):
    """Objects under one prefix. Faults are `OSError`s; a missing object is a `FileNotFoundError`."""

    exclusive: bool
    """Whether the store itself sees to it that of two writers who create or replace at once only one does."""

    def names(self, folder: str = "") -> list[str]:
        """Names of all objects, or of those whose names begin with `folder/`, sorted."""
        ...

    def size(self, name: str) -> int | None:
        """In bytes; None where there is no such object."""
        ...

    def read(self, name: str) -> bytes:
        """What an object holds."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """An object, whole: who reads meanwhile gets the old one or the new one."""
        ...

    def create(self, name: str, data: bytes) -> str | None:
        """The same, only where there is none: its tag; None where there is one."""
        ...

    def tagged(self, name: str) -> tuple[bytes, str] | None:
        """What an object holds, and a tag that changes with it; None where there is none."""
        ...

    def replace(self, name: str, data: bytes, tag: str) -> str | None:
        """Write an object only where its tag is still this one: the new tag; None where it is another, or gone."""
        ...

    def remove(self, name: str) -> None:
        """Take an object away, if there is one."""
        ...


class FsspecObjects:
    """Of any file system of fsspec that writes an object whole; `replace` looks before it writes, which can be late."""

    exclusive = False

    def __init__(self, scheme: str, url: str) -> None:
        """Open the prefix `url`.

        Raises:
            InputError: the package for it is not installed.
        """
        try:
            import fsspec
        except ImportError:
            raise MissingExtraError(f"{scheme}://", "fsspec", "remote") from None
        try:
            self.fs: Any = fsspec.filesystem(scheme, use_listings_cache=False)
        except ImportError as error:
            if scheme == "s3":
                raise MissingExtraError("s3://", "s3fs", "remote") from None
            raise InputError(f"{url}: {scheme}:// needs another package: {error}.") from None
        self.root = str(self.fs._strip_protocol(url)).rstrip("/")

    def at(self, name: str) -> str:
        """The path of an object for fsspec."""
        return f"{self.root}/{name}"

    def names(self, folder: str = "") -> list[str]:
        """See `Objects`."""
        place = self.at(folder) if folder else self.root
        try:
            found = self.told(self.fs.find, place)
        except FileNotFoundError:
            return []
        start = f"{self.root}/"
        return sorted(path[len(start) :] for path in map(str, found) if path.startswith(f"{place}/"))

    def size(self, name: str) -> int | None:
        """See `Objects`."""
        try:
            found = self.told(self.fs.info, self.at(name))
        except FileNotFoundError:
            return None
        return int(found["size"] or 0) if found["type"] == "file" else None

    def read(self, name: str) -> bytes:
        """See `Objects`."""
        return bytes(self.told(self.fs.cat_file, self.at(name)))

    def write(self, name: str, data: bytes) -> None:
        """See `Objects`."""
        self.told(self.fs.pipe_file, self.at(name), data)

    def create(self, name: str, data: bytes) -> str | None:
        """See `Objects`."""
        try:
            self.told(self.fs.pipe_file, self.at(name), data, mode="create")
        except FileExistsError:
            return None
        return _tag(data)

    def tagged(self, name: str) -> tuple[bytes, str] | None:
        """See `Objects`."""
        try:
            data = self.read(name)
        except FileNotFoundError:
            return None
        return data, _tag(data)

    def replace(self, name: str, data: bytes, tag: str) -> str | None:
        """See `Objects`."""
        found = self.tagged(name)
        if found is None or found[1] != tag:
            return None
        self.write(name, data)
        return _tag(data)

    def remove(self, name: str) -> None:
        """See `Objects`."""
        try:
            self.told(self.fs.rm_file, self.at(name))
        except FileNotFoundError:
            return

    def told(self, action: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What an action of fsspec returns; whatever it raises beside `OSError`s as one.

        Raises:
            OSError: of the store, the network or the credentials.
        """
        try:
            return action(*arguments, **options)
        except OSError:
            raise
        except Exception as error:  # each library has its own
            text = " ".join(str(error).split()) or type(error).__name__
            raise OSError(text[:300]) from error


class MemoryObjects(FsspecObjects):
    """In this process's memory: nobody else sees them, and they end with it."""

    exclusive = True

    def create(self, name: str, data: bytes) -> str | None:
        """See `Objects`."""
        with _MEMORY:
            return super().create(name, data)

    def replace(self, name: str, data: bytes, tag: str) -> str | None:
        """See `Objects`."""
        with _MEMORY:
            return super().replace(name, data, tag)

    def names(self, folder: str = "") -> list[str]:
        """See `Objects`."""
        with _MEMORY:  # fsspec walks the dictionary that others write to
            return super().names(folder)

    def size(self, name: str) -> int | None:
        """See `Objects`."""
        with _MEMORY:
            return super().size(name)

    def write(self, name: str, data: bytes) -> None:
        """See `Objects`."""
        with _MEMORY:
            super().write(name, data)

    def remove(self, name: str) -> None:
        """See `Objects`."""
        with _MEMORY:
            super().remove(name)


class S3Objects(FsspecObjects):
    """In S3 or what speaks its language: PUT with If-None-Match and If-Match, which the server has to enforce."""

    exclusive = True

    def create(self, name: str, data: bytes) -> str | None:
        """See `Objects`."""
        return self._put(name, data, IfNoneMatch="*")

    def tagged(self, name: str) -> tuple[bytes, str] | None:
        """See `Objects`: the tag first; what is read may be newer, and then the tag does not replace it."""
        try:
            found = self.told(self.fs.info, self.at(name), refresh=True)
            return self.read(name), _bare(found["ETag"])
        except (FileNotFoundError, KeyError):
            return None

    def replace(self, name: str, data: bytes, tag: str) -> str | None:
        """See `Objects`."""
        return self._put(name, data, IfMatch=tag)

    def _put(self, name: str, data: bytes, **condition: str) -> str | None:
        bucket, key, _ = self.fs.split_path(self.at(name))
        try:
            answer = self.told(self.fs.call_s3, "put_object", Bucket=bucket, Key=key, Body=data, **condition)
        except OSError as error:
            if _status(error) in REFUSED or ("IfMatch" in condition and isinstance(error, FileNotFoundError)):
                return None
            raise
        self.fs.invalidate_cache(self.at(name))
        return _bare(answer["ETag"])


def _bare(tag: str) -> str:
    """An ETag without its quotes, which S3 takes, and Ceph compares with nothing else."""
    return tag.strip('"')


def _tag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _status(error: BaseException) -> int | None:
    """The HTTP status behind what s3fs raised."""
    response = getattr(error.__cause__ or error, "response", None)
    if not isinstance(response, dict):
        return None
    found = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return found if isinstance(found, int) else None
