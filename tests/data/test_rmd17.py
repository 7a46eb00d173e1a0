"""Revised MD17: the shipped split, official files in a folder, and damaged files."""

import zipfile

import numpy as np
import pytest
import torch

from equipoise.data import Report, Split, read_rmd17, rmd17, split, statistics
from equipoise.data.sources import rmd17 as source

# eV, from the exact SI constants (4184 J, N_A, e); ASE uses those of CODATA 2014, which
# differ in the seventh digit: 1 meV in the total energy of ethanol, the same in all frames.
KCAL = 4184 / 6.02214076e23 / 1.602176634e-19
SHIPPED = source._SHIPPED


@pytest.fixture(scope="module")
def ethanol():
    return rmd17(cutoff=5.0)


@pytest.fixture
def arrays():
    """The first 20 frames of the shipped training file."""
    with np.load(SHIPPED / "train_01.npz", allow_pickle=False) as archive:
        return {
            key: archive[key] if key == "nuclear_charges" else archive[key][:20]
            for key in archive.files
        }


def test_shipped_ethanol_is_the_official_split(ethanol):
    assert (len(ethanol.train), len(ethanol.test)) == (1000, 1000)
    assert Report.of(ethanol.train) == Report(1000, 1000, 1000, 0)
    assert ethanol.train[0].species.tolist() == [6, 6, 8, 1, 1, 1, 1, 1, 1]
    indices = []
    for name in ("train_01.npz", "test_01.npz"):
        with np.load(SHIPPED / name, allow_pickle=False) as archive:
            assert set(archive.files) == {
                "nuclear_charges",
                "coords",
                "energies",
                "forces",
                "old_indices",
            }
            indices.append(archive["old_indices"])
    assert len(np.intersect1d(*indices)) == 0  # no test frame was trained on


def test_units_are_electronvolt_and_angstrom(ethanol, arrays):
    graph = ethanol.train[7]
    assert float(graph.energy) == pytest.approx(arrays["energies"][7] * KCAL, rel=4e-7)
    np.testing.assert_allclose(graph.forces, arrays["forces"][7] * KCAL, rtol=4e-7)
    mean = torch.cat([g.energy for g in ethanol.train]).mean()
    assert float(mean) == pytest.approx(-4209.625, abs=5e-3)
    assert all(g.energy.dtype == torch.float64 for g in ethanol.train[:3])


def test_positions_are_centred_and_otherwise_exact(ethanol, arrays):
    for index in (0, 7, 19):
        positions = ethanol.train[index].positions.numpy()
        assert np.abs(positions.mean(axis=0)).max() < 1e-14
        original = arrays["coords"][index]
        np.testing.assert_allclose(positions - positions[0], original - original[0], atol=1e-14)


def test_forces_are_minus_the_gradient_of_the_energy(ethanol):
    """Sign and units at once: for near frames, dE is about -(F1 + F2)/2 . dx.

    Frames are compared after the rigid motion between them is taken out; the nearest
    pairs of a 1000-frame set are still far apart, so only the correlation is asked for.
    """
    positions = torch.stack([g.positions for g in ethanol.train])
    energies = torch.cat([g.energy for g in ethanol.train])
    forces = torch.stack([g.forces for g in ethanol.train])
    # The nearest frame by interatomic distances, which no rigid motion changes.
    distances = torch.cdist(positions, positions).flatten(1)
    gaps = torch.cdist(distances, distances)
    gaps.fill_diagonal_(torch.inf)
    first = torch.arange(len(gaps))
    second = gaps.argmin(dim=1)
    closest = gaps[first, second].argsort()[:150]
    first, second = first[closest], second[closest]
    cross = positions[first].transpose(1, 2) @ positions[second]
    u, _, vt = torch.linalg.svd(cross)
    flip = torch.diag_embed(
        torch.stack(
            [torch.ones(len(u)), torch.ones(len(u)), torch.det(u @ vt).sign()], dim=1
        ).double()
    )
    rotation = u @ flip @ vt  # positions[first] @ rotation lies on positions[second]
    moved = positions[second] - positions[first] @ rotation
    work = -((forces[first] @ rotation + forces[second]) / 2 * moved).sum((1, 2))
    change = energies[second] - energies[first]
    slope = float((work * change).sum() / (work * work).sum())
    assert slope == pytest.approx(1.0, abs=0.1)


def test_force_sums_vanish(ethanol):
    """A free molecule feels no net force: a wrong axis order would show here."""
    total = torch.stack([g.forces.sum(dim=0) for g in ethanol.train])
    assert float(total.abs().max()) < 0.01


def test_statistics_of_the_training_set(ethanol):
    found = statistics(ethanol.train)
    assert found.elements == (1, 6, 8)
    assert found.mean_atoms == 9.0
    assert found.mean_neighbours == 8.0  # ethanol fits inside 5 Angstrom
    assert found.force_rms == pytest.approx(1.195398, abs=1e-5)
    hydrogen, carbon, oxygen = found.reference_energies
    mean = torch.cat([g.energy for g in ethanol.train]).mean()
    assert 6 * hydrogen + 2 * carbon + oxygen == pytest.approx(float(mean), abs=1e-8)


def test_usual_protocol(ethanol):
    parts = split(ethanol.train, train=950, validation=50, seed=0)
    assert isinstance(parts, Split)
    assert (len(parts.train), len(parts.validation), len(parts.rest)) == (950, 50, 0)


def test_smaller_cutoff_gives_fewer_edges():
    near = rmd17(cutoff=2.0)
    assert 2.0 < statistics(near.train).mean_neighbours < 6.0


# Files in a folder


def write_pair(folder, arrays, molecule="uracil", number=3):
    for name, rows in (("train", slice(0, 12)), ("test", slice(12, 20))):
        part = {
            key: value if key == "nuclear_charges" else value[rows] for key, value in arrays.items()
        }
        np.savez(folder / f"rmd17_{molecule}_{name}_{number:02d}.npz", **part)


def same(one, other):
    return all(
        torch.equal(a.positions, b.positions)
        and torch.equal(a.energy, b.energy)
        and torch.equal(a.forces, b.forces)
        for a, b in zip(one, other, strict=True)
    )


def test_official_pair_of_files(tmp_path, arrays, ethanol):
    write_pair(tmp_path, arrays)
    found = rmd17("uracil", 3, cutoff=5.0, folder=tmp_path)
    assert (found.molecule, found.split) == ("uracil", 3)
    assert same(found.train, ethanol.train[:12])
    assert same(found.test, ethanol.train[12:20])
    one = read_rmd17(tmp_path / "rmd17_uracil_test_03.npz", cutoff=5.0)
    assert same(one, found.test)


@pytest.mark.parametrize("nested", [False, True])
def test_figshare_layout(tmp_path, arrays, ethanol, nested):
    data, splits = tmp_path, tmp_path
    if nested:
        data, splits = tmp_path / "npz_data", tmp_path / "splits"
        data.mkdir()
        splits.mkdir()
    np.savez(data / "rmd17_ethanol.npz", **arrays)
    (splits / "index_train_02.csv").write_text("5\n3\n11\n")
    (splits / "index_test_02.csv").write_text("0\n19\n")
    found = rmd17("ethanol", 2, cutoff=5.0, folder=str(tmp_path))
    assert same(found.train, [ethanol.train[i] for i in (5, 3, 11)])
    assert same(found.test, [ethanol.train[i] for i in (0, 19)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5\n20\n", "0 to 19, received 2 numbers from 5 to 20"),
        ("5\n-1\n", "from -1 to 5"),
        ("", "received 0 numbers"),
        ("five\n", "one frame number per line"),
    ],
)
def test_wrong_index_file(tmp_path, arrays, text, message):
    np.savez(tmp_path / "rmd17_ethanol.npz", **arrays)
    (tmp_path / "index_train_02.csv").write_text(text)
    (tmp_path / "index_test_02.csv").write_text("0\n")
    with pytest.raises(ValueError, match=message):
        rmd17("ethanol", 2, cutoff=5.0, folder=tmp_path)


# Refusals


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("etanol", "did you mean 'ethanol'"),
        ("Aspirin", "did you mean 'aspirin'"),
        ("salicylic acid", "did you mean 'salicylic'"),
        ("water", "Known are aspirin"),
    ],
)
def test_unknown_molecule(name, hint):
    with pytest.raises(ValueError, match=f"unknown rMD17 molecule '{name}'.*{hint}"):
        rmd17(name, cutoff=5.0)


@pytest.mark.parametrize("number", [0, 6])
def test_unknown_split(number):
    with pytest.raises(ValueError, match=f"splits 1 to 5, received {number}"):
        rmd17(split=number, cutoff=5.0)


@pytest.mark.parametrize(("molecule", "number"), [("aspirin", 1), ("ethanol", 2)])
def test_what_is_not_shipped_says_where_it_is(molecule, number):
    with pytest.raises(ValueError, match="figshare 12672038"):
        rmd17(molecule, number, cutoff=5.0)


def test_missing_files_are_named(tmp_path, arrays):
    write_pair(tmp_path, arrays)
    with pytest.raises(FileNotFoundError) as error:
        rmd17("uracil", 4, cutoff=5.0, folder=tmp_path)
    for name in (
        "rmd17_uracil_train_04.npz",
        "rmd17_uracil_test_04.npz",
        "rmd17_uracil.npz",
        "index_train_04.csv",
        "index_test_04.csv",
    ):
        assert name in str(error.value)
    with pytest.raises(FileNotFoundError, match="no folder"):
        rmd17("uracil", 4, cutoff=5.0, folder=tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="no file"):
        read_rmd17(tmp_path / "absent.npz", cutoff=5.0)


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.9])
def test_truncated_file(tmp_path, fraction):
    whole = (SHIPPED / "train_01.npz").read_bytes()
    path = tmp_path / "cut.npz"
    path.write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(ValueError, match="cut.npz is not a readable .npz archive"):
        read_rmd17(path, cutoff=5.0)


def test_flipped_bytes_in_a_member(tmp_path, arrays):
    path = tmp_path / "damaged.npz"
    np.savez(path, **arrays)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("forces.npy").header_offset + 400
    damaged = bytearray(path.read_bytes())
    damaged[start : start + 8] = bytes(8)
    path.write_bytes(bytes(damaged))
    with pytest.raises(ValueError, match="'forces' in .* damaged"):
        read_rmd17(path, cutoff=5.0)


def test_missing_keys_are_named(tmp_path, arrays):
    path = tmp_path / "unlabelled.npz"
    del arrays["energies"], arrays["forces"]
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match="lacks energies, forces; it holds coords"):
        read_rmd17(path, cutoff=5.0)


def test_pickled_arrays_are_refused(tmp_path, arrays):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was loaded",))

    path = tmp_path / "pickled.npz"
    arrays["energies"] = np.array([Trap()], dtype=object)
    np.savez(path, allow_pickle=True, **arrays)
    with pytest.raises(ValueError, match="'energies' in .* is a pickled Python object"):
        read_rmd17(path, cutoff=5.0)


def test_other_kinds_of_file_are_refused(tmp_path):
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(ValueError, match="a single array; an .npz archive is needed"):
        read_rmd17(tmp_path / "array.npy", cutoff=5.0)
    (tmp_path / "page.npz").write_text("<html>not found</html>")
    with pytest.raises(ValueError, match="not a readable .npz archive"):
        read_rmd17(tmp_path / "page.npz", cutoff=5.0)


def test_wrong_shapes_and_values_name_the_structure(tmp_path, arrays):
    path = tmp_path / "odd.npz"
    np.savez(path, **{**arrays, "forces": arrays["forces"][:, :8]})
    with pytest.raises(ValueError, match=r"'forces' must have shape \(20, 9, 3\)"):
        read_rmd17(path, cutoff=5.0)
    forces = arrays["forces"].copy()
    forces[4, 2] = np.nan
    np.savez(path, **{**arrays, "forces": forces})
    with pytest.raises(ValueError, match="structure 4 of .*finite.* for atom 2"):
        read_rmd17(path, cutoff=5.0)
    coords = arrays["coords"].copy()
    coords[6, 3] = coords[6, 0]
    np.savez(path, **{**arrays, "coords": coords})
    with pytest.raises(ValueError, match="structure 6 of .*atoms 0 and 3"):
        read_rmd17(path, cutoff=5.0)


def test_shipped_files_are_verified(tmp_path, monkeypatch):
    for name in ("train_01.npz", "test_01.npz"):
        content = bytearray((SHIPPED / name).read_bytes())
        content[-1] ^= 1
        (tmp_path / name).write_bytes(bytes(content))
    monkeypatch.setattr(source, "_SHIPPED", tmp_path)
    with pytest.raises(ValueError, match="not the file it should be: sha256"):
        rmd17(cutoff=5.0)
