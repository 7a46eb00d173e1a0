"""Published data sets, from tiny files of the same layout; and how they are divided."""

import json
import re
import zipfile

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from equipoise.data import (
    SOURCES,
    Counts,
    Report,
    Subset,
    fetch_source,
    find_source,
    find_variants,
    read_source,
    read_trajectory,
    rmd17,
)
from equipoise.data.sources import rmd17 as rmd17_module
from equipoise.data.sources.division import divide
from equipoise.data.sources.record import Parts
from equipoise.graph import Graph

KCAL = 0.0433641153
TOTAL = {"CH3CH2OH": -4210.0, "C6H6": -6306.0, "H2O": -2080.0}  # eV


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("EQUIPOISE_DATA", str(tmp_path / "cache"))


def trajectory(name, count, seed=0):
    atoms = molecule(name)
    rng = np.random.default_rng(seed)
    return {
        "z": atoms.numbers,
        "R": atoms.positions + 0.05 * rng.normal(size=(count, len(atoms), 3)),
        "E": (TOTAL[name] + rng.normal(size=(count, 1))) / KCAL,
        "F": rng.normal(size=(count, len(atoms), 3)) / KCAL,
    }


def energies(graphs):
    return [round(float(g.energy), 5) for g in graphs]


def disjoint(splits, everything):
    parts = [energies(part) for part in (splits.train, splits.validation, splits.test)]
    assert sorted(sum(parts, [])) == sorted(everything)
    assert len(set(sum(parts, []))) == len(everything)


# The records


def test_downloads_are_encrypted_where_they_can_be():
    """Some files have no published checksum: then only https says that they are what their server has."""
    for source in SOURCES.values():
        for remote in (remote for each in source.variants for remote in source.files_of(each)):
            assert remote.url.startswith("https://"), f"{source.name}: {remote.url}"


@pytest.mark.parametrize("name", SOURCES)
def test_records_say_what_one_must_know(name):
    source = find_source(name)
    for field in (
        "title",
        "theory",
        "units",
        "labels",
        "licence",
        "citation",
        "homepage",
        "splits",
    ):
        assert getattr(source, field), field
    assert source.name == name and source.variants
    assert source.default in ("", *(variant.name for variant in source.variants))
    names = [variant.name for variant in source.variants]
    assert len(set(names)) == len(names) and not any("," in each for each in names)
    for variant in source.variants:
        files = source.files_of(variant)
        assert files, "nothing to download"
        for remote in files:
            assert re.match(r"https?://", remote.url)
            assert remote.digest is None or re.fullmatch(
                r"sha256:[0-9a-f]{64}|md5:[0-9a-f]{32}", remote.digest
            )
            assert not remote.name.startswith("/") and ".." not in remote.name


def test_unknown_names():
    with pytest.raises(ValueError, match="unknown data set 'mdd22'; did you mean 'md22'"):
        read_source("mdd22", cutoff=5.0)
    with pytest.raises(ValueError, match="MD22 has no subset 'dha'; did you mean 'DHA'"):
        read_source("md22", subset="dha", cutoff=5.0)
    with pytest.raises(ValueError, match="MD17 needs a subset, a molecule: aspirin"):
        read_source("md17", cutoff=5.0)
    with pytest.raises(ValueError, match="has the targets revised, original, received 'U0'"):
        read_source("rmd17", target="U0", cutoff=5.0)
    with pytest.raises(ValueError, match="named once, received 'ethanol,ethanol'"):
        read_source("rmd17", subset="ethanol,ethanol", cutoff=5.0)
    with pytest.raises(ValueError, match="has the targets none, received 'U0'"):
        read_source("md22", subset="DHA", target="U0", cutoff=5.0)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "rmd17"])
def test_what_is_not_here_says_how_to_get_it(name):
    source = find_source(name)
    with pytest.raises((FileNotFoundError, ValueError), match=f"equipoise data download {name}"):
        read_source(name, subset=source.variants[0].name, cutoff=5.0)


def test_all_means_all():
    md22 = find_source("md22")
    assert find_variants(md22, "all") == list(md22.variants)
    assert [v.name for v in find_variants(md22, "DHA,stachyose")] == ["DHA", "stachyose"]


# rMD17


def rmd17_arrays(count, seed=0, molecule_name="CH3CH2OH"):
    arrays = trajectory(molecule_name, count, seed)
    return {
        "nuclear_charges": arrays["z"],
        "coords": arrays["R"],
        "energies": arrays["E"][:, 0],
        "forces": arrays["F"],
        "old_indices": 7 * np.arange(count),
        "old_energies": arrays["E"][:, 0] + 1.0 / KCAL,
        "old_forces": 2 * arrays["F"],
    }


def test_repacked_splits_02_to_05(tmp_path):
    arrays = rmd17_arrays(20)
    rows = {f"idx_{part}_03": idx for part, idx in (("train", [4, 2, 9]), ("test", [0, 19]))}
    packed = {k: v for k, v in arrays.items() if k != "old_forces"}
    np.savez(tmp_path / "rmd17_ethanol_splits02-05.npz", **packed, **rows)
    found = rmd17("ethanol", 3, cutoff=5.0, folder=tmp_path)
    expected = [round(e * KCAL, 3) for e in arrays["energies"][[4, 2, 9]]]
    assert [round(e, 3) for e in energies(found.train)] == pytest.approx(expected, abs=0.05)
    assert found.train_frames.tolist() == [28, 14, 63] and found.test_frames.tolist() == [0, 133]
    old = rmd17("ethanol", 3, cutoff=5.0, folder=tmp_path, target="original")
    assert np.subtract(energies(old.test), energies(found.test)) == pytest.approx([1, 1], abs=1e-4)
    assert Report.of(old.train) == Report(structures=3, energy=3, forces=0, stress=0)
    with pytest.raises(ValueError, match="lacks idx_train_02"):
        rmd17("ethanol", 2, cutoff=5.0, folder=tmp_path)
    packed["idx_train_03"] = np.array([20])
    np.savez(tmp_path / "rmd17_ethanol_splits02-05.npz", **packed, idx_test_03=np.array([0]))
    with pytest.raises(ValueError, match="splits02-05.npz.*0 to 19, received 1 numbers"):
        rmd17("ethanol", 3, cutoff=5.0, folder=tmp_path)


def test_original_labels_of_the_same_frames(tmp_path):
    for part, seed in (("train", 1), ("test", 2)):
        np.savez(tmp_path / f"rmd17_ethanol_{part}_01.npz", **rmd17_arrays(8, seed))
    new = rmd17(cutoff=5.0, folder=tmp_path)
    old = rmd17(cutoff=5.0, folder=tmp_path, target="original")
    np.testing.assert_allclose(old.train[3].forces, 2 * new.train[3].forces)
    np.testing.assert_array_equal(old.train[3].positions, new.train[3].positions)
    splits = read_source(
        "rmd17", cutoff=5.0, folder=tmp_path, target="original", counts=Counts(validation=2)
    )
    assert splits.theory == "PBE+vdW-TS (FHI-aims)" and len(splits.train) == 6
    with pytest.raises(ValueError, match="revised and original, received 'old'"):
        rmd17(cutoff=5.0, target="old")
    # The ethanol that is shipped holds the revised labels only.
    with pytest.raises(ValueError, match="only ethanol split 1"):
        rmd17(cutoff=5.0, target="original")


def test_frames_of_a_split_in_the_original_trajectory(tmp_path):
    """Revised and original labels belong together through old_indices."""
    original = trajectory("CH3CH2OH", 60)
    np.savez(tmp_path / "md17_ethanol.npz", **original)
    rows = np.array([33, 5, 20, 41])
    pair = {
        "nuclear_charges": original["z"],
        "coords": original["R"][rows],
        "energies": original["E"][rows, 0] + 0.1,
        "forces": original["F"][rows],
        "old_indices": rows,
    }
    for part in ("train", "test"):
        np.savez(tmp_path / f"rmd17_ethanol_{part}_01.npz", **pair)
    revised = rmd17(cutoff=5.0, folder=tmp_path)
    whole = read_trajectory(tmp_path / "md17_ethanol.npz", cutoff=5.0)
    same = Subset(whole, revised.train_frames)
    for one, other in zip(same, revised.train, strict=True):
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-12)
        np.testing.assert_allclose(one.forces, other.forces)


def test_a_folder_as_the_archive_unpacks(tmp_path, monkeypatch):
    inner = tmp_path / "cache" / "rmd17" / "rmd17"
    for name in ("npz_data", "splits"):
        (inner / name).mkdir(parents=True)
    np.savez(inner / "npz_data" / "rmd17_uracil.npz", **rmd17_arrays(9))
    for part, rows in (("train", "1\n2\n3\n"), ("test", "0\n8\n")):
        (inner / "splits" / f"index_{part}_02.csv").write_text(rows)
    found = rmd17("uracil", 2, cutoff=5.0)  # from the cache, without being told
    assert (len(found.train), len(found.test)) == (3, 2)
    assert rmd17_module.SOURCE.folder() == tmp_path / "cache" / "rmd17"


def test_rmd17_as_a_source(tmp_path):
    # Some of the shipped structures; to read all of them takes long.
    for part, count in (("test", 7), ("train", 60)):
        with np.load(rmd17_module._SHIPPED / f"{part}_01.npz", allow_pickle=False) as official:
            labels = {key: official[key][:count] for key in ("coords", "energies", "forces")}
            species = official["nuclear_charges"]
        np.savez(tmp_path / f"rmd17_ethanol_{part}_01.npz", nuclear_charges=species, **labels)
    splits = read_source("rmd17", folder=tmp_path, cutoff=2.0)
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [10, 50, 7]
    # The same validation structures as recipes had before there were sources.
    order = np.random.default_rng(0).permutation(60)
    expected = labels["energies"][order[10:]] * rmd17_module.KCAL_PER_MOL
    assert [float(g.energy) for g in splits.validation] == pytest.approx(expected, abs=1e-9)


# Trajectories of sGDML


def test_md17_in_its_layouts(tmp_path):
    np.savez(tmp_path / "md17_ethanol.npz", **trajectory("CH3CH2OH", 40))
    counts = Counts(train=10, validation=5, test=20)
    splits = read_source("md17", subset="ethanol", folder=tmp_path, cutoff=5.0, counts=counts)
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [10, 5, 20]
    assert splits.name == "MD17 ethanol" and splits.theory == "PBE+vdW-TS (FHI-aims)"
    everything = energies(read_trajectory(tmp_path / "md17_ethanol.npz", cutoff=5.0))
    whole = read_source(
        "md17", subset="ethanol", folder=tmp_path, cutoff=5.0, counts=Counts(train=10, validation=5)
    )
    disjoint(whole, everything)
    one = read_source(
        "md17",
        subset="ethanol",
        folder=tmp_path / "md17_ethanol.npz",
        cutoff=5.0,
        counts=counts,
    )
    assert energies(one.train) == energies(splits.train)


def test_md17_of_which_there_are_two_extracts(tmp_path):
    for name in ("md17_ethanol_first.npz", "md17_ethanol_random.npz"):
        np.savez(tmp_path / name, **trajectory("CH3CH2OH", 60))
    with pytest.raises(ValueError, match="md17_ethanol_first.npz, md17_ethanol_random.npz; give"):
        read_source("md17", subset="ethanol", folder=tmp_path, cutoff=5.0)
    path = tmp_path / "md17_ethanol_random.npz"
    read_source(
        "md17", subset="ethanol", folder=path, cutoff=5.0, counts=Counts(train=9, validation=3)
    )


def test_md22_takes_the_published_number(tmp_path, monkeypatch):
    arrays = trajectory("C6H6", 700)
    np.savez(tmp_path / "md22_buckyball-catcher.npz", **arrays, e_unit="kcal/mol", r_unit="Ang")
    splits = read_source("md22", subset="buckyball-catcher", folder=tmp_path, cutoff=2.0)
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [550, 50, 100]


def test_coupled_cluster_files(tmp_path):
    for part, count in (("train", 12), ("test", 6)):
        arrays = trajectory("C6H6", count, seed=count)
        np.savez(tmp_path / f"benzene_ccsd_t-{part}.npz", **arrays)
    ethanol = trajectory("CH3CH2OH", 12)
    np.savez(tmp_path / "ethanol_ccsd_t-train.npz", **ethanol)
    counts = Counts(validation=2)
    read = {"folder": tmp_path, "cutoff": 5.0, "counts": counts}
    benzene = read_source("md17-ccsd", subset="benzene", **read)
    assert [len(p) for p in (benzene.train, benzene.validation, benzene.test)] == [10, 2, 6]
    assert benzene.theory == "CCSD(T)/cc-pVDZ (Psi4)"
    # Without its test file: some of the training structures.
    alone = read_source("md17-ccsd", subset="ethanol", **read)
    assert [len(p) for p in (alone.train, alone.validation, alone.test)] == [8, 2, 2]
    with pytest.raises(ValueError, match=r"benzene: CCSD\(T\)/cc-pVDZ.*ethanol: CCSD\(T\)/cc-pVTZ"):
        read_source("md17-ccsd", subset="benzene,ethanol", **read)


def test_several_molecules_of_one_theory(tmp_path):
    for name, chemical in (("toluene", "C6H6"), ("ethanol", "CH3CH2OH")):
        np.savez(tmp_path / f"md17_{name}.npz", **trajectory(chemical, 30))
    splits = read_source(
        "md17",
        subset="toluene,ethanol",
        folder=tmp_path,
        cutoff=5.0,
        counts=Counts(train=8, validation=2, test=5),
    )
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [16, 4, 10]
    assert sorted({g.n_atoms for g in splits.train}) == [9, 12]
    assert splits.name == "MD17 toluene, ethanol"
    counts = Counts(train=8, validation=2, test=0)
    none = read_source("md17", subset="toluene,ethanol", folder=tmp_path, cutoff=5.0, counts=counts)
    assert len(none.train) == 16 and len(none.test) == 0


# extxyz, DeePMD and pymatgen files


def extxyz(path, count, *, forces=True, seed=0):
    rng = np.random.default_rng(seed)
    frames = []
    for _ in range(count):
        atoms = molecule("H2O")
        atoms.rattle(0.05, rng=rng)
        labels = {"energy": TOTAL["H2O"] + rng.normal()}
        if forces:
            labels["forces"] = rng.normal(size=(3, 3))
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")
    return frames


def test_3bpa_trains_and_tests_at_different_temperatures(tmp_path):
    for name, count in (
        ("train_300K", 12),
        ("train_mixedT", 11),
        ("test_300K", 5),
        ("test_600K", 4),
    ):
        extxyz(tmp_path / f"{name}.xyz", count, seed=count)
    read = {"folder": tmp_path, "cutoff": 5.0, "counts": Counts(validation=2)}
    sizes = {
        subset: [len(p) for p in (s.train, s.validation, s.test)]
        for subset in ("300K", "mixedT", "300K/600K")
        if (s := read_source("3bpa", subset=subset, **read))
    }
    assert sizes == {"300K": [10, 2, 5], "mixedT": [9, 2, 5], "300K/600K": [10, 2, 4]}
    with pytest.raises(FileNotFoundError, match="no test_1200K.xyz"):
        read_source("3bpa", subset="300K/1200K", **read)
    (tmp_path / "test_300K.xyz").unlink()
    alone = read_source("3bpa", subset="300K", **read)
    assert [len(p) for p in (alone.train, alone.validation, alone.test)] == [8, 2, 2]


def test_acac_has_energies_only_along_paths(tmp_path):
    extxyz(tmp_path / "train_300K.xyz", 12)
    extxyz(tmp_path / "test_MD_300K.xyz", 5, seed=1)
    extxyz(tmp_path / "test_dihedral.xyz", 4, forces=False, seed=2)
    read = {"folder": tmp_path, "cutoff": 5.0, "counts": Counts(validation=2)}
    assert Report.of(read_source("acac", **read).test).forces == 5
    found = Report.of(read_source("acac", subset="300K/dihedral", **read).test)
    assert (found.energy, found.forces) == (4, 0)


def test_water_as_deepmd_writes_it(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("data_0/set.000", "data_1/set.000", "data_1/set.001"):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        np.save(folder / "coord.npy", rng.uniform(0, 6, size=(4, 9)).astype(np.float32))
        np.save(folder / "force.npy", rng.normal(size=(4, 9)).astype(np.float32))
        np.save(folder / "energy.npy", rng.normal(size=4).astype(np.float32))
        np.save(folder / "box.npy", np.tile(6 * np.eye(3).ravel(), (4, 1)).astype(np.float32))
        (folder.parent / "type.raw").write_text("0 1 1")
        (folder.parent / "type_map.raw").write_text("O\nH\n")
    splits = read_source("water", folder=tmp_path, cutoff=3.0, counts=Counts(train=6, validation=2))
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [6, 2, 4]
    assert splits.train[0].species.tolist() == [8, 1, 1] and splits.train[0].pbc.all()
    (tmp_path / "data_1" / "type.raw").write_text("0 0 1")
    with pytest.raises(ValueError, match="must hold the same atoms"):
        read_source("water", folder=tmp_path, cutoff=3.0)
    (tmp_path / "data_1" / "type.raw").write_text("0 1 7")
    with pytest.raises(ValueError, match="must name elements"):
        read_source("water", folder=tmp_path, cutoff=3.0)
    (tmp_path / "data_1" / "type.raw").write_text("0 1 1")
    np.save(tmp_path / "data_0/set.000/force.npy", np.zeros((4, 6)))
    with pytest.raises(ValueError, match="force.npy|match"):
        read_source("water", folder=tmp_path, cutoff=3.0)


def test_lips_as_text_and_as_arrays(tmp_path):
    frames = extxyz(tmp_path / "lips.xyz", 40)
    splits = read_source("lips", folder=tmp_path, cutoff=5.0, counts=Counts(train=20, validation=5))
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [20, 5, 15]
    disjoint(splits, [round(a.get_potential_energy(), 5) for a in frames])


def mlearn_json(path, count, seed):
    rng = np.random.default_rng(seed)
    entries = []
    for _ in range(count):
        sites = [{"xyz": row} for row in rng.uniform(0, 6, size=(3, 3)).tolist()]
        entries.append(
            {
                "structure": {"lattice": {"matrix": (6 * np.eye(3)).tolist()}, "sites": sites},
                "outputs": {"energy": rng.normal(), "forces": rng.normal(size=(3, 3)).tolist()},
            }
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(entries))
    return entries


def test_mlearn_as_pymatgen_writes_it(tmp_path):
    train = mlearn_json(tmp_path / "Li" / "training.json", 9, 0)
    test = mlearn_json(tmp_path / "Li" / "test.json", 4, 1)
    splits = read_source(
        "mlearn", subset="Li", folder=tmp_path, cutoff=3.0, counts=Counts(validation=2)
    )
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [7, 2, 4]
    assert energies(splits.test) == [round(e["outputs"]["energy"], 5) for e in test]
    assert splits.train[0].species.tolist() == [3, 3, 3] and splits.train[0].pbc.all()
    del train[2]["outputs"]["forces"]
    (tmp_path / "Li" / "training.json").write_text(json.dumps(train))
    with pytest.raises(ValueError, match="no file of mlearn.*'forces'"):
        read_source("mlearn", subset="Li", folder=tmp_path, cutoff=3.0)
    (tmp_path / "Li" / "training.json").write_text(json.dumps(train)[:-30])
    with pytest.raises(ValueError, match="no file of mlearn, or cut short"):
        read_source("mlearn", subset="Li", folder=tmp_path, cutoff=3.0)


# Division


POOL = [
    Graph.build(r, molecule("H2O").numbers, cutoff=3.0, energy=float(e))
    for r, e in zip(
        trajectory("H2O", 40)["R"], np.random.default_rng(3).normal(size=40), strict=True
    )
]


def pool(count):
    return POOL[:count]


def test_a_pool_is_divided_reproducibly():
    parts, more = Parts(train=pool(40)), Counts(train=20, validation=5)
    train, validation, test = divide(parts, more, training=0, where="here")
    assert [len(p) for p in (train, validation, test)] == [20, 5, 15]
    again = divide(parts, more, training=0, where="here")
    assert [energies(p) for p in again] == [energies(p) for p in (train, validation, test)]
    # Another validation set does not touch the test set; another seed does.
    other = divide(parts, Counts(train=20, validation=5, validation_seed=1), training=0, where="")
    assert energies(other[2]) == energies(test) and energies(other[1]) != energies(validation)
    moved = divide(parts, Counts(train=20, validation=5, seed=1), training=0, where="")
    assert energies(moved[2]) != energies(test)


def test_a_smaller_training_set_is_part_of_a_larger_one():
    parts = Parts(train=pool(40), test=pool(4))
    few, many = (
        divide(parts, Counts(train=count, validation=5), training=0, where="")[0]
        for count in (10, 30)
    )
    assert energies(many)[:10] == energies(few)


def test_groups_are_not_divided():
    graphs = Subset(pool(40), range(40))
    groups = [row // 4 for row in range(40)]
    parts = Parts(train=graphs, groups=groups)
    found = divide(parts, Counts(train=16, validation=8), training=0, where="")
    where = {round(float(g.energy), 5): group for g, group in zip(graphs, groups, strict=True)}
    belongs = [{where[e] for e in energies(part)} for part in found]
    assert not (belongs[0] & belongs[1] | belongs[0] & belongs[2] | belongs[1] & belongs[2])
    assert [len(part) for part in found] == [16, 8, 16]


def test_groups_that_fit_into_no_part_train():
    graphs = Subset(pool(40), range(40))
    groups = [row // 3 for row in range(40)]  # none of which is 5 structures, or the 30 that remain
    parts = Parts(train=graphs, test=pool(4), groups=groups)
    train, validation, _ = divide(parts, Counts(validation=5), training=0, where="")
    assert sorted([*train.rows, *validation.rows]) == list(range(40))
    assert not {row // 3 for row in train.rows} & {row // 3 for row in validation.rows}
    few, _, _ = divide(parts, Counts(train=9, validation=5), training=0, where="")
    assert len(few) == 9, "as many as asked for"


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (Counts(train=30, validation=11), "here has 40 structures, .* 30 to train, 11 to validate"),
        (Counts(train=20, validation=5, test=16), "test_count must be at most 15.*received 16"),
        (Counts(validation=40), "validation_count must be less than the 36"),
    ],
)
def test_more_than_there_is(counts, message):
    with pytest.raises(ValueError, match=message):
        divide(Parts(train=pool(40)), counts, training=0, where="here")


def test_more_training_structures_than_official_ones():
    parts = Parts(train=pool(20), test=pool(4))
    with pytest.raises(ValueError, match="train_count must be at most 15"):
        divide(parts, Counts(train=16, validation=5), training=0, where="here")
    with pytest.raises(ValueError, match="train_count must be at least 1, received 0"):
        Counts(train=0)


# Fetching


def test_fetching_downloads_and_unpacks(tmp_path, monkeypatch):
    """The archive lies where a download would leave it, which is as good as fetched."""
    folder = tmp_path / "cache" / "md17-ccsd"
    folder.mkdir(parents=True)
    for part, count in (("train", 12), ("test", 6)):
        np.savez(tmp_path / f"toluene_ccsd_t-{part}.npz", **trajectory("C6H6", count))
    with zipfile.ZipFile(folder / "toluene_ccsd_t.zip", "w") as archive:
        for part in ("train", "test"):
            archive.write(tmp_path / f"toluene_ccsd_t-{part}.npz", f"toluene_ccsd_t-{part}.npz")
        archive.writestr("__MACOSX/._toluene_ccsd_t-test.npz", b"clutter")
    assert fetch_source("md17-ccsd", subset="toluene") == folder
    splits = read_source("md17-ccsd", subset="toluene", cutoff=5.0, counts=Counts(validation=2))
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [10, 2, 6]
