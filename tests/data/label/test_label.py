"""Labels: right, where they should be, and the same however often the work was stopped."""

import json
import os
import random
import resource
import shutil
import signal

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.md.langevin import Langevin as Integrator

from equipoise.data import Report, read
from equipoise.data.label import (
    Interrupted,
    Langevin,
    Method,
    Request,
    StoreError,
    TooManyFailures,
    label,
    read_structures,
)
from equipoise.data.label.store import Store
from equipoise.data.provenance import theories_of
from tests.data.label.calculators import Springs

SPRINGS = "tests.data.label.calculators:Springs"
PLAN = Langevin(
    temperatures_k=(200.0, 400.0), frames=4, stride=2, equilibration=3, trajectories=2, chunk=2
)


def molecules(*symbols):
    """Water with the oxygen replaced: each its own composition, at its own place."""
    structures = []
    for number, symbol in enumerate(symbols):
        atoms = molecule("H2O")
        atoms.symbols[0] = symbol
        atoms.positions += number
        structures.append(atoms)
    return structures


def springs(**keywords):
    return Request(method=Method(SPRINGS, keywords))


def dynamics(plan=PLAN, seed=0, **keywords):
    return Request(method=Method(SPRINGS, keywords), langevin=plan, seed=seed)


def frames_of(folder):
    return ase.io.read(folder / "labels.extxyz", ":")


def failures_of(folder):
    return [json.loads(line) for line in (folder / "failures.jsonl").read_text().splitlines()]


def test_labels_are_those_of_the_calculator_and_read_without_editing(tmp_path, in_turn):
    structures = molecules("O", "S", "Se")
    summary = label(structures, springs(), folder=tmp_path, engine=in_turn(), source="mine")
    assert (summary.frames, summary.units, summary.failures) == (3, 3, {})
    graphs = read(summary.labels_file, cutoff=5.0)
    assert Report.of(graphs) == Report(structures=3, energy=3, forces=3, stress=0)
    for atoms, graph, frame in zip(structures, graphs, frames_of(tmp_path), strict=True):
        atoms.calc = Springs()
        forces = atoms.get_forces()
        # The one that forces belong to, not the extrapolated one, which is 0.5 eV higher here.
        assert graph.energy.item() == pytest.approx(atoms.calc.results["free_energy"], abs=1e-12)
        np.testing.assert_allclose(graph.forces.numpy(), forces, atol=1e-8)
        assert frame.info["theory"] == SPRINGS
    assert theories_of(summary.labels_file) == (SPRINGS,)
    record = json.loads((tmp_path / "record.json").read_text())
    assert (record["complete"], record["frames"], record["source"]) == (True, 3, "mine")
    assert not summary.failures_file.exists()


def test_stress_of_periodic_structures_has_the_sign_and_order_of_ase(tmp_path, in_turn):
    copper = bulk("Cu", cubic=True)
    copper.set_cell(
        copper.cell.array @ (np.eye(3) + [[0.03, 0.01, 0], [0, -0.02, 0.005], [0, 0, 0]]),
        scale_atoms=True,
    )
    slab = copper.copy()
    slab.pbc = (True, True, False)
    label([copper, slab], Request(method=Method("emt")), folder=tmp_path, engine=in_turn())
    first, second = read(tmp_path / "labels.extxyz", cutoff=3.0)
    copper.calc = EMT()
    np.testing.assert_allclose(first.stress.numpy().ravel(), copper.get_stress(), rtol=1e-6)
    assert second.stress is None or bool(second.stress.isnan().all())
    assert second.energy is not None


def test_dynamics_are_those_of_ase(tmp_path, in_turn):
    """Against a plain loop: same draws, same steps, and the frames that were asked for."""
    start = molecules("O")[0]
    plan = Langevin(temperatures_k=(300.0,), frames=3, stride=4, equilibration=5, chunk=100)
    label([start], dynamics(plan, seed=3), folder=tmp_path, engine=in_turn())
    rng = np.random.default_rng([3, 0])
    atoms = start.copy()
    masses = atoms.get_masses()[:, None]
    atoms.set_momenta(np.sqrt(masses * units.kB * 300) * rng.standard_normal((3, 3)))
    atoms.calc = Springs()
    integrator = Integrator(
        atoms, 0.5 * units.fs, temperature_K=300, friction=0.01 / units.fs, fixcm=False, rng=rng
    )
    integrator.run(5)
    for number, frame in enumerate(frames_of(tmp_path), start=1):
        integrator.run(4)
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-8)
        np.testing.assert_allclose(frame.arrays["REF_forces"], atoms.get_forces(), atol=1e-8)
        assert (frame.info["frame"], frame.info["time_fs"]) == (number, 0.5 * (5 + 4 * number))
    assert number == 3


def test_dynamics_have_their_temperature(tmp_path, in_turn):
    """Two atoms on a stiff spring have kT/2 of potential energy."""
    pair = Atoms("Ar2", [[0, 0, 0], [0, 0, 1.0]])
    plan = Langevin(
        temperatures_k=(300.0,),
        frames=60,
        stride=6,
        timestep_fs=8.0,
        friction_per_ps=20.0,
        equilibration=50,
        chunk=60,
    )
    label([pair], dynamics(plan), folder=tmp_path, engine=in_turn())
    mean = np.mean([frame.info["REF_energy"] for frame in frames_of(tmp_path)])
    assert mean == pytest.approx(0.5 * units.kB * 300, rel=0.2)


def test_labels_do_not_depend_on_who_was_faster(tmp_path, in_turn):
    structures = molecules("O", "S")
    for order in (0, 1):
        label(
            structures,
            dynamics(memory=True),
            folder=tmp_path / str(order),
            engine=in_turn(order=order),
        )
    label(structures, dynamics(memory=True), folder=tmp_path / "alone", engine=in_turn(workers=1))
    label(
        structures,
        dynamics(memory=True, plan=PLAN, seed=1),
        folder=tmp_path / "other",
        engine=in_turn(),
    )
    files = [
        (tmp_path / name / "labels.extxyz").read_bytes() for name in ("0", "1", "alone", "other")
    ]
    assert files[0] == files[1] == files[2] != files[3]
    frames = frames_of(tmp_path / "0")
    assert [frame.info["trajectory"] for frame in frames] == sorted(list(range(8)) * 4)
    assert len({frame.info["REF_energy"] for frame in frames}) == 32  # no two trajectories alike


@pytest.mark.parametrize("done", [0, 2, 9])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(tmp_path, in_turn, done):
    def press(number):
        if number == done:
            os.kill(os.getpid(), signal.SIGINT)

    structures = molecules("O")
    with pytest.raises(Interrupted, match="start the same again to go on"):
        label(structures, dynamics(), folder=tmp_path / "a", engine=in_turn(before=press))
    record = json.loads((tmp_path / "a" / "record.json").read_text())
    assert not record["complete"]
    # What was in progress is finished, but nothing new is begun.
    assert len((tmp_path / "a" / "journal" / "units.jsonl").read_text().splitlines()) <= done + 3
    label(structures, dynamics(), folder=tmp_path / "a", engine=in_turn(order=7))
    label(structures, dynamics(), folder=tmp_path / "b", engine=in_turn())
    assert (tmp_path / "a" / "labels.extxyz").read_bytes() == (
        tmp_path / "b" / "labels.extxyz"
    ).read_bytes()
    assert json.loads((tmp_path / "a" / "record.json").read_text())["starts"] == 2


def test_a_second_ctrl_c_stops_at_once(tmp_path, in_turn):
    before = signal.getsignal(signal.SIGINT)

    def press(number):
        if number in (2, 3):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        label(molecules("O"), dynamics(), folder=tmp_path, engine=in_turn(before=press))
    assert len((tmp_path / "journal" / "units.jsonl").read_text().splitlines()) == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_a_journal_cut_anywhere_loses_no_more_than_what_was_cut(tmp_path, in_turn):
    structures, whole = molecules("O", "S", "N"), tmp_path / "whole"
    request = dynamics(trouble={"N": "explode"}, plan=PLAN)
    label(structures, request, folder=whole, engine=in_turn(), max_failures=1.0)
    wanted = (whole / "labels.extxyz").read_bytes(), (whole / "failures.jsonl").read_bytes()
    chance = random.Random(0)
    for trial in range(6):
        folder = tmp_path / str(trial)
        shutil.copytree(whole, folder)
        name = ("frames.extxyz", "units.jsonl")[trial % 2]
        path = folder / "journal" / name
        os.truncate(path, chance.randrange(path.stat().st_size))
        tasks = []
        label(
            structures,
            request,
            folder=folder,
            engine=in_turn(before=tasks.append),
            max_failures=1.0,
        )
        assert tasks, "nothing was made again"
        assert (
            (folder / "labels.extxyz").read_bytes(),
            (folder / "failures.jsonl").read_bytes(),
        ) == wanted


def test_finished_work_is_not_done_again_and_more_frames_prolong_it(tmp_path, in_turn):
    def forbid(number):
        raise AssertionError("there was nothing to do")

    label(molecules("O"), dynamics(), folder=tmp_path, engine=in_turn())
    before = frames_of(tmp_path)
    label(molecules("O"), dynamics(), folder=tmp_path, engine=in_turn(before=forbid))
    assert frames_of(tmp_path) == before
    longer = Langevin(**{**PLAN.__dict__, "frames": 6})
    label(molecules("O"), dynamics(longer), folder=tmp_path, engine=in_turn())
    after = frames_of(tmp_path)
    assert len(after) == 4 * 6
    assert [frame for frame in after if frame.info["frame"] <= 4] == before


def test_another_request_is_refused_with_what_differs_and_touches_nothing(tmp_path, in_turn):
    label(molecules("O"), dynamics(), folder=tmp_path, engine=in_turn())
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    hotter = Langevin(**{**PLAN.__dict__, "temperatures_k": (200.0, 500.0)})
    for structures, request, says in (
        (
            molecules("O"),
            dynamics(hotter),
            r"temperatures_k was \[200.0, 400.0\] and is now \[200.0, 500.0\]",
        ),
        (molecules("O"), dynamics(seed=4), "seed was 0 and is now 4"),
        (molecules("S"), dynamics(), "the structures changed"),
        (molecules("O", "S"), dynamics(), "structures was 1 and is now 2"),
        (molecules("O"), springs(), "now about single structures"),
    ):
        with pytest.raises(ValueError, match=says):
            label(structures, request, folder=tmp_path, engine=in_turn())
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    label(molecules("S"), dynamics(), folder=tmp_path, engine=in_turn(), resume=False)
    assert {frame.symbols[0] for frame in frames_of(tmp_path)} == {"S"}


def test_labels_from_elsewhere_and_lost_journals_are_not_overwritten(tmp_path, in_turn):
    (tmp_path / "labels.extxyz").write_text("precious")
    with pytest.raises(ValueError, match="no record.json to compare with"):
        label(molecules("O"), springs(), folder=tmp_path, engine=in_turn())
    assert (tmp_path / "labels.extxyz").read_text() == "precious"
    folder = tmp_path / "mine"
    label(molecules("O"), springs(), folder=folder, engine=in_turn())
    shutil.rmtree(folder / "journal")
    with pytest.raises(ValueError, match="journal is gone"):
        label(molecules("O"), springs(), folder=folder, engine=in_turn())
    assert len(frames_of(folder)) == 1
    (folder / "record.json").write_text('{"half": ')
    with pytest.raises(ValueError, match="must be the record of labels"):
        label(molecules("O"), springs(), folder=folder, engine=in_turn())


def test_two_runs_in_one_folder_are_refused(tmp_path, in_turn):
    store = Store(tmp_path)
    with pytest.raises(ValueError, match="another run is making labels"):
        label(molecules("O"), springs(), folder=tmp_path, engine=in_turn())
    store.close()
    label(molecules("O"), springs(), folder=tmp_path, engine=in_turn())


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ("raise", "RuntimeError: no convergence in 250 iterations"),
        ("nan energy", "BadLabel: the energy is nan"),
        ("nan force", "BadLabel: the force on atom 1 is "),
        ("shape", "BadLabel: forces must have shape (3, 3), received (2, 3)"),
    ],
)
@pytest.mark.parametrize("make", [springs, dynamics])
def test_failures_are_recorded_and_the_rest_goes_on(tmp_path, in_turn, trouble, says, make):
    structures, request = molecules("O", "N", "S"), make(trouble={"N": trouble})
    summary = label(structures, request, folder=tmp_path, engine=in_turn(), max_failures=0.5)
    per = 1 if make is springs else 4
    assert list(summary.failures) == list(range(per, 2 * per))
    assert {frame.info["structure"] for frame in frames_of(tmp_path)} == {0, 2}
    rows = failures_of(tmp_path)
    assert len(rows) == per
    for row in rows:
        assert row["structure"] == 1
        assert says in row["reason"]
        assert "second line" not in row["reason"]
    assert json.loads((tmp_path / "record.json").read_text())["failed"] == per


def test_too_many_failures_stop_the_run_early_and_say_why(tmp_path, in_turn):
    tasks = []
    structures = molecules(*["N", "O"] * 50)
    request = springs(trouble={"N": "raise"})
    with pytest.raises(
        TooManyFailures, match="more than the limit of 10 %.*no convergence"
    ) as error:
        label(structures, request, folder=tmp_path, engine=in_turn(before=tasks.append))
    assert str(tmp_path / "failures.jsonl") in str(error.value)
    assert len(tasks) < 25
    assert len(frames_of(tmp_path)) + len(failures_of(tmp_path)) == len(tasks)
    # A handful is judged only when all have ended.
    with pytest.raises(TooManyFailures, match="1 of 4 structures failed"):
        label(molecules("O", "N", "S", "F"), request, folder=tmp_path / "few", engine=in_turn())
    assert len(frames_of(tmp_path / "few")) == 3


@pytest.mark.parametrize("make", [springs, dynamics])
def test_failures_are_tried_again_when_asked(tmp_path, in_turn, make):
    remedy, structures = tmp_path / "remedy", molecules("O", "N")
    request = make(trouble={"N": "raise"}, unless=str(remedy))
    folder = tmp_path / "labels"
    for _ in range(2):  # not without being asked
        summary = label(structures, request, folder=folder, engine=in_turn(), max_failures=1.0)
        assert summary.failures
    remedy.touch()
    summary = label(structures, request, folder=folder, engine=in_turn(), retry=True)
    assert not summary.failures
    assert not summary.failures_file.exists()
    fresh = label(structures, request, folder=tmp_path / "fresh", engine=in_turn())
    assert summary.labels_file.read_bytes() == fresh.labels_file.read_bytes()


def test_a_trajectory_that_explodes_ends_and_keeps_what_was_good(tmp_path, in_turn):
    plan = Langevin(
        temperatures_k=(300.0,), frames=60, stride=1, equilibration=0, chunk=5, max_gap=1e9
    )
    request = dynamics(plan, trouble={"N": "explode"})
    summary = label(
        molecules("O", "N"), request, folder=tmp_path, engine=in_turn(), max_failures=0.5
    )
    [row] = failures_of(tmp_path)
    assert "above the bound of 3000 K" in row["reason"]
    assert 0 < row["frames"] < row["step"] + 1 < 60
    assert summary.frames == 60 + row["frames"]


def test_a_molecule_that_breaks_ends_its_trajectory(tmp_path, in_turn):
    plan = Langevin(
        temperatures_k=(300.0,),
        frames=60,
        stride=1,
        equilibration=0,
        max_gap=3.0,
        max_temperature_k=1e9,
    )
    request = dynamics(plan, trouble={"N": "explode"})
    label(molecules("O", "N"), request, folder=tmp_path, engine=in_turn(), max_failures=0.5)
    [row] = failures_of(tmp_path)
    assert "has no neighbour within 3 Å (max_gap" in row["reason"]
    last = [frame for frame in frames_of(tmp_path) if frame.info["structure"] == 1][-1]
    nearest = np.sort(last.get_all_distances(), axis=1)[:, 1]
    assert nearest.max() < 3.0


def test_a_start_with_atoms_on_top_of_each_other_is_a_failure_and_no_dynamics(tmp_path, in_turn):
    near, same = molecules("O", "O")
    near.positions[1] = near.positions[0] + [0, 0, 0.1]
    same.positions[1] = same.positions[0]
    label([near, same], dynamics(), folder=tmp_path, engine=in_turn(), max_failures=1.0)
    reasons = {row["structure"]: (row["step"], row["reason"]) for row in failures_of(tmp_path)}
    assert (
        reasons[0] == (0, "atoms 1 (H) and 0 (O) are 0.10 Å apart")
        or "0.10 Å apart" in reasons[0][1]
    )
    assert reasons[1][0] == 0
    assert not (tmp_path / "labels.extxyz").exists()


def test_constraints_hold_during_dynamics_but_not_for_the_labels(tmp_path, in_turn):
    start = molecules("O")[0]
    start.set_constraint(FixAtoms([0]))
    start.set_tags([2, 1, 1])
    label([start], dynamics(), folder=tmp_path, engine=in_turn())
    for frame in frames_of(tmp_path):
        np.testing.assert_allclose(frame.positions[0], start.positions[0], atol=1e-8)
        assert np.abs(frame.arrays["REF_forces"][0]).max() > 0
        assert np.abs(frame.positions[1] - start.positions[1]).max() > 1e-4
        (held,) = frame.constraints
        assert held.get_indices().tolist() == [0] and frame.get_tags().tolist() == [2, 1, 1]


def test_old_labels_do_not_survive(tmp_path, in_turn):
    start = molecules("O")[0]
    start.info = {"REF_energy": 5.0, "energy": 6.0, "stress": np.zeros(6)}
    start.arrays["forces"] = np.ones((3, 3))
    start.set_initial_charges([0.5, 0, 0.5])
    label([start], springs(), folder=tmp_path, engine=in_turn())
    [frame] = frames_of(tmp_path)
    assert set(frame.info) == {"REF_energy", "theory", "calculator_version", "structure"}
    assert set(frame.arrays) == {"numbers", "positions", "REF_forces", "initial_charges"}
    assert frame.info["REF_energy"] != 5.0


def test_a_full_disk_stops_with_everything_safe(tmp_path, in_turn):
    structures = molecules("O", "S")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(StoreError, match="no space left.*start the same again"):
            label(structures, dynamics(), folder=tmp_path / "a", engine=in_turn())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    tasks = []
    label(structures, dynamics(), folder=tmp_path / "a", engine=in_turn(before=tasks.append))
    label(structures, dynamics(), folder=tmp_path / "b", engine=in_turn())
    assert 0 < len(tasks) < 24  # of 24: something was kept
    assert (tmp_path / "a" / "labels.extxyz").read_bytes() == (
        tmp_path / "b" / "labels.extxyz"
    ).read_bytes()


@pytest.mark.parametrize(
    ("structures", "request_", "says"),
    [
        ([], springs(), "at least one structure"),
        ([Atoms()], springs(), "structure 0 must have atoms"),
        ([Atoms("X")], springs(), "atom 0 of structure 0 is a dummy"),
        ([Atoms("H", [[0, 0, np.nan]])], springs(), "positions of structure 0 must be finite"),
        (
            [bulk("Fe")],
            Request(method=Method("emt")),
            "EMT does not know Fe.*choose another calculator",
        ),
    ],
)
def test_what_nothing_can_compute_is_refused_before_anything_is_written(
    tmp_path, in_turn, structures, request_, says
):
    with pytest.raises(ValueError, match=says):
        label(structures, request_, folder=tmp_path / "new", engine=in_turn())
    assert not (tmp_path / "new").exists()


def test_one_strange_element_is_a_failure_with_a_clear_reason(tmp_path, in_turn):
    structures = [bulk("Cu"), bulk("Fe"), bulk("Al")]
    label(
        structures,
        Request(method=Method("emt")),
        folder=tmp_path,
        engine=in_turn(),
        max_failures=0.5,
    )
    [row] = failures_of(tmp_path)
    assert row["reason"].startswith("EMT does not know Fe (atom 0)")


def test_structures_are_read_as_files_have_them(tmp_path):
    path = tmp_path / "three.xyz"
    ase.io.write(path, molecules("O", "S", "Se"))
    assert len(read_structures(path)) == 3
    assert [str(atoms.symbols) for atoms in read_structures(path, index="::2")] == ["OH2", "SeH2"]
    assert len(read_structures(path, index="-1")) == 1
    (tmp_path / "empty.xyz").write_text("")
    (tmp_path / "noise.xyz").write_text("hello\nworld\n")
    for name, index, error, says in (
        ("none.xyz", ":", FileNotFoundError, "there is no file"),
        ("empty.xyz", ":", ValueError, "empty.xyz"),
        ("noise.xyz", ":", ValueError, "ASE cannot read"),
        ("three.xyz", "7", ValueError, "'7'"),
        ("three.xyz", "5:", ValueError, "nothing to label"),
        ("three.xyz", "first", ValueError, "'first'"),
    ):
        with pytest.raises(error, match=says):
            read_structures(tmp_path / name, index=index)
