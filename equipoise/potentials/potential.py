"""The interface of a potential: a structure in, energy, forces and stress out."""

import abc
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor, nn

from equipoise.backbones import Backbone
from equipoise.deq import Joint, Result, Solution
from equipoise.graph import Graph
from equipoise.potentials import derivatives
from equipoise.potentials.compilation import CompilationError, agree, compiled
from equipoise.potentials.config import PotentialConfig, Statistics
from equipoise.potentials.families import family_of

POLICIES = ("error", "warn", "accept")
# Where a solve begins: a solution, or what makes one of the descriptor of the problem, once that is known.
Start = Solution | Callable[[Tensor], Solution]


@dataclass(frozen=True)
class Prediction:
    """What a potential says about a graph.

    Attributes:
      energy: eV.
      forces: eV/Å, the negative gradient of ``energy`` (but see ``conservative``); None if not asked for.
      stress: eV/Å³, Voigt xx yy zz yz xz xy, ASE's sign; None if not asked for.
      atomic_energies: eV; how the network shares out the energy.
      equilibrium: the solved state; pass it as ``start`` to the next, similar structure. None for an explicit network.
      penalty: Jacobian penalty of training; None if not asked for.
      correction: eV, how much of ``energy`` is λᵀ (f(z) - z): the energy of the state as it is would be ``energy - correction``.
        It is of first order in the residual where the error of ``energy`` is of second: a large one says that few passes were
        too few. None without an equilibrium.
      error: eV, estimate of how far ``energy`` is from that of the exact fixed point: -(∂L/∂λ)ᵀ (∂L/∂z), of second order in the
        residuals and usually right to a factor of two once both are below 3 %. None without an equilibrium, and where neither
        forces nor stress of a solved state were asked for.
      conservative: False if the forces are those of a head, which are the gradient of no energy: good for comparison, bad for
        dynamics.
    """

    energy: Float64[Tensor, " structures"]
    forces: Float64[Tensor, "atoms 3"] | None
    stress: Float64[Tensor, "structures 6"] | None
    atomic_energies: Float64[Tensor, " atoms"]
    equilibrium: Solution | None = None
    penalty: Float[Tensor, ""] | None = None
    correction: Float64[Tensor, " structures"] | None = None
    error: Float64[Tensor, " structures"] | None = None
    conservative: bool = True

    @property
    def passes(self) -> Int[Tensor, " structures"] | None:
        """Passes through the network that each structure needed: forward plus adjoint."""
        if self.equilibrium is None:
            return None
        if self.equilibrium.adjoint_passes is None:
            return self.equilibrium.passes
        return self.equilibrium.passes + self.equilibrium.adjoint_passes


class UnconvergedError(RuntimeError):
    """A structure's fixed point, or its adjoint, was not found to tolerance. ``solution`` holds what was found."""

    def __init__(self, message: str, solution: Solution):
        super().__init__(message)
        self.solution = solution


class Evaluation(NamedTuple):
    """What a concrete potential hands to the common part."""

    atomic: Float[Tensor, " atoms"]  # network output, dimensionless
    gradient: Float64[Tensor, "edges 3"] | None  # of the summed network output, 1/Å
    solution: Solution | None = None
    penalty: Float[Tensor, ""] | None = None
    direct: Float[Tensor, "atoms 3"] | None = None  # output of a force head, dimensionless
    correction: Float[Tensor, " atoms"] | None = None  # the part λᵀ (f(z) - z) of ``atomic``
    error: Float[Tensor, " atoms"] | None = None  # estimate of that of ``atomic``


class Potential(nn.Module, abc.ABC):
    """E = Σ_i (scale · e_i + reference of element i), F = -∂E/∂x, σ = ∂E/∂ε / V.

    In ``.train()`` mode the prediction is differentiable in the parameters; in ``.eval()`` mode it is detached.

    To change the precision, build or ``load(path, dtype=...)`` in it: ``.to(dtype)`` casts constant tables too, and a float64
    network with tables rounded to float32 is equivariant to 1e-8 only.

    Args:
      config: settings; also decides the dtype.
      statistics: of the training set.

    Attributes:
      conservative: whether forces are the gradient of the energy; otherwise they come from a head (``config.forces``).
      local: whether a structure's prediction depends on nothing else in the batch; otherwise batches are refused.
      compiled: the compiled functions of a prediction, see :meth:`compile`; None as long as there are none.
    """

    conservative: bool = True
    local: bool = True
    compiled: tuple[Callable, ...] | None = None

    def __init__(self, config: PotentialConfig, statistics: Statistics):
        super().__init__()
        self.config, self.statistics = config, statistics
        self.conservative, self.local = config.forces == "gradient", config.local
        self.family = family_of(config.backbone)
        self.backbone: Backbone = self.family.build(
            config.backbone,
            kind=config.kind,
            injection=config.injection,
            elements=statistics.elements,
            mean_neighbours=statistics.mean_neighbours,
        )
        self.head = self.family.head(config.backbone)
        self.scale = float(statistics.force_rms)
        reference = torch.full((119,), torch.nan, dtype=torch.float64)
        reference[list(statistics.elements)] = torch.tensor(
            statistics.reference_energies, dtype=torch.float64
        )
        self.register_buffer("reference", reference, persistent=False)

    @property
    def cutoff(self) -> float:
        """Å."""
        return self.config.backbone.cutoff

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers the potential knows."""
        return self.statistics.elements

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the network."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def _apply(self, fn, recurse=True):
        # .float() and .to(dtype) must not round the reference energies (1e3 eV and more) to float32.
        reference = self.reference
        super()._apply(fn, recurse)
        self.reference = reference.to(self.reference.device)
        return self

    def train(self, mode: bool = True) -> "Potential":
        if mode and self.compiled:
            raise RuntimeError(
                "a compiled potential can only predict, its weights are frozen; load it once more to train it"
            )
        return super().train(mode)

    def compile(self, example: Graph, *, joint: Joint | None = None) -> None:
        """Compile predictions with torch.compile, and check them against plain ones on ``example``.

        About twice as fast for molecules, where the many small operations take the time; less for large systems. It takes minutes
        the first time, less where torch finds what it needs in its cache on disk, and a C++ compiler (on a GPU: Triton). Afterwards
        the weights are frozen. Another number of atoms may be compiled once more.

        Args:
          example: a structure.
          joint: if joint passes will be asked for: these are compiled and checked as well.

        Raises:
          RuntimeError: in training mode.
          CompilationError: if compilation fails, or what it gives differs from the plain prediction by more than rounding does (the
            square root of the precision, relative to the largest force). The potential then stays as it was.
        """
        if self.training:
            raise RuntimeError("only predictions can be compiled; call .eval() first")
        frozen = [p for p in self.parameters() if p.requires_grad]
        self.requires_grad_(False)
        start = self(example, unconverged="accept").equilibrium
        ways = [{}] if joint is None or start is None else [{}, {"joint": joint}]
        plain = [self(example, start=start, unconverged="accept", **way) for way in ways]
        try:
            self.compiled = compiled(self._eager)
            for way, expected in zip(ways, plain, strict=True):
                found = self(example, start=start, unconverged="accept", **way)
                agree(expected, found, self.dtype)
        except Exception as error:  # a compiler has many ways to fail
            self.compiled = None
            for parameter in frozen:
                parameter.requires_grad_()
            if isinstance(error, CompilationError):
                raise
            raise CompilationError(
                f"the potential cannot be compiled here ({type(error).__name__}: {str(error)[:500]}); use it without"
            ) from error

    @property
    @abc.abstractmethod
    def _eager(self) -> tuple[Callable, ...]:
        """The functions of a prediction, as a named tuple."""

    @abc.abstractmethod
    def _evaluate(
        self,
        graph: Graph,
        vectors: Tensor,
        *,
        start: Start | None,
        gradient: bool,
        direct: bool,
        penalty: float | None,
        unrolled: int | None,
        joint: Joint | None,
    ) -> Evaluation:
        """Network output, and its derivative with respect to the edge vectors or the output of the force head."""

    def _atomic(self, z: Tensor, context: tuple[Tensor, ...]) -> Float[Tensor, " atoms"]:
        """The energies of the network, dimensionless."""
        return self.family.energies(self.backbone, self.head, z, context)

    def _direct(self, z: Tensor, context: tuple[Tensor, ...]) -> Float[Tensor, "atoms 3"]:
        """The forces of the network, dimensionless."""
        return self.family.direct_forces(self.backbone, z, context)

    def forward(
        self,
        graph: Graph,
        *,
        start: Start | None = None,
        forces: bool = True,
        stress: bool = False,
        penalty: float | None = None,
        unrolled: int | None = None,
        joint: Joint | None = None,
        unconverged: str = "error",
    ) -> Prediction:
        """Predict.

        Args:
          graph: one structure or many, built with this potential's cutoff.
          start: the ``equilibrium`` of a similar graph with the same atoms in the same order, as a first guess; or a function that
            makes such a solution of this graph's ``equilibrium.descriptor``, which is known before the solve: the input that is
            injected into the fixed point.
          forces, stress: what to compute beyond the energy.
          penalty: training: also the Jacobian penalty, for contractions above this number (0.0: for all).
          unrolled: the state after this many passes from nothing instead of the fixed point. Exactly differentiated and
            conservative, but another potential than the one that is solved.
          joint: prediction only: so many passes of state and adjoint together from ``start``, which then must have an adjoint,
            instead of solves to a tolerance. The energy's error is of second order in the residuals, the forces' of first.
          unconverged: "error" raises :class:`UnconvergedError`, "warn" warns, "accept" leaves it to the caller to look at
            ``prediction.equilibrium.result``.

        Returns:
          a :class:`Prediction`.

        Raises:
          ValueError: for another cutoff, elements that were not in the training set, an unknown policy, several structures at
            once where they would feel each other, or the stress of direct forces.
        """
        self._check(graph, unconverged)
        if stress and not self.conservative:
            raise ValueError(
                "stress is a derivative of the energy, which forces='direct' does without; received stress=True"
            )
        graph = graph.to(self.device)
        vectors = graph.edge_vectors()
        if not bool(torch.isfinite(vectors).all()):
            raise ValueError(
                "positions and cell must be finite, received NaN or infinity; build graphs with "
                "Graph.from_ase or Graph.build, which say which atom it is"
            )
        if joint is not None and (self.training or not self.conservative or start is None):
            raise ValueError(
                "joint passes predict (.eval()) with forces that are a gradient, from a start; received "
                f"training={self.training}, conservative={self.conservative}, start={'None' if start is None else 'a solution'}; "
                "leave joint out"
            )
        gradient = (forces or stress) and self.conservative
        evaluation = self._evaluate(
            graph,
            vectors.requires_grad_() if gradient else vectors,
            start=start,
            gradient=gradient,
            direct=forces and not self.conservative,
            penalty=penalty,
            unrolled=unrolled,
            joint=joint,
        )
        if evaluation.solution is not None:
            _enforce(unconverged, evaluation.solution)
        atomic = evaluation.atomic.double() * self.scale + self.reference[graph.species]
        none = torch.zeros(graph.n_structures, dtype=torch.float64, device=self.device)
        energy = none.index_add(0, graph.owner, atomic)
        correction, error = (
            None if each is None else none.index_add(0, graph.owner, each.double() * self.scale)
            for each in (evaluation.correction, evaluation.error)
        )
        slope = None if evaluation.gradient is None else evaluation.gradient * self.scale
        pushed = None if evaluation.direct is None else evaluation.direct.double() * self.scale
        if self.config.repulsion is not None:
            core, push = self.config.repulsion(graph, vectors.detach())
            atomic, energy = atomic + core, energy.index_add(0, graph.owner, core)
            slope = None if slope is None else slope + push
            pushed = None if pushed is None else pushed + derivatives.forces(push, graph)
        return Prediction(
            energy=energy,
            forces=derivatives.forces(slope, graph) if forces and slope is not None else pushed,
            stress=derivatives.stress(slope, vectors.detach(), graph) if stress else None,
            atomic_energies=atomic,
            equilibrium=evaluation.solution,
            penalty=evaluation.penalty,
            correction=correction,
            error=error,
            conservative=self.conservative,
        )

    def contraction(self, graph: Graph) -> Float64[Tensor, " structures"] | None:
        """Factor ρ by which one pass shrinks an error at the fixed point of each structure; None without a fixed point.

        The number that decides how many passes a solve takes, and whether the training is drifting towards none: watch it.
        """
        return None

    def _check(self, graph: Graph, unconverged: str) -> None:
        if not isinstance(graph, Graph):
            raise TypeError(
                f"a potential takes a Graph, received {type(graph).__name__}; make one with "
                "Graph.from_ase(atoms, cutoff=potential.cutoff)"
            )
        if torch.is_inference_mode_enabled():
            raise RuntimeError(
                "forces are derivatives, which torch.inference_mode() forbids; call the potential outside of it "
                "(the result of a potential in .eval() mode is detached anyway)"
            )
        if unconverged not in POLICIES:
            raise ValueError(f"unconverged must be one of {POLICIES}, received {unconverged!r}")
        if graph.cutoff != self.cutoff:
            raise ValueError(
                f"the graph must be built with the potential's cutoff {self.cutoff} Å, received {graph.cutoff} Å; "
                f"use Graph.from_ase(atoms, cutoff=potential.cutoff)"
            )
        if not self.local and graph.n_structures > 1:
            raise ValueError(
                f"injection.norm={self.config.injection.norm!r} mixes all structures of a batch, so it takes one structure at a "
                f"time, received {graph.n_structures}; evaluate them one by one (batch size 1)"
            )
        unknown = torch.isnan(self.reference[graph.species.to(self.device)])
        if bool(unknown.any()):
            strangers = sorted(set(graph.species[unknown.to(graph.species.device)].tolist()))
            raise ValueError(
                f"this potential was trained on the elements {list(self.elements)} only, received atomic numbers "
                f"{strangers}; train on data that contain them"
            )


def _enforce(policy: str, solution: Solution) -> None:
    if policy == "accept" or solution.converged:
        return
    parts = []
    for name, result, residual, passes in (
        ("fixed point", solution.result, solution.residual, solution.passes),
        ("adjoint", solution.adjoint_result, solution.adjoint_residual, solution.adjoint_passes),
    ):
        if result is None or bool((result == Result.CONVERGED).all()):
            continue
        bad = torch.nonzero(result != Result.CONVERGED).flatten().tolist()
        parts.append(
            f"{name} of {len(bad)} of {len(result)} structures (first: structure {bad[0]}, residual "
            f"{float(residual[bad[0]]):.1e} after {int(passes[bad[0]])} passes)"
        )
    message = (
        "not converged: "
        + "; ".join(parts)
        + ". Energies and forces would be inexact. Check that the structure resembles the "
        "training set; or raise solver.max_passes, loosen solver.tolerance, or pass unconverged='warn'"
    )
    if policy == "error":
        raise UnconvergedError(message, solution)
    warnings.warn(message, RuntimeWarning, stacklevel=3)
