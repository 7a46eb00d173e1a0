"""Ctrl-C and SIGTERM as a question asked between steps."""

import signal
import threading
from types import FrameType, TracebackType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Inside the `with` block, the first Ctrl-C or SIGTERM only makes this object true.

    A loop asks between its steps, so that what is saved belongs together. A second signal raises `KeyboardInterrupt` at once:
    whoever presses twice means it, and what was saved last is still there. Outside the main thread Python delivers no signals,
    and this object stays false.

    Args:
        once: a second signal means nothing either. Under torchrun one press arrives several
            times: from the terminal or the queue, and passed on by torchrun, which itself
            kills what has not ended half a minute later.
    """

    def __init__(self, *, once: bool = False) -> None:
        self._once = once
        self._received: int | None = None
        self._previous: dict[int, object] = {}

    def __bool__(self) -> bool:
        return self._received is not None

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
        if self._received is not None and not self._once:
            raise KeyboardInterrupt
        self._received = number
