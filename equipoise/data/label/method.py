"""Which calculator makes the labels: a short name or `module:factory`, and what it is called with."""

import difflib
import functools
import hashlib
import importlib
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any

import ase
import numpy as np
from ase.data import chemical_symbols


class MissingPackage(RuntimeError):
    """The calculator cannot be imported in this process; no structure is to blame."""


@dataclass(frozen=True)
class _Known:
    title: str  # what the files call it
    factory: str
    package: str  # on PyPI
    keywords: dict[str, Any] = field(default_factory=dict)
    highest: int | None = None  # elements 1 to this one; None: all of them


def _xtb(title: str) -> _Known:
    return _Known(title, "tblite.ase:TBLite", "tblite", {"method": title, "verbosity": 0}, 86)


KNOWN = {
    "emt": _Known("EMT", "ase.calculators.emt:EMT", "ase"),
    "lj": _Known("Lennard-Jones", "ase.calculators.lj:LennardJones", "ase"),
    "gfn1": _xtb("GFN1-xTB"),
    "gfn2": _xtb("GFN2-xTB"),
    "ipea1": _xtb("IPEA1-xTB"),
}


@dataclass(frozen=True)
class Method:
    """A calculator by name, made anew for every unit of work.

    A calculator that remembers (the density of the last structure as a first guess) would otherwise give labels that depend, in
    their last digits, on which worker computed what before. A factory that costs much to call may keep what does not depend on
    the structure (``functools.cache``).

    Attributes:
      name: one of ``KNOWN`` (also ``GFN2-xTB``, any case), or ``module:factory``, a class or function that returns an ASE
        calculator. Modules are looked for where Python looks, then in the working folder.
      keywords: given to the factory.
    """

    name: str
    keywords: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if ":" not in self.name:
            name = self.name.lower().removesuffix("-xtb")
            if name not in KNOWN:
                close = difflib.get_close_matches(name, KNOWN, n=1)
                raise ValueError(
                    f"the calculator must be one of {', '.join(KNOWN)} or module:factory, received "
                    f"{self.name!r}" + (f"; did you mean {close[0]!r}?" if close else "")
                )
            object.__setattr__(self, "name", name)
        elif not all(part.isidentifier() for part in self.name.replace(":", ".", 1).split(".")):
            raise ValueError(
                f"a calculator of your own must be written module:factory, such as "
                f"my_calculators:make, received {self.name!r}"
            )
        self._check_keywords()

    @property
    def title(self) -> str:
        """The name for people and files, such as GFN2-xTB."""
        return KNOWN[self.name].title if self.name in KNOWN else self.name

    @property
    def version(self) -> str:
        """The package behind it and its version, as installed in this process."""
        return _version(KNOWN[self.name].package if self.name in KNOWN else self.name)

    def check(self) -> None:
        """Make one calculator, to find out before the work begins whether that works.

        Raises:
          ValueError: if there is no such module or factory, if it does not take these keywords, and if what it returns is no
            ASE calculator or one without forces.
          MissingPackage: if a package is not installed.
        """
        factory = self._factory()
        try:
            calculator = factory(**self._all_keywords())
        except Exception as error:
            given = ", ".join(f"{key}={value!r}" for key, value in self.keywords.items())
            raise ValueError(
                f"{self.title} cannot be made with ({given}): {type(error).__name__}: {error}"
            ) from error
        if not (hasattr(calculator, "get_forces") and hasattr(calculator, "get_potential_energy")):
            raise ValueError(
                f"{self.name} must return an ASE calculator, received a {type(calculator).__name__}"
            )
        offered = getattr(calculator, "implemented_properties", None)
        for needed in ("energy", "forces"):
            if offered and needed not in offered:
                raise ValueError(
                    f"labels need energy and forces, but {self.title} gives no {needed}, only "
                    f"{', '.join(offered)}"
                )

    def build(self, atoms: ase.Atoms) -> Any:
        """A new calculator for ``atoms``.

        The xTB methods take the total charge from ``atoms.info["charge"]`` where the keywords do not say: ASE itself only knows
        charges of single atoms, and an ion would silently be computed as a neutral molecule.
        """
        keywords = self._all_keywords()
        charge = atoms.info.get("charge")
        if self._is_xtb and "charge" not in keywords and charge is not None:
            keywords["charge"] = float(charge)
        return self._factory()(**keywords)

    def unknown_element(self, atoms: ase.Atoms) -> str | None:
        """Why this method cannot compute ``atoms``, as far as its elements tell; None if it can."""
        known = self._elements()
        if known is None:
            return None
        for index, number in enumerate(atoms.numbers.tolist()):
            if number not in known:
                names = [chemical_symbols[z] for z in sorted(known)]
                several = f"{names[0]} to {names[-1]}" if len(names) > 20 else ", ".join(names)
                return (
                    f"{self.title} does not know {chemical_symbols[number]} (atom {index}); it "
                    f"covers {several}"
                )
        return None

    @property
    def _is_xtb(self) -> bool:
        return self.name in KNOWN and KNOWN[self.name].package == "tblite"

    def _all_keywords(self) -> dict[str, Any]:
        own = KNOWN[self.name].keywords if self.name in KNOWN else {}
        return own | self.keywords

    def _elements(self) -> frozenset[int] | None:
        if self.name == "emt":
            emt = importlib.import_module("ase.calculators.emt")
            return frozenset(ase.data.atomic_numbers[symbol] for symbol in emt.parameters)
        highest = KNOWN[self.name].highest if self.name in KNOWN else None
        return None if highest is None else frozenset(range(1, highest + 1))

    def _factory(self) -> Callable[..., Any]:
        module_name, attribute = self.name.split(":") if ":" in self.name else (None, None)
        if module_name is None:
            known = KNOWN[self.name]
            module_name, attribute = known.factory.split(":")
        # A command that was installed has its own folder in the path, not the one it runs in.
        if os.getcwd() not in sys.path and "" not in sys.path:
            sys.path.append(os.getcwd())
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            missing = getattr(error, "name", None) or module_name
            if self.name in KNOWN:
                package = KNOWN[self.name].package
                what = f"{self.title} needs the package {package}: pip install {package}"
            elif missing == module_name:
                what = f"there is no module {module_name!r}, neither installed nor in {os.getcwd()}"
            else:
                what = f"the module {module_name!r} cannot be imported"
            raise MissingPackage(f"{what} ({error})") from error
        found = module
        for part in attribute.split("."):
            found = getattr(found, part, None)
        if not callable(found):
            close = difflib.get_close_matches(attribute, dir(module), n=1)
            raise ValueError(
                f"the module {module_name!r} has no factory {attribute!r}"
                + (f"; did you mean {close[0]!r}?" if close else "")
            )
        return found

    def _check_keywords(self) -> None:
        """The calculators of ASE and tblite take any keyword, and ignore those that they do not know."""
        if self.name not in KNOWN:
            return
        try:
            defaults = getattr(self._factory(), "default_parameters", {})
        except MissingPackage:
            return  # says so itself when it is used
        solvation = [f"{model}_solvation" for model in ("alpb", "gbsa", "cpcm", "gbe", "gb")]
        allowed = [*defaults, *(solvation if self._is_xtb else ())]
        for key in self.keywords:
            if self._is_xtb and key == "method":
                raise ValueError(
                    f"the method must be named as the calculator (gfn1, gfn2, ipea1), received "
                    f"method={self.keywords[key]!r}"
                )
            if key not in allowed:
                close = difflib.get_close_matches(key, allowed, n=1)
                raise ValueError(
                    f"{self.title} knows no keyword {key!r}"
                    + (f"; did you mean {close[0]!r}?" if close else f"; it has {allowed}")
                )


@functools.cache
def _version(package: str) -> str:
    """Of a package by name, or of what a ``module:factory`` lies in; a loose file has its content for a version."""
    if ":" in package:
        module = package.split(":")[0]
        top = module.split(".")[0]
        package = next(iter(packages_distributions().get(top, [])), top)
        origin = getattr(importlib.import_module(module), "__file__", None)
        if package == top and origin is not None and not _installed(package):
            with open(origin, "rb") as file:
                return f"{module} {hashlib.file_digest(file, 'sha256').hexdigest()[:12]}"
    return f"{package} {_installed(package) or '(no version)'}"


def _installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def plain(value: Any) -> Any:
    """``value`` in what JSON can hold, for records and comparisons."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no infinity
    return value if isinstance(value, str | int | float | bool | None) else repr(value)
