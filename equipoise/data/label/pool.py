"""Where units of work are carried out: the interface, and plain processes on this machine."""

import abc
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Hashable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for_any

from equipoise.data.label.method import MissingPackage
from equipoise.data.label.tasks import Outcome, Task, carry_out

# What numerical libraries look at, when they are loaded, to decide how many threads they start.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class PoolError(RuntimeError):
    """The workers themselves fail, whatever they are given to do."""


class Pool(abc.ABC):
    """Workers that tasks are handed to and outcomes collected from, in any order."""

    @property
    @abc.abstractmethod
    def room(self) -> int:
        """How many more tasks it makes sense to submit now."""

    @property
    @abc.abstractmethod
    def workers(self) -> int:
        """How many there are at the moment."""

    @property
    @abc.abstractmethod
    def busy(self) -> int:
        """Tasks submitted whose outcome was not collected yet."""

    @abc.abstractmethod
    def submit(self, key: Hashable, task: Task) -> None: ...

    @abc.abstractmethod
    def collect(self, seconds: float) -> list[tuple[Hashable, Outcome]]:
        """What has been finished, after waiting for at most ``seconds`` for anything at all.

        A worker that dies of a task (out of memory, a crash in compiled code) gives an outcome with a ``failure`` as well.

        Raises:
          PoolError, MissingPackage: if no task can be carried out.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """End the workers at once, and with them what they are doing."""


class Engine(abc.ABC):
    """A choice of workers, which start when it is opened."""

    @abc.abstractmethod
    def open(self) -> Pool: ...


@dataclass(frozen=True)
class Processes(Engine):
    """Processes on this machine.

    Scripts that use this need ``if __name__ == "__main__":`` around what they do, because each process starts by importing them.

    Attributes:
      workers: how many.
      threads: of the numerical libraries in each. More workers are nearly always worth more than more threads.
    """

    workers: int = 1
    threads: int = 1

    def __post_init__(self):
        for name in ("workers", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, received {getattr(self, name)}")

    def open(self) -> Pool:
        return _ProcessPool(self)


class _ProcessPool(Pool):
    """Spawned processes; a task that kills its process is found out and blamed, and the others go on."""

    def __init__(self, settings: Processes) -> None:
        self._settings = settings
        self._environment = {name: os.environ.get(name) for name in THREADS}
        os.environ.update(dict.fromkeys(THREADS, str(settings.threads)))
        self._futures: dict[Future, tuple[Hashable, Task]] = {}
        # Tasks in flight when a process died, one of which is to blame: each is run again alone.
        self._suspects: deque[tuple[Hashable, Task]] = deque()
        self._alone = self._died = False
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def room(self) -> int:
        if self._alone or self._suspects:
            return 0
        # One more than can be worked on, so that no worker waits for this process.
        return max(0, self._settings.workers + 1 - len(self._futures))

    @property
    def workers(self) -> int:
        return self._settings.workers

    @property
    def busy(self) -> int:
        return len(self._futures) + len(self._suspects)

    def submit(self, key: Hashable, task: Task) -> None:
        try:
            with deaf():  # it may start a process
                self._futures[self._executor.submit(carry_out, task)] = (key, task)
        except BrokenProcessPool:
            # Another task was its end, or nothing at all; to be sorted out in collect.
            self._suspects.append((key, task))
            self._died = True

    def collect(self, seconds: float) -> list[tuple[Hashable, Outcome]]:
        done, _ = wait(self._futures, timeout=seconds, return_when=FIRST_COMPLETED)
        outcomes = []
        for future in done:
            key, task = self._futures.pop(future)
            try:
                outcomes.append((key, future.result()))
            except BrokenProcessPool:
                self._died = True
                if self._alone:
                    outcomes.append((key, Outcome(failure=_DIED)))
                else:
                    self._suspects.append((key, task))
            except MissingPackage:
                raise
            except Exception as error:
                raise PoolError(
                    f"a worker cannot run tasks: {type(error).__name__}: {error}"
                ) from error
        if self._died:
            outcomes += self._bury()
        if not self._futures:
            self._alone = bool(self._suspects)
            if self._alone:
                self.submit(*self._suspects.popleft())
        return outcomes

    def close(self) -> None:
        self._stop()
        for name, value in self._environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._theirs, self._lifeline = context.Pipe(duplex=False)
        self._executor = ProcessPoolExecutor(
            self._settings.workers,
            mp_context=context,
            initializer=_begin,
            initargs=(self._theirs,),
        )
        try:
            with deaf():
                first = self._executor.submit(os.getpid)
            first.result()
        except BrokenProcessPool as error:
            raise PoolError(
                "worker processes cannot start; their own message stands above. A script that makes "
                'labels must do so under `if __name__ == "__main__":`'
            ) from error

    def _stop(self) -> None:
        if hasattr(self, "_lifeline"):
            self._lifeline.close()
            self._theirs.close()
        if hasattr(self, "_executor"):
            self._executor.shutdown(wait=True, cancel_futures=True)

    def _bury(self) -> list[tuple[Hashable, Outcome]]:
        """After the death of a worker: what the others finished in time, and new workers."""
        outcomes = []
        # All others in flight are lost too; their futures say so in a moment.
        for future in wait(self._futures).done:
            key, task = self._futures.pop(future)
            if future.exception() is None:
                outcomes.append((key, future.result()))
            else:
                self._suspects.append((key, task))
        self._stop()
        self._start()
        self._died = False
        return outcomes


_DIED = (
    "the worker process died while computing this (out of memory, or a crash inside the calculator)"
)


@contextmanager
def deaf() -> Iterator[None]:
    """Processes and threads started inside do not hear Ctrl-C; this one hears it afterwards."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    # A helper of multiprocessing, whose start would make this thread hear again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(lifeline: Connection) -> None:
    """First thing in a worker: leave signals to the main process, and end when that ends.

    Ctrl-C and the signals of queueing systems reach all processes, and the main one alone decides what becomes of them. When it is
    killed, a worker would wait for ever for tasks that nobody sends.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait_for_any([lifeline, parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
