"""The folder of a run: what lies in it, and whether a recipe may go on there."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from equipoise.train.config import Recipe
from equipoise.train.recipes import differences, load_recipe
from equipoise.train.state import SavingError, make_folder, write_atomically

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Keys that may change between two starts of one run: they change its numbers by rounding at most.
FREE_KEYS = (
    "data.folder",
    "output.folder",
    "training.checkpoint_seconds",
    "output.wandb",
    "training.device",
    "training.prefetch",
    "training.threads",
)


@dataclass(frozen=True)
class RunFolder:
    """Names of the files that a training run writes."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def log(self) -> Path:
        return self.path / "log.csv"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def state(self) -> Path:
        return self.path / "state.safetensors"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def wandb(self) -> Path:
        """Which run of Weights & Biases this is."""
        return self.path / "wandb-id.txt"

    @property
    def trained(self) -> bool:
        """Whether a run has left anything here that cost time."""
        return any(file.exists() for file in (self.state, self.model, self.log))

    @property
    def all(self) -> list[Path]:
        """Everything that a new run in this folder would put out of date."""
        names = (
            "state.json",
            "evaluation.json",
            "evaluation.npz",
            "evaluation.png",
            "worst.extxyz",
        )
        own = [self.recipe, self.log, self.model, self.state, self.wandb]
        events = self.tensorboard.glob("events.out.tfevents.*")
        return own + [self.path / name for name in names] + list(events)


def find_run(recipe: Recipe, path: Path, *, resume: bool) -> RunFolder:
    """The folder of a run of `recipe`, if `path` may be that. Touches nothing.

    With `resume`, a folder in which nothing was trained yet takes any recipe; one that holds a
    run must hold a run of this recipe.

    **Raises** `ValueError` if `path` is a file, or if `resume` is set and the folder holds a run
    of another recipe (it says which keys differ) or of an unknown one.
    """
    folder = RunFolder(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"the run folder must be a folder, received the file {path}")
    if not resume or not folder.trained:
        return folder
    if not folder.recipe.exists():
        found = next(f.name for f in (folder.state, folder.model, folder.log) if f.exists())
        raise ValueError(
            f"{path} holds {found} of an earlier run but no recipe.yaml to check it against; "
            "choose another output.folder, or start afresh with resume=False, which deletes that "
            "run"
        )
    changed = differences(recipe, load_recipe(folder.recipe), ignore=FREE_KEYS)
    if changed:
        raise ValueError(
            f"{path} holds a run of a different recipe ({'; '.join(changed)}). Choose another "
            "output.folder, go back to the recipe of that run, or start afresh with "
            "resume=False, which deletes that run"
        )
    return folder


@contextmanager
def begin_run(
    folder: RunFolder, recipe: Recipe, *, resume: bool, write: bool = True
) -> Iterator[None]:
    """Make the folder and keep the recipe in it; without `resume`, delete an earlier run first.

    Inside the `with` block the run has the folder to itself. With `write=False`, in a process that leaves files to another
    one, nothing happens at all.

    **Raises** `ValueError` if a run is going on there; `SavingError` (an `OSError`) if the folder cannot be made or written to.
    """
    if not write:
        yield
        return
    make_folder(folder.path)
    with locked(folder.path):
        output = recipe.output.model_copy(update={"folder": str(folder.path)})
        try:
            if not resume:
                for file in folder.all:
                    file.unlink(missing_ok=True)
            write_atomically(folder.recipe, recipe.model_copy(update={"output": output}).save)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            raise SavingError(
                f"the run folder must be one that can be written to, received {folder.path} "
                f"({os.strerror(error.errno)}); choose another output.folder, or change its permissions"
            ) from error
        yield


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other runs out of a folder; the lock goes with the process, however that ends."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"a run is going on in {path} at this moment; wait for it or stop it, or choose another output.folder"
            ) from error
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)
