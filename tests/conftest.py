"""What all tests share."""

import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

from tests.command import called

# Machines that check a change are shared and slow at times: how long an example takes says nothing about it.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; what is started here inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def cli():
    """stdout, stderr and exit code of the command line, called in this process."""

    def run(*words):
        done = called(*words)
        return done.stdout, done.stderr, done.returncode

    return run


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Writes the module `mine` of somebody's own; it is found while the test runs, and forgotten after."""
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("mine", None)
    yield (tmp_path / "mine.py").write_text
    sys.modules.pop("mine", None)
