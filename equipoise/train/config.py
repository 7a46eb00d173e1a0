"""Recipes: everything that decides what a training run does, as one checked record.

A recipe has four sections; each key is described where it stands.

    data        which structures
    potential   which network
    training    how it is fitted
    output      where the run is kept
"""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from equipoise.data import SOURCES, find_variants
from equipoise.data.sources.division import USUAL_VALIDATION
from equipoise.potentials import PotentialConfig
from equipoise.train.schedule import Schedule, Weight


class Section(BaseModel):
    # strict: YAML already says 3, 3.0, "3" or true; turning one into another would hide
    # a slip of the pen. Unknown keys are errors in the nested dataclasses as well.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


_OF_FILES = ("train", "validation", "test", "energy_key", "forces_key", "stress_key")


class DataSection(Section):
    """Which structures are learned from, and which are only looked at."""

    source: Literal["file", *SOURCES] = Field(
        "rmd17",
        description="a published data set (`equipoise data list`); file: whatever `equipoise data stats` can read",
    )
    subset: str | None = Field(
        None,
        description="which part of a published data set, such as a molecule; several with commas between them, or all; empty: its "
        "default",
    )
    target: str | None = Field(
        None,
        description="which of several labels of a published data set is the energy; empty: the first",
    )
    molecule: str = Field("ethanol", description="rmd17 only: the subset, by its old name")
    split: int = Field(1, ge=1, le=5, description="rmd17 only: number of the official split")
    folder: str | None = Field(
        None,
        description="folder, or one file, of a published data set; empty: where `equipoise data download` puts it, and the ethanol "
        "that is shipped",
    )
    train: str | None = Field(None, description="file only: path of the training structures")
    validation: str | None = Field(
        None, description="file only: path of the validation structures; empty: taken from train"
    )
    test: str | None = Field(
        None, description="file only: path of the test structures; empty: no test"
    )
    train_count: int | None = Field(
        None, ge=1, description="structures to train on; empty: as published, or all that are left"
    )
    validation_count: int | None = Field(
        None,
        ge=1,
        description="structures taken from the training set to choose the best weights; empty: as is usual for the data set, 50 "
        "where nothing is",
    )
    test_count: int | None = Field(
        None, ge=1, description="structures to test with; empty: all that there are"
    )
    validation_seed: int = Field(
        0, ge=0, description="which structures these are; separate from training.seed on purpose"
    )
    seed: int = Field(
        0, ge=0, description="which structures test, where the data set has no official division"
    )
    energy_key: str | None = Field(
        None, description="file only: name of the energy label in eV; empty: REF_energy, energy"
    )
    forces_key: str | None = Field(
        None, description="file only: name of the force label in eV/A; empty: REF_forces, forces"
    )
    stress_key: str | None = Field(
        None,
        description="file only: name of the stress in eV/A^3; empty: REF_stress, stress, or none where energy_key or forces_key "
        "is another than these",
    )

    @model_validator(mode="before")
    @classmethod
    def _subset_of_rmd17_is_its_molecule(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("source", "rmd17") == "rmd17":
            if given.get("subset") and given.get("molecule", "ethanol") == "ethanol":
                return given | {"molecule": given["subset"]}
        return given

    @model_validator(mode="after")
    def _source_has_its_keys(self) -> "DataSection":
        if self.source == "file" and self.train is None:
            raise ValueError("train must name a file when source is file, received nothing")
        for key, when in self._unread().items():
            value, default = getattr(self, key), type(self).model_fields[key].default
            if value != default:
                raise ValueError(
                    f"{key} is only read {when}, received {value!r} with source {self.source}; {self._instead(key, default)}"
                )
        if self.source == "file" and self.validation is not None:
            if Path(self.validation).resolve() == Path(str(self.train)).resolve():
                raise ValueError(
                    f"validation must be other structures than train, received {self.validation} for both; leave validation out, "
                    "and validation_count of them are held out"
                )
        if self.source == "rmd17" and self.subset not in (None, self.molecule):
            raise ValueError(
                f"molecule and subset name the same thing, received {self.molecule!r} and {self.subset!r}; leave molecule out"
            )
        if self.source != "file":
            find_variants(SOURCES[self.source], self.chosen)
        return self

    def _unread(self) -> dict[str, str]:
        """Keys that nothing would read -> when they are read."""
        keys: dict[str, str] = {}
        if self.source == "file":
            keys |= dict.fromkeys(("subset", "target", "folder"), "of a published data set")
            if self.test is None:
                keys["test_count"] = "when test names a file"
            if self.validation is None or self.train_count is None:
                keys["seed"] = (
                    "when train_count of a file are drawn, with validation in a file of its own"
                )
        else:
            keys |= dict.fromkeys(_OF_FILES, "when source is file")
        if self.source != "rmd17":
            keys |= dict.fromkeys(("molecule", "split"), "when source is rmd17")
        elif self.test_count is None or self.is_one_molecule:
            keys["seed"] = "where test structures are drawn, and those of rmd17 are official"
        if self.validation is not None:
            keys["validation_seed"] = "without a validation file"
            # Recipes of the package say the usual number, which a file may replace.
            if self.validation_count not in (None, USUAL_VALIDATION):
                keys["validation_count"] = "without a validation file"
        return keys

    def _instead(self, key: str, default: Any) -> str:
        if self.source != "file" and key == "molecule":
            return f"write data.subset={self.molecule}"
        if self.source != "file" and key in _OF_FILES:
            return "add data.source=file"
        return f"leave it out, or set data.{key}={'null' if default is None else default}"

    @property
    def is_one_molecule(self) -> bool:
        """Whether this is one official split of revised MD17."""
        return self.source == "rmd17" and "," not in str(self.chosen) and self.chosen != "all"

    @property
    def chosen(self) -> str | None:
        """The subset, however it is given."""
        return self.subset or (self.molecule if self.source == "rmd17" else None)

    @property
    def title(self) -> str:
        """What is trained on, in a word: such as "md22:DHA", or the path of a file."""
        if self.source == "file":
            return str(self.train)
        return f"{self.source}:{self.chosen}" if self.chosen else self.source


class TrainingSection(Section):
    """How the potential is fitted."""

    epochs: int = Field(100, ge=1, description="passes over the training set")
    max_seconds: float | None = Field(
        None,
        gt=0,
        description="wall-clock budget: the learning rate reaches its end when the epochs or the "
        "seconds are used up, whichever is first. A restart is bit for bit the uninterrupted run "
        "only without a budget, because clocks do not repeat",
    )
    batch_size: int = Field(
        8, ge=1, description="structures per optimiser step, in all processes together"
    )
    max_edges: int | None = Field(
        None,
        ge=1,
        description="edges in the batch of one process, at most; for structures of different sizes, whose batches then take "
        "about the same time and memory. batch_size is the largest number of structures still",
    )
    prefetch: int = Field(
        0, ge=0, description="batches made ready in the background while the network learns"
    )
    optimiser: Literal["adamw", "muon"] = Field(
        "adamw",
        description="muon: matrices move along their orthogonalised momentum, all else as adamw does",
    )
    learning_rate: float = Field(2e-3, gt=0, description="largest learning rate")
    warmup: float = Field(
        0.05, ge=0, lt=1, description="fraction of the run over which the learning rate rises"
    )
    final: float = Field(
        0.0, ge=0, le=1, description="learning rate at the end, as a fraction of learning_rate"
    )
    weight_decay: float = Field(
        1e-3,
        ge=0,
        description="weight decay of the matrices; biases, norms, embeddings and the vectors that score attention are left "
        "alone",
    )
    betas: tuple[float, float] = Field(
        (0.9, 0.99),
        description="averaging coefficients of AdamW; the first is the momentum of muon",
    )
    rate_factors: dict[str, float] = Field(
        {},
        description="pattern of parameter names -> factor on their learning rate, the last pattern that matches counts; "
        '{"*": 0, "head.*": 1} trains the head only',
    )
    clip_norm: float = Field(
        10.0, gt=0, description="largest norm of the gradient; longer ones are shortened to it"
    )
    loss: Literal["l1", "l2", "l2mae", "huber"] = Field(
        "l2mae",
        description="l1: absolute errors; l2: squared errors; l2mae: absolute energy error and "
        "length of the force error of each atom; huber: l2 below huber_delta, l1 above",
    )
    huber_delta: float = Field(
        0.01, gt=0, description="huber only: where it turns from l2 to l1, eV/atom, eV/Å and eV/Å³"
    )
    energy_weight: Weight = Field(
        Schedule.constant(1.0),
        description="weight of the energy term (energy error per atom, eV/atom); like the other two a number, or one that "
        "changes over the run: {start: 1, end: 10, begin: 0.5, until: 1, shape: linear | cosine | step}",
    )
    force_weight: Weight = Field(
        Schedule.constant(10.0), description="weight of the force term (eV/Å)"
    )
    stress_weight: Weight = Field(
        Schedule.constant(0.0),
        description="weight of the stress term (eV/Å³); 0: stress labels are not trained on",
    )
    jacobian_weight: float = Field(
        0.0,
        ge=0,
        description="equilibrium only: weight of the Jacobian penalty, which keeps the fixed point easy to find",
    )
    jacobian_allowed: float = Field(
        0.0,
        ge=0,
        description="equilibrium only: contraction up to which the penalty is 0: depth that costs passes is left to the network",
    )
    jacobian_probability: float = Field(
        0.3,
        ge=0,
        le=1,
        description="equilibrium only: fraction of the steps in which the penalty is computed",
    )
    correction_weight: float = Field(
        0.0,
        ge=0,
        description="equilibrium only: weight of the fixed-point correction, the same loss at the states on the way to the fixed "
        "point that potential.training_solver.trajectory names, so that few passes already predict well",
    )
    correction_decay: float = Field(
        0.8, gt=0, le=1, description="factor by which each earlier state on the way counts less"
    )
    unrolled: float = Field(
        0.0,
        ge=0,
        le=1,
        description="equilibrium only: fraction of the run, from its beginning, in which the "
        "network is trained after a few passes from nothing, a random number of them, instead of at its fixed point. "
        "Several times faster per step, and the map learns to need few passes",
    )
    unrolled_odds: tuple[float, ...] = Field(
        (0.7, 0.2, 0.1),
        description="equilibrium only: odds of one, two, three, ... passes in these steps; [0, 0, 0, 1, 1] means four or five",
    )
    reuse_memory: float = Field(
        0.0,
        ge=0,
        description="equilibrium only: MiB of memory, and of the saved state, for the fixed points of training structures, which "
        "are the first guess when the structure comes again; 0: every solve begins from nothing",
    )
    ema_decay: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights, which is what is exported; it "
        "starts lower, min(ema_decay, (1 + n) / (10 + n)) after n steps",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="end the run after so many validations in a row without a better one; empty: never",
    )
    validate_every: float = Field(
        1.0, gt=0, description="epochs between validations; may be a fraction"
    )
    checkpoint_seconds: float = Field(
        60.0, ge=0, description="longest time between two savings of the resumable state"
    )
    max_bad_steps: int = Field(
        10, ge=1, description="stop after this many steps in a row with a loss that is not finite"
    )
    initial_model: str | None = Field(
        None,
        description="begin with the weights of this model: a file, a run folder, or a model that comes with the package. The "
        "section potential is then that of the model, where the recipe says nothing else",
    )
    reference_energies: Literal["keep", "refit"] = Field(
        "keep",
        description="with initial_model only: refit moves the energies of the elements so that the model is right on average "
        "for the new data, whose level of theory may be another",
    )
    seed: int = Field(0, ge=0, description="decides the initial weights and the order of the data")
    threads: int = Field(1, ge=1, description="CPU threads")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a CUDA device where there is one"
    )
    matmul: Literal["float32", "tf32"] = Field(
        "float32",
        description="CUDA only: tf32 multiplies single-precision matrices with 10 bits of mantissa, faster; an equilibrium then "
        "converges to some 1e-3 at best",
    )

    @model_validator(mode="after")
    def _something_is_learned(self) -> "TrainingSection":
        if not any(w.largest for w in (self.energy_weight, self.force_weight, self.stress_weight)):
            raise ValueError(
                "energy_weight, force_weight and stress_weight must not all be 0, received 0, 0 and 0"
            )
        if (
            self.loss != "huber"
            and self.huber_delta != type(self).model_fields["huber_delta"].default
        ):
            raise ValueError(
                f"huber_delta is only read when loss is huber, received {self.huber_delta} with loss {self.loss}; add "
                "training.loss=huber"
            )
        for beta in self.betas:
            if not 0 <= beta < 1:
                raise ValueError(f"betas must lie in [0, 1), received {list(self.betas)}")
        if min(self.unrolled_odds, default=0) < 0 or sum(self.unrolled_odds) <= 0:
            raise ValueError(
                "unrolled_odds must be >= 0 and not all 0, with one number for each number of passes, "
                f"received {list(self.unrolled_odds)}"
            )
        for pattern, factor in self.rate_factors.items():
            if factor < 0:
                raise ValueError(f"rate_factors must be >= 0, received {factor} for {pattern!r}")
        return self


class OutputSection(Section):
    """Where the run is kept."""

    folder: str | None = Field(None, description="run folder; empty: runs/ and the recipe's name")
    wandb: str | None = Field(
        None,
        description="also log to this project of Weights & Biases (package wandb; WANDB_MODE=offline in the environment keeps "
        "it on this machine); empty: log.csv and TensorBoard only",
    )


class Recipe(Section):
    """A whole training run: see the module."""

    data: DataSection = Field(DataSection(), description="which structures")
    potential: PotentialConfig = Field(PotentialConfig(), description="which network")
    training: TrainingSection = Field(TrainingSection(), description="how it is fitted")
    output: OutputSection = Field(OutputSection(), description="where the run is kept")

    @model_validator(mode="after")
    def _training_suits_potential(self) -> "Recipe":
        potential, training = self.potential, self.training
        if training.correction_weight > 0 and not (
            potential.kind == "equilibrium" and potential.training_solver.trajectory
        ):
            raise ValueError(
                "training.correction_weight needs an equilibrium that keeps states on the way, such as those after two and four "
                "passes: potential.training_solver.trajectory=[2, 4]"
            )
        if training.stress_weight.largest > 0 and potential.forces == "direct":
            raise ValueError(
                "training.stress_weight must be 0 with potential.forces=direct, which have no stress, received "
                f"{training.stress_weight.largest}"
            )
        return self

    def save(self, path: Path) -> None:
        """Write all keys, defaults included, as YAML that `load_recipe` reads back."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        path.write_text(text, encoding="utf-8")
