"""The deep equilibrium potential: where chemistry meets fixed points."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equipoise.deq import (
    Adjoint,
    Implicit,
    Inner,
    Solution,
    Unrolled,
    fixed_point,
    jacobian_penalty,
    spectral_radius,
)
from equipoise.deq.solution import Secants
from equipoise.graph import Graph
from equipoise.potentials.config import ImplicitGradient, PotentialConfig, Statistics
from equipoise.potentials.derivatives import edge_gradient
from equipoise.potentials.families import Family
from equipoise.potentials.injection import Injection
from equipoise.potentials.potential import Evaluation, Potential, Start


class Cell(nn.Module):
    """f(z) = update(inject(z, u)): the map whose fixed point is the state."""

    def __init__(self, family: Family, backbone: nn.Module, injection: Injection):
        super().__init__()
        self.family, self.backbone, self.injection = family, backbone, injection

    def forward(self, z: Tensor, source: Tensor, context: tuple[Tensor, ...]) -> Tensor:
        mixed = self.family.mix(self.backbone, z, source, context)
        return self.backbone.update(self.injection(mixed), context)


class CellMap:
    """The cell as f(z, *args) with everything it depends on among the arguments: source, context, then parameters.

    Second derivatives are only right if no differentiated tensor is hidden in a closure; see :class:`equipoise.deq.Implicit`.
    """

    def __init__(
        self,
        cell: Cell,
        source: Tensor,
        context: tuple[Tensor, ...],
        loop: Callable[..., Tensor] | None = None,
    ):
        self.cell, self.kind, self.size = cell, type(context), len(context)
        self.loop = cell if loop is None else loop
        named = dict(cell.named_parameters())
        self.names = list(named)
        self.args = (source, *context, *named.values())

    def __call__(self, z: Tensor, source: Tensor, *tensors: Tensor) -> Tensor:
        context, parameters = self.kind(*tensors[: self.size]), tensors[self.size :]
        return torch.func.functional_call(
            self.cell, dict(zip(self.names, parameters, strict=True)), (z, source, context)
        )

    def bind(self, source: Tensor, *tensors: Tensor):
        """For a solver's loop: the cell itself, or its compiled form, without the detour through functional_call."""
        source, context = source.detach(), self.kind(*[t.detach() for t in tensors[: self.size]])
        return lambda z: self.loop(z, source, context)


class Functions(NamedTuple):
    """What a prediction is made of; each can be compiled."""

    prepare: Callable[[Graph, Tensor], tuple[Tensor, tuple[Tensor, ...]]]
    cell: Callable[[Tensor, Tensor, tuple[Tensor, ...]], Tensor]
    lagrangian: Callable[[Tensor, Tensor, Tensor, tuple[Tensor, ...]], Tensor]
    lagrangian_of: Callable[[Graph, Tensor, Tensor, Tensor], Tensor]


class Equilibrium(Potential):
    r"""z* = f(z*, x); E(x) = E(z*, x); ∂E/∂x = ∂_x E + λᵀ ∂_x f with λ = Jᵀ λ + ∂E/∂z.

    Predictions report the Lagrangian energy E(z) + λᵀ (f(z) - z), whose error is of second order in the residuals and of
    which the forces are the derivative at fixed z and λ. With ``config.forces="direct"`` no adjoint is solved: energy and forces
    are read out of z as it is.

    Training differentiates as ``config.gradient`` says, by default through :class:`Implicit`, as exactly as its solvers are told
    to: forces to ``training_adjoint``, the gradient of the loss to ``training_gradient``. With a phantom gradient the forces that
    are trained are *not* the gradient of an energy, nor those that will be predicted; with an unrolled one they are those of the
    network of so many passes.

    Source: Bai, Kolter and Koltun, Deep equilibrium models (2019), theorem 1.
    """

    def __init__(self, config: PotentialConfig, statistics: Statistics):
        super().__init__(config, statistics)
        channels = self.family.channels(config.backbone, config.injection)
        self.injection = Injection(config.injection, self.backbone.space, channels)
        self.to(getattr(torch, config.dtype))

    @property
    def cell(self) -> Cell:
        """The fixed-point map as a module that shares this potential's weights."""
        # Made anew every time: as an attribute it would list the backbone twice among the parameters.
        return Cell(self.family, self.backbone, self.injection)

    def contraction(self, graph: Graph) -> Tensor:
        if not self.local and graph.n_structures > 1:
            return torch.cat([self.contraction(each) for each in graph.split()])
        self._check(graph, "accept")
        graph = graph.to(self.device)
        inner = Inner(graph.owner, graph.n_structures)
        with torch.no_grad():
            source, context = self._prepare(graph, graph.edge_vectors())
            f = CellMap(self.cell, source, context)
            solution = fixed_point(
                f, self.injection.start(source), *f.args, solver=self.config.solver, inner=inner
            )
        noise = torch.Generator(self.device).manual_seed(0)
        return spectral_radius(f, solution.value, *f.args, inner=inner, generator=noise)

    @property
    def _eager(self) -> Functions:
        return Functions(self._prepare, self.cell, self._lagrangian, self._lagrangian_of)

    def _prepare(
        self, graph: Graph, vectors: Float[Tensor, "edges 3"]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Source and context: everything that does not depend on z."""
        context = self.backbone.encode(graph, vectors)
        return self.injection.source(self.backbone.start(context)), context

    def _lagrangian(
        self, z: Tensor, adjoint: Tensor, source: Tensor, context: tuple[Tensor, ...]
    ) -> Float[Tensor, " atoms"]:
        """L = E(z) + λᵀ (f(z) - z), as energies of the atoms."""
        return self._atomic(z, context) + _dots(adjoint, self.cell(z, source, context) - z)

    def _lagrangian_of(
        self, graph: Graph, vectors: Float[Tensor, "edges 3"], z: Tensor, adjoint: Tensor
    ) -> Float[Tensor, " atoms"]:
        """The same, from the geometry on."""
        return self._lagrangian(z, adjoint, *self._prepare(graph, vectors))

    def _evaluate(self, graph, vectors, *, start, gradient, direct, penalty, unrolled, joint):
        inner = Inner(graph.owner, graph.n_structures)
        if self.training:
            with torch.enable_grad():
                source, context = self._prepare(graph, vectors)
            f = CellMap(self.cell, source, context)
            first = self._first_guess(_resolved(start, source), source)
            wanted = gradient, direct, penalty
            steps = None if unrolled is None else Unrolled(passes=unrolled)
            return self._train(f, first, context, vectors, inner, *wanted, steps)
        functions = self.compiled or self._eager
        # One graph from geometry to f(z) serves adjoint and forces. Not so where the part behind the geometry is cheaper alone:
        # where derivatives by the geometry come along unasked for.
        shared = gradient and not (self.compiled or self.backbone.recomputes(graph))
        if joint is not None:
            return self._joint(functions, joint, graph, vectors, start, inner, gradient, shared)
        if unrolled is not None:
            return self._history_free(graph, vectors, unrolled, gradient, direct)
        with torch.set_grad_enabled(shared):
            source, context = functions.prepare(graph, vectors if shared else vectors.detach())
        with torch.no_grad():
            f = CellMap(self.cell, source, context, functions.cell)
            start = _resolved(start, source)
            first = self._first_guess(start, source)
            solution = fixed_point(f, first, *f.args, solver=self.config.solver, inner=inner)
            solution = replace(solution, descriptor=source.detach())
            if not self.conservative:
                z = solution.value
                forces = self._direct(z, context) if direct else None
                return Evaluation(self._atomic(z, context), None, solution, direct=forces)
        solution, z, atomic, mapped = self._linearise(
            functions, solution, start, source, context, inner
        )
        adjoint = solution.adjoint
        residual = mapped.detach() - z.detach()
        correction = _dots(adjoint, residual)
        found = atomic.detach() + correction
        if not gradient:
            solution = replace(solution, value=mapped.detach())
            return Evaluation(found, None, solution, correction=correction)
        if shared:
            outputs, ones = (mapped, atomic, z), torch.ones_like(atomic)
            pull, slope = _gradients(outputs, z, vectors, (adjoint, ones, -adjoint))
        else:
            with torch.enable_grad():
                energies = functions.lagrangian_of(graph, vectors, z, adjoint)
            pull, slope = _gradients((energies,), z, vectors, (torch.ones_like(energies),))
        # What the pass for the derivatives has found out anyway: the state and the adjoint of one pass more.
        solution = replace(solution, value=mapped.detach(), adjoint=adjoint + pull)
        return Evaluation(
            found, slope, solution, correction=correction, error=-_dots(pull, residual)
        )

    def _first_guess(self, start: Solution | None, source: Tensor) -> Tensor:
        if start is None:
            return self.injection.start(source)
        if start.value.shape != source.shape:
            raise ValueError(
                f"start must hold one state per atom, shape {tuple(source.shape)}, received {tuple(start.value.shape)}; "
                "a solution can only start a graph with the same atoms in the same order"
            )
        return start.value.to(source)

    def _joint(self, functions, joint, graph, vectors, start, inner, gradient, shared):
        """Passes of state and adjoint together; the last one differentiates by the geometry as well."""
        with torch.set_grad_enabled(shared):
            source, context = functions.prepare(graph, vectors if shared else vectors.detach())
        fixed = source.detach(), type(context)(*[part.detach() for part in context])
        start = _resolved(start, fixed[0])
        start = replace(_like(start, source), value=self._first_guess(start, source))
        iteration = joint.begin(start, inner)
        while True:
            last = iteration.last
            z, adjoint = iteration.value.requires_grad_(), iteration.adjoint.requires_grad_()
            wanted = [adjoint, z]
            with torch.enable_grad():
                if not (last and gradient):
                    energies = functions.lagrangian(z, adjoint, *fixed)
                elif shared:
                    energies = functions.lagrangian(z, adjoint, source, context)
                else:
                    energies = functions.lagrangian_of(graph, vectors, z, adjoint)
                # A graph without edges depends on no vectors.
                by_vectors = gradient and last and vectors.numel() > 0
            residual, pull, *slope = torch.autograd.grad(
                energies.sum(), [adjoint, z, vectors] if by_vectors else wanted
            )
            iteration.value, iteration.adjoint = z.detach(), adjoint.detach()
            if last:
                break
            iteration.step(residual, pull)
        correction, error = _dots(iteration.adjoint, residual), -_dots(pull, residual)
        solution = replace(iteration.finish(residual, pull), descriptor=fixed[0])
        if gradient and not slope:
            slope = [torch.zeros_like(vectors)]
        slope = slope[0] if slope else None
        return Evaluation(energies.detach(), slope, solution, correction=correction, error=error)

    def _history_free(self, graph, vectors, passes, gradient, direct):
        """Exactly the network of so many layers with tied weights: conservative whether it has converged or not."""
        with torch.set_grad_enabled(gradient):
            source, context = self._prepare(graph, vectors)
            z = self.injection.start(source)
            for _ in range(passes):
                z = self.cell(z, source, context)
            atomic = self._atomic(z, context)
        slope = edge_gradient(atomic, vectors) if gradient else None
        forces = self._direct(z, context) if direct else None
        return Evaluation(atomic.detach(), slope, direct=forces)

    def _linearise(
        self, functions, solution, start, source, context, inner
    ) -> tuple[Solution, Tensor, Tensor, Tensor]:
        """The solution with its adjoint; z; energies and f(z), with what they have to do with z, and with the geometry if that is
        recorded."""
        with torch.enable_grad():
            z = solution.value.requires_grad_()
            mapped = functions.cell(z, source, context)
            atomic = self._atomic(z, context)
            (pull,) = torch.autograd.grad(atomic.sum(), z, retain_graph=True)
        with torch.no_grad():
            guess = pull if start is None or start.adjoint is None else start.adjoint.to(pull)
            adjoint = self.config.adjoint.solve(Adjoint(mapped, z, pull), guess, inner)
        solution = replace(
            solution,
            passes=solution.passes + 1,  # the linearisation at z is a pass as well
            adjoint=adjoint.value,
            adjoint_passes=adjoint.passes,
            adjoint_residual=adjoint.residual,
            adjoint_result=adjoint.result,
        )
        return solution, z, atomic, mapped

    def _train(self, f, first, context, vectors, inner, gradient, direct, penalty, unrolled):
        """Differentiable in the parameters, to the order that a force loss needs."""
        adjoints: list[Solution] = []
        how = unrolled or self.config.gradient
        if isinstance(how, ImplicitGradient):
            how = Implicit(
                solver=self.config.training_adjoint,
                final=self.config.training_gradient,
                observer=adjoints.append,
            )
        solution = fixed_point(
            f, first, *f.args, solver=self.config.training_solver, gradient=how, inner=inner
        )
        z = solution.value
        atomic = self._atomic(z, context)
        slope = edge_gradient(atomic, vectors, create_graph=True) if gradient else None
        forces = self._direct(z, context) if direct else None
        if adjoints:
            solution = replace(
                solution,
                adjoint=adjoints[0].value,
                adjoint_passes=adjoints[0].passes,
                adjoint_residual=adjoints[0].residual,
                adjoint_result=adjoints[0].result,
            )
        cost = self._penalty(f, z if isinstance(how, Unrolled) else z.detach(), inner, penalty)
        # A network of so many passes is not meant to have converged, so there is nothing to say about it.
        solved = None if isinstance(how, Unrolled) else replace(solution, value=z.detach())
        return Evaluation(atomic, slope, solved, cost, forces)

    def _penalty(self, f, z, inner, allowed):
        if allowed is None:
            return None
        # Four power steps are enough to turn towards the slow modes and cost less than one pass each.
        return jacobian_penalty(f, z, *f.args, inner=inner, power_steps=4, allowed=allowed)


def _resolved(start: Start | None, source: Tensor) -> Solution | None:
    return start(source.detach()) if callable(start) else start


def _like(start: Solution, source: Tensor) -> Solution:
    """What goes on beside the state, in the precision and on the device of ``source``."""
    adjoint = None if start.adjoint is None else start.adjoint.to(source)
    secants = start.secants
    if secants is not None:
        secants = tuple(
            Secants(each.mapped.to(source), each.changes.to(source)) for each in secants
        )
    return replace(start, adjoint=adjoint, secants=secants)


def _gradients(
    outputs: tuple[Tensor, ...], z: Tensor, vectors: Tensor, cotangents: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor]:
    """Derivatives by the state and by the edge vectors, of which a graph without edges has none."""
    wanted = [z, vectors] if vectors.numel() else [z]
    pull, *slope = torch.autograd.grad(outputs, wanted, cotangents)
    return pull, slope[0] if slope else torch.zeros_like(vectors)


def _dots(a: Float[Tensor, "atoms ..."], b: Float[Tensor, "atoms ..."]) -> Float[Tensor, " atoms"]:
    return (a * b).flatten(1).sum(1)
