"""Try the sdist as a packager gets it: unpacked alone, its tests are found, and quick ones of many kinds pass.

Found are those that need no extra: the others' libraries take longer to import than all of this.

    python tests/package/unpacked.py        # takes dist/*.tar.gz (`make package` makes it, and runs this)

The package under test is the unpacked one, whatever is installed; there is no git, and nothing of the checkout.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Those that read what lies beside the package: configs, documents, rows of results.
QUICK = (
    *("tests/test_rng.py", "tests/test_files.py", "tests/test_readme.py"),
    *("tests/package/test_package.py", "tests/campaign/test_config.py"),
)
WHERE = (
    "import evoquant, pathlib, sys; sys.exit(not pathlib.Path(evoquant.__file__).is_relative_to(pathlib.Path.cwd()))"
)


def call(what, folder, *words):
    """The output of a Python within the unpacked sdist, which has to end well."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "GIT_"))}
    env = clean | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"the unpacked sdist: {what} ended with {done.returncode}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
        )
    return done.stdout


def main():
    found, start = sorted((ROOT / "dist").glob("evoquant-*.tar.gz")), time.monotonic()
    if not found:
        sys.exit("no sdist in dist/; make package")
    with tempfile.TemporaryDirectory(prefix="evoquant-unpacked-") as place:
        with tarfile.open(found[-1]) as archive:
            archive.extractall(place, filter="data")
        folder = Path(place) / found[-1].name.removesuffix(".tar.gz")
        call("importing its package", folder, "-c", WHERE)
        listed = call(
            "collecting its tests",
            folder,
            "-m",
            "pytest",
            "-q",
            "--collect-only",
            "--ignore-glob=*/optional_*",
            "tests",
        )
        tests = sum(int(line.rpartition(": ")[2]) for line in listed.splitlines() if line.startswith("tests/"))
        call("running quick tests", folder, "-m", "pytest", "-q", *QUICK)
    took = time.monotonic() - start
    print(f"the unpacked sdist: {tests} tests are found, {len(QUICK)} files of them pass ({took:.0f} s)")


if __name__ == "__main__":
    main()
