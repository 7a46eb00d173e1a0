"""QM9: the raw archive, the tables of qm9pack and flat arrays; fifteen properties."""

import io
import json
import tarfile

import numpy as np
import pytest
from ase.build import molecule
from ase.units import Hartree

from equipoise.data import Counts, Report, Structures, Subset, read_source
from equipoise.data.sources import qm9
from equipoise.data.sources.division import divide
from equipoise.data.sources.qm9 import MEANING, PROPERTIES, read_qm9
from equipoise.data.sources.record import Parts
from equipoise.data.structures import Structure

NAMES = ["CH4", "NH3", "H2O", "C2H2", "HCN", "H2CO", "C2H6", "CH3OH"]


def properties(index):
    """A number for each property, different everywhere; U0 about right for water."""
    values = [100.0 * index + column + 0.25 for column in range(15)]
    values[10] = -76.4 - index
    return values


def raw(index, name):
    """One file of the archive; some numbers as its authors' program wrote them."""
    atoms = molecule(name)
    lines = [str(len(atoms)), f"gdb {index}\t" + "\t".join(map(repr, properties(index))) + "\t"]
    for symbol, position in zip(atoms.symbols, atoms.positions, strict=True):
        words = [f"{x:.10f}" for x in position]
        if abs(position[0]) < 1e-6:
            words[0] = "1.5*^-6"
        lines.append("\t".join([symbol, *words, "-0.5"]))
    lines += ["10.0\t20.0\t", "C\tC\t", "InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4"]
    return "\n".join(lines) + "\n"


def archive(folder, excluded=(2, 5)):
    folder.mkdir(exist_ok=True)
    with tarfile.open(folder / "dsgdb9nsd.xyz.tar.bz2", "w:bz2") as tar:
        for index, name in enumerate(NAMES, start=1):
            data = raw(index, name).encode()
            info = tarfile.TarInfo(f"dsgdb9nsd_{index:06d}.xyz")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    header = ["=" * 40, "3 molecules", "7 of them", "", "1 more line", "", "", "=" * 40, "Index"]
    rows = [f"   {index}   C1CC1   C1CC1   0.1" for index in excluded]
    (folder / "uncharacterized.txt").write_text("\n".join([*header, *rows, "=" * 40, "8 end"]))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return archive(tmp_path_factory.mktemp("qm9"))


def test_raw_archive_without_the_uncharacterised(folder):
    graphs = read_qm9(folder, cutoff=5.0)
    kept = [1, 3, 4, 6, 7, 8]
    assert len(graphs) == 6
    for graph, index in zip(graphs, kept, strict=True):
        atoms = molecule(NAMES[index - 1])
        assert graph.species.tolist() == atoms.numbers.tolist()
        expected = atoms.positions - atoms.positions.mean(axis=0)
        np.testing.assert_allclose(graph.positions, expected, atol=1e-5)
        assert float(graph.energy) == pytest.approx((-76.4 - index) * Hartree, rel=1e-6)
    assert Report.of(graphs) == Report(structures=6, energy=6, forces=0, stress=0)


@pytest.mark.parametrize("target", PROPERTIES)
def test_every_target(folder, target):
    column, _, factor, unit = PROPERTIES[target]
    graphs = read_qm9(folder, cutoff=5.0, target=target)
    assert float(graphs[1].energy) == pytest.approx(properties(3)[column] * factor)
    assert (factor == pytest.approx(Hartree)) == (unit == "eV")
    assert unit in MEANING[target] or factor == 1.0
    assert graphs.labels() == {"energy": target}


def test_it_is_read_once(folder, monkeypatch):
    read_qm9(folder, cutoff=5.0)
    monkeypatch.setattr(qm9, "_from_tar", None)
    assert len(read_qm9(folder, cutoff=5.0)) == 6
    assert len(read_qm9(folder / "qm9_arrays.npz", cutoff=5.0)) == 6


def test_tables_of_qm9pack(tmp_path):
    columns = [column for _, column, _, _ in PROPERTIES.values()]
    for part, rows in ((1, (1, 3)), (2, (4,))):
        lines = [",".join(["XYZ_file", "Index", "Elements", "XYZ_Ang", *columns])]
        for index in rows:
            atoms = molecule(NAMES[index - 1])
            elements = "[" + ",".join(f"'{s}'" for s in atoms.symbols) + "]"
            # As they write it: "0." and "1.", which is no JSON.
            places = json.dumps(atoms.positions.round(6).tolist()).replace("0.0,", "0.,")
            values = ",".join(map(repr, properties(index)))
            lines.append(f'"a.xyz",{index},"{elements}","{places}",{values}')
        (tmp_path / f"qm9_part{part}.csv").write_text("\n".join(lines) + "\n")
    graphs = read_qm9(tmp_path, cutoff=5.0)
    assert [g.n_atoms for g in graphs] == [5, 3, 4]
    assert float(graphs[2].energy) == pytest.approx(-80.4 * Hartree, rel=1e-6)
    (tmp_path / "qm9_arrays.npz").unlink()
    (tmp_path / "qm9_part2.csv").write_text(lines[0] + '\n"a.xyz",4,"[\'C\']","[[0.,0.')
    with pytest.raises(ValueError, match="qm9_part2.csv, line 2, is no row of QM9"):
        read_qm9(tmp_path, cutoff=5.0)
    assert not (tmp_path / "qm9_arrays.npz").exists()


def test_division(folder):
    counts = Counts(train=3, validation=1)
    splits = read_source("qm9", folder=folder, cutoff=5.0, counts=counts)
    assert [len(p) for p in (splits.train, splits.validation, splits.test)] == [3, 1, 2]
    assert splits.target == "U0" and splits.theory == "B3LYP/6-31G(2df,p)"
    with pytest.raises(ValueError, match="has the targets U0, U, H, .* received 'dipole'"):
        read_source("qm9", folder=folder, cutoff=5.0, target="dipole")


def test_the_usual_division():
    (everything,) = qm9.SOURCE.variants
    usual = {"training": everything.training, "validation": everything.validation}
    parts = Parts(train=Subset(Molecules(everything.structures), range(everything.structures)))
    found = divide(parts, Counts(), where="qm9", **usual)
    assert [len(part) for part in found] == [110_000, 10_000, 10_831]
    fewer = divide(parts, Counts(validation=50), where="qm9", **usual)
    assert [len(part) for part in fewer] == [119_950, 50, 10_831]
    np.testing.assert_array_equal(fewer[2].rows, found[2].rows)  # the same ones test


def test_of_a_few_molecules_one_in_ten_validates():
    parts = Parts(train=Subset(Molecules(30), range(30)))
    found = divide(parts, Counts(), where="", training=120_000, validation=10_000)
    assert [len(part) for part in found] == [24, 3, 3]


class Molecules(Structures):
    """A number of structures; what they are matters to nobody here."""

    cutoff = 3.0

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __str__(self):
        return "molecules"

    def structure(self, index):
        return Structure(positions=np.zeros((1, 3)), species=np.ones(1, dtype=int), energy=-13.6)

    def labels(self):
        return {}


def test_damaged_archives(tmp_path):
    place = archive(tmp_path / "q")
    tar = place / "dsgdb9nsd.xyz.tar.bz2"
    tar.write_bytes(tar.read_bytes()[:-200])
    with pytest.raises(ValueError, match="tar.bz2 is damaged"):
        read_qm9(place, cutoff=5.0)
    assert not (place / "qm9_arrays.npz").exists(), "half a set is not kept"
    archive(place)
    (place / "uncharacterized.txt").unlink()
    with pytest.raises(ValueError, match="no .*uncharacterized.txt: 3,054 molecules"):
        read_qm9(place, cutoff=5.0)
    with pytest.raises(FileNotFoundError, match="equipoise data download qm9"):
        read_qm9(tmp_path, cutoff=5.0)


def test_a_list_that_leaves_the_wrong_ones(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(qm9, "_ALL", len(NAMES))
    place = archive(tmp_path / "q", excluded=(2,))
    with pytest.raises(ValueError, match="130,831 molecules .* must be left.* received 7"):
        read_qm9(place, cutoff=5.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace("gdb 1", "gdb one"), "is no file of QM9"),
        (
            lambda t: t.replace("\n10.0", "\nC\t10.0", 1).replace("5\n", "6\n", 1),
            "no file|must have",
        ),
        (lambda t: t.replace(repr(properties(1)[3]), "", 1), "15 properties, received 5 and 14"),
        (lambda t: t.replace("\nC\t", "\nQq\t", 1), "is no file of QM9"),
    ],
)
def test_damaged_molecules(change, message):
    with pytest.raises(ValueError, match=message):
        qm9._parse(change(raw(1, "CH4")), "here")
