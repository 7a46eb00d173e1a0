import re

import pytest
import torch
from torch import nn

from equipoise.backbones import EquiformerV2Config
from equipoise.potentials import PotentialConfig, Statistics, build
from equipoise.train import TrainingSection, load_recipe
from equipoise.train.ema import moving_average
from equipoise.train.optimiser import (
    Together,
    build_optimiser,
    decays,
    learning_rate,
    muon_matrices,
    rate_factors,
    set_learning_rate,
)

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


def test_what_decays_in_the_original_backbone() -> None:
    """Its norms are classes of its own, and its weight norm stacks lengths in a matrix of one column."""
    recipe = load_recipe("deq-equiformer-v2-halftiny")
    potential = build(recipe.potential, Statistics((1, 8), (-1.0, -5.0), 1.0, 8.0, 3.0))
    names = {parameter: name for name, parameter in potential.named_parameters()}
    decayed = {names[parameter] for parameter, decay in decays(potential) if decay}
    kept = set(names.values()) - decayed
    for part in ("norm_attention.weight", "norm_ffn.weight", "norm.weight", "norm_sum.weight"):
        assert any(name.endswith(part) for name in kept), part
    for part in ("norm", "original0", "score", "bias", "elements.weight", "source.weight"):
        assert not any(name.endswith(part) for name in decayed), part
    assert not any(re.search(r"norm\w*\.(weight|bias)$", name) for name in decayed)
    assert any(name.endswith("original1") for name in decayed)
    moved = {names[parameter] for parameter in muon_matrices(potential)}
    assert moved <= decayed and any(
        name.endswith("orders.0.parametrizations.weight.original1") for name in moved
    )


class Two(nn.Module):
    """Two layers of each kind that optimisers tell apart."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(5, 4)
        self.body = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.norm(self.body(self.table(x)))))


def learn(network: nn.Module, optimiser: object, steps: int, *, first: int = 0) -> None:
    for step in range(first, first + steps):
        torch.manual_seed(step)
        optimiser.zero_grad()
        network(torch.randint(5, (8,))).square().sum().backward()
        optimiser.step()


def test_muon_moves_matrices_and_adamw_the_rest() -> None:
    network = Two()
    optimiser = build_optimiser(network, TrainingSection(optimiser="muon", learning_rate=0.1))
    assert isinstance(optimiser, Together)
    muon, rest = optimiser.optimisers
    assert [p for group in muon.param_groups for p in group["params"]] == [network.body.weight]
    assert sum(len(group["params"]) for group in rest.param_groups) == 6
    before = network.body.weight.detach().clone()
    learn(network, optimiser, 1)
    step = (network.body.weight.detach() - before * (1 - 0.1 * 1e-3)) / (0.1 * 0.2 * 6**0.5)
    sizes = torch.linalg.svdvals(step)
    assert sizes.min() > 0.5 and sizes.max() < 1.3, "every direction advances alike"


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_an_optimiser_goes_on_where_it_stopped(name: str) -> None:
    settings = TrainingSection(optimiser=name, rate_factors={"head.*": 0.5})
    whole, first, second = Two(), Two(), Two()
    optimisers = [build_optimiser(network, settings) for network in (whole, first, second)]
    learn(whole, optimisers[0], 6)
    learn(first, optimisers[1], 3)
    second.load_state_dict(first.state_dict())
    saved = optimisers[1].state_dict()
    indices = [i for group in saved["param_groups"] for i in group["params"]]
    assert indices == list(range(7)) and saved["state"].keys() == set(indices)
    groups = optimisers[2].state_dict()["param_groups"]  # as the state file does: moments only
    optimisers[2].load_state_dict({"state": saved["state"], "param_groups": groups})
    learn(second, optimisers[2], 3, first=3)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_factors_on_the_learning_rate() -> None:
    network = Two()
    factors = {"*": 0.0, "head.*": 1.0, "head.bias": 0.25}
    optimiser = build_optimiser(network, TrainingSection(rate_factors=factors))
    assert [n for n, p in network.named_parameters() if p.requires_grad] == [
        "head.weight",
        "head.bias",
    ]
    set_learning_rate(optimiser, 0.08)
    assert [group["lr"] for group in optimiser.param_groups] == [0.08, 0.02]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    learn(network, optimiser, 2)
    moved = {
        name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert moved == {"head.weight", "head.bias"}


def test_factors_that_cannot_be_meant() -> None:
    with pytest.raises(
        ValueError, match=r"received 'haed.\*', which matches none of the 7; near ones are head"
    ):
        rate_factors(Two(), {"haed.*": 0.5})
    with pytest.raises(ValueError, match="must leave something to train"):
        rate_factors(Two(), {"*": 0.0})
    with pytest.raises(ValueError, match=r"rate_factors must be >= 0, received -1.0 for '\*'"):
        TrainingSection(rate_factors={"*": -1.0})


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
