"""Fitting potentials to data: recipes, the loop, and how good the result is."""

from equipoise.train.config import (
    DataSection,
    OutputSection,
    Recipe,
    TrainingSection,
)
from equipoise.train.datasets import Datasets, read_datasets, read_test, training_statistics
from equipoise.train.evaluate import Evaluation, evaluate
from equipoise.train.loop import FitResult, TrainingError, fit
from equipoise.train.loss import Loss
from equipoise.train.metrics import Errors
from equipoise.train.recipes import load_recipe, make_recipe, recipe_keys, recipe_names
from equipoise.train.state import SavingError

__all__ = [
    "DataSection",
    "Datasets",
    "Errors",
    "Evaluation",
    "FitResult",
    "Loss",
    "OutputSection",
    "Recipe",
    "SavingError",
    "TrainingError",
    "TrainingSection",
    "evaluate",
    "fit",
    "load_recipe",
    "make_recipe",
    "read_datasets",
    "read_test",
    "recipe_keys",
    "recipe_names",
    "training_statistics",
]
