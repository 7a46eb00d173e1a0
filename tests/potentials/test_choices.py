"""Choosing solvers, gradients and backbones: the same answers, and files that say what was chosen."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from equipoise.backbones import EquiformerV2Config
from equipoise.deq import Anderson, Broyden, Newton, Phantom, Picard, Unrolled
from equipoise.potentials import (
    ImplicitGradient,
    InjectionConfig,
    PotentialConfig,
    build,
    describe,
    load,
    save,
    zoo,
)
from tests.potentials.structures import ORIGINAL, SMALL, STATISTICS, molecule, original, potential

TIGHT = {"tolerance": 1e-10, "max_passes": 400}


def trained_with(model, **changes):
    model.config = replace(model.config, **changes)
    return model


@pytest.mark.parametrize("make", [potential, original])
@pytest.mark.parametrize("solver", [Broyden, Newton, Picard])
def test_every_solver_finds_the_same_energy_and_forces(solver, make):
    expected, settings = make()(molecule()), solver(**TIGHT)
    found = trained_with(make(), solver=settings, adjoint=settings)(molecule())
    assert found.equilibrium.converged
    torch.testing.assert_close(found.energy, expected.energy, rtol=0, atol=1e-8)
    torch.testing.assert_close(found.forces, expected.forces, rtol=0, atol=1e-7)


@pytest.mark.parametrize("make", [potential, original])
def test_more_phantom_steps_tend_to_the_implicit_gradient(make):
    graph = molecule(4)
    expected = make().train()(graph).forces
    errors = []
    for steps in (1, 2, 60):
        model = trained_with(make(), gradient=Phantom(steps=steps)).train()
        errors.append(((model(graph).forces - expected).norm() / expected.norm()).item())
    # One step is no gradient, and that is said in the documentation.
    assert errors[0] > 1e-3 and errors[0] > errors[1] and errors[2] < 1e-8
    # What is predicted does not depend on how the weights were trained.
    torch.testing.assert_close(model.eval()(graph).forces, expected.detach(), rtol=0, atol=1e-8)


def test_unrolled_training_is_that_of_so_many_passes():
    graph = molecule(4)
    once = trained_with(potential(), gradient=Unrolled(passes=2)).train()(graph)
    assert once.equilibrium is None  # not meant to have converged
    torch.testing.assert_close(once.forces, potential().train()(graph, unrolled=2).forces)
    many = trained_with(potential(), gradient=Unrolled(passes=80)).train()(graph).forces
    torch.testing.assert_close(many, potential().train()(graph).forces, rtol=0, atol=1e-9)
    # A training that begins with a few passes does so whatever comes afterwards.
    schedule = trained_with(potential(), gradient=Phantom()).train()(graph, unrolled=2)
    torch.testing.assert_close(schedule.forces, once.forces)


@pytest.mark.parametrize(
    "changes",
    [
        {"solver": Broyden(memory=7), "adjoint": Picard(damping=0.5)},
        {"training_solver": Newton(krylov=9, trajectory=(1, 3)), "gradient": Phantom(steps=3)},
        {"gradient": Unrolled(passes=5, damping=0.9)},
        {"backbone": ORIGINAL, "injection": InjectionConfig(kind="swlc", start="embedding")},
        {"backbone": ORIGINAL, "forces": "direct", "kind": "stacked"},
    ],
    ids=str,
)
def test_files_say_what_was_chosen(changes, tmp_path):
    model = build(PotentialConfig(**({"backbone": SMALL} | changes)), STATISTICS)
    save(model, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert again.config == model.config
    assert describe(tmp_path)["config"]["backbone"]["name"] == again.family.name


def test_files_from_before_there_was_a_choice(tmp_path):
    """Schema 1 had no names, and nothing of what came with them."""
    model, path = potential(), tmp_path / "old.safetensors"
    save(model, path)
    header = describe(path)
    config = header["config"]
    for name in ("forces", "injection", "gradient"):
        del config[name]
    for settings in config.values():
        if isinstance(settings, dict):
            del settings["name"]
    old = {"schema_version": 1, "extra": {}, **{k: header[k] for k in ("config", "statistics")}}
    save_file(load_file(path), path, metadata={"equipoise": json.dumps(old)})
    again = load(path)
    assert again.config == model.config
    assert torch.equal(again(molecule()).energy, model(molecule()).energy)
    assert zoo()  # and such a file comes with the package
    for name in zoo():
        assert isinstance(load(name).config.backbone, EquiformerV2Config)


def test_an_unknown_name_in_a_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save(potential(), path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["equipoise"])
    header["config"]["backbone"]["name"] = "equiformer_v3"
    save_file({"w": torch.ones(2)}, path, metadata={"equipoise": json.dumps(header)})
    with pytest.raises(ValueError, match=r"(?s)does not know: .*'equiformer_v3'"):
        load(path)


def test_settings_of_ones_own_cannot_be_saved(tmp_path):
    class Mine(Anderson):
        pass

    model = trained_with(potential(), solver=Mine())
    with pytest.raises(
        ValueError, match="only anderson, .* can be written to a file, received Mine"
    ):
        save(model, tmp_path / "model.safetensors")


def test_what_only_the_original_can():
    for changes, message in (
        ({"injection": InjectionConfig(kind="cat")}, "takes injection.kind 'add' with norm"),
        (
            {"injection": InjectionConfig(norm="batch_global_one")},
            "belong to equiformer_v2_original",
        ),
        ({"forces": "direct"}, "forces must be 'gradient' with the backbone equiformer_v2"),
    ):
        with pytest.raises(ValueError, match=message):
            PotentialConfig(backbone=SMALL, **changes)
    for changes, message in (
        ({"kind": "sum"}, "injection.kind must be one of add, cat, .* received 'sum'"),
        ({"norm": "prev"}, "received 'prev'; batch_global_prev is what"),
        ({"start_std": -1.0}, "start_std >= 0, received 0.0 and -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            InjectionConfig(**changes)
    assert PotentialConfig().gradient == ImplicitGradient()


def test_so_many_passes_have_forces_of_a_head_too():
    model = original(forces="direct", force_head=True)
    assert model(molecule(), unrolled=2).forces.abs().max() > 0
