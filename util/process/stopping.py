"""Graceful stops: on a signal or at a time limit a training finishes its update, saves, and ends with exit code 85."""

import logging
import mmap
import os
import signal
import time
from types import FrameType

logger = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
STOPPED = 85  # exit code of a training that stopped on request and can be continued with --resume auto
ONE_REQUEST_S = 1.0  # launchers repeat a signal: one that follows within this time is the same request


class Stopped(Exception):
    """The training saved and stopped on request; the message names the reason, the place and how to continue."""


class StopRequest:
    """While it is entered, SIGTERM, SIGINT and SIGUSR1 set `reason` instead of ending the process; a second one, more
    than a second later, ends it at once with 128 + its number, the shell's convention.

    max_minutes: a time limit from now on, None for none. It may be entered again, and keeps a request made before.
    """

    def __init__(self, max_minutes: float | None = None) -> None:
        self.max_minutes, self.started = max_minutes, time.monotonic()
        self.signal: signal.Signals | None = None
        self.signal_time = 0.0

    @property
    def reason(self) -> str | None:
        """Why the training should stop; None while nothing asks for it."""
        if self.signal is not None:
            return self.signal.name
        if self.max_minutes is not None and time.monotonic() - self.started > self.max_minutes * 60:
            return f"--max_minutes {self.max_minutes:g}"
        return None

    def __enter__(self) -> "StopRequest":
        self._process = os.getpid()
        self._leaving = mmap.mmap(-1, 1)  # shared with forked data-loading processes
        self._before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving[0] = 1
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A signal to the whole process group must not end the data loading of a training that still finishes
            # its update. After that, multiprocessing ends its children by SIGTERM.
            if number == signal.SIGTERM and self._leaving[0]:
                os._exit(128 + number)
            return
        now = time.monotonic()
        if self.signal is None:
            self.signal, self.signal_time = signal.Signals(number), now
            logger.warning("%s: finishing this update, then saving; a second signal exits at once", self.signal.name)
        elif now - self.signal_time > ONE_REQUEST_S:
            os._exit(128 + number)


def keep_stop_handler(worker: int) -> None:
    """worker_init_fn of a DataLoader: put back the handler that the worker inherits from a `StopRequest`. Torch has
    just replaced it by one that lets a SIGTERM to the process group end the worker."""
    if callable(handler := signal.getsignal(signal.SIGTERM)):
        signal.signal(signal.SIGTERM, handler)
