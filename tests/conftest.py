"""What all tests share."""

import signal

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
