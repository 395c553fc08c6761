"""Where a run directory is: a folder, or a URL of an object store, which reads like a path; `RunDir` writes it."""

from __future__ import annotations

import io
import os
import re
import stat
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any, NoReturn

from evoquant.errors import InputError, quoted
from evoquant.files import is_file, is_folder

if TYPE_CHECKING:
    from evoquant.campaign.storage_objects import Objects

SCHEMES = ("s3", "gs", "memory")  # and file, which is a folder
LONGEST_URL = 900  # bytes; S3 takes 1024, and names come behind it
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_FOLDED = re.compile(rf"({'|'.join(SCHEMES)}|file):/(?!/)(.*)", re.DOTALL)  # what pathlib makes of a URL
_MEANS_MORE = re.compile(r"[?#*\[\]\\]|::")  # to fsspec, or within a URL


class Url(PosixPath):
    """A place in an object store, as a path: it can be read, joined and shown; nothing is written through it."""

    __slots__ = ()

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    @property
    def scheme(self) -> str:
        """`s3`, `gs` or `memory`."""
        return self.parts[0].removesuffix(":")

    def objects(self) -> Objects:
        """What lies below it.

        Raises:
            InputError: the package for it is not installed.
        """
        from evoquant.campaign import storage_objects

        kinds = {"s3": storage_objects.S3Objects, "memory": storage_objects.MemoryObjects}
        return kinds.get(self.scheme, storage_objects.FsspecObjects)(self.scheme, str(self))

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Kind and size."""
        size = self._above().size(self.name)
        if size is not None:
            return os.stat_result((stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, size, 0, 0, 0))
        if self.objects().names():
            return os.stat_result((stat.S_IFDIR | 0o555, 0, 0, 1, 0, 0, 0, 0, 0, 0))
        raise FileNotFoundError(str(self))

    def exists(self, **_: Any) -> bool:
        """Whether there is an object, or are objects below it."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_file(self, **_: Any) -> bool:
        """Whether there is such an object."""
        return self._above().size(self.name) is not None

    def is_dir(self, **_: Any) -> bool:
        """Whether there are objects below it."""
        return bool(self.objects().names())

    def read_bytes(self) -> bytes:
        """What the object holds."""
        return self._above().read(self.name)

    def read_text(self, encoding: str | None = None, errors: str | None = None, newline: str | None = None) -> str:
        """What the object holds, as text."""
        return io.TextIOWrapper(
            io.BytesIO(self.read_bytes()), encoding=encoding or "utf-8", errors=errors, newline=newline
        ).read()

    def open(self, mode: str = "r", *_: Any, **__: Any) -> Any:
        """What the object holds, as a stream to read."""
        if set(mode) - set("rbt"):
            raise OSError(f"{self} is read as it is, and written by a run alone")
        data = io.BytesIO(self.read_bytes())
        return data if "b" in mode else io.TextIOWrapper(data, encoding="utf-8")

    def resolve(self, strict: bool = False) -> Url:
        """Itself."""
        return self

    def absolute(self) -> Url:
        """Itself."""
        return self

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> NoReturn:
        """No folder is made for it: not here, where one of its name would be."""
        raise OSError(f"{self} is no folder of this machine")

    def _above(self) -> Objects:
        return Url(*self.parts[:-1]).objects()


def place_of(text: str | Path) -> Path:
    """The place of a run directory that somebody has named: a folder's path, or a `Url`.

    Raises:
        InputError: a URL that no run directory can have; the message says what would be right.
    """
    if isinstance(text, Url):
        return text
    given = str(text)
    found = _URL.match(given) or (_FOLDED.match(given) if isinstance(text, Path) else None)
    named = quoted(given)
    if found is None:
        if "://" in given:
            raise InputError(f"{named}: cannot be the URL of a run directory; write it as s3://bucket/runs/mine.")
        return Path(text)
    scheme, rest = found[1].lower(), found[2]
    if scheme == "file":
        if isinstance(text, Path):
            return Path("/", rest)
        if not rest.startswith("/"):
            raise InputError(f"{named}: a file:// URL names a folder of this machine: file:///folder/run.")
        return Path(rest)
    if scheme not in SCHEMES:
        raise InputError(
            f"{named}: nothing is known of {scheme}://; a run directory is a folder, or a URL that begins with "
            f"{', '.join(f'{one}://' for one in SCHEMES)} or file://."
        )
    parts = [part for part in rest.split("/") if part]
    least = 1 if scheme == "memory" else 2
    if len(parts) < least:
        raise InputError(f"{named}: names no place within a {'store' if least == 1 else 'bucket'}; {_like(scheme)}.")
    meant = not given.isprintable() or _MEANS_MORE.search(rest) or {".", ".."} & set(parts)
    if meant or len(given.encode()) > LONGEST_URL:
        raise InputError(
            f"{named}: cannot be the URL of a run directory: at most {LONGEST_URL} bytes, without `.` or `..` as a "
            f"part, and without ? # * [ ] \\ :: or what cannot be printed; {_like(scheme)}."
        )
    return Url(f"{scheme}:", *parts)


def _like(scheme: str) -> str:
    return f"write it as {scheme}://{'' if scheme == 'memory' else 'bucket/'}runs/mine"


def is_run(path: Path) -> bool:
    """Whether a folder is there, or something in an object store that is no single object."""
    return is_folder(path) and not (isinstance(path, Url) and is_file(path))


def lasting_place(text: str | Path) -> Path:
    """The place of a run directory that is still there when this process has ended.

    Raises:
        InputError: as `place_of`; or it is in memory.
    """
    place = place_of(text)
    if isinstance(place, Url) and place.scheme == "memory":
        raise InputError(
            f"{place}: is in the memory of this command, and would be gone when it ends; name a folder, or a URL such "
            f"as s3://bucket/runs/mine. From Python, evoquant.run(…, out=…) takes it."
        )
    return place


def folder_of(text: str | Path, what: str) -> Path:
    """A folder that somebody has named for what lies on this machine alone.

    Raises:
        InputError: it is the URL of an object store; the message says `what` needs a folder.
    """
    place = place_of(text)
    if isinstance(place, Url):
        raise InputError(f"{place}: {what} is a folder of this machine; single runs can be in {place.scheme}://.")
    return place
