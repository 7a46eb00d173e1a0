"""One step: what is drawn for it, and the loss of its batch."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

import numpy as np
import torch
from torch import Tensor

from equipoise.graph import Graph
from equipoise.potentials import Potential, Prediction
from equipoise.train.config import TrainingSection
from equipoise.train.loss import Loss, Terms, with_volumes
from equipoise.train.processes import Processes
from equipoise.train.reuse import FixedPoints


@dataclass(frozen=True)
class Draw:
    """The random choices of a step, the same in all processes.

    Attributes:
      penalise: whether the Jacobian penalty is computed.
      passes: after how many passes from nothing the network is trained; None: at its fixed point.
    """

    penalise: bool
    passes: int | None


def draw(
    settings: TrainingSection, step: int, device: torch.device, progress: float, *, rank: int = 0
) -> Draw:
    """Seed this step's random numbers, which all follow from the seed and its number, and make the choices of the step."""
    generator = np.random.default_rng([settings.seed, step])
    seed = int(generator.integers(2**63))
    if rank > 0:  # other noise for other structures
        seed = int(np.random.default_rng([settings.seed, step, rank]).integers(2**63))
    # Not torch.manual_seed: on a machine without a GPU every call of it queues a request with a
    # stack trace, for a GPU that never comes.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    # jacobian_weight is not divided by the probability: half as many penalties weigh half.
    penalise = settings.jacobian_weight > 0 and generator.random() < settings.jacobian_probability
    odds = np.array(settings.unrolled_odds)
    passes = int(generator.choice(np.arange(1, len(odds) + 1), p=odds / odds.sum()))
    return Draw(penalise, passes if progress < settings.unrolled else None)


def loss_at(settings: TrainingSection, progress: float) -> Loss:
    """The loss as it is weighted at this point of the run."""
    return Loss(
        settings.loss,
        energy_weight=settings.energy_weight(progress),
        force_weight=settings.force_weight(progress),
        huber_delta=settings.huber_delta,
        stress_weight=settings.stress_weight(progress),
    )


@dataclass(frozen=True)
class BatchLoss:
    """The loss of a batch, and the prediction behind it.

    With several processes, the share of this one in the loss of the whole batch: the shares add up to it. None where this
    process had no structure of the batch.
    """

    value: Tensor | None
    prediction: Prediction | None


def batch_loss(
    potential: Potential,
    graph: Graph | None,
    rows: Sequence[int],
    settings: TrainingSection,
    *,
    progress: float,
    drawn: Draw,
    points: FixedPoints,
    processes: Processes,
) -> BatchLoss:
    """Predict a batch and say how wrong it is.

    The loss has these parts: errors of the labels; with probability the Jacobian penalty; and the fixed-point correction, the
    same errors at the states z_i on the way to the fixed point, each after one more pass f(z_i) that carries the gradient:

      L + w Σ_{i<n} γ^{n-i} L(f(z_i))

    Source: Bai, Geng, Savani and Kolter, Deep equilibrium optical flow estimation (2022), eq. 9.

    Args:
      graph, rows: the share of this process, if it has one, and which structures of the training set these are.
      progress: of the run, 0 to 1.
      points: first guesses; what is found is kept there.
    """
    loss_of = loss_at(settings, progress)
    own = Terms() if graph is None else loss_of.terms(graph)
    structures = 0 if graph is None else graph.n_structures
    *terms, all_structures = processes.sum(*astuple(own), structures)
    if graph is None:
        return BatchLoss(None, None)
    terms = Terms(*terms)

    stress = loss_of.stress_weight > 0 and graph.stress is not None
    asked = with_volumes(graph) if stress else graph
    wanted = {"forces": graph.forces is not None, "stress": stress, "unconverged": "accept"}
    start = None if drawn.passes is not None else points.start(rows, graph)
    iterated = {}  # what only means something where there is a fixed point
    if potential.config.kind == "equilibrium":
        iterated["penalty"] = settings.jacobian_allowed if drawn.penalise else None
        iterated["unrolled"] = drawn.passes
    prediction = potential(asked, start=start, **iterated, **wanted)
    points.keep(rows, graph, prediction.equilibrium)
    loss = loss_of(prediction, graph, terms)
    if prediction.penalty is not None:  # a mean over structures
        share = structures / all_structures
        loss = loss + settings.jacobian_weight * share * prediction.penalty
    if settings.correction_weight > 0 and prediction.equilibrium is not None:
        way = prediction.equilibrium.trajectory
        for i, state in enumerate(way):
            begin = replace(prediction.equilibrium, value=state)
            early = potential(asked, start=begin, unrolled=1, **wanted)
            weight = settings.correction_weight * settings.correction_decay ** (len(way) - i)
            loss = loss + weight * loss_of(early, graph, terms)
    return BatchLoss(loss, prediction)
