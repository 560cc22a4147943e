"""Dataclasses from tables of TOML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from poolproof.errors import InputError
from poolproof.simulate.fields import read_fields


@dataclass(frozen=True)
class Inner:
    width: int = 3


@dataclass(frozen=True)
class Outer:
    name: str
    rate: float | int = 0.5
    sizes: tuple[int, ...] = (1, 2)
    bias: float | int | tuple[float | int, ...] = 1.0
    kind: Literal["a", "b"] = "a"
    many: int | Literal["all"] = 1
    on: bool = False
    n: int | None = None
    inner: Inner = field(default_factory=Inner)
    free: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise InputError(f"rate: got {self.rate}, allowed 0 or more")


def test_every_kind_of_field_is_read() -> None:
    """Texts, numbers, lists, choices, truth values, nested tables and free tables arrive as they should."""
    table = {
        "name": "x",
        "rate": 2,
        "sizes": [3, 4],
        "bias": [1.0, 0.5],
        "kind": "b",
        "many": "all",
        "on": True,
        "n": 7,
        "inner": {"width": 9},
        "free": {"anything": [1]},
    }
    found = read_fields(Outer, table, "outer")
    assert found == Outer("x", 2, (3, 4), (1.0, 0.5), "b", "all", True, 7, Inner(9), {"anything": [1]})
    assert read_fields(Outer, {"name": "x"}, "outer") == Outer("x")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (3, r"^outer: got 3, allowed a table headed \[outer\]$"),
        ({"name": "x", "nmae": 1}, "^outer: got unknown key 'nmae', allowed name, rate,"),
        ({}, "^outer: got no name, allowed keys are name, rate"),
        ({"name": 3}, "^outer.name: got 3, allowed a text$"),
        ({"name": "x", "rate": "fast"}, "^outer.rate: got 'fast', allowed a number"),
        ({"name": "x", "rate": True}, "^outer.rate: got True"),
        ({"name": "x", "sizes": [1, "2"]}, "^outer.sizes: got .*, allowed a list of a whole number"),
        ({"name": "x", "kind": "c"}, "^outer.kind: got 'c', allowed a, b$"),
        ({"name": "x", "many": "most"}, "^outer.many: got 'most', allowed a whole number or all$"),
        ({"name": "x", "n": 1.5}, "^outer.n: got 1.5, allowed a whole number$"),
        ({"name": "x", "inner": {"width": "w"}}, "^outer.inner.width: got 'w', allowed a whole number$"),
        ({"name": "x", "inner": {"depth": 1}}, "^outer.inner: got unknown key 'depth', allowed width$"),
        ({"name": "x", "rate": -1}, "^outer.rate: got -1, allowed 0 or more$"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(table: object, message: str) -> None:
    """The line names the table and key, what was got and what is allowed."""
    with pytest.raises(InputError, match=message):
        read_fields(Outer, table, "outer")
