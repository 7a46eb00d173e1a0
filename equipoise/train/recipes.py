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
from copy import deepcopy
from dataclasses import fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from equipoise.potentials import Choice, PotentialConfig, load
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
        layers = [merged, *map(_parse_override, overrides)]
        merged = OmegaConf.create(DEFAULTS | _potential_of(OmegaConf.merge(*layers)))
        for layer in layers:
            merged = OmegaConf.merge(_chosen(merged, layer), layer)
        plain = OmegaConf.to_container(merged, resolve=True, throw_on_missing=True)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"recipe {str(name_or_path)!r} cannot be read: {error}") from error
    recipe = make_recipe(plain)
    if recipe.output.folder is None:
        output = recipe.output.model_copy(update={"folder": str(Path("runs") / stem)})
        recipe = recipe.model_copy(update={"output": output})
    return recipe


def _potential_of(layers: Any) -> dict[str, Any]:
    """The section `potential` of the model that a recipe begins with, to take the place of the defaults."""
    name = OmegaConf.select(layers, "training.initial_model")
    try:
        return {} if name is None else {"potential": potential_settings(load(str(name)).config)}
    except FileNotFoundError:
        # Training will say so; a run that is only gone on with has its weights, and all settings in its recipe.
        return {}


def potential_settings(config: PotentialConfig) -> dict[str, Any]:
    """The section `potential` of a recipe for networks like this, as read from YAML."""
    return Recipe(potential=config).model_dump(mode="json")["potential"]


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
    """Every key with its default and its description, for `--help` and the documentation.

    Where one of several things can be chosen by its `name`, the keys of the others follow once, with
    that name behind them.
    """
    return list(_descriptions(Recipe, "", DEFAULTS, set()))


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


def _chosen(base: Any, layer: Any) -> dict[str, Any]:
    """`base`, with the defaults of another option wherever `layer` chooses one by its name.

    Settings that all options share stay as they are: `solver: {name: broyden}` changes the method,
    not the tolerance.
    """
    plain = OmegaConf.to_container(base, resolve=False)
    return _choose(plain, OmegaConf.to_container(layer, resolve=False), Recipe)


def _choose(base: Any, layer: Any, level: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(layer, dict):
        return base
    choice = _choice(level)
    name = layer.get("name", base.get("name")) if choice else None
    if choice and name in choice.options and name != choice.name_of(base):
        kept = {key: base[key] for key in choice.shared if key in base}
        return deepcopy(choice.defaults(name)) | kept
    known = _members(level)
    return {
        key: _choose(value, layer.get(key), known[key]) if key in known else value
        for key, value in base.items()
    }


def _explain(details: Mapping[str, Any]) -> str:
    """One line for one error of pydantic's: key, rule, value received."""
    place, level = [], Recipe
    for part in details["loc"]:
        choice, known = _choice(level), _members(level)
        if (
            choice and part in choice.options
        ):  # not a key of the recipe, but says which keys there are
            level = choice.options[part]
        elif part in known:
            level = known[part]
            place.append(str(part))
        elif part == details["loc"][-1] or isinstance(part, int):
            place.append(str(part))
    where = ".".join(place)
    if details["type"] == "union_tag_invalid":
        return f"{where}.{_choice(level).unknown(details['input']['name'])}"
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


def _choice(level: Any) -> Choice | None:
    """The choice between several dataclasses that a type stands for, if it does."""
    marks = getattr(level, "__metadata__", ())
    return next((mark for mark in marks if isinstance(mark, Choice)), None)


def _members(level: Any) -> dict[str, Any]:
    """Keys below a section, a nested dataclass or a union of these, with their types."""
    choice = _choice(level)
    if choice:
        options = (_members(option) for option in choice.options.values())
        return {"name": str} | {k: v for option in options for k, v in option.items()}
    if isinstance(level, types.UnionType) or typing.get_origin(level) is typing.Union:
        return {k: v for member in typing.get_args(level) for k, v in _members(member).items()}
    if isinstance(level, type) and issubclass(level, BaseModel):
        return {name: field.annotation for name, field in level.model_fields.items()}
    if isinstance(level, type) and is_dataclass(level):
        hints = typing.get_type_hints(level, include_extras=True)
        return {field.name: hints[field.name] for field in fields(level) if field.init}
    return {}


def _descriptions(
    level: Any, prefix: str, defaults: Mapping[str, Any], told: set[str]
) -> Iterator[tuple[str, Any, str]]:
    for name, kind in _members(level).items():
        key, default, choice = f"{prefix}{name}", defaults.get(name), _choice(kind)
        if choice:
            text = f"one of {', '.join(choice.options)}. {_about(level, name)}"
            yield f"{key}.name", choice.default, text
            yield from _descriptions(choice.options[choice.default], f"{key}.", default, told)
            for other in [each for each in choice.options if each not in {choice.default, *told}]:
                told.add(other)
                for field, value, text in _descriptions(
                    choice.options[other], f"{key}.", choice.defaults(other), told
                ):
                    if field.removeprefix(f"{key}.") not in choice.shared:
                        yield f"{field} ({other})", value, text
        elif _members(kind) and isinstance(default, Mapping):
            yield from _descriptions(kind, f"{key}.", default, told)
        else:
            yield key, default, _about(level, name)


def _about(level: Any, name: str) -> str:
    """The description of one key of a section, or what the `Attributes:` of a dataclass say."""
    if isinstance(level, type) and issubclass(level, BaseModel):
        return level.model_fields[name].description or ""
    for option in getattr(level, "__mro__", ()):
        entry = rf"^ *(?:\w+, )*{name}(?:, \w+)*: (.*(?:\n(?! *\w+(?:, \w+)*: ).+)*)"
        found = re.search(entry, inspect.cleandoc(option.__doc__ or ""), re.MULTILINE)
        # A solver's docstring sends the reader on to that of the class it inherits the field from.
        if found and not found[1].startswith("see :class:"):
            return " ".join(found[1].split())
    return ""


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
