"""The payload registry: published bits, and entries of users."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolproof.errors import InputError
from poolproof.watermark.payloads import Payload, load_payloads


def named(name: str) -> Payload:
    """The packaged payload of that name."""
    return next(payload for payload in load_payloads() if payload.name == name)


def write(folder: Path, entry: str) -> Path:
    """A registry file with one entry."""
    path = folder / "mine.toml"
    path.write_text(f"[[payload]]\n{entry}\n", encoding="utf-8")
    return path


FIELDS = 'name = "x"\nalgorithm = "dwtDct"\n'
BITS = 'bits = "' + "01101" * 8 + '"'
WRITER = '\n[[payload.writers]]\nname = "me"\narray = "uint8"\nchannels = "BGR"\n'


@pytest.mark.reference
def test_packaged_bits_are_those_the_generators_publish() -> None:
    """Texts are bytes with the first bit first, and the two numbers are those of their repositories."""
    for name, text, period in (
        ("stable-diffusion-v1", b"StableDiffusionV1", 136),
        ("stable-diffusion-v2", b"SDV2", 32),
        ("invokeai", b"InvokeAI", 64),
    ):
        payload = named(name)
        assert payload.period == period
        digits = "".join(str(bit) for bit in payload.bits)
        assert int(digits, 2).to_bytes(period // 8) == text
    assert named("sdxl").bits == tuple(int(c) for c in "101100111110110010010000011110111011000110011110")
    # The writer formats the number without leading zeros.
    assert named("flux").bits == tuple(int(c) for c in bin(0x2AFE879CF52E)[2:])
    assert [named(name).period for name in ("sdxl", "flux")] == [48, 46]


@pytest.mark.reference
def test_sdxl_bits_are_those_in_diffusers() -> None:
    """The registry agrees with the constant in the installed diffusers package."""
    import importlib.util

    spec = importlib.util.find_spec("diffusers")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent / "pipelines" / "stable_diffusion_xl" / "watermark.py"
    digits = "".join(str(bit) for bit in named("sdxl").bits)
    assert f"0b{digits}" in source.read_text(encoding="utf-8")


def test_bits_that_a_text_could_not_have_otherwise_are_not_free() -> None:
    """The top bit of every byte is fixed; in long texts so are the two that tell letters from digits."""
    short, long = named("stable-diffusion-v2"), named("stable-diffusion-v1")
    assert [sum(p.free) for p in (short, long, named("sdxl"), named("flux"))] == [28, 85, 48, 46]
    assert short.free[:8] == (False,) + (True,) * 7
    assert long.free[:8] == (False,) * 3 + (True,) * 5
    assert all(bit == 0 for bit, place in zip(long.bits, range(136), strict=True) if place % 8 == 0)


def test_entries_name_their_producers_and_sources() -> None:
    """Every packaged payload says who writes it, in which array form, and where it can be read."""
    payloads = load_payloads()
    assert [p.name for p in payloads] == [
        "stable-diffusion-v1",
        "stable-diffusion-v2",
        "sdxl",
        "flux",
        "invokeai",
        "sdnext",
    ]
    for payload in payloads:
        assert payload.writers
        assert payload.source.startswith("https://")
        assert payload.algorithm in {"dwtDct", "dwtDctSvd"}
    habits = {(writer.array, writer.channels, writer.first, writer.last) for writer in named("sdxl").writers}
    assert ("float32", "BGR", "0.28.0", None) in habits
    assert ("float32", "RGB", "0.19.0", "0.27.2") in habits


def test_a_user_registry_is_read_with_the_same_fields(tmp_path: Path) -> None:
    """Hex keeps its leading zeros through n_bits, and optional fields may be left out."""
    path = write(tmp_path, FIELDS + 'hex = "0f0f0f"\nn_bits = 28\n' + WRITER + 'first = "1.0"\n')
    (payload,) = load_payloads(path)
    assert payload.bits == tuple(int(c) for c in "0000" + "00001111" * 3)
    (writer,) = payload.writers
    assert (writer.name, writer.first, writer.last) == ("me", "1.0", None)
    assert payload.free == (True,) * 28


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (FIELDS, "text, hex, bits"),
        (FIELDS + BITS + '\ntext = "abcdef"', "exactly one"),
        (FIELDS + 'text = "gr\\u00fcn und gelb"', "ASCII"),
        (FIELDS + 'hex = "0f0f0f"', "n_bits"),
        (FIELDS + 'hex = "0f0f0g"\nn_bits = 24', "0-9 and a-f"),
        (FIELDS + 'hex = "ff0f0f"\nn_bits = 20', "20 bits"),
        (FIELDS + 'bits = "0120"', "0 and 1"),
        (FIELDS + BITS + "\nn_bits = 41", "n_bits: got 41"),
        (FIELDS + 'bits = "0101"', "20 free"),
        (FIELDS + 'text = "ab"', "20 free"),
        (FIELDS + 'bits = "' + "1" * 48 + '"', "constant"),
        (FIELDS + 'bits = "' + "01" * 501 + '"', "1000"),
        (FIELDS + BITS + "\ncolour = 3", "colour"),
        (FIELDS.replace("dwtDct", "lsb") + BITS, "lsb"),
        (FIELDS + BITS + WRITER.replace('"BGR"', "3"), "channels"),
        (FIELDS + BITS + WRITER.replace("uint8", "int4"), "int4"),
        (FIELDS + BITS + WRITER + "colour = 3", "colour"),
        (FIELDS + BITS + "\nwriters = [3]", "writer 1"),
        (FIELDS.replace('"x"', '""') + BITS, "name"),
        (FIELDS + BITS + '\nwriters = "me"', "writers"),
        (FIELDS + BITS + "\n[[payload]]\n" + FIELDS + BITS, "twice"),
        (FIELDS + BITS + "\n[extra]", "nothing else"),
        ("name = ", "syntax"),
    ],
)
def test_unusable_entries_are_refused_in_one_line(tmp_path: Path, entry: str, message: str) -> None:
    """Every mistake gives an InputError that names the file and what is wrong, without a line break."""
    path = write(tmp_path, entry)
    with pytest.raises(InputError, match=message) as caught:
        load_payloads(path)
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_unreadable_registries_are_refused(tmp_path: Path) -> None:
    """A path without a file, a binary file, a file without entries and a list of numbers give InputErrors."""
    with pytest.raises(InputError, match=r"none\.toml"):
        load_payloads(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        load_payloads(str(tmp_path / "binary.toml"))
    for text in ("", "payload = 3", "payload = [1]"):
        (tmp_path / "empty.toml").write_text(text)
        with pytest.raises(InputError, match=r"\[\[payload\]\]"):
            load_payloads(tmp_path / "empty.toml")
