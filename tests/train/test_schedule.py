"""Schedules against numbers worked out by hand, and as recipes write them."""

from pathlib import Path

import pytest

from equipoise.train import Schedule, TrainingSection, load_recipe, recipe_keys
from equipoise.train.schedule import progress_of


@pytest.mark.parametrize(
    ("shape", "halfway", "quarter"),
    [("linear", 6.0, 8.0), ("cosine", 6.0, 8.8284), ("step", 10, 10)],
)
def test_by_hand(shape: str, halfway: float, quarter: float) -> None:
    schedule = Schedule(10.0, 2.0, begin=0.2, until=0.6, shape=shape)
    assert [schedule(p) for p in (0.0, 0.2, 0.6, 1.0)] == [10, 10, 2, 2]
    assert schedule(0.4) == pytest.approx(halfway)
    assert schedule(0.3) == pytest.approx(quarter, rel=1e-4)
    assert schedule.largest == 10 and Schedule(0.0, 3.0).largest == 3


def test_a_step_at_the_beginning_and_a_constant() -> None:
    assert Schedule(1.0, 2.0, until=0.0)(0.0) == 2.0
    assert {Schedule.constant(3.0)(p / 7) for p in range(8)} == {3.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": -1.0, "end": 1.0}, "start must be >= 0, received -1.0"),
        ({"start": 1.0, "end": float("inf")}, "end must be >= 0, received inf"),
        ({"start": 1.0, "end": 1.0, "begin": 0.7, "until": 0.5}, "0 <= begin <= until <= 1"),
        ({"start": 1.0, "end": 1.0, "until": 1.5}, "received begin 0.0 and until 1.5"),
    ],
)
def test_ranges(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Schedule(**settings)


def test_in_a_recipe(tmp_path: Path) -> None:
    changes = ["training.force_weight={start: 100, end: 10, shape: cosine}"]
    recipe = load_recipe("quickstart", changes)
    assert recipe.training.force_weight == Schedule(100.0, 10.0, shape="cosine")
    assert recipe.training.energy_weight == Schedule.constant(1.0)
    written = recipe.model_dump(mode="json")["training"]
    assert written["energy_weight"] == 1.0 and written["force_weight"]["end"] == 10.0
    recipe.save(tmp_path / "again.yaml")
    again = load_recipe(tmp_path / "again.yaml", ["training.force_weight=3"])
    assert again.training.force_weight == Schedule.constant(3.0)
    assert again.training.energy_weight == recipe.training.energy_weight
    parts = load_recipe("quickstart", [f"training.force_weight.{k}=1" for k in ("start", "end")])
    assert parts.training.force_weight == Schedule.constant(1.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x", "training.force_weight: a weight must be a number, or .* received 'x'"),
        ("true", "a weight must be a number, or .* received True"),
        ("{start: 1}", "training.force_weight.end is missing"),
        ("{start: 1, end: 2, form: step}", "unknown key 'form' in training.force_weight"),
        ("{start: 1, end: 2, shape: steps}", "shape must be 'linear', 'cosine' or 'step'"),
        ("-1", "training.force_weight: start must be >= 0, received -1.0"),
    ],
)
def test_slips_in_a_recipe(value: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("quickstart", [f"training.force_weight={value}"])


def test_keys_are_described() -> None:
    keys = {name: (default, text) for name, default, text in recipe_keys()}
    assert keys["training.energy_weight"][0] == 1.0 and "start" in keys["training.energy_weight"][1]
    for name in TrainingSection.model_fields:
        assert keys[f"training.{name}"][1], f"training.{name} has no description"


def test_progress_is_the_larger_of_steps_and_seconds() -> None:
    assert progress_of(steps=3, total_steps=10, elapsed=99.0, max_seconds=None) == 0.3
    assert progress_of(steps=3, total_steps=10, elapsed=5.0, max_seconds=10.0) == 0.5
    assert progress_of(steps=3, total_steps=10, elapsed=1.0, max_seconds=10.0) == 0.3
    assert progress_of(steps=3, total_steps=10, elapsed=20.0, max_seconds=10.0) == 1.0
