"""The potentials that come with the package, each with a card that says what it is good for."""

import difflib
import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ZOO = Path(__file__).resolve().parent.parent / "zoo"


@dataclass(frozen=True)
class Card:
    """What one should know before using a potential of the zoo.

    Attributes:
      name: under which :func:`equipoise.load` finds it.
      aliases: shorter names for the same.
      system: what it can be used for, in a few words.
      trained_on: data set, split and number of structures.
      theory: level of the labels.
      licence: of the data, hence of the weights.
      command: what trained it, and seconds how long that took on `hardware`.
      seed: of weights and batches; the rest of the recipe is in the header of the file.
      test: what was measured, as `evaluation.json` has it (energies in meV, forces in meV/Å).
      limits: what it cannot do, one sentence each.
      sha256: of the file.
    """

    name: str
    aliases: tuple[str, ...]
    system: str
    trained_on: str
    theory: str
    licence: str
    command: str
    seconds: float
    hardware: str
    seed: int
    test: dict[str, Any]
    limits: tuple[str, ...]
    sha256: str

    @property
    def file(self) -> Path:
        return ZOO / f"{self.name}.safetensors"


@cache
def cards() -> dict[str, Card]:
    """The cards of all potentials that come with the package, by name."""
    found = {}
    for path in sorted(ZOO.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for key in ("aliases", "limits"):
            record[key] = tuple(record[key])
        found[path.stem] = Card(**record)
    return found


def zoo() -> list[str]:
    """Names of the models that come with the package."""
    return list(cards())


def card(name: str) -> Card:
    """The card of a potential, by its name or an alias.

    Raises:
      KeyError: if there is no such potential.
    """
    for each in cards().values():
        if name in (each.name, *each.aliases):
            return each
    known = [name for each in cards().values() for name in (each.name, *each.aliases)]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise KeyError(
        f"no model of that name comes with equipoise ({hint}there are: {', '.join(zoo())})"
    )


def shipped(name: str) -> Path:
    """The file of a potential of the zoo, after its checksum has been compared.

    Raises:
      KeyError: if there is no such potential.
      ValueError: if the file is not what was shipped.
    """
    found = card(name)
    received = hashlib.sha256(found.file.read_bytes()).hexdigest()
    if received != found.sha256:
        raise ValueError(
            f"{found.file} is not the file that was shipped: its sha256 is {received}, the card says {found.sha256}; "
            "install equipoise again"
        )
    return found.file
