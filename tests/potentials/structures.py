"""Small structures and potentials for the physics tests."""

from dataclasses import replace

import numpy as np
import torch

from equipoise.backbones import EquiformerV2Config
from equipoise.deq import Anderson
from equipoise.graph import Graph
from equipoise.potentials import InjectionConfig, PotentialConfig, Statistics, build
from tests.backbones.equiformer_v2_original import networks

ELEMENTS = (1, 6, 8)
STATISTICS = Statistics(ELEMENTS, (-13.6, -1029.2, -2041.8), 1.2, 8.0, 9.0)
SMALL = EquiformerV2Config(
    channels=8, lmax=2, mmax=2, heads=2, hidden=8, ffn=8, radial_hidden=8, cutoff=4.0
)


def potential(kind="equilibrium", *, tolerance=1e-11, dtype="float64", seed=1, **backbone):
    """An untrained potential of a few thousand weights, solved tightly."""
    solver = Anderson(tolerance=tolerance, max_passes=200, window=8)
    config = PotentialConfig(
        kind=kind,
        backbone=replace(SMALL, **backbone),
        solver=solver,
        adjoint=solver,
        training_solver=solver,
        training_adjoint=solver,
        training_gradient=solver,
        dtype=dtype,
    )
    return build(config, STATISTICS, seed=seed).eval()


def molecule(atoms=6, *, seed=0, cutoff=4.0, shift=(0.0, 0.0, 0.0)):
    """Random atoms 1 Å apart or more."""
    generator = np.random.default_rng(seed)
    positions = []
    while len(positions) < atoms:
        trial = generator.uniform(-1.7, 1.7, 3)
        if all(np.linalg.norm(trial - p) > 1.0 for p in positions):
            positions.append(trial)
    return Graph.build(
        np.array(positions) + np.array(shift), generator.choice(ELEMENTS, atoms), cutoff=cutoff
    )


def crystal(*, seed=0, cutoff=4.0):
    """Three atoms in a triclinic cell smaller than the cutoff."""
    generator = np.random.default_rng(seed)
    cell = np.array([[3.1, 0.2, 0.0], [0.5, 3.3, -0.3], [-0.2, 0.4, 3.6]])
    positions = (
        np.array([[0.1, 0.1, 0.1], [0.5, 0.6, 0.4], [0.9, 0.2, 0.7]])
        + generator.normal(0, 0.02, (3, 3))
    ) @ cell
    return Graph.build(positions, [1, 6, 8], cutoff=cutoff, cell=cell, pbc=True)


def moved(graph, positions, cell=None):
    """The same atoms elsewhere, with fresh neighbours."""
    return Graph.build(
        positions.detach().numpy() if isinstance(positions, torch.Tensor) else positions,
        graph.species.numpy(),
        cutoff=graph.cutoff,
        cell=graph.cell[0].numpy() if cell is None else cell,
        pbc=graph.pbc[0].numpy(),
    )


ORIGINAL = replace(networks.SMALL, channels=8, grid=10, average_atoms=6.0, average_degree=4.0)


def original(
    kind="equilibrium",
    *,
    tolerance=1e-11,
    forces="gradient",
    injection=None,
    solver=None,
    **backbone,
):
    """The same with the original EquiformerV2, in double precision."""
    solver = solver or Anderson(tolerance=tolerance, max_passes=300, window=8)
    config = PotentialConfig(
        kind=kind,
        backbone=replace(ORIGINAL, **backbone),
        forces=forces,
        injection=injection or InjectionConfig(),
        solver=solver,
        adjoint=solver,
        training_solver=solver,
        training_adjoint=solver,
        training_gradient=solver,
        dtype="float64",
    )
    return build(config, STATISTICS, seed=1).eval()
