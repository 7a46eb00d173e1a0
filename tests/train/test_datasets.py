from pathlib import Path

import pytest
import torch

from equipoise.potentials import Statistics
from equipoise.train import DataSection, read_datasets, training_statistics


def test_shipped_ethanol_follows_the_official_protocol() -> None:
    data = read_datasets(DataSection(), cutoff=3.0)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [950, 50, 1000]
    assert "950 train (950 with energy, 950 with forces), 50 validation, 1000 test" in str(data)
    found = training_statistics(data.train[:50])
    assert isinstance(found, Statistics) and found.elements == (1, 6, 8)
    again = read_datasets(DataSection(), cutoff=3.0)
    assert torch.equal(again.validation[0].positions, data.validation[0].positions)


def test_files(structures: Path) -> None:
    path = str(structures)
    data = read_datasets(
        DataSection(source="file", train=path, validation=path, test=path), cutoff=5.0
    )
    assert [len(part) for part in (data.train, data.validation, data.test)] == [26, 26, 26]
    held = read_datasets(DataSection(source="file", train=path, validation_count=6), cutoff=5.0)
    assert [len(part) for part in (held.train, held.validation, held.test)] == [20, 6, 0]
    with pytest.raises(ValueError, match="validation_count must be less than the 26 structures"):
        read_datasets(DataSection(source="file", train=path), cutoff=5.0)
    with pytest.raises(FileNotFoundError):
        read_datasets(DataSection(source="file", train=path + "x"), cutoff=5.0)
