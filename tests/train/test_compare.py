"""Potentials are compared on the same structures or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from equipoise.graph import Graph
from equipoise.potentials import Prediction
from equipoise.train import compare, evaluate, write_comparison
from tests.train.constant import Constant


class Noisy(Constant):
    """Errors that differ from structure to structure; the larger `scale`, the worse."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, graph: Graph, *, unconverged: str) -> Prediction:
        prediction = super().forward(graph, unconverged=unconverged)
        noise = torch.sin(100 * graph.energy)
        prediction.energy[:] = graph.energy + self.scale * noise
        prediction.forces[:] = graph.forces + 0.1
        return prediction


@pytest.fixture
def graphs() -> list[Graph]:
    random = np.random.default_rng(0)
    return [
        Graph.build(
            [[0.0, 0, 0], [1, 0, 0]], [1, 8], cutoff=2.0, energy=energy, forces=np.zeros((2, 3))
        )
        for energy in random.normal(size=60)
    ]


def test_difference_of_two(graphs: list[Graph], tmp_path: Path) -> None:
    found = {name: evaluate(Noisy(scale), graphs) for name, scale in (("a", 1.0), ("b", 1.1))}
    comparison = compare(found)
    difference = comparison.differences["b"]["energy_mae_mev"]
    assert difference.value == pytest.approx(0.1 * found["a"].errors.energy_mae_mev)
    assert difference.certain
    assert not comparison.differences["b"]["force_mae_mev"].certain
    assert comparison.differences["b"]["stress_mae_mev"] is None
    record = comparison.as_dict({k: e.as_dict() for k, e in found.items()}, data="pairs")
    write_comparison(tmp_path, record)
    read = json.loads((tmp_path / "comparison.json").read_text())
    assert read["reference"] == "a" and list(read["models"]) == ["a", "b"]
    assert read["differences"]["b"]["energy_mae_mev"]["certain"] is True


def test_other_structures_are_refused(graphs: list[Graph]) -> None:
    def refused(others: list[Graph], message: str) -> None:
        pair = {"a": evaluate(Noisy(1.0), graphs), "b": evaluate(Noisy(1.0), others)}
        with pytest.raises(ValueError, match=message):
            compare(pair)

    refused(graphs[1:], "received 60 for a and 59 for b")
    refused(graphs[::-1], "energy of structure 0 for a and b are not the same")
    stronger = graphs[3].replace(forces=torch.ones(2, 3, dtype=torch.float64))
    refused([*graphs[:3], stronger, *graphs[4:]], "forces of structure 3")
    with pytest.raises(ValueError, match="at least two potentials, received 1"):
        compare({"a": evaluate(Noisy(1.0), graphs)})
