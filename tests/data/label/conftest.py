"""Workers that are this very process: everything but the processes themselves can be tested without waiting for them."""

import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

import pytest

from equipoise.data.label import Engine
from equipoise.data.label.pool import Pool
from equipoise.data.label.tasks import Outcome, Task, carry_out


@dataclass(frozen=True)
class InTurn(Engine):
    """Carries tasks out one by one, in a random order among those submitted.

    Attributes:
      before: called with the number of tasks done so far, before each; may raise or send a signal.
    """

    order: int = 0
    workers: int = 3
    before: Callable[[int], object] = field(default=lambda done: None)

    def open(self) -> Pool:
        return _InTurn(self)


class _InTurn(Pool):
    def __init__(self, settings: InTurn) -> None:
        self._settings = settings
        self._random = random.Random(settings.order)
        self._tasks: list[tuple[Hashable, Task]] = []
        self._done = 0

    @property
    def workers(self) -> int:
        return self._settings.workers

    @property
    def room(self) -> int:
        return self._settings.workers - len(self._tasks)

    @property
    def busy(self) -> int:
        return len(self._tasks)

    def submit(self, key: Hashable, task: Task) -> None:
        self._tasks.append((key, task))

    def collect(self, seconds: float) -> list[tuple[Hashable, Outcome]]:
        self._settings.before(self._done)
        self._done += 1
        key, task = self._tasks.pop(self._random.randrange(len(self._tasks)))
        return [(key, carry_out(task))]

    def close(self) -> None:
        self._tasks = []


@pytest.fixture
def in_turn() -> type[InTurn]:
    return InTurn
