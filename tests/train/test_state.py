import errno
import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from equipoise.train import SavingError, TrainingSection
from equipoise.train.ema import moving_average
from equipoise.train.metrics import Tally
from equipoise.train.optimiser import build_optimiser
from equipoise.train.state import Counters, load_state, save_state, write_atomically


def make(seed: int, steps: int = 0, width: int = 4) -> tuple:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, 1))
    average = moving_average(module, decay=0.9)
    optimiser = build_optimiser(module, TrainingSection())
    for _ in range(steps):
        optimiser.zero_grad()
        module(torch.randn(5, 3)).square().sum().backward()
        optimiser.step()
        average.update_parameters(module)
    return module, average, optimiser


@pytest.mark.parametrize("steps", [0, 3])
def test_everything_comes_back(tmp_path: Path, steps: int) -> None:
    first, second = make(0, steps), make(1)
    counters = Counters(step=7, seconds=1 / 3, tally=Tally(energy_absolute=0.1))
    save_state(tmp_path / "state.safetensors", counters, *first)
    assert load_state(tmp_path / "state.safetensors", *second) == counters
    for ours, theirs in zip(first[:2], second[:2], strict=True):
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    ours, theirs = first[2].state_dict()["state"], second[2].state_dict()["state"]
    assert ours.keys() == theirs.keys() and len(ours) == (6 if steps else 0)
    for index, moments in ours.items():
        for name, value in moments.items():
            assert torch.equal(value, theirs[index][name]), (index, name)
    readable = json.loads((tmp_path / "state.json").read_text())
    assert readable["step"] == 7 and readable["tally"]["energy_absolute"] == 0.1


def test_no_pickle(tmp_path: Path) -> None:
    save_state(tmp_path / "state.safetensors", Counters(), *make(0, 2))
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
    save_state(path, Counters(), *make(0, 2))
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="must hold the tensors of this network"):
        load_state(path, *_other_names())
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is not a complete state file"):
        load_state(path, *make(0))
    path.write_bytes(whole.replace(b"equipoise training state", b"something training state"))
    with pytest.raises(ValueError, match="received format 'something training state'"):
        load_state(path, *make(0))


def _other_names() -> tuple:
    module = nn.Linear(3, 1)
    return module, moving_average(module, decay=0.9), build_optimiser(module, TrainingSection())


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    path = tmp_path / "state.safetensors"
    save_state(path, Counters(step=1), *make(0, 1))
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
        save_state(path, Counters(step=2), *make(0, 2))
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert load_state(path, *make(1)).step == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.json", "state.safetensors"]


def test_a_full_disk_without_an_old_file(tmp_path: Path) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(SavingError) as caught:
        write_atomically(tmp_path / "new.bin", full)
    assert caught.value.errno == errno.ENOSPC
    assert "intact" not in str(caught.value)
