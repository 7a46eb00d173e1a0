import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from equipoise.deq import Solution
from equipoise.graph import Graph
from equipoise.potentials import Prediction, Statistics
from equipoise.report.terminal import evaluation_table
from equipoise.train import evaluate

STATISTICS = Statistics(
    elements=(1, 8),
    reference_energies=(-1.0, -5.0),
    force_rms=1.0,
    mean_neighbours=1.0,
    mean_atoms=2.0,
)


class Constant(nn.Module):
    """Says 1 eV too much, forces 0.5 eV/Angstrom too large, and fails on every oxygen."""

    statistics = STATISTICS
    device = torch.device("cpu")

    def forward(self, graph: Graph, *, unconverged: str) -> Prediction:
        assert unconverged == "accept" and not self.training and torch.is_grad_enabled()
        ones = torch.ones(graph.n_structures, dtype=torch.int64)
        failed = torch.zeros_like(ones).index_add_(0, graph.owner, (graph.species == 8).long())
        return Prediction(
            energy=torch.nan_to_num(graph.energy) + 1.0,
            forces=torch.nan_to_num(graph.forces) + 0.5,
            stress=None,
            atomic_energies=torch.zeros(graph.n_atoms, dtype=torch.float64),
            equilibrium=Solution(
                value=torch.zeros(graph.n_atoms, 1),
                passes=4 * ones,
                residual=1e-3 * ones,
                result=failed.clamp(max=1),
                adjoint_passes=2 * ones,
                adjoint_result=0 * ones,
            ),
        )


@pytest.fixture
def graphs() -> list[Graph]:
    pair = [[0.0, 0, 0], [1, 0, 0]]
    hydrogen = Graph.build(pair, [1, 1], cutoff=2.0, energy=-2.5, forces=[[1.0, 0, 0], [-1, 0, 0]])
    hydroxyl = Graph.build(pair, [8, 1], cutoff=2.0, energy=-7.0, forces=[[0.0, 3, 0], [0, -3, 0]])
    atom = Graph.build([[0.0, 0, 0]], [1], cutoff=2.0, energy=-1.0)
    return [hydrogen, hydroxyl, atom]


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_by_hand(graphs: list[Graph], batch_size: int) -> None:
    potential = Constant().train()
    graphs[2] = graphs[2].replace(forces=torch.full((1, 3), torch.nan, dtype=torch.float64))
    with torch.no_grad():
        found = evaluate(potential, graphs, batch_size=batch_size)
    assert potential.training
    assert found.errors.energy_mae_mev == pytest.approx(1000)
    assert found.errors.energy_rmse_mev == pytest.approx(1000)
    assert found.errors.energy_mae_mev_per_atom == pytest.approx((500 + 500 + 1000) / 3)
    assert found.errors.force_mae_mev == pytest.approx(500)
    assert found.errors.force_rmse_mev == pytest.approx(500)
    # The mean predictor says -2, -6 and -1 eV, and no forces.
    assert found.mean_predictor.energy_mae_mev == pytest.approx((500 + 1000 + 0) / 3)
    assert found.mean_predictor.force_mae_mev == pytest.approx(8 / 12 * 1000)
    assert found.mean_predictor.force_rmse_mev == pytest.approx(math.sqrt(20 / 12) * 1000)
    assert found.structures == 3 and found.unconverged == 1
    assert found.passes_mean == pytest.approx(6)
    assert found.seconds_per_structure > 0
    np.testing.assert_allclose(found.energy_true, [-2.5, -7, -1])
    np.testing.assert_allclose(found.energy_pred, [-1.5, -6, 0])
    assert found.forces_true.shape == found.forces_pred.shape == (5, 3)
    assert np.isnan(found.forces_true[4]).all()


def test_saved_files(graphs: list[Graph], tmp_path: Path) -> None:
    found = evaluate(Constant().eval(), graphs[:2])
    found.save(tmp_path / "run", model="constant", data="two pairs")
    numbers = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert numbers["model"] == "constant" and numbers["data"] == "two pairs"
    assert numbers["force_mae_mev"] == pytest.approx(500)
    assert numbers["mean_predictor"]["energy_mae_mev"] == pytest.approx(750)
    with np.load(tmp_path / "run" / "evaluation.npz", allow_pickle=False) as pairs:
        assert sorted(pairs) == ["energy_pred", "energy_true", "forces_pred", "forces_true"]
        np.testing.assert_array_equal(pairs["forces_pred"], found.forces_pred)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "evaluation.json",
        "evaluation.npz",
    ]


def test_without_forces_the_json_has_null(graphs: list[Graph]) -> None:
    class EnergyOnly(Constant):
        def forward(self, graph: Graph, *, unconverged: str) -> Prediction:
            zeros = torch.zeros(graph.n_atoms, 3, dtype=torch.float64)
            return super().forward(graph.replace(forces=zeros), unconverged=unconverged)

    found = evaluate(EnergyOnly(), [graphs[2]])
    assert found.as_dict()["force_mae_mev"] is None
    assert found.as_dict()["energy_mae_mev"] == pytest.approx(1000)


def test_predictions_that_are_no_numbers_are_counted(graphs: list[Graph]) -> None:
    class Broken(Constant):
        def forward(self, graph: Graph, *, unconverged: str) -> Prediction:
            prediction = super().forward(graph, unconverged=unconverged)
            prediction.forces[graph.species == 8] = torch.nan
            return prediction

    found = evaluate(Broken(), graphs[:2])
    numbers = found.as_dict()
    assert (numbers["non_finite"], numbers["force_mae_mev"]) == (1, None)
    assert numbers["energy_mae_mev"] == pytest.approx(1000)
    table = evaluation_table(found, model="broken", data="two pairs")
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    text = " ".join(console.file.getvalue().split())
    assert "Errors on two pairs" in text and "1 with NaN or infinity" in text
    assert re.search(r"broken .* 1000 .* 1000 .* nan .* nan", text)
    # Without a label it is a dash.
    missing = torch.full((1,), torch.nan, dtype=torch.float64)
    unlabelled = [graph.replace(energy=missing) for graph in graphs[:2]]
    table = evaluation_table(evaluate(Constant(), unlabelled), model="constant", data="x")
    assert list(table.columns[1].cells) == ["–", "–"]


def test_nothing_to_evaluate(graphs: list[Graph]) -> None:
    with pytest.raises(ValueError, match="at least one structure, received none"):
        evaluate(Constant(), [])
    with pytest.raises(ValueError, match="needs labels, received 1 structures without"):
        evaluate(Constant(), [graphs[0].replace(energy=None, forces=None)])
