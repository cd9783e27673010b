"""Signals that ask this process to stop: SIGTERM can unwind as Ctrl-C does, and who is at it already is not hurried.

    with handling({signal.SIGTERM: unwind}):
        ...                     a SIGTERM raises SystemExit
        ignore_signals()        from here on nothing interrupts
        ...

In the main thread alone: Python has no handlers elsewhere.
"""

import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_HANDLED = (signal.SIGHUP, *STOP_SIGNALS)

Handler = Callable[[int, FrameType | None], object]


@contextmanager
def handling(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """These handlers; at the end SIGHUP and what asks to stop mean what they meant before, whoever changed it."""
    before = {number: signal.getsignal(number) for number in _HANDLED}
    for number, handler in handlers.items():
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def unwind(number: int, _frame: FrameType | None) -> None:
    """What was begun is ended in order, and the status is the usual one: 128 and the signal's number."""
    sys.exit(128 + number)


def ignore_signals() -> None:
    """From here on to stop is what is being done; to hurry it would leave something behind."""
    for number in _HANDLED:
        signal.signal(number, signal.SIG_IGN)
