"""The ASE calculator: `atoms.calc = EquipoiseCalculator("model.safetensors")`.

Energies in eV, lengths in Angstrom, forces in eV/Angstrom, stress in eV/Angstrom^3 with
ASE's sign and Voigt order (xx yy zz yz xz xy): ASE's own units, so nothing is converted.
"""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
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

from equipoise.deq import Joint, Solution
from equipoise.engines.passes import memory_for, reversible_passes
from equipoise.engines.warm_start import WarmStart
from equipoise.graph import Graph, NeighbourList
from equipoise.potentials import (
    CompilationError,
    Potential,
    Prediction,
    Start,
    UnconvergedError,
    load,
)

PATIENCE = 10  # structures in a row for which joint passes were too few
# Of the last call, in a checkpoint beside results and memory.
STATE = ("passes", "adjoint_passes", "residual", "adjoint_residual", "correction")


class NonFiniteError(RuntimeError):
    """The potential returned NaN or infinity for a finite structure."""


@dataclass(frozen=True)
class CalculatorStatistics:
    """Running totals of one calculator since it was made."""

    calls: int = 0  # evaluations of the potential
    passes: int = 0  # of the equilibrium, all calls together
    adjoint_passes: int = 0
    neighbour_builds: int = 0
    warm_calls: int = 0  # calls that began from a guess
    cold_retries: int = 0  # warm solves that failed and were repeated from nothing
    joint_calls: int = 0  # answered by joint passes
    joint_retries: int = 0  # joint passes after which a solve was needed all the same


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
        if unconverged not in ("error", "warn", "accept"):
            raise ValueError(
                f'unconverged must be "error", "warn" or "accept", received {unconverged!r}'
            )
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
        self.potential = potential.eval()
        if not (joint is None or joint == "auto" or isinstance(joint, Joint)):
            raise ValueError(f'joint must be a Joint, "auto" or None, received {joint!r}')
        if joint == "auto" and (warm_start is not True or history_free is not None):
            joint = None
        if history_free is not None and (joint is not None or history_free < 1):
            raise ValueError(
                f"history_free must be at least 1 pass, and goes without joint, received {history_free} and {joint}"
            )
        if joint is not None and warm_start is False:
            raise ValueError("joint passes start from a guess, received warm_start=False")
        self.joint = joint if isinstance(joint, Joint) else None
        self.history_free = history_free
        self._asked = joint if warm_start is True else None  # until there is a structure
        self._may_give_up = joint == "auto"
        self.misses = 0
        if isinstance(warm_start, bool):
            self.warm_start = WarmStart() if warm_start and history_free is None else None
        else:
            self.warm_start = warm_start
        self.neighbours = NeighbourList(self.potential.cutoff, skin)
        self.unconverged = unconverged
        self.compile = compile
        self.passes = 0
        self.adjoint_passes = 0
        self.residual = self.adjoint_residual = float("nan")
        self.correction = 0.0
        self.graph: Graph | None = None
        self._failed = (0, 0)  # passes of attempts at the last structure
        self._statistics = CalculatorStatistics()

    @property
    def statistics(self) -> CalculatorStatistics:
        return self._statistics

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
            graph = self._graph(self.atoms)
            self._choose(graph)
            if self.compile and not self.potential.compiled:
                self._compile(graph)
            prediction, warm, retried = self._solve(graph, stress)
            results = _results(prediction, stress)
        except BaseException:
            self.results = {}
            self._forget("the last calculation failed")
            raise
        if self.warm_start is not None:
            self.warm_start.remember(graph, prediction.equilibrium)
        if self.misses >= PATIENCE and self._may_give_up:
            warnings.warn(
                f"residuals were above {self.joint.max_residual:g} after {self.joint.passes} joint passes in {self.misses} "
                "steps in a row: every step is solved to the tolerance from now on",
                RuntimeWarning,
                stacklevel=2,
            )
            self._give_up()
        self.graph = graph
        self._count(prediction, warm, retried)
        # Between two calls at one geometry what is known stays as it is: a second
        # solve would move it by a fraction of the tolerance.
        self.results = results | self.results

    def choose_passes(self, atoms: ase.Atoms) -> None:
        """Decide about the passes and the memory for a trajectory from `atoms` now.

        The first calculation does it otherwise.

        **Raises** `ValueError` if `joint` has too few passes for this network.
        """
        self._choose(self._graph(atoms))

    def cold_passes(self) -> tuple[int, int]:
        """Passes (equilibrium, adjoint) that the last structure takes from nothing.

        Solves again and leaves no trace: for comparing warm with cold.

        **Raises** `ValueError` if nothing has been calculated yet.
        """
        if self.graph is None:
            raise ValueError(
                "cold_passes repeats the last calculation, and there was none; call "
                "atoms.get_forces() first"
            )
        prediction = self.potential(self.graph, unconverged="accept")
        return _passes(prediction.equilibrium)

    def state(self) -> dict[str, np.ndarray]:
        """Results and memory as arrays, for the checkpoint of a trajectory."""
        state: dict[str, np.ndarray] = {}
        if self.warm_start is not None:
            for name, array in self.warm_start.state().items():
                state[f"warm_start.{name}"] = array
        for name, value in self.results.items():
            state[f"results.{name}"] = np.asarray(value)
        for name in STATE:
            state[name] = np.asarray(getattr(self, name))
        state["misses"] = np.asarray(self.misses)
        return state

    def restore(self, atoms: ase.Atoms, state: Mapping[str, np.ndarray]) -> None:
        """Continue from `state`, taken when `atoms` were calculated last.

        What follows is bit for bit what would have followed there (on a CPU).

        **Raises** `ValueError` if `state` is not one of a calculator.
        """
        missing = [name for name in STATE if name not in state]
        if missing:
            raise ValueError(
                f"a calculator state must hold {', '.join(STATE)}, received one "
                f"without {', '.join(missing)}"
            )
        self.choose_passes(atoms)
        self.misses = int(state.get("misses", 0))  # not in those of 0.2
        if self.misses >= PATIENCE and self._may_give_up:
            self._give_up()
        if self.warm_start is not None:
            self.warm_start.restore(_under("warm_start.", state), device=self.potential.device)
        self.atoms = atoms.copy()
        self.results = {
            name: float(value) if value.ndim == 0 else value.copy()
            for name, value in _under("results.", state).items()
        }
        self.passes = int(state["passes"])
        self.adjoint_passes = int(state["adjoint_passes"])
        for name in ("residual", "adjoint_residual", "correction"):
            setattr(self, name, float(state[name]))
        self.graph = self._graph(self.atoms)

    def _choose(self, graph: Graph) -> None:
        if isinstance(self._asked, Joint):
            self.warm_start = memory_for(self._asked, self.potential, graph)
        elif self._asked is not None:
            found = reversible_passes(self.potential, graph)
            if found is not None:
                self.joint, self.warm_start = found
        self._asked = None

    def _give_up(self) -> None:
        self.joint, self.warm_start, self._may_give_up = None, WarmStart(), False

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

    def _solve(self, graph: Graph, stress: bool) -> tuple[Prediction, bool, bool]:
        self._failed = (0, 0)
        if self.history_free is not None:
            return self.potential(graph, stress=stress, unrolled=self.history_free), False, False
        start = None if self.warm_start is None else self.warm_start.start(graph)
        if start is not None:
            try:
                # What to do about a structure that does not converge is only asked
                # once it is known that the guess was not to blame.
                return self._solve_from(start, graph, stress), True, False
            except UnconvergedError as error:
                self._spent(error.solution)
                self._forget("a solve from a guess did not converge")
        prediction = self.potential(graph, stress=stress, unconverged=self.unconverged)
        return prediction, False, start is not None

    def _solve_from(self, start: Start, graph: Graph, stress: bool) -> Prediction:
        # Where a guess is made later, of the descriptor, its memory is one of adjoints too.
        complete = callable(start) or start.adjoint is not None
        if self.joint is not None and complete and self.warm_start.full:
            count = self._statistics
            try:
                prediction = self.potential(graph, start=start, joint=self.joint, stress=stress)
                self.misses = 0
                self._statistics = replace(count, joint_calls=count.joint_calls + 1)
                return prediction
            except UnconvergedError as error:
                self._spent(error.solution)
                self._statistics = replace(count, joint_retries=count.joint_retries + 1)
                self.misses += 1
        return self.potential(graph, start=start, stress=stress, unconverged="error")

    def _spent(self, solution: Solution) -> None:
        """Count the passes of an attempt that led nowhere."""
        self._failed = tuple(map(sum, zip(self._failed, _passes(solution), strict=True)))

    def _compile(self, graph: Graph) -> None:
        try:
            self.potential.compile(graph, joint=self.joint)
        except CompilationError as error:
            self.compile = False  # once is enough
            warnings.warn(f"going on without: {error}", RuntimeWarning, stacklevel=2)

    def _forget(self, reason: str) -> None:
        if self.warm_start is not None:
            self.warm_start.forget(reason)

    def _count(self, prediction: Prediction, warm: bool, retried: bool) -> None:
        found = _passes(prediction.equilibrium)
        self.passes, self.adjoint_passes = map(sum, zip(found, self._failed, strict=True))
        equilibrium = prediction.equilibrium
        self.residual = self.adjoint_residual = float("nan")
        self.correction = 0.0
        if equilibrium is not None:
            self.residual = float(equilibrium.residual.max())
        if prediction.correction is not None:
            self.adjoint_residual = float(equilibrium.adjoint_residual.max())
            self.correction = float(prediction.correction.sum())
        before = self._statistics
        self._statistics = replace(
            before,
            calls=before.calls + 1,
            passes=before.passes + self.passes,
            adjoint_passes=before.adjoint_passes + self.adjoint_passes,
            neighbour_builds=self.neighbours.builds,
            warm_calls=before.warm_calls + warm,
            cold_retries=before.cold_retries + retried,
        )


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
    broken = [name for name, value in results.items() if not np.isfinite(value).all()]
    if broken:
        raise NonFiniteError(
            f"energy, forces and stress must be finite, but the potential returned NaN "
            f"or infinity in {', '.join(broken)}; the structure is probably far outside "
            f"what it was trained on"
        )
    return results


def _passes(equilibrium: Solution | None) -> tuple[int, int]:
    if equilibrium is None:
        return 0, 0
    adjoint = equilibrium.adjoint_passes
    return int(equilibrium.passes.sum()), 0 if adjoint is None else int(adjoint.sum())


def _host(values: torch.Tensor) -> np.ndarray:
    return values.detach().cpu().to(torch.float64).numpy().copy()


def _bulk(atoms: ase.Atoms) -> bool:
    return bool(atoms.pbc.all() and atoms.cell.rank == 3)


def _has_volume(atoms: ase.Atoms) -> bool:
    return bool(atoms.pbc.any() and atoms.cell.rank == 3)


def _under(prefix: str, state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [name for name in state if name.startswith(prefix)]
    return {name.removeprefix(prefix): state[name] for name in names}


def _symbols(numbers: Iterable[int]) -> str:
    return ", ".join(chemical_symbols[number] for number in sorted(numbers))
