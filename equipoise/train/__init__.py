"""Fitting potentials to data: recipes, the loop, and how good the result is."""

from equipoise.train.bootstrap import Bootstrap, Difference, Interval
from equipoise.train.compare import Comparison, compare, write_comparison
from equipoise.train.config import (
    DataSection,
    OutputSection,
    Recipe,
    TrainingSection,
)
from equipoise.train.datasets import Datasets, read_datasets, read_test, training_statistics
from equipoise.train.evaluate import Evaluation, evaluate
from equipoise.train.examine import Examination, examine
from equipoise.train.loop import fit
from equipoise.train.loss import Loss
from equipoise.train.metrics import Errors, Tally
from equipoise.train.processes import ProcessError, Processes, join_processes, speaks
from equipoise.train.recipes import load_recipe, make_recipe, recipe_keys, recipe_names
from equipoise.train.result import FitResult, TrainingError
from equipoise.train.schedule import Schedule
from equipoise.train.state import SavingError
from equipoise.train.worst import save_worst

__all__ = [
    "Bootstrap",
    "Comparison",
    "DataSection",
    "Datasets",
    "Difference",
    "Errors",
    "Evaluation",
    "Examination",
    "FitResult",
    "Interval",
    "Loss",
    "OutputSection",
    "ProcessError",
    "Processes",
    "Recipe",
    "SavingError",
    "Schedule",
    "Tally",
    "TrainingError",
    "TrainingSection",
    "compare",
    "evaluate",
    "examine",
    "fit",
    "join_processes",
    "load_recipe",
    "make_recipe",
    "read_datasets",
    "read_test",
    "recipe_keys",
    "recipe_names",
    "speaks",
    "save_worst",
    "training_statistics",
    "write_comparison",
]
