"""The memory of an engine: where the next equilibrium probably is, and when not to say.

Along a trajectory the atoms move by hundredths of an Angstrom per step, and the
equilibrium z* and its adjoint move as smoothly. A `WarmStart` keeps the last few of
both and makes a guess of them:

1. `start = warm_start.start(graph)`: the guess, or None when nothing useful is known;
2. `prediction = potential(graph, start=start)`;
3. `warm_start.remember(graph, prediction.equilibrium)`.

A guess never changes what a converged solve returns beyond its tolerance; a bad one
only costs passes. It is given up all the same, loudly countable, when it cannot be
about this structure any more: see `WarmStart`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equipoise.deq import Inner
from equipoise.deq.predictors import FixedCoefficients, LeastSquares, Predictor
from equipoise.deq.solution import Result, Secants, Solution
from equipoise.graph import Graph


@dataclass(frozen=True)
class _Solved:
    value: Tensor
    adjoint: Tensor | None
    descriptor: Tensor | None = None


class WarmStart:
    """Remembers the last solutions of one trajectory and guesses the next.

    It forgets everything when

    - the number of atoms, the order of the species, the structures of the batch or the
      periodic directions change;
    - the cell changes by more than `max_strain` (relative, Frobenius norm);
    - any atom has moved more than `max_move` since the last solve (the shortest way
      across a periodic boundary counts, so wrapping atoms into the cell is no move);
    - the last solve did not converge,

    and it drops all but the newest solution when the path proves not to be smooth: a
    guess whose residual (the first of its solve) was above `max_residual`, or a solve
    from a guess that took more passes than the last one from nothing. A second solve
    of unmoved atoms replaces the newest solution instead of following it.

    Predictors with fixed coefficients suppose equal steps. A changed timestep costs a few
    passes, no more.

    **Arguments**

    - `predictor`: how to extrapolate. The default, `LeastSquares()`, sees where the atoms
      went and suits solves to a tolerance; `ASPC()` suits joint passes, of which no
      tolerance makes sure.
    - `max_move`: Angstrom, larger than 0.
    - `max_strain`: larger than 0, no unit.
    - `max_residual`: larger than 0, no unit; a start from nothing has about 1, a guess along a
      smooth path 0.01 or less.

    **Attributes**

    - `forgotten`: how many times the memory was given up.
    - `reason`: why it was, the last time; None if never.
    """

    def __init__(
        self,
        predictor: Predictor | None = None,
        *,
        max_move: float = 0.5,
        max_strain: float = 0.03,
        max_residual: float = 0.3,
    ) -> None:
        if not max_move > 0:
            raise ValueError(f"max_move must be larger than 0 Angstrom, received {max_move}")
        if not max_strain > 0:
            raise ValueError(f"max_strain must be larger than 0, received {max_strain}")
        if not max_residual > 0:
            raise ValueError(f"max_residual must be larger than 0, received {max_residual}")
        self.predictor = LeastSquares() if predictor is None else predictor
        self.max_move = float(max_move)
        self.max_strain = float(max_strain)
        self.max_residual = float(max_residual)
        self.forgotten = 0
        self.reason: str | None = None
        self._clear()

    def _clear(self) -> None:
        self._solved: list[_Solved] = []  # newest first
        self._place: Graph | None = None  # where the newest was solved
        self._secants: tuple[Secants, Secants] | None = None
        self._cold_passes: int | None = None
        self._guessed = False  # whether the next solution began from a guess

    @property
    def remembered(self) -> int:
        """How many solutions are in memory."""
        return len(self._solved)

    @property
    def full(self) -> bool:
        """Whether there are as many solutions as the predictor can use."""
        return self.remembered >= self.predictor.depth

    def reset(self) -> None:
        """Forget everything, as after construction."""
        self._clear()
        self.forgotten, self.reason = 0, None

    def forget(self, reason: str) -> None:
        """Give up the memory and note why."""
        if self._solved:
            self.forgotten += 1
            self.reason = reason
        self._clear()

    def start(self, graph: Graph) -> Solution | Callable[[Tensor], Solution] | None:
        """The guess for `graph`, or None when its solve should begin from nothing.

        The atoms of `graph` not having moved since the last solve, that solution comes
        back as it is. A predictor that needs the descriptor of the problem gives a
        function of it, which `Potential` takes as well.
        """
        reason = self._outdated(graph)
        if reason is not None:
            self.forget(reason)
        if not self._solved:
            return None
        self._guessed = True
        if self._unmoved(graph):
            return self._as_start(self._solved[0], graph)
        if isinstance(self.predictor, FixedCoefficients):
            return self._guess(graph)
        if any(solved.descriptor is None for solved in self._solved):
            return self._as_start(self._solved[0], graph)
        return partial(self._guess, graph)

    def _guess(self, graph: Graph, descriptor: Tensor | None = None) -> Solution:
        known: dict[str, Any] = {}
        if descriptor is not None:
            known = {
                "descriptors": [solved.descriptor for solved in self._solved],
                "descriptor": descriptor,
                "inner": Inner(graph.owner, graph.n_structures),
            }
        value = self.predictor([solved.value for solved in self._solved], **known)
        adjoints: list[Tensor] = []
        for solved in self._solved:
            # A solution without an adjoint leaves a gap; beyond it steps are not equal.
            if solved.adjoint is None:
                break
            adjoints.append(solved.adjoint)
        adjoint = self.predictor(adjoints, **known) if adjoints else None
        return self._as_start(_Solved(value, adjoint), graph)

    def _as_start(self, guess: _Solved, graph: Graph) -> Solution:
        structures, device = graph.n_structures, guess.value.device
        return Solution(
            value=guess.value,
            passes=torch.zeros(structures, dtype=torch.int64, device=device),
            # A guess has not been held against f yet.
            residual=torch.full((structures,), torch.inf, dtype=guess.value.dtype, device=device),
            result=torch.full(
                (structures,), int(Result.MAX_PASSES), dtype=torch.int64, device=device
            ),
            adjoint=guess.adjoint,
            secants=self._secants,
        )

    def remember(self, graph: Graph, solution: Solution | None) -> None:
        """Take in the solution of `graph` (None, from an explicit network, is none)."""
        if solution is None:
            return
        if not solution.converged:
            self.forget("the last solve did not converge")
            return
        reason = self._outdated(graph)
        if reason is not None:
            self.forget(reason)
        adjoint = solution.adjoint
        new = _Solved(
            solution.value.detach(),
            None if adjoint is None else adjoint.detach(),
            None if isinstance(self.predictor, FixedCoefficients) else solution.descriptor,
        )
        if not self._solved:
            self._solved, self._cold_passes = [new], int(solution.passes.max())
        elif self._unmoved(graph):
            if new.adjoint is None:
                new = replace(new, adjoint=self._solved[0].adjoint)
            self._solved[0] = new
        else:
            self._solved.insert(0, new)
            if self._misled(solution):
                del self._solved[1:]
            del self._solved[self.predictor.depth :]
        if solution.secants is not None:
            self._secants = solution.secants
        self._place, self._guessed = graph, False

    def state(self) -> dict[str, np.ndarray]:
        """Everything remembered, as arrays: what a checkpoint of a trajectory needs.

        A `WarmStart` with the same predictor that gets them back by `restore` gives
        bit for bit the same guesses.
        """
        place = self._place
        if place is None:
            return {}
        state = {
            name: getattr(place, name).cpu().numpy()
            for name in ("positions", "species", "owner", "cell", "pbc")
        }
        for index, solved in enumerate(self._solved):
            state[f"value.{index}"] = solved.value.cpu().numpy()
            for name in ("adjoint", "descriptor"):
                tensor = getattr(solved, name)
                if tensor is not None:
                    state[f"{name}.{index}"] = tensor.cpu().numpy()
        if self._cold_passes is not None:
            state["cold_passes"] = np.array(self._cold_passes)
        for index, secants in enumerate(self._secants or ()):
            state[f"mapped.{index}"] = secants.mapped.cpu().numpy()
            state[f"changes.{index}"] = secants.changes.cpu().numpy()
        return state

    def restore(self, state: Mapping[str, np.ndarray], *, device: Any = "cpu") -> None:
        """Take up what `state` returned; tensors go to `device`.

        **Raises** `ValueError` if arrays are missing.
        """
        self._clear()
        if not state:
            return
        names = ("positions", "species", "owner", "cell", "pbc", "value.0")
        missing = [name for name in names if name not in state]
        if missing:
            raise ValueError(
                f"a warm-start state must hold {', '.join(names)}, received one "
                f"without {', '.join(missing)}"
            )
        place = {name: torch.tensor(state[name], device=device) for name in names[:5]}
        none = torch.zeros(0, dtype=torch.int64, device=device)
        self._place = Graph(
            senders=none,
            receivers=none,
            shifts=none.reshape(0, 3),
            cutoff=0.0,  # only where the atoms are matters here, no edges
            **place,
        )
        while f"value.{len(self._solved)}" in state:
            index = len(self._solved)
            parts = {
                name: torch.tensor(state[f"{name}.{index}"], device=device)
                for name in ("value", "adjoint", "descriptor")
                if f"{name}.{index}" in state
            }
            self._solved.append(_Solved(**{"adjoint": None} | parts))
        if "cold_passes" in state:
            self._cold_passes = int(state["cold_passes"])
        if "mapped.1" in state:
            self._secants = tuple(
                Secants(
                    torch.tensor(state[f"mapped.{index}"], device=device),
                    torch.tensor(state[f"changes.{index}"], device=device),
                )
                for index in range(2)
            )

    def _misled(self, solution: Solution) -> bool:
        """Whether the guess that `solution` began from was a bad one."""
        if solution.first_residual is None:
            return False  # joint passes: as many as were asked for, whatever the guess
        if self._cold_passes is not None and int(solution.passes.max()) > self._cold_passes:
            return True
        return self._guessed and not bool((solution.first_residual <= self.max_residual).all())

    def _unmoved(self, graph: Graph) -> bool:
        place = self._place
        return (
            place is not None
            and torch.equal(graph.positions, place.positions)
            and torch.equal(graph.cell, place.cell)
        )

    def _outdated(self, graph: Graph) -> str | None:
        """Why the memory cannot be about `graph`, or None."""
        place = self._place
        if place is None:
            return None
        if graph.n_atoms != place.n_atoms:
            return f"atoms changed from {place.n_atoms} to {graph.n_atoms}"
        if not torch.equal(graph.species, place.species):
            return "the species, or their order, changed"
        if not torch.equal(graph.owner, place.owner):
            return "atoms changed structures in the batch"
        if not torch.equal(graph.pbc, place.pbc):
            return "the periodic directions changed"
        strain = _strain(graph.cell, place.cell)
        if not strain <= self.max_strain:
            return f"the cell changed by {strain:.1%}, more than {self.max_strain:.1%}"
        move = float(_moves(graph, place).norm(dim=1).max())
        if not move <= self.max_move:  # NaN compares false too
            return f"an atom moved {move:.2f} Angstrom, more than {self.max_move}"
        return None


def _strain(cell: Tensor, before: Tensor) -> float:
    """Largest relative change among the cells: ||C' - C|| / ||C||."""
    change = (cell - before).flatten(1).norm(dim=1)
    size = before.flatten(1).norm(dim=1)
    # No cell before and after is no change; a cell out of nothing is an infinite one.
    return float(torch.where(change == 0, change, change / size).max())


def _moves(graph: Graph, place: Graph) -> Tensor:
    """Displacement of each atom by the shortest way, [atoms, 3] Angstrom."""
    moves = graph.positions - place.positions
    if not bool(graph.pbc.any()):
        return moves
    # The pseudo-inverse leaves directions without a lattice vector alone.
    inverse = torch.linalg.pinv(graph.cell)[graph.owner]
    images = torch.einsum("ax,axi->ai", moves, inverse).round()
    images = images * graph.pbc[graph.owner]
    return moves - torch.einsum("ai,aix->ax", images, graph.cell[graph.owner])
