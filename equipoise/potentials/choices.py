"""One of several kinds of settings, told apart in files by a key "name"."""

import difflib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

KEY = "name"


@dataclass(frozen=True)
class Choice:
    """Annotation of a field that holds one of several dataclasses: ``Annotated[Anderson | Picard, Choice({...}, "anderson")]``.

    In Python the class says which one it is. In JSON and YAML the key ``name`` does, beside the fields: ``{name: picard,
    damping: 0.5}``; without it, ``default`` is meant, so that files written when there was no choice keep their meaning.

    Attributes:
      options: name → dataclass.
      default: the name that files need not say.
      shared: fields that mean the same in every option, and stay as they are when another one is chosen.
    """

    options: Mapping[str, type]
    default: str
    shared: tuple[str, ...] = ()

    def name_of(self, value: Any) -> str:
        """Which option an instance, or a mapping read from a file, is."""
        if isinstance(value, Mapping):
            return value.get(KEY, self.default)
        found = (name for name, option in self.options.items() if type(value) is option)
        return next(found, self.default)

    def write(self, value: Any) -> dict[str, Any]:
        """The mapping for a file.

        Raises:
          ValueError: for an instance of another class, which could not be read back.
        """
        if type(value) not in self.options.values():
            raise ValueError(
                f"only {', '.join(self.options)} can be written to a file, received {type(value).__name__}"
            )
        return {KEY: self.name_of(value), **asdict(value)}

    def defaults(self, name: str) -> dict[str, Any]:
        """The mapping of an option as it is if nothing is said; without the fields that must be said."""
        plain: dict[str, Any] = {KEY: name}
        for field in fields(self.options[name]):
            if field.default is not MISSING:
                plain[field.name] = field.default
            elif field.default_factory is not MISSING:
                plain[field.name] = field.default_factory()
        return plain

    def unknown(self, name: Any) -> str:
        """What to say about a name that is none."""
        near = difflib.get_close_matches(str(name), self.options, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{KEY} must be one of {', '.join(self.options)}, received {name!r}{hint}"

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        choices = {
            name: core_schema.no_info_before_validator_function(_fields, handler.generate_schema(o))
            for name, o in self.options.items()
        }
        written = core_schema.plain_serializer_function_ser_schema(self.write)
        return core_schema.tagged_union_schema(choices, self.name_of, serialization=written)


def _fields(value: Any) -> Any:
    """What goes to the dataclass. JSON has no tuples, and strict validation takes nothing else for one."""
    if not isinstance(value, Mapping):
        return value
    return {k: tuple(v) if isinstance(v, list) else v for k, v in value.items() if k != KEY}
