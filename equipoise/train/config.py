"""Recipes: everything that decides what a training run does, as one checked record.

A recipe has four sections; each key is described where it stands.

    data        which structures
    potential   which network
    training    how it is fitted
    output      where the run is kept
"""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from equipoise.potentials import PotentialConfig


class Section(BaseModel):
    # strict: YAML already says 3, 3.0, "3" or true; turning one into another would hide
    # a slip of the pen. Unknown keys are errors in the nested dataclasses as well.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataSection(Section):
    """Which structures are learned from, and which are only looked at."""

    source: Literal["rmd17", "file"] = Field(
        "rmd17", description="rmd17: the revised MD17 set; file: any file that ASE can read"
    )
    molecule: str = Field("ethanol", description="rmd17 only: name of the molecule")
    split: int = Field(1, ge=1, le=5, description="rmd17 only: number of the official split")
    folder: str | None = Field(
        None, description="rmd17 only: folder of the official files; empty: the shipped ethanol"
    )
    train: str | None = Field(None, description="file only: path of the training structures")
    validation: str | None = Field(
        None, description="file only: path of the validation structures; empty: taken from train"
    )
    test: str | None = Field(
        None, description="file only: path of the test structures; empty: no test"
    )
    validation_count: int = Field(
        50, ge=1, description="structures taken from the training set to choose the best weights"
    )
    validation_seed: int = Field(
        0, ge=0, description="which structures these are; separate from training.seed on purpose"
    )
    energy_key: str | None = Field(
        None, description="file only: name of the energy label in eV; empty: REF_energy, energy"
    )
    forces_key: str | None = Field(
        None, description="file only: name of the force label in eV/A; empty: REF_forces, forces"
    )

    @model_validator(mode="after")
    def _source_has_its_keys(self) -> "DataSection":
        if self.source == "file" and self.train is None:
            raise ValueError("train must name a file when source is file, received nothing")
        for key in ("train", "validation", "test", "energy_key", "forces_key"):
            if self.source == "rmd17" and getattr(self, key) is not None:
                raise ValueError(
                    f"{key} is only read when source is file, received {getattr(self, key)!r} "
                    "with source rmd17; add data.source=file"
                )
        return self


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
    batch_size: int = Field(8, ge=1, description="structures per optimiser step")
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
        description="AdamW weight decay of the matrices; biases, norms, embeddings and the "
        "vectors that score attention are left alone",
    )
    betas: tuple[float, float] = Field((0.9, 0.99), description="AdamW averaging coefficients")
    clip_norm: float = Field(
        10.0, gt=0, description="largest norm of the gradient; longer ones are shortened to it"
    )
    loss: Literal["l1", "l2", "l2mae", "huber"] = Field(
        "l2mae",
        description="l1: absolute errors; l2: squared errors; l2mae: absolute energy error and "
        "length of the force error of each atom; huber: l2 below huber_delta, l1 above",
    )
    huber_delta: float = Field(
        0.01, gt=0, description="huber only: where it turns from l2 to l1, eV/atom and eV/A"
    )
    energy_weight: float = Field(
        1.0, ge=0, description="weight of the energy term (energy error per atom, eV/atom)"
    )
    force_weight: float = Field(10.0, ge=0, description="weight of the force term (eV/A)")
    jacobian_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the Jacobian penalty, which keeps the fixed point easy to find",
    )
    jacobian_probability: float = Field(
        0.3, ge=0, le=1, description="fraction of the steps in which the penalty is computed"
    )
    unrolled: float = Field(
        0.0,
        ge=0,
        le=1,
        description="equilibrium only: fraction of the run, from its beginning, in which the "
        "network is trained after one to three passes from nothing instead of at its fixed point. "
        "Several times faster per step, and the map learns to need few passes",
    )
    ema_decay: float = Field(
        0.999,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights, which is what is exported; it "
        "starts lower, min(ema_decay, (1 + n) / (10 + n)) after n steps",
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
    seed: int = Field(0, ge=0, description="decides the initial weights and the order of the data")
    threads: int = Field(1, ge=1, description="CPU threads")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a CUDA device where there is one"
    )

    @model_validator(mode="after")
    def _something_is_learned(self) -> "TrainingSection":
        if self.energy_weight == 0 and self.force_weight == 0:
            raise ValueError("energy_weight and force_weight must not both be 0, received 0 and 0")
        for beta in self.betas:
            if not 0 <= beta < 1:
                raise ValueError(f"betas must lie in [0, 1), received {list(self.betas)}")
        return self


class OutputSection(Section):
    """Where the run is kept."""

    folder: str | None = Field(None, description="run folder; empty: runs/ and the recipe's name")


class Recipe(Section):
    """A whole training run: see the module."""

    data: DataSection = Field(DataSection(), description="which structures")
    potential: PotentialConfig = Field(PotentialConfig(), description="which network")
    training: TrainingSection = Field(TrainingSection(), description="how it is fitted")
    output: OutputSection = Field(OutputSection(), description="where the run is kept")

    def save(self, path: Path) -> None:
        """Write all keys, defaults included, as YAML that `load_recipe` reads back."""
        text = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
        path.write_text(text, encoding="utf-8")
