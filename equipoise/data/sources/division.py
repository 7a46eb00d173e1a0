"""Who trains, who validates, who tests: official divisions kept, the others drawn."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from equipoise.data.sources.record import Parts
from equipoise.data.split import split
from equipoise.data.structures import Subset
from equipoise.graph import Graph

USUAL_VALIDATION = 50  # structures, where neither the files, nor their authors, nor the caller say


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many structures of a data set are wanted for what, and which.

    Attributes:
      train: training structures; None for all that are to be learned from, or the published number, less those that validate.
      validation: structures to choose the best weights with; None for all of the official ones, or as many as is usual for the
        data set (50 where nothing is) of those to learn from.
      test: None for all of the official ones, or for all that are left.
      seed: which structures test, where that is not official; which of them, where ``test`` takes only some.
      validation_seed: which of the structures to learn from validate, where that is not official; the others train.
    """

    train: int | None = None
    validation: int | None = None
    test: int | None = None
    seed: int = 0
    validation_seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("train", 1), ("validation", 1), ("test", 0)):
            count = getattr(self, name)
            if count is not None and count < least:
                raise ValueError(f"{name}_count must be at least {least}, received {count}")


def divide(
    parts: Parts, counts: Counts, *, training: int, where: str, validation: int = 0
) -> tuple[Sequence[Graph], Sequence[Graph], Sequence[Graph]]:
    """Training, validation and test structures of one data set.

    1. Without official test structures, those to learn from are drawn from all there are (``seed``); the rest tests.
    2. Without official validation structures, they are drawn from those to learn from (``validation_seed``).
    3. If fewer were asked for, what is left of each is cut down, in its random order.

    So the test structures do not depend on ``validation_seed``, and a smaller training set is a part of a larger one.

    Args:
      parts: what the files hold.
      counts: what is wanted.
      training: the published number of structures to learn from, those included that validate; 0 if there is none.
      where: what to call the data set in messages.
      validation: the usual number of structures that validate, of which one in ten that there are is the most; 0 if there is none.

    Raises:
      ValueError: more structures asked for than there are.
    """
    learn, test, groups = parts.train, parts.test, parts.groups
    held = 0 if parts.validation is not None else _held(len(learn), counts, validation)
    if test is None:
        number = _to_learn_from(len(learn), counts, held, training, where)
        drawn = split(learn, train=number, validation=0, seed=counts.seed, groups=groups)
        groups = None if groups is None else _groups_of(drawn.train, groups)
        learn, test = drawn.train, drawn.rest
    if len(learn) <= held:
        raise ValueError(
            f"validation_count must be less than the {len(learn)} structures there are, received {held} ({where})"
        )
    number = len(learn) - held
    if groups is not None and counts.train is not None:
        number = min(number, counts.train)  # cut by whole groups, not afterwards
    drawn = split(learn, train=number, validation=held, seed=counts.validation_seed, groups=groups)
    if parts.validation is None:
        chooses = drawn.validation
    else:
        chooses = _cut("validation", parts.validation, counts.validation, where)
    if groups is None:
        train = _cut("train", drawn.train, counts.train, where)
    elif counts.train is None:  # groups that fitted into neither part
        train = _together(drawn.train, drawn.rest)
    else:
        train = drawn.train
    if counts.test is not None and parts.test is not None and counts.test < len(test):
        test = split(test, train=max(counts.test, 1), validation=0, seed=counts.seed).train
    return train, chooses, _cut("test", test, counts.test, where)


def _held(there: int, counts: Counts, usual: int) -> int:
    """How many structures validate that are taken from those to learn from."""
    if counts.validation is not None:
        return counts.validation
    return max(min(usual, there // 10), 1) if usual else USUAL_VALIDATION


def _to_learn_from(there: int, counts: Counts, held: int, training: int, where: str) -> int:
    if counts.train is not None:
        number = counts.train + held
    else:  # as published; of what is too small for that, nine in ten
        number = training if 0 < training < there else there * 9 // 10
        number = min(number, there - (counts.test or 0))
    if number > there or number < 1:
        raise ValueError(
            f"{where} has {there:,} structures, which must be enough for {counts.train or 'some'} to train, {held} to validate and "
            f"{counts.test or 'some'} to test; ask for fewer"
        )
    return number


def _cut(name: str, graphs: Sequence[Graph], count: int | None, where: str) -> Sequence[Graph]:
    if count is None:
        return graphs
    if count > len(graphs):
        raise ValueError(
            f"{name}_count must be at most {len(graphs)}, which is what is left for it of {where}; received {count}"
        )
    return graphs[:count]


def _groups_of(drawn: Sequence[Graph], groups: Sequence[Hashable]) -> list[Hashable]:
    """The groups of the structures that were drawn."""
    assert isinstance(drawn, Subset), "data sets with groups are not kept in memory"
    return [groups[row] for row in drawn.rows.tolist()]


def _together(*drawn: Sequence[Graph]) -> Subset:
    """Subsets of one data set as one."""
    return Subset(drawn[0].graphs, np.concatenate([part.rows for part in drawn]))
