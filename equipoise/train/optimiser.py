"""AdamW, and how its learning rate follows the progress of the run."""

import math

import torch
from torch import nn

from equipoise.train.config import TrainingSection

FIRST_RATE = 0.01  # of the largest: warm-up starts here, as a step of length 0 would be wasted


def build_optimiser(potential: nn.Module, settings: TrainingSection) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only.

    Parameters with one dimension or none (biases, scales of norms) are not decayed: pulling
    the scale of a norm to 0 does not simplify the function, it only makes its input noisy.

    Source: Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv:1711.05101.
    """
    parameters = [p for p in potential.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=settings.betas,
    )


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
