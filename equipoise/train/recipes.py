"""Reading recipes: YAML files, changes from the command line, and errors that help.

A recipe is a YAML file with the sections of `Recipe`; keys that are left out take their
defaults.

    data: {source: rmd17, molecule: ethanol}
    potential: {kind: equilibrium, backbone: {channels: 32}}
    training: {epochs: 100, batch_size: 8}

`load_recipe("quickstart", ["training.epochs=5"])` reads one and applies changes. Nothing is
guessed: an unknown key, a value of the wrong kind or out of range is a `ValueError` that
names the key, what is allowed and what was received.
"""

import difflib
import inspect
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from equipoise.train.config import Recipe

RECIPES = files("equipoise") / "recipes"
DEFAULTS = Recipe().model_dump(mode="json")


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(entry.name[:-5] for entry in RECIPES.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply changes.

    **Arguments**

    - `name_or_path`: the name of a shipped recipe (`recipe_names()`), or a YAML file.
    - `overrides`: changes such as `"training.epochs=5"`, later ones win. Values are written
      as in YAML: `3`, `1e-3`, `null`, `[0.9, 0.99]`.

    **Returns** the `Recipe`, with `output.folder` filled in.

    **Raises** `ValueError` for an unknown recipe or key (with the nearest name), a value that
    is not allowed, an override without `=`, or a file that is not YAML.
    """
    text, stem = _read(name_or_path)
    try:
        merged = OmegaConf.create(text)
        if not OmegaConf.is_dict(merged):
            raise ValueError(f"recipe {str(name_or_path)!r} must be a mapping of sections")
        # Over the defaults, so that solver: {tolerance: 1e-5} keeps the solver's other settings
        # as they are in this place, and does not take those of a solver on its own.
        merged = OmegaConf.merge(DEFAULTS, merged, *map(_parse_override, overrides))
        plain = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"recipe {str(name_or_path)!r} cannot be read: {error}") from error
    recipe = make_recipe(plain)
    if recipe.output.folder is None:
        output = recipe.output.model_copy(update={"folder": str(Path("runs") / stem)})
        recipe = recipe.model_copy(update={"output": output})
    return recipe


def make_recipe(plain: Mapping[str, Any]) -> Recipe:
    """Check a nested dictionary, as read from YAML, and make it a `Recipe`."""
    try:
        # Through JSON, because strict validation takes lists for tuples and mappings for
        # dataclasses only there.
        return Recipe.model_validate_json(json.dumps(plain))
    except ValidationError as error:
        problems = list(dict.fromkeys(_explain(details) for details in error.errors()))
        raise ValueError("; ".join(problems)) from error


def differences(ours: Recipe, theirs: Recipe, *, ignore: Sequence[str] = ()) -> list[str]:
    """Keys in which two recipes differ: `"training.epochs: 5 there, 10 here"`, ours here."""
    here, there = dict(_flatten(ours.model_dump(mode="json"))), {}
    there.update(_flatten(theirs.model_dump(mode="json")))
    return [
        f"{key}: {there.get(key)} there, {here.get(key)} here"
        for key in sorted(here.keys() | there.keys())
        if key not in ignore and here.get(key) != there.get(key)
    ]


def recipe_keys() -> list[tuple[str, Any, str]]:
    """Every key with its default and its description, for `--help` and the documentation."""
    defaults = dict(_flatten(DEFAULTS))
    return [(key, defaults[key], text) for key, text in _descriptions(Recipe, "")]


def _read(name_or_path: str | Path) -> tuple[str, str]:
    """The text of a recipe, and the name that its run folder takes."""
    path = Path(name_or_path)
    names = recipe_names()
    if str(name_or_path) in names:
        return (RECIPES / f"{name_or_path}.yaml").read_text(encoding="utf-8"), str(name_or_path)
    if path.is_file():
        # A run keeps its recipe as RUN/recipe.yaml, where "recipe" says nothing.
        return _text(path), path.stem if path.stem != "recipe" else path.resolve().parent.name
    if path.is_dir():
        if (path / "recipe.yaml").is_file():
            return _text(path / "recipe.yaml"), path.name
        raise ValueError(
            f"{str(name_or_path)!r} is a folder without recipe.yaml, so there is no run in it to go "
            f"on with; give a recipe ({', '.join(names)}, or a YAML file), and this folder as its "
            "run folder"
        )
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ValueError(f"recipe file {str(name_or_path)!r} does not exist")
    raise ValueError(
        f"unknown recipe {str(name_or_path)!r}{_did_you_mean(str(name_or_path), names)} "
        f"(recipes: {', '.join(names)}; or the path of a YAML file)"
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"recipe {str(path)!r} must be text in UTF-8, received byte "
            f"0x{error.object[error.start]:02x} at position {error.start}; save it as UTF-8"
        ) from error


def _parse_override(override: str) -> Any:
    key, equals, _ = override.partition("=")
    if not equals or not key.strip():
        raise ValueError(
            f"an override must be written key=value, such as training.epochs=5, "
            f"received {override!r}"
        )
    try:
        return OmegaConf.from_dotlist([override])
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"the value of override {override!r} cannot be read: {error}") from error


def _explain(details: Mapping[str, Any]) -> str:
    """One line for one error of pydantic's: key, rule, value received."""
    # The place may contain names of union members, which are no keys of the recipe.
    place, level = [], Recipe
    for part in details["loc"]:
        known = _members(level)
        if part in known:
            level = known[part]
            place.append(str(part))
        elif part == details["loc"][-1] or isinstance(part, int):
            place.append(str(part))
    where = ".".join(place)
    if details["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _members(level)
        inside = ".".join(place[:-1]) or "the recipe"
        return (
            f"unknown key {place[-1]!r} in {inside}{_did_you_mean(place[-1], known)} "
            f"(keys: {', '.join(known)})"
        )
    if details["type"] == "value_error":
        return f"{where}: {details['ctx']['error']}" if where else str(details["ctx"]["error"])
    if details["type"] == "missing":
        return f"{where} is missing, received {details['input']!r}"
    rule = details["msg"].removeprefix("Input should be ").replace("an object", "a mapping of keys")
    return f"{where} must be {rule}, received {details['input']!r}"


def _did_you_mean(word: str, known: Sequence[str] | Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _members(level: Any) -> dict[str, Any]:
    """Keys below a section, a nested dataclass or a union of these, with their types."""
    if isinstance(level, types.UnionType) or typing.get_origin(level) is typing.Union:
        return {k: v for member in typing.get_args(level) for k, v in _members(member).items()}
    if isinstance(level, type) and issubclass(level, BaseModel):
        return {name: field.annotation for name, field in level.model_fields.items()}
    if isinstance(level, type) and is_dataclass(level):
        hints = typing.get_type_hints(level)
        return {field.name: hints[field.name] for field in fields(level) if field.init}
    return {}


def _descriptions(level: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for name, kind in _members(level).items():
        if _members(kind):
            yield from _descriptions(kind, f"{prefix}{name}.")
        elif isinstance(level, type) and issubclass(level, BaseModel):
            yield f"{prefix}{name}", level.model_fields[name].description or ""
        else:
            yield f"{prefix}{name}", _described(typing.get_args(level) or (level,), name)


def _described(options: Sequence[type], name: str) -> str:
    """What the `Attributes:` of a dataclass's docstring say about a field."""
    for option in options:
        entry = rf"^ *(?:\w+, )*{name}(?:, \w+)*: (.*(?:\n(?! *\w+(?:, \w+)*: ).+)*)"
        found = re.search(entry, inspect.cleandoc(option.__doc__ or ""), re.MULTILINE)
        if found:
            return " ".join(found.group(1).split())
    return ""


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
