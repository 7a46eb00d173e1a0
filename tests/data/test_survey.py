"""What a look at a data set finds, and what it warns of."""

import numpy as np
import pytest
from ase.build import bulk, molecule

from equipoise.data.sources.arrays import ArrayStructures
from equipoise.data.structures import Structure
from equipoise.data.survey import geometry_key, survey
from equipoise.graph import Graph

ETHANOL = molecule("CH3CH2OH")


def graphs(count=60, *, name="CH3CH2OH", energy=-4210.0, scale=1.0, seed=0, **change):
    """Distorted molecules with labels that nothing is wrong with."""
    atoms = molecule(name)
    rng = np.random.default_rng(seed)
    forces = rng.normal(size=(count, len(atoms), 3))
    arrays = {
        "positions": scale * (atoms.positions + 0.05 * rng.normal(size=(count, len(atoms), 3))),
        "species": atoms.numbers,
        "energy": energy + 0.3 * rng.normal(size=count),
        "forces": forces - forces.mean(axis=1, keepdims=True),
    }
    return ArrayStructures(origin="memory", cutoff=5.0, **(arrays | change))


def warnings(some):
    return survey(some).warnings


def test_a_sound_set_gives_no_warning():
    found = survey(graphs())
    assert found.warnings == ()
    assert (found.structures, found.looked_at, found.formulas, found.periodic) == (60, 60, 1, 0)
    assert found.elements == {1: (360, 60), 6: (120, 60), 8: (60, 60)}
    assert found.report.forces == 60 and found.statistics.mean_neighbours == 8.0
    assert found.forces.shape == (540,) and found.distances.shape == (60 * 36,)
    assert np.abs(found.energies).max() < 0.2  # eV per atom beyond the references
    assert found.atoms.tolist() == [9] * 60


def test_reference_energies_are_taken_away():
    water, methane = graphs(20, name="H2O", energy=-2080.0), graphs(20, name="CH4", energy=-1102.0)
    found = survey([*water, *methane])
    assert found.formulas == 2 and found.atoms.tolist() == [3] * 20 + [5] * 20
    assert np.abs(found.energies).max() < 0.5


def test_large_sets_are_sampled_evenly():
    seen = []
    found = survey(graphs(100), limit=10, progress=seen.append)
    assert (found.structures, found.looked_at, len(found.energies)) == (100, 10, 10)
    assert seen == list(range(1, 11))
    assert survey(graphs(100), limit=None).looked_at == 100


def test_samples_stay_small(monkeypatch):
    whole = survey(graphs(40))
    monkeypatch.setattr("equipoise.data.survey._KEPT", 100)
    some = survey(graphs(40))
    for values, every in ((some.forces, whole.forces), (some.distances, whole.distances)):
        assert 50 < len(values) <= 200 and set(values.tolist()) <= set(every.tolist())
        assert np.mean(values) == pytest.approx(np.mean(every), rel=0.2)


def test_wrong_unit_of_energy():
    mixed = [*graphs(20), *graphs(20, energy=-97_000.0, seed=1)]
    assert "in eV and in kcal/mol, but are read as eV" in warnings(mixed)[0]
    assert "in kcal/mol, but are read as eV" in warnings(graphs(energy=-97_000.0))[0]
    assert warnings(graphs(energy=-5.0)) == ()


@pytest.mark.parametrize(("scale", "unit"), [(1.8897, "bohr"), (0.1, "nm")])
def test_wrong_unit_of_length(scale, unit):
    assert f"are positions in {unit}?" in " ".join(warnings(graphs(scale=scale)))


def test_missing_labels():
    energy = np.full(60, -4210.0) + np.random.default_rng(0).normal(size=60)
    energy[[3, 7]] = np.nan
    assert "2 of 60 structures have no energy label" in warnings(_with(energy=energy))[0]
    forces = np.random.default_rng(0).normal(size=(60, 9, 3))
    forces[5, 2] = np.nan
    assert any(
        "1 structures have atoms without forces" in w for w in warnings(_with(forces=forces))
    )
    assert "nothing to learn" in warnings(_with(energy=None))[0]


def _with(**change):
    rng = np.random.default_rng(0)
    arrays = {
        "positions": ETHANOL.positions + 0.05 * rng.normal(size=(60, 9, 3)),
        "species": ETHANOL.numbers,
        "energy": -4210.0 + 0.3 * rng.normal(size=60),
        "forces": None,
    }
    return ArrayStructures(origin="memory", cutoff=5.0, **(arrays | change))


def test_forces_that_cannot_be():
    forces = np.random.default_rng(0).normal(size=(60, 9, 3))
    forces -= forces.mean(axis=1, keepdims=True)
    huge = forces.copy()
    huge[11] *= 100.0
    assert any(
        "largest force" in w and "in structure 11" in w for w in warnings(_with(forces=huge))
    )
    pushed = forces.copy()
    pushed[23, 0] += 0.4
    assert any(
        "do not add up to zero: 0.69 eV/Å in structure 23" in w
        for w in warnings(_with(forces=pushed))
    )
    zero = forces.copy()
    zero[[1, 2]] = 0.0
    assert any("all forces are zero in 2 structures" in w for w in warnings(_with(forces=zero)))


def test_energies_that_cannot_be():
    energy = -4210.0 + 0.3 * np.random.default_rng(0).normal(size=60)
    energy[17] += 90.0
    found = warnings(_with(energy=energy))
    assert any(
        "1 energies are far from all others, such as that of structure 17 (+" in w for w in found
    )
    rounded = (-4210.0 + 0.3 * np.random.default_rng(0).normal(size=60)).astype(np.float32)
    assert any("steps of 0.00049 eV" in w for w in warnings(_with(energy=rounded.astype(float))))


def test_structures_that_are_there_twice():
    one = graphs(20)
    positions = one.positions.reshape(20, 9, 3).copy()
    positions[13] = positions[4] + 7.0  # elsewhere, but the same molecule
    found = warnings(graphs(20, positions=positions))
    assert any("1 structures are there twice, such as 4 and 13" in w for w in found)


def test_frames_of_a_trajectory():
    rng = np.random.default_rng(0)
    steps = 0.005 * rng.normal(size=(90, 9, 3))
    walk = ETHANOL.positions + np.cumsum(steps, axis=0)
    assert any("frames of a trajectory" in w for w in warnings(graphs(90, positions=walk)))
    assert not any("trajectory" in w for w in warnings(graphs(90, positions=rng.permutation(walk))))


def test_geometry():
    close = graphs(20).positions.reshape(20, 9, 3).copy()
    close[6, 8] = close[6, 7] + [0.0, 0.0, 0.3]
    found = " ".join(warnings(graphs(20, positions=close)))
    assert "two atoms of structure 6 are 0.30 Å apart" in found
    far = graphs(20).positions.reshape(20, 9, 3).copy()
    far[6, 8] += 20.0
    assert "1 structures have atoms without any neighbour" in " ".join(
        warnings(graphs(20, positions=far))
    )
    copper = bulk("Cu", cubic=True)
    crystal = Graph.build(
        copper.positions, copper.numbers, cutoff=5.0, cell=copper.cell.array, pbc=True, energy=-14.0
    )
    mixed = [*graphs(20), crystal]
    found = " ".join(warnings(mixed))
    assert "1 of 21 structures are periodic" in found


def test_rare_elements():
    some = [*graphs(98, name="H2O", energy=-2080.0), *graphs(3, name="CH4", energy=-1102.0)]
    assert any("C is in 3 of 101 structures only" in w for w in warnings(some))


def test_equal_geometries_have_equal_keys():
    positions = ETHANOL.positions

    def key(r, **more):
        return geometry_key(Structure(positions=r, species=ETHANOL.numbers, **more))

    assert key(positions) == key(positions + 3.0) == key(positions + 1e-6)
    moved = positions.copy()
    moved[2, 0] += 0.001
    assert key(moved) != key(positions)
    cell = 9.0 * np.eye(3)
    assert key(positions, cell=cell, pbc=True) != key(positions, cell=2 * cell, pbc=True)


def test_nothing():
    with pytest.raises(ValueError, match="at least one structure"):
        survey([])
