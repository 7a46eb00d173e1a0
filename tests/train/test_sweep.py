"""Sweeps over a potential that takes no time to train."""

import csv
import json
import signal
import sys
from pathlib import Path

import pytest
from rich.console import Console

from equipoise.train import Recipe
from equipoise.train.sweep import Range, SweepSettings, load_sweep, sweep
from tests.train.conftest import Fakes

pytest.importorskip("optuna")

SPACE = {
    "training.learning_rate": {"low": 1e-3, "high": 1e-1, "log": True},
    "training.batch_size": {"low": 2, "high": 6, "step": 2},
    "training.loss": ["l1", "l2mae"],
}


@pytest.fixture
def file(recipe: Recipe, tmp_path: Path) -> Path:
    recipe.save(tmp_path / "base.yaml")
    text = {"recipe": str(tmp_path / "base.yaml"), "changes": ["training.epochs=1"], "space": SPACE}
    (tmp_path / "sweep.yaml").write_text(json.dumps(text))
    return tmp_path / "sweep.yaml"


def test_values_become_a_recipe(file: Path) -> None:
    settings = load_sweep(file)
    assert settings.space["training.learning_rate"] == Range(low=1e-3, high=1e-1, log=True)
    recipe = settings.recipe_of({"training.learning_rate": 3e-05, "training.loss": "l1"})
    assert recipe.training.learning_rate == 3e-05 and recipe.training.epochs == 1
    assert recipe.training.loss == "l1" and recipe.training.batch_size == 4


def test_a_sweep_finds_the_best_and_keeps_all(
    file: Path, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    found = sweep(load_sweep(file), tmp_path / "sweep", trials=3, console=console)
    assert len(found) == 3 and all(trial.state == "complete" for trial in found)
    scores = [trial.score for trial in found]
    assert scores == sorted(scores) and len(set(scores)) == 3
    for trial in found:
        assert 1e-3 <= trial.values["training.learning_rate"] <= 1e-1
        assert trial.values["training.batch_size"] in (2, 4, 6)
        assert (trial.folder / "model.safetensors").exists()
    with open(tmp_path / "sweep" / "sweep.csv", newline="") as table:
        rows = list(csv.DictReader(table))
    assert [float(row["valid_force_mae_mev"]) for row in rows] == scores
    assert rows[0]["folder"] == found[0].folder.name
    more = sweep(load_sweep(file), tmp_path / "sweep", trials=4, console=console)
    assert len(more) == 4 and {t.folder for t in found} < {t.folder for t in more}


class Killed(BaseException):
    pass


@pytest.mark.parametrize("how", ["ctrl-c", "kill"])
def test_a_trial_that_was_stopped_goes_on(
    file: Path, fakes: Fakes, tmp_path: Path, console: Console, how: str
) -> None:
    whole = sweep(load_sweep(file), tmp_path / "whole", trials=2, console=console)

    def stop(call: int) -> None:
        if call == 2 and len(fakes.potentials) == built + 2:
            if how == "kill":
                raise Killed
            signal.raise_signal(signal.SIGINT)

    built = len(fakes.potentials)
    fakes.settings["before_call"] = stop
    if how == "kill":
        with pytest.raises(Killed):
            sweep(load_sweep(file), tmp_path / "parts", trials=2, console=console)
    else:
        found = sweep(load_sweep(file), tmp_path / "parts", trials=2, console=console)
        assert sorted(trial.state for trial in found) == ["complete", "waiting"]
    fakes.settings.clear()
    parts = sweep(load_sweep(file), tmp_path / "parts", trials=2, console=console)
    assert [trial.state for trial in parts] == ["complete"] * 2
    folders = [path for path in (tmp_path / "parts").glob("trial-*")]
    assert len(folders) == 2, "the stopped trial goes on in its folder"
    assert [(t.folder.name, t.score) for t in parts] == [(t.folder.name, t.score) for t in whole]


def test_a_trial_of_another_process_is_left_to_it(
    file: Path, fakes: Fakes, tmp_path: Path, console: Console
) -> None:
    settings = load_sweep(file)

    def another(call: int) -> None:
        if call == 2 and len(fakes.potentials) == 1:
            sweep(settings, tmp_path / "sweep", trials=1, console=console)

    fakes.settings["before_call"] = another
    found = sweep(settings, tmp_path / "sweep", trials=2, console=console)
    assert [trial.state for trial in found] == ["complete"] * 2
    assert "failed" not in console.file.getvalue(), "with one seed, both must not propose the same"


def test_a_trial_that_fails_is_one_of_them(
    file: Path, fakes: Fakes, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_sweep(file)
    fakes.settings["poison"] = lambda call: len(fakes.potentials) == 1
    monkeypatch.setitem(settings.space, "training.max_bad_steps", (2,))
    found = sweep(settings, tmp_path / "sweep", trials=2, console=console)
    assert sorted(trial.state for trial in found) == ["complete", "fail"]
    assert found[-1].score is None and "not finite 2 times in a row" in console.file.getvalue()
    fakes.settings["poison"] = lambda call: True
    monkeypatch.setattr("equipoise.train.sweep.MOST_FAILURES", 2)
    with pytest.raises(ValueError, match="2 trials in a row failed, the last one: the loss or"):
        sweep(settings, tmp_path / "sweep", trials=20, console=console)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": {}}, "space: .*at least 1"),
        (
            {"space": {"training.lerning_rate": [1]}},
            "unknown key 'lerning_rate' in training; did you",
        ),
        (
            {"space": {"training.epochs": {"low": 3, "high": 1}}},
            "low must be < high, received 3 and 1",
        ),
        ({"space": {"training.epochs": {"low": 0, "high": 1, "log": True}}}, "log needs low > 0"),
        ({"recipe": "quikstart"}, "unknown recipe 'quikstart'; did you mean 'quickstart'"),
        ({"spaces": {}}, "spaces: Extra inputs are not permitted"),
    ],
)
def test_slips(file: Path, change: dict, message: str) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        load_sweep(file)


def test_optuna_is_not_installed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, console: Console
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match="needs the package optuna, .*: pip install optuna"):
        sweep(load_sweep(file), tmp_path / "sweep", trials=1, console=console)
    assert not (tmp_path / "sweep").exists()


def test_settings_in_python() -> None:
    settings = SweepSettings(recipe="quickstart", space={"training.seed": (0, 1)})
    assert settings.recipe_of({"training.seed": 1}).training.seed == 1
