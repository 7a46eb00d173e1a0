"""Fixed points kept from epoch to epoch."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from equipoise.deq import Anderson, Solution
from equipoise.graph import Graph, batch
from equipoise.potentials import build
from equipoise.train import Recipe, fit, make_recipe, read_datasets
from equipoise.train.datasets import training_statistics
from equipoise.train.processes import Processes
from equipoise.train.reuse import MEBIBYTE, FixedPoints
from equipoise.train.state import read_statistics
from equipoise.train.step import batch_loss, draw
from tests.train.test_loop import rows
from tests.train.test_real_potential import stopped_and_resumed

SMALL = {"channels": 4, "lmax": 1, "mmax": 1, "heads": 2, "hidden": 4, "ffn": 4, "radial": 4}


def molecules(*sizes: int) -> Graph:
    return batch([Graph.build([[i, 0.0, 0] for i in range(n)], [1] * n, cutoff=1.5) for n in sizes])


def solution(graph: Graph, result: list[int] | None = None) -> Solution:
    """Rows 0, 1, 2, ... as states of four numbers."""
    none = torch.zeros(graph.n_structures, dtype=torch.int64)
    return Solution(
        value=torch.arange(graph.n_atoms).float()[:, None, None].expand(-1, 2, 2),
        passes=none,
        residual=none.double(),
        result=none if result is None else torch.tensor(result),
    )


def test_each_structure_gets_its_own_back() -> None:
    points = FixedPoints(1.0, from_zero=True)
    assert points.start([0, 1], molecules(2, 3)) is None
    points.keep([7, 4, 9], molecules(2, 3, 1), solution(molecules(2, 3, 1)))
    assert len(points) == 3 and points.bytes == 6 * 16
    start = points.start([4, 5, 7], molecules(3, 1, 2))
    assert start.value[:, 0, 0].tolist() == [2, 3, 4, 0, 0, 1], "zero where nothing is known"
    assert points.start([5], molecules(1)) is None
    assert FixedPoints(0.0, from_zero=True).start([7], molecules(2)) is None


def test_a_potential_that_does_not_start_from_zero_starts_whole_batches_only() -> None:
    points = FixedPoints(1.0, from_zero=False)
    points.keep([0, 1], molecules(2, 3), solution(molecules(2, 3)))
    assert points.start([1, 2], molecules(3, 1)) is None
    assert points.start([1, 0], molecules(3, 2)).value[:, 0, 0].tolist() == [2, 3, 4, 0, 1]


def test_what_did_not_converge_is_forgotten() -> None:
    points = FixedPoints(1.0, from_zero=True)
    points.keep([0, 1], molecules(2, 3), solution(molecules(2, 3)))
    points.keep([0, 1], molecules(2, 3), solution(molecules(2, 3), result=[1, 0]))
    assert len(points) == 1 and points.bytes == 3 * 16
    points.keep([0], molecules(2), None)  # an unrolled step
    assert len(points) == 1


def test_memory_is_bounded_and_known_structures_stay() -> None:
    points = FixedPoints(5 * 16 / MEBIBYTE, from_zero=True)
    points.keep([0, 1], molecules(2, 3), solution(molecules(2, 3)))
    points.keep([2, 0], molecules(1, 2), solution(molecules(1, 2)))
    assert points.bytes == 5 * 16 and points.start([2], molecules(1)) is None
    assert points.start([0], molecules(2)).value[:, 0, 0].tolist() == [1, 2], "renewed"


def test_it_comes_back_from_tensors() -> None:
    first, second = FixedPoints(1.0, from_zero=True), FixedPoints(1.0, from_zero=True)
    second.load_state_dict(first.state_dict())
    assert len(second) == second.bytes == 0
    first.keep([3, 8], molecules(2, 3), solution(molecules(2, 3)))
    second.load_state_dict(first.state_dict())
    ours, theirs = (p.start([8, 3], molecules(3, 2)).value for p in (first, second))
    assert torch.equal(ours, theirs) and second.bytes == first.bytes


@pytest.fixture
def small(recipe: Recipe) -> Recipe:
    plain = recipe.model_dump(mode="json")
    plain["potential"]["backbone"].update(SMALL, radial_hidden=4)
    plain["training"].update(epochs=2, jacobian_weight=0.0, reuse_memory=1.0, unrolled=0.3)
    return make_recipe(plain)


def test_the_answer_is_the_same_and_costs_less(small: Recipe) -> None:
    """Where the weights have moved a little, as they do in an epoch."""
    tight = Anderson(tolerance=1e-9, max_passes=60)
    config = dataclasses.replace(
        small.potential, dtype="float64", training_solver=tight, training_adjoint=tight
    )
    config = dataclasses.replace(config, training_gradient=tight)
    graphs = read_datasets(small.data, cutoff=config.backbone.cutoff, test=False).train[:3]
    potential = build(config, training_statistics(graphs)).train()
    points = FixedPoints(1.0, from_zero=True)

    def learn(potential: torch.nn.Module, points: FixedPoints) -> tuple:
        drawn = draw(small.training, 9, torch.device("cpu"), 1.0)
        told = {"progress": 1.0, "drawn": drawn, "points": points, "processes": Processes()}
        found = batch_loss(potential, batch(graphs), range(3), small.training, **told)
        potential.zero_grad()
        found.value.backward()
        gradient = torch.cat([p.grad.flatten() for p in potential.parameters()])
        return found.value.detach(), gradient, int(found.prediction.equilibrium.passes.sum())

    learn(potential, points)
    with torch.no_grad():
        for parameter in potential.parameters():
            parameter += 1e-3 * parameter.std(correction=0)
    again = copy.deepcopy(potential)
    loss, gradient, passes = learn(potential, FixedPoints(0.0, from_zero=True))
    warm_loss, warm_gradient, warm_passes = learn(again, points)
    assert warm_passes < 0.8 * passes
    torch.testing.assert_close(warm_loss, loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(warm_gradient, gradient, rtol=1e-5, atol=1e-7)


def test_a_stopped_run_goes_on_with_them_bit_for_bit(
    small: Recipe, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped_and_resumed(small, tmp_path, console, monkeypatch, stop=8)
    log = rows(tmp_path / "whole")
    assert float(log[-1]["passes"]) > 0
    assert read_statistics(tmp_path / "whole" / "state.safetensors").elements == (1, 6, 8)
    assert json.loads((tmp_path / "whole" / "state.json").read_text())["version"] == 3
    assert fit(small, tmp_path / "parts", console=console).finished
