import re
from pathlib import Path

import pytest
import yaml

from equipoise.backbones.equiformer_v2_original import EquiformerV2OriginalConfig
from equipoise.deq import Broyden, Phantom, Picard
from equipoise.train import Recipe, load_recipe, make_recipe, recipe_keys, recipe_names
from equipoise.train.recipes import differences


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_are_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.output.folder == str(Path("runs") / name)


def test_overrides_are_applied_in_order() -> None:
    recipe = load_recipe(
        "quickstart",
        [
            "training.epochs=3",
            "training.epochs=7",
            "training.learning_rate=1e-3",
            "training.max_seconds=null",
            "training.betas=[0.8, 0.9]",
            "potential.backbone.channels=16",
        ],
    )
    assert recipe.training.epochs == 7
    assert recipe.training.learning_rate == 1e-3
    assert recipe.training.max_seconds is None
    assert recipe.training.betas == (0.8, 0.9)
    assert recipe.potential.backbone.channels == 16


def test_part_of_a_nested_section_keeps_its_other_defaults() -> None:
    default = Recipe().potential.training_solver
    recipe = make_recipe({})
    assert recipe == Recipe()
    changed = load_recipe("quickstart", ["potential.training_solver.tolerance=1e-5"])
    assert changed.potential.training_solver.max_passes == default.max_passes
    assert changed.potential.training_solver.tolerance == 1e-5


def test_another_choice_keeps_what_all_options_share_and_takes_its_own_defaults() -> None:
    default = Recipe().potential
    potential = load_recipe(
        "quickstart",
        [
            "potential.training_solver.tolerance=1e-5",
            "potential.training_solver.name=broyden",
            "potential.solver={name: picard, damping: 0.5, trajectory: [1, 2]}",
            "potential.gradient={name: phantom, steps: 3}",
        ],
    ).potential
    places = default.training_solver.max_passes, default.solver.max_passes
    assert potential.training_solver == Broyden(tolerance=1e-5, max_passes=places[0])
    assert potential.solver == Picard(max_passes=places[1], damping=0.5, trajectory=(1, 2))
    assert potential.gradient == Phantom(steps=3)
    assert potential.adjoint == default.adjoint
    # There and back again.
    names = [f"potential.solver.name={name}" for name in ("broyden", "anderson")]
    assert load_recipe("quickstart", names).potential.solver == default.solver


def test_another_backbone_takes_none_of_the_settings_of_the_one_before() -> None:
    potential = load_recipe(
        "quickstart",
        ["potential.backbone={name: equiformer_v2_original, lmax: 3, force_head: false}"],
    ).potential
    assert potential.backbone == EquiformerV2OriginalConfig(lmax=3, force_head=False)


def test_recipes_from_before_there_was_a_choice(tmp_path: Path) -> None:
    old = Recipe().model_dump(mode="json")
    for key in ("forces", "injection", "gradient"):
        del old["potential"][key]
    for settings in old["potential"].values():
        if isinstance(settings, dict):
            del settings["name"]
    assert make_recipe(old) == Recipe()


@pytest.mark.parametrize("change", ["solver.name=newton", "gradient={name: unrolled, passes: 4}"])
def test_choices_are_saved_by_name(change: str, tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", [f"potential.{change}"])
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    other = load_recipe("quickstart", ["output.folder=runs/quickstart"])
    found = "; ".join(differences(recipe, other))
    assert re.search(r"potential.(solver|gradient).name: (anderson|implicit) there", found)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epoch=3", r"unknown key 'epoch' in training; did you mean 'epochs'\?"),
        ("trainng.epochs=3", r"unknown key 'trainng' in the recipe; did you mean 'training'\?"),
        (
            "potential.backbone.chanels=3",
            r"unknown key 'chanels' in potential.backbone; did you mean 'channels'\?",
        ),
        ("potential.solver.windw=3", r"potential.solver; did you mean 'window'\?"),
        (
            "potential.solver.name=broydn",
            r"potential.solver.name must be one of anderson, broyden, newton, picard, received "
            r"'broydn'; did you mean 'broyden'\?",
        ),
        (
            "potential.solver={name: broyden, windw: 3}",
            r"unknown key 'windw' in potential.solver \(keys: tolerance",
        ),
        (
            "potential.training_solver={name: broyden, memroy: 3}",
            r"training_solver; did you mean 'memory'\? \(keys: tolerance, .* mixing\)",
        ),
        ("potential.solver={name: broyden, memory: 0}", r"potential.solver: memory must be >= 1"),
        (
            "potential.solver={name: picard, damping: x}",
            r"potential.solver.damping must be a valid",
        ),
        ("potential.solver=broyden", r"potential.solver must be .*mapping.*, received 'broyden'"),
        ("potential.backbone.name=equiformer_v3", r"did you mean 'equiformer_v2'\?"),
        ("potential.gradient.name=implict", r"did you mean 'implicit'\?"),
        ("potential.gradient.name=unrolled", r"potential.gradient.passes is missing"),
        ("potential.injection.norm=per_atm", r"injection.norm must be one of per_atom, none"),
        ("training.epochs.first=3", r"training.epochs must be a valid integer"),
        ("training.epochs=abc", r"training.epochs must be a valid integer, received 'abc'"),
        ("training.epochs=2.5", r"training.epochs must be a valid integer, received 2.5"),
        ("training.epochs=0", r"greater than or equal to 1, received 0"),
        ("training.loss=l3", r"must be 'l1', 'l2', 'l2mae' or 'huber', received 'l3'"),
        ("training.learning_rate=.inf", r"must be a finite number, received inf"),
        ("training.betas=[0.9]", r"training.betas.1 is missing"),
        ("training.betas=[0.9, 1.5]", r"betas must lie in \[0, 1\), received \[0.9, 1.5\]"),
        ("training=3", r"training must be a mapping of keys, received 3"),
        ("potential.kind=deep", r"kind must be 'equilibrium' or 'stacked', received 'deep'"),
        ("data.source=file", r"train must name a file"),
        ("training.huber_delta=3", r"huber_delta is only read when loss is huber, received 3.0"),
        ("data.train=a.xyz", r"train is only read when source is file, received 'a.xyz'"),
        ("training.epochs", r"must be written key=value, .* received 'training.epochs'"),
        ("=3", r"must be written key=value"),
        ("training.epochs={", r"the value of override 'training.epochs={' cannot be read"),
        ("training.epochs=${seven}", r"cannot be read: Interpolation key 'seven' not found"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(override: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_recipe("quickstart", [override])


def test_both_weights_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="must not all be 0"):
        load_recipe("quickstart", ["training.energy_weight=0", "training.force_weight=0"])


def test_unknown_recipes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown recipe 'quikstart'; did you mean 'quickstart'"):
        load_recipe("quikstart")
    with pytest.raises(ValueError, match="does not exist"):
        load_recipe(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    broken.write_text("training: {epochs: 3")
    with pytest.raises(ValueError, match="cannot be read"):
        load_recipe(broken)
    broken.write_bytes(b"training: {epochs: 3} # \xff\n")
    with pytest.raises(
        ValueError, match="must be text in UTF-8, received byte 0xff at position 24"
    ):
        load_recipe(broken)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is a folder without recipe.yaml"):
        load_recipe(tmp_path / "empty")
    broken.write_text("- training\n- data\n")
    with pytest.raises(ValueError, match="must be a mapping of sections"):
        load_recipe(broken)


def test_a_saved_recipe_is_the_same_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart", ["training.weight_decay=1e-5"])
    recipe.save(tmp_path / "recipe.yaml")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe
    assert load_recipe(tmp_path) == recipe  # a run folder stands for its recipe
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["training"]["seed"] == 0


def test_differences_name_both_values() -> None:
    other = load_recipe("quickstart", ["training.epochs=3", "training.threads=1"])
    ours = load_recipe("quickstart", ["training.epochs=4", "training.threads=2"])
    found = differences(ours, other, ignore=["training.threads"])
    assert found == ["training.epochs: 3 there, 4 here"]


def test_every_key_is_described() -> None:
    keys = {key: text for key, _, text in recipe_keys()}
    assert len(keys) > 40
    assert not [key for key, text in keys.items() if not text]
    assert keys["potential.backbone.hidden"].startswith("channels of a message")
    assert keys["potential.solver.name"].startswith("one of anderson, broyden, newton, picard")
    assert keys["potential.solver.tolerance"].startswith("residual (relative")
    assert keys["potential.solver.memory (broyden)"].startswith("rank-one terms")
    assert "potential.adjoint.memory (broyden)" not in keys  # once is enough
    assert "potential.backbone.gaussians (equiformer_v2_original)" in keys
    assert len(recipe_keys()) == len(keys)
