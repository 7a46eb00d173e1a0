"""A Dask cluster as a pool: on this machine, or wherever its scheduler is."""

import logging
import time
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from equipoise.data.label.method import MissingPackage
from equipoise.data.label.pool import THREADS, Engine, Pool, PoolError, deaf
from equipoise.data.label.tasks import Outcome, Task, carry_out

CONNECT = 20.0  # seconds to wait for a scheduler
PATIENCE = 60.0  # seconds that our own cluster may be without workers
LOOK = 5.0  # seconds between two looks at how many workers there are


@dataclass(frozen=True)
class Dask(Engine):
    """A cluster of Dask distributed.

    Workers need this package and the calculator installed, in the same versions as here; they need no common file system. Whoever
    can reach a scheduler can run anything on its workers: keep it inside a trusted network, or use ``tls://`` addresses with the
    certificates of Dask's own configuration.

    Attributes:
      scheduler: address of a running one, such as ``tcp://node01:8786``. None: a cluster of our own on the loopback interface.
      workers: processes of our own cluster; a running one has those that it has, which may grow and shrink meanwhile.
      threads: of the numerical libraries in each process of our own cluster.
    """

    scheduler: str | None = None
    workers: int = 1
    threads: int = 1

    def __post_init__(self):
        for name in ("workers", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, received {getattr(self, name)}")

    def open(self) -> Pool:
        """Raises:
        ValueError: if Dask is not installed.
        PoolError: if the scheduler does not answer.
        """
        return _DaskPool(self, _distributed())


class _DaskPool(Pool):
    def __init__(self, settings: Dask, distributed: Any) -> None:
        self._distributed = distributed
        self._futures: dict[Any, Hashable] = {}
        self._cluster = self._client = None
        self._looked, self._threads, self._seen = -LOOK, 0, time.monotonic()
        try:
            # Ctrl-C reaches all processes of a terminal; what becomes of the workers is decided here.
            with deaf():
                if settings.scheduler is None:
                    self._cluster = _local_cluster(settings, distributed)
                target = self._cluster or settings.scheduler
                self._client = distributed.Client(target, timeout=CONNECT, set_as_default=False)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            self.close()
            why = f"{type(error).__name__}: {error}"
            if settings.scheduler is None:
                raise PoolError(
                    f"a Dask cluster cannot be started on this machine ({why})"
                ) from error
            raise PoolError(
                f"no Dask scheduler answers at {settings.scheduler} ({why}); start one with "
                f"`dask scheduler`, and give the address that it prints"
            ) from error

    @property
    def workers(self) -> int:
        if time.monotonic() - self._looked >= LOOK or self._threads == 0:
            self._looked = time.monotonic()
            try:
                self._threads = sum(self._client.nthreads().values())
            except OSError as error:
                raise PoolError(_LOST) from error
        return self._threads

    @property
    def room(self) -> int:
        # Twice as many as can be worked on: an answer takes a moment to come and go.
        return max(0, 2 * self.workers - len(self._futures))

    @property
    def busy(self) -> int:
        return len(self._futures)

    def submit(self, key: Hashable, task: Task) -> None:
        # Not "pure": a second trial of the same task must be computed again.
        self._futures[self._client.submit(carry_out, task, pure=False)] = key

    def collect(self, seconds: float) -> list[tuple[Hashable, Outcome]]:
        if not self._futures:
            time.sleep(seconds)
            return []
        try:
            with self._client.as_current():
                done = self._distributed.wait(
                    list(self._futures), timeout=seconds, return_when="FIRST_COMPLETED"
                ).done
        except TimeoutError:
            self._check()
            return []
        outcomes = []
        for future in done:
            key = self._futures.pop(future)
            try:
                outcomes.append((key, future.result()))
            except self._distributed.KilledWorker:
                outcomes.append((key, Outcome(failure=_DIED)))
            except MissingPackage as error:
                raise MissingPackage(f"on a worker of the cluster: {error}") from error
            except Exception as error:
                cause = f"{type(error).__name__}: {error}"
                gone = future.cancelled() or self._client.status != "running"
                raise PoolError(
                    _LOST if gone else f"the workers of the cluster cannot run tasks: {cause}"
                ) from error
        return outcomes

    def _check(self) -> None:
        if self._client.status != "running":
            raise PoolError(_LOST)
        # A cluster of a queueing system may be without workers for hours; our own never is.
        if self._cluster is None or self.workers > 0:
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > PATIENCE:
            raise PoolError(
                "all workers of the Dask cluster on this machine have ended; what was finished is safe: "
                "start the same again"
            )

    def close(self) -> None:
        if self._client is not None:
            if self._cluster is None and self._futures and self._client.status == "running":
                self._client.cancel(list(self._futures))  # other people's workers live on
            self._futures = {}
            self._client.close(timeout=5)
        if self._cluster is not None:
            self._cluster.close(timeout=5)


_LOST = (
    "the connection to the Dask scheduler is lost; what was finished is safe: start the same again"
)
_DIED = (
    "worker processes died while computing this (out of memory, or a crash inside the calculator)"
)


def _local_cluster(settings: Dask, distributed: Any) -> Any:
    return distributed.LocalCluster(
        n_workers=settings.workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=logging.ERROR,
        env=dict.fromkeys(THREADS, str(settings.threads)),
    )


def _distributed() -> Any:
    try:
        import distributed  # an optional dependency, and slow to import
    except ImportError as error:
        raise ValueError(
            'a cluster needs Dask: pip install "dask[distributed]"; without it, leave out --dask and '
            "--scheduler to use plain processes on this machine"
        ) from error
    return distributed
