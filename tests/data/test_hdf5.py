"""HDF5 files in the flat layout and in that of ANI-1x and SPICE: units, signs, missing labels, refusals."""

import os
import pickle
import sys

import ase.build
import numpy as np
import pytest

from equipoise.data import (
    Hdf5Structures,
    Report,
    label_keys,
    read,
    split,
    statistics,
    write_mapped,
)
from tests.data.made import CUTOFF, in_child, mixture, same

h5py = pytest.importorskip("h5py")

HARTREE, BOHR, KCAL = 27.211386, 0.529177, 0.0433641  # eV, Å, eV
WATER, METHANE = (ase.build.molecule(name) for name in ("H2O", "CH4"))


def flat(path, *, units=None, **changes):
    """The mixture, in the arrays that the documentation names."""
    folder = path.with_suffix("")
    write_mapped(folder, mixture())
    arrays = {p.stem: np.load(p, allow_pickle=False) for p in folder.glob("*.npy")}
    with h5py.File(path, "w") as file:
        for name, array in (arrays | changes).items():
            if array is not None:
                file[name] = array
        for name, unit in (units or {}).items():
            file[name].attrs["units"] = unit
    return path


def molecule(group, atoms, rows, names, values=(1.0, 2.0), units=(None, None), length=1.0):
    """A group with `rows` conformations: energies and forces of some value."""
    positions = np.stack([atoms.positions + 0.01 * row for row in range(rows)]) / length
    group["atomic_numbers"] = atoms.numbers
    group[names[0]] = positions.astype(np.float32)
    group[names[1]] = np.arange(rows) + values[0]
    group[names[2]] = np.full((rows, len(atoms), 3), values[1], dtype=np.float32)
    for name, unit in zip(names[1:], units, strict=True):
        if unit is not None:
            group[name].attrs["units"] = unit


ANI = ("coordinates", "wb97x_dz.energy", "wb97x_dz.forces")
SPICE = ("conformations", "dft_total_energy", "dft_total_gradient")


def distance(graph):
    return float(np.linalg.norm(graph.positions[1] - graph.positions[0]))


def test_flat_layout(tmp_path):
    graphs = read(flat(tmp_path / "a.h5"), cutoff=CUTOFF)
    assert isinstance(graphs, Hdf5Structures)
    for graph, other in zip(graphs, mixture(), strict=True):
        if not other.pbc.any():
            other = other.replace(positions=other.positions - other.positions.mean(dim=0))
        assert same(graph, other, exact=False)
    assert Report.of(graphs) == Report(6, 4, 4, 1)
    assert label_keys(tmp_path / "a.h5") == {kind: kind for kind in ("energy", "forces", "stress")}


def test_flat_units_are_converted(tmp_path):
    units = {"positions": "bohr", "cell": "bohr", "energy": "kcal/mol", "forces": b"hartree/bohr"}
    read_, plain = (
        Hdf5Structures(flat(tmp_path / name, units=unit), cutoff=CUTOFF)
        for name, unit in (("a.h5", units), ("b.h5", None))
    )
    one, other = read_.structure(3), plain.structure(3)
    assert one.energy == pytest.approx(other.energy * KCAL, rel=1e-5)
    np.testing.assert_allclose(one.forces, other.forces * HARTREE / BOHR, rtol=1e-5)
    np.testing.assert_allclose(one.cell, other.cell * BOHR, rtol=1e-5)


def test_forces_beside_energies_that_state_another_unit_must_state_theirs(tmp_path):
    path = flat(tmp_path / "a.h5", units={"energy": "hartree"})
    with pytest.raises(
        ValueError, match="'energy' is in other units than eV.* 'forces' does not say its unit"
    ):
        Hdf5Structures(path, cutoff=CUTOFF)
    given = Hdf5Structures(path, cutoff=CUTOFF, units={"forces": "hartree/bohr"})
    stated = flat(tmp_path / "b.h5", units={"energy": "hartree", "forces": "hartree/bohr"})
    other = Hdf5Structures(stated, cutoff=CUTOFF)
    np.testing.assert_allclose(given.structure(3).forces, other.structure(3).forces)
    for stated, silent in (({"forces": "hartree/bohr"}, "energy"), ({"positions": "bohr"}, "cell")):
        with pytest.raises(ValueError, match=f"'{silent}' does not say its unit"):
            Hdf5Structures(flat(tmp_path / f"{silent}.h5", units=stated), cutoff=CUTOFF)


def test_other_names_in_the_flat_layout(tmp_path):
    path = flat(tmp_path / "a.hdf5", ccsd=np.arange(6.0))
    graphs = read(path, cutoff=CUTOFF, energy_key="ccsd")
    assert [float(graph.energy) for graph in graphs] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert Report.of(graphs) == Report(6, 6, 4, 0)  # the stress may be that of another method
    with pytest.raises(ValueError, match="no 'mp2'; it holds ccsd, cell"):
        read(path, cutoff=CUTOFF, energy_key="mp2")


def test_ani_layout(tmp_path):
    path = tmp_path / "ani.h5"
    with h5py.File(path, "w") as file:
        molecule(file.create_group("C1H4"), METHANE, 2, ANI)
        molecule(file.create_group("H2O1"), WATER, 3, ANI)
        file["C1H4/wb97x_dz.energy"][1] = np.nan  # as the release has them
        file["H2O1/wb97x_dz.forces"][2] = np.nan
    graphs = read(path, cutoff=CUTOFF)
    assert [g.n_atoms for g in graphs] == [5, 5, 3, 3, 3]
    assert graphs[1].energy is None and graphs[4].forces is None
    assert float(graphs[3].energy) == pytest.approx(2 * HARTREE, rel=1e-6)
    assert float(graphs[0].forces[0, 0]) == pytest.approx(2 * HARTREE, rel=1e-6)  # hartree/Å
    assert distance(graphs[2]) == pytest.approx(WATER.get_distance(0, 1), rel=1e-6)
    assert label_keys(path) == {"energy": ANI[1], "forces": ANI[2]}
    parts = split(graphs, train=3, validation=2, seed=0, groups=graphs.molecules())
    assert {g.n_atoms for g in parts.train} == {3}
    assert statistics(graphs).elements == (1, 6, 8)


def test_spice_layout(tmp_path):
    path = tmp_path / "spice.hdf5"
    with h5py.File(path, "w") as file:
        file["version"] = "2.0"
        group = file.create_group("deep/er/water")
        molecule(group, WATER, 2, SPICE, units=("hartree", "hartree/bohr"), length=BOHR)
        group["smiles"] = np.array([b"O"])
        group["conformations"].attrs["units"] = "bohr"
    graphs = read(path, cutoff=CUTOFF)
    assert len(graphs) == 2
    assert distance(graphs[1]) == pytest.approx(WATER.get_distance(0, 1), rel=1e-6)
    # Minus the gradient.
    assert float(graphs[1].forces[2, 1]) == pytest.approx(-2 * HARTREE / BOHR, rel=1e-5)


def test_symbols_and_chosen_labels(tmp_path):
    path = tmp_path / "ani1.h5"
    names = ("coordinates", "energies", "forces")
    with h5py.File(path, "w") as file:
        molecule(file.create_group("w"), WATER, 2, names, units=("kcal/mol", "kcal/mol/Å"))
        del file["w/atomic_numbers"]
        file["w/species"] = np.array([b"O", b"H", b"H"])
        file["w/ccsd"] = np.array([[3.0], [4.0]])
        file["w/ccsd"].attrs["units"] = "eV"
    assert float(read(path, cutoff=CUTOFF)[1].energy) == pytest.approx(2 * KCAL, rel=1e-5)
    graph = read(path, cutoff=CUTOFF, energy_key="ccsd")[1]
    assert float(graph.energy) == 4.0 and graph.species.tolist() == [8, 1, 1]


def test_a_molecule_may_lack_a_label(tmp_path):
    path = tmp_path / "ani.h5"
    with h5py.File(path, "w") as file:
        molecule(file.create_group("a"), WATER, 1, ANI)
        molecule(file.create_group("b"), WATER, 1, ANI)
        del file["a/wb97x_dz.forces"]
    graphs = read(path, cutoff=CUTOFF)
    assert Report.of(graphs) == Report(2, 2, 1, 0)


def test_other_processes(tmp_path):
    graphs = Hdf5Structures(flat(tmp_path / "a.h5"), cutoff=CUTOFF)
    expected = [graph.n_edges for graph in graphs]
    again = pickle.loads(pickle.dumps(graphs))
    assert [graph.n_edges for graph in again] == expected

    def child():
        os._exit(0 if [graph.n_edges for graph in graphs] == expected else 1)

    assert in_child(child) == 0


# Refusals


def two(path, first, second, names=ANI):
    with h5py.File(path, "w") as file:
        molecule(file.create_group("a"), WATER, 1, names, units=first)
        molecule(file.create_group("b"), WATER, 1, names, units=second)


def test_units_that_nobody_states_or_that_differ(tmp_path):
    path = tmp_path / "a.h5"
    two(path, (None, None), (None, None), ("coordinates", "energies", "forces"))
    with pytest.raises(ValueError, match="unit of /a/energies is not known.*or give units="):
        read(path, cutoff=CUTOFF)
    given = {"energy": "hartree", "forces": "hartree/bohr"}
    graphs = pickle.loads(pickle.dumps(Hdf5Structures(path, cutoff=CUTOFF, units=given)))
    assert float(graphs[1].energy) == pytest.approx(HARTREE, rel=1e-6)
    path = tmp_path / "b.h5"  # the other one is in use
    with pytest.raises(ValueError, match="units are those of positions, energy.*received dipole"):
        Hdf5Structures(path, cutoff=CUTOFF, units={"dipole": "debye"})
    two(path, ("eV", "eV/Å"), ("hartree", "eV/Å"))
    with pytest.raises(ValueError, match="same units; /b has .* in hartree, those before .* in eV"):
        read(path, cutoff=CUTOFF)
    two(path, ("eV", "eV"), ("eV", "eV"))
    with pytest.raises(ValueError, match="a force unit must be energy/length.*received 'eV'"):
        read(path, cutoff=CUTOFF)
    two(path, ("e", "eV/Å"), ("e", "eV/Å"))
    with pytest.raises(ValueError, match="unknown unit of energy 'e'; did you mean 'ev'"):
        read(path, cutoff=CUTOFF)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"species": None}, "it has offsets but no species"),
        ({"offsets": np.array([0, 3, 3])}, "offsets must rise"),
        ({"energy": np.zeros(5)}, "energy must have 6 rows, received 5"),
        ({"positions": np.zeros((3, 3))}, "positions must have 24 rows, received 3"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(ValueError, match=f"a.h5 cannot be read: {message}"):
        Hdf5Structures(flat(tmp_path / "a.h5", **changes), cutoff=CUTOFF)


def test_labels_of_other_rows(tmp_path):
    path = tmp_path / "a.h5"
    two(path, (None, None), (None, None))
    with h5py.File(path, "a") as file:
        del file["b/wb97x_dz.energy"]
        file["b/wb97x_dz.energy"] = np.zeros(2)
    with pytest.raises(ValueError, match="/b/wb97x_dz.energy must have 1 rows, received 2"):
        read(path, cutoff=CUTOFF)


def test_files_that_are_something_else(tmp_path):
    whole = flat(tmp_path / "whole.h5")
    (tmp_path / "cut.h5").write_bytes(whole.read_bytes()[:3000])
    (tmp_path / "text.h5").write_text("not HDF5")
    for name in ("cut.h5", "text.h5"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as HDF5"):
            read(tmp_path / name, cutoff=CUTOFF)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(ValueError, match="other.h5 cannot be read: neither offsets"):
        read(tmp_path / "other.h5", cutoff=CUTOFF)
    with pytest.raises(FileNotFoundError, match="no file .*absent.h5"):
        read(tmp_path / "absent.h5", cutoff=CUTOFF)


def test_h5py_is_optional(tmp_path, monkeypatch):
    path = flat(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ValueError, match="needs the package h5py.*pip install h5py"):
        read(path, cutoff=CUTOFF)


def test_no_labels(tmp_path):
    path = flat(tmp_path / "a.h5", energy=None, forces=None, stress=None, E=np.zeros(6))
    with pytest.raises(ValueError, match="has no labels.*there are the data sets E, cell"):
        read(path, cutoff=CUTOFF)
    assert len(read(path, cutoff=CUTOFF, labelled=False)) == 6
