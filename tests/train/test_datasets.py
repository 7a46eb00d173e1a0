from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from equipoise.potentials import Statistics
from equipoise.train import DataSection, read_datasets, read_test, training_statistics


def test_shipped_ethanol_follows_the_official_protocol() -> None:
    data = read_datasets(DataSection(), cutoff=3.0)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [950, 50, 1000]
    assert "950 train (950 with energy, 950 with forces), 50 validation, 1000 test" in str(data)
    found = training_statistics(data.train[:50])
    assert isinstance(found, Statistics) and found.elements == (1, 6, 8)
    again = read_datasets(DataSection(), cutoff=3.0)
    assert torch.equal(again.validation[0].positions, data.validation[0].positions)


def test_labels_are_named_and_stress_is_said_to_be_left_out(tmp_path: Path) -> None:
    crystals = []
    for size in (3.6, 3.7, 3.8):
        atoms = bulk("Cu", cubic=True, a=size)
        results = {"energy": size, "forces": np.zeros((4, 3)), "stress": np.ones(6)}
        atoms.calc = SinglePointCalculator(atoms, **results)
        crystals.append(atoms)
    ase.io.write(tmp_path / "cu.extxyz", crystals)
    section = DataSection(source="file", train=str(tmp_path / "cu.extxyz"), validation_count=1)
    text = str(read_datasets(section, cutoff=3.0))
    assert "energy from 'energy', forces from 'forces'" in text
    assert text.endswith("; 2 with stress, which is not trained on")


def test_test_structures_alone(structures: Path) -> None:
    section = DataSection(source="file", train="nowhere.extxyz", test=str(structures))
    assert len(read_test(section, cutoff=5.0)) == 26
    assert read_test(section.model_copy(update={"test": None}), cutoff=5.0) == []


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
