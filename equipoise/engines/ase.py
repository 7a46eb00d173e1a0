"""The ASE calculator: `atoms.calc = EquipoiseCalculator("model.safetensors")`.

Energies in eV, lengths in Angstrom, forces in eV/Angstrom, stress in eV/Angstrom^3 with
ASE's sign and Voigt order (xx yy zz yz xz xy): ASE's own units, so nothing is converted.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

import ase
import numpy as np
import torch
from ase.calculators.calculator import (
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)
from ase.data import chemical_symbols

from equipoise.deq import Joint
from equipoise.engines.evaluator import CalculatorStatistics, Evaluator
from equipoise.engines.warm_start import WarmStart
from equipoise.graph import Graph, NeighbourList
from equipoise.potentials import Potential, Prediction, load


class EquipoiseCalculator(Calculator):
    """An ASE calculator that remembers the equilibrium from one call to the next.

    The result of a call is that of `potential(graph)` within the solver's tolerance;
    only the number of passes depends on what was calculated before. One calculator
    belongs to one trajectory: attached to several structures in turn it stays correct,
    but forgets at every change.

    **Arguments**

    - `potential`: a `Potential`, or what `equipoise.load` takes: a model file, a run
      folder, or the name of a model that comes with the package. A potential object is
      put into evaluation mode.
    - `warm_start`: True for a default `WarmStart`, False to start every solve from
      nothing, or a `WarmStart` with choices of its own.
    - `joint`: a `Joint`: along a smooth trajectory, a fixed number of joint passes from
      the guess instead of solves to the tolerance. Where its `max_residual` is exceeded,
      and until the memory is full, there is a solve all the same. "auto": as few as keep
      the energy, from the contraction at the first structure, or None where solves are
      cheaper; see `engines.passes`. With a warning it becomes None later, when they were
      too few ten times in a row. None: always solve. With `warm_start=True` the guess
      is the most reversible one that so many passes keep stable; "auto" with any other
      `warm_start` means None.
    - `history_free`: passes from nothing, and the exact gradient of what these give:
      conservative whatever came before, but slow, and another potential than the one
      that is solved. For reference.
    - `skin`: Angstrom, see `NeighbourList`.
    - `unconverged`: "error" (the default: an `UnconvergedError`), "warn" or "accept".
      A solve that fails from a guess is first repeated from nothing, whatever is chosen
      here; this is about solves from nothing.
    - `allow_direct`: take a potential whose forces come from a head of their own
      (`config.forces` "direct"). They are the gradient of no energy, so a simulation with
      them gains or loses energy without end: for comparison only.
    - `compile`: compile the potential when the first structure comes, see
      `Potential.compile`: minutes, then about twice as fast for a molecule. If that
      fails, or the numbers differ, there is a warning, and it goes on without.
    - `device`, `dtype`: only with a path or name; move a potential object yourself.

    **Attributes**, all of the last call unless said otherwise

    - `passes`, `adjoint_passes`: int, those of attempts that failed included; 0 for a potential
      without an equilibrium.
    - `residual`, `adjoint_residual`: relative residuals; NaN where there is none.
    - `correction`: eV, the part λᵀ(f(z) - z) of the energy, of first order in what is
      left of the residual, by which the reported energy is better than that of the state
      alone; 0 without an equilibrium.
    - `statistics`: `CalculatorStatistics`, running totals.
    - `warm_start`: the memory, or None.
    - `evaluator`: the `Evaluator` that has these, and more.

    Energy and forces always come together: the energy needs the adjoint as well, and
    the forces are then nearly free. `energies` of the atoms add up to `energy`. Stress
    comes along for a structure periodic in three directions, otherwise only when asked
    for. (With direct forces there is no adjoint and no stress.)

    **Raises**, when calculating: `ValueError` for elements that the potential was not
    trained on, positions that are not finite and coincident atoms;
    `PropertyNotImplementedError` for the stress of a structure without a volume, or with
    direct forces;
    `UnconvergedError`; `NonFiniteError`. Whatever else the potential raises passes
    through, and then nothing is kept in `results`.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]

    def __init__(
        self,
        potential: Potential | str | PathLike[str],
        *,
        warm_start: bool | WarmStart = True,
        joint: Joint | str | None = None,
        history_free: int | None = None,
        skin: float = 0.5,
        unconverged: str = "error",
        allow_direct: bool = False,
        compile: bool = False,
        device: torch.device | str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if isinstance(potential, str | PathLike):
            potential = load(potential, device=device, dtype=dtype)
        elif device is not None or dtype is not None:
            raise ValueError(
                f"device and dtype go with a path or name, received device={device}, "
                f"dtype={dtype} and a potential object; use potential.to(...) instead"
            )
        if not (potential.conservative or allow_direct):
            raise ValueError(
                "a calculator needs forces that are the gradient of the energy, received a potential with direct "
                "forces (config.forces='direct'): constant-energy dynamics drifts with them, and the minima of "
                "energy and forces differ; train with potential.forces=gradient, or pass allow_direct=True to "
                "compare them anyway"
            )
        self.evaluator = Evaluator(
            potential,
            warm_start=warm_start,
            joint=joint,
            history_free=history_free,
            unconverged=unconverged,
            compile=compile,
        )
        self.neighbours = NeighbourList(potential.cutoff, skin)

    @property
    def potential(self) -> Potential:
        return self.evaluator.potential

    @property
    def warm_start(self) -> WarmStart | None:
        return self.evaluator.warm_start

    @property
    def passes(self) -> int:
        return self.evaluator.passes

    @property
    def adjoint_passes(self) -> int:
        return self.evaluator.adjoint_passes

    @property
    def residual(self) -> float:
        return self.evaluator.residual

    @property
    def adjoint_residual(self) -> float:
        return self.evaluator.adjoint_residual

    @property
    def correction(self) -> float:
        return self.evaluator.correction

    @property
    def statistics(self) -> CalculatorStatistics:
        return replace(self.evaluator.statistics, neighbour_builds=self.neighbours.builds)

    def check_state(self, atoms: ase.Atoms, tol: float = 0.0) -> list[str]:
        """What changed since the last calculation, to the last bit.

        Charges and magnetic moments mean nothing to the potential. ASE's own version
        compares to 1e-15 with `numpy.allclose`, several times per step, and takes
        longer than everything else around the network.
        """
        before = self.atoms
        if before is None:
            return list(all_changes)
        pairs = {
            "positions": (before.positions, atoms.positions),
            "numbers": (before.numbers, atoms.numbers),
            "cell": (before.cell.array, atoms.cell.array),
            "pbc": (before.pbc, atoms.pbc),
        }
        return [name for name, (old, new) in pairs.items() if not np.array_equal(old, new)]

    def calculate(
        self,
        atoms: ase.Atoms | None = None,
        properties: Iterable[str] = ("energy", "forces"),
        system_changes: Iterable[str] = all_changes,
    ) -> None:
        """Fill `results`; ASE calls this. See the class for what is raised."""
        super().calculate(atoms, list(properties), list(system_changes))
        if system_changes:
            self.results = {}
        conservative = self.potential.conservative
        stress = "stress" in properties or (conservative and _bulk(self.atoms))
        if stress and not conservative:
            raise PropertyNotImplementedError(
                "stress is a derivative of the energy, which a potential with direct forces does without"
            )
        if stress and not _has_volume(self.atoms):
            raise PropertyNotImplementedError(
                f"stress needs a periodic structure with a volume, received pbc "
                f"{self.atoms.pbc.tolist()} and cell {self.atoms.cell.tolist()}"
            )
        try:
            prediction = self.evaluator.evaluate(self._graph(self.atoms), stress=stress)
        except BaseException:
            self.results = {}
            raise
        results = _results(prediction, stress)
        # Between two calls at one geometry what is known stays as it is: a second
        # solve would move it by a fraction of the tolerance.
        self.results = results | self.results

    def choose_passes(self, atoms: ase.Atoms) -> None:
        """Decide about the passes and the memory for a trajectory from `atoms` now.

        The first calculation does it otherwise.

        **Raises** `ValueError` if `joint` has too few passes for this network.
        """
        self.evaluator.choose(self._graph(atoms))

    def state(self) -> dict[str, np.ndarray]:
        """Results and memory as arrays, for the checkpoint of a trajectory."""
        results = {f"results.{name}": np.asarray(value) for name, value in self.results.items()}
        return self.evaluator.state() | results

    def restore(self, atoms: ase.Atoms, state: Mapping[str, np.ndarray]) -> None:
        """Continue from `state`, taken when `atoms` were calculated last.

        What follows is bit for bit what would have followed there (on a CPU).

        **Raises** `ValueError` if `state` is not one of a calculator.
        """
        self.evaluator.restore(self._graph(atoms), state)
        self.atoms = atoms.copy()
        self.results = {
            name.removeprefix("results."): float(value) if value.ndim == 0 else value.copy()
            for name, value in state.items()
            if name.startswith("results.")
        }

    def _graph(self, atoms: ase.Atoms) -> Graph:
        known = self.potential.elements
        unknown = sorted(set(atoms.numbers.tolist()) - set(known))
        if unknown:
            raise ValueError(
                f"the potential knows the elements {_symbols(known)}, received "
                f"{_symbols(unknown)}; it has to be trained on them first"
            )
        graph = Graph.from_ase(
            atoms, self.potential.cutoff, neighbours=self.neighbours, labels=False
        )
        return graph.to(self.potential.device)


def _results(prediction: Prediction, stress: bool) -> dict[str, Any]:
    energy = float(prediction.energy[0])
    results: dict[str, Any] = {
        "energy": energy,
        "free_energy": energy,
        "energies": _host(prediction.atomic_energies),
    }
    if prediction.forces is not None:
        results["forces"] = _host(prediction.forces)
    if stress and prediction.stress is not None:
        results["stress"] = _host(prediction.stress)[0]
    return results


def _host(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().to(torch.float64).numpy().copy()


def _bulk(atoms: ase.Atoms) -> bool:
    return bool(atoms.pbc.all() and atoms.cell.rank == 3)


def _has_volume(atoms: ase.Atoms) -> bool:
    return bool(atoms.pbc.any() and atoms.cell.rank == 3)


def _symbols(numbers: Iterable[int]) -> str:
    return ", ".join(chemical_symbols[number] for number in sorted(numbers))
