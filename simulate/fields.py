"""Frozen dataclasses from tables of TOML: unknown keys, missing ones and wrong kinds are told in one line."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from poolproof.errors import InputError

T = TypeVar("T")

_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def read_fields(cls: type[T], table: object, where: str) -> T:
    """A frozen dataclass whose fields are the keys of a table.

    A field may be a whole number, number, text or truth value, one of several of these, a tuple of them (a list in
    TOML), another dataclass (a table), or a mapping, which is passed on.

    Args:
        cls: the dataclass.
        table: from a TOML file.
        where: name of the table in messages.

    Raises:
        InputError: no table, an unknown key, a missing one, a value of another kind, or one that the class refuses.
    """
    if not isinstance(table, Mapping):
        raise InputError(f"{where}: got {table!r:.60}, allowed a table headed [{where}]")
    known = {field.name: field for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    for key in table:
        if key not in known:
            raise InputError(f"{where}: got unknown key {key!r}, allowed {', '.join(known) or 'none'}")
    for name, field in known.items():
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if needed and name not in table:
            raise InputError(f"{where}: got no {name}, allowed keys are {', '.join(known)}; add it")
    hints = typing.get_type_hints(cls)
    try:
        return cls(**{key: _convert(f"{where}.{key}", value, hints[key]) for key, value in table.items()})
    except InputError as error:
        text = str(error)
        raise InputError(text if text.startswith(f"{where}.") else f"{where}.{text}") from error


def _convert(name: str, value: object, hint: Any) -> Any:
    options = typing.get_args(hint) if _is_union(hint) else (hint,)
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(option, type) and isinstance(value, Mapping):
            return read_fields(option, value, name)
        if _fits(value, option):
            return tuple(value) if isinstance(value, list) else value
    allowed = " or ".join(_describe(option) for option in options if option is not type(None))
    raise InputError(f"{name}: got {value!r:.60}, allowed {allowed}")


def _is_union(hint: Any) -> bool:
    return isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union


def _fits(value: object, option: Any) -> bool:
    origin = typing.get_origin(option)
    if origin is tuple:
        inner = typing.get_args(option)[0]
        inners = typing.get_args(inner) if _is_union(inner) else (inner,)
        return isinstance(value, list) and all(any(_fits(each, one) for one in inners) for each in value)
    if origin is typing.Literal:
        return any(value == each and type(value) is type(each) for each in typing.get_args(option))
    if origin is not None:
        return isinstance(value, origin)
    if option is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if option is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, option)


def _describe(option: Any) -> str:
    origin = typing.get_origin(option)
    if origin is tuple:
        return f"a list of {_describe(typing.get_args(option)[0])}"
    if origin is typing.Literal:
        return ", ".join(map(str, typing.get_args(option)))
    if _is_union(option):
        return " or ".join(_describe(each) for each in typing.get_args(option))
    return _WORDS.get(option, "a table")
