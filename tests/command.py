"""The command line in this process: a process of its own would import everything anew, seconds at each call."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from unittest import mock


def called(*words):
    """What `evoquant WORDS` prints and ends with; what it does not expect comes out of it."""
    out, err = io.StringIO(), io.StringIO()
    line, code = ["evoquant", *map(str, words)], 0
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with (
            mock.patch.object(sys, "argv", line),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            from evoquant.cli import main

            main()
    except SystemExit as ended:
        code = ended.code
    finally:
        signal.signal(signal.SIGTERM, handler)
    return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())


def command(folder, *words, code=0, **environment):
    """What `evoquant WORDS` prints in this folder; it has to end with `code`."""
    with contextlib.chdir(folder), mock.patch.dict(os.environ, environment):
        done = called(*words)
    assert (done.returncode or 0) == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done
