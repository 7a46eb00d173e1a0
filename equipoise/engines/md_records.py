"""What a simulation writes while it runs: log, trajectory, and passes from nothing."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ase
import numpy as np
from ase import units
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian
from ase.io.extxyz import write_extxyz

from equipoise.engines.ase import EquipoiseCalculator
from equipoise.engines.md_summary import Totals
from equipoise.engines.run_files import AppendFile, explain_full_disk

LOG, TRAJECTORY, COLD = "log.csv", "trajectory.extxyz", "cold_passes.csv"
HEADERS = {
    LOG: (
        "step,time_fs,potential_ev,kinetic_ev,total_ev,temperature_k,passes,"
        "adjoint_passes,residual,seconds,conserved_ev,volume_angstrom3,pressure_bar\n"
    ),
    TRAJECTORY: "",
    COLD: "step,passes,adjoint_passes\n",
}


class MDRecords:
    """The growing files of one run folder.

    **Arguments**

    - `folder`: exists.
    - `lengths`: bytes to keep of each file, from a checkpoint; None begins new files.
    - `cold`: whether passes from nothing will be recorded.

    **Attributes**

    - `totals`: over every logged step, those of before a restart included.

    **Raises** `ValueError` if a file is shorter than its length; `DiskFullError`.
    """

    def __init__(self, folder: Path, *, lengths: Mapping[str, int] | None, cold: bool) -> None:
        self.folder = folder
        self.totals = Totals()
        self._files: dict[str, AppendFile] = {}
        if lengths is None:
            # A new run in an old folder must not be read together with the old one's end.
            (folder / COLD).unlink(missing_ok=True)
        try:
            for name, header in HEADERS.items():
                keep = None if lengths is None else lengths.get(name)
                if name == COLD and keep is None and not cold:
                    continue
                self._files[name] = AppendFile(folder / name, keep=keep, header=header)
            # What was said of the run when it ended or stopped earlier holds no longer.
            for name in ("summary.json", "last_good.extxyz"):
                (folder / name).unlink(missing_ok=True)
            if lengths is not None:
                self._add_up()
        except BaseException:
            self.close()
            raise

    def sync(self) -> dict[str, int]:
        """Bring everything to the disk; the length of each file in bytes."""
        return {name: file.sync() for name, file in self._files.items()}

    def close(self) -> None:
        for file in self._files.values():
            file.close()

    def log(
        self,
        step: int,
        time_fs: float,
        atoms: ase.Atoms,
        *,
        temperature_k: float,
        calculator: EquipoiseCalculator,
        seconds: float,
        conserved: float,
    ) -> None:
        """One row of the log; `seconds` is what the step took, `conserved` in eV what the ensemble conserves, or NaN."""
        potential = float(atoms.get_potential_energy())
        kinetic = float(atoms.get_kinetic_energy())
        self.totals.add(time_fs, conserved, temperature_k)
        volume, pressure = _volume_and_pressure(atoms, calculator)
        # repr keeps every bit: a drift is a small difference of large energies.
        self._files[LOG].write(
            f"{step},{time_fs!r},{potential!r},{kinetic!r},{potential + kinetic!r},"
            f"{temperature_k!r},{calculator.passes},{calculator.adjoint_passes},"
            f"{calculator.residual!r},{seconds:.6f},{conserved!r},{volume!r},{pressure!r}\n"
        )

    def frame(
        self, step: int, time_fs: float, atoms: ase.Atoms, calculator: EquipoiseCalculator
    ) -> None:
        """One frame of the trajectory: energy, forces, momenta, passes and residual."""
        results = {
            name: calculator.results[name]
            for name in ("energy", "forces", "stress")
            if name in calculator.results
        }
        info = {
            "passes": calculator.passes,
            "adjoint_passes": calculator.adjoint_passes,
            "residual": calculator.residual,
        }
        text = _extxyz(atoms, {"step": step, "time_fs": time_fs} | info, results)
        self._files[TRAJECTORY].write(text)

    def cold(self, step: int, passes: int, adjoint_passes: int) -> None:
        """One row of passes from nothing."""
        self._files[COLD].write(f"{step},{passes},{adjoint_passes}\n")

    def cold_table(self) -> np.ndarray:
        """Rows (step, passes, adjoint passes); none if not recorded."""
        return self._table(COLD) if COLD in self._files else np.zeros((0, 3))

    def last_good(self, step: int, time_fs: float, atoms: ase.Atoms) -> Path:
        """Write the atoms and momenta as a file to look at and start again from."""
        path = self.folder / "last_good.extxyz"
        with explain_full_disk(path):
            info = {"step": step, "time_fs": time_fs}
            # Those that the format knows: they belong to the system, not to the run.
            held = [each for each in atoms.constraints if isinstance(each, FixAtoms | FixCartesian)]
            path.write_text(_extxyz(atoms, info, {}, constraint=held))
        return path

    def _add_up(self) -> None:
        names = HEADERS[LOG].strip().split(",")
        wanted = [names.index(name) for name in ("time_fs", "conserved_ev", "temperature_k")]
        with (self.folder / LOG).open() as file:
            next(file, None)
            for line in file:
                values = line.split(",")
                self.totals.add(*[float(values[index]) for index in wanted])

    def _table(self, name: str) -> np.ndarray:
        lines = (self.folder / name).read_text().splitlines()[1:]
        width = HEADERS[name].count(",") + 1
        return np.array([line.split(",") for line in lines], dtype=float).reshape(-1, width)


def _volume_and_pressure(atoms: ase.Atoms, calculator: EquipoiseCalculator) -> tuple[float, float]:
    """Å³ and bar, that of the moving atoms included; NaN where the potential gave no stress."""
    if "stress" not in calculator.results:
        return math.nan, math.nan
    stress = atoms.get_stress(voigt=False, include_ideal_gas=True)
    return float(atoms.get_volume()), float(-np.trace(stress) / 3 / units.bar)


def _extxyz(
    atoms: ase.Atoms, info: dict[str, Any], results: dict[str, Any], constraint: Any = None
) -> str:
    # A fresh object: what the user hung on the atoms is not part of the trajectory.
    frame = ase.Atoms(
        numbers=atoms.numbers,
        positions=atoms.positions,
        momenta=atoms.get_momenta(),
        cell=atoms.cell,
        pbc=atoms.pbc,
        info=info,
        constraint=constraint,
    )
    if atoms.has("masses"):
        frame.set_masses(atoms.get_masses())
    if results:
        frame.calc = SinglePointCalculator(frame, **results)
    text = io.StringIO()
    write_extxyz(text, [frame])
    return text.getvalue()
