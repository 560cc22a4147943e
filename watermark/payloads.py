"""The registry of public payloads: bits that known generators write into every image they make."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, final

from poolproof.errors import InputError
from poolproof.watermark.chroma import Channels
from poolproof.watermark.dwt import Algorithm, Array

MIN_FREE_BITS: Final = 20
"""Fewest free bits of a payload: with fewer, not even a perfect match is rarer than one in a million."""

MAX_BITS: Final = 1000
"""Most bits of a payload: the exact tail counts 2^bits payloads in floating point."""

_LONG_TEXT: Final = 8
"""Characters from which on the top three bits of every byte count as fixed."""

_ALGORITHMS: Final = ("dwtDct", "dwtDctSvd")
_ARRAYS: Final = ("uint8", "float32")
_CHANNELS: Final = ("BGR", "RGB")
_BIT_KEYS: Final = ("text", "hex", "bits")
_FIELDS: Final = ("name", "algorithm", *_BIT_KEYS, "n_bits", "writers", "source")
_WRITER_FIELDS: Final = ("name", "array", "channels", "first", "last")


@final
@dataclass(frozen=True)
class Writer:
    """A program that writes a payload, and its habits.

    Args:
        name: the program, with its releases where they differ in habits.
        array: element type of the array that it hands to the writer of marks, `uint8` or `float32`.
        channels: channel order of that array, `BGR` or `RGB`.
        first: first release or date known to write so, None where unknown.
        last: last release or date known to write so, None where unknown or still written.
    """

    name: str
    array: Array = "uint8"
    channels: Channels = "BGR"
    first: str | None = None
    last: str | None = None


@final
@dataclass(frozen=True)
class Payload:
    """One public payload and who writes it.

    Args:
        name: unique in its registry.
        bits: 0 and 1, in the order of writing.
        free: whether a bit could have been otherwise. False for the top bit of every byte of a text, which
            is 0 in all of ASCII, and in texts of eight and more characters for the next two bits as well.
        algorithm: how it is written, `dwtDct` or `dwtDctSvd`.
        writers: programs known to write it. All variants of the algorithm are read, whatever is listed here.
        source: where the payload can be read.
    """

    name: str
    bits: tuple[int, ...]
    free: tuple[bool, ...]
    algorithm: Algorithm = "dwtDct"
    writers: tuple[Writer, ...] = ()
    source: str = ""

    @property
    def period(self) -> int:
        """Blocks after which the bits repeat."""
        return len(self.bits)


def load_payloads(path: Path | str | None = None) -> tuple[Payload, ...]:
    """The payloads of a TOML registry, in its order.

    Args:
        path: a registry with the fields of the packaged `payloads.toml`, or None for the packaged one. To
            search for both, add the two tuples.

    Raises:
        InputError: the file cannot be read, or an entry cannot be used.
    """
    origin = "payloads.toml" if path is None else str(path)
    try:
        if path is None:
            text = files("poolproof.watermark").joinpath("payloads.toml").read_text(encoding="utf-8")
        else:
            text = Path(path).read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"payloads: got {origin} ({error}), allowed a TOML file in UTF-8; check the path and the syntax"
        ) from error
    entries = document.get("payload")
    if not isinstance(entries, list) or not entries or set(document) != {"payload"}:
        raise InputError(
            f"{origin}: got tables {sorted(document)}, allowed one or more [[payload]] entries "
            "and nothing else; see the packaged payloads.toml"
        )
    payloads = tuple(_payload(entry, f"{origin}, payload {n}") for n, entry in enumerate(entries, start=1))
    names = [payload.name for payload in payloads]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{origin}: got the name {twice[0]!r} twice, allowed once; rename one entry")
    return payloads


def parse_payload(text: str) -> tuple[int, ...]:
    """The bits that a text stands for: `text:WORDS` in UTF-8, `hex:DIGITS` or `bits:0101`.

    Args:
        text: kind and value.

    Raises:
        InputError: another form, no bits, or more than `MAX_BITS`.
    """
    kind, _, value = text.partition(":")
    digits = ""
    if kind == "text":
        digits = "".join(f"{byte:08b}" for byte in value.encode())
    elif kind == "hex" and re.fullmatch("[0-9a-fA-F]+", value):
        digits = "".join(f"{int(digit, 16):04b}" for digit in value)
    elif kind == "bits" and re.fullmatch("[01]+", value):
        digits = value
    if not 1 <= len(digits) <= MAX_BITS:
        raise InputError(
            f"payload: got {text[:80]!r}, allowed text:WORDS, hex:DIGITS or bits:0101 with 1 to {MAX_BITS} "
            "bits; correct it"
        )
    return tuple(int(digit) for digit in digits)


def _payload(entry: Any, where: str) -> Payload:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: got {entry!r}, allowed a table; write it under [[payload]]")
    _check_fields(entry, _FIELDS, where)
    name = _text(entry, "name", where)
    algorithm = _choice(entry, "algorithm", _ALGORITHMS, where)
    bits, free = _bits(entry, where)
    if sum(free) < MIN_FREE_BITS or len(bits) > MAX_BITS or len(set(bits)) < 2:
        raise InputError(
            f"{where}: got {len(bits)} bits, {sum(free)} of them free, allowed {MIN_FREE_BITS} free to "
            f"{MAX_BITS} bits with both values; shorter or constant payloads cannot be told from chance"
        )
    writers = entry.get("writers", [])
    if not isinstance(writers, list):
        raise InputError(
            f"{where}, writers: got {writers!r}, allowed tables; write them under [[payload.writers]]"
        )
    return Payload(
        name=name,
        bits=bits,
        free=free,
        algorithm=algorithm,
        writers=tuple(_writer(writer, f"{where}, writer {n}") for n, writer in enumerate(writers, start=1)),
        source=_text(entry, "source", where) if "source" in entry else "",
    )


def _writer(entry: Any, where: str) -> Writer:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: got {entry!r}, allowed a table; write it under [[payload.writers]]")
    _check_fields(entry, _WRITER_FIELDS, where)
    return Writer(
        name=_text(entry, "name", where),
        array=_choice(entry, "array", _ARRAYS, where),
        channels=_choice(entry, "channels", _CHANNELS, where),
        first=_text(entry, "first", where) if "first" in entry else None,
        last=_text(entry, "last", where) if "last" in entry else None,
    )


def _check_fields(entry: dict[str, Any], allowed: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(entry) - set(allowed))
    if unknown:
        raise InputError(
            f"{where}: got the field {unknown[0]!r}, allowed {', '.join(allowed)}; remove or rename it"
        )


def _choice(entry: dict[str, Any], key: str, choices: tuple[str, ...], where: str) -> Any:
    value = _text(entry, key, where)
    if value not in choices:
        raise InputError(f"{where}, {key}: got {value!r}, allowed {', '.join(choices)}; choose one")
    return value


def _text(entry: dict[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}, {key}: got {value!r}, allowed a text that is not empty; add it")
    return value


def _bits(entry: dict[str, Any], where: str) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """The payload's bits and which of them are free, from the one field that states them."""
    given = [key for key in _BIT_KEYS if key in entry]
    if len(given) != 1:
        raise InputError(
            f"{where}: got {given or 'no bits'}, allowed exactly one of text, hex, bits; keep one"
        )
    key = given[0]
    value = _text(entry, key, where)
    if key == "text":
        if not value.isascii():
            raise InputError(f"{where}, text: got {value!r}, allowed ASCII; give the bytes as hex")
        digits = "".join(f"{byte:08b}" for byte in value.encode("ascii"))
        # Bits 2 and 3 of a byte tell digits, capitals and small letters apart and hardly change along a
        # text. An image with stripes of 64 pixels repeats such a pattern: with them, stripes of chance
        # colours reach one in a million on a text of 17 characters. A short text repeats little and needs
        # these bits.
        fixed = 3 if len(value) >= _LONG_TEXT else 1
        free = tuple(place % 8 >= fixed for place in range(len(digits)))
    elif key == "hex":
        digits = _hex_digits(value, entry.get("n_bits"), where)
        free = (True,) * len(digits)
    else:
        if set(value) - {"0", "1"}:
            raise InputError(f"{where}, bits: got {value!r}, allowed the digits 0 and 1; correct it")
        digits = value
        free = (True,) * len(digits)
    stated = entry.get("n_bits", len(digits))
    if type(stated) is not int or stated != len(digits):
        raise InputError(
            f"{where}, n_bits: got {stated!r}, allowed {len(digits)} for this {key}; correct one"
        )
    return tuple(int(digit) for digit in digits), free


def _hex_digits(value: str, n_bits: Any, where: str) -> str:
    """Binary digits of a hexadecimal payload. Its length must be stated: leading zeros are part of it."""
    if type(n_bits) is not int or not 0 < n_bits <= MAX_BITS:
        raise InputError(
            f"{where}, n_bits: got {n_bits!r}, allowed 1 to {MAX_BITS} for hex; state the length"
        )
    try:
        number = int.from_bytes(bytes.fromhex(value.rjust(len(value) + len(value) % 2, "0")))
    except ValueError as error:
        raise InputError(f"{where}, hex: got {value!r}, allowed digits 0-9 and a-f; correct it") from error
    if number >> n_bits:
        raise InputError(f"{where}, hex: got {value!r}, allowed {n_bits} bits as n_bits says; correct one")
    return f"{number:0{n_bits}b}"
