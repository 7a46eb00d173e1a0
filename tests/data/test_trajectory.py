"""`.npz` trajectories: layouts, units, missing labels, and files that are not what they seem."""

import io
import zipfile

import numpy as np
import pytest
import torch
from ase.build import molecule

from equipoise.data import Report, Subset, read_trajectory
from equipoise.data.sources.arrays import ArrayStructures, Joined
from equipoise.data.unit_check import all_electron_energy, check_unit, likely_unit
from equipoise.graph import Graph

KCAL = 0.0433641153  # eV
WATER = molecule("H2O")
ENERGY = -2080.0  # eV, about that of a water molecule


def frames(count=5, seed=0):
    """Positions (Å), energies (eV) and forces (eV/Å) of distorted water molecules."""
    rng = np.random.default_rng(seed)
    positions = WATER.positions + 0.05 * rng.normal(size=(count, 3, 3))
    return positions, ENERGY + rng.normal(size=count), rng.normal(size=(count, 3, 3))


def sgdml(path, *, scale=KCAL, **more):
    """A file as sGDML writes it, in units of ``scale`` eV."""
    positions, energies, forces = frames()
    arrays = {
        "z": WATER.numbers.astype(np.uint8),
        "R": positions,
        "E": energies[:, None] / scale,
        "F": forces / scale,
    }
    np.savez(path, **{key: value for key, value in (arrays | more).items() if value is not None})
    return path


def same(graphs, scale=1.0):
    positions, energies, forces = frames()
    for graph, r, e, f in zip(graphs, positions, energies, forces, strict=True):
        np.testing.assert_allclose(graph.positions, r - r.mean(axis=0), atol=1e-12)
        assert float(graph.energy) == pytest.approx(e, rel=1e-6)
        np.testing.assert_allclose(graph.forces, f, rtol=1e-6)
        assert graph.energy.dtype == torch.float64


def test_sgdml_layout_in_kcal(tmp_path):
    graphs = read_trajectory(sgdml(tmp_path / "w.npz"), cutoff=5.0, unit="kcal/mol")
    same(graphs)
    assert graphs.labels() == {"energy": "E", "forces": "F"}
    assert Report.of(graphs) == Report(5, 5, 5, 0)


def test_units_that_the_file_states_go_first(tmp_path):
    path = sgdml(tmp_path / "w.npz", scale=1.0, e_unit="eV", r_unit="Ang")
    same(read_trajectory(path, cutoff=5.0, unit="kcal/mol"))


def test_lengths_in_bohr(tmp_path):
    positions, energies, forces = frames()
    path = sgdml(
        tmp_path / "w.npz",
        R=positions / 0.529177210903,
        E=energies / 27.211386,
        F=forces / 27.211386 * 0.529177210903,
        e_unit=np.bytes_(b"Hartree"),
        r_unit="bohr",
    )
    same(read_trajectory(path, cutoff=5.0))


def test_total_energies_show_their_unit(tmp_path):
    for name, scale in (("kcal", KCAL), ("ev", 1.0)):
        path = sgdml(tmp_path / f"{name}.npz", scale=scale)
        same(read_trajectory(path, cutoff=5.0))


def test_forces_beside_energies_in_hartree_need_their_unit(tmp_path):
    path = sgdml(tmp_path / "ha.npz", scale=27.211386)  # forces per Å
    with pytest.raises(ValueError, match="--force-unit Hartree/bohr"):
        read_trajectory(path, cutoff=5.0)
    same(read_trajectory(path, cutoff=5.0, force_unit="Hartree/Å"))
    per_bohr = read_trajectory(path, cutoff=5.0, force_unit="Hartree/bohr")[0].forces
    per_length = read_trajectory(path, cutoff=5.0, force_unit="Hartree/Å")[0].forces
    torch.testing.assert_close(per_bohr, per_length / 0.52917721, rtol=1e-6, atol=0)
    same(
        read_trajectory(sgdml(tmp_path / "f.npz", scale=27.211386, f_unit="Hartree/Å"), cutoff=5.0)
    )
    same(read_trajectory(sgdml(tmp_path / "r.npz", scale=27.211386, r_unit="Ang"), cutoff=5.0))


def test_contradicting_units_are_refused(tmp_path):
    path = sgdml(tmp_path / "w.npz", e_unit="eV")
    with pytest.raises(ValueError, match="w.npz must be in eV, but .* in kcal/mol.*0.0433641 eV"):
        read_trajectory(path, cutoff=5.0)
    path = sgdml(tmp_path / "v.npz", scale=1.0)
    with pytest.raises(ValueError, match="must be in kcal/mol, but .* in eV"):
        read_trajectory(path, cutoff=5.0, unit="kcal/mol")


def test_energies_that_say_nothing_need_a_unit(tmp_path):
    _, energies, _ = frames()
    path = sgdml(tmp_path / "w.npz", E=energies - ENERGY)
    with pytest.raises(ValueError, match="does not say in which unit.*give the unit"):
        read_trajectory(path, cutoff=5.0)
    assert len(read_trajectory(path, cutoff=5.0, unit="eV")) == 5
    with pytest.raises(ValueError, match="unknown unit.*'ev/mol'.*did you mean"):
        read_trajectory(path, cutoff=5.0, unit="ev/mol")


def test_pickled_names_do_no_harm(tmp_path):
    """Old writers pickled their strings; they are not read, and the numbers are."""
    path = sgdml(tmp_path / "w.npz", theory=np.array({"a": 1}, dtype=object), e_unit="kcal/mol")
    same(read_trajectory(path, cutoff=5.0))


def test_deepmd_layout_is_periodic(tmp_path):
    positions, energies, forces = frames()
    box = np.broadcast_to(7.0 * np.eye(3), (5, 3, 3)).astype(np.float32)
    np.savez(
        tmp_path / "w.npz",
        z=WATER.numbers,
        coord=positions,
        energy=energies,
        force=forces,
        box=box,
    )
    graphs = read_trajectory(tmp_path / "w.npz", cutoff=3.0)
    assert graphs[2].pbc.all() and float(graphs[2].volume) == pytest.approx(343.0)
    # A crystal stays where it is.
    np.testing.assert_allclose(graphs[2].positions, positions[2], atol=1e-12)


def test_sgdml_layout_with_a_cell(tmp_path):
    path = sgdml(
        tmp_path / "w.npz",
        scale=1.0,
        cell=np.broadcast_to(7.0 * np.eye(3), (5, 3, 3)),
        pbc=np.array([1, 1, 0]),
    )
    graph = read_trajectory(path, cutoff=3.0)[0]
    assert graph.pbc.tolist() == [[True, True, False]]


# Missing and wrong numbers


def test_nan_labels_are_missing_labels(tmp_path):
    _, energies, forces = frames()
    energies[1], forces[2] = np.nan, np.nan
    forces[3, 1] = np.nan  # one atom
    path = sgdml(tmp_path / "w.npz", E=energies, F=forces, e_unit="eV")
    graphs = read_trajectory(path, cutoff=5.0)
    assert Report.of(graphs) == Report(structures=5, energy=4, forces=4, stress=0)
    assert graphs[1].energy is None and graphs[2].forces is None
    assert graphs[3].forces.isnan().any(dim=1).tolist() == [False, True, False]


def test_no_forces_at_all(tmp_path):
    graphs = read_trajectory(sgdml(tmp_path / "w.npz", F=None), cutoff=5.0)
    assert Report.of(graphs) == Report(structures=5, energy=5, forces=0, stress=0)
    assert graphs.labels() == {"energy": "E"}


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("R", lambda a: a[:, :2], r"'R' must|positions must have shape \(5, 3, 3\)"),
        ("R", lambda a: a[0], r"'R' must have shape \[frames, atoms, 3\]"),
        ("F", lambda a: a[:4], r"forces must have shape \(5, 3, 3\), received \(4, 3, 3\)"),
        ("E", lambda a: a[:3], r"energies must have shape \(5,\), received \(3, 1\)"),
        ("E", lambda a: a.astype("U20"), "energies must be numbers, received type <U20"),
        ("z", lambda a: a[:2], r"positions must have shape \(5, 2, 3\)"),
        ("z", lambda a: a.astype("U2"), "must be atomic numbers, received type <U2"),
        ("z", lambda a: a * 0, "atomic numbers from 1 to 118, received 0 to 0"),
        ("R", lambda a: np.where(a == a[3, 1, 1], np.nan, a), "structure 3 of .*finite"),
        ("F", lambda a: np.where(a == a[2, 0, 0], np.inf, a), "structure 2 of .*infinity"),
        ("E", lambda a: np.where(a == a[4], -np.inf, a), "structure 4 of .*infinity"),
        ("R", lambda a: a[:0], "must have shape|holds no structures"),
    ],
)
def test_wrong_arrays(tmp_path, key, change, message):
    good = sgdml(tmp_path / "good.npz", e_unit="kcal/mol")
    with np.load(good, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays[key] = change(arrays[key])
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        read_trajectory(tmp_path / "bad.npz", cutoff=5.0)


def test_a_bad_structure_is_named_when_it_is_asked_for():
    positions, _, _ = frames()
    positions[3, 2] = positions[3, 1]
    graphs = ArrayStructures(origin="w.npz", cutoff=5.0, positions=positions, species=WATER.numbers)
    assert graphs[2].n_atoms == 3
    with pytest.raises(ValueError, match="structure 3 of w.npz: .*atoms 1 and 2"):
        graphs[3]


@pytest.mark.parametrize("key", ["R", "E", "F", "z"])
def test_pickled_arrays_are_refused(tmp_path, key):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    array = np.array([Evil()], dtype=object)
    path = sgdml(tmp_path / "w.npz", **{key: array})
    with pytest.raises(ValueError, match="pickled Python object.*refused"):
        read_trajectory(path, cutoff=5.0)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.95])
def test_truncated(tmp_path, fraction):
    path = sgdml(tmp_path / "w.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(ValueError, match="w.npz is not a readable .npz"):
        read_trajectory(path, cutoff=5.0)


def test_damaged_inside(tmp_path):
    path = sgdml(tmp_path / "w.npz")
    data = bytearray(path.read_bytes())
    middle = data.find(b"R.npy") + 300
    data[middle : middle + 40] = b"\xff" * 40
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        read_trajectory(path, cutoff=5.0)


def test_files_that_would_fill_the_memory(tmp_path, monkeypatch):
    positions = np.zeros((20_000, 3, 3))
    np.savez_compressed(tmp_path / "w.npz", z=WATER.numbers, R=positions)
    monkeypatch.setattr("equipoise.data.sources.npz.ALWAYS_ALLOWED", 100_000)
    with pytest.raises(ValueError, match="'R' in .* is refused: .* that unpack to 1,440,1"):
        read_trajectory(tmp_path / "w.npz", cutoff=5.0)
    # Announced in the header of the array, whatever follows.
    with zipfile.ZipFile(tmp_path / "large.npz", "w") as archive:
        header = io.BytesIO()
        shape = {"descr": "<f8", "fortran_order": False, "shape": (1 << 45, 3, 3)}
        np.lib.format.write_array_header_1_0(header, shape)
        archive.writestr("R.npy", header.getvalue())
        np.lib.format.write_array(header := io.BytesIO(), WATER.numbers)
        archive.writestr("z.npy", header.getvalue())
    with pytest.raises(ValueError, match="'R' in .*large.npz"):
        read_trajectory(tmp_path / "large.npz", cutoff=5.0)


def test_other_files(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.zeros(3))
    with pytest.raises(ValueError, match="lacks nuclear_charges or z.*it holds a"):
        read_trajectory(tmp_path / "w.npz", cutoff=5.0)
    with pytest.raises(FileNotFoundError, match="no file .*absent.npz"):
        read_trajectory(tmp_path / "absent.npz", cutoff=5.0)


# Structures of different size, and several sets in a row


def several(**more):
    methane, water = molecule("CH4"), molecule("H2O")
    arrays = {
        "positions": np.concatenate([methane.positions, water.positions]),
        "species": np.concatenate([methane.numbers, water.numbers]),
        "offsets": np.array([0, 5, 8]),
        "energy": np.array([-1.0, -2.0]),
        "forces": np.arange(24.0).reshape(8, 3),
    }
    return ArrayStructures(origin="memory", cutoff=5.0, **(arrays | more))


def test_structures_of_different_size():
    graphs = several(energy_unit=2.0, length_unit=2.0)
    assert [g.n_atoms for g in graphs] == [5, 3]
    assert graphs[1].species.tolist() == [8, 1, 1]
    assert [float(g.energy) for g in graphs] == [-2.0, -4.0]
    assert graphs[1].forces[0].tolist() == [15.0, 16.0, 17.0]  # energy / length
    assert Report.of(graphs) == Report(2, 2, 2, 0)
    with pytest.raises(ValueError, match="offsets must rise from 0 to the 8 atoms"):
        several(offsets=np.array([0, 8, 8]))
    with pytest.raises(ValueError, match="stress must have shape"):
        several(stress=np.zeros((2, 3)))


def test_joined_sets():
    one, other = several(), several(energy=np.array([7.0, np.nan]))
    joined = Joined([one, Subset(other, [1, 0]), [one[0]]])
    assert len(joined) == 5
    energies = [None if g.energy is None else float(g.energy) for g in joined]
    assert energies == [-1.0, -2.0, None, 7.0, -1.0]
    assert [g.n_atoms for g in joined[1:4]] == [3, 3, 5]
    assert joined[-1].n_atoms == 5 and isinstance(joined[0], Graph)
    assert Report.of(joined) == Report(structures=5, energy=4, forces=5, stress=0)
    with pytest.raises(IndexError):
        joined[5]
    assert joined.edge_counts().tolist() == [graph.n_edges for graph in joined] and joined.counted()


# What energies say of their unit


@pytest.mark.parametrize(
    ("name", "hartree"),
    [("H2O", -76.4), ("CH4", -40.5), ("N2", -109.5), ("CH3CH2OH", -154.7), ("H2", -1.17), ("C6H6", -231.8)],
)  # fmt: skip
def test_estimate_of_total_energies(name, hartree):
    atoms = molecule(name)
    estimate = all_electron_energy(atoms.numbers) / 27.211386
    assert estimate == pytest.approx(hartree, rel=0.02 if name != "H2" else 0.1)
    for unit, factor in (("Hartree", 1.0), ("eV", 27.211386), ("kcal/mol", 627.5095)):
        assert likely_unit([(atoms.numbers, hartree * factor)]) == unit


def test_energies_of_other_kinds_say_nothing():
    water = WATER.numbers
    for energy in (-14.2, -470.0, -138.0, 0.0, 3.0, -9.5):  # VASP, pseudopotential, xTB, ...
        assert likely_unit([(water, energy)]) is None
    assert likely_unit([(water, -76.4), (water, -2079.0)]) is None  # they do not agree
    with pytest.raises(ValueError, match="here must all be in one unit, .* in Hartree and in eV"):
        check_unit("eV", [(water, -2079.0), (water, -76.4)], where="here")
    check_unit("eV", [(water, -2079.0), (water, -76.4), (water, -14.2)], where="here")
    check_unit("eV", [(water, -14.2)], where="here")
    check_unit("eV", [(water, -2079.0)], where="here")
    check_unit("hartree", [(water, -76.4)], where="here")
    with pytest.raises(ValueError, match="here must be in eV, but .* in Hartree"):
        check_unit("eV", [(water, -76.4)], where="here")
