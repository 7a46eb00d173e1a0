"""Ctrl-C and SIGTERM: first a request to stop soon, then an order to stop now."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Labelling was stopped; everything finished is saved, and the message says how to go on."""


class Interruption:
    """Inside the ``with`` block the first signal makes this object true, the second raises ``KeyboardInterrupt``."""

    def __init__(self) -> None:
        self._received = False
        self._previous: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self._received

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received:
            raise KeyboardInterrupt
        self._received = True
