"""Weights & Biases with a module that only writes down what it is told."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from equipoise.train import Recipe, fit
from tests.train.conftest import Fakes
from tests.train.test_loop import rows


class Stub(ModuleType):
    """What is used of the package."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.begun: list[dict] = []
        self.logged: list[tuple[int, dict]] = []
        self.finished: list[int] = []

    def init(self, **settings: object) -> "Stub":
        self.begun.append(settings)
        return self

    def log(self, values: dict, *, step: int) -> None:
        self.logged.append((step, values))

    def finish(self, *, exit_code: int) -> None:
        self.finished.append(exit_code)


@pytest.fixture
def watched(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"output": recipe.output.model_copy(update={"wandb": "water"})})


def test_rows_reach_one_run_of_the_project(
    watched: Recipe, fakes: Fakes, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = Stub()
    monkeypatch.setitem(sys.modules, "wandb", stub)

    def die(call: int) -> None:
        if call == 12:
            raise RuntimeError("power cut")

    fakes.settings["before_call"] = die
    with pytest.raises(RuntimeError, match="power cut"):
        fit(watched, tmp_path / "run", console=console)
    fakes.settings.clear()
    assert fit(watched, tmp_path / "run", console=console).finished
    assert stub.finished == [1, 0]
    first, second = stub.begun
    assert first == second, "a run that goes on goes on there too"
    assert (first["project"], first["name"], first["resume"]) == ("water", "run", "allow")
    assert first["config"]["training"]["batch_size"] == 4 and first["dir"] == str(tmp_path / "run")
    assert [step for step, _ in stub.logged] == [5, 10, 15, 20]
    for (_, values), row in zip(stub.logged, rows(tmp_path / "run"), strict=True):
        assert values["force_mae_mev/valid"] == pytest.approx(float(row["valid_force_mae_mev"]))
    fit(watched, tmp_path / "run", resume=False, console=console)
    assert stub.begun[-1]["id"] != first["id"], "a new run is another one"


def test_it_is_not_installed(
    watched: Recipe, fakes: Fakes, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as Python remembers what cannot be imported
    with pytest.raises(ValueError, match="needs the package wandb, .* pip install wandb, or leave"):
        fit(watched, tmp_path / "run", console=console)
    assert not (tmp_path / "run").exists(), "said before anything is read or written"
