"""Settings of a potential, and what it must know about its training set."""

import math
from dataclasses import dataclass, field

from equipoise.backbones import EquiformerV2Config
from equipoise.deq import Anderson


@dataclass(frozen=True)
class PotentialConfig:
    """Everything needed to build a potential, apart from weights.

    Attributes:
      kind: "equilibrium" (the backbone's layers iterated to their fixed point) or "stacked" (the layers applied once).
      backbone: the network.
      solver, adjoint: for the state and its adjoint when predicting. Their tolerance bounds how far energies and forces are
        from those of the exact fixed point.
      training_solver, training_adjoint: the same while training; their error is noise in energies and forces, so keep it well
        below the error the network is to reach.
      training_gradient: for the gradient of the loss with respect to weights, where a direction within a few per cent does.
      dtype: precision of the network; geometry and energy sums are always float64.
    """

    kind: str = "equilibrium"
    backbone: EquiformerV2Config = field(default_factory=EquiformerV2Config)
    solver: Anderson = field(default_factory=lambda: Anderson(tolerance=1e-4, max_passes=60))
    adjoint: Anderson = field(default_factory=lambda: Anderson(tolerance=1e-4, max_passes=60))
    training_solver: Anderson = field(
        default_factory=lambda: Anderson(tolerance=5e-4, max_passes=24)
    )
    training_adjoint: Anderson = field(
        default_factory=lambda: Anderson(tolerance=2e-3, max_passes=24)
    )
    training_gradient: Anderson = field(
        default_factory=lambda: Anderson(tolerance=3e-2, max_passes=16)
    )
    dtype: str = "float32"

    def __post_init__(self):
        if self.kind not in ("equilibrium", "stacked"):
            raise ValueError(f"kind must be 'equilibrium' or 'stacked', received {self.kind!r}")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', received {self.dtype!r}")
        if self.kind == "equilibrium" and self.backbone.norm != "post":
            raise ValueError(
                "an equilibrium potential needs backbone.norm='post': with 'pre' the state grows at every pass and there is "
                f"no fixed point; received {self.backbone.norm!r}"
            )


@dataclass(frozen=True)
class Statistics:
    """What the training set tells the network.

    Attributes:
      elements: atomic numbers, ascending; no others can be predicted.
      reference_energies: eV per atom of each element, least squares over the training set.
      force_rms: eV/Å, root mean square of all force components; the scale of the network's output.
      mean_neighbours: edges per atom.
      mean_atoms: atoms per structure.
    """

    elements: tuple[int, ...]
    reference_energies: tuple[float, ...]
    force_rms: float
    mean_neighbours: float
    mean_atoms: float

    def __post_init__(self):
        if not self.elements or list(self.elements) != sorted(set(self.elements)):
            raise ValueError(
                f"elements must be distinct atomic numbers in ascending order, received {self.elements}"
            )
        if not all(1 <= number <= 118 for number in self.elements):
            raise ValueError(
                f"elements must be atomic numbers from 1 to 118, received {self.elements}"
            )
        if not all(math.isfinite(energy) for energy in self.reference_energies):
            raise ValueError(
                f"reference energies must be finite, received {self.reference_energies}"
            )
        if len(self.reference_energies) != len(self.elements):
            raise ValueError(
                f"one reference energy per element is needed: {len(self.elements)} elements, "
                f"received {len(self.reference_energies)}"
            )
        if not self.force_rms > 0:
            raise ValueError(f"force_rms must be > 0 eV/Å, received {self.force_rms}")
