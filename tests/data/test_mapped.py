"""The mapped format: what goes in comes out, and nothing half-made or damaged passes for a data set."""

import json
import os
import pickle
import resource
import signal
import time
import weakref

import ase.build
import numpy as np
import pytest
import torch

from equipoise.data import (
    MappedStructures,
    Report,
    Structure,
    edge_counts,
    label_keys,
    read,
    statistics,
    write_mapped,
)
from equipoise.graph import Graph, batch
from tests.data.made import CUTOFF, ethanol, in_child, labelled, mixture, same


@pytest.fixture
def folder(tmp_path):
    write_mapped(tmp_path / "mixture", mixture(), info={"source": "made up", "theory": "none"})
    return tmp_path / "mixture"


def header(folder, **changes):
    path = folder / "header.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


# What is written is read


def test_everything_comes_back_to_the_last_bit(folder):
    graphs, expected = MappedStructures(folder, cutoff=CUTOFF), mixture()
    assert len(graphs) == len(expected)
    for graph, other in zip(graphs, expected, strict=True):
        assert same(graph, other)
    assert Report.of(graphs) == Report.of(expected) == Report(6, 4, 4, 1)
    assert graphs.info == {"source": "made up", "theory": "none"}
    assert graphs.header["elements"] == {"1": 12, "2": 1, "6": 7, "8": 1, "13": 2, "29": 1}


def test_the_set_trains_like_the_list_it_was_made_from(tmp_path):
    expected = ethanol(40)
    write_mapped(tmp_path / "ethanol", expected)
    graphs = MappedStructures(tmp_path / "ethanol", cutoff=CUTOFF)
    assert statistics(graphs) == statistics(expected)
    assert same(batch(graphs[3:9]), batch(expected[3:9]))


def test_batches_and_generators_are_written_one_by_one(tmp_path):
    graphs = mixture()
    write_mapped(tmp_path / "a", (batch(part) for part in (graphs[:4], graphs[4:])))
    for graph, other in zip(MappedStructures(tmp_path / "a", cutoff=CUTOFF), graphs, strict=True):
        assert same(graph, other)


def test_writing_keeps_one_structure_in_memory(tmp_path):
    alive = []

    def source():
        for graph in ethanol(20):
            copy = graph.replace(energy=graph.energy + 1)
            alive.append(weakref.ref(copy))
            yield copy
            del copy, graph
            assert sum(reference() is not None for reference in alive) <= 1

    write_mapped(tmp_path / "a", source())
    assert len(MappedStructures(tmp_path / "a", cutoff=CUTOFF)) == 20


def test_progress_is_reported(tmp_path):
    seen = []
    write_mapped(tmp_path / "a", mixture(), progress=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]


def test_another_data_set_can_be_written_again_with_its_tags(tmp_path):
    structures = [
        Structure(
            positions=np.array([[0.0, 0, 0], [0, 0, 1.2]]),
            species=np.array([6, 8]),
            energy=1.0,
            forces=np.ones((2, 3)),
            tags=np.array([0, 2]),
            fixed=np.array([True, False]),
        ),
        Structure(positions=np.zeros((1, 3)), species=np.array([2]), energy=2.0),
    ]

    class Tagged(MappedStructures):
        def __init__(self):
            self.cutoff = CUTOFF

        def __len__(self):
            return 2

        def structure(self, index):
            return structures[index]

    write_mapped(tmp_path / "a", Tagged())
    graphs = MappedStructures(tmp_path / "a", cutoff=CUTOFF)
    write_mapped(tmp_path / "b", graphs[::-1])
    again = MappedStructures(tmp_path / "b", cutoff=CUTOFF, free_atoms_only=True)
    assert again.structure(1).tags.tolist() == [0, 2]
    assert again.structure(0).fixed.tolist() == [False]  # said nothing
    assert graphs[0].forces.tolist() == [[1.0, 1.0, 1.0]] * 2
    np.testing.assert_array_equal(again[1].forces, [[np.nan] * 3, [1.0] * 3])


def test_arrays_are_readable_without_the_library(folder):
    positions = np.load(folder / "positions.npy", mmap_mode="r", allow_pickle=False)
    offsets = np.load(folder / "offsets.npy", allow_pickle=False)
    np.testing.assert_array_equal(
        positions[offsets[1] : offsets[2]], mixture()[1].positions.numpy()
    )


def test_files_that_would_hold_nothing_are_left_out(tmp_path):
    write_mapped(tmp_path / "a", [labelled(ase.build.molecule("H2O"), ("energy",), 0)])
    names = {path.name for path in (tmp_path / "a").iterdir()}
    arrays = {"positions", "species", "offsets", "edges", "energy"}
    assert names == {"header.json", *(f"{name}.npy" for name in arrays)}


def test_float32_is_rounded_at_the_origin(tmp_path):
    graphs = mixture()
    write_mapped(tmp_path / "a", graphs, float32=True)
    write_mapped(tmp_path / "b", graphs)
    small = MappedStructures(tmp_path / "a", cutoff=CUTOFF)
    benzene, expected = small[1], graphs[1].positions
    assert benzene.positions.dtype == torch.float64
    error = benzene.positions - (expected - expected.mean(dim=0))
    assert 0 < float(error.abs().max()) < 2e-7  # rounding first, at 200 Å, would cost 8e-6
    sizes = [(tmp_path / name / "positions.npy").stat().st_size - 128 for name in "ab"]
    assert sizes[0] * 2 == sizes[1]
    assert float(small[0].energy) == float(graphs[0].energy)
    assert small.edge_counts().tolist() == [graph.n_edges for graph in small]


# A sequence, in this process and in others


def test_slices_are_views_of_the_same_file(folder):
    graphs, expected = MappedStructures(folder, cutoff=CUTOFF), mixture()
    part = graphs[1:6][::2]
    assert [same(a, b) for a, b in zip(part, expected[1:6:2], strict=True)] == [True] * 3
    assert same(part[-1], expected[5]) and same(graphs[-6], expected[0])
    assert part.graphs is graphs
    for index in (6, -7):
        with pytest.raises(IndexError, match="-6 to 5"):
            graphs[index]
    assert Report.of(part) == Report.of(expected[1:6:2])


def test_a_set_can_be_sent_to_another_process(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    graphs = MappedStructures("mixture", cutoff=CUTOFF, free_atoms_only=True)
    sent = pickle.dumps((graphs, graphs[2:]))
    assert len(sent) < 1500  # the path, not the data
    monkeypatch.chdir("/")
    whole, part = pickle.loads(sent)
    assert same(whole[3], graphs[3]) and same(part[1], graphs[3]) and whole.free_atoms_only


def test_forked_processes_read_the_same(folder):
    graphs = MappedStructures(folder, cutoff=CUTOFF)

    def child():
        os._exit(0 if all(same(a, b) for a, b in zip(graphs, mixture(), strict=True)) else 1)

    assert in_child(child) == 0


def test_edges_are_known_without_making_them(tmp_path, monkeypatch):
    many = mixture() * 20
    write_mapped(tmp_path / "a", many)
    graphs = MappedStructures(tmp_path / "a", cutoff=CUTOFF)
    expected = statistics(many[:100])
    made, graph = [], Structure.graph

    def counted(self, cutoff):
        made.append(self)
        return graph(self, cutoff)

    monkeypatch.setattr(Structure, "edges", None)
    monkeypatch.setattr(Structure, "graph", counted)
    assert edge_counts(graphs).tolist() == [graph.n_edges for graph in many]
    assert edge_counts(graphs[::-1]).tolist() == [graph.n_edges for graph in many[::-1]]
    assert statistics(graphs[:100]) == expected
    assert len(made) < 50  # by the checks of types while testing, one item of each sequence


def test_edges_for_another_cutoff_are_counted_once(folder):
    expected = [graph.n_edges for graph in MappedStructures(folder, cutoff=3.0)]
    assert MappedStructures(folder, cutoff=3.0).edge_counts().tolist() == expected
    kept = folder / "edges_3.0.npy"
    np.save(kept, np.arange(6))
    assert MappedStructures(folder, cutoff=3.0).edge_counts().tolist() == list(range(6))
    kept.write_bytes(kept.read_bytes()[:-9])  # cut short: not believed
    assert MappedStructures(folder, cutoff=3.0).edge_counts().tolist() == expected
    assert not list(folder.glob("*.partial"))


def test_a_folder_that_cannot_be_written_to_is_counted_every_time(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    counts = MappedStructures(folder, cutoff=3.0).edge_counts()
    assert counts.tolist() == [graph.n_edges for graph in MappedStructures(folder, cutoff=3.0)]
    assert sorted(path.name for path in folder.glob("edges*")) == ["edges.npy"]


def test_read_knows_the_format(folder):
    graphs = read(folder, cutoff=CUTOFF)
    assert isinstance(graphs, MappedStructures)
    assert label_keys(folder) == {"energy": "energy", "forces": "forces", "stress": "stress"}
    with pytest.raises(ValueError, match="have fixed names, received energy_key 'E'"):
        read(folder, cutoff=CUTOFF, energy_key="E")


def test_a_set_without_labels_is_refused_for_learning(tmp_path):
    write_mapped(tmp_path / "a", [labelled(ase.build.molecule("H2O"), (), 0)])
    with pytest.raises(ValueError, match="has no labels"):
        read(tmp_path / "a", cutoff=CUTOFF)
    assert len(read(tmp_path / "a", cutoff=CUTOFF, labelled=False)) == 1


# Nothing half-made


def leftovers(path):
    return sorted(p.name for p in path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("broken source")])
def test_an_interrupted_write_leaves_nothing(tmp_path, error):
    def source():
        yield from mixture()[:3]
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        write_mapped(tmp_path / "a", source())
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(("number", "limit"), [(100, 4096), (1500, 100_000)])
def test_a_full_disk_leaves_nothing_and_says_so(tmp_path, number, limit):
    """At the end, where little is written, and in the middle."""

    def child():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            write_mapped(tmp_path / "a", ethanol(1) * number)
        except OSError as error:
            text = str(error)
            os._exit(0 if "cannot write" in text and "nothing was left" in text else 1)
        os._exit(2)

    assert in_child(child) == 0
    assert leftovers(tmp_path) == []


def test_a_killed_write_is_no_data_set(tmp_path):
    def child():
        graph = ethanol(1)[0]

        def endless():
            while True:
                yield graph

        write_mapped(tmp_path / "a", endless())

    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    while not any(tmp_path.glob(".a.*.partial/positions.npy")):
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not (tmp_path / "a").exists()
    (left,) = tmp_path.glob(".a.*.partial")
    with pytest.raises(ValueError, match="no mapped data set"):
        MappedStructures(left, cutoff=CUTOFF)


def test_what_is_there_is_not_overwritten(folder):
    with pytest.raises(FileExistsError, match="mixture exists; delete it"):
        write_mapped(folder, mixture())
    assert len(MappedStructures(folder, cutoff=CUTOFF)) == 6


@pytest.mark.parametrize(
    ("graphs", "options", "message"),
    [
        ([], {}, "at least one structure"),
        (["two"], {}, "same cutoff, received 4.0 and 5.0"),
        (["water"], {"info": {"when": object()}}, "info must be a record that JSON can hold"),
    ],
)
def test_what_cannot_be_written(tmp_path, graphs, options, message):
    water = ase.build.molecule("H2O")
    made = {
        "two": [Graph.from_ase(water, 4.0), Graph.from_ase(water, 5.0)],
        "water": [Graph.from_ase(water, 4.0)],
    }
    with pytest.raises(ValueError, match=message):
        write_mapped(tmp_path / "a", made[graphs[0]] if graphs else [], **options)
    assert leftovers(tmp_path) == []


# Nothing damaged, foreign or from the future


def cut(folder):
    path = folder / "forces.npy"
    path.write_bytes(path.read_bytes()[:-8])


def pickled(folder):
    """An array of Python objects of the size that the header names."""
    path = folder / "cell.npy"
    size = path.stat().st_size
    np.save(path, np.array([{}], dtype=object), allow_pickle=True)
    data = path.read_bytes()
    path.write_bytes(data + bytes(size - len(data)))


def reshaped(folder):
    path = folder / "stress.npy"
    np.save(path, np.load(path, allow_pickle=False).reshape(2, 18))


def backwards(folder):
    path = folder / "offsets.npy"
    offsets = np.load(path, allow_pickle=False)
    offsets[2] = offsets[3]
    np.save(path, offsets)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, r"forces.npy must have \d+ bytes, received \d+"),
        (lambda f: (f / "species.npy").unlink(), "incomplete: there is no species.npy"),
        (pickled, "cell.npy is damaged"),
        (reshaped, r"stress.npy must have shape \(6, 6\)"),
        (backwards, "offsets.npy must rise"),
        (lambda f: (f / "header.json").unlink(), "no mapped data set: it has no header.json"),
        (lambda f: (f / "header.json").write_text("{"), "header.json cannot be read"),
        (lambda f: (f / "header.json").write_text("[1]"), "no mapped data set"),
        (lambda f: header(f, format="other"), "no mapped data set.*received 'other'"),
        (lambda f: header(f, version=2), "version 2 of the mapped format.*install a newer"),
        (lambda f: header(f, units={"energy": "kcal/mol"}), "must be in .*received .*kcal/mol"),
        (lambda f: header(f, arrays={}), "header.json lacks entries"),
        (lambda f: header(f, structures="6"), "header.json lacks entries"),
    ],
)
def test_damaged_and_foreign_folders(folder, damage, message):
    damage(folder)
    with pytest.raises(ValueError, match=message):
        MappedStructures(folder, cutoff=CUTOFF)


def test_header_names_no_files_elsewhere(folder):
    arrays = json.loads((folder / "header.json").read_text())["arrays"]
    header(folder, arrays={**arrays, "../../secret": arrays["energy"]})
    with pytest.raises(ValueError, match="header.json lacks entries"):
        MappedStructures(folder, cutoff=CUTOFF)


def test_a_flipped_bit_is_found_by_verify(folder):
    MappedStructures(folder, cutoff=CUTOFF).verify()
    data = bytearray((folder / "forces.npy").read_bytes())
    data[-20] ^= 1
    (folder / "forces.npy").write_bytes(data)
    with pytest.raises(ValueError, match="forces.npy is not what was written"):
        MappedStructures(folder, cutoff=CUTOFF).verify()


def test_no_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*absent"):
        MappedStructures(tmp_path / "absent", cutoff=CUTOFF)
    with pytest.raises(ValueError, match="cutoff must be"):
        MappedStructures(tmp_path, cutoff=0.0)
