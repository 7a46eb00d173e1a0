"""The recipes after the DEQ research code: each loads, builds, and learns for two steps."""

import pytest
import torch

from equipoise.data import rmd17
from equipoise.graph import Graph, batch
from equipoise.potentials import Statistics, build
from equipoise.train import Recipe, load_recipe, recipe_names
from equipoise.train.datasets import training_statistics
from equipoise.train.optimiser import build_optimiser
from equipoise.train.step import loss_at

RECIPES = [name for name in recipe_names() if "equiformer-v2" in name]
# What the comments of the recipes offer.
AS_PUBLISHED = {
    "deq-equiformer-v2-halftiny": [
        "potential.forces=direct",
        "potential.backbone.force_head=true",
        "potential.gradient.name=phantom",
        "potential.injection.norm=batch_global_prev",
        "training.batch_size=1",
        "potential.solver.tolerance=1e-3",
    ],
    "deq-equiformer-v2-apln": ["potential.forces=direct", "potential.backbone.force_head=true"],
    "stacked-equiformer-v2-original": [
        "potential.forces=direct",
        "potential.backbone.force_head=true",
    ],
}
VARIANTS = {
    "two blocks": ["potential.backbone.layers=2"],
    "broyden": ["potential.training_solver.name=broyden"],
    "no norm": ["potential.injection.norm=none"],
    "unrolled": ["potential.gradient={name: unrolled, passes: 3}"],
}
REDUCED = [
    f"potential.backbone.{key}={value}"
    for key, value in {
        "channels": 8,
        "lmax": 2,
        "heads": 2,
        "hidden": 4,
        "alpha_channels": 4,
        "value_channels": 2,
        "ffn": 8,
        "edge_channels": 8,
        "grid": 8,
        "gaussians": 32,
    }.items()
]
CASES = [
    *[(name, []) for name in RECIPES],
    *AS_PUBLISHED.items(),
    ("deq-equiformer-v2-halftiny", VARIANTS["two blocks"]),
    ("deq-equiformer-v2-halftiny", VARIANTS["broyden"]),
    ("deq-equiformer-v2-apln", VARIANTS["no norm"]),
    ("deq-equiformer-v2-apln", VARIANTS["unrolled"]),
]


STATISTICS = Statistics((1, 6, 8), (-13.6, -1029.2, -2041.8), 1.2, 8.0, 9.0)


@pytest.fixture(scope="module")
def graphs() -> list[Graph]:
    """All the recipes have the same cutoff."""
    cutoffs = {load_recipe(name).potential.backbone.cutoff for name in RECIPES}
    return rmd17("ethanol", cutoff=cutoffs.pop()).train[:4]


def count(recipe: Recipe) -> int:
    made = build(recipe.potential, STATISTICS)
    return sum(parameter.numel() for parameter in made.parameters())


@pytest.mark.parametrize(("name", "changes"), CASES, ids=str)
def test_two_steps(name: str, changes: list[str], graphs: list[Graph]) -> None:
    recipe = load_recipe(name, [*REDUCED, *changes])
    settings = recipe.training
    potential = build(recipe.potential, training_statistics(graphs), seed=0).train()
    optimiser = build_optimiser(potential, settings)
    loss_of = loss_at(settings, 0.0)
    before = {key: weight.detach().clone() for key, weight in potential.named_parameters()}
    size = min(settings.batch_size, 2)
    for step in range(2):
        graph = batch(graphs[step * size : (step + 1) * size])
        optimiser.zero_grad()
        prediction = potential(graph, unconverged="accept")
        assert prediction.forces is not None
        assert prediction.conservative == (recipe.potential.forces == "gradient")
        loss = loss_of(prediction, graph)
        loss.backward()
        assert torch.isfinite(loss)
        optimiser.step()
    after = dict(potential.named_parameters())
    assert all(torch.isfinite(weight).all() for weight in after.values())
    # Not all: of the network that makes energies, only what l = 0 sees takes part.
    learned = {key for key, weight in after.items() if not torch.equal(weight, before[key])}
    assert len(learned) > 0.8 * len(after)
    assert {"backbone.elements.weight", "backbone.blocks.0.attention.out.weight"} < learned
    predicted = potential.eval()(graph, unconverged="accept")
    assert torch.isfinite(predicted.energy).all() and torch.isfinite(predicted.forces).all()


def test_sizes_are_those_of_the_publication() -> None:
    name = "deq-equiformer-v2-halftiny"
    published = AS_PUBLISHED[name]
    assert count(load_recipe(name, published)) == 672_498
    assert count(load_recipe(name, [*published, *VARIANTS["two blocks"]])) == 1_007_026
    assert count(load_recipe(name, [*published, "potential.injection.kind=cat"])) == 917_234
    stacked = "stacked-equiformer-v2-original"
    assert count(load_recipe(stacked, AS_PUBLISHED[stacked])) == 1_667_058


def test_there_are_recipes_to_test() -> None:
    assert len(RECIPES) == 4 and set(AS_PUBLISHED) < set(RECIPES)
