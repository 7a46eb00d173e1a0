from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule

from equipoise.data import Subset, read_trajectory, write_mapped
from equipoise.data.mapped import MappedStructures
from equipoise.graph import Graph
from equipoise.train import identity
from equipoise.train.identity import Identity


def some(count: int, *, seed: int = 0, shift: float = 0.0, energy: float = 0.0) -> list[Graph]:
    generator, atoms = np.random.default_rng(seed), molecule("H2O")
    return [
        Graph.build(
            atoms.positions + 0.1 * generator.normal(size=(3, 3)) + shift,
            atoms.numbers,
            cutoff=3.0,
            energy=generator.normal() + energy,
            forces=generator.normal(size=(3, 3)),
        )
        for _ in range(count)
    ]


def test_labels_and_order_count_but_not_where_a_molecule_stands() -> None:
    graphs = some(6)
    mark = Identity.of(graphs).fingerprint
    assert Identity.of(some(6, shift=3.0)).fingerprint == mark
    for other in (graphs[:5], graphs[::-1], some(6, energy=1e-3), some(6, seed=1)):
        assert Identity.of(other).fingerprint != mark
    bare = [graphs[0].replace(forces=None), *graphs[1:]]
    assert Identity.of(bare).fingerprint != mark


def test_shared_structures() -> None:
    graphs = some(6)
    ours, theirs = (
        Identity.of(graphs[:4]),
        Identity.of([*some(6, energy=1.0)[2:], *some(3, seed=1)]),
    )
    assert ours.shared(theirs) == theirs.shared(ours) == 2
    assert ours.shared(Identity.of(some(4, seed=2))) == 0


@pytest.mark.parametrize("rows", [None, [4, 1, 2]])
def test_large_sets_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[int] | None
) -> None:
    monkeypatch.setattr(identity, "MANY", 2)
    monkeypatch.setattr(identity, "geometry_key", lambda structure: pytest.fail("was read"))

    def mapped(name: str, energy: float) -> Identity:
        write_mapped(tmp_path / name, some(6, energy=energy))
        graphs = MappedStructures(tmp_path / name, cutoff=2.0)
        return Identity.of(graphs if rows is None else Subset(graphs, rows))

    first, other = mapped("a", 0.0), mapped("b", 1e-3)
    assert first == mapped("c", 0.0) and first.fingerprint != other.fingerprint
    assert first.geometries is None and first.shared(other) == 0


def test_large_sets_without_checksums_are_sampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "MANY", 2)
    monkeypatch.setattr(identity, "SAMPLE", 3)

    def stored(shift: float) -> Identity:
        energies = np.arange(9.0) + shift
        arrays = {"z": [1, 1], "R": np.ones((9, 2, 3)) * [[0.7], [0.0]], "E": energies}
        np.savez(tmp_path / "a.npz", **arrays)
        return Identity.of(read_trajectory(tmp_path / "a.npz", cutoff=2.0, unit="eV"))

    assert stored(0.0) == stored(0.0) and stored(0.0).fingerprint != stored(9000.0).fingerprint
