"""Several potentials on the same structures, and whether their differences mean anything."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from equipoise.train.bootstrap import Bootstrap, Difference
from equipoise.train.evaluate import Evaluation
from equipoise.train.outcomes import Outcomes
from equipoise.train.state import make_folder, write_atomically


@dataclass(frozen=True, eq=False)
class Comparison:
    """Evaluations of several potentials on the same structures.

    Attributes:
      evaluations: by name of the potential; the first is what the others are compared with.
      differences: name -> error -> by how much it is larger than that of the first; None where there is none.
      bootstrap: how the intervals were found.
    """

    evaluations: dict[str, Evaluation]
    differences: dict[str, dict[str, Difference | None]]
    bootstrap: Bootstrap

    @property
    def first(self) -> str:
        return next(iter(self.evaluations))

    def as_dict(self, records: Mapping[str, dict[str, object]], *, data: str) -> dict[str, object]:
        """The numbers, as they stand in `comparison.json`.

        Args:
          records: of every evaluation, `Evaluation.as_dict`.
          data: what the structures are called.
        """
        return {
            "data": data,
            "structures": self.evaluations[self.first].structures,
            "bootstrap": asdict(self.bootstrap),
            "models": {name: records[name] for name in self.evaluations},
            "reference": self.first,
            "differences": {
                name: {error: _plain(each) for error, each in found.items()}
                for name, found in self.differences.items()
            },
        }


def compare(
    evaluations: Mapping[str, Evaluation], *, bootstrap: Bootstrap | None = None
) -> Comparison:
    """Errors of each potential minus those of the first, with intervals of the differences.

    The same structures are drawn for both, so what makes a structure hard for both cancels: two potentials whose own intervals
    overlap may well differ with certainty. A difference says which of *these two sets of weights* is better on structures of this
    kind, not which architecture or recipe: train each with several seeds to learn that.

    Args:
      evaluations: at least two, by name.
      bootstrap: how structures are drawn.

    Raises:
      ValueError: if they are not of the same structures with the same labels.
    """
    if len(evaluations) < 2:
        raise ValueError(f"a comparison needs at least two potentials, received {len(evaluations)}")
    bootstrap = Bootstrap() if bootstrap is None else bootstrap
    (name, first), *others = evaluations.items()
    differences = {}
    for other_name, other in others:
        _check_same(first.outcomes, other.outcomes, (name, other_name))
        differences[other_name] = bootstrap.differences(first.outcomes.sums, other.outcomes.sums)
    return Comparison(dict(evaluations), differences, bootstrap)


def write_comparison(folder: Path, record: dict[str, object]) -> None:
    """Write `comparison.json` into `folder`.

    Raises:
      SavingError: (an `OSError`) if the disk refuses.
    """
    make_folder(folder)
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    write_atomically(folder / "comparison.json", lambda partial: partial.write_text(text))


def _check_same(first: Outcomes, other: Outcomes, names: tuple[str, str]) -> None:
    if len(first) != len(other):
        raise ValueError(
            f"potentials are compared on the same structures, received {len(first)} for {names[0]} and {len(other)} for {names[1]}"
        )
    # Errors of a potential that predicts no forces at all are the labels; so two sets of forces that differ show there.
    pairs = (
        ("atoms", first.atoms, other.atoms),
        ("energy", first.energy_true, other.energy_true),
        ("forces", first.mean_sums[:, 5:8], other.mean_sums[:, 5:8]),
    )
    for what, ours, theirs in pairs:
        same = np.isclose(ours, theirs, rtol=1e-9, atol=1e-9, equal_nan=True)
        if not same.all():
            index = int(np.argwhere(~same)[0, 0])
            raise ValueError(
                f"potentials are compared on the same structures and labels, but the {what} of structure {index} for {names[0]} "
                f"and {names[1]} are not the same: {np.ravel(ours[index])[-1]:.9g} and {np.ravel(theirs[index])[-1]:.9g}"
            )


def _plain(difference: Difference | None) -> dict[str, object] | None:
    return None if difference is None else asdict(difference) | {"certain": difference.certain}
