"""Whether models are measured on structures that they have learned from."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from equipoise.cli.app import say
from equipoise.cli.labelled import Labelled, trained_on
from equipoise.data import SOURCES, find_variants
from equipoise.graph import Graph
from equipoise.train import DataSection, read_datasets
from equipoise.train.identity import Identity

LARGEST_FILE = 50e6  # bytes, of what is read again for this: about ten seconds


def warn_of_overlap(files: Mapping[str, str], test: Labelled, graphs: Sequence[Graph]) -> None:
    """Say of each model how many of the structures it is measured on are in its training set.

    Where its training set is not there any more, or takes long to read, its recipe is compared with that of the test structures.

    Args:
      files: name of a model -> its file.
      test: what the structures are.
      graphs: the structures.
    """
    sections = {name: section for name, file in files.items() if (section := trained_on(file))}
    tested = Identity.of(graphs) if sections else None
    learned: dict[DataSection, Identity | None] = {}
    for name, section in sections.items():
        if section not in learned:
            learned[section] = _learned(section, test.section)
        theirs = learned[section]
        if theirs is None or tested.geometries is None:
            text = _by_recipe(name, section, test)
        else:
            found = tested.shared(theirs)
            text = f"{found} of {len(graphs)} test structures are in the training set of {name}, whose errors look too small"
            text = text if found else ""
        if text:
            say(f"warning: {text}", style="yellow")


def _learned(section: DataSection, test: DataSection | None) -> Identity | None:
    """The training set of a recipe; None where it is no longer there, or takes long to read."""
    moved = section.folder is None or not Path(section.folder).exists()
    if test is not None and test.source == section.source and moved:
        section = section.model_copy(update={"folder": test.folder})
    try:
        if section.source == "file" and Path(str(section.train)).stat().st_size > LARGEST_FILE:
            return None
        with warnings.catch_warnings(action="ignore"):  # they were said when it was trained
            # No edges are made within this cutoff.
            found = Identity.of(read_datasets(section, cutoff=0.1, test=False).train)
    except (OSError, ValueError):
        return None
    return found if found.geometries is not None else None


def _by_recipe(name: str, section: DataSection, test: Labelled) -> str:
    """What the recipe of a model says against the test structures; empty if nothing."""
    if section.source == "file":
        same = test.file is not None and Path(str(section.train)).resolve() == test.file.resolve()
        return (
            f"{test.name} is what {name} learned from: its errors there say little" if same else ""
        )
    if test.section is None or section.source != test.section.source:
        return ""
    both = (section, test.section)
    ours, theirs = ({v.name for v in find_variants(SOURCES[s.source], s.chosen)} for s in both)
    drawn = ("seed", "train_count", "validation_count", "test_count")
    keys = ("split",) if section.source == "rmd17" else drawn
    differ = [key for key in keys if getattr(section, key) != getattr(test.section, key)]
    if not differ or not ours & theirs:
        return ""
    here, there = (", ".join(f"data.{key}={getattr(s, key)}" for key in differ) for s in both)
    return (
        f"{name} was trained on {section.title} with {here} and is measured on the test structures of {test.name} with {there}: it "
        "may have learned from some of them"
    )
