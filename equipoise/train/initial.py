"""Beginning with the weights of a model that is there already: fine-tuning, and conservative after direct forces."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from equipoise.data import Loader
from equipoise.graph import Graph
from equipoise.potentials import Potential, PotentialConfig, Statistics, build, load
from equipoise.train.config import Recipe, TrainingSection

# What may differ between the networks of a model and of one that begins with its weights; how they are solved, differentiated
# and asked for forces may differ anyway.
FREE = (
    "backbone.force_head",
    "backbone.alpha_drop",
    "backbone.path_drop",
    "backbone.projection_drop",
    "injection.start",
    "injection.start_mean",
    "injection.start_std",
)
FORCE_HEAD = "backbone.force."  # may be left behind, or begin afresh


def make_potential(recipe: Recipe, own: Statistics, graphs: Sequence[Graph]) -> Potential:
    """The network that a new run trains: with random weights, or those of `training.initial_model`.

    Args:
      own: statistics of the training set `graphs`.

    Raises:
      FileNotFoundError, ValueError: if there is no such model, it is another network, or knows too few elements.
    """
    settings = recipe.training
    if settings.initial_model is None:
        return build(recipe.potential, own, seed=settings.seed)
    initial = initial_potential(settings, recipe.potential)
    statistics = initial_statistics(initial, own, graphs, settings)
    potential = build(recipe.potential, statistics, seed=settings.seed)
    take_weights(potential, initial)
    return potential


def initial_potential(settings: TrainingSection, config: PotentialConfig) -> Potential:
    """The model that `training.initial_model` names, checked to be of the network that is to be trained.

    Raises:
      FileNotFoundError, ValueError: if there is no such model, or it is another network.
    """
    assert settings.initial_model is not None
    initial = load(settings.initial_model, dtype=config.dtype)
    ours, theirs = dict(_flat(config)), dict(_flat(initial.config))
    different = [
        f"potential.{key}: {theirs.get(key)} there, {value} here"
        for key, value in ours.items()
        if key.split(".")[0] in ("kind", "backbone", "injection")
        and key not in FREE
        and theirs.get(key) != value
    ]
    if type(initial.config.backbone) is not type(config.backbone):
        different = [f"the backbone {initial.family.name}"]
    if different:
        raise ValueError(
            f"training.initial_model must be a model of the network that the recipe describes, received {settings.initial_model} "
            f"with {'; '.join(different)}. Leave the section potential out of the recipe: then it is that of the model"
        )
    return initial


def initial_statistics(
    initial: Potential, own: Statistics, graphs: Sequence[Graph], settings: TrainingSection
) -> Statistics:
    """Statistics of a potential that begins with the weights of another: those of the other, whose weights know no others.

    With ``reference_energies: refit`` the energies of the elements are moved so that the *model* is right on average for the new
    data, whose level of theory may be another:

      δ = argmin Σ_s (E_s - E_model,s - Σ_Z n_sZ δ_Z)²,  ε_Z ← ε_Z + δ_Z

    of minimum norm where compositions do not determine it.

    Args:
      initial: the model to begin with.
      own: statistics of the new data; their elements must be among those of the model.
      graphs: the new data. To refit, each is predicted once.

    Raises:
      ValueError: for elements that the model does not know.
    """
    strangers = sorted(set(own.elements) - set(initial.elements))
    if strangers:
        raise ValueError(
            f"training.initial_model {settings.initial_model} knows the elements {list(initial.elements)} only, but the training "
            f"set has atomic numbers {strangers}, for which it has no weights; leave those structures out, or train from scratch"
        )
    if settings.reference_energies == "keep":
        return initial.statistics
    counts, errors = [], []
    elements = torch.tensor(initial.elements)
    for graph in Loader(graphs, batch_size=settings.batch_size, shuffle=False).epoch(0):
        if graph.energy is None:
            continue
        known = ~graph.energy.isnan()
        with torch.no_grad():
            predicted = initial(graph, forces=False, unconverged="accept").energy.cpu()
        onehot = (graph.species[:, None] == elements).double()
        composition = torch.zeros(graph.n_structures, len(elements), dtype=torch.float64)
        counts.append(composition.index_add_(0, graph.owner, onehot)[known].numpy())
        errors.append((graph.energy - predicted)[known].numpy())
    if not errors:
        return initial.statistics
    shift = np.linalg.lstsq(np.concatenate(counts), np.concatenate(errors), rcond=None)[0]
    before = initial.statistics.reference_energies
    moved = tuple(float(e + d) for e, d in zip(before, shift, strict=True))
    return dataclasses.replace(initial.statistics, reference_energies=moved)


def take_weights(potential: Potential, initial: Potential) -> None:
    """Copy the weights of `initial`; a force head that only one of the two has is left behind, or begins afresh."""
    weights = initial.state_dict()
    kept = {k: v for k, v in weights.items() if k in potential.state_dict()}
    result = potential.load_state_dict(kept, strict=False)
    odd = [*result.missing_keys, *(weights.keys() - kept.keys())]
    if any(not name.startswith(FORCE_HEAD) for name in odd):
        raise ValueError(
            f"the initial model must have the weights of the network to be trained, received others: {sorted(odd)[:3]} ..."
        )


def _flat(record: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The fields of nested settings, with their paths in a recipe."""
    plain = dataclasses.asdict(record) if dataclasses.is_dataclass(record) else record
    for name, value in plain.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
