"""Fitting a potential: one loop, to be read from top to bottom."""

import math
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from equipoise.data import Loader
from equipoise.graph import Graph, batch
from equipoise.potentials import Potential, build, save
from equipoise.train.config import Recipe, TrainingSection
from equipoise.train.datasets import read_datasets, training_statistics
from equipoise.train.ema import moving_average
from equipoise.train.evaluate import evaluate
from equipoise.train.interruption import Interruption
from equipoise.train.log import Log, Row
from equipoise.train.loss import Loss
from equipoise.train.metrics import Errors
from equipoise.train.optimiser import (
    build_optimiser,
    learning_rate,
    progress_of,
    set_learning_rate,
)
from equipoise.train.progress import Bar, step_text, validation_line
from equipoise.train.run_folder import begin_run, find_run
from equipoise.train.state import Counters, load_state, save_state, saving_error
from equipoise.train.tensorboard import TensorBoard


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why, and the state has been saved."""


@dataclass(frozen=True)
class FitResult:
    """How a call of `fit` ended."""

    folder: Path
    model: Path  # the best averaged weights so far; there is none before the first validation
    finished: bool  # False: interrupted, with the state saved
    epochs: float
    steps: int
    seconds: float  # over all starts of the run
    best_force_mae_mev: float | None  # meV/Angstrom on the validation set (meV without forces)
    best_epoch: float | None
    bad_steps: int  # skipped because something was not finite
    unconverged: int  # solves in training that did not reach their tolerance
    resume_command: str


def fit(
    recipe: Recipe,
    folder: str | Path | None = None,
    *,
    resume: bool = True,
    console: Console | None = None,
) -> FitResult:
    """Fit a potential to data, as a recipe says, and keep everything in one folder.

    The folder then holds `recipe.yaml` (all keys), `log.csv` and `tensorboard/` (the same numbers
    twice), `model.safetensors` (the moving
    average of the weights where it was best on the validation set) and `state.safetensors`
    (to go on from). A run that was stopped, by whatever means, goes on when it is started
    again: on a CPU, and without `max_seconds`, it ends with the same bits as if it had never
    stopped.

    Ctrl-C and SIGTERM end the call after the current step, with the state saved and `finished`
    False in the result.

    **Arguments**

    - `folder`: of the run; by default the recipe's `output.folder`.
    - `resume`: go on with the run found in the folder. False deletes it and starts afresh.
    - `console`: where progress is shown: a bar on a terminal, a line per validation elsewhere.

    **Raises** `ValueError` if the folder holds a run of a different recipe, or the data cannot
    be used; `SavingError` (an `OSError`) if the disk is full; `TrainingError` if the loss is
    not finite `max_bad_steps` times in a row.
    """
    if folder is None and recipe.output.folder is None:
        raise ValueError("a run needs a folder: give one, or set output.folder in the recipe")
    path = Path(folder if folder is not None else recipe.output.folder)
    device = _device(recipe.training.device)
    with _threads(recipe.training.threads), _own_random_numbers(device):
        return _fit(recipe, path, device, resume=resume, console=console or Console())


def _fit(
    recipe: Recipe, path: Path, device: torch.device, *, resume: bool, console: Console
) -> FitResult:
    settings = recipe.training

    # What is learned from what.
    run = find_run(recipe, path, resume=resume)
    data = read_datasets(recipe.data, cutoff=recipe.potential.backbone.cutoff, test=False)
    loader = Loader(data.train, batch_size=settings.batch_size, shuffle=True, seed=settings.seed)
    potential = build(recipe.potential, training_statistics(data.train), seed=settings.seed)
    potential = potential.to(device)
    average = moving_average(potential, decay=settings.ema_decay)
    optimiser = build_optimiser(potential, settings)
    loss_of = Loss(
        settings.loss, settings.energy_weight, settings.force_weight, settings.huber_delta
    )
    total_steps = settings.epochs * len(loader)
    validate_steps = max(1, round(settings.validate_every * len(loader)))
    with_forces = any(g.forces is not None and not g.forces.isnan().all() for g in data.validation)

    # Where we are.
    at = Counters(train_structures=len(data.train))
    if resume and run.state.exists():
        at = load_state(run.state, potential, average, optimiser)
        if at.train_structures != len(data.train):
            raise ValueError(
                f"the run in {path} was started with {at.train_structures} training structures, "
                f"received {len(data.train)}; choose another folder for other data"
            )
    begin_run(run, recipe, resume=resume)  # only now: a slip in the recipe must not cost a run
    log, events = Log(run.log), TensorBoard(run.tensorboard, after=at.logged_step)
    log.forget_after(at.logged_step)
    command = f"equipoise train {shlex.quote(str(run.recipe))}"
    clock = _Clock(at.seconds)
    saved_at = clock.seconds

    def progress() -> float:
        return progress_of(
            steps=at.step,
            total_steps=total_steps,
            elapsed=clock.seconds,
            max_seconds=settings.max_seconds,
        )

    def checkpoint() -> None:
        nonlocal saved_at
        at.seconds = saved_at = clock.seconds
        save_state(run.state, at, potential, average, optimiser)

    def validate() -> None:
        """Measure the average, export it if it is the best so far, log, save the state."""
        errors = evaluate(average.module, data.validation, batch_size=settings.batch_size).errors
        epoch = round(at.step / len(loader), 4)
        score = errors.force_mae_mev if with_forces else errors.energy_mae_mev
        best = math.isfinite(score) and (at.best_score is None or score < at.best_score)
        if best:
            at.best_score, at.best_epoch = score, epoch
            extra = {
                "recipe": recipe.model_dump(mode="json"),
                "validation": asdict(errors),
                "epoch": epoch,
            }
            _export(average.module, run.model, extra)
        rate = learning_rate(progress(), settings)
        row = _row(
            at,
            errors,
            epoch=epoch,
            seconds=clock.seconds,
            rate=rate,
            contraction=_contraction(average.module, data.validation),
        )
        log.append(row)
        events.append(row)
        bar.say(validation_line(row, settings, best=best, bad_steps=at.bad_steps))
        at.start_new_row()
        checkpoint()

    with Bar(console, description=run.path.name) as bar, events, Interruption() as interruption:
        bar.say(str(data))
        if at.finished:
            bar.say("this run is finished already")
        elif at.step > 0:
            bar.say(f"going on from epoch {at.step / len(loader):.4g}, step {at.step}")
        potential.train()
        batches = _batches(loader, at.step)

        while not at.finished:
            done = progress() >= 1
            if interruption and not done:
                checkpoint()
                bar.say(f"stopped at step {at.step}; the state is saved. To go on:\n{command}")
                break
            if done or (at.step % validate_steps == 0 and at.step > max(at.logged_step, 0)):
                at.finished = done
                # The clock can run out just after a validation, which then stands.
                (validate if at.step != at.logged_step else checkpoint)()
                continue

            # One step. Every random number in it follows from the seed and its number.
            penalise, unrolled = _draw(settings, at.step, device, progress())
            set_learning_rate(optimiser, learning_rate(progress(), settings))
            graph = next(batches).to(device)
            optimiser.zero_grad(set_to_none=True)
            prediction = potential(graph, unconverged="accept", penalty=penalise, unrolled=unrolled)
            loss = loss_of(prediction, graph)
            if prediction.penalty is not None:
                loss = loss + settings.jacobian_weight * prediction.penalty
            learned = _learn(loss, potential, optimiser, clip_norm=settings.clip_norm)

            # What came of it.
            at.step += 1
            at.tally.add_solves(prediction)
            if learned:
                average.update_parameters(potential)
                at.tally.add_errors(prediction.energy, prediction.forces, graph)
                at.loss_sum += float(loss.detach())
                at.loss_count += 1
                at.bad_in_a_row = 0
            else:
                at.bad_steps += 1
                at.bad_in_a_row += 1
                if at.bad_in_a_row >= settings.max_bad_steps:
                    at.bad_in_a_row = 0
                    checkpoint()
                    raise _not_finite(at, settings, run.path)
            if clock.seconds - saved_at >= settings.checkpoint_seconds:
                checkpoint()
            bar.update(progress(), step_text(at, settings, steps_per_epoch=len(loader)))

    if at.finished and not run.model.exists():
        raise TrainingError(
            f"no validation of the run in {run.path} gave finite errors, so there is no model; "
            "lower training.learning_rate, and start afresh with resume=False"
        )
    return FitResult(
        folder=run.path,
        model=run.model,
        finished=at.finished,
        epochs=at.step / len(loader),
        steps=at.step,
        seconds=clock.seconds,
        best_force_mae_mev=at.best_score,
        best_epoch=at.best_epoch,
        bad_steps=at.bad_steps,
        unconverged=at.unconverged + at.tally.unconverged,
        resume_command=command,
    )


def _batches(loader: Loader, step: int) -> Iterator[Graph]:
    """The batches from this step on, epoch after epoch, without end."""
    epoch, first = divmod(step, len(loader))
    while True:
        yield from loader.epoch(epoch, first=first)
        epoch, first = epoch + 1, 0


def _draw(
    settings: TrainingSection, step: int, device: torch.device, progress: float
) -> tuple[bool, int | None]:
    """Seed this step's random numbers; say whether the Jacobian penalty is computed in it, and
    after how many passes the network is trained (None: at its fixed point)."""
    generator = np.random.default_rng([settings.seed, step])
    seed = int(generator.integers(2**63))
    # Not torch.manual_seed: on a machine without a GPU every call of it queues a request with a
    # stack trace, for a GPU that never comes.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    # jacobian_weight is not divided by the probability: half as many penalties weigh half.
    penalise = settings.jacobian_weight > 0 and generator.random() < settings.jacobian_probability
    # Mostly one pass, sometimes two or three: cheap, and yet f has seen what it returns.
    passes = int(generator.choice([1, 2, 3], p=[0.7, 0.2, 0.1]))
    return penalise, passes if progress < settings.unrolled else None


def _learn(
    loss: Tensor, potential: Potential, optimiser: torch.optim.Optimizer, *, clip_norm: float
) -> bool:
    """One optimiser step, unless the loss or its gradient is not finite: then False."""
    if not torch.isfinite(loss):
        return False
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(potential.parameters(), clip_norm)
    if not torch.isfinite(norm):
        return False
    optimiser.step()
    return True


def _export(potential: Potential, path: Path, extra: dict[str, object]) -> None:
    try:
        save(potential, path, extra=extra)
    except OSError as error:
        raise saving_error(path, error) from error


def _contraction(potential: Potential, graphs: Sequence[Graph]) -> float:
    """The largest of a few structures; NaN for a network without a fixed point."""
    found = potential.contraction(batch(list(graphs[:4])))
    return math.nan if found is None else float(found.max())


def _row(
    at: Counters, valid: Errors, *, epoch: float, seconds: float, rate: float, contraction: float
) -> Row:
    train = at.tally.errors()
    return Row(
        epoch=epoch,
        step=at.step,
        seconds=seconds,
        lr=rate,
        loss=at.loss_sum / at.loss_count if at.loss_count else math.nan,
        train_energy_mae_mev=train.energy_mae_mev,
        train_force_mae_mev=train.force_mae_mev,
        valid_energy_mae_mev=valid.energy_mae_mev,
        valid_force_mae_mev=valid.force_mae_mev,
        passes=at.tally.mean_passes,
        adjoint_passes=at.tally.mean_adjoint_passes,
        unconverged=at.tally.unconverged,
        contraction=contraction,
    )


def _not_finite(at: Counters, settings: TrainingSection, path: Path) -> TrainingError:
    return TrainingError(
        f"the loss or its gradient was not finite {settings.max_bad_steps} times in a row, last "
        f"at step {at.step}; the weights before that are saved in {path}. Lower "
        "training.learning_rate or training.clip_norm, and look for wrong labels in the data"
    )


class _Clock:
    """Seconds of this run, over all its starts."""

    def __init__(self, before: float) -> None:
        self._start = time.monotonic() - before

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("training.device is cuda, but there is no CUDA device; use auto or cpu")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _own_random_numbers(device: torch.device) -> AbstractContextManager[None]:
    """The caller's random numbers go on afterwards as if nothing had been drawn."""
    devices = [torch.cuda.current_device()] if device.type == "cuda" else []
    return torch.random.fork_rng(devices=devices)
