"""Beginning with the weights of a model: fine-tuning, other levels of theory, conservative after direct forces."""

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from rich.console import Console

from equipoise.potentials import describe, load
from equipoise.train import Recipe, evaluate, fit, load_recipe, make_recipe, read_datasets
from tests.train.test_loop import changed
from tests.train.test_reuse import SMALL

ORIGINAL = {
    "name": "equiformer_v2_original",
    "channels": 4,
    "lmax": 1,
    "mmax": 1,
    "heads": 2,
    "hidden": 4,
    "alpha_channels": 2,
    "value_channels": 2,
    "ffn": 4,
    "edge_channels": 4,
    "grid": 6,
    "gaussians": 16,
    "layers": 1,
    "force_head": True,
}


@pytest.fixture(scope="module")
def model(structures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small equilibrium, trained for one epoch."""
    recipe = make_recipe(
        {
            "data": {"source": "file", "train": str(structures), "validation_count": 6},
            "potential": {"backbone": {**SMALL, "radial_hidden": 4}},
            "training": {"epochs": 1, "batch_size": 4, "unrolled": 1.0},
        }
    )
    folder = tmp_path_factory.mktemp("initial")
    return fit(recipe, folder, console=Console(quiet=True)).folder


def tune(model: Path, structures: Path, **training: object) -> Recipe:
    """What a user writes: nothing about the potential."""
    settings = {"epochs": 1, "batch_size": 4, "unrolled": 1.0, "initial_model": str(model)}
    text = {
        "data": {"source": "file", "train": str(structures), "validation_count": 6},
        "training": settings | training,
    }
    path = structures.parent / "tune.yaml"
    path.write_text(json.dumps(text))
    return load_recipe(path)


def test_a_recipe_takes_the_potential_of_its_model(model: Path, structures: Path) -> None:
    assert tune(model, structures).potential == load(model).config
    path = structures.parent / "tune.yaml"
    other = load_recipe(path, ["potential.training_solver.max_passes=9"])
    assert other.potential.training_solver.max_passes == 9
    assert other.potential.backbone == load(model).config.backbone


def test_fine_tuning_begins_where_the_model_ended(
    model: Path, structures: Path, tmp_path: Path, console: Console
) -> None:
    recipe = tune(model, structures, learning_rate=1e-9, ema_decay=0.0)
    result = fit(recipe, tmp_path / "run", console=console)
    before, after = load(model), load(result.model)
    assert after.statistics == before.statistics
    for name, value in before.state_dict().items():
        torch.testing.assert_close(after.state_dict()[name], value, rtol=1e-6, atol=1e-7)
    # The run has all it needs to go on, or to be looked at, without the model.
    kept = load_recipe(tmp_path / "run").potential
    assert kept == before.config and fit(recipe, tmp_path / "run", console=console).finished


def test_only_what_is_wanted_is_trained(
    model: Path, structures: Path, tmp_path: Path, console: Console
) -> None:
    recipe = tune(model, structures, rate_factors={"*": 0.0, "head.*": 1.0})
    before, after = load(model), load(fit(recipe, tmp_path, console=console).model)
    moved = {
        name
        for name, v in after.state_dict().items()
        if not torch.equal(v, before.state_dict()[name])
    }
    assert moved == {name for name in before.state_dict() if name.startswith("head.")}


def test_reference_energies_of_another_level_of_theory(
    model: Path, structures: Path, tmp_path: Path, console: Console
) -> None:
    """Every energy 5 eV per hydrogen and 1 eV per other atom away: refitted, the model is as good as it was."""
    frames = ase.io.read(structures, ":")
    for atoms in frames:
        atoms.info["REF_energy"] += (
            5.0 * (atoms.numbers == 1).sum() + 1.0 * (atoms.numbers != 1).sum()
        )
    moved = tmp_path / "moved.extxyz"
    ase.io.write(moved, frames)
    refitted = tune(model, moved, reference_energies="refit", learning_rate=1e-9)
    kept = changed(refitted, reference_energies="keep")
    errors = {}
    for name, recipe in {"refit": refitted, "keep": kept}.items():
        after = load(fit(recipe, tmp_path / name, console=console).model)
        data = read_datasets(recipe.data, cutoff=after.cutoff).train
        errors[name] = evaluate(after, data).errors.energy_mae_mev
        assert after.statistics.force_rms == load(model).statistics.force_rms
    original = read_datasets(tune(model, structures).data, cutoff=after.cutoff).train
    before = evaluate(load(model), original).errors.energy_mae_mev
    assert errors["refit"] <= 1.01 * before
    assert errors["keep"] == pytest.approx(12_000, rel=0.1), "two hydrogens, two others"


def test_elements_that_the_model_does_not_know(
    model: Path, structures: Path, tmp_path: Path, console: Console
) -> None:
    frames = ase.io.read(structures, ":")
    frames[3].numbers[0] = 17
    ase.io.write(tmp_path / "chlorine.extxyz", frames)
    recipe = tune(model, tmp_path / "chlorine.extxyz")
    with pytest.raises(ValueError, match=r"knows the elements \[1, 6, 8\] only, .* numbers \[17\]"):
        fit(recipe, tmp_path / "run", console=console)
    assert not (tmp_path / "run").exists()


def test_another_network_is_refused(
    model: Path, structures: Path, tmp_path: Path, console: Console
) -> None:
    tune(model, structures)
    path = structures.parent / "tune.yaml"
    wider = load_recipe(path, ["potential.backbone.channels=8"])
    with pytest.raises(ValueError, match="potential.backbone.channels: 4 there, 8 here. Leave the"):
        fit(wider, tmp_path, console=console)
    original = load_recipe(path, ["potential.backbone.name=equiformer_v2_original"])
    with pytest.raises(ValueError, match="with the backbone equiformer_v2. Leave the section"):
        fit(original, tmp_path, console=console)


def test_a_model_that_is_not_there(structures: Path, tmp_path: Path, console: Console) -> None:
    recipe = tune(tmp_path / "nowhere.safetensors", structures)
    with pytest.raises(FileNotFoundError, match="nowhere.safetensors"):
        fit(recipe, tmp_path / "run", console=console)


@pytest.mark.parametrize(("kind", "head"), [("equilibrium", False), ("stacked", True)])
def test_conservative_after_direct_forces(
    kind: str, head: bool, structures: Path, tmp_path: Path, console: Console
) -> None:
    """Pre-training with a force head, then the gradient of the energy, with the head left out or behind."""
    few = tmp_path / "few.extxyz"
    ase.io.write(few, ase.io.read(structures, ":10"))
    rough = {"tolerance": 1e-2, "max_passes": 12}
    solvers = ("solver", "adjoint", "training_solver", "training_adjoint", "training_gradient")
    direct = make_recipe(
        {
            "data": {"source": "file", "train": str(few), "validation_count": 2},
            "potential": {"kind": kind, "backbone": ORIGINAL, "forces": "direct"}
            | dict.fromkeys(solvers, rough),
            "training": {"epochs": 1, "batch_size": 4},
        }
    )
    first = fit(direct, tmp_path / "direct", console=console)
    assert not load(first.model).conservative
    told = [f"data.train={few}", "data.validation_count=2", "training.unrolled=0"]
    tune(first.folder, structures)
    recipe = load_recipe(
        structures.parent / "tune.yaml",
        [*told, "potential.forces=gradient", f"potential.backbone.force_head={str(head).lower()}"],
    )
    result = fit(recipe, tmp_path / "conservative", console=console)
    after = load(result.model)
    assert result.finished and result.bad_steps == 0 and after.conservative
    names = [name for name in after.state_dict() if name.startswith("backbone.force.")]
    assert bool(names) == head
    for name in names:  # not trained, but for the decay of weights
        before = load(first.model).state_dict()[name]
        torch.testing.assert_close(after.state_dict()[name], before, rtol=1e-4, atol=0)
    graph = read_datasets(recipe.data, cutoff=after.cutoff).validation[0]
    forces = after(graph, unconverged="accept").forces
    assert np.allclose(forces.sum(0), 0, atol=1e-6), "forces of an energy sum to zero"
    assert describe(result.model)["extra"]["recipe"]["training"]["initial_model"]
