"""AdamW, and how its learning rate follows the progress of the run."""

import math

import torch
from torch import nn

from equipoise.equivariant import EquivariantNorm
from equipoise.train.config import TrainingSection

NEVER_DECAYED = (EquivariantNorm, nn.LayerNorm, nn.Embedding)
STACKED_VECTORS = ("bias", "score")  # names of parameters
FIRST_RATE = 0.01  # of the largest: warm-up starts here, as a step of length 0 would be wasted


def build_optimiser(potential: nn.Module, settings: TrainingSection) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only; see `decays`.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv:1711.05101.
    """
    groups = []
    for decay in (True, False):
        parameters = [p for p, its in decays(potential) if its == decay and p.requires_grad]
        groups.append(
            {"params": parameters, "weight_decay": settings.weight_decay if decay else 0.0}
        )
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=settings.betas,
    )


def decays(network: nn.Module) -> list[tuple[nn.Parameter, bool]]:
    """Every parameter once, and whether weight decay acts on it.

    What mixes channels decays. The scales of norms do not: pulling them to 0 does not simplify
    the function, it only makes the input of the next layer noisy. Nor do embeddings, of which
    only the rows of the elements at hand receive a gradient; nor biases and other vectors, even
    where several are stacked in one parameter (the scores of attention heads).
    """
    found, seen = [], set()
    for module in network.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                vector = parameter.ndim <= 1 or name in STACKED_VECTORS
                found.append((parameter, not vector and not isinstance(module, NEVER_DECAYED)))
    return found


def progress_of(
    *, steps: int, total_steps: int, elapsed: float, max_seconds: float | None
) -> float:
    """How much of the run is done, 0 to 1: the larger of the fractions of steps and of time."""
    progress = steps / total_steps
    if max_seconds is not None:
        progress = max(progress, elapsed / max_seconds)
    return min(progress, 1.0)


def learning_rate(progress: float, settings: TrainingSection) -> float:
    r"""Linear warm-up, then half a cosine, as a function of progress $p$ in [0, 1].

    $$ \eta(p) = \eta_0 \begin{cases}
        0.01 + 0.99\, p/w & p < w \\
        f + (1 - f)\,\tfrac12 \left(1 + \cos \pi \tfrac{p - w}{1 - w}\right) & p \ge w
    \end{cases} $$

    with $w$ = `warmup` and $f$ = `final`. Because it takes progress, not steps, a run with a
    time budget ends at the same small rate as one that counts epochs.
    """
    if progress < settings.warmup:
        factor = FIRST_RATE + (1 - FIRST_RATE) * progress / settings.warmup
    else:
        angle = math.pi * (progress - settings.warmup) / (1 - settings.warmup)
        factor = settings.final + (1 - settings.final) * 0.5 * (1 + math.cos(angle))
    return settings.learning_rate * factor


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = rate
