"""Moving average of the weights: the network that is validated and exported."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def moving_average(potential: nn.Module, *, decay: float) -> AveragedModel:
    r"""An exponential moving average of the parameters of `potential`; buffers are copied.

    $$ \bar\theta_n = d_n \bar\theta_{n-1} + (1 - d_n)\,\theta_n,\qquad
       d_n = \min\left(d, \frac{1 + n}{10 + n}\right) $$

    with $d$ = `decay`. The second term lets the average forget the random initial weights in
    runs that are shorter than $1/(1-d)$ steps; without it a quickstart of a few hundred
    steps would export mostly noise. Call `update_parameters(potential)` after every step;
    `.module` is the averaged potential.

    **Raises** `ValueError` for a decay outside [0, 1).
    """
    if not 0 <= decay < 1:
        raise ValueError(f"decay must lie in [0, 1), received {decay}")

    @torch.no_grad()
    def blend(average: list[Tensor], current: list[Tensor], updates: Tensor) -> None:
        n = int(updates)
        # lerp from average towards current by 1 - d_n
        torch._foreach_lerp_(average, current, 1 - min(decay, (1 + n) / (10 + n)))

    average = AveragedModel(potential, multi_avg_fn=blend, use_buffers=False)
    average.module.requires_grad_(False)
    # The first update of AveragedModel copies. The average starts as a copy already, so count
    # that as done and let the formula hold from the first step.
    average.n_averaged.fill_(1)
    return average
