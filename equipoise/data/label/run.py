"""The verb: make labels, or go on making them."""

import collections
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ase
from rich.console import Console

from equipoise.data.interruption import Interruption
from equipoise.data.label.pool import Engine, Pool, PoolError, Processes
from equipoise.data.label.progress import Bar
from equipoise.data.label.record import Summary, check_folder, final_record, first_record
from equipoise.data.label.request import Request
from equipoise.data.label.starts import bare, check_structures
from equipoise.data.label.store import Store
from equipoise.data.label.tasks import SinglePoint, Stretch, Task

LOOK = 0.25  # seconds; how soon Ctrl-C is noticed
SYNC = 5.0  # seconds; what a power cut (not a crash) may cost
JUDGED = 20  # units that must have ended before their failures are held against the limit


class Interrupted(KeyboardInterrupt):
    """Labelling was stopped; everything finished is saved, and the message says how to go on."""


class TooManyFailures(RuntimeError):
    """More units failed than were allowed to; what was finished is saved."""


def label(
    structures: Sequence[ase.Atoms],
    request: Request,
    *,
    folder: str | Path,
    engine: Engine | None = None,
    source: str = "",
    max_failures: float = 0.1,
    retry: bool = False,
    resume: bool = True,
    console: Console | None = None,
) -> Summary:
    """Label ``structures``, or frames of dynamics started from them, into ``folder``.

    Writes ``labels.extxyz`` (energy eV, forces eV/Å, stress eV/Å³ of fully periodic structures, and where each frame comes from),
    ``record.json`` (request, versions, counts), ``failures.jsonl`` where something failed, and ``journal/``, from which a run that
    was stopped goes on: the same call with the same folder does only what is missing. The labels do not depend on the number or
    kind of workers, nor on how often the run was stopped, if the calculator gives the same numbers for the same structure.

    Args:
      structures: labels, momenta and calculators that they carry are ignored; constraints hold during dynamics.
      engine: who does the work; one process unless told otherwise.
      source: where the structures come from, for the record.
      max_failures: the run stops when more than this part of the units that have ended failed (looked at from the 20th on, and at
        the end).
      retry: try once more what failed before.
      resume: False deletes what the folder holds.
      console: where progress is shown; None shows nothing.

    Raises:
      ValueError: for a folder with another request, structures that nothing can compute, and a calculator that cannot be made.
      MissingPackage, PoolError: if the calculator or the workers are not there.
      TooManyFailures: see ``max_failures``.
      StoreError: if the folder cannot be written.
      Interrupted: after Ctrl-C or SIGTERM.
    """
    if not 0 <= max_failures <= 1:
        raise ValueError(f"max_failures must be a fraction from 0 to 1, received {max_failures}")
    check_structures(structures)
    structures = [bare(atoms) for atoms in structures]
    request.method.check()
    _check_elements(structures, request)
    wanted, folder = request.as_record(structures), Path(folder)
    before = check_folder(folder, wanted) if resume else None
    store = Store(folder, fresh=not resume)
    try:
        run = _Run(structures, request, store, max_failures=max_failures, console=console)
        record = first_record(wanted, source=source, before=before)
        return run.go(engine or Processes(), record, retry=retry)
    finally:
        store.close()


class _Run:
    """One start of a request."""

    def __init__(
        self,
        structures: Sequence[ase.Atoms],
        request: Request,
        store: Store,
        *,
        max_failures: float,
        console: Console | None,
    ) -> None:
        self._structures, self._request, self._store = structures, request, store
        self._max_failures, self._console = max_failures, console
        self._units = request.units(len(structures))
        self._noun = "structures" if request.langevin is None else "trajectories"
        self._ended = 0

    def go(self, engine: Engine, record: dict[str, Any], *, retry: bool) -> Summary:
        began = time.monotonic()
        store = self._store
        store.write_record(record)
        method = self._request.method
        self._say(f"{method.title} ({method.version}): {self._units} {self._noun}")
        if store.units:
            self._say(f"going on in {store.folder}: {store.frames} frames are there")
        if retry and (again := store.retry()):
            self._say(f"trying {again} {self._noun} again")
        waiting = collections.deque(n for n in range(self._units) if not self._is_done(n))
        self._ended = self._units - len(waiting)
        if waiting:
            self._judge(finally_=False)
            try:
                self._work(engine, waiting)
            except (TooManyFailures, Interrupted, PoolError):
                self._finish(record, began, complete=False)
                raise
        summary = self._finish(record, began, complete=True)
        self._judge(finally_=True)
        return summary

    def _work(self, engine: Engine, waiting: collections.deque[int]) -> None:
        step = None if self._request.langevin is None else "steps"
        total = self._units if step is None else self._units * self._request.langevin.steps
        # Stopping was asked for once; twice.
        asked = lost = False
        with (
            Interruption() as interruption,
            Bar(self._console, total=total, done=self._done(), noun=step or self._noun) as bar,
        ):
            bar.update(self._done(), "starting workers")
            pool, synced, shown = engine.open(), time.monotonic(), 0.0
            try:
                while waiting or pool.busy:
                    if interruption and not asked:
                        asked = True
                        waiting.clear()
                        bar.say(
                            f"stopping as soon as {pool.busy} units of work in progress are finished; "
                            f"Ctrl-C again stops at once, without them"
                        )
                        continue
                    while waiting and pool.room > 0:
                        number = waiting.popleft()
                        pool.submit(number, self._task(number))
                    for number, outcome in pool.collect(LOOK):
                        self._store.append(number, outcome)
                        if self._is_done(number):
                            self._ended += 1
                        elif not asked:
                            waiting.append(number)
                        if outcome.failure is not None:
                            bar.say(self._told(number, outcome.failure))
                    self._judge(finally_=False)
                    if time.monotonic() - synced > SYNC:
                        self._store.sync()
                        synced = time.monotonic()
                    if time.monotonic() - shown > LOOK:
                        bar.update(self._done(), self._text(pool))
                        shown = time.monotonic()
            except KeyboardInterrupt:
                lost = True
            finally:
                pool.close()
        if (asked or lost) and self._ended < self._units:
            raise Interrupted(
                f"stopped with {self._store.frames} frames; everything finished is saved in "
                f"{self._store.folder}: start the same again to go on"
            )

    def _task(self, number: int) -> Task:
        structure, temperature = self._request.place(number)
        atoms, langevin = self._structures[structure], self._request.langevin
        if langevin is None or temperature is None:
            return SinglePoint(self._request.method, atoms, structure)
        unit = self._store.units.get(number)
        state = None if unit is None else unit.state
        return Stretch(
            self._request.method,
            atoms,
            structure,
            langevin=langevin,
            temperature_k=temperature,
            trajectory=number,
            seed=self._request.seed,
            last=langevin.end_of_chunk(0 if state is None else int(state["step"])),
            state=state,
        )

    def _is_done(self, number: int) -> bool:
        unit = self._store.units.get(number)
        if unit is None or (unit.failure is None and not unit.parts):
            return False
        if unit.failure is not None or self._request.langevin is None:
            return True
        return (unit.step or 0) >= self._request.langevin.steps

    def _done(self) -> int:
        """How far the bar is."""
        if self._request.langevin is None:
            return self._ended
        steps = self._request.langevin.steps
        return sum(
            steps if unit.failure is not None else unit.step or 0
            for unit in self._store.units.values()
        )

    def _judge(self, *, finally_: bool) -> None:
        """Raises:
        TooManyFailures: if so.
        """
        failures = self._store.failures
        if not failures or (self._ended < JUDGED and not finally_):
            return
        if len(failures) <= self._max_failures * self._ended:
            return
        [(why, often)] = collections.Counter(failures.values()).most_common(1)
        raise TooManyFailures(
            f"{len(failures)} of {self._ended} {self._noun} failed, more than the limit of "
            f"{100 * self._max_failures:g} % (max_failures, on the command line --max-failures). "
            f"{often} of them: {why}. All reasons are in {self._store.failures_file}; "
            f"{self._store.frames} labelled frames are in {self._store.labels_file}. Correct the cause "
            f"and use --retry, or raise the limit"
        )

    def _told(self, number: int, failure: str) -> str:
        structure, temperature = self._request.place(number)
        if temperature is None:
            return f"structure {structure} failed: {failure}"
        step = self._store.units[number].failed_at
        return f"trajectory {number} (structure {structure}, {temperature:g} K) ended at step {step}: {failure}"

    def _text(self, pool: Pool) -> str:
        failed = len(self._store.failures)
        text = f"{self._store.frames} frames, {pool.workers} workers"
        return f"{text}, {failed} failed" if failed else text

    def _failures(self) -> list[dict[str, Any]]:
        rows = []
        for number, why in sorted(self._store.failures.items()):
            structure, temperature = self._request.place(number)
            row: dict[str, Any] = {"structure": structure}
            if temperature is not None:
                unit = self._store.units[number]
                row |= {"trajectory": number, "temperature_k": temperature}
                row |= {"step": unit.failed_at, "frames": unit.frames}
            rows.append(row | {"reason": why})
        return rows

    def _finish(self, record: dict[str, Any], began: float, *, complete: bool) -> Summary:
        store = self._store
        store.assemble(self._failures())
        summary = Summary(
            folder=store.folder,
            labels_file=store.labels_file,
            failures_file=store.failures_file,
            record_file=store.record_file,
            frames=store.frames,
            units=self._units,
            noun=self._noun,
            failures=dict(sorted(store.failures.items())),
            seconds=store.seconds,
            wall_seconds=time.monotonic() - began,
        )
        store.write_record(final_record(record, summary, complete=complete))
        return summary

    def _say(self, text: str) -> None:
        if self._console is not None:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _check_elements(structures: Sequence[ase.Atoms], request: Request) -> None:
    """One structure with a strange element is a failure among others; nothing but such structures is a mistake."""
    why = request.method.unknown_element(structures[0])
    if why and all(request.method.unknown_element(atoms) for atoms in structures):
        raise ValueError(f"{why}; choose another calculator (structure 0, and so for all others)")
