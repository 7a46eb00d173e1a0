import errno
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from equipoise.potentials import Statistics
from equipoise.train import SavingError, TrainingSection
from equipoise.train.ema import moving_average
from equipoise.train.metrics import Tally
from equipoise.train.optimiser import build_optimiser
from equipoise.train.reuse import FixedPoints
from equipoise.train.state import (
    Counters,
    Learner,
    load_state,
    read_statistics,
    save_state,
    write_atomically,
)

STATISTICS = Statistics((1, 8), (-1 / 3, -5.0), 1.0, 8.0, 3.0)


def make(seed: int, steps: int = 0, width: int = 4) -> Learner:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 1))
    module.statistics = STATISTICS
    average = moving_average(module, decay=0.9)
    optimiser = build_optimiser(module, TrainingSection())
    for _ in range(steps):
        optimiser.zero_grad()
        module(torch.randn(5, 3)).square().sum().backward()
        optimiser.step()
        average.update_parameters(module)
    return Learner(module, average, optimiser, FixedPoints(1, from_zero=True))


@pytest.mark.parametrize("steps", [0, 3])
def test_everything_comes_back(tmp_path: Path, steps: int) -> None:
    first, second = make(0, steps), make(1)
    counters = Counters(step=7, seconds=1 / 3, tally=Tally(energy_absolute=0.1))
    save_state(tmp_path / "state.safetensors", counters, first)
    assert read_statistics(tmp_path / "state.safetensors") == STATISTICS
    assert load_state(tmp_path / "state.safetensors", second) == counters
    for name in ("potential", "average"):
        ours, theirs = getattr(first, name), getattr(second, name)
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    ours, theirs = (each.optimiser.state_dict()["state"] for each in (first, second))
    assert ours.keys() == theirs.keys() and len(ours) == (6 if steps else 0)
    for index, moments in ours.items():
        for name, value in moments.items():
            assert torch.equal(value, theirs[index][name]), (index, name)
    readable = json.loads((tmp_path / "state.json").read_text())
    assert readable["step"] == 7 and readable["tally"]["energy_absolute"] == 0.1


def test_no_pickle(tmp_path: Path) -> None:
    save_state(tmp_path / "state.safetensors", Counters(), make(0, 2))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.json", "state.safetensors"]
    data = (tmp_path / "state.safetensors").read_bytes()
    assert data[8:9] == b"{"  # a safetensors file: length, then JSON
    room = Path(__file__).parents[2] / "equipoise" / "train"
    for file in room.glob("*.py"):
        text = file.read_text()
        assert "pickle" not in text.replace("allow_pickle=False", ""), file.name
        assert " torch.save(" not in text and "torch.load(" not in text, file.name


def test_files_that_are_no_state(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, Counters(), make(0, 2))
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="must hold the tensors of this network"):
        load_state(path, _other_names())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a complete state file"):
        load_state(path, make(0))
    path.write_bytes(whole.replace(b"equipoise training state", b"something training state"))
    with pytest.raises(ValueError, match="received format 'something training state'"):
        load_state(path, make(0))


def _other_names() -> Learner:
    module = nn.Linear(3, 1)
    optimiser = build_optimiser(module, TrainingSection())
    points = FixedPoints(0, from_zero=True)
    return Learner(module, moving_average(module, decay=0.9), optimiser, points)


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, Counters(step=1), make(0, 1))
    before = path.read_bytes()

    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if where == "write":

        def half(self: Path, data: bytes) -> None:
            with open(self, "wb") as file:
                file.write(data[: len(data) // 2])
            full()

        monkeypatch.setattr(Path, "write_bytes", half)
    else:
        monkeypatch.setattr(os, where, full)
    with pytest.raises(SavingError, match="No space left on device; the previous one is intact"):
        save_state(path, Counters(step=2), make(0, 2))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert load_state(path, make(1)).step == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.json", "state.safetensors"]


def test_a_full_disk_without_an_old_file(tmp_path: Path) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(SavingError) as caught:
        write_atomically(tmp_path / "new.bin", full)
    assert caught.value.errno == errno.ENOSPC
    assert "intact" not in str(caught.value)
