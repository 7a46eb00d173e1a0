"""The event files hold what log.csv holds, once."""

import csv
import signal
from pathlib import Path

import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from equipoise.train import Recipe, fit
from equipoise.train.log import Row
from equipoise.train.tensorboard import TAGS, TensorBoard
from tests.train.conftest import Fakes

ROW = Row(1.0, 5, 2.0, 1e-3, 0.5, 10.0, 20.0, 11.0, float("nan"), 9.5, 8.5, 0, 0.6, 3.0)


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def logged(run: Path, column: str) -> list[tuple[int, float]]:
    with open(run / "log.csv", newline="") as file:
        return [(int(row["step"]), float(row[column])) for row in csv.DictReader(file)]


def test_one_row(tmp_path: Path) -> None:
    with TensorBoard(tmp_path / "events", after=-1) as board:
        assert not (tmp_path / "events").exists(), "a finished run that is looked at adds no file"
        board.append(ROW)
    found = curves(tmp_path / "events")
    assert found.keys() == set(TAGS.values()) - {"force_mae_mev/valid"}  # no label, no point
    assert found["energy_mae_mev/valid"] == [(5, 11.0)]


def test_rows_beyond_the_checkpoint_are_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The number that ends the names of a process goes from 9 to 10 between the files.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(9))
    for after, steps in ((-1, (5, 10, 15)), (5, (10, 15, 20))):
        with TensorBoard(tmp_path, after=after) as board:
            for step in steps:
                board.append(Row(**{**vars(ROW), "step": step, "loss": step + after}))
    assert curves(tmp_path)["loss"] == [(5, 4.0), (10, 15.0), (15, 20.0), (20, 25.0)]


def test_a_resumed_run(recipe: Recipe, fakes: Fakes, tmp_path: Path, console: Console) -> None:
    def press(call: int) -> None:
        if call == 12:
            signal.raise_signal(signal.SIGINT)

    fakes.settings["before_call"] = press
    assert not fit(recipe, tmp_path, console=console).finished
    fakes.settings.clear()
    for _ in range(2):  # the second finds it finished
        assert fit(recipe, tmp_path, console=console).finished
        found = curves(tmp_path / "tensorboard")
        for column, tag in TAGS.items():
            if column == "valid_stress_mae_mev":  # there is no such label
                assert tag not in found
                continue
            assert found[tag] == [(s, pytest.approx(v)) for s, v in logged(tmp_path, column)], tag
    fit(recipe, tmp_path, resume=False, console=console)
    assert len(curves(tmp_path / "tensorboard")["loss"]) == 4
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1
