from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.singlepoint import SinglePointCalculator

from equipoise.data.extxyz import write_extxyz
from equipoise.graph import Graph
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
    assert text.endswith("; 2 with stress, learned with training.stress_weight")


def test_test_structures_alone(structures: Path) -> None:
    section = DataSection(source="file", train="nowhere.extxyz", test=str(structures))
    assert len(read_test(section, cutoff=5.0)) == 26
    assert read_test(section.model_copy(update={"test": None}), cutoff=5.0) == []


def test_files(structures: Path, tmp_path: Path) -> None:
    path, copy = str(structures), str(tmp_path / "copy.extxyz")
    Path(copy).write_text(Path(path).read_text())
    data = read_datasets(
        DataSection(source="file", train=path, validation=copy, test=path), cutoff=5.0
    )
    assert [len(part) for part in (data.train, data.validation, data.test)] == [26, 26, 26]
    held = read_datasets(DataSection(source="file", train=path, validation_count=6), cutoff=5.0)
    assert [len(part) for part in (held.train, held.validation, held.test)] == [20, 6, 0]
    with pytest.raises(ValueError, match="validation_count must be less than the 26 structures"):
        read_datasets(DataSection(source="file", train=path), cutoff=5.0)  # 50, if nobody says
    with pytest.raises(FileNotFoundError):
        read_datasets(DataSection(source="file", train=path + "x"), cutoff=5.0)


def npz(path: Path, count: int, *, energy: float = -4210.0) -> Path:
    atoms = molecule("CH3CH2OH")
    generator = np.random.default_rng(count)
    np.savez(
        path,
        z=atoms.numbers,
        R=atoms.positions + 0.05 * generator.normal(size=(count, 9, 3)),
        E=(energy + generator.normal(size=count)) / 0.0433641153,
        F=generator.normal(size=(count, 9, 3)),
    )
    return path


def test_published_data_sets_are_named_in_a_recipe(tmp_path: Path) -> None:
    npz(tmp_path / "md17_ethanol.npz", 60)
    keys = {"source": "md17", "folder": str(tmp_path), "validation_count": 10}
    section = DataSection(**keys, subset="ethanol", train_count=20, test_count=15)
    data = read_datasets(section, cutoff=5.0)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [20, 10, 15]
    assert not isinstance(data.train, list), "made when they are asked for"
    assert str(data).startswith("MD17 ethanol: 20 train (20 with energy, 20 with forces)")
    assert "PBE+vdW-TS" in str(data) and section.title == "md17:ethanol"
    test = [float(graph.energy) for graph in read_test(section, cutoff=5.0)]
    assert test == [float(graph.energy) for graph in data.test]
    # Another validation set leaves the test set alone; another seed does not.
    other = section.model_copy(update={"validation_seed": 1})
    assert [float(g.energy) for g in read_test(other, cutoff=5.0)] == test
    moved = section.model_copy(update={"seed": 1})
    assert [float(g.energy) for g in read_test(moved, cutoff=5.0)] != test


def test_rmd17_takes_its_subset_by_either_name() -> None:
    for keys in ({"molecule": "aspirin"}, {"subset": "aspirin"}):
        section = DataSection(**keys)
        assert (section.molecule, section.chosen) == ("aspirin", "aspirin")
    assert DataSection().chosen == "ethanol"
    both = DataSection(subset="ethanol,uracil")
    assert both.title == "rmd17:ethanol,uracil"


FILES = {"source": "file", "train": "a.xyz", "validation": "b.xyz"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"subset": "etanol"}, "has no subset 'etanol'; did you mean 'ethanol'"),
        ({"molecule": "aspirin", "subset": "uracil"}, "name the same thing"),
        ({"source": "md17"}, "MD17 needs a subset, a molecule"),
        ({"source": "md17", "molecule": "aspirin"}, "write data.subset=aspirin"),
        ({"source": "md22", "subset": "DHA", "train": "a.xyz"}, "with source md22"),
        ({"source": "file", "train": "a.xyz", "subset": "DHA"}, "with source file"),
        ({"source": "md17-ccsd", "subset": "all"}, "computed differently|learned together"),
        (
            {"source": "md22", "subset": "DHA", "split": 4},
            "split is only read when source is rmd17",
        ),
        (
            {"source": "file", "train": "a.xyz", "split": 3},
            "split is only read when source is rmd17",
        ),
        (
            {"source": "file", "train": "a.xyz", "folder": "/x"},
            "folder is only read of a published",
        ),
        ({"source": "file", "train": "a.xyz", "seed": 9}, "seed is only read .* data.seed=0"),
        ({"source": "file", "train": "a.xyz", "test_count": 9}, "only read when test names a file"),
        ({"seed": 5}, "seed is only read where test structures are drawn"),
        (
            {"validation_count": 5} | FILES,
            "validation_count is only read without a validation file",
        ),
        ({"validation_seed": 1} | FILES, "validation_seed is only read without a validation file"),
        (FILES | {"validation": "./a.xyz"}, "validation must be other structures than train"),
    ],
)
def test_sections_that_cannot_be(keys: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_datasets(DataSection(**keys), cutoff=5.0)


def test_keys_that_something_reads_are_accepted() -> None:
    assert DataSection(**FILES, seed=1, train_count=5).seed == 1
    assert DataSection(**FILES, validation_count=50), "as the recipes of the package say"
    assert DataSection(subset="ethanol,uracil", seed=1, test_count=5).seed == 1
    assert DataSection(source="md17", subset="ethanol", seed=1, validation_seed=1).seed == 1


def test_fewer_structures_than_a_file_has(structures: Path) -> None:
    path = str(structures)
    section = DataSection(
        source="file", train=path, test=path, validation_count=6, train_count=5, test_count=7
    )
    data = read_datasets(section, cutoff=5.0)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [5, 6, 7]
    all_of_them = read_datasets(section.model_copy(update={"train_count": None}), cutoff=5.0)
    energies = [[float(g.energy) for g in part.train] for part in (data, all_of_them)]
    assert energies[1][:5] == energies[0], "a smaller set is part of a larger one"
    for key in ("train_count", "test_count"):
        with pytest.raises(ValueError, match=f"{key} must be at most the 2"):
            read_datasets(section.model_copy(update={key: 27}), cutoff=5.0)


def test_files_of_different_theory_are_refused(tmp_path: Path) -> None:
    graphs = rmd17_like(12)
    for name, theory in (("a", "PBE"), ("b", "CCSD(T)")):
        write_extxyz(tmp_path / f"{name}.extxyz", graphs, about={"theory": theory})
    train, test = str(tmp_path / "a.extxyz"), str(tmp_path / "b.extxyz")
    section = DataSection(source="file", train=train, validation_count=4)
    data = read_datasets(section, cutoff=5.0)
    assert data.theory == "PBE" and "; PBE" in str(data)
    mixed = DataSection(source="file", train=train, test=test, validation_count=4)
    with pytest.raises(ValueError, match=r"a.extxyz: PBE; .*b.extxyz: CCSD\(T\)"):
        read_datasets(mixed, cutoff=5.0)


def test_energies_in_another_unit_are_refused(tmp_path: Path) -> None:
    write_extxyz(tmp_path / "k.extxyz", rmd17_like(12, energy=-97_000.0))
    section = DataSection(source="file", train=str(tmp_path / "k.extxyz"), validation_count=4)
    with pytest.raises(ValueError, match="k.extxyz must be in eV, but .* in kcal/mol"):
        read_datasets(section, cutoff=5.0)


def rmd17_like(count: int, *, energy: float = -4210.0) -> list[Graph]:
    atoms, generator = molecule("CH3CH2OH"), np.random.default_rng(0)
    return [
        Graph.build(
            atoms.positions + 0.05 * generator.normal(size=(9, 3)),
            atoms.numbers,
            cutoff=5.0,
            energy=energy + generator.normal(),
            forces=generator.normal(size=(9, 3)),
        )
        for _ in range(count)
    ]
