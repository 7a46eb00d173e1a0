"""Databases of ASE, in their three formats, read row by row."""

import importlib.util
import os
import pickle
import sqlite3
import sys
import threading

import ase.build
import ase.db
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from equipoise.data import AseDatabase, Report, label_keys, read, write_mapped
from tests.data.made import CUTOFF, in_child, mixture, same

LMDB = all(importlib.util.find_spec(name) is not None for name in ("lmdb", "ase_db_backends"))
FORMATS = ["db", "json"] + ["aselmdb"] * LMDB
EV = {"hartree": 27.211386, "kcal/mol": 0.0433641}


def write(path, frames=None, **options):
    with ase.db.connect(path, use_lock_file=False) as database:
        for atoms in [g.to_ase()[0] for g in mixture()] if frames is None else frames:
            database.write(atoms, **options)
    return path


@pytest.mark.parametrize("suffix", FORMATS)
def test_rows_are_read_as_graphs(tmp_path, suffix):
    graphs = read(write(tmp_path / f"mixture.{suffix}"), cutoff=CUTOFF)
    assert isinstance(graphs, AseDatabase) and len(graphs) == 6
    # A molecule is centred, a crystal is not; everything else is as it was.
    for graph, other in zip(graphs, mixture(), strict=True):
        if not other.pbc.any():
            other = other.replace(positions=other.positions - other.positions.mean(dim=0))
        assert same(graph, other, exact=False)
    assert Report.of(graphs) == Report(6, 4, 4, 1)
    kinds = ("energy", "forces", "stress")
    assert label_keys(tmp_path / f"mixture.{suffix}") == {kind: kind for kind in kinds}
    assert [g.n_atoms for g in graphs[3:]] == [1, 2, 5]


@pytest.mark.parametrize("suffix", FORMATS)
def test_threads_and_processes_read_side_by_side(tmp_path, suffix):
    graphs = AseDatabase(write(tmp_path / f"mixture.{suffix}"), cutoff=CUTOFF)
    expected = [graph.n_edges for graph in graphs]
    found = []
    thread = threading.Thread(target=lambda: found.extend(g.n_edges for g in graphs))
    thread.start()
    thread.join()
    assert found == expected
    other = pickle.loads(pickle.dumps(graphs))  # a second one on the same file
    assert [g.n_edges for g in other] == expected

    def child():
        os._exit(0 if [g.n_edges for g in graphs] == expected else 1)

    assert in_child(child) == 0


@pytest.mark.parametrize("suffix", FORMATS)
def test_deleted_rows_leave_no_gap(tmp_path, suffix):
    path = write(tmp_path / f"mixture.{suffix}")
    ase.db.connect(path, use_lock_file=False).delete([2, 5])
    assert [g.n_atoms for g in AseDatabase(path, cutoff=CUTOFF)] == [3, 1, 1, 5]


@pytest.mark.parametrize("suffix", FORMATS)
def test_fixed_atoms_and_tags(tmp_path, suffix):
    slab = ase.build.fcc111("Al", (1, 1, 2), vacuum=6.0)
    slab.calc = SinglePointCalculator(slab, energy=-1.0, forces=np.ones((2, 3)))
    slab.set_constraint(FixAtoms([1]))
    path = write(tmp_path / f"slab.{suffix}", [slab])
    structure = AseDatabase(path, cutoff=CUTOFF).structure(0)
    assert structure.tags.tolist() == [2, 1] and structure.fixed.tolist() == [False, True]
    assert structure.forces.tolist() == [[1.0] * 3] * 2  # not zeroed by the constraint
    (free,) = AseDatabase(path, cutoff=CUTOFF, free_atoms_only=True)
    assert free.forces.isnan().all(dim=1).tolist() == [False, True]
    write_mapped(tmp_path / "slab", AseDatabase(path, cutoff=CUTOFF))
    again = read(tmp_path / "slab", cutoff=CUTOFF).structure(0)
    assert again.tags.tolist() == [2, 1] and again.fixed.tolist() == [False, True]


def test_labels_are_looked_for_in_their_order(tmp_path):
    water = ase.build.molecule("H2O")
    water.calc = SinglePointCalculator(water, energy=-1.0, forces=np.ones((3, 3)))
    path = tmp_path / "a.db"
    forces = np.full((3, 3), 2.0)
    write(path, [water], data={"REF_forces": forces, "ccsd": -3.0}, key_value_pairs={"dft": -2.0})
    assert label_keys(path) == {"forces": "REF_forces"}
    with pytest.warns(UserWarning, match="energy but no REF_energy in 1 of the 1"):
        (graph,) = read(path, cutoff=CUTOFF)
    assert graph.energy is None and graph.forces.tolist() == forces.tolist()
    (graph,) = read(path, cutoff=CUTOFF, energy_key="energy")
    assert float(graph.energy) == -1.0 and graph.forces.tolist() == forces.tolist()
    assert float(read(path, cutoff=CUTOFF, energy_key="dft")[0].energy) == -2.0
    assert float(read(path, cutoff=CUTOFF, energy_key="ccsd")[0].energy) == -3.0
    with pytest.raises(ValueError, match="energy key 'mp2'; the first row .*dft.*ccsd.*energy"):
        read(path, cutoff=CUTOFF, energy_key="mp2")


@pytest.mark.filterwarnings("ignore:.*no REF_energy")
def test_reference_labels_of_some_rows_are_those_of_all(tmp_path, monkeypatch):
    rows = []
    for number in range(5):
        water = ase.build.molecule("H2O")
        water.rattle(0.05, seed=number)
        water.calc = SinglePointCalculator(water, energy=-1.0)
        rows.append(water)
    path = tmp_path / "a.db"
    write(path, rows)
    database = ase.db.connect(path, use_lock_file=False)
    database.update(4, REF_energy=-10.0)
    graphs = read(path, cutoff=CUTOFF)
    assert [graph.energy is None for graph in graphs] == [True, True, True, False, True]
    monkeypatch.setattr("equipoise.data.remarks.LOOKED_AT", 2)
    graphs = AseDatabase(path, cutoff=CUTOFF)
    with pytest.raises(ValueError, match="structure 3 of .* has REF_ labels, which rows"):
        list(graphs)
    plain = AseDatabase(path, cutoff=CUTOFF, energy_key="energy", forces_key="forces")
    assert [float(graph.energy) for graph in plain] == [-1.0] * 5


def test_no_labels(tmp_path):
    path = write(tmp_path / "a.db", [ase.build.molecule("H2O")], key_value_pairs={"E_pbe": 1.0})
    with pytest.raises(ValueError, match="has no labels.*E_pbe.*energy_key"):
        read(path, cutoff=CUTOFF)
    assert len(read(path, cutoff=CUTOFF, labelled=False)) == 1


def test_units_of_the_metadata_are_converted(tmp_path):
    path = tmp_path / "schnet.db"
    data = {"energy": np.array([2.0]), "forces": np.ones((3, 3))}
    water = ase.build.molecule("H2O")
    water.positions /= 0.529177
    write(path, [water], data=data)
    database = ase.db.connect(path, use_lock_file=False)
    units = {"energy": "Hartree", "forces": "kcal/mol/Bohr"}
    database.metadata = {"_property_unit_dict": units, "_distance_unit": "Bohr"}
    (graph,) = read(path, cutoff=CUTOFF)
    assert float(graph.energy) == pytest.approx(2 * EV["hartree"], rel=1e-6)
    assert float(graph.forces[0, 0]) == pytest.approx(EV["kcal/mol"] / 0.529177, rel=1e-5)
    distance = np.linalg.norm(graph.positions[1] - graph.positions[0])
    assert distance == pytest.approx(ase.build.molecule("H2O").get_distance(0, 1), rel=1e-5)
    database.metadata = {"_property_unit_dict": {"energy": "Hartree"}}
    with pytest.raises(ValueError, match="must say the unit of forces, as .* energies .Hartree"):
        AseDatabase(path, cutoff=CUTOFF)[0]
    database.metadata = {"_property_unit_dict": {"energy": "furlong"}}
    with pytest.raises(ValueError, match="unknown unit of energy 'furlong'"):
        AseDatabase(path, cutoff=CUTOFF)[0]


# Refusals


def test_pickled_lmdb_is_never_opened(tmp_path):
    (tmp_path / "oc20.lmdb").write_bytes(b"whatever")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "data.mdb").write_bytes(b"whatever")
    for path in (tmp_path / "oc20.lmdb", folder):
        for function in (label_keys, lambda p: read(p, cutoff=CUTOFF)):
            with pytest.raises(ValueError, match="pickled Python objects.*never does.*extxyz"):
                function(path)


@pytest.mark.skipif(not LMDB, reason="needs ase-db-backends")
def test_a_pickle_under_another_name_is_not_loaded(tmp_path):
    lmdb = importlib.import_module("lmdb")

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    path = tmp_path / "oc20.aselmdb"
    with lmdb.open(str(path), subdir=False, map_size=2**20) as environment:
        with environment.begin(write=True) as transaction:
            for key in (b"nextid", b"1", b"0", b"length"):
                transaction.put(key, pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="cannot be read as an ASE database"):
        read(path, cutoff=CUTOFF)
    assert not (tmp_path / "sprung").exists()


def test_lmdb_needs_its_package(tmp_path, monkeypatch):
    (tmp_path / "a.aselmdb").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(ValueError, match="pip install lmdb"):
        read(tmp_path / "a.aselmdb", cutoff=CUTOFF)


def test_other_files_are_refused_and_left_alone(tmp_path):
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE mine (x REAL)")
    connection.close()
    before = foreign.read_bytes()
    (tmp_path / "text.db").write_text("no database at all, but longer than a header of one" * 9)
    (tmp_path / "text.json").write_text("{")
    (tmp_path / "cut.db").write_bytes(write(tmp_path / "whole.db").read_bytes()[:5000])
    for name in ("foreign.db", "text.db", "text.json", "cut.db"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as an ASE database"):
            list(read(tmp_path / name, cutoff=CUTOFF))
    assert foreign.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="no file .*absent.db"):
        read(tmp_path / "absent.db", cutoff=CUTOFF)
    with pytest.raises(ValueError, match="empty.db holds no structures"):
        path = write(tmp_path / "empty.db")
        ase.db.connect(path, use_lock_file=False).delete([1, 2, 3, 4, 5, 6])
        read(path, cutoff=CUTOFF)
