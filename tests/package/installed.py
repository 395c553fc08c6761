"""Try the wheel as others get it: in an environment of its own, outside of the checkout, without any extra.

    python tests/package/installed.py --lowest     # Python 3.11 and constraints-lowest.txt: every lower bound
    python tests/package/installed.py --newest     # the newest Python here, and the newest of everything

Takes dist/*.whl (`make package`), and `uv` where there is one (`--uv PROGRAM` or on the PATH), else pip. Campaigns run
from an empty folder and must leave the very journals that this checkout's environment writes; `--journals DIR` has
those already, as DIR/<config>/journal.jsonl.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOWEST = ROOT / "constraints-lowest.txt"
LOWEST_PYTHON = "3.11"
NEWER = ("3.14", "3.13", "3.12", "3.11")
SMALL = ("--executor", "local", "--set", "stop.generations=3")
CAMPAIGNS = {
    "journey": ("--executor", "ray", "--workers", "2"),
    "evolve": SMALL,
    "tree": SMALL,
    "cmaes": SMALL,
    "nsga2": SMALL,
}
ALONE = ("starts", "journey")  # Ray gives up where it has to wait for others
WITHOUT = {"digits": "torch"}
"""config → the extra that it lacks in a plain install"""


class Fault(Exception):
    """Something does not hold; the message is all that is said."""


def call(*words, code=0, cwd=None, env=None):
    """Both outputs of a command that has to end with `code`."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, check=False, cwd=cwd, env=env)
    if done.returncode != code:
        raise Fault(
            f"{' '.join(map(str, words))}\nended with {done.returncode}, not {code}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout + done.stderr


def interpreters(version):
    """Programs that may be this Python: on the PATH, and what pyenv keeps beside it."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    beside = sorted(pyenv.glob(f"versions/{version}*/bin/python{version}"), reverse=True)
    return [*filter(None, [shutil.which(f"python{version}")]), *map(str, beside)]


def python_of(versions):
    """The first of these versions that runs here."""
    for version in versions:
        for program in interpreters(version):
            asked = [program, "-c", "import sys, venv, ensurepip; print('%d.%d' % sys.version_info[:2])"]
            done = subprocess.run(asked, capture_output=True, text=True, check=False)
            if done.returncode == 0 and done.stdout.strip() == version:
                return program
    raise Fault(f"no Python {' or '.join(versions)} here; install one, or name it with --python.")


def the_wheel():
    found = sorted((ROOT / "dist").glob("evoquant-*.whl"))
    if not found:
        raise Fault("no wheel in dist/; make package")
    return found[-1]


def install(venv, python, wheel, constraints, uv):
    """A fresh environment with the wheel and what it requires."""
    call(python, "-m", "venv", *(["--without-pip"] if uv else []), venv)
    program = venv / "bin" / "python"
    how = [uv, "pip", "install", "--python", program] if uv else [program, "-m", "pip", "install", "-qq"]
    call(*how, *(["-c", constraints] if constraints else []), wheel)
    return program


class Installed:
    """The environment under test, and a folder that has nothing of the checkout but copies of its configs."""

    def __init__(self, python, place, journals):
        self.python, self.place, self.journals = python, place, journals
        self.evoquant = python.with_name("evoquant")
        self.configs = place / "configs"
        self.configs.mkdir()
        for name in (*CAMPAIGNS, *WITHOUT):
            shutil.copyfile(ROOT / "configs" / f"{name}.yaml", self.configs / f"{name}.yaml")
        self.env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "RAY_ADDRESS")}
        self.env |= {"EVOQUANT_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

    def run(self, *words, code=0):
        return call(*words, code=code, cwd=self.place, env=self.env)

    def starts(self):
        """Help, import and version; nothing of the checkout, no PyTorch."""
        if "Usage: evoquant" not in self.run(self.evoquant, "--help"):
            raise Fault("evoquant --help says nothing")
        told = self.run(self.python, "-c", "import evoquant; print(evoquant.__file__)").strip()
        if not Path(told).is_relative_to(self.python.parents[1]):
            raise Fault(f"import evoquant took {told}, not what was installed")
        self.run(self.python, "-c", "import torch", code=1)
        self.run(self.evoquant, "run", "--help")

    def campaign(self, name):
        """The same journal as the checkout's environment, byte for byte; and a report of it."""
        out, options = self.place / name, CAMPAIGNS[name]
        for again in (True, True, False):
            try:
                self.run(self.evoquant, "run", self.configs / f"{name}.yaml", "--out", out, *options)
                break
            except Fault as fault:  # Ray itself gives a machine 30 s, which a busy one needs more of
                if "Ray cannot be reached" not in str(fault) or not again:
                    raise
                shutil.rmtree(out, ignore_errors=True)
        self.run(self.evoquant, "report", out, "--json")
        given = self.journals and self.journals / name
        expected = given if given and given.is_dir() else self.place / f"{name}-here"
        if expected is not given:
            here = [sys.executable, "-m", "evoquant.cli", "run", self.configs / f"{name}.yaml", "--out", expected]
            call(*here, *options, cwd=ROOT, env=self.env)
        if (out / "journal.jsonl").read_bytes() != (expected / "journal.jsonl").read_bytes():
            raise Fault(f"{name}: the journal is another than {expected}/journal.jsonl")

    def extra_missing(self, name):
        """A network without PyTorch ends with 2 and the name of the extra, and no traceback."""
        said = self.run(self.evoquant, "run", self.configs / f"{name}.yaml", "--out", self.place / name, code=2)
        if f"evoquant[{WITHOUT[name]}]" not in said or "Traceback" in said:
            raise Fault(f"{name} has to name the extra {WITHOUT[name]}:\n{said}")

    def typed(self):
        """mypy --strict on a user's script, which says more of it."""
        script = shutil.copyfile(Path(__file__).with_name("user_script.py"), self.place / "user_script.py")
        options = ("--strict", "--python-executable", self.python, "--cache-dir", self.place / "mypy")
        self.run(sys.executable, "-m", "mypy", *options, script)

    def checks(self):
        yield "starts", self.starts
        for name in CAMPAIGNS:
            yield name, lambda name=name: self.campaign(name)
        for name in WITHOUT:
            yield f"{name} without its extra", lambda name=name: self.extra_missing(name)
        yield "types", self.typed


def timed(name, check):
    start = time.monotonic()
    try:
        check()
    except Fault as fault:
        return f"{name}: {fault}"
    print(f"  {name} holds ({time.monotonic() - start:.0f} s)", flush=True)
    return None


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--lowest", action="store_true")
    which.add_argument("--newest", action="store_true")
    parser.add_argument("--python", help="the interpreter; else the lowest or the newest that is here")
    parser.add_argument("--uv", default=shutil.which("uv"))
    parser.add_argument("--journals", type=Path)
    parser.add_argument("--without", nargs="*", default=[], help="checks to leave out, such as types")
    return parser.parse_args()


def main():
    given, start = arguments(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="evoquant-installed-") as folder:
        place = Path(folder)
        try:
            python = given.python or python_of([LOWEST_PYTHON] if given.lowest else NEWER)
            program = install(place / "venv", python, the_wheel(), LOWEST if given.lowest else None, given.uv)
        except Fault as fault:
            sys.exit(str(fault))
        print(f"{python}: installed ({time.monotonic() - start:.0f} s)", flush=True)
        (place / "empty").mkdir()
        installed = Installed(program, place / "empty", given.journals and given.journals.resolve())
        chosen = [(name, check) for name, check in installed.checks() if name not in given.without]
        alone = [timed(*one) for one in chosen if one[0] in ALONE]
        with ThreadPoolExecutor(2) as pool:
            others = list(pool.map(lambda one: timed(*one), [one for one in chosen if one[0] not in ALONE]))
        if faults := [fault for fault in (*alone, *others) if fault]:
            sys.exit("\n".join(faults))
    print(f"{'lowest' if given.lowest else 'newest'} holds ({time.monotonic() - start:.0f} s)")


if __name__ == "__main__":
    main()
