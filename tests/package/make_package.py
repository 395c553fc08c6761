"""Build the sdist and the wheel, check both, and leave them in dist/: `make package`.

They are built from what git tracks, as it lies in the working tree, so nothing else can get in. Held to: the wheel has
the package's own files and no others; the sdist has all that the tests need, and building from it gives the very same
wheel; a second build gives the same bytes (the time of all members is that of the last commit); the metadata is valid.
"""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from email import message_from_bytes
from pathlib import Path

from packaging.metadata import Metadata

ROOT = Path(__file__).resolve().parents[2]
NOT_IN_SDIST = (".ci/", ".gitignore")
WRITTEN = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt", "licenses/LICENSE")
STUBS = ("PKG-INFO", "setup.cfg")
WORDS = {"Name": "evoquant", "Description-Content-Type": "text/markdown", "License-Expression": "MIT"}


def git(*words):
    try:
        return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        sys.exit(f"{ROOT}: packages are built from a git checkout, which this is not.")


def tracked():
    """Paths that git has and that are still there, relative to the root."""
    return sorted(path for path in git("ls-files", "-z").split("\0") if path and (ROOT / path).is_file())


def build(folder, out, epoch, *words):
    """The sdist and the wheel that setuptools makes of `folder`; without words the wheel is made from the sdist."""
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", *words, "--outdir", out, folder],
        env={**os.environ, "SOURCE_DATE_EPOCH": epoch},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    return {path.name.rpartition(".")[2]: path for path in out.iterdir()}


def copied(paths, folder):
    for path in paths:
        to = folder / path
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, to)
        to.chmod(0o755 if os.access(ROOT / path, os.X_OK) else 0o644)  # whatever the umask of the checkout was
    return folder


def settled(sdist, epoch):
    """The same sdist, its bytes a function of its content: setuptools writes times, users and an order of its own."""
    with tarfile.open(sdist) as archive:
        members = [(one, archive.extractfile(one).read()) for one in archive.getmembers() if one.isfile()]
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for one, data in sorted(members, key=lambda pair: pair[0].name):
            plain = tarfile.TarInfo(one.name)
            plain.size, plain.mode, plain.mtime = len(data), one.mode, int(epoch)
            archive.addfile(plain, io.BytesIO(data))
    sdist.write_bytes(gzip.compress(raw.getvalue(), mtime=int(epoch)))
    return sdist


def wheel_faults(wheel, paths):
    """What differs between a wheel's files and the tracked ones of the package."""
    with zipfile.ZipFile(wheel) as archive:
        found = set(archive.namelist())
        metadata = next((archive.read(name) for name in found if name.endswith(".dist-info/METADATA")), b"")
    info = "-".join(wheel.name.split("-")[:2]) + ".dist-info"
    wanted = {path for path in paths if path.startswith("evoquant/")} | {f"{info}/{name}" for name in WRITTEN}
    return [*difference("wheel", found, wanted), *metadata_faults(metadata)]


def sdist_faults(sdist, paths):
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    found = {name for name in found if not name.startswith("evoquant.egg-info/")}
    wanted = {path for path in paths if not path.startswith(NOT_IN_SDIST)} | set(STUBS)
    return difference("sdist", found, wanted)


def difference(kind, found, wanted):
    lacks = [f"the {kind} lacks {path}" for path in sorted(wanted - found)]
    return lacks + [f"the {kind} has {path}, which does not belong there" for path in sorted(found - wanted)]


def metadata_faults(data):
    """Names, versions, licence and requirements by the packaging standards; a description; lower bounds."""
    try:
        known = Metadata.from_email(data, validate=True)
    except Exception as error:  # a group of all that is wrong
        return [f"metadata: {one}" for one in getattr(error, "exceptions", [error])]
    raw = message_from_bytes(data)
    faults = [f"metadata: {key} is {raw[key]!r}, not {value!r}" for key, value in WORDS.items() if raw[key] != value]
    if not (known.description or "").strip():
        faults.append("metadata: no description")
    for one in known.requires_dist or ():
        if "extra" not in str(one.marker) and not any(part.operator == ">=" for part in one.specifier):
            faults.append(f"metadata: {one} has no lower bound")
    return faults


def main():
    paths, epoch = tracked(), git("log", "-1", "--format=%ct").strip()
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        shutil.copytree(copied(paths, place / "tree"), place / "same")  # the working tree may change meanwhile
        first = build(place / "tree", place / "out", epoch)
        again = build(place / "same", place / "again", epoch, "--sdist", "--wheel")
        sdist, wheel = settled(first["gz"], epoch), first["whl"]
        faults = [*wheel_faults(wheel, paths), *sdist_faults(sdist, paths)]
        if wheel.read_bytes() != again["whl"].read_bytes():
            faults.append("the wheel built from the sdist is not the one built from the tree, byte for byte")
        if sdist.read_bytes() != settled(again["gz"], epoch).read_bytes():
            faults.append("a second sdist differs from the first")
        if faults:
            sys.exit("\n".join(faults))
        out = ROOT / "dist"
        out.mkdir(exist_ok=True)
        for path in out.glob("evoquant-*"):
            path.unlink()
        for path in (sdist, wheel):
            shutil.copyfile(path, out / path.name)
            print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  dist/{path.name}  {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
