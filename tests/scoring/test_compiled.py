"""Kept machine code is of the sources as they are, not only of the file in which a kernel stands."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numba

from evoquant.scoring import compile_time
from evoquant.scoring import compiled as compiled_module
from evoquant.scoring.compiled import sources_digest

MODULES = {
    "genomes/constants.py": "VALUE = {value}\n",
    "scoring/compiled.py": None,
    "scoring/kernel.py": """
import sys
sys.path.insert(0, sys.argv[1])
from genomes.constants import VALUE
from scoring.compiled import compiled

@compiled
def value():
    return VALUE

if __name__ == "__main__":
    print(value(), sum(value.stats.cache_hits.values()))
""",
}


def run(folder):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder / "kept"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, folder / "scoring/kernel.py", folder]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


def write(folder, value):
    from evoquant.scoring import compiled

    for name, text in MODULES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if text is None:
            text = Path(compiled.__file__).read_text()
        stamp = path.stat() if path.exists() else None
        path.write_text(text.replace("{value}", str(value)))
        if stamp is not None:
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def test_a_constant_from_elsewhere_is_compiled_in_anew(tmp_path):
    write(tmp_path, 1)
    assert run(tmp_path) == "1 0\n"
    assert run(tmp_path) == "1 1\n", "machine code is kept"
    write(tmp_path, 2)
    assert run(tmp_path) == "2 0\n"


def test_every_room_counts(tmp_path):
    write(tmp_path, 1)
    before = sources_digest(tmp_path)
    sources_digest.cache_clear()
    (tmp_path / "search").mkdir()
    (tmp_path / "search/breeding.py").write_text("")
    assert sources_digest(tmp_path) != before


def test_the_outermost_of_nested_compilations_counts_and_is_told_once(monkeypatch):
    clock = compile_time.Clock()
    monkeypatch.setattr(compiled_module, "CLOCK", clock)
    monkeypatch.setattr(compile_time, "TOLD_AFTER_S", 0)
    monkeypatch.setattr(compile_time, "CLOCK", clock)
    said = []

    @numba.njit
    def inner(x):
        return x + 1

    @numba.njit
    def outer(x):
        return inner(x) * 2

    with compile_time.telling(said.append):
        began = time.monotonic()
        assert outer(1) == 4
        took = time.monotonic() - began
        once = clock.seconds
        assert outer(2) == 6, "compiled already"
    assert 0 < once <= took
    assert clock.seconds == once
    assert said == [compile_time.TEXT]
    outer(1.5)
    assert clock.seconds > once
    assert len(said) == 1, "nobody is told any more"
