"""Settings from and to plain mappings: frozen dataclasses, checked types, unknown keys refused by name."""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def unknown(kind: str, given: str, allowed: Iterable[str]) -> str:
    """The one line that refuses a name: what was given, the nearest allowed name, all allowed names."""
    names = list(allowed)
    near = difflib.get_close_matches(given, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"unknown {kind} {given!r}; {hint}allowed: {', '.join(names)}"


def from_mapping(cls: type[T], mapping: Mapping[str, object]) -> T:
    """A dataclass from plain JSON values, nested dataclasses included.

    Raises ValueError naming the key: an unknown key with its nearest neighbour, or a value of the wrong type.
    """
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{cls.__name__.lower()} is {mapping!r}; it must be a mapping of names to values")
    hints = get_type_hints(cls)
    values: dict[str, object] = {}
    for key, value in mapping.items():
        if key not in hints:
            raise ValueError(unknown(f"{cls.__name__.lower()} key", key, hints))
        values[key] = _convert(cls, key, hints[key], value)
    missing = [
        field.name
        for field in dataclasses.fields(cls)  # type: ignore[arg-type]
        if field.name not in values
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{cls.__name__.lower()} lacks {', '.join(missing)}; add it")
    return cls(**values)


def to_mapping(value: object) -> dict[str, object]:
    """The plain JSON values of a dataclass, nested ones included."""
    return dataclasses.asdict(value)  # type: ignore[call-overload,no-any-return]


def overridden(value: T, settings: Mapping[str, str]) -> T:
    """The same dataclass with some values replaced: dotted keys, values as JSON or else as the string they are.

    overridden(plan, {"peak_lr": "0.01", "architecture.n_layers": "4", "decay": "cosine"})
    """
    mapping = to_mapping(value)
    for key, text in settings.items():
        *path, last = key.split(".")
        inner: dict[str, Any] = mapping
        for part in path:
            # A misspelt or empty part becomes a mapping of its own, which from_mapping refuses or completes below.
            if not isinstance(inner.get(part), dict):
                inner[part] = {}
            inner = inner[part]
        inner[last] = _parsed(text)
    return from_mapping(type(value), mapping)


def _parsed(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _convert(cls: type, key: str, hint: type, value: object) -> object:
    inner = next((t for t in (hint, *getattr(hint, "__args__", ())) if dataclasses.is_dataclass(t)), None)
    if inner is not None and isinstance(value, Mapping):
        return from_mapping(inner, value)  # type: ignore[arg-type]
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].lower()
        raise ValueError(f"{cls.__name__.lower()} key {key!r} is {value!r}: {reason}") from None
