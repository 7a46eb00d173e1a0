"""Settings of a potential, and what it must know about its training set."""

import math
from dataclasses import dataclass, field, fields
from typing import Annotated

from equipoise.backbones import EquiformerV2Config
from equipoise.backbones.equiformer_v2_original import EquiformerV2OriginalConfig
from equipoise.deq import Anderson, Broyden, Newton, Phantom, Picard, Solver, Unrolled
from equipoise.potentials.choices import Choice
from equipoise.potentials.families import FAMILIES, family_of
from equipoise.potentials.injection import InjectionConfig
from equipoise.potentials.repulsion import Repulsion


@dataclass(frozen=True)
class ImplicitGradient:
    """Training differentiates the fixed point itself, by :class:`equipoise.deq.Implicit`: its adjoint problems are solved by
    ``training_adjoint`` and ``training_gradient`` of the potential."""


BackboneChoice = Annotated[
    EquiformerV2Config | EquiformerV2OriginalConfig,
    Choice({name: family.config for name, family in FAMILIES.items()}, "equiformer_v2"),
]
SolverChoice = Annotated[
    Anderson | Broyden | Newton | Picard,
    Choice(
        {"anderson": Anderson, "broyden": Broyden, "newton": Newton, "picard": Picard},
        "anderson",
        shared=tuple(field.name for field in fields(Solver)),
    ),
]
GradientChoice = Annotated[
    ImplicitGradient | Phantom | Unrolled,
    Choice({"implicit": ImplicitGradient, "phantom": Phantom, "unrolled": Unrolled}, "implicit"),
]


@dataclass(frozen=True)
class PotentialConfig:
    """Everything needed to build a potential, apart from weights.

    Attributes:
      kind: "equilibrium" (the backbone's layers iterated to their fixed point) or "stacked" (the layers applied once).
      backbone: the network.
      forces: "gradient": minus the derivative of the energy, conservative. "direct": from a head of their own, for comparison
        with published models that do so; these are the gradient of nothing, do not sum to zero, and heat up a simulation.
        Only with the backbone equiformer_v2_original and its force_head.
      injection: how a structure enters the fixed-point map of an equilibrium, and where a solve begins.
      solver, adjoint: for the state and its adjoint when predicting. Their tolerance bounds how far energies and forces are
        from those of the exact fixed point.
      training_solver, training_adjoint: the same while training; their error is noise in energies and forces, so keep it well
        below the error the network is to reach.
      training_gradient: for the gradient of the loss with respect to weights, where a direction within a few per cent does.
      gradient: of an equilibrium in training. "implicit": that of the fixed point, exact to the tolerances above.
        "phantom": that of a few more passes from the fixed point. "unrolled": a fixed number of passes from the first guess is
        trained instead of the fixed point. What is *predicted* is always the fixed point, with forces from the implicit adjoint.
        The forces of a phantom training are the gradient of no energy: one step from an untrained network is 20 to 35 per cent
        off, five are 1. So such a training learns with another error than it shows; it is meant for direct forces.
      repulsion: of nuclei that come too close, added to what the network says, in training too. None: none.
      dtype: precision of the network; geometry and energy sums are always float64.
    """

    kind: str = "equilibrium"
    backbone: BackboneChoice = field(default_factory=EquiformerV2Config)
    forces: str = "gradient"
    injection: InjectionConfig = field(default_factory=InjectionConfig)
    solver: SolverChoice = field(default_factory=lambda: Anderson(tolerance=1e-4, max_passes=60))
    adjoint: SolverChoice = field(default_factory=lambda: Anderson(tolerance=1e-4, max_passes=60))
    training_solver: SolverChoice = field(
        default_factory=lambda: Anderson(tolerance=5e-4, max_passes=24)
    )
    training_adjoint: SolverChoice = field(
        default_factory=lambda: Anderson(tolerance=2e-3, max_passes=24)
    )
    training_gradient: SolverChoice = field(
        default_factory=lambda: Anderson(tolerance=3e-2, max_passes=16)
    )
    gradient: GradientChoice = field(default_factory=ImplicitGradient)
    repulsion: Repulsion | None = None
    dtype: str = "float32"

    def __post_init__(self):
        if self.kind not in ("equilibrium", "stacked"):
            raise ValueError(f"kind must be 'equilibrium' or 'stacked', received {self.kind!r}")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"dtype must be 'float32' or 'float64', received {self.dtype!r}")
        if self.forces not in ("gradient", "direct"):
            raise ValueError(f"forces must be 'gradient' or 'direct', received {self.forces!r}")
        family_of(self.backbone).check(
            self.backbone, kind=self.kind, injection=self.injection, forces=self.forces
        )

    @property
    def local(self) -> bool:
        """Whether atoms feel each other through edges only, and structures in a batch not at all."""
        return self.kind != "equilibrium" or self.injection.local


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
        if not (math.isfinite(self.mean_neighbours) and math.isfinite(self.mean_atoms)):
            raise ValueError(
                f"mean_neighbours and mean_atoms must be finite, received {self.mean_neighbours} and {self.mean_atoms}"
            )
        if not self.force_rms > 0:
            raise ValueError(f"force_rms must be > 0 eV/Å, received {self.force_rms}")
