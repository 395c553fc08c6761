"""The command line: results to stdout, progress and messages to stderr.

Exit codes: 0 fine; 1 the campaign failed; 2 bad input; 130 interrupted, resumable.

The commands are in `evoquant.cli.commands`. This module loads nothing, so that the overview is there at once.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as in `typing`, which takes longer to load than the rest of this module
if TYPE_CHECKING:
    from typing import Any, NoReturn

PURPOSE = "Evolve mixed-precision bit allocations, and the heuristics behind them."

INTERRUPTED = 130

# command → what the overview says of it: at most 60 characters, so that it stays on its line
COMMANDS = {
    "init": "Write a commented campaign file to start from.",
    "run": "Run a campaign.",
    "resume": "Go on with an interrupted campaign, or sweep.",
    "sweep": "Run many campaigns as one job, with one table at the end.",
    "submit": "Run a campaign as a job on a Ray cluster.",
    "report": "Show what a run found; also while it is running.",
    "profile": "Profile a real network, or write or check a profile.",
    "score": "Measure an allocation that came from elsewhere.",
    "compare": "Hold runs against each other, by seed, with a test.",
    "ablate": "Say what each part of a campaign is worth.",
    "export": "Export a heuristic, or an allocation to a deployment stack.",
    "lint": "Say whether a target can take a recipe as it was measured.",
    "verify": "Deploy a recipe, run it, and compare it with its promise.",
    "cost": "Show what layers cost; measure a target's latency.",
    "apply": "Show which width a heuristic gives to each layer of a model.",
    "bound": "Show the best that any allocation can reach, with proof.",
    "pick": "Choose from the archive of a map_elites or nsga2 run.",
    "schema": "Print the JSON Schema of campaign files, for editors.",
    "version": "Print the version.",
    "bench": "How fast evoquant is on this machine, and how it scales.",
}


def __getattr__(name: str) -> Any:
    """`app`, the commands for typer, made on first use."""
    if name == "app":
        from evoquant.cli.commands import app

        return app
    raise AttributeError(f"module 'evoquant.cli' has no attribute {name!r}")


def overview() -> str:
    """What `evoquant --help` prints: as typer would, which takes as long to load as all the rest of the answer."""
    width = max(map(len, COMMANDS))
    commands = "".join(f"  {name:{width}}  {text}\n" for name, text in COMMANDS.items())
    return (
        f"Usage: evoquant [OPTIONS] COMMAND [ARGS]...\n\n  {PURPOSE}\n\n"
        f"Options:\n  --help  Show this message and exit.\n\nCommands:\n{commands}"
    )


def main() -> None:
    """Entry point: one clear message for every expected fault, never a traceback."""
    if sys.argv[1:] == ["--help"]:
        sys.stdout.write(overview())
        return
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file, not what a test puts there
            stream.reconfigure(errors="backslashreplace")
    import signal

    import typer

    from evoquant.cli.commands import app
    from evoquant.errors import EvoquantError

    signal.signal(signal.SIGTERM, _terminated)
    try:
        code = app(prog_name="evoquant", standalone_mode=False)
        sys.stdout.flush()
    except EvoquantError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output went away
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        _no_output(error)
    except MemoryError:
        _fail("out of memory; take a smaller population or model, or a larger machine", 1)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except Exception as error:
        _usage(error)
    if code == INTERRUPTED:  # typer's way with Ctrl-C; a run that can go on has said so, and how
        _fail("interrupted", INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _open_streams() -> None:
    """Where stdin, stdout or stderr is closed, open nothing there: else the next file, a journal, would take its place.

    Then what a library prints would be written into it.
    """
    import os

    while (handle := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(handle, True)
    os.close(handle)
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8")  # noqa: SIM115


def _no_output(error: OSError) -> NoReturn:
    """A full disk behind stdout ends in a message; anything else that nobody expected is a bug and is raised."""
    import errno
    import os

    if error.filename is not None or error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
        raise error
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left would fail again at the very end
    _fail(f"stdout: cannot be written: {error.strerror}.", 2)


def _usage(error: Exception) -> NoReturn:
    """Wrong options end with code 2 and the command's usage; anything else is a bug and is raised."""
    show = getattr(error, "show", None)
    if show is None:
        raise error
    show()
    sys.exit(2)


def _terminated(number: int, frame: object) -> NoReturn:
    """Treat SIGTERM like Ctrl-C, so that a scheduler's stop checkpoints too."""
    raise KeyboardInterrupt


def _fail(message: str, code: int) -> NoReturn:
    from evoquant.report.terminal import plain

    sys.stderr.write(f"evoquant: {plain(message)}\n")
    sys.exit(code)
