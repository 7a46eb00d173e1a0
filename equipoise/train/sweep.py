"""Searching for good settings: many runs of one recipe, proposed by Optuna."""

import csv
import io
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml
from pydantic import Field, ValidationError, model_validator
from rich.console import Console

from equipoise.train.config import Recipe, Section
from equipoise.train.loop import fit
from equipoise.train.processes import started_by_torchrun
from equipoise.train.recipes import load_recipe
from equipoise.train.result import TrainingError
from equipoise.train.run_folder import locked
from equipoise.train.state import make_folder, write_atomically

INSTEAD_OF = "instead_of"  # number of the interrupted trial that a trial takes up
MOST_FAILURES = 5  # in a row, before it is not the settings that are wrong


class Range(Section):
    """Numbers between two bounds, both included; whole ones if both bounds are."""

    low: int | float
    high: int | float
    log: bool = Field(False, description="as likely between 1 and 10 as between 10 and 100")
    step: int | float | None = Field(None, description="only every so much from low on")

    @model_validator(mode="after")
    def _in_order(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low must be < high, received {self.low} and {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(
                f"log needs low > 0 and no step, received low {self.low} and step {self.step}"
            )
        return self


class SweepSettings(Section):
    """What is varied, and in what.

    recipe: quickstart
    changes: [training.max_seconds=60]
    space:
      training.learning_rate: {low: 1.0e-3, high: 1.0e-2, log: true}
      training.optimiser: [adamw, muon]
    """

    recipe: str = Field(description="name or file of the recipe")
    changes: tuple[str, ...] = Field((), description="changes to it, the same in all trials")
    space: dict[str, Range | tuple[Any, ...]] = Field(
        min_length=1, description="key of the recipe -> range of numbers, or list of values"
    )

    def recipe_of(self, values: Mapping[str, Any]) -> Recipe:
        """The recipe of one trial."""
        varied = [
            f"{key}={yaml.safe_dump(v, default_flow_style=True).splitlines()[0]}"
            for key, v in values.items()
        ]
        return load_recipe(self.recipe, [*self.changes, *varied])

    def suggest(self, trial: Any) -> dict[str, Any]:
        """Values for a trial of Optuna."""
        return {key: _suggest(trial, key, choice) for key, choice in self.space.items()}


@dataclass(frozen=True)
class Trial:
    """One run of a sweep, and how it ended."""

    values: dict[str, Any]
    folder: Path
    score: float | None  # best validation force MAE, meV/Å; None: failed, or not ended yet
    state: str  # "complete", "fail", "running", "waiting"


def load_sweep(path: str | Path) -> SweepSettings:
    """Read a sweep from a YAML file.

    **Raises** `ValueError` for anything that is not one, including a recipe that does not exist or does not take the first values
    of the space; `FileNotFoundError`.
    """
    try:
        plain = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        # In Python mode lists are no tuples; through JSON they are, as in recipes.
        settings = SweepSettings.model_validate(_tuples(plain))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"sweep {str(path)!r} cannot be read: {error}") from error
    except ValidationError as error:
        text = "; ".join(
            f"{'.'.join(str(part) for part in e['loc'] if part not in ('Range', 'tuple[any, ...]'))}: {e['msg']}"
            for e in error.errors()
        )
        raise ValueError(f"sweep {str(path)!r}: {text}") from error
    settings.recipe_of({key: _first(choice) for key, choice in settings.space.items()})
    return settings


def sweep(
    settings: SweepSettings,
    folder: str | Path,
    *,
    trials: int,
    seed: int = 0,
    console: Console | None = None,
) -> list[Trial]:
    """Train until there are so many trials, and keep each in a run folder of its own.

    Proposals come from Optuna's tree-structured Parzen estimator, which learns from the trials so far; they lie in `study.log`.
    The same call goes on with a sweep that was stopped, the trial in progress included; the same call in several processes, or on
    several machines with one file system, shares the trials. `sweep.csv` has a row per trial.

    A trial whose settings do not go together, whose training diverges, or that does not fit into a GPU's memory, counts as one
    that failed.

    **Returns** all trials, the best first.

    **Raises** `ValueError` if Optuna is not installed, or after five failures in a row.
    """
    if started_by_torchrun():
        raise ValueError(
            "a sweep trains in one process; for several at once start the same command several times"
        )
    optuna, folder = import_optuna(), Path(folder)
    console = console or Console()
    make_folder(folder)
    study = _study(optuna, folder)
    _take_up(optuna, study, folder, settings)
    failures = 0
    while _ended(study) < trials:
        trial = study.ask()
        # One seed for all would let every start, and every process, propose the same values again.
        study.sampler = optuna.samplers.TPESampler(seed=seed + trial.number)
        values = settings.suggest(trial)
        run = folder / _name(values)
        told = ", ".join(f"{key}={value}" for key, value in values.items())
        console.print(
            f"trial {trial.number}: {told}", markup=False, highlight=False, soft_wrap=True
        )
        try:
            with locked(_lock(run)):
                result = fit(settings.recipe_of(values), run, console=console)
        except (ValueError, TrainingError, torch.OutOfMemoryError) as error:
            console.print(f"failed: {error}", markup=False, highlight=False, soft_wrap=True)
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            failures += 1
            if failures == MOST_FAILURES:
                raise ValueError(
                    f"{failures} trials in a row failed, the last one: {error}"
                ) from error
            continue
        if not result.finished:
            _give_back(optuna, study, trial.number, trial.params)
            break
        failures = 0
        study.tell(trial, result.best_force_mae_mev)
        _write(folder, _trials(study, folder))
    found = _trials(study, folder)
    _write(folder, found)
    return found


def import_optuna() -> ModuleType:
    """**Raises** `ValueError` if the package is not installed."""
    # When it is wanted: most people do without it.
    try:
        import optuna
        import optuna.storages.journal
    except ImportError as error:
        raise ValueError(
            "a sweep needs the package optuna, which is not installed: pip install optuna"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _study(optuna: ModuleType, folder: Path) -> Any:
    # A journal is a text file that only grows: safe with several writers, and after a kill.
    backend = optuna.storages.journal.JournalFileBackend(str(folder / "study.log"))
    storage = optuna.storages.JournalStorage(backend)
    return optuna.create_study(
        study_name="sweep",
        storage=storage,
        direction="minimize",
        load_if_exists=True,
    )


def _take_up(optuna: ModuleType, study: Any, folder: Path, settings: SweepSettings) -> None:
    """Trials that were killed come again, with the same values and so in the same folder, where they go on."""
    for trial in study.get_trials(deepcopy=False):
        if trial.state == optuna.trial.TrialState.RUNNING and len(trial.params) == len(
            settings.space
        ):
            try:
                with locked(_lock(folder / _name(trial.params))):
                    _give_back(optuna, study, trial.number, trial.params)
            except ValueError:
                continue  # another process is at it


def _give_back(optuna: ModuleType, study: Any, number: int, values: Mapping[str, Any]) -> None:
    """End a trial that was interrupted, and ask for it once more."""
    study.tell(number, state=optuna.trial.TrialState.FAIL)
    study.enqueue_trial(dict(values), user_attrs={INSTEAD_OF: number})


def _ended(study: Any) -> int:
    """How many trials have ended by themselves, in whatever way."""
    trials = study.get_trials(deepcopy=False)
    interrupted = {trial.user_attrs.get(INSTEAD_OF) for trial in trials}
    return sum(t.state.is_finished() and t.number not in interrupted for t in trials)


def _trials(study: Any, folder: Path) -> list[Trial]:
    found: dict[Path, Trial] = {}
    trials = study.get_trials(deepcopy=False)
    again = {trial.user_attrs.get(INSTEAD_OF): trial for trial in trials}
    for trial in trials:  # of one folder, the latest counts
        # One that waits does not say yet what for; the one that it takes up does.
        if trial.state.name != "WAITING":
            run = folder / _name(trial.params)
            state = again.get(trial.number, trial).state.name.lower()
            found[run] = Trial(dict(trial.params), run, trial.value, state)
    return sorted(found.values(), key=lambda t: (t.score is None, t.score or 0.0))


def _write(folder: Path, trials: Iterable[Trial]) -> None:
    trials = list(trials)
    text = io.StringIO()
    writer = csv.writer(text)
    keys = list(dict.fromkeys(key for trial in trials for key in trial.values))
    writer.writerow(["folder", "state", "valid_force_mae_mev", *keys])
    for trial in trials:
        values = [trial.values.get(key) for key in keys]
        writer.writerow([trial.folder.name, trial.state, trial.score, *values])
    write_atomically(folder / "sweep.csv", lambda partial: partial.write_text(text.getvalue()))


def _name(values: Mapping[str, Any]) -> str:
    """The same for the same values, so that a trial that comes again finds its folder."""
    return f"trial-{zlib.crc32(repr(sorted(values.items())).encode()):08x}"


def _lock(run: Path) -> Path:
    """What whoever is at a trial keeps locked; apart from the run folder, which the run itself locks."""
    path = run.parent / "at-work" / run.name
    make_folder(path)
    return path


def _first(choice: Range | tuple[Any, ...]) -> Any:
    return choice.low if isinstance(choice, Range) else choice[0]


def _suggest(trial: Any, key: str, choice: Range | tuple[Any, ...]) -> Any:
    if not isinstance(choice, Range):
        return trial.suggest_categorical(key, choice)
    if isinstance(choice.low, int) and isinstance(choice.high, int):
        return trial.suggest_int(
            key, choice.low, choice.high, log=choice.log, step=choice.step or 1
        )
    return trial.suggest_float(key, choice.low, choice.high, log=choice.log, step=choice.step)


def _tuples(plain: Any) -> Any:
    if isinstance(plain, Mapping):
        return {key: _tuples(value) for key, value in plain.items()}
    return tuple(_tuples(value) for value in plain) if isinstance(plain, list) else plain
