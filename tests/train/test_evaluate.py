import io
import json
import math
import re
import weakref
from collections.abc import Sequence
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from rich.console import Console

from equipoise.graph import Graph, batch
from equipoise.potentials import Prediction
from equipoise.report.terminal import evaluation_table
from equipoise.train import Tally, evaluate, save_worst
from equipoise.train.outcomes import ARRAYS
from equipoise.train.sample import Sample
from tests.train.constant import Constant


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
        assert set(pairs) == {*ARRAYS, "names", "forces_true", "forces_pred"}
        np.testing.assert_array_equal(pairs["forces_pred"], found.forces_pred)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [
        "evaluation.json",
        "evaluation.npz",
    ]


def test_without_forces_the_json_has_null(graphs: list[Graph]) -> None:
    found = evaluate(Constant(), [graphs[2]])
    assert found.as_dict()["force_mae_mev"] is None
    assert found.as_dict()["energy_mae_mev"] == pytest.approx(1000)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_predictions_that_are_no_numbers_are_counted(graphs: list[Graph], value: float) -> None:
    class Broken(Constant):
        def forward(self, graph: Graph, *, unconverged: str) -> Prediction:
            prediction = super().forward(graph, unconverged=unconverged)
            prediction.forces[graph.species == 8] = value
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
    assert re.search(r"broken .* 1000 .* 1000 .* (nan .* nan|inf .* inf)", text)
    json.dumps(evaluate(Broken(), graphs[:2] * 10).as_dict(), allow_nan=False)
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


def test_tallies_of_parts_add_up(graphs: list[Graph]) -> None:
    whole = evaluate(Constant(), graphs).tally
    parts = [evaluate(Constant(), [graph]).tally for graph in graphs]
    assert sum(parts, Tally()) == whole
    assert Tally.of(whole.values()) == whole
    assert isinstance(Tally.of(map(float, whole.values())).structures, int)
    running = Tally()  # as training counts
    for graph in graphs:
        running.add(Constant().eval()(graph, unconverged="accept"), graph)
    assert running == whole


def test_errors_by_element_and_molecule(graphs: list[Graph]) -> None:
    found = evaluate(Constant(), graphs)
    numbers = found.as_dict()
    assert [(e["element"], e["atoms"]) for e in numbers["elements"]] == [("H", 3), ("O", 1)]
    assert [m["name"] for m in numbers["molecules"]] == ["H2", "HO", "H"]
    assert [m["unconverged"] for m in numbers["molecules"]] == [0, 1, 0]
    assert numbers["molecules"][2]["force_mae_mev"] is None
    named = evaluate(Constant(), graphs, molecules=["pair", "pair", "atom"]).as_dict()
    assert [(m["name"], m["structures"]) for m in named["molecules"]] == [("pair", 2), ("atom", 1)]
    with pytest.raises(ValueError, match="each of the 3 structures, received 1 names"):
        evaluate(Constant(), graphs, molecules=["pair"])


def test_worst_structures_and_where(graphs: list[Graph], tmp_path: Path) -> None:
    class WrongOnOxygen(Constant):
        def forward(self, graph: Graph, *, unconverged: str) -> Prediction:
            prediction = super().forward(graph, unconverged=unconverged)
            prediction.forces[graph.species == 8] += 3.0
            return prediction

    potential = WrongOnOxygen().eval()
    found = evaluate(potential, graphs)
    first, second = found.as_dict()["worst"]  # the third has no force label
    assert (first["index"], second["index"]) == (1, 0)
    assert (first["force_worst_element"], first["force_worst_atom"]) == ("O", 0)
    assert first["force_worst_mev"] == pytest.approx(1000 * math.sqrt(3) * 3.5)
    assert (first["converged"], second["converged"]) == (False, True)
    save_worst(potential, graphs, found.outcomes.worst(1), tmp_path / "worst.extxyz")
    (atoms,) = ase.io.read(tmp_path / "worst.extxyz", index=":")
    assert atoms.info["index"] == 1
    np.testing.assert_allclose(atoms.arrays["force_error"], np.sqrt(3) * np.array([3.5, 0.5]))
    np.testing.assert_allclose(
        atoms.get_forces() - atoms.arrays["REF_forces"], [[3.5] * 3, [0.5] * 3]
    )
    # Energies decide where there is no force.
    assert evaluate(Constant(), [graphs[2]]).outcomes.worst(5).tolist() == [0]


def test_stress_where_it_is_labelled(graphs: list[Graph]) -> None:
    crystal = Graph.build(
        [[0.0, 0, 0]], [1], cutoff=2.0, cell=3 * np.eye(3), pbc=True, energy=-1.0, stress=[0.1] * 6
    )
    bare = crystal.replace(stress=None)
    found = evaluate(Constant(), [graphs[0], crystal, crystal, bare, graphs[1]])
    assert found.errors.stress_mae_mev == pytest.approx(250)
    assert found.tally.stresses == 12
    assert found.mean_predictor.stress_rmse_mev == pytest.approx(100)
    assert found.outcomes.atoms.tolist() == [2, 1, 1, 1, 2], "the order is that of the data"
    assert evaluate(Constant(), [graphs[0], bare]).as_dict()["stress_mae_mev"] is None


def test_one_structure_has_errors_but_no_intervals(graphs: list[Graph]) -> None:
    numbers = evaluate(Constant(), graphs[:1]).as_dict()
    assert numbers["energy_mae_mev"] == pytest.approx(1000)
    assert numbers["seconds_per_structure"] > 0
    assert set(numbers["intervals"].values()) == {None}
    json.dumps(numbers, allow_nan=False)


def test_offset_of_energies(graphs: list[Graph]) -> None:
    numbers = evaluate(Constant(), graphs).as_dict()
    assert numbers["energy_offset_mev"] == pytest.approx(1000)
    assert numbers["energy_scatter_mev"] == pytest.approx(0, abs=1e-9)


class Lazy(Sequence[Graph]):
    """Builds every graph anew, and counts those that somebody still holds."""

    def __init__(self, graph: Graph, length: int) -> None:
        self.graph, self.length = graph, length
        self.alive = self.most = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Graph:
        if not 0 <= index < self.length:
            raise IndexError(index)
        made = self.graph.replace(energy=self.graph.energy + index)
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(made, self._gone)
        return made

    def _gone(self) -> None:
        self.alive -= 1


def test_structures_are_not_kept(graphs: list[Graph]) -> None:
    lazy, seen = Lazy(graphs[0], 50), []
    found = evaluate(Constant(), lazy, batch_size=4, observe=seen.append)
    assert found.structures == 50 and lazy.most <= 6
    assert seen[0] == 4 and seen[-1] == 50
    np.testing.assert_array_equal(found.energy_true, np.arange(50) - 2.5)


def test_sample_of_forces_is_bounded_and_even(graphs: list[Graph]) -> None:
    sample = Sample(most_atoms=400)
    potential = Constant().eval()
    for first in range(0, 4000, 100):
        numbers = torch.arange(first, first + 100, dtype=torch.float64)
        graph = batch([graphs[0]] * 100)
        graph = graph.replace(forces=numbers.repeat_interleave(2)[:, None].expand(-1, 3))
        sample.add(potential(graph, unconverged="accept"), graph)
    true, pred = sample.forces()
    assert 100 < len(true) <= 400
    np.testing.assert_allclose(pred - true, 0.5)
    assert abs(true.mean() - 2000) < 350, "early structures and late ones alike"
