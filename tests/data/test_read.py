"""Files that ASE reads: which labels are found, and what is refused."""

import warnings

import ase.build
import ase.io
import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from equipoise.data import Report, label_keys, read
from equipoise.data.inputs import open_input
from equipoise.data.sources.extxyz_frames import ExtxyzFrames
from equipoise.graph import batch


def labelled(number=3, kinds=("energy", "forces"), periodic=False):
    """Slightly different structures, labels as single-point results."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(number):
        if periodic:
            atoms = ase.build.bulk("Cu", cubic=True)
        else:
            atoms = ase.build.molecule("H2O")
        atoms.rattle(0.05, rng=rng)
        results = {
            "energy": rng.normal(),
            "forces": rng.normal(size=(len(atoms), 3)),
            "stress": rng.normal(size=6),
        }
        atoms.calc = SinglePointCalculator(atoms, **{k: results[k] for k in kinds})
        frames.append(atoms)
    return frames


def results_as_ref(frames, energy="REF_energy", forces="REF_forces"):
    """Move the results to named keys, as MACE-style training files have them."""
    for atoms in frames:
        atoms.info[energy] = atoms.calc.results["energy"]
        atoms.arrays[forces] = atoms.calc.results["forces"]
        atoms.calc = None
    return frames


def write(path, frames):
    ase.io.write(path, frames, format="extxyz")
    return path


def test_plain_keys(tmp_path):
    frames = labelled()
    graphs = read(write(tmp_path / "plain.xyz", frames), cutoff=5.0)
    text = (tmp_path / "plain.xyz").read_text()
    assert " energy=" in text and ":forces:R:3" in text
    assert Report.of(graphs) == Report(structures=3, energy=3, forces=3, stress=0)
    for graph, atoms in zip(graphs, frames, strict=True):
        assert float(graph.energy) == pytest.approx(atoms.calc.results["energy"])
        np.testing.assert_allclose(graph.forces, atoms.calc.results["forces"], atol=1e-7)


def test_ref_keys(tmp_path):
    frames = labelled()
    energies = [atoms.get_potential_energy() for atoms in frames]
    path = write(tmp_path / "ref.xyz", results_as_ref(frames))
    graphs = read(path, cutoff=5.0)
    assert [float(g.energy) for g in graphs] == pytest.approx(energies)
    assert Report.of(graphs).forces == 3


def test_explicit_keys(tmp_path):
    frames = results_as_ref(labelled(), energy="dft_energy", forces="dft_forces")
    path = write(tmp_path / "dft.xyz", frames)
    graphs = read(path, cutoff=5.0, energy_key="dft_energy", forces_key="dft_forces")
    assert Report.of(graphs) == Report(structures=3, energy=3, forces=3, stress=0)


def test_stress_is_read_with_the_sign_of_ase(tmp_path):
    frames = labelled(kinds=("energy", "forces", "stress"), periodic=True)
    graphs = read(write(tmp_path / "cu.xyz", frames), cutoff=3.0)
    assert Report.of(graphs).stress == 3
    for graph, atoms in zip(graphs, frames, strict=True):
        np.testing.assert_allclose(graph.stress[0], atoms.get_stress(), atol=1e-7)
        assert graph.pbc.all()


def test_molecules_are_centred_and_crystals_are_not(tmp_path):
    frames = labelled(2)
    for atoms in frames:
        atoms.positions += 200.0
    for graph in read(write(tmp_path / "far.xyz", frames), cutoff=5.0):
        assert float(graph.positions.mean(dim=0).abs().max()) < 1e-12
    crystals = labelled(2, periodic=True)
    graphs = read(write(tmp_path / "cu.xyz", crystals), cutoff=3.0)
    for graph, atoms in zip(graphs, crystals, strict=True):
        np.testing.assert_allclose(graph.positions, atoms.positions, atol=1e-7)


def test_ase_trajectory_is_read_too(tmp_path):
    ase.io.write(tmp_path / "run.traj", labelled())
    assert Report.of(read(tmp_path / "run.traj", cutoff=5.0)).forces == 3


# What is found, and what is not


def test_report_counts_each_kind(tmp_path):
    frames = labelled(2) + labelled(1, kinds=("energy",)) + labelled(1, kinds=())
    graphs = read(write(tmp_path / "mixed.xyz", frames), cutoff=5.0)
    expected = Report(structures=4, energy=3, forces=2, stress=0)
    assert Report.of(graphs) == expected
    assert Report.of([batch(graphs)]) == expected
    assert str(expected) == "4 structures: 3 with energy, 2 with forces, 0 with stress"


def test_no_labels_at_all(tmp_path):
    frames = results_as_ref(labelled(), energy="E_pbe", forces="F_pbe")
    path = write(tmp_path / "hidden.xyz", frames)
    with pytest.raises(ValueError, match="has no labels.*E_pbe.*F_pbe.*energy_key"):
        read(path, cutoff=5.0)
    graphs = read(path, cutoff=5.0, labelled=False)
    assert Report.of(graphs) == Report(structures=3, energy=0, forces=0, stress=0)


def test_explicit_key_that_is_not_there(tmp_path):
    path = write(tmp_path / "plain.xyz", labelled())
    with pytest.raises(ValueError, match="forces key 'dft_forces'; found .*energy"):
        read(path, cutoff=5.0, forces_key="dft_forces")


def test_forces_under_an_unknown_name_are_pointed_out(tmp_path):
    frames = results_as_ref(labelled(), energy="REF_energy", forces="dft_forces")
    path = write(tmp_path / "half.xyz", frames)
    with pytest.warns(UserWarning, match="no forces under a known name.*dft_forces"):
        graphs = read(path, cutoff=5.0)
    assert Report.of(graphs).energy == 3


# Refusals


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file .*absent.xyz"):
        read(tmp_path / "absent.xyz", cutoff=5.0)


def test_truncated_file(tmp_path):
    path = write(tmp_path / "cut.xyz", labelled())
    path.write_text(path.read_text()[:-150])
    with pytest.raises(ValueError, match="ASE cannot read .*cut.xyz"):
        read(path, cutoff=5.0)


def test_unknown_format(tmp_path):
    (tmp_path / "notes.abc").write_text("these are not atoms")
    with pytest.raises(ValueError, match="ASE cannot read"):
        read(tmp_path / "notes.abc", cutoff=5.0)


def test_empty_file(tmp_path):
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(ValueError, match="empty.xyz"):
        read(tmp_path / "empty.xyz", cutoff=5.0)


def test_npz_in_any_of_its_layouts(tmp_path):
    path = tmp_path / "water.npz"
    atoms = ase.build.molecule("H2O")
    np.savez(
        path,
        nuclear_charges=atoms.numbers,
        coords=atoms.positions[None],
        energies=np.array([-23.06]),
        forces=np.zeros((1, 3, 3)),
    )
    (graph,) = read(path, cutoff=5.0)
    assert float(graph.energy) == pytest.approx(-1.0, rel=1e-3)  # from kcal/mol
    assert label_keys(path) == {"energy": "energies", "forces": "forces"}
    np.savez(
        tmp_path / "sgdml.npz", z=atoms.numbers, R=atoms.positions[None], E=[-1.0], e_unit="eV"
    )
    (graph,) = read(tmp_path / "sgdml.npz", cutoff=5.0)
    assert float(graph.energy) == -1.0 and graph.forces is None
    assert label_keys(tmp_path / "sgdml.npz") == {"energy": "E"}
    with pytest.raises(ValueError, match="have fixed names, received energy_key 'E'"):
        read(path, cutoff=5.0, energy_key="E")
    np.savez(tmp_path / "some.npz", coords=np.zeros((1, 3)))
    with pytest.raises(ValueError, match="some.npz lacks nuclear_charges"):
        read(tmp_path / "some.npz", cutoff=5.0)


def test_keys_that_labels_came_from(tmp_path):
    plain = write(tmp_path / "plain.xyz", labelled(kinds=("energy", "forces", "stress")))
    assert label_keys(plain) == {"energy": "energy", "forces": "forces", "stress": "stress"}
    frames = results_as_ref(labelled(), forces="dft_forces")
    mixed = write(tmp_path / "mixed.xyz", frames)
    assert label_keys(mixed, forces_key="dft_forces") == {
        "energy": "REF_energy",
        "forces": "dft_forces",
    }
    assert label_keys(mixed) == {"energy": "REF_energy"}


def test_plain_labels_beside_reference_labels_are_those_of_another_method(tmp_path):
    """As of the engine whose frames were labelled anew, and not all of them."""
    frames = labelled(4)
    for atoms in frames[:2]:
        atoms.info["REF_energy"] = -2080.0
    path = write(tmp_path / "some.xyz", frames)
    with pytest.warns(
        UserWarning, match="energy but no REF_energy in 2, forces but no REF_forces in 4 of the 4"
    ):
        graphs = read(path, cutoff=5.0)
    assert [graph.energy is None for graph in graphs] == [False, False, True, True]
    assert all(graph.forces is None for graph in graphs)
    assert label_keys(path) == {"energy": "REF_energy"}
    lazy = ExtxyzFrames.of(path, cutoff=5.0)
    assert lazy.report() == Report.of(graphs) and lazy.labels() == {"energy": "REF_energy"}
    plain = read(path, cutoff=5.0, energy_key="energy", forces_key="forces")
    assert Report.of(plain).energy == Report.of(plain).forces == 4


@pytest.mark.parametrize("key", ["REF_energy", "energy"])
def test_a_key_does_not_let_plain_forces_in_beside_reference_labels(tmp_path, key):
    frames = labelled(2)
    for atoms in frames:
        atoms.info["REF_energy"] = -2080.0
    path = write(tmp_path / "some.xyz", frames)
    with pytest.warns(UserWarning, match="if they are meant, give forces_key forces"):
        graphs = read(path, cutoff=5.0, energy_key=key)
    lazy = ExtxyzFrames.of(path, cutoff=5.0, keys={"energy": key})
    assert Report.of(graphs) == lazy.report() == Report(2, 2, 0, 0)
    assert label_keys(path, energy_key=key) == lazy.labels() == {"energy": key}


def test_labels_that_the_first_structure_lacks_are_named(tmp_path):
    frames = labelled(1, kinds=("energy",)) + labelled(1)
    path = write(tmp_path / "late.xyz", frames)
    ase.io.write(tmp_path / "late.traj", frames)
    for each in (path, tmp_path / "late.traj"):
        assert label_keys(each) == {"energy": "energy", "forces": "forces"}


def warnings_of(path, **keys):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        graphs = read(path, cutoff=3.0, **keys)
        open_input(str(path), cutoff=3.0, **keys)
    texts = [str(each.message).split(" has ", 1)[1] for each in caught]
    assert texts[: len(texts) // 2] == texts[len(texts) // 2 :]  # read at once, or frame by frame
    return graphs, texts[: len(texts) // 2]


def test_stress_goes_with_energy_and_forces(tmp_path):
    frames = labelled(2, kinds=("energy", "forces", "stress"), periodic=True)
    for atoms in frames:
        atoms.info["dft_energy"] = -9.0
    path = write(tmp_path / "cu.xyz", frames)
    graphs, texts = warnings_of(path, energy_key="dft_energy")
    assert Report.of(graphs) == Report(2, 2, 2, 0)
    assert len(texts) == 1 and "stress, which is not read" in texts[0] and "stress_key" in texts[0]
    graphs, texts = warnings_of(path, energy_key="dft_energy", stress_key="stress")
    assert Report.of(graphs).stress == 2 and not texts
    graphs, texts = warnings_of(path, energy_key="energy", forces_key="forces")
    assert Report.of(graphs).stress == 2 and not texts


def test_stress_and_virials_under_unknown_names_are_pointed_out(tmp_path):
    frames = labelled(2, periodic=True)
    for atoms in frames:
        atoms.info["virials"] = np.eye(3)
    graphs, texts = warnings_of(write(tmp_path / "virials.xyz", frames))
    assert Report.of(graphs).stress == 0
    assert len(texts) == 1 and "virials but no stress" in texts[0]
    for atoms in frames:
        atoms.info["dft_stress"] = atoms.info.pop("virials")
    graphs, texts = warnings_of(write(tmp_path / "other.xyz", frames))
    assert len(texts) == 1 and "is it one of dft_stress? Give stress_key" in texts[0]


def test_energies_that_forces_do_not_belong_to(tmp_path):
    """As VASP writes them with electronic smearing."""
    frames = labelled(2)
    for atoms in frames:
        atoms.calc.results["free_energy"] = atoms.calc.results["energy"] - 0.0005
    path = write(tmp_path / "smeared.xyz", frames)
    assert warnings_of(path)[1] == []
    for atoms in frames:
        atoms.calc.results["free_energy"] -= 0.25
    path = write(tmp_path / "smeared.xyz", frames)
    graphs, texts = warnings_of(path)
    assert float(graphs[0].energy) == pytest.approx(frames[0].calc.results["energy"])
    assert len(texts) == 1 and "by up to 250 meV" in texts[0] and "free_energy" in texts[0]
    graphs, texts = warnings_of(path, energy_key="free_energy")
    assert float(graphs[0].energy) == pytest.approx(frames[0].calc.results["free_energy"])
    assert texts == []


def test_a_bad_structure_is_named_by_its_number(tmp_path):
    frames = labelled(3)
    frames[1].positions[2] = frames[1].positions[0]
    path = write(tmp_path / "twice.xyz", frames)
    with pytest.raises(ValueError, match="structure 1 of .*twice.xyz: .*atoms 0 and 2"):
        read(path, cutoff=5.0)


def test_a_bad_label_is_named_by_its_structure(tmp_path):
    frames = results_as_ref(labelled(3))
    frames[2].arrays["REF_forces"][1, 1] = np.nan
    path = write(tmp_path / "nan.xyz", frames)
    with pytest.raises(ValueError, match="structure 2 of .*finite.* for atom 1"):
        read(path, cutoff=5.0)


def test_nan_labels_are_missing_ones(tmp_path):
    frames = results_as_ref(labelled(3))
    frames[0].info["REF_energy"] = np.nan
    frames[1].arrays["REF_forces"][:] = np.nan
    frames[2].arrays["REF_forces"][0] = np.nan  # one atom
    graphs = read(write(tmp_path / "nan.xyz", frames), cutoff=5.0)
    assert graphs[0].energy is None and graphs[1].forces is None
    assert graphs[2].forces.isnan().all(dim=1).tolist() == [True, False, False]
    assert Report.of(graphs) == Report(structures=3, energy=2, forces=2, stress=0)
