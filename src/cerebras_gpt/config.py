"""Settings from and to plain mappings: frozen dataclasses, checked types, unknown keys refused by name."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar, get_type_hints

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


def _convert(cls: type, key: str, hint: type, value: object) -> object:
    inner = next((t for t in (hint, *getattr(hint, "__args__", ())) if dataclasses.is_dataclass(t)), None)
    if inner is not None and isinstance(value, Mapping):
        return from_mapping(inner, value)  # type: ignore[arg-type]
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].lower()
        raise ValueError(f"{cls.__name__.lower()} key {key!r} is {value!r}: {reason}") from None
