"""Fixed points of training structures, kept from epoch to epoch as first guesses."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from equipoise.graph import Graph
from equipoise.potentials.potential import Solution

MEBIBYTE = 2**20


class FixedPoints:
    """z* of each training structure when it was last solved.

    Between two epochs the weights change a little, and so does z*: the old one is a better first guess than nothing. The answer
    is the same to the tolerance of the solver, whatever it starts from.

    *When this is the wrong tool*: with a large learning rate z* moves so far that it saves little, and while training is unrolled
    (``training.unrolled``) nothing is solved at all. The saving is in forward passes; those of the adjoint are not touched.

    Args:
      megabytes: MiB of memory for states; structures that find no room are solved from nothing, the same ones in every epoch.
      from_zero: whether the potential's own first guess is zero, so that new and known structures can share a batch. Otherwise a
        batch with a new one is solved from nothing altogether.
    """

    def __init__(self, megabytes: float, *, from_zero: bool) -> None:
        self._room = int(megabytes * MEBIBYTE)
        self._from_zero = from_zero
        self._states: dict[int, Tensor] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._states)

    @property
    def bytes(self) -> int:
        """Memory in use."""
        return self._bytes

    def start(self, rows: Sequence[int], graph: Graph) -> Solution | None:
        """A first guess for a batch, if there is one.

        Args:
          rows: which structure of the training set each structure of the batch is.
          graph: the batch.
        """
        known = [self._states.get(row) for row in rows]
        some = next((state for state in known if state is not None), None)
        if some is None or not (self._from_zero or all(state is not None for state in known)):
            return None
        parts = [
            some.new_zeros(atoms, *some.shape[1:]) if state is None else state
            for state, atoms in zip(known, graph.counts.tolist(), strict=True)
        ]
        unknown = torch.full((len(rows),), torch.nan, dtype=torch.float64)
        nothing = torch.zeros(len(rows), dtype=torch.int64)
        value = torch.cat(parts).to(graph.device)
        return Solution(value=value, passes=nothing, residual=unknown, result=nothing)

    def keep(self, rows: Sequence[int], graph: Graph, solution: Solution | None) -> None:
        """Remember what was found; forget what was not, so that a bad start is not passed on for ever."""
        if solution is None or self._room == 0:
            return
        states = solution.value.detach().cpu().split(graph.counts.tolist())
        for row, state, result in zip(rows, states, solution.result.tolist(), strict=True):
            before = self._states.pop(row, None)
            self._bytes -= 0 if before is None else before.nbytes
            if result == 0 and self._bytes + state.nbytes <= self._room:
                self._states[row] = state.clone()
                self._bytes += state.nbytes

    def state_dict(self) -> dict[str, Tensor]:
        """Everything, in three tensors: rows, atoms of each, and states one after the other."""
        if not self._states:
            return {}
        return {
            "rows": torch.tensor(list(self._states)),
            "atoms": torch.tensor([len(state) for state in self._states.values()]),
            "states": torch.cat(list(self._states.values())),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state_dict` returned."""
        self._states = {}
        if state:
            parts = state["states"].split(state["atoms"].tolist())
            self._states = {
                row: part.clone() for row, part in zip(state["rows"].tolist(), parts, strict=True)
            }
        self._bytes = sum(part.nbytes for part in self._states.values())
