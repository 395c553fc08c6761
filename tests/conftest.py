"""What all tests share."""

import signal

from hypothesis import HealthCheck, settings

# Machines that check a change are shared and slow at times: how long an example takes says nothing about it.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job; what is started here inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)
