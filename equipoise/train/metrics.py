"""Errors in the units people compare: meV and meV/Å, from sums that add up.

Every mean here is a numerator over a count. Both are summed over structures, batches and processes, and divided once, at the
end: means of means would weigh a batch of five like one of fifty.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, fields

import torch
from jaxtyping import Float64
from torch import Tensor

from equipoise.graph import Graph
from equipoise.potentials import Prediction

MEV = 1000.0  # meV per eV
# What `structure_sums` returns for each structure, in this order; all are fields of `Tally`.
SUMS = (
    "energies",
    "energy_absolute",
    "energy_squared",
    "energy_per_atom",
    "energy_squared_per_atom",
    "components",
    "force_absolute",
    "force_squared",
    "stresses",
    "stress_absolute",
    "stress_squared",
)


@dataclass(frozen=True)
class Errors:
    """Mean absolute and root mean square errors; NaN where there was no label."""

    energy_mae_mev: float  # meV per structure
    energy_rmse_mev: float  # meV per structure
    energy_mae_mev_per_atom: float  # meV/atom
    force_mae_mev: float  # meV/Å, over components
    force_rmse_mev: float  # meV/Å, over components
    energy_rmse_mev_per_atom: float = math.nan  # meV/atom
    stress_mae_mev: float = math.nan  # meV/Å³, over the six components
    stress_rmse_mev: float = math.nan  # meV/Å³, over the six components

    def as_dict(self) -> dict[str, float | None]:
        """For JSON, which has no NaN: None in its place."""
        return {name: finite_or_none(value) for name, value in asdict(self).items()}


@dataclass
class Tally:
    """Running sums, from which `errors` makes means.

    Plain numbers on purpose: a training run stores its tally in the resumable state, so that the log of a resumed run has the
    rows of the uninterrupted one. Tallies of parts (batches, processes) add up to the tally of the whole: ``a + b``, or
    ``values`` before and ``of`` after a sum over processes.
    """

    structures: int = 0  # seen
    energies: int = 0  # with an energy label
    energy_absolute: float = 0.0  # eV
    energy_squared: float = 0.0  # eV²
    energy_per_atom: float = 0.0  # eV/atom
    components: int = 0  # of forces, with a label
    force_absolute: float = 0.0  # eV/Å
    force_squared: float = 0.0  # eV²/Å²
    passes: int = 0  # forward
    adjoint_passes: int = 0
    unconverged: int = 0  # structures whose fixed point or adjoint was not reached
    energy_squared_per_atom: float = 0.0  # eV²/atom²
    stresses: int = 0  # components with a label
    stress_absolute: float = 0.0  # eV/Å³
    stress_squared: float = 0.0  # eV²/Å⁶

    def __add__(self, other: "Tally") -> "Tally":
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Tally(*(ours + theirs for ours, theirs in pairs))

    def values(self) -> tuple[float, ...]:
        """All sums in the order of the fields, for a reduction over processes."""
        return astuple(self)

    @classmethod
    def of(cls, values: Sequence[float]) -> "Tally":
        """The inverse of `values`. Counts come back whole: float64 holds them exactly up to 2⁵³."""
        pairs = zip(fields(cls), values, strict=True)
        return cls(*(int(value) if field.type is int else value for field, value in pairs))

    def add(self, prediction: Prediction, graph: Graph) -> None:
        """Count one batch: what it cost and how wrong it is."""
        self.add_solves(prediction)
        self.add_errors(prediction.energy, prediction.forces, graph, stress=prediction.stress)

    def add_solves(self, prediction: Prediction, *, unrolled: int = 0) -> None:
        """Count structures, passes, and solves that did not converge; `unrolled` are the passes where nothing was solved."""
        self.structures += len(prediction.energy)
        solution = prediction.equilibrium
        if solution is None:
            self.passes += unrolled * len(prediction.energy)
            return
        self.passes += int(solution.passes.sum())
        if solution.adjoint_passes is not None:
            self.adjoint_passes += int(solution.adjoint_passes.sum())
        self.unconverged += int(unconverged(prediction).sum())

    def add_errors(
        self, energy: Tensor, forces: Tensor | None, graph: Graph, *, stress: Tensor | None = None
    ) -> None:
        """Count energies (eV, [structures]), forces (eV/Å, [atoms, 3]) and stresses (eV/Å³, [structures, 6])."""
        sums = structure_sums(energy, forces, graph, stress=stress).sum(0).tolist()
        for name, value in zip(SUMS, sums, strict=True):
            setattr(self, name, getattr(self, name) + type(getattr(self, name))(value))

    def errors(self) -> Errors:
        return Errors(
            energy_mae_mev=MEV * _ratio(self.energy_absolute, self.energies),
            energy_rmse_mev=MEV * math.sqrt(_ratio(self.energy_squared, self.energies)),
            energy_mae_mev_per_atom=MEV * _ratio(self.energy_per_atom, self.energies),
            force_mae_mev=MEV * _ratio(self.force_absolute, self.components),
            force_rmse_mev=MEV * math.sqrt(_ratio(self.force_squared, self.components)),
            energy_rmse_mev_per_atom=MEV
            * math.sqrt(_ratio(self.energy_squared_per_atom, self.energies)),
            stress_mae_mev=MEV * _ratio(self.stress_absolute, self.stresses),
            stress_rmse_mev=MEV * math.sqrt(_ratio(self.stress_squared, self.stresses)),
        )

    @property
    def mean_passes(self) -> float:
        """Forward passes per structure."""
        return _ratio(self.passes, self.structures)

    @property
    def mean_adjoint_passes(self) -> float:
        """Adjoint passes per structure."""
        return _ratio(self.adjoint_passes, self.structures)


def structure_sums(
    energy: Float64[Tensor, " structures"],
    forces: Float64[Tensor, "atoms 3"] | None,
    graph: Graph,
    *,
    stress: Float64[Tensor, "structures 6"] | None = None,
) -> Float64[Tensor, "structures sums"]:
    """Numerators and counts of every structure, in the order of ``SUMS``.

    A label that is absent or NaN counts nowhere; so does a label of what was not predicted. A prediction that is NaN where there
    is a label stays NaN: an error that cannot be computed must not look small.

    Args:
      energy: eV.
      forces: eV/Å, or None if they were not predicted.
      graph: with labels, on the same device.
      stress: eV/Å³, or None.
    """
    sums = torch.zeros(graph.n_structures, len(SUMS), dtype=torch.float64, device=energy.device)
    if graph.energy is not None:
        count, error = _errors(energy, graph.energy)
        each = error / graph.counts
        parts = (count, error.abs(), error.square(), each.abs(), each.square())
        sums[:, 0:5] = torch.stack(parts, dim=1)
    if graph.forces is not None and forces is not None:
        count, error = _errors(forces, graph.forces)
        parts = (count.sum(1), error.abs().sum(1), error.square().sum(1))
        sums[:, 5:8].index_add_(0, graph.owner, torch.stack(parts, dim=1))
    if graph.stress is not None and stress is not None:
        count, error = _errors(stress, graph.stress)
        parts = (count.sum(1), error.abs().sum(1), error.square().sum(1))
        sums[:, 8:11] = torch.stack(parts, dim=1)
    return sums


def tally_of(sums: Float64[Tensor, " sums"] | list[float]) -> Tally:
    """A tally with the sums in the order of ``SUMS`` and nothing else, such as a weighted sum over structures."""
    return Tally(**dict(zip(SUMS, map(float, sums), strict=True)))


def unconverged(prediction: Prediction) -> Tensor:
    """Which structures' fixed points, or adjoints, were not found to tolerance: bool, [structures], on the CPU."""
    solution = prediction.equilibrium
    if solution is None:
        return torch.zeros(len(prediction.energy), dtype=torch.bool)
    failed = solution.result != 0
    if solution.adjoint_result is not None:
        failed = failed | (solution.adjoint_result != 0)
    return failed.cpu()


def finite_or_none(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _errors(predicted: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Which labels are known (as 0.0 and 1.0), and the error there; 0 where there is none."""
    known = ~label.isnan()
    error = torch.where(known, predicted.detach().double() - label, 0.0)
    return known.double(), error


def _ratio(total: float, count: float) -> float:
    return total / count if count else math.nan
