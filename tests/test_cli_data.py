"""`equipoise data`: every command by hand, on small files and the ethanol that is shipped."""

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.constraints import FixAtoms
from typer.testing import CliRunner, Result

from equipoise.cli import app
from equipoise.data import SOURCES, MappedStructures, Remote, read
from equipoise.train import load_recipe, read_datasets


def run(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["data", *(str(each) for each in arguments)])
    assert result.exit_code == code, f"{result.output}\n{result.exception!r}"
    return result


def message(*arguments: object) -> str:
    """What a failing command says, in one line."""
    result = run(*arguments, code=1)
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EQUIPOISE_DATA", str(tmp_path / "cache"))
    return tmp_path


def trajectory(path: Path, count: int = 30, **more: object) -> Path:
    atoms = molecule("CH3CH2OH")
    rng = np.random.default_rng(0)
    forces = rng.normal(size=(count, 9, 3))
    np.savez(
        path,
        z=atoms.numbers,
        R=atoms.positions + 0.05 * rng.normal(size=(count, 9, 3)),
        E=-4210.0 + rng.normal(size=count),
        F=forces - forces.mean(axis=1, keepdims=True),
        e_unit="eV",
        **more,
    )
    return path


def test_list_names_every_data_set() -> None:
    text = run("list").stdout
    for name in SOURCES:
        assert f" {name} " in text
    assert "shipped" in text


@pytest.mark.parametrize("name", SOURCES)
def test_info_says_everything(name: str) -> None:
    text = " ".join(run("info", name).stdout.split())
    source = SOURCES[name]
    for value in (source.theory, source.licence, source.citation):
        assert value in text
    for variant in source.variants:
        assert variant.name in text or variant.name == "all"
        for remote in source.files_of(variant):
            assert remote.name in text


def test_unknown_names() -> None:
    assert "did you mean 'md22'" in message("info", "md-22")
    assert "no file 'nothing.xyz', and no data set" in message("stats", "nothing.xyz")
    assert "equipoise data download md22 --subset DHA" in message("stats", "md22:DHA")


def test_stats(here: Path) -> None:
    path = trajectory(here / "e.npz", theory="PBE/x")
    result = run("stats", path, "--cutoff", 3, "--json", "stats.json")
    text = " ".join(result.stdout.split())
    for expected in ("30 energy, 30 forces", "PBE/x", "H 180 atoms in 30", "within 3 Å", "a fit"):
        assert expected in text
    assert "look:" not in result.stderr
    found = json.loads(Path("stats.json").read_text())
    assert found["structures"] == 30 and found["statistics"]["mean_neighbours"] > 2
    assert found["elements"] == {"1": [180, 30], "6": [60, 30], "8": [30, 30]}


def test_stats_of_what_is_wrong(here: Path) -> None:
    frames = [molecule("H2O") for _ in range(3)]
    for number, atoms in enumerate(frames):
        atoms.info["REF_energy"] = -14.0 - number
    ase.io.write("same.extxyz", frames)
    text = run("stats", "same.extxyz").stderr
    assert "look: 2 structures are there twice, such as 0 and 1" in text
    for atoms in frames:
        atoms.info["REF_energy"] = -47_950.0
    ase.io.write("kcal.extxyz", frames)
    assert "kcal.extxyz must be in eV, but they are what" in message("stats", "kcal.extxyz")


def test_plot(here: Path) -> None:
    run("plot", trajectory(here / "e.npz"), "-o", "e.png")
    assert Path("e.png").read_bytes().startswith(b"\x89PNG")
    frames = [molecule("H2O"), molecule("CH4")]  # of different size, and with energies only
    for atoms in frames:
        atoms.info["REF_energy"] = -14.0
    ase.io.write("few.extxyz", frames)
    run("plot", "few.extxyz", "-o", "few.svg")
    assert "<svg" in Path("few.svg").read_text()


def test_convert_to_text_and_to_a_mapped_folder(here: Path) -> None:
    path = trajectory(here / "e.npz", theory="PBE/x")
    said = run("convert", path, "--to", "e.extxyz").stderr
    assert "written: e.extxyz, 30 structures" in said
    assert (
        'theory="PBE/x"' in Path("e.extxyz").read_text()
        or "theory=PBE/x" in Path("e.extxyz").read_text()
    )
    said = run("convert", "e.extxyz", "--to", "mapped", "--cutoff", 4).stderr
    assert "30 structures: 30 with energy, 30 with forces" in said
    text, mapped = read("e.extxyz", cutoff=4.0), MappedStructures("mapped", cutoff=4.0)
    assert mapped.info["theory"] == "PBE/x"
    for one, other in zip(text, mapped, strict=True):
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-12)
        np.testing.assert_allclose(one.forces, other.forces, atol=1e-12)
    assert "e.extxyz exists" in message("convert", path, "--to", "e.extxyz")
    run("convert", path, "--to", "e.extxyz", "--overwrite")
    assert "mapped exists" in message("convert", path, "--to", "mapped")
    assert "not overwritten" in message("convert", path, "--to", "mapped", "--overwrite")
    assert "--float32 is for a mapped folder" in message(
        "convert", path, "--to", "f.xyz", "--float32"
    )


def test_convert_joins_what_belongs_together_only(here: Path) -> None:
    one = trajectory(here / "one.npz", theory="PBE/x")
    two = trajectory(here / "two.npz", 20, theory="PBE/x")
    other = trajectory(here / "other.npz", theory="CCSD(T)")
    said = run("convert", one, two, "--to", "both.extxyz").stderr
    assert "50 structures" in said
    text = message("convert", one, other, "--to", "mixed.extxyz")
    assert "one.npz: PBE/x" in text and "other.npz: CCSD(T)" in text
    assert not Path("mixed.extxyz").exists()


def test_convert_copies_frames_as_they_are(here: Path) -> None:
    frames = [molecule("H2O") for _ in range(9)]
    for number, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=number)
        atoms.info = {"REF_energy": -14.0, "config_type": "abc"[number % 3]}
        atoms.set_constraint(FixAtoms([0]))
    ase.io.write("a.extxyz", frames)
    run("convert", "a.extxyz", "a.extxyz", "--to", "b.extxyz")
    assert Path("b.extxyz").read_text() == 2 * Path("a.extxyz").read_text()
    run("split", "b.extxyz", "--by", "config_type", "--train", 6, "--validation", 6)
    said = run("convert", "b.extxyz", "--to", "mapped").stderr
    assert "left behind: config_type; a mapped folder has no place" in said
    assert MappedStructures("mapped", cutoff=5.0).structure(0).fixed.tolist() == [
        True,
        False,
        False,
    ]


def test_convert_joins_labels_of_different_names(here: Path) -> None:
    """Beside REF_ labels plain ones would count for nothing."""
    for name, key in (("ref.extxyz", "REF_energy"), ("plain.extxyz", "energy")):
        frames = [molecule("H2O") for _ in range(2)]
        for number, atoms in enumerate(frames):
            atoms.rattle(0.05, seed=number)
            atoms.info |= {key: -2080.0 - number, "run": 7}
        ase.io.write(name, frames)
    run("convert", "ref.extxyz", "plain.extxyz", "--to", "all.extxyz")
    assert [float(graph.energy) for graph in read("all.extxyz", cutoff=4.0)] == [-2080, -2081] * 2
    assert all(atoms.info["run"] == 7 for atoms in ase.io.read("all.extxyz", ":"))
    run("convert", "ref.extxyz", "ref.extxyz", "--to", "refs.extxyz")
    assert "REF_energy" in Path("refs.extxyz").read_text()


def test_convert_keeps_parts_apart(here: Path) -> None:
    for part, count in (("train", 52), ("test", 4)):
        frames = [molecule("H2O") for _ in range(count)]
        for number, atoms in enumerate(frames):
            atoms.info["REF_energy"] = -14.0 - number - 100 * (part == "test")
        ase.io.write(f"{part}_300K.xyz", frames)
    given = ("convert", "3bpa:300K", "--folder", here)
    text = message(*given, "--to", "all.extxyz")
    assert "3bpa:300K has parts that must stay apart" in text and "--part train" in text
    assert not Path("all.extxyz").exists()
    for part, count in (("train", 2), ("validation", 50), ("test", 4), ("all", 56)):
        said = run(*given, "--part", part, "--to", f"{part}.extxyz").stderr
        assert f"{count} structures" in said
    run("stats", "3bpa:300K", "--folder", here)  # to look at all of it is no mistake


def test_split_and_train_on_the_parts(here: Path) -> None:
    run("convert", trajectory(here / "e.npz"), "--to", "e.extxyz")
    said = run("split", "e.extxyz", "--train", 20, "--validation", 0.2, "--folder", "parts").stderr
    assert [line.split()[1] for line in said.splitlines()] == ["20", "6", "4"]
    names = ("train", "validation", "test")
    recipe = load_recipe(
        "quickstart", ["data.source=file", *(f"data.{each}=parts/{each}.extxyz" for each in names)]
    )
    found = read_datasets(recipe.data, cutoff=5.0)
    assert [len(p) for p in (found.train, found.validation, found.test)] == [20, 6, 4]
    assert "parts/train.extxyz exists" in message("split", "e.extxyz", "--folder", "parts")
    text = message("split", "e.extxyz", "--train", "most", "--folder", "more")
    assert "--train must be a number of structures or a fraction below 1, received 'most'" in text


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server(here: Path) -> Iterator[str]:
    (here / "www").mkdir()
    handler = partial(Quiet, directory=str(here / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_download_and_use(here: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From "md22:DHA, please" to structures, with a server in between."""
    trajectory(here / "www" / "md22_DHA.npz", 90)
    md22 = SOURCES["md22"]
    dha = next(variant for variant in md22.variants if variant.name == "DHA")
    near = Remote(url=f"{server}/md22_DHA.npz", name="md22_DHA.npz")
    monkeypatch.setitem(SOURCES, "md22", replace(md22, variants=(replace(dha, files=(near,)),)))

    planned = run("download", "md22", "--subset", "DHA", "--dry-run").stderr
    assert near.url in planned and "no published checksum" in planned
    assert not Path("cache").exists()
    result = run("download", "md22", "--subset", "DHA")
    assert "Please cite: S. Chmiela et al." in result.stderr
    assert result.stderr.endswith("Next:  equipoise data stats md22:DHA\n")
    text = " ".join(run("stats", "md22:DHA").stdout.split())
    assert "structures 90" in text and "PBE+MBD" in text
    assert "fetched" in run("list").stdout
    recipe = load_recipe("quickstart", ["data.source=md22", "data.subset=DHA"])
    found = read_datasets(recipe.data, cutoff=5.0)
    assert [len(p) for p in (found.train, found.validation, found.test)] == [31, 50, 9]
    assert "MD22" in str(found) and "PBE+MBD" in str(found)


def test_download_that_fails(here: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    md22 = SOURCES["md22"]
    gone = Remote(url=f"{server}/gone.npz", name="gone.npz")
    monkeypatch.setitem(
        SOURCES, "md22", replace(md22, variants=(replace(md22.variants[0], files=(gone,)),))
    )
    text = run("download", "md22", "--subset", md22.variants[0].name, code=1).stderr
    assert "HTTP 404" in text and "on another machine" in text
    assert str(here / "cache" / "md22" / "gone.npz") in text
