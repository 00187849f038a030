"""Ctrl-C once lets requests end; twice does not."""

import signal
import threading
from collections.abc import Iterator

import pytest

from deploy.commands.serve import StopSignal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT)


class SignalledEvent(threading.Event):
    """The signal comes as soon as somebody waits for the event."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__()
        self._number = number

    def wait(self, timeout: float | None = None) -> bool:
        signal.raise_signal(self._number)
        return super().wait(timeout)


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    stop = StopSignal()
    stop.install()
    yield stop
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_wait_and_a_second_one_hurries(
    stop: StopSignal, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop, "_event", SignalledEvent(number))
    with stop.interrupting():
        stop.wait()
        assert not stop.has_come_again()
        signal.raise_signal(number)
        assert stop.has_come_again()


def test_start_up_is_interrupted_by_a_signal(stop: StopSignal) -> None:
    with pytest.raises(KeyboardInterrupt), stop.interrupting():
        signal.raise_signal(signal.SIGTERM)


def test_sigquit_hurries_from_the_first(stop: StopSignal) -> None:
    signal.raise_signal(signal.SIGQUIT)
    stop.wait()
    assert stop.has_come_again()
