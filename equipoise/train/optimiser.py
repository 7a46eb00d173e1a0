"""What moves the weights: AdamW or Muon, which weights by how much, and the learning rate over the run."""

import difflib
import fnmatch
import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import nn

from equipoise.train.config import TrainingSection

VECTORS = ("bias", "score", "original0")  # names of parameters that are vectors, stacked or not
FIRST_RATE = 0.01  # of the largest: warm-up starts here, as a step of length 0 would be wasted


class Optimiser(Protocol):
    """What the loop and the state file need of an optimiser."""

    param_groups: list[dict[str, Any]]

    def zero_grad(self, set_to_none: bool = True) -> None: ...
    def step(self) -> Any: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


def build_optimiser(potential: nn.Module, settings: TrainingSection) -> Optimiser:
    """The optimiser that a recipe asks for; weight decay acts on matrices only, see `decays`.

    `adamw`: Loshchilov and Hutter, Decoupled Weight Decay Regularization, arXiv:1711.05101.

    `muon`: matrices move along their momentum made orthogonal, so that all its singular directions
    advance alike (Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024),
    by as much as AdamW would move them (Liu et al., Muon is Scalable for LLM Training,
    arXiv:2502.16982, section 2.2), so that learning rate and weight decay keep their meaning.
    Embeddings, norms, vectors, the last layer and stacks of matrices are left to AdamW.

    Each parameter moves at the learning rate times the factor of the last pattern of
    `rate_factors` that its name matches; one with factor 0 is not trained at all, and afterwards
    `requires_grad` is False for it.

    **Raises** `ValueError` for a pattern that matches nothing, or if nothing is left to train.
    """
    factors = rate_factors(potential, settings.rate_factors)
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    matrices = muon_matrices(potential) if settings.optimiser == "muon" else set()
    for parameter, decay in decays(potential):
        factor = factors[parameter]
        parameter.requires_grad_(factor > 0)
        if factor > 0:
            groups.setdefault((parameter in matrices, decay, factor), []).append(parameter)

    def chosen(matrix: bool) -> list[dict[str, Any]]:
        return [
            {
                "params": parameters,
                "weight_decay": settings.weight_decay if decay else 0.0,
                "factor": factor,
            }
            for (is_matrix, decay, factor), parameters in groups.items()
            if is_matrix == matrix
        ]

    if matrices and not hasattr(torch.optim, "Muon"):
        raise ValueError(
            f"training.optimiser=muon needs torch 2.9 or newer, received {torch.__version__}; use adamw"
        )
    rest = torch.optim.AdamW(chosen(False), lr=settings.learning_rate, betas=settings.betas)
    if not matrices:
        return rest
    muon = torch.optim.Muon(
        chosen(True),
        lr=settings.learning_rate,
        momentum=settings.betas[0],
        adjust_lr_fn="match_rms_adamw",
    )
    return Together(muon, rest)


class Together:
    """Several optimisers, each with parameters of its own, as one."""

    def __init__(self, *optimisers: torch.optim.Optimizer) -> None:
        self.optimisers = optimisers

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimiser in self.optimisers for group in optimiser.param_groups]

    def zero_grad(self, set_to_none: bool = True) -> None:
        for optimiser in self.optimisers:
            optimiser.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        for optimiser in self.optimisers:
            optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        """As that of one optimiser: parameters are numbered through."""
        state, groups, first = {}, [], 0
        for optimiser in self.optimisers:
            its = optimiser.state_dict()
            state |= {first + index: moments for index, moments in its["state"].items()}
            for group in its["param_groups"]:
                groups.append({**group, "params": [first + index for index in group["params"]]})
            first += sum(len(group["params"]) for group in its["param_groups"])
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        first, done = 0, 0
        for optimiser in self.optimisers:
            count = sum(len(group["params"]) for group in optimiser.param_groups)
            groups = state_dict["param_groups"][done : done + len(optimiser.param_groups)]
            optimiser.load_state_dict(
                {
                    "state": {
                        index - first: moments
                        for index, moments in state_dict["state"].items()
                        if first <= index < first + count
                    },
                    "param_groups": [
                        {**group, "params": [index - first for index in group["params"]]}
                        for group in groups
                    ],
                }
            )
            first, done = first + count, done + len(optimiser.param_groups)


def decays(network: nn.Module) -> list[tuple[nn.Parameter, bool]]:
    """Every parameter once, and whether weight decay acts on it.

    What mixes channels decays. The scales of norms do not: pulling them to 0 does not simplify
    the function, it only makes the input of the next layer noisy. Nor do embeddings, of which
    only the rows of the elements at hand receive a gradient; nor biases and other vectors, even
    where several are stacked in one parameter (the scores of attention heads, the lengths of a
    weight norm).
    """
    found, seen = [], set()
    for module in network.modules():
        # By name, as every backbone brings norms of its own.
        never = isinstance(module, nn.Embedding) or "norm" in type(module).__name__.lower()
        for name, parameter in module.named_parameters(recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                found.append((parameter, not (parameter.ndim <= 1 or name in VECTORS or never)))
    return found


def muon_matrices(network: nn.Module) -> set[nn.Parameter]:
    """The parameters that Muon moves: matrices between hidden layers."""
    return {p for p, decay in decays(network) if decay and p.ndim == 2 and min(p.shape) > 1}


def rate_factors(network: nn.Module, patterns: Mapping[str, float]) -> dict[nn.Parameter, float]:
    """The learning rate of every parameter, as a fraction of that of the recipe.

    **Raises** `ValueError` for a pattern that matches no name, and if all factors are 0.
    """
    named = dict(network.named_parameters())
    factors = dict.fromkeys(named.values(), 1.0)
    for pattern, factor in patterns.items():
        matching = fnmatch.filter(named, pattern)
        if not matching:
            parts = {name.rpartition(".")[0] + ".*" for name in named} | named.keys()
            near = difflib.get_close_matches(pattern, sorted(parts), n=3, cutoff=0.3)
            raise ValueError(
                f"every pattern of training.rate_factors must match names of parameters, received {pattern!r}, which matches "
                f"none of the {len(named)}; near ones are {', '.join(near) or ', '.join(list(named)[:3])}"
            )
        factors.update((named[name], factor) for name in matching)
    if not any(factors.values()):
        raise ValueError(
            f"training.rate_factors must leave something to train, received {dict(patterns)}: everything has factor 0"
        )
    return factors


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


def set_learning_rate(optimiser: Optimiser, rate: float) -> None:
    """The rate of every parameter: this one times its factor."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["factor"]
