"""Dynamics: conservation, files, restarts, and every way in which a run can end early."""

import csv
import io
import json
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import ase.build
import ase.io
import jaxtyping
import numpy as np
import pytest
from ase import units
from ase.constraints import FixAtoms, Hookean
from rich.console import Console

from equipoise.deq.predictors import Linear
from equipoise.engines import (
    DiskFullError,
    SimulationInterrupted,
    SimulationStopped,
    WarmStart,
    Watchdog,
    relax,
    run_md,
)
from equipoise.engines.drift import Drift, drift_of
from equipoise.engines.md_summary import Totals
from equipoise.engines.run_files import locked
from equipoise.engines.velocities import degrees_of_freedom, thermal_momenta
from equipoise.engines.watchdog import bonds_of
from equipoise.graph import Graph
from tests.engines.fakes import FakePotential, tiny_potential

RELAXED = relax(ase.build.molecule("CH3CH2OH"), FakePotential(), fmax=0.05).atoms
COLUMNS = [
    "step",
    "time_fs",
    "potential_ev",
    "kinetic_ev",
    "total_ev",
    "temperature_k",
    "passes",
    "adjoint_passes",
    "residual",
    "seconds",
    "conserved_ev",
    "volume_angstrom3",
    "pressure_bar",
]


def simulate(folder, *, potential=None, atoms=RELAXED, **options):
    options = {
        "steps": 20,
        "trajectory_every": 2,
        "checkpoint_every": 6,
        "progress": False,
        "seed": 1,
    } | options
    potential = FakePotential() if potential is None else potential
    return run_md(atoms, potential, folder=folder, **options)


def scripted(**script):
    potential = FakePotential()
    potential.script = {int(call.removeprefix("call")): what for call, what in script.items()}
    return potential


def log(folder):
    with open(Path(folder) / "log.csv") as file:
        return list(csv.DictReader(file))


def column(folder, name):
    return np.array([float(row[name]) for row in log(folder)])


def changed(**what):
    atoms = RELAXED.copy()
    for name, value in what.items():
        getattr(atoms, f"set_{name}")(value)
    return atoms


class Tied(FixAtoms):
    """A constraint of the user's own that cannot describe itself."""

    def __init__(self):
        super().__init__([3])

    def todict(self):
        raise NotImplementedError


def assert_same_run(one, two):
    """Bit for bit, apart from the wall time."""
    for name in ("trajectory.extxyz", "cold_passes.csv"):
        paths = [Path(folder) / name for folder in (one, two)]
        assert paths[0].exists() == paths[1].exists()
        if paths[0].exists():
            assert paths[0].read_bytes() == paths[1].read_bytes()
    rows = [[dict(row, seconds="") for row in log(folder)] for folder in (one, two)]
    assert rows[0] == rows[1]
    with np.load(one / "checkpoint.npz") as a, np.load(two / "checkpoint.npz") as b:
        assert set(a.files) == set(b.files)
        for name in set(a.files) - {"seconds", "restarts", "bytes.log.csv"}:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@pytest.fixture
def as_users_call_it():
    """Without the type checks of the test run, which would come first."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)


class Killed(BaseException):
    """Ends the process as far as the run can tell: nothing is saved on the way out."""


def test_energy_is_conserved_and_better_with_shorter_steps(tmp_path):
    fluctuations = []
    for timestep, steps in ((0.8, 50), (0.4, 100)):
        summary = simulate(tmp_path / str(timestep), timestep_fs=timestep, steps=steps).summary
        fluctuations.append(summary.fluctuation_mev_per_atom)
        assert abs(summary.drift_mev_per_atom_per_ps) < 20
    assert 3 < fluctuations[0] / fluctuations[1] < 5  # second order
    kinetic = column(tmp_path / "0.4", "kinetic_ev")
    assert 1000 * np.ptp(kinetic) / len(RELAXED) > 20 * fluctuations[1]


def test_files_say_what_happened(tmp_path):
    before = RELAXED.copy()
    result = simulate(tmp_path, log_every=2, cold_sample=4)
    assert RELAXED == before and not RELAXED.has("momenta")
    rows, frames = log(tmp_path), ase.io.read(tmp_path / "trajectory.extxyz", ":")
    assert list(rows[0]) == COLUMNS
    assert [int(row["step"]) for row in rows] == list(range(0, 21, 2))
    assert [frame.info["step"] for frame in frames] == list(range(0, 21, 2))
    for row, frame in zip(rows, frames, strict=True):
        assert float(row["time_fs"]) == 0.5 * int(row["step"])
        assert float(row["potential_ev"]) == pytest.approx(frame.get_potential_energy(), abs=1e-6)
        assert float(row["kinetic_ev"]) == pytest.approx(frame.get_kinetic_energy(), abs=1e-6)
        assert int(row["passes"]) == frame.info["passes"]
        assert frame.info["residual"] < 1e-8
        assert float(row["residual"]) == pytest.approx(frame.info["residual"])
        assert np.abs(frame.get_forces()).max() > 0.01
    np.testing.assert_allclose(frames[-1].positions, result.atoms.positions, atol=1e-7)
    np.testing.assert_allclose(frames[-1].get_momenta(), result.atoms.get_momenta(), atol=1e-7)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["steps"] == 20 and summary["formula"] == "C2H6O"
    assert summary["ns_per_day"] == pytest.approx(0.5e-6 * 86400 / summary["seconds_per_step"])
    with open(tmp_path / "cold_passes.csv") as file:
        cold = list(csv.DictReader(file))
    assert [int(row["step"]) for row in cold] == [5, 10, 15, 20]
    assert summary["mean_cold_passes"] > 1.3 * summary["mean_passes"] > 0
    slope = np.polyfit(column(tmp_path, "time_fs") / 1000, column(tmp_path, "total_ev"), 1)[0]
    assert summary["drift_mev_per_atom_per_ps"] == pytest.approx(1000 * slope / 9, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "degrees"), [("CH3CH2OH", 21), ("CO2", 4), ("H2", 1), ("crystal", 93)]
)
def test_starts_at_rest_as_a_whole_and_at_the_temperature(tmp_path, name, degrees):
    atoms = ase.build.bulk("Al", cubic=True, a=4.05) * 2 if name == "crystal" else None
    atoms = ase.build.molecule(name) if atoms is None else atoms
    atoms.rotate(33, (1, 2, 3))
    result = simulate(tmp_path, atoms=atoms, steps=0, temperature_k=400.0)
    np.testing.assert_allclose(result.atoms.get_momenta().sum(axis=0), 0, atol=1e-10)
    if name != "crystal":
        np.testing.assert_allclose(result.atoms.get_angular_momentum(), 0, atol=1e-9)
    kinetic = result.atoms.get_kinetic_energy()
    assert kinetic == pytest.approx(degrees * units.kB * 400 / 2)
    assert column(tmp_path, "temperature_k")[0] == pytest.approx(400)


@pytest.mark.parametrize(("name", "degrees"), [("CH3CH2OH", 21), ("CO2", 4), ("H2O", 3)])
def test_velocities_from_a_file_with_eight_digits_are_at_rest_all_the_same(name, degrees):
    atoms = ase.build.molecule(name)
    momenta = thermal_momenta(atoms, 300.0, np.random.default_rng(0))
    atoms.set_momenta(np.round(momenta, 8))
    assert degrees_of_freedom(atoms) == degrees
    # The thermal motion of the whole is another matter, also of many atoms.
    many = ase.build.bulk("Al", cubic=True, a=4.05) * 4
    for one, all_of_them in ((atoms, 3 * len(atoms)), (many, 3 * len(many))):
        free = thermal_momenta(one, 300.0, np.random.default_rng(0), at_rest=False)
        one.set_momenta(free)
        assert degrees_of_freedom(one) == all_of_them
        assert one.get_kinetic_energy() == pytest.approx(all_of_them * units.kB * 300 / 2)


def test_langevin_starts_at_its_temperature(tmp_path):
    simulate(tmp_path, ensemble="langevin", steps=0, temperature_k=400.0)
    assert column(tmp_path, "temperature_k")[0] == pytest.approx(400)


def test_a_thermostat_that_refuses_its_start_overwrites_nothing(tmp_path):
    simulate(tmp_path, steps=3)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    still = RELAXED.copy()
    still.set_momenta(np.zeros((9, 3)))
    with pytest.raises(ValueError, match="kinetic energy"):
        simulate(tmp_path, atoms=still, velocities="keep", ensemble="bussi", resume=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept


def test_two_simulations_in_one_folder_are_refused(tmp_path):
    simulate(tmp_path, steps=3)
    with locked(tmp_path), pytest.raises(ValueError, match="a simulation is going on in"):
        simulate(tmp_path, steps=6)
    simulate(tmp_path, steps=6)


def test_totals_are_those_of_all_rows():
    generator = np.random.default_rng(0)
    time = np.arange(1000) * 0.5
    energy = -4209.0 + 1e-6 * time + generator.normal(0, 1e-4, 1000)
    totals = Totals()
    for t, e in zip(time, energy, strict=True):
        totals.add(float(t), float(e), 300.0)
    slope, offset = np.polyfit(time / 1000, 1000 * (energy + 4209), 1)
    rest = 1000 * (energy + 4209) - slope * time / 1000 - offset
    found, expected = totals.drift(9), drift_of(time / 1000, 1000 * energy).of_each(9)
    assert found[::2] == pytest.approx((slope / 9, rest.std() / 9), rel=1e-6)
    assert expected[::2] == pytest.approx(found[::2], rel=1e-6)
    # White noise of 0.1 meV, for which the error is known; blocks estimate it to a quarter.
    exact = rest.std() / 9 / np.sqrt(((time / 1000 - time.mean() / 1000) ** 2).sum())
    for each in (found, expected):
        assert 0.5 < each.standard_error / exact < 2
    assert totals.mean_temperature_k == pytest.approx(300)


@pytest.mark.parametrize("steps", [3, 9, 10, 80, 81, 1000])
def test_a_drift_is_told_with_what_is_known_of_it(steps):
    totals = Totals()
    for step in range(steps):
        totals.add(0.5 * step, 1e-3 * (step % 2), 300.0)
    drift = totals.drift(1)
    assert (drift.standard_error is None) == (steps < 10)
    assert ("±" in str(drift)) == (steps >= 10)
    if steps == 1000:  # nothing drifts
        assert abs(drift.slope) < 3 * drift.standard_error + 1e-2
    assert str(Drift(-0.25918, 0.0714, 0.1)) == "-0.26 ± 0.07"


def test_pressure_and_volume_are_logged_where_there_is_a_cell(tmp_path):
    atoms = ase.build.bulk("Al", cubic=True, a=3.0) * 2
    result = simulate(tmp_path / "bulk", atoms=atoms, steps=2)
    bar = -result.atoms.get_stress(include_ideal_gas=True)[:3].mean() / units.bar
    assert column(tmp_path / "bulk", "pressure_bar")[-1] == pytest.approx(bar)
    assert column(tmp_path / "bulk", "volume_angstrom3")[-1] == pytest.approx(216)
    simulate(tmp_path / "molecule", steps=2)
    assert np.isnan(column(tmp_path / "molecule", "pressure_bar")).all()


def test_settings_that_an_ensemble_does_not_feel_may_change(tmp_path):
    simulate(tmp_path, steps=3)
    simulate(tmp_path, steps=4, friction_per_ps=5.0, pressure_bar=7.0)
    with pytest.raises(ValueError, match="temperature_k was 300.0 and is now 200.0"):
        simulate(tmp_path, steps=5, temperature_k=200.0)


def test_a_stopped_run_has_a_summary_and_a_start_that_keeps_what_is_held(tmp_path):
    atoms = RELAXED.copy()
    atoms.set_constraint(FixAtoms([0]))
    atoms.set_masses([*atoms.get_masses()[:-1], 2.014])
    simulate(tmp_path, atoms=atoms, steps=2)
    with pytest.raises(SimulationStopped):
        simulate(tmp_path, atoms=atoms, steps=20, potential=scripted(call4="nan"))
    assert json.loads((tmp_path / "summary.json").read_text())["steps"] > 2
    held = ase.io.read(tmp_path / "last_good.extxyz")
    assert held.constraints[0].index.tolist() == [0]
    assert held.get_masses()[-1] == pytest.approx(2.014)
    simulate(tmp_path, atoms=atoms, steps=20)
    assert not (tmp_path / "last_good.extxyz").exists()


@pytest.mark.parametrize(
    ("stretch", "message"),
    [
        (2.5, r"the bond of atom 0 \(C\) and atom 3 \(H\) .* sums of covalent radii"),
        (0.3, "nearer than atoms ever come"),
    ],
)
def test_broken_bonds_and_collisions_are_noticed(stretch, message):
    atoms = ase.build.molecule("CH4")[[0, 1, 2, 4, 3]]
    bonds = bonds_of(atoms)
    assert bonds.tolist() == [[0, 1], [0, 2], [0, 3], [0, 4]]
    broken = atoms.copy()
    broken.positions[3] *= stretch  # the carbon is at the origin
    for each, expected in ((atoms, None), (broken, message)):
        graph = Graph.from_ase(each, cutoff=4.0)
        found = Watchdog(max_gap=float("inf")).complaint(
            each, graph, energy=0.0, temperature_k=300.0, target_k=300.0, bonds=bonds
        )
        assert found is None if expected is None else re.search(expected, found), found


def test_the_seed_decides(tmp_path):
    starts = [
        simulate(tmp_path / str(i), steps=0, seed=seed).atoms.get_momenta()
        for i, seed in enumerate((1, 1, 2))
    ]
    assert np.array_equal(starts[0], starts[1])
    assert not np.allclose(starts[0], starts[2])


def test_velocities_can_be_kept(tmp_path):
    atoms = RELAXED.copy()
    atoms.set_momenta(np.full((9, 3), 0.1))
    result = simulate(tmp_path, atoms=atoms, steps=0, velocities="keep")
    assert np.array_equal(result.atoms.get_momenta(), atoms.get_momenta())


def test_langevin_reaches_its_temperature(tmp_path):
    atoms = ase.build.bulk("Al", cubic=True, a=3.0) * 2
    summary = simulate(
        tmp_path,
        atoms=atoms,
        potential=FakePotential(cutoff=2.8, depth=0.2, length=2.1),
        ensemble="langevin",
        velocities="keep",
        friction_per_ps=100.0,
        timestep_fs=2.0,
        steps=150,
        trajectory_every=100,
        checkpoint_every=1000,
    ).summary
    kelvin = column(tmp_path, "temperature_k")
    assert kelvin[0] == 0
    assert 255 < kelvin[50:].mean() < 345  # 96 degrees of freedom, 20 relaxation times
    assert summary.drift_mev_per_atom_per_ps is None


CRYSTAL = {
    "atoms": ase.build.bulk("Al", cubic=True, a=3.0) * 2,
    "potential": FakePotential(cutoff=2.8, depth=0.2, length=2.1),
    "timestep_fs": 2.0,
    "trajectory_every": 100,
    "checkpoint_every": 1000,
}


@pytest.mark.parametrize(
    ("ensemble", "options", "message"),
    [
        ("npt", {}, r"periodic in three directions, received pbc \[False"),
        ("bussi", {"temperature_k": 0.0}, "needs a temperature above 0 K"),
        ("nose-hoover", {"atoms": changed(constraint=FixAtoms([0]))}, "knows no constraints"),
        ("npt", {"pressure_bar": np.nan}, "pressure_bar must be finite, received nan"),
    ],
)
def test_ensembles_refuse_what_they_cannot_sample(tmp_path, ensemble, options, message):
    with pytest.raises(ValueError, match=message):
        simulate(tmp_path / "run", ensemble=ensemble, **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("ensemble", ["bussi", "nose-hoover", "npt"])
def test_thermostats_and_barostats_continue_bit_for_bit(tmp_path, ensemble):
    options = {"ensemble": ensemble, "checkpoint_every": 4}
    options = (CRYSTAL if ensemble == "npt" else {}) | options | {"barostat_fs": 100.0}
    simulate(tmp_path / "whole", **options)
    simulate(tmp_path / "cut", **options, steps=9)
    simulate(tmp_path / "cut", **options)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_stopped_thermostat_goes_back_with_the_atoms(tmp_path):
    options = {"ensemble": "nose-hoover", "checkpoint_every": 4}
    simulate(tmp_path / "whole", **options)
    with pytest.raises(SimulationStopped):
        simulate(tmp_path / "cut", potential=scripted(call8="nan"), **options)
    simulate(tmp_path / "cut", **options)
    ends = [ase.io.read(tmp_path / name / "trajectory.extxyz") for name in ("whole", "cut")]
    # Not to the last bit: the solve after the stop starts from nothing.
    np.testing.assert_allclose(ends[0].positions, ends[1].positions, atol=1e-7)


@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
@pytest.mark.parametrize("call", [2, 6, 11])
def test_a_killed_run_continues_bit_for_bit(tmp_path, ensemble, call):
    simulate(tmp_path / "whole", ensemble=ensemble, cold_sample=3, checkpoint_every=4)
    options = {"ensemble": ensemble, "cold_sample": 3, "checkpoint_every": 4}
    with pytest.raises(Killed):
        simulate(tmp_path / "cut", potential=scripted(**{f"call{call}": Killed()}), **options)
    potential = FakePotential()
    result = simulate(tmp_path / "cut", potential=potential, **options)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert result.summary.restarts == 1
    assert potential.starts[0] is not None  # the memory came back too


KILLED = """
import sys
from tests.engines.test_md import scripted, simulate
simulate(sys.argv[1], potential=scripted(call12="sigkill"))
"""


def test_kill_9_loses_at_most_one_checkpoint_interval(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path / "cut")]
    assert subprocess.run(command, timeout=60).returncode == -signal.SIGKILL
    potential = FakePotential()
    simulate(tmp_path / "cut", potential=potential)
    assert potential.calls == 20 - 6  # killed in step 11, saved at step 6
    simulate(tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_finished_run_can_be_prolonged(tmp_path):
    simulate(tmp_path / "whole")
    simulate(tmp_path / "cut", steps=7)
    simulate(tmp_path / "cut", checkpoint_every=50)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_finished_run_is_not_repeated(tmp_path):
    first = simulate(tmp_path)
    potential = FakePotential()
    again = simulate(tmp_path, potential=potential)
    assert potential.calls == 0
    assert again.summary == first.summary
    assert again.atoms.get_potential_energy() == first.atoms.get_potential_energy()


def test_the_real_potential_continues_bit_for_bit(tmp_path):
    potential = tiny_potential(tolerance=1e-4).float()
    options = {"potential": potential, "checkpoint_every": 3}
    simulate(tmp_path / "whole", steps=6, **options)
    simulate(tmp_path / "cut", steps=3, **options)
    simulate(tmp_path / "cut", steps=6, **options)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_cold_samples_disturb_nothing(tmp_path):
    simulate(tmp_path / "with", cold_sample=7)
    simulate(tmp_path / "without")
    frames = [tmp_path / name / "trajectory.extxyz" for name in ("with", "without")]
    assert frames[0].read_bytes() == frames[1].read_bytes()


def test_warm_and_cold_trajectories_agree_within_the_tolerance(tmp_path):
    warm = simulate(tmp_path / "warm")
    cold = simulate(tmp_path / "cold", warm_start=False)
    np.testing.assert_allclose(warm.atoms.positions, cold.atoms.positions, atol=1e-7)
    assert warm.summary.mean_passes < 0.8 * cold.summary.mean_passes
    assert cold.summary.warm_start == "none"


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(SimulationInterrupted, match="SIGINT after step 8 of 20.*run the same"):
        simulate(tmp_path / "cut", potential=scripted(call9="sigint"))
    assert signal.getsignal(signal.SIGINT) is handler
    with np.load(tmp_path / "cut" / "checkpoint.npz") as arrays:
        assert int(arrays["step"]) == 8
    simulate(tmp_path / "cut")
    simulate(tmp_path / "whole")
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        # The failing warm solve is tried again from nothing, so two calls fail.
        ({"call9": "unconverged", "call10": "unconverged"}, "not converged"),
        ({"call9": "nan"}, "must be finite"),
    ],
)
def test_a_failed_solve_stops_with_the_last_good_state(tmp_path, script, reason):
    with pytest.raises(SimulationStopped, match="after step 7: .*timestep too long") as caught:
        simulate(tmp_path, potential=scripted(**script))
    assert caught.value.step == 7
    assert reason in caught.value.reason
    good = ase.io.read(tmp_path / "last_good.extxyz")
    simulate(tmp_path / "other", steps=7, trajectory_every=7)
    expected = ase.io.read(tmp_path / "other" / "trajectory.extxyz", "-1")
    np.testing.assert_allclose(good.positions, expected.positions, atol=1e-7)
    np.testing.assert_allclose(good.get_momenta(), expected.get_momenta(), atol=1e-7)
    simulate(tmp_path)  # goes on from there
    assert [int(row["step"]) for row in log(tmp_path)] == list(range(21))


def test_other_errors_pass_through_after_saving(tmp_path):
    with pytest.raises(ZeroDivisionError):
        simulate(tmp_path, potential=scripted(call9=ZeroDivisionError("oops")))
    with np.load(tmp_path / "checkpoint.npz") as arrays:
        assert int(arrays["step"]) == 7


def test_a_run_that_explodes_is_stopped(tmp_path):
    with pytest.raises(SimulationStopped, match="temperature of .* above the bound of 3000 K"):
        wild = Watchdog(max_stretch=float("inf"))
        atoms = ase.build.molecule("C6H6")
        simulate(tmp_path, atoms=atoms, timestep_fs=5.0, steps=200, watchdog=wild)
    assert column(tmp_path, "temperature_k").max() <= 3000
    assert np.isfinite(ase.io.read(tmp_path / "last_good.extxyz").positions).all()


def test_a_lost_atom_is_noticed(tmp_path):
    atoms = RELAXED.copy()
    momenta = np.zeros((9, 3))
    momenta[3] = 3 * (atoms.positions[3] - atoms.positions[0])
    atoms.set_momenta(momenta)
    loose = {"max_temperature_k": 1e9, "max_stretch": float("inf")}
    watchdog = Watchdog(max_gap=2.0, **loose)
    with pytest.raises(SimulationStopped, match=r"atom 3 \(H\) is 2\.\d+ Angstrom from its"):
        simulate(tmp_path, atoms=atoms, velocities="keep", steps=100, watchdog=watchdog)
    free = Watchdog(max_gap=float("inf"), **loose)
    simulate(tmp_path / "free", atoms=atoms, velocities="keep", steps=30, watchdog=free)


def test_a_start_outside_the_bounds_is_refused(tmp_path):
    far = ase.build.molecule("H2")
    far.positions[0, 2] += 9
    with pytest.raises(ValueError, match=r"9\.74 Angstrom from its .*raise the bound") as caught:
        simulate(tmp_path / "run", atoms=far)
    assert "max_gap, on the command line --max-gap" in str(caught.value)
    assert not (tmp_path / "run").exists()
    simulate(tmp_path / "run", atoms=far, steps=2, watchdog=Watchdog(max_gap=9.9))


def test_a_start_that_cannot_be_calculated_leaves_no_folder(tmp_path):
    for atoms in (ase.build.bulk("Si"), changed(positions=np.full((9, 3), np.nan))):
        with pytest.raises(ValueError, match="received Si|must be finite"):
            simulate(tmp_path / "run", atoms=atoms)
        assert not (tmp_path / "run").exists()


def test_a_bound_that_stopped_a_run_can_be_raised(tmp_path):
    # Not relaxed and at rest: it becomes warmer with every step.
    options = {"atoms": ase.build.molecule("CH3CH2OH"), "velocities": "keep", "steps": 10}
    stopped = "above the bound of 3000 K .max_temperature_k, on the command line --max-temperature"
    with pytest.raises(SimulationStopped, match=stopped):
        simulate(tmp_path, **options)
    assert len(log(tmp_path)) == 7
    simulate(tmp_path, watchdog=Watchdog(max_temperature_k=1e5), **options)
    assert len(log(tmp_path)) == 11


def test_a_full_disk_leaves_the_checkpoint_and_the_run_goes_on_later(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30000, before[1]))
    try:
        with pytest.raises(DiskFullError, match="no space left to write trajectory.*intact"):
            simulate(tmp_path / "cut", steps=40, trajectory_every=1, checkpoint_every=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    for folder in ("cut", "whole"):
        simulate(tmp_path / folder, steps=40, trajectory_every=1, checkpoint_every=2)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestep_fs": 0.25}, "timestep_fs was 0.5 and is now 0.25"),
        ({"ensemble": "langevin"}, "ensemble was 'nve'"),
        ({"potential": FakePotential(depth=0.6)}, "settings: model changed. Use another"),
        ({"atoms": ase.build.molecule("CH3OH")}, "structure changed"),
        ({"atoms": changed(masses=[2.0] * 9)}, "settings: masses changed. Use another"),
        (
            {"atoms": changed(constraint=FixAtoms([0]))},
            r"settings: constraints was '' and is now 'FixAtoms \w+'\. Use another",
        ),
        ({"warm_start": WarmStart(Linear())}, r"warm_start was 'LeastSquares\("),
    ],
)
def test_a_folder_with_another_run_is_refused(tmp_path, change, message):
    simulate(tmp_path, steps=3)
    kept = (tmp_path / "log.csv").read_bytes()
    with pytest.raises(ValueError, match=message):
        simulate(tmp_path, **change)
    assert (tmp_path / "log.csv").read_bytes() == kept


def test_constraints_are_told_apart(tmp_path):
    one = changed(constraint=[FixAtoms([0]), Hookean(1, 2, k=5.0, rt=1.6)])
    simulate(tmp_path, atoms=one, steps=3)
    simulate(tmp_path, atoms=one.copy(), steps=5)
    for other in (FixAtoms([1]), [FixAtoms([0]), Hookean(1, 2, k=6.0, rt=1.6)], Tied()):
        with pytest.raises(ValueError, match="constraints was 'FixAtoms .*, Hookean .*' and"):
            simulate(tmp_path, atoms=changed(constraint=other))


def test_start_again_overwrites(tmp_path):
    simulate(tmp_path / "one", steps=3, cold_sample=2)
    simulate(tmp_path / "one", steps=5, timestep_fs=0.25, resume=False)
    simulate(tmp_path / "two", steps=5, timestep_fs=0.25)
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_a_start_again_that_fails_overwrites_nothing(tmp_path):
    simulate(tmp_path, steps=3)
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ZeroDivisionError):
        simulate(tmp_path, potential=scripted(call1=ZeroDivisionError("x")), resume=False)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept


def damage_checkpoint(folder):
    path = folder / "checkpoint.npz"
    path.write_bytes(path.read_bytes()[:500])


def foreign_checkpoint(folder):
    np.savez(folder / "checkpoint.npz", weights=np.zeros(3))


def pickled_checkpoint(folder):
    np.savez(folder / "checkpoint.npz", settings=np.array([{}], dtype=object))


def shorten_log(folder):
    (folder / "log.csv").write_text("step\n")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_checkpoint, "complete npz checkpoint"),
        (foreign_checkpoint, "must be the checkpoint of a simulation"),
        (pickled_checkpoint, "complete npz checkpoint"),
        (shorten_log, "bytes that the checkpoint counts on, received 5"),
    ],
)
def test_damaged_folders_are_refused(tmp_path, damage, message):
    simulate(tmp_path, steps=3)
    damage(tmp_path)
    with pytest.raises(ValueError, match=message):
        simulate(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": -1}, "steps must be at least 0, received -1"),
        ({"timestep_fs": 0.0}, "timestep_fs must be larger than 0"),
        ({"timestep_fs": np.nan}, "timestep_fs must be larger than 0 and finite, received nan"),
        ({"timestep_fs": np.inf}, "timestep_fs must be larger than 0 and finite, .* in fs"),
        ({"temperature_k": -3.0}, "temperature_k must be at least 0"),
        ({"temperature_k": np.inf}, "temperature_k must be at least 0 and finite, .* in K"),
        ({"temperature_k": np.nan}, "temperature_k must be .* received nan"),
        ({"friction_per_ps": 0.0}, "friction_per_ps must be larger than 0"),
        ({"friction_per_ps": np.nan}, "friction_per_ps must be .* finite, .* in 1/ps"),
        ({"steps": 10.5}, "steps must be an integer, received 10.5; round it"),
        ({"steps": "10"}, "steps must be an integer, received '10'"),
        ({"seed": 0.5}, "seed must be an integer"),
        ({"cold_sample": -1}, "cold_sample must be at least 0"),
        ({"log_every": 0}, "log_every must be at least 1"),
        ({"checkpoint_every": 2.5}, "checkpoint_every must be an integer"),
        ({"ensemble": "NPT"}, "ensemble must be .* received 'NPT'"),
        ({"velocities": "hot"}, "velocities must be"),
    ],
)
def test_bad_arguments_are_refused(tmp_path, options, message, as_users_call_it):
    with pytest.raises(ValueError, match=message):
        simulate(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_the_live_line(tmp_path):
    text = io.StringIO()
    console = Console(file=text, width=140, force_terminal=True)
    simulate(tmp_path, progress=True, console=console)
    for word in ("20/20", "ns/day", "passes/step", " K", "drift", "meV/atom/ps"):
        assert word in text.getvalue()
