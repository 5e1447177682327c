"""The command line flags of a config model: one for each field, nested models included."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

_UNIT_METAVARS = {"_s": "SECONDS", "_bytes": "BYTES", "_pixels": "PIXELS"}
_LARGE = 2**31  # from here on a number is easier to read as a power or a size
_REQUIRED_SECTION = "required"


@dataclass(frozen=True)
class Flag:
    """One field as a flag. `schema` is the field's JSON schema without its null branch."""

    path: tuple[str, ...]  # keys as in YAML: ("limits", "fetch_timeout_s")
    section: str
    schema: dict[str, Any]
    description: str
    default: Any
    required: bool
    metavar: str

    @property
    def option(self) -> str:
        """The spelling: dashes for underscores, a dot before a nested field."""
        return "--" + ".".join(self.path).replace("_", "-")

    @property
    def is_switch(self) -> bool:
        return self.schema.get("type") == "boolean"

    @property
    def is_list(self) -> bool:
        return self.schema.get("type") == "array"

    @property
    def allowed(self) -> str:
        """What values the field takes, as the end of a sentence; empty where any text will do."""
        if self.is_list:
            return f"a list, each {self.item_allowed}" if self.item_allowed else "a list"
        return allowed_values(self.schema)

    @property
    def item_allowed(self) -> str:
        """What values one item of a list takes."""
        return allowed_values(self.schema.get("items", {}))

    @property
    def help(self) -> str:
        """Description, allowed values and default, escaped for argparse."""
        facts = []
        if not self.required and self.default not in (None, (), ""):
            facts.append(f"default {_readable(self.default)}")
        if self.is_list:
            facts.append(self.item_allowed)
        elif not self._only_bound_is_trivial:
            facts.append(_bounds(self.schema))
        facts = [fact for fact in facts if fact]
        text = f"{self.description} [{'; '.join(facts)}]" if facts else self.description
        return text.replace("%", "%%")

    @property
    def _only_bound_is_trivial(self) -> bool:
        """Nobody needs to be told that a count is not negative."""
        high = self.schema.get("maximum", self.schema.get("exclusiveMaximum", _LARGE))
        return self.schema.get("minimum") in (0, 1) and high >= _LARGE

    def add_to(self, group: argparse._ArgumentGroup) -> None:
        """Declares the flag; values stay text, since the model alone judges them."""
        destination = ".".join(self.path)
        if self.is_switch:
            group.add_argument(
                self.option,
                dest=destination,
                action=argparse.BooleanOptionalAction,
                default=argparse.SUPPRESS,
                help=self.help,
            )
            return
        repeat: dict[str, Any] = {"action": "extend", "nargs": "+"} if self.is_list else {}
        group.add_argument(
            self.option,
            dest=destination,
            default=argparse.SUPPRESS,
            metavar=self.metavar,
            help=self.help,
            **repeat,
        )


def allowed_values(schema: dict[str, Any]) -> str:
    """The values that a JSON schema admits, in words; empty where any text will do."""
    if choices := schema.get("enum"):
        return "one of " + ", ".join(map(str, choices))
    if "const" in schema:
        return str(schema["const"])
    kind = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}.get(
        schema.get("type", "")
    )
    if kind:
        bounds = _bounds(schema)
        return f"{kind} from {bounds}" if " to " in bounds else f"{kind} {bounds}".rstrip()
    if pattern := schema.get("pattern"):
        return f"text that matches {pattern}"
    if longest := schema.get("maxLength"):
        return f"text of at most {longest} characters"
    return ""


def _bounds(schema: dict[str, Any]) -> str:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}"
    parts = [
        f"{word} {_number(bound)}"
        for word, bound in (("at least", low), ("above", above), ("at most", high), ("below", below))
        if bound is not None
    ]
    return " and ".join(parts)


def _number(value: float) -> str:
    if value >= _LARGE and value == int(value) and int(value).bit_count() == 1:
        return f"2^{int(value).bit_length() - 1}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _readable(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    if isinstance(value, int) and value >= 2**20 and value % 2**20 == 0:
        return f"{value} = {value // 2**20} MiB" if value < 2**30 else f"{value} = {value / 2**30:g} GiB"
    return _number(value) if isinstance(value, float) else str(value)


def flags_of(model: type[BaseModel]) -> list[Flag]:
    """Every field of the model and of the models in it, in order of declaration.

    A model may have `help_sections` (first field of a group -> the group's title) and `help_metavars`
    (field -> the word for its value in the help).
    """
    return list(_flags(model, (), ""))


def _flags(model: type[BaseModel], above: tuple[str, ...], title: str) -> Iterator[Flag]:
    properties = model.model_json_schema(by_alias=True)["properties"]
    sections = getattr(model, "help_sections", {})
    metavars = getattr(model, "help_metavars", {})
    section = title or "options"
    for name, field in model.model_fields.items():
        section = sections.get(name, section)
        key = field.alias or name
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _flags(annotation, (*above, key), _title(annotation))
            continue
        schema = _without_null(properties[key])
        yield Flag(
            path=(*above, key),
            section=_REQUIRED_SECTION if field.is_required() else section,
            schema=schema,
            description=field.description or "",
            default=None if field.default is PydanticUndefined else field.default,
            required=field.is_required(),
            metavar=metavars.get(name) or _metavar(key, schema),
        )


def _title(model: type[BaseModel]) -> str:
    first_line = (model.__doc__ or model.__name__).strip().splitlines()[0].rstrip(".")
    return first_line[0].lower() + first_line[1:]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    branches = [branch for branch in schema.get("anyOf", []) if branch.get("type") != "null"]
    return branches[0] if len(branches) == 1 else schema


def _metavar(key: str, schema: dict[str, Any]) -> str:
    if schema.get("type") == "array":
        return "NAME" if "enum" in schema.get("items", {}) else "TEXT"
    if choices := schema.get("enum"):
        return "{" + ",".join(map(str, choices)) + "}"
    if schema.get("format") == "path":
        return "PATH"
    for suffix, metavar in _UNIT_METAVARS.items():
        if key.endswith(suffix):
            return metavar
    return {"integer": "N", "number": "X"}.get(schema.get("type", ""), "TEXT")
