"""One run: what it is made of, and the loop, to be read from top to bottom."""

import math
import shlex
import time
from collections.abc import Sequence
from contextlib import closing

import torch
from torch import Tensor

from equipoise.data import Loader
from equipoise.data.interruption import Interruption
from equipoise.graph import Graph
from equipoise.potentials import build, save
from equipoise.train.config import Recipe, TrainingSection
from equipoise.train.datasets import read_datasets, training_statistics
from equipoise.train.ema import moving_average
from equipoise.train.identity import Identity
from equipoise.train.initial import make_potential
from equipoise.train.log import make_row
from equipoise.train.logs import Logs
from equipoise.train.metrics import Tally
from equipoise.train.optimiser import build_optimiser, learning_rate, set_learning_rate
from equipoise.train.processes import Processes
from equipoise.train.progress import Bar, step_text, validation_line
from equipoise.train.result import FitResult, TrainingError, not_finite
from equipoise.train.reuse import FixedPoints
from equipoise.train.run_folder import RunFolder
from equipoise.train.schedule import progress_of
from equipoise.train.state import (
    Counters,
    Learner,
    load_state,
    read_statistics,
    save_state,
    saving_error,
)
from equipoise.train.step import batch_loss, draw
from equipoise.train.validation import contraction_of, measure, score_of, sum_of


class Trainer:
    """One start of one run.

    `run` goes round and round: agree with the other processes where we are; validate, save or stop if it is time; else one
    step. Everything that must survive a kill is in `state`.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: RunFolder,
        device: torch.device,
        processes: Processes,
        *,
        resume: bool,
    ) -> None:
        self.recipe, self.folder, self.processes = recipe, run, processes
        self.device, self.settings = device, recipe.training
        settings = recipe.training
        resume = resume and run.state.exists()

        # What is learned from what.
        with processes.first_alone():
            cutoff = recipe.potential.backbone.cutoff
            self.data = read_datasets(recipe.data, cutoff=cutoff, test=False)
        self.batches = _loader(self.data.train, settings, processes, shuffle=True)
        self.validation = _loader(self.data.validation, settings, processes, shuffle=False)

        # What learns.
        if resume:
            self.potential = build(recipe.potential, read_statistics(run.state), seed=settings.seed)
        else:
            statistics = training_statistics(self.data.train)
            processes.agree("training set", repr(statistics))
            self.potential = make_potential(recipe, statistics, self.data.train)
        self.potential.to(device)
        self.average = moving_average(self.potential, decay=settings.ema_decay)
        self.optimiser = build_optimiser(self.potential, settings)
        self.parameters = [p for p in self.potential.parameters() if p.requires_grad]
        self.points = FixedPoints(
            settings.reuse_memory if recipe.potential.kind == "equilibrium" else 0,
            from_zero=recipe.potential.injection.start == "zero",
        )
        self.learner = Learner(self.potential, self.average, self.optimiser, self.points)

        # Where we are.
        train, validation = (Identity.of(part) for part in (self.data.train, self.data.validation))
        self.overlap = validation.shared(train)
        marks = f"{train.fingerprint} {validation.fingerprint}"
        processes.agree("training data", marks)
        self.at = now = Counters(
            train_structures=len(self.data.train),
            data=marks,
            steps_per_epoch=len(self.batches),
            processes=processes.count,
        )
        if resume:
            self.at = load_state(run.state, self.learner)
            _check_same(self.at, now, settings, run)
            self.at.data, self.at.processes = now.data, now.processes
            if not processes.first:  # which goes on with what all have counted
                self.at.tally, self.at.loss_sum = Tally(), 0.0
        processes.agree("step of the saved state", str(self.at.step))
        processes.share(self.potential)
        processes.share(self.average)
        self.clock = _Clock(self.at.seconds)
        self.saved_at, self.saved_step = self.clock.seconds, self.at.step
        self.progress = 0.0  # as of the last agreement

    def run(self, logs: Logs, bar: Bar) -> FitResult:
        """Train until the run is finished, or somebody interrupts."""
        at, settings = self.at, self.settings
        self.logs, self.bar = logs, bar
        bar.say(str(self.data))
        if self.overlap:
            bar.say(
                f"warning: {self.overlap} of {len(self.data.validation)} validation structures are in the training set as well, so "
                "validation errors look better than they are"
            )
        if at.finished:
            bar.say("this run is finished already")
        elif at.step > 0:
            bar.say(f"going on from epoch {self.epoch:.4g}, step {at.step}")
        self.potential.train()
        with (
            Interruption(once=self.processes.count > 1) as interruption,
            closing(self.batches.steps(at.step)) as coming,
        ):
            while not at.finished:
                interrupted, save_now = self._agree(interruption)
                stale = settings.patience is not None and at.since_best >= settings.patience
                if stale:
                    bar.say(
                        f"no better validation in {at.since_best}: ending at epoch {self.epoch:.4g}"
                    )
                done = self.progress >= 1 or stale
                if interrupted and not done:
                    self._checkpoint()
                    bar.say(
                        f"stopped at step {at.step}; the state is saved. To go on:\n{self.command}"
                    )
                    break
                if done or self._is_time_to_validate():
                    at.finished = done
                    # The clock can run out just after a validation, which then stands.
                    (self._validate if at.step != at.logged_step else self._checkpoint)()
                    continue
                if save_now:
                    self._checkpoint()
                self._step(*next(coming))
        return self._result()

    def _agree(self, interruption: Interruption) -> tuple[bool, bool]:
        """What is decided together: how far the run is, whether to stop, whether to save; the clock is that of the first."""
        first, at, settings = self.processes.first, self.at, self.settings
        late = self.clock.seconds - self.saved_at >= settings.checkpoint_seconds
        elapsed, interrupted, save_now = self.processes.sum(
            self.clock.seconds if first else 0.0,
            bool(interruption),
            first and late and at.step > self.saved_step,
        )
        self.progress = progress_of(
            steps=at.step,
            total_steps=settings.epochs * len(self.batches),
            elapsed=elapsed,
            max_seconds=settings.max_seconds,
        )
        return interrupted > 0, save_now > 0

    def _is_time_to_validate(self) -> bool:
        every = max(1, round(self.settings.validate_every * len(self.batches)))
        return self.at.step % every == 0 and self.at.step > max(self.at.logged_step, 0)

    def _step(self, rows: Sequence[int], graph: Graph | None) -> None:
        """Learn from one batch. Every random number in it follows from the seed and the number of the step."""
        at, settings, progress, rank = self.at, self.settings, self.progress, self.processes.rank
        drawn = draw(settings, at.step, self.device, progress, rank=rank)
        set_learning_rate(self.optimiser, learning_rate(progress, settings))
        self.optimiser.zero_grad(set_to_none=True)
        graph = None if graph is None else graph.to(self.device)
        batch = batch_loss(
            self.potential,
            graph,
            rows,
            settings,
            progress=progress,
            drawn=drawn,
            points=self.points,
            processes=self.processes,
        )
        learned = self._learn(batch.value)

        # What came of it.
        at.step += 1
        prediction = batch.prediction
        if prediction is not None:
            iterated = self.recipe.potential.kind == "equilibrium" and drawn.passes is not None
            at.tally.add_solves(prediction, unrolled=drawn.passes if iterated else 0)
        if learned:
            self.average.update_parameters(self.potential)
            if prediction is not None:
                energy, forces, stress = prediction.energy, prediction.forces, prediction.stress
                at.tally.add_errors(energy, forces, graph, stress=stress)
                at.loss_sum += float(batch.value.detach())
            at.loss_count += 1
            at.bad_in_a_row = 0
        else:
            at.bad_steps += 1
            at.bad_in_a_row += 1
            if at.bad_in_a_row >= settings.max_bad_steps:
                at.bad_in_a_row = 0
                self._checkpoint()
                raise not_finite(at, settings, self.folder.path)
        self.bar.update(progress, step_text(at, settings, steps_per_epoch=len(self.batches)))

    def _learn(self, loss: Tensor | None) -> bool:
        """One optimiser step, unless the loss or its gradient is not finite anywhere: then False."""
        (bad,) = self.processes.sum(loss is not None and not bool(torch.isfinite(loss)))
        if bad:
            return False
        if loss is not None and loss.requires_grad:  # a batch without labels has nothing to teach
            loss.backward()
        self.processes.sum_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        if not torch.isfinite(norm):
            return False
        self.optimiser.step()
        return True

    def _validate(self) -> None:
        """Measure the average, export it if it is the best so far, log, save the state."""
        at, settings, potential = self.at, self.settings, self.average.module
        valid = measure(potential, self.validation, settings, self.processes)
        self._gather()
        (score, unit), epoch = score_of(valid), round(self.epoch, 4)
        best = math.isfinite(score) and (at.best_score is None or score < at.best_score)
        at.since_best = 0 if best else at.since_best + 1
        if best:
            at.best_score, at.best_unit, at.best_epoch = score, unit, epoch
        if self.processes.first:
            if best:
                self._export(valid)
            row = make_row(
                at,
                valid.errors(),
                epoch=epoch,
                seconds=self.clock.seconds,
                rate=learning_rate(self.progress, settings),
                contraction=contraction_of(potential, self.data.validation),
            )
            self.logs.append(row)
            self.bar.say(validation_line(row, settings, best=best, bad_steps=at.bad_steps))
        at.start_new_row()
        self._checkpoint()

    def _export(self, valid: Tally) -> None:
        extra = {
            "recipe": self.recipe.model_dump(mode="json"),
            "validation": valid.errors().as_dict(),
            "epoch": self.at.best_epoch,
        }
        try:
            save(self.average.module, self.folder.model, extra=extra)
        except OSError as error:
            raise saving_error(self.folder.model, error) from error

    def _checkpoint(self) -> None:
        self._gather()
        self.at.seconds = self.saved_at = self.clock.seconds
        self.saved_step = self.at.step
        if self.processes.first:
            # With several processes each has points of its own, which begin anew after a stop.
            points = self.processes.count == 1
            save_state(self.folder.state, self.at, self.learner, points=points)

    def _gather(self) -> None:
        """Hand what each process has counted to the first, which writes it down."""
        if self.processes.count > 1:
            tally = sum_of(self.at.tally, self.processes)
            (loss_sum,) = self.processes.sum(self.at.loss_sum)
            mine = self.processes.first
            self.at.tally, self.at.loss_sum = (tally, loss_sum) if mine else (Tally(), 0.0)

    @property
    def epoch(self) -> float:
        return self.at.step / len(self.batches)

    @property
    def command(self) -> str:
        """What goes on with this run."""
        plain = f"equipoise train {shlex.quote(str(self.folder.recipe))}"
        count = self.processes.count
        return plain if count == 1 else f"torchrun --nproc-per-node {count} -m {plain}"

    def _result(self) -> FitResult:
        at, run = self.at, self.folder
        if at.finished and self.processes.first and not run.model.exists():
            raise TrainingError(
                f"no validation of the run in {run.path} gave finite errors, so there is no model; "
                "lower training.learning_rate, and start afresh with resume=False"
            )
        return FitResult(
            folder=run.path,
            model=run.model,
            finished=at.finished,
            epochs=self.epoch,
            steps=at.step,
            seconds=self.clock.seconds,
            best_force_mae_mev=at.best_score,
            best_unit=at.best_unit,
            best_epoch=at.best_epoch,
            bad_steps=at.bad_steps,
            unconverged=at.unconverged + at.tally.unconverged,
            resume_command=self.command,
        )


def _check_same(saved: Counters, now: Counters, settings: TrainingSection, run: RunFolder) -> None:
    """That a run goes on with the data and the batches that it was started with."""
    started = f"the run in {run.path} was started"
    if saved.train_structures != now.train_structures:
        raise ValueError(
            f"{started} with {saved.train_structures} training structures, received {now.train_structures}; choose another folder "
            "for other data"
        )
    if saved.data not in ("", now.data):
        raise ValueError(
            f"{started} with other data: as many training structures, but training or validation structures or their labels have "
            "changed since. Give it back the old data, choose another folder, or start afresh with resume=False, which deletes "
            "that run"
        )
    if settings.max_edges is not None and saved.processes not in (0, now.processes):
        raise ValueError(
            f"{started} in {saved.processes} processes, received {now.processes}; with training.max_edges a run goes on in as many "
            "processes as it was started in"
        )
    if saved.steps_per_epoch not in (0, now.steps_per_epoch):
        raise ValueError(
            f"{started} with {saved.steps_per_epoch} batches per epoch, received {now.steps_per_epoch}; with training.max_edges a "
            "run goes on in as many processes as it was started in"
        )


def _loader(
    graphs: Sequence[Graph], settings: TrainingSection, processes: Processes, *, shuffle: bool
) -> Loader:
    return Loader(
        graphs,
        batch_size=settings.batch_size,
        max_edges=settings.max_edges,
        prefetch=settings.prefetch,
        shuffle=shuffle,
        seed=settings.seed,
        rank=processes.rank,
        processes=processes.count,
    )


class _Clock:
    """Seconds of this run, over all its starts."""

    def __init__(self, before: float) -> None:
        self._start = time.monotonic() - before

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start
