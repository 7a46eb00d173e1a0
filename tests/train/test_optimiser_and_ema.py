import re

import pytest
import torch
from torch import nn

from equipoise.backbones import EquiformerV2Config
from equipoise.potentials import PotentialConfig, Statistics, build
from equipoise.train import TrainingSection
from equipoise.train.ema import moving_average
from equipoise.train.optimiser import build_optimiser, decays, learning_rate, progress_of

SETTINGS = TrainingSection(learning_rate=2.0, warmup=0.2, final=0.1)


def test_schedule_by_hand() -> None:
    assert learning_rate(0.0, SETTINGS) == pytest.approx(0.02)
    assert learning_rate(0.1, SETTINGS) == pytest.approx(2 * (0.01 + 0.99 / 2))
    assert learning_rate(0.2, SETTINGS) == pytest.approx(2.0)
    assert learning_rate(0.6, SETTINGS) == pytest.approx(2 * 0.55)
    assert learning_rate(1.0, SETTINGS) == pytest.approx(0.2)
    assert learning_rate(1.0, TrainingSection()) == pytest.approx(0.0, abs=1e-18)
    assert learning_rate(0.0, TrainingSection(warmup=0.0)) == TrainingSection().learning_rate
    rates = [learning_rate(p / 100, SETTINGS) for p in range(20, 101)]
    assert rates == sorted(rates, reverse=True)


def test_progress_is_the_larger_of_steps_and_seconds() -> None:
    assert progress_of(steps=3, total_steps=10, elapsed=99.0, max_seconds=None) == 0.3
    assert progress_of(steps=3, total_steps=10, elapsed=5.0, max_seconds=10.0) == 0.5
    assert progress_of(steps=3, total_steps=10, elapsed=1.0, max_seconds=10.0) == 0.3
    assert progress_of(steps=3, total_steps=10, elapsed=20.0, max_seconds=10.0) == 1.0


def test_biases_and_norms_do_not_decay() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1))
    optimiser = build_optimiser(module, TrainingSection(weight_decay=0.5, betas=(0.8, 0.95)))
    decayed, kept = optimiser.param_groups
    assert decayed["weight_decay"] == 0.5 and kept["weight_decay"] == 0.0
    assert [p.ndim for p in decayed["params"]] == [2, 2]
    assert [p.ndim for p in kept["params"]] == [1, 1, 1, 1]
    assert decayed["betas"] == (0.8, 0.95)


@pytest.mark.parametrize("kind", ["equilibrium", "stacked"])
def test_what_decays_in_a_real_potential(kind: str) -> None:
    backbone = EquiformerV2Config(
        channels=4, lmax=1, mmax=1, heads=2, hidden=4, ffn=4, radial=4, radial_hidden=4
    )
    potential = build(
        PotentialConfig(kind=kind, backbone=backbone),
        Statistics((1, 8), (-1.0, -5.0), 1.0, 8.0, 3.0),
    )
    names = {parameter: name for name, parameter in potential.named_parameters()}
    split = {True: set(), False: set()}
    for parameter, decayed in decays(potential):
        split[decayed].add(names[parameter])
    assert len(split[True]) + len(split[False]) == len(names), "every parameter once"
    # By what they are called in the network, without asking which module owns them.
    kept = re.compile(r"norm|bias$|\.score$|\.(atoms|pairs)\.weight$")
    vectors = {name for parameter, name in names.items() if parameter.ndim <= 1}
    assert split[False] == {name for name in names.values() if kept.search(name)} | vectors
    for part in ("score", "score_norm.weight", "atoms.weight", "pairs.weight"):
        assert any(name.endswith(part) for name in split[False]), part
    for part in ("orders.0", "axial"):
        assert any(name.endswith(part) for name in split[True]), part


class Buffered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.register_buffer("count", torch.tensor(0.0))


@pytest.mark.parametrize("decay", [0.0, 0.25, 0.999])
def test_moving_average_by_hand(decay: float) -> None:
    module = Buffered()
    average = moving_average(module, decay=decay)
    expected = module.weight.detach().clone()
    for n in range(1, 6):
        with torch.no_grad():
            module.weight += 0.5
            module.count += 1
        average.update_parameters(module)
        d = min(decay, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * module.weight.detach()
        torch.testing.assert_close(average.module.weight, expected)
        assert average.module.count == n  # copied, not averaged
    assert not average.module.weight.requires_grad and module.weight.requires_grad


def test_decay_is_checked() -> None:
    with pytest.raises(ValueError, match=r"decay must lie in \[0, 1\), received 1.0"):
        moving_average(Buffered(), decay=1.0)
