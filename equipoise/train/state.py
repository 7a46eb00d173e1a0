"""What a run needs to go on as if it had never stopped, and how it reaches the disk.

Everything stands in one file, `state.safetensors`: weights, moving average and optimiser
moments and fixed points as tensors, counters as JSON in the header. One file, because two that are replaced
one after the other can come from different steps after a power cut. `state.json` repeats the
counters for people to read; nothing reads it back. Random numbers need no state: each step
draws from a generator seeded by (seed, step).
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from equipoise.potentials import Potential, Statistics
from equipoise.train.metrics import Tally
from equipoise.train.optimiser import Optimiser
from equipoise.train.reuse import FixedPoints

FORMAT = "equipoise training state"
VERSION = 3


class SavingError(OSError):
    """A file of the run could not be written; the previous one is intact."""


@dataclass
class Counters:
    """How far a run has come."""

    step: int = 0  # batches learned from; the epoch and the place in it follow
    seconds: float = 0.0  # wall clock, over all starts of the run
    loss_sum: float = 0.0  # since the last row of the log, as is the tally
    loss_count: int = 0
    tally: Tally = field(default_factory=Tally)
    bad_steps: int = 0  # skipped because the loss or its gradient was not finite
    bad_in_a_row: int = 0
    unconverged: int = 0  # training structures, up to the last row of the log
    best_score: float | None = None  # validation error of the exported weights: see `score_of`
    best_unit: str = "meV/Å"
    best_epoch: float | None = None
    since_best: int = 0  # validations since then
    logged_step: int = -1  # step of the last row of the log
    finished: bool = False
    # To notice that these changed under a run; 0 and "" were not written down by older versions.
    train_structures: int = 0
    data: str = ""  # fingerprint of the structures that train and validate
    steps_per_epoch: int = 0
    processes: int = 0

    def start_new_row(self) -> None:
        """Forget the sums that have just become a row of the log."""
        self.logged_step = self.step
        self.unconverged += self.tally.unconverged
        self.loss_sum, self.loss_count, self.tally = 0.0, 0, Tally()


@dataclass(frozen=True)
class Learner:
    """Everything that a step changes, apart from the counters."""

    potential: Potential
    average: AveragedModel
    optimiser: Optimiser
    points: FixedPoints

    def module_tensors(self) -> dict[str, Tensor]:
        """Weights, and their moving average."""
        return {
            f"{prefix}{name}": value
            for prefix, module in (("potential.", self.potential), ("average.", self.average))
            for name, value in module.state_dict().items()
        }

    def tensors(self, *, points: bool) -> dict[str, Tensor]:
        """All of it."""
        tensors = self.module_tensors()
        for index, moments in self.optimiser.state_dict()["state"].items():
            for key, value in moments.items():
                tensors[f"optimiser.{index}.{key}"] = value
        if points:
            tensors |= {f"points.{k}": value for k, value in self.points.state_dict().items()}
        # Cloned, because safetensors refuses tensors that share memory.
        return {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}


def save_state(path: Path, counters: Counters, learner: Learner, *, points: bool = True) -> None:
    """Write the state, all or nothing; fixed points only if `points`.

    **Raises** `SavingError` (an `OSError`) if the disk refuses; the previous state is intact.
    """
    header = {
        "format": FORMAT,
        "version": str(VERSION),
        "counters": json.dumps(asdict(counters)),
        "statistics": json.dumps(asdict(learner.potential.statistics)),
    }
    data = safetensors.torch.save(learner.tensors(points=points), metadata=header)
    write_atomically(path, lambda partial: partial.write_bytes(data))
    text = json.dumps({"format": FORMAT, "version": VERSION, **asdict(counters)}, indent=2)
    write_atomically(path.with_suffix(".json"), lambda partial: partial.write_text(text + "\n"))


def read_statistics(path: Path) -> Statistics:
    """The statistics of the potential in a state file: with them its network is built, into which `load_state` puts weights.

    **Raises** `ValueError` if the file is truncated or is something else.
    """
    plain = json.loads(_open(path)[0]["statistics"])
    return Statistics(**{k: tuple(v) if isinstance(v, list) else v for k, v in plain.items()})


def load_state(path: Path, learner: Learner) -> Counters:
    """Put a saved state into the objects given, and return its counters.

    **Raises** `ValueError` if the file is truncated, is something else, or belongs to another
    network.
    """
    header, tensors = _open(path)
    expected = learner.module_tensors()
    found = {name for name in tensors if not name.startswith(("optimiser.", "points."))}
    if found != expected.keys():
        raise ValueError(
            f"{path} must hold the tensors of this network, received others: "
            f"{sorted(found ^ expected.keys())[:3]} ..."
        )
    learner.potential.load_state_dict(_below(tensors, "potential."))
    learner.average.load_state_dict(_below(tensors, "average."))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in _below(tensors, "optimiser.").items():
        index, _, key = name.partition(".")
        moments.setdefault(int(index), {})[key] = value
    groups = learner.optimiser.state_dict()["param_groups"]
    learner.optimiser.load_state_dict({"state": moments, "param_groups": groups})
    learner.points.load_state_dict(_below(tensors, "points."))
    return _read_counters(header["counters"])


def _open(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is not a complete state file ({error}); delete it or pass "
            "resume=False to start afresh"
        ) from error
    if header.get("format") != FORMAT or header.get("version") != str(VERSION):
        raise ValueError(
            f"{path} must be a {FORMAT} of version {VERSION}, received format "
            f"{header.get('format')!r}, version {header.get('version')!r}; go on with the version "
            "of Equipoise that wrote it, or start afresh with resume=False"
        )
    return header, tensors


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, force it to the disk, then rename it to `path`.

    Whoever reads `path` sees the old content or the new one, never a part, whenever the power
    fails. **Raises** `SavingError` if the disk refuses (full, read-only, ...).
    """
    # The suffix stays at the end, for writers that look at it.
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    try:
        write(partial)
        with open(partial, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise saving_error(path, error) from error


def make_folder(path: Path) -> None:
    """**Raises** `SavingError` if `path` is no folder and cannot become one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SavingError(
            f"results must go to a folder that exists or can be made, received {path} "
            f"({error.strerror}); choose another folder"
        ) from error


def saving_error(path: Path, error: OSError) -> SavingError:
    kept = "; the previous one is intact" if path.exists() else ""
    return SavingError(
        error.errno,
        f"{path.name} could not be written: {error.strerror or error}{kept}. Make room or choose "
        "another folder, then start the same command again to go on from the last checkpoint",
        str(path),
    )


def _sync_folder(folder: Path) -> None:
    # The rename itself lives in the folder. Windows cannot open one, and needs no such call.
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def _read_counters(text: str) -> Counters:
    plain = json.loads(text)
    tally = Tally(**plain.pop("tally"))
    return Counters(**plain, tally=tally)
