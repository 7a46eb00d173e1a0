"""The loop with the real network, as small as it gets."""

import signal
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from rich.console import Console

import equipoise.potentials
from equipoise.potentials import build, describe, load
from equipoise.train import FitResult, Recipe, evaluate, fit, make_recipe, read_datasets
from tests.train.test_loop import assert_same_run, rows


@pytest.fixture(params=["equilibrium", "stacked"])
def small(request: pytest.FixtureRequest, recipe: Recipe) -> Recipe:
    plain = recipe.model_dump(mode="json")
    plain["potential"]["kind"] = request.param
    plain["potential"]["backbone"].update(
        channels=4, lmax=1, mmax=1, heads=2, hidden=4, ffn=4, radial=4, radial_hidden=4
    )
    plain["training"].update(epochs=1, jacobian_probability=0.5)
    return make_recipe(plain)


def stopped_and_resumed(
    recipe: Recipe,
    folder: Path,
    console: Console,
    monkeypatch: pytest.MonkeyPatch,
    *,
    stop: int = 3,
) -> FitResult:
    """Compare a run with one that Ctrl-C stopped in call `stop` of its network; the result of the whole one."""
    whole = fit(recipe, folder / "whole", console=console)
    assert whole.finished and whole.bad_steps == 0

    forward = equipoise.potentials.Potential.forward
    calls = []

    def press(self: torch.nn.Module, *args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == stop:
            signal.raise_signal(signal.SIGINT)
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(equipoise.potentials.Potential, "forward", press)
        assert not fit(recipe, folder / "parts", console=console).finished
    fit(recipe, folder / "parts", console=console)
    assert_same_run(folder / "whole", folder / "parts")
    return whole


@pytest.mark.parametrize(
    "small", ["stacked", pytest.param("equilibrium", marks=pytest.mark.slow)], indirect=True
)
def test_resumed_is_uninterrupted_and_the_model_loads(
    small: Recipe, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stopped_and_resumed(small, tmp_path, console, monkeypatch)
    potential = load(whole.model)
    extra = describe(whole.model)["extra"]
    data = read_datasets(small.data, cutoff=potential.cutoff)
    found = evaluate(potential, data.validation, batch_size=4)
    assert found.errors.force_mae_mev == pytest.approx(
        whole.best_force_mae_mev, rel=1e-6
    )  # float32
    assert extra["validation"]["force_mae_mev"] == whole.best_force_mae_mev
    assert extra["recipe"] == small.model_dump(mode="json")
    single = evaluate(potential, data.validation, batch_size=1)
    assert single.errors.force_mae_mev == pytest.approx(found.errors.force_mae_mev, rel=1e-2)
    with torch.inference_mode():
        inside = evaluate(potential, data.validation, batch_size=4)
    assert asdict(inside.errors) == pytest.approx(
        asdict(found.errors), rel=0, abs=0, nan_ok=True
    )  # no stress here


def test_with_everything_at_once_resumed_is_uninterrupted(
    small: Recipe, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Muon, schedules, factors, the penalty, the correction, unrolled steps, batches by edges, fixed points kept."""
    plain = small.model_dump(mode="json")
    plain["training"].update(
        epochs=2,
        optimiser="muon",
        rate_factors={"head.*": 0.5, "backbone.hidden.*": 0.0},
        energy_weight={"start": 1.0, "end": 5.0},
        force_weight={"start": 10.0, "end": 5.0, "until": 0.5, "shape": "step"},
        unrolled=0.4,
        unrolled_odds=[0, 1, 1],
        max_edges=36,
        prefetch=1,
        patience=10,
    )
    if plain["potential"]["kind"] == "equilibrium":
        plain["training"].update(reuse_memory=1.0, correction_weight=0.1)
        plain["potential"]["training_solver"]["trajectory"] = [2, 4]
    whole = stopped_and_resumed(make_recipe(plain), tmp_path, console, monkeypatch, stop=11)
    before = build(small.potential, load(whole.model).statistics, seed=0).state_dict()
    after = load(whole.model).state_dict()
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert same == {name for name in after if name.startswith("backbone.hidden.")}
    first, _ = (float(row["passes"]) for row in rows(tmp_path / "whole"))
    equilibrium = small.potential.kind == "equilibrium"
    assert first >= 2 if equilibrium else first == 0, "unrolled passes are passes"
