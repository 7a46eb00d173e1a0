"""How good the average is, in the middle of a run."""

import math
from collections.abc import Sequence

import torch

from equipoise.data import Loader
from equipoise.graph import Graph, batch
from equipoise.potentials import Potential
from equipoise.train.config import TrainingSection
from equipoise.train.loss import with_volumes
from equipoise.train.metrics import Tally
from equipoise.train.processes import Processes

FEW = 4  # structures of which the contraction is measured


def measure(
    potential: Potential, loader: Loader, settings: TrainingSection, processes: Processes
) -> Tally:
    """Errors on a validation set, summed over all processes, of which each predicts a share; no structure counts twice."""
    tally = Tally()
    was_training = potential.training
    potential.eval()
    # Forces are a derivative: callers who switched gradients off still get them.
    with torch.inference_mode(False), torch.enable_grad():
        for graph in loader.epoch(0):
            graph = graph.to(potential.device)
            stress = settings.stress_weight.largest > 0 and graph.stress is not None
            asked = with_volumes(graph) if stress else graph
            tally.add(potential(asked, stress=stress, unconverged="accept"), graph)
    potential.train(was_training)
    return sum_of(tally, processes)


def sum_of(tally: Tally, processes: Processes) -> Tally:
    """The tally of all processes."""
    return Tally.of(processes.sum(*tally.values()))


def score_of(tally: Tally) -> tuple[float, str]:
    """What decides which weights are best, and its unit: the MAE of forces; without force labels, of energies; else of stresses."""
    errors = tally.errors()
    if tally.components:
        return errors.force_mae_mev, "meV/Å"
    return (errors.energy_mae_mev, "meV") if tally.energies else (errors.stress_mae_mev, "meV/Å³")


def contraction_of(potential: Potential, graphs: Sequence[Graph]) -> float:
    """The largest of a few structures; NaN for a network without a fixed point."""
    few = [graphs[i] for i in range(min(FEW, len(graphs)))]
    was_training = potential.training
    potential.eval()  # dropout would make it a random number
    found = potential.contraction(batch(few))
    potential.train(was_training)
    return math.nan if found is None else float(found.max())
