"""The command line in this process: a process of its own would import everything anew, seconds at each call."""

import contextlib
import io
import os
import subprocess
import sys
from unittest import mock


def command(folder, *words, code=0, **environment):
    """What `evoquant WORDS` prints in this folder; it has to end with `code`."""
    out, err = io.StringIO(), io.StringIO()
    line = ["evoquant", *map(str, words)]
    with (
        contextlib.chdir(folder),
        mock.patch.object(sys, "argv", line),
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        from evoquant.cli import main

        ended = None
        try:
            main()
        except SystemExit as exit:
            ended = exit.code
    done = subprocess.CompletedProcess(line, ended or 0, out.getvalue(), err.getvalue())
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done
