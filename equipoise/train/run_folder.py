"""The folder of a run: what lies in it, and whether a recipe may go on there."""

from dataclasses import dataclass
from pathlib import Path

from equipoise.train.config import Recipe
from equipoise.train.recipes import differences, load_recipe
from equipoise.train.state import write_atomically

# Keys that may change between two starts of one run: they do not change its numbers.
FREE_KEYS = (
    "data.folder",
    "output.folder",
    "training.checkpoint_seconds",
    "training.device",
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
    def all(self) -> list[Path]:
        """Everything that a new run in this folder would put out of date."""
        names = ("state.json", "evaluation.json", "evaluation.npz")
        own = [self.recipe, self.log, self.model, self.state]
        return own + [self.path / name for name in names]


def open_run(recipe: Recipe, path: Path, *, resume: bool) -> RunFolder:
    """Make `path` the folder of a run of `recipe`, and keep the recipe in it.

    With `resume`, a folder that holds a run of the same recipe is left as it is, to be gone on
    with. Without, what an earlier run left there is deleted.

    **Raises** `ValueError` if `resume` is set and the folder holds a run of another recipe (it
    says which keys differ), or if `path` is a file.
    """
    folder = RunFolder(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"the run folder must be a folder, received the file {path}")
    if resume and folder.recipe.exists():
        changed = differences(recipe, load_recipe(folder.recipe), ignore=FREE_KEYS)
        if changed:
            raise ValueError(
                f"{path} holds a run of a different recipe ({'; '.join(changed)}). Choose another "
                "output.folder, go back to the recipe of that run, or start afresh with "
                "resume=False, which deletes that run"
            )
    elif resume and folder.state.exists():
        raise ValueError(
            f"{path} holds the state of a run but no recipe.yaml to check it against; choose "
            "another output.folder, or start afresh with resume=False, which deletes that run"
        )
    else:
        for file in folder.all:
            file.unlink(missing_ok=True)
    path.mkdir(parents=True, exist_ok=True)
    output = recipe.output.model_copy(update={"folder": str(path)})
    write_atomically(folder.recipe, recipe.model_copy(update={"output": output}).save)
    return folder
