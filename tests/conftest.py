"""What all tests share."""

import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

# Machines that check a change are shared and slow at times: how long an example takes says nothing about it.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; what is started here inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def cli(monkeypatch, capsys):
    """stdout, stderr and exit code of the command line, called in this process."""
    from evoquant.cli import main

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["evoquant", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return printed.out, printed.err, ended.value.code

    return run
