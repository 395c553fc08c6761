"""Runs commands on changed files in one process, under an audit hook that notes whatever files must not bring about.

Called by test_hostile.py with a JSON file: `warm`, commands that load all that is needed; `probes`, files to change and
the command to run on them; `roots`, folders that may be written to, put back after each probe; `secret`, a file that
nothing may open. Prints what happened, probe by probe.
"""

import base64
import contextlib
import importlib.util
import io
import json
import os
import site
import sys
import sysconfig
import traceback
from pathlib import Path

NEVER = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty")
NEVER += ("os.spawn", "socket.connect", "socket.bind", "pty.spawn", "sqlite3.load_extension", "code.__new__")
NEVER += ("sqlite3.enable_load_extension", "cpython.run_command", "cpython.run_file")
CODE = ("exec", "compile", "marshal.loads")
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate")
LIBRARIES = [*site.getsitepackages(), *map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib")), "/lib", "/usr"]
LIBRARIES += [sys.base_prefix, sys.prefix]


class Watch:
    """What happened while it is on."""

    def __init__(self, roots, secret):
        self.on = False
        self.events = []
        self.installed = {"evoquant": True}
        self.roots = [os.path.realpath(root) for root in roots]
        self.secret = secret
        sys.addaudithook(self._hear)

    def _hear(self, event, args):
        if not self.on:
            return
        self.on = False
        try:
            fault = self._fault(event, args)
            if fault:
                self.events.append(f"{event} {fault}"[:300])
        finally:
            self.on = True

    def _fault(self, event, args):
        if event in NEVER:
            return repr(args)
        if event == "import":
            return None if self._installed(args[0].partition(".")[0]) else repr(args[0])
        if event in CODE:
            return None if self._loads(event, args) else repr(args)
        if event == "ctypes.dlopen":
            return None if args[0] is None or self._within(args[0], LIBRARIES) else repr(args)
        if event == "sqlite3.connect":
            return None if self._within(args[0], self.roots) else repr(args)
        if event in CHANGES:
            return None if self._within(args[0], self.roots) else repr(args)
        if event == "open":
            return self._opened(*args)
        return None

    def _opened(self, path, mode, flags):
        if isinstance(path, int):
            return None
        if os.path.realpath(path) == self.secret:
            return "reads what it was told to keep away from"
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if mode is None else set(mode) & set("wax+")
        return repr((path, mode, flags)) if writes and not self._within(path, [*self.roots, "/dev/null"]) else None

    @staticmethod
    def _within(path, folders):
        if isinstance(path, int):
            return True
        real = os.path.realpath(os.fsdecode(path))
        return any(real == folder or real.startswith(folder.rstrip("/") + "/") for folder in folders)

    def _installed(self, name):
        if name not in self.installed:
            spec = importlib.util.find_spec(name)
            place = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), None)
            self.installed[name] = place in (None, "built-in", "frozen") or self._within(place, LIBRARIES)
        return self.installed[name]

    def _loads(self, event, args):
        """Whether this is Python loading a module, typer our annotations, or NumPy the literal in an array's header."""
        frame = sys._getframe(3)
        if frame.f_globals.get("__name__") in ("inspect", "typing"):
            return True
        while frame is not None:
            if "importlib._bootstrap" in frame.f_code.co_filename:
                return True
            if event == "compile" and frame.f_code.co_name == "literal_eval" and frame.f_globals["__name__"] == "ast":
                return True
            frame = frame.f_back
        return False


def run(words):
    from evoquant.cli import main

    sys.argv = ["evoquant", *words]
    out, err = io.StringIO(), io.StringIO()
    code, crash = 0, ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stop:
            code = 0 if stop.code is None else stop.code
        except BaseException:
            crash = traceback.format_exc()
    return {"code": code, "crash": crash[-1500:], "said": err.getvalue(), "shown": out.getvalue()}


def snapshot(roots):
    return {path: path.read_bytes() for root in roots for path in Path(root).rglob("*") if path.is_file()}


def restore(roots, before):
    for root in roots:
        for path in Path(root).rglob("*"):
            if (path.is_file() or path.is_symlink()) and path not in before:
                path.unlink()
    for path, content in before.items():
        if not path.is_file() or path.is_symlink() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.write_bytes(content)


def main_of(spec):
    before = snapshot(spec["roots"])
    for gone, words in spec["warm"]:
        for path in gone:
            Path(path).unlink()
        done = run(words)
        assert done["code"] == 0 and not done["crash"], (words, done)
        restore(spec["roots"], before)
    watch = Watch(spec["roots"], spec["secret"])
    found = []
    for probe in spec["probes"]:
        for path in probe["gone"]:
            Path(path).unlink(missing_ok=True)
        for path, content in probe["write"].items():
            Path(path).write_bytes(base64.b64decode(content))
        watch.events = []
        watch.on = True
        done = run(probe["words"])
        watch.on = False
        strange = [name for name, module in sys.modules.items() if _lies_in(module, spec["roots"])]
        found.append({**done, "label": probe["label"], "events": watch.events, "modules": strange})
        restore(spec["roots"], before)
    return found


def _lies_in(module, roots):
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and any(file.startswith(root) for root in roots)


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps(main_of(given)))
