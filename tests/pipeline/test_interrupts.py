"""Signals: those that drain are remembered and undone afterwards; Ctrl-C is left to Python."""

import os
import signal

import pytest

from pipeline.interrupts import Interrupts


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_drains_and_the_handlers_go_back(number):
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert (interrupts.draining, interrupts.exit_code) == (False, 0)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        assert (interrupts.draining, interrupts.exit_code) == (True, 143)
    assert signal.getsignal(number) is before


def test_ctrl_c_stops_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), Interrupts():
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before
