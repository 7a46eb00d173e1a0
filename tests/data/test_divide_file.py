"""Files divided without leaks; structures written as text; and what may not be mixed."""

import json

import ase.io
import numpy as np
import pytest
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from equipoise.data import MappedStructures, Report, check_energies, one_theory, read, write_mapped
from equipoise.data.divide_file import divide_file
from equipoise.data.extxyz import write_extxyz
from equipoise.data.inputs import open_input
from equipoise.data.provenance import theories_of
from equipoise.data.structures import Structure
from equipoise.data.survey import geometry_key
from equipoise.graph import Graph


def frames(count, seed=0, name="H2O", energy=-14.0, **info):
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        atoms = molecule(name)
        atoms.rattle(0.05, rng=rng)
        atoms.info |= {"number": number, **{k: v(number) for k, v in info.items()}}
        atoms.info["REF_energy"] = energy + rng.normal()
        atoms.arrays["REF_forces"] = rng.normal(size=(len(atoms), 3))
        found.append(atoms)
    return found


def write(path, atoms):
    ase.io.write(path, atoms, format="extxyz")
    return path


def parts(folder):
    return {
        name: ase.io.read(folder / f"{name}.extxyz", index=":")
        for name in ("train", "validation", "test")
        if (folder / f"{name}.extxyz").exists()
    }


def keys(some):
    return {geometry_key(Structure(positions=a.positions, species=a.numbers)) for a in some}


def test_random_parts_are_copies_of_the_frames(tmp_path):
    path = write(tmp_path / "all.extxyz", frames(40))
    done = divide_file(path, tmp_path / "parts", train=0.5, validation=6)
    assert done.counts == {"train": 20, "validation": 6, "test": 14} and done.left_out == 0
    whole = path.read_text()
    for name in done.counts:
        text = (tmp_path / "parts" / f"{name}.extxyz").read_text()
        for frame in text.split("3\nProperties")[1:]:
            assert frame in whole, "digit for digit, with all that it says"
    found = parts(tmp_path / "parts")
    numbers = sorted(a.info["number"] for some in found.values() for a in some)
    assert numbers == list(range(40))
    record = json.loads((tmp_path / "parts" / "split.json").read_text())
    assert record["rows"]["train"] == [a.info["number"] for a in found["train"]]
    assert record["seed"] == 0 and record["by"] == "random"


def test_another_seed_another_split(tmp_path):
    path = write(tmp_path / "all.extxyz", frames(40))
    read_rows = []
    for number, seed in enumerate((0, 0, 1)):
        divide_file(path, tmp_path / str(number), train=20, validation=5, seed=seed)
        read_rows.append(json.loads((tmp_path / str(number) / "split.json").read_text())["rows"])
    assert read_rows[0] == read_rows[1] != read_rows[2]


def test_equal_geometries_stay_together(tmp_path):
    some = frames(12)
    path = write(tmp_path / "all.extxyz", [*some, *some, *some])
    done = divide_file(path, tmp_path / "parts", train=18, validation=6)
    found = {name: keys(part) for name, part in parts(tmp_path / "parts").items()}
    assert not (found["train"] & found["validation"] | found["train"] & found["test"])
    assert sum(done.counts.values()) == 36 and done.groups == 12


def test_blocks_of_a_trajectory(tmp_path):
    some = frames(40)
    some[39] = some[0]  # the same geometry at both ends
    path = write(tmp_path / "all.extxyz", some)
    done = divide_file(path, tmp_path / "parts", train=20, validation=10, by="blocks:10")
    rows = json.loads((tmp_path / "parts" / "split.json").read_text())["rows"]
    for part in rows.values():
        whole = {row // 10 for row in part}
        assert len(part) in (10 * len(whole), 10 * len(whole) - 1)
    blocks = {name: {row // 10 for row in part} for name, part in rows.items()}
    assert not blocks["train"] & blocks["test"] and not blocks["train"] & blocks["validation"]
    together = any({0, 39} <= set(part) for part in rows.values())
    assert done.left_out == (0 if together else 1)
    found = parts(tmp_path / "parts")
    assert not keys(found["train"]) & (keys(found["test"]) | keys(found["validation"]))


def test_groups_by_formula_and_by_key(tmp_path):
    some = frames(10) + frames(10, name="CH4", seed=1) + frames(10, name="NH3", seed=2)
    for number, atoms in enumerate(some):
        atoms.info["config_type"] = "abcdef"[number // 5]
    path = write(tmp_path / "all.extxyz", some)
    divide_file(path, tmp_path / "formula", train=10, validation=10, by="formula")
    for part in parts(tmp_path / "formula").values():
        assert len({str(a.symbols) for a in part}) == 1
    divide_file(path, tmp_path / "key", train=15, validation=5, by="config_type")
    found = [{a.info["config_type"] for a in part} for part in parts(tmp_path / "key").values()]
    assert sum(map(len, found)) == 6
    with pytest.raises(ValueError, match="received 'molID'; structure 0 has no such key"):
        divide_file(path, tmp_path / "none", train=15, validation=5, by="molID")


def test_other_formats_become_text(tmp_path):
    positions = molecule("H2O").positions + 0.05 * np.random.default_rng(0).normal(size=(20, 3, 3))
    energies = -14.0 + np.arange(20.0)
    np.savez(tmp_path / "w.npz", z=[8, 1, 1], R=positions, E=energies, e_unit="eV", theory="PBE/x")
    done = divide_file(tmp_path / "w.npz", tmp_path, train=10, validation=5)
    found = parts(tmp_path)
    assert sorted(a.get_potential_energy() for part in found.values() for a in part) == sorted(
        energies
    )
    assert theories_of(done.files["test"]) == ("PBE/x",)
    with pytest.raises(ValueError, match="only extxyz has keys"):
        divide_file(tmp_path / "w.npz", tmp_path / "x", train=10, validation=5, by="config_type")


def test_no_part_of_a_file_with_reference_labels_is_without(tmp_path):
    """Plain labels, of another method, would be read of such a part."""
    some = frames(10)
    for atoms in some[:5]:
        atoms.info["energy"] = atoms.info.pop("REF_energy")
        atoms.arrays.pop("REF_forces")
    path = write(tmp_path / "some.extxyz", some)
    with pytest.raises(
        ValueError, match="REF_ labels must have some.*(train|validation) would have none"
    ):
        divide_file(path, tmp_path, train=5, validation=5, by="blocks:5")
    assert not (tmp_path / "train.extxyz").exists()


def test_existing_parts_are_not_overwritten(tmp_path):
    path = write(tmp_path / "all.extxyz", frames(10))
    (tmp_path / "test.extxyz").write_text("precious")
    with pytest.raises(FileExistsError, match="test.extxyz exists"):
        divide_file(path, tmp_path, train=5, validation=2)
    assert (tmp_path / "test.extxyz").read_text() == "precious"
    assert not (tmp_path / "train.extxyz").exists(), "all or none"
    divide_file(path, tmp_path, train=5, validation=2, overwrite=True)
    assert len(read(tmp_path / "test.extxyz", cutoff=3.0)) == 3


def test_no_test_structures_left(tmp_path):
    path = write(tmp_path / "all.extxyz", frames(10))
    done = divide_file(path, tmp_path / "parts", train=7, validation=3)
    assert done.counts["test"] == 0 and set(done.files) == {"train", "validation"}
    with pytest.raises(ValueError, match="11 in all, but there are only 10"):
        divide_file(path, tmp_path / "more", train=8, validation=3)


def test_parts_of_two_splits_do_not_stand_beside_each_other(tmp_path):
    path = write(tmp_path / "all.extxyz", frames(10))
    divide_file(path, tmp_path / "parts", train=5, validation=2)
    with pytest.raises(FileExistsError, match="test.extxyz exists, but this split leaves nothing"):
        divide_file(path, tmp_path / "parts", train=8, validation=2)
    divide_file(path, tmp_path / "parts", train=8, validation=2, overwrite=True)
    assert set(parts(tmp_path / "parts")) == {"train", "validation"}


def test_a_file_is_not_replaced_by_its_own_part(tmp_path):
    path = write(tmp_path / "train.extxyz", frames(10))
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="replaced by one of its own parts"):
        divide_file(path, tmp_path, train=5, validation=2, overwrite=True)
    assert path.read_bytes() == whole


# Text


def test_what_is_written_is_read_again(tmp_path):
    slab = fcc111("Cu", size=(2, 2, 2), vacuum=6.0)
    add_adsorbate(slab, "H", height=1.0)
    slab.info, slab.pbc = {}, True
    slab.set_tags([0] * 4 + [1] * 4 + [2])
    slab.set_constraint(FixAtoms(mask=slab.get_tags() == 0))
    forces = np.random.default_rng(0).normal(size=(9, 3))
    slab.calc = SinglePointCalculator(slab, energy=-30.0, forces=forces, stress=np.arange(6) / 100)
    structure = Structure.from_ase(slab, {})
    held = structure.free()
    lone = Structure(positions=np.zeros((1, 3)), species=np.array([1]), energy=-13.6)
    graphs = [held.graph(4.0), lone.graph(4.0)]
    count = write_extxyz(tmp_path / "a.extxyz", graphs, about={"theory": 'PBE "hard"/x'})
    assert count == 2 and [p.name for p in tmp_path.iterdir()] == ["a.extxyz"]
    again = read(tmp_path / "a.extxyz", cutoff=4.0)
    np.testing.assert_allclose(again[0].forces[4:], forces[4:], atol=1e-7)
    assert again[0].forces[:4].isnan().all()
    np.testing.assert_allclose(again[0].stress[0], np.arange(6) / 100, atol=1e-7)
    assert again[1].forces is None and float(again[1].energy) == -13.6
    with pytest.raises(FileExistsError, match="a.extxyz exists"):
        write_extxyz(tmp_path / "a.extxyz", graphs)


def test_a_failure_leaves_nothing_behind(tmp_path):
    def broken():
        yield Graph.build(np.zeros((1, 3)), np.array([1]), cutoff=4.0, energy=-1.0)
        raise ValueError("structure 1 is none")

    with pytest.raises(ValueError, match="structure 1 is none"):
        write_extxyz(tmp_path / "a.extxyz", broken())
    with pytest.raises(ValueError, match="no structures to write"):
        write_extxyz(tmp_path / "a.extxyz", [])
    assert list(tmp_path.iterdir()) == []


def slab(number):
    """Copper with two held layers, tags, and more to say than a Structure can hold."""
    atoms = fcc111("Cu", size=(1, 1, 3), vacuum=6.0)
    atoms.rattle(0.05, seed=number)
    atoms.info = {"config_type": f"bulk{number % 2}", "charge": 1}
    atoms.pbc = True
    atoms.set_tags([0, 1, 2])
    atoms.set_constraint(FixAtoms([0, 1]))
    forces = np.random.default_rng(number).normal(size=(3, 3))
    atoms.calc = SinglePointCalculator(atoms, energy=-10.0 - number, forces=forces)
    return atoms


def test_frames_of_extxyz_keep_what_they_say(tmp_path):
    path = write(tmp_path / "a.extxyz", [slab(number) for number in range(4)])
    given = open_input(str(path), cutoff=3.0)
    assert "".join(given.text(row) for row in range(4)) == path.read_text()
    structure = given.graphs.structure(1)
    assert structure.fixed.tolist() == [True, True, False] and structure.tags.tolist() == [0, 1, 2]
    assert given.left_behind() == {"charge", "config_type"}
    write_mapped(tmp_path / "mapped", given.graphs)
    forces = MappedStructures(tmp_path / "mapped", cutoff=3.0, free_atoms_only=True)[1].forces
    assert forces.isnan().all(dim=1).tolist() == [True, True, False]


def test_labels_under_other_names_get_the_usual_ones(tmp_path):
    frames = [slab(number) for number in range(2)]
    for atoms in frames:
        atoms.info |= {"dft_energy": -20.0, "REF_energy": -1.0}
        atoms.arrays["dft_forces"] = np.full((3, 3), 0.25)
    path = write(tmp_path / "a.extxyz", frames)
    given = open_input(str(path), cutoff=3.0, energy_key="dft_energy", forces_key="dft_forces")
    (tmp_path / "b.extxyz").write_text(given.text(0))
    (graph,) = read(tmp_path / "b.extxyz", cutoff=3.0)
    assert float(graph.energy) == -20.0 and (graph.forces == 0.25).all()
    again = ase.io.read(tmp_path / "b.extxyz")
    assert again.info == {"config_type": "bulk0", "charge": 1}
    assert again.get_tags().tolist() == [0, 1, 2] and len(again.constraints) == 1
    np.testing.assert_allclose(again.positions, frames[0].positions, atol=1e-7)


def test_forces_under_an_unknown_name_are_pointed_at(tmp_path):
    frames = [slab(0)]
    frames[0].calc.results.pop("forces")
    frames[0].arrays["dft_forces"] = np.ones((3, 3))
    path = write(tmp_path / "a.extxyz", frames)
    with pytest.warns(UserWarning, match="is it one of dft_forces"):
        open_input(str(path), cutoff=3.0)
    del frames[0].arrays["dft_forces"]
    frames[0].calc = None
    write(path, frames)
    with pytest.raises(ValueError, match="has no labels.*found are charge, config_type"):
        open_input(str(path), cutoff=3.0)
    path.write_text("")
    with pytest.raises(ValueError, match="a.extxyz holds no structures"):
        open_input(str(path), cutoff=3.0)


# What may be learned together


def test_theories_of_files(tmp_path):
    graphs = [Graph.build(np.zeros((1, 3)), np.array([1]), cutoff=4.0, energy=-1.0)]
    for name, theory in (("a", "PBE/def2-SVP (ORCA)"), ("b", "CCSD(T)"), ("c", None)):
        write_extxyz(tmp_path / f"{name}.xyz", graphs, about={"theory": theory} if theory else {})
    write_mapped(tmp_path / "d", graphs, info={"theory": "CCSD(T)"})
    np.savez(tmp_path / "e.npz", theory="PBE/def2-SVP (ORCA)")
    a, b, c, d, e = (tmp_path / name for name in ("a.xyz", "b.xyz", "c.xyz", "d", "e.npz"))
    assert [theories_of(path) for path in (a, b, c, d, e)] == [
        ("PBE/def2-SVP (ORCA)",),
        ("CCSD(T)",),
        (),
        ("CCSD(T)",),
        ("PBE/def2-SVP (ORCA)",),
    ]
    assert one_theory([a, c, e]) == "PBE/def2-SVP (ORCA)" and one_theory([c]) is None
    with pytest.raises(ValueError, match=r"a.xyz: PBE/def2-SVP \(ORCA\); .*b.xyz: CCSD\(T\)"):
        one_theory([a, b])
    with a.open("a") as file:
        file.write(b.read_text())
    with pytest.raises(ValueError, match="of one level of theory, received 2"):
        one_theory([a])


def test_energies_in_kcal_are_refused():
    def water(energy):
        return [
            Graph.build(m.positions, m.numbers, cutoff=3.0, energy=energy + 0.1 * i)
            for i in range(5)
            if (m := molecule("H2O"))
        ]

    check_energies(water(-2080.0), where="here")
    check_energies(water(-14.0), where="here")
    with pytest.raises(ValueError, match="energies of here must be in eV, but .* in kcal/mol"):
        check_energies(water(-47_950.0), where="here")


def test_inputs_by_any_name(tmp_path):
    path = write(tmp_path / "a.extxyz", frames(4))
    given = open_input(str(path), cutoff=3.0)
    assert Report.of(given.graphs).forces == 4 and given.labels["energy"] == "REF_energy"
    assert given.file == path and given.theory is None
    with pytest.raises(FileNotFoundError, match="no file 'rmd18:ethanol', and no data set"):
        open_input("rmd18:ethanol", cutoff=3.0)
    with pytest.raises(ValueError, match="part must be one of train, validation, test"):
        open_input("rmd17:ethanol", cutoff=2.0, part="valid")
    with pytest.raises(ValueError, match="only taken for an .npz"):
        open_input(str(path), cutoff=3.0, unit="kcal/mol")
    for option in ({"part": "test"}, {"folder": tmp_path}, {"target": "U0"}, {"split": 1}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} is of a published data set"):
            open_input(str(path), cutoff=3.0, **option)
    for option in ({"energy_key": "e"}, {"forces_key": "f"}, {"unit": "Hartree"}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} is of a file, received"):
            open_input("rmd17:ethanol", cutoff=2.0, **option)
    with pytest.raises(ValueError, match="MD22 has no numbered splits, received split 4"):
        open_input("md22:DHA", cutoff=2.0, split=4)
    write(path, frames(4, energy=-47_950.0))
    with pytest.raises(ValueError, match="a.extxyz must be in eV, but .* in kcal/mol"):
        open_input(str(path), cutoff=3.0)
