"""OC20, as text of the official layout: frames, references, held atoms; and no pickles."""

import lzma
import pickle
import tarfile

import ase.io
import numpy as np
import pytest
from ase.build import add_adsorbate, fcc111
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from equipoise.data import Counts, Report, read_source
from equipoise.data.inputs import open_input
from equipoise.data.sources.extxyz_frames import ExtxyzFrames, frame_starts, read_text
from equipoise.data.sources.oc20_is2re import Relaxations
from equipoise.data.sources.oc20_s2ef import read_s2ef
from equipoise.data.unpack import unpack


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("EQUIPOISE_DATA", str(tmp_path / "cache"))


def frames(count, seed):
    """Hydrogen on two layers of copper, the lower one held; labels drawn."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        slab = fcc111("Cu", size=(2, 2, 2), vacuum=6.0)
        add_adsorbate(slab, "H", height=1.0, position="fcc")
        slab.info, slab.pbc = {}, True
        slab.rattle(0.05, rng=rng)
        slab.set_tags([0] * 4 + [1] * 4 + [2])
        slab.set_constraint(FixAtoms(mask=slab.get_tags() == 0))
        slab.calc = SinglePointCalculator(
            slab, energy=-30.0 + rng.normal(), free_energy=-31.0, forces=rng.normal(size=(9, 3))
        )
        found.append(slab)
    return found


def write(path, atoms):
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_name(path.name.removesuffix(".xz"))
    ase.io.write(plain, atoms, format="extxyz")
    if path.suffix == ".xz":
        path.write_bytes(lzma.compress(plain.read_bytes()))
        plain.unlink()


def s2ef(folder, *, shards=2, count=6, suffix=".xz", seed=0):
    """Files as the archive unpacks them; returns the frames and the reference energies."""
    every, references = [], []
    for shard in range(shards):
        atoms = frames(count, seed + shard)
        write(folder / f"{shard}.extxyz{suffix}", atoms)
        lines = []
        for row in range(count):
            reference = -25.0 - shard - 0.1 * row
            references.append(reference)
            lines.append(f"random{100 * shard + row // 2},frame{row},{reference}\n")
        text = "".join(lines).encode()
        name = f"{shard}.txt{suffix}"
        (folder / name).write_bytes(lzma.compress(text) if suffix else text)
        every += atoms
    return every, references


@pytest.mark.parametrize("suffix", [".xz", ""])
def test_frames_and_references(tmp_path, suffix):
    atoms, references = s2ef(tmp_path, suffix=suffix)
    graphs, systems = read_s2ef(tmp_path, cutoff=4.0)
    assert len(graphs) == 12 and systems[:4] == ["random0", "random0", "random1", "random1"]
    for index in (0, 5, 6, 11):
        graph, expected = graphs[index], atoms[index]
        energy = expected.get_potential_energy() - references[index]
        assert float(graph.energy) == pytest.approx(energy, abs=1e-7)
        np.testing.assert_allclose(graph.positions, expected.positions, atol=1e-7)
        assert graph.pbc.all()
        # Held atoms have no force to learn; the others have theirs.
        held = graph.forces.isnan().all(dim=1)
        assert held.tolist() == [True] * 4 + [False] * 5
        raw = expected.calc.results["forces"]
        np.testing.assert_allclose(graph.forces[4:], raw[4:], atol=1e-7)
        structure = graphs.structure(index)
        assert structure.tags.tolist() == [0] * 4 + [1] * 4 + [2]
        assert structure.fixed.tolist() == [True] * 4 + [False] * 5
    total, _ = read_s2ef(tmp_path, cutoff=4.0, target="total")
    assert float(total[7].energy) == pytest.approx(atoms[7].get_potential_energy(), abs=1e-7)
    assert Report.of(graphs) == Report(structures=12, energy=12, forces=12, stress=0)


def test_random_access_over_many_files(tmp_path):
    atoms, references = s2ef(tmp_path, shards=4, count=3)
    graphs, _ = read_s2ef(tmp_path, cutoff=4.0)
    order = np.random.default_rng(0).permutation(12)
    expected = [a.get_potential_energy() - r for a, r in zip(atoms, references, strict=True)]
    found = [float(graphs[int(row)].energy) for row in order]
    assert found == pytest.approx([expected[row] for row in order], abs=1e-7)
    assert len(graphs._open) == 2, "files do not pile up in memory"


def test_splits_keep_relaxations_together(tmp_path):
    s2ef(tmp_path / "s2ef_train_200K" / "s2ef_train_200K", shards=2, count=10)
    counts = Counts(train=8, validation=4)
    splits = read_source("oc20-s2ef", subset="200K", folder=tmp_path, cutoff=4.0, counts=counts)
    _, systems = read_s2ef(tmp_path / "s2ef_train_200K" / "s2ef_train_200K", cutoff=4.0)
    parts = [
        {systems[row] for row in part.rows}
        for part in (splits.train, splits.validation, splits.test)
    ]
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [8, 4, 8]
    assert not (parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2])
    # With the official validation set at hand, that is what tests.
    s2ef(tmp_path / "s2ef_val_id" / "s2ef_val_id", shards=1, count=5, seed=9)
    splits = read_source("oc20-s2ef", subset="200K", folder=tmp_path, cutoff=4.0, counts=counts)
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [8, 4, 5]
    assert splits.theory == "RPBE (VASP)" and splits.target == "adsorption"


def test_parts_to_convert_are_in_the_order_of_the_files(tmp_path):
    """In any other order a compressed file would be unpacked for nearly each of its frames."""
    s2ef(tmp_path / "s2ef_train_200K" / "s2ef_train_200K", shards=2, count=10)
    s2ef(tmp_path / "s2ef_val_id" / "s2ef_val_id", shards=1, count=3, seed=9)
    given = {
        part: open_input("oc20-s2ef:200K", part=part, cutoff=4.0, folder=tmp_path)
        for part in (None, "train", "validation", "test")
    }
    rows = {part: given[part].graphs.rows.tolist() for part in ("train", "validation")}
    assert all(each == sorted(each) for each in rows.values()) and len(rows["validation"]) > 0
    assert sorted(rows["train"] + rows["validation"]) == list(range(20))
    learned, tested = given[None].graphs.parts
    assert learned.rows.tolist() == list(range(20)) and len(tested) == 3
    # All of it is something to look at; to convert, only for those who say so.
    assert [part for part, each in given.items() if each.mixed] == [None]
    everything = open_input("oc20-s2ef:200K", part="all", cutoff=4.0, folder=tmp_path)
    assert len(everything.graphs) == 23 and not everything.mixed


def test_as_the_archive_comes(tmp_path):
    s2ef(tmp_path / "in" / "s2ef_train_200K", count=3)
    archive = tmp_path / "s2ef_train_200K.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(tmp_path / "in", "s2ef_train_200K")
    unpack(archive, tmp_path / "there")
    splits = read_source(
        "oc20-s2ef",
        subset="200K",
        folder=tmp_path / "there",
        cutoff=4.0,
        counts=Counts(train=2, validation=2),
    )
    assert len(splits.train) + len(splits.validation) + len(splits.test) == 6


def test_damaged_files(tmp_path):
    s2ef(tmp_path, shards=1, count=4)
    table = tmp_path / "0.txt.xz"
    good = table.read_bytes()
    table.write_bytes(lzma.compress(b"random1,frame0,-1.0\n"))
    graphs = ExtxyzFrames([tmp_path / "0.extxyz.xz"], [1], cutoff=4.0)
    with pytest.raises(ValueError, match="must hold 1 frames, received 4"):
        graphs.structure(0)
    table.write_bytes(lzma.compress(b"random1,frame0\n"))
    with pytest.raises(ValueError, match="lines of system,frame,reference energy"):
        read_s2ef(tmp_path, cutoff=4.0)
    table.write_bytes(good[:-20])
    with pytest.raises(ValueError, match="0.txt.xz is damaged"):
        read_s2ef(tmp_path, cutoff=4.0)
    table.unlink()
    with pytest.raises(ValueError, match="needs 0.txt or 0.txt.xz beside it"):
        read_s2ef(tmp_path, cutoff=4.0)
    table.write_bytes(good)
    shard = tmp_path / "0.extxyz.xz"
    text = lzma.decompress(shard.read_bytes())
    shard.write_bytes(lzma.compress(text[:-100]))
    graphs = ExtxyzFrames([shard], [4], cutoff=4.0)
    # Cut within its last line, it still has all its lines: the frame itself is what is wrong.
    with pytest.raises(ValueError, match="cannot be read|cut short"):
        graphs.structure(3)
    with pytest.raises(ValueError, match="targets adsorption and total, received 'raw'"):
        read_s2ef(tmp_path, cutoff=4.0, target="raw")


def test_pickled_lmdb_files_are_refused_unread(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    (tmp_path / "data.0000.lmdb").write_bytes(pickle.dumps(Evil()))
    message = "data.0000.lmdb holds pickled Python objects.*is refused. Take the same data as text"
    for name, subset in (("oc20-s2ef", "200K"), ("oc20-is2re", "train")):
        with pytest.raises(ValueError, match=message):
            read_source(name, subset=subset, folder=tmp_path, cutoff=4.0)
    assert not (tmp_path / "ran").exists()


# IS2RE


def is2re(folder, count=8):
    expected = []
    lines = []
    for number in range(count):
        atoms = frames(3, seed=number)
        write(folder / folder.name / f"random{number}.extxyz.xz", atoms)
        lines.append(f"random{number},{-28.0 - number}\n")
        expected.append((atoms[0].positions, atoms[-1].get_potential_energy() + 28.0 + number))
    (folder / "system.txt").write_text("".join(lines))
    return expected


def test_first_frame_and_last_energy(tmp_path):
    expected = is2re(tmp_path / "0")
    graphs = Relaxations(tmp_path / "0" / "system.txt", cutoff=4.0)
    for graph, (positions, energy) in zip(graphs, expected, strict=True):
        np.testing.assert_allclose(graph.positions, positions, atol=1e-7)
        assert float(graph.energy) == pytest.approx(energy, abs=1e-7)
        assert graph.forces is None
    assert Report.of(graphs) == Report(structures=8, energy=8, forces=0, stress=0)
    read = {"subset": "adsorbate-O", "folder": tmp_path, "cutoff": 4.0}
    splits = read_source("oc20-is2re", **read, counts=Counts(train=4, validation=2))
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [4, 2, 2]
    total = read_source("oc20-is2re", **read, target="total", counts=Counts(train=4, validation=2))
    assert -34 < float(total.train[0].energy) < -26


def test_incomplete_relaxations(tmp_path):
    is2re(tmp_path / "0", count=3)
    (tmp_path / "0" / "0" / "random1.extxyz.xz").unlink()
    with pytest.raises(FileNotFoundError, match="1 of the 3 relaxations .* such as random1"):
        Relaxations(tmp_path / "0" / "system.txt", cutoff=4.0)
    (tmp_path / "0" / "system.txt").write_text("random0\n")
    with pytest.raises(ValueError, match="lines of system,reference energy"):
        Relaxations(tmp_path / "0" / "system.txt", cutoff=4.0)


# Frames of text files


def test_frames_of_a_text(tmp_path):
    path = tmp_path / "mixed.extxyz"
    atoms = frames(2, 0)
    ase.io.write(path, atoms, format="extxyz")
    text = path.read_bytes()
    starts = frame_starts(text, path)
    assert len(starts) == 3 and starts[-1] == len(text)
    assert len(frame_starts(text.rstrip(b"\n"), path)) == 3  # no end of the last line
    assert len(frame_starts(text + b"\n\n", path)) == 3  # and too many of them
    found = ExtxyzFrames.of(path, cutoff=4.0)
    assert found.text(0) + found.text(1) == text.decode()
    for wrong in (b"nine\n" + text, text.rstrip(b"\n").rpartition(b"\n")[0], b"3\ncomment\n"):
        with pytest.raises(ValueError, match="no extxyz file, or cut short"):
            frame_starts(wrong, path)


def test_compressed_text_that_would_fill_the_memory(tmp_path, monkeypatch):
    path = tmp_path / "0.extxyz.xz"
    path.write_bytes(lzma.compress(bytes(1_000_000)))
    assert len(read_text(path)) == 1_000_000
    monkeypatch.setattr("equipoise.data.sources.extxyz_frames._ALWAYS_ALLOWED", 1000)
    with pytest.raises(
        ValueError, match="0.extxyz.xz is refused: it unpacks to more than 100 times"
    ):
        read_text(path)
