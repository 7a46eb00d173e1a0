"""The loop with the real network, as small as it gets."""

import signal
from pathlib import Path

import pytest
import torch
from rich.console import Console

import equipoise.potentials
from equipoise.potentials import describe, load
from equipoise.train import Recipe, evaluate, fit, make_recipe, read_datasets
from tests.train.test_loop import assert_same_run


@pytest.fixture(params=["equilibrium", "stacked"])
def small(request: pytest.FixtureRequest, recipe: Recipe) -> Recipe:
    plain = recipe.model_dump(mode="json")
    plain["potential"]["kind"] = request.param
    plain["potential"]["backbone"].update(
        channels=4, lmax=1, mmax=1, heads=2, hidden=4, ffn=4, radial=4, radial_hidden=4
    )
    plain["training"].update(epochs=1, jacobian_probability=0.5)
    return make_recipe(plain)


def test_resumed_is_uninterrupted_and_the_model_loads(
    small: Recipe, tmp_path: Path, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(small, tmp_path / "whole", console=console)
    assert whole.finished and whole.bad_steps == 0

    forward = equipoise.potentials.Potential.forward
    calls = []

    def press(self: torch.nn.Module, *args: object, **kwargs: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            signal.raise_signal(signal.SIGINT)
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(equipoise.potentials.Potential, "forward", press)
        assert fit(small, tmp_path / "parts", console=console).steps == 3
    fit(small, tmp_path / "parts", console=console)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")

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
    assert inside.errors == found.errors
