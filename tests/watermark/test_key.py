"""Keys: what is read as one, what follows from one, and that none is shown."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import assert_refused
from scipy import stats

from poolproof.watermark.key import MAX_BYTES, MIN_BYTES, Key, new_key, parse_key

SECRETS = st.binary(min_size=MIN_BYTES, max_size=MAX_BYTES)


@pytest.mark.property
@given(SECRETS, st.sampled_from(["", " ", "\n"]), st.booleans())
def test_digits_are_read_as_the_key(secret: bytes, edge: str, capital: bool) -> None:
    """Digits in either case, with blanks about them, give the bytes back."""
    digits = secret.hex().upper() if capital else secret.hex()
    assert parse_key(f"{edge}{digits}{edge}") == Key(secret)


@pytest.mark.parametrize("content", ["{}", "{}\n", "  {}\r\n"])
def test_files_of_digits_are_read(tmp_path: Path, content: str) -> None:
    """A path gives the key that the file holds."""
    key = new_key()
    (tmp_path / "mark.key").write_text(content.format(key.secret.hex()))
    assert parse_key(str(tmp_path / "mark.key")) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        "0" * 31,
        "0" * 33,
        "0" * 30,
        "0" * 130,
        "g" * 32,
        "\uff10" * 32,
        "a\0b",
        "x" * 5000,
        "0" * 300,
        "00 " * 16,
        "0x" + "0" * 30,
        "00\n" * 16,
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    """Too few, too many, odd or foreign digits and paths to nothing are refused in one line."""
    assert_refused(lambda: parse_key(text), "key")


@pytest.mark.parametrize(
    "content", [b"", b"0" * 31, b"\xff" * 32, b"0" * 32 + b"\n" + b"1" * 32, b"0" * 2_000_000, b"\0" * 32]
)
def test_files_that_hold_no_key_are_refused(tmp_path: Path, content: bytes) -> None:
    """Empty, odd, foreign, double and huge files are refused."""
    (tmp_path / "file").write_bytes(content)
    assert_refused(lambda: parse_key(str(tmp_path / "file")), "key")


def test_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    """A folder is no key, and a pipe is not waited for."""
    os.mkfifo(tmp_path / "pipe")
    assert_refused(lambda: parse_key(str(tmp_path)), "key")
    assert_refused(lambda: parse_key(str(tmp_path / "pipe")), "key")


@pytest.mark.parametrize("slip", ["0", "!", "\0", "0" * 300])
def test_a_secret_with_a_slip_is_not_repeated(slip: str) -> None:
    """Refusals go to terminals and logs, so they do not show what was given."""
    digits = new_key().secret.hex()
    assert digits not in assert_refused(lambda: parse_key(digits + slip), "key")


def test_keys_do_not_show_their_secret() -> None:
    """Neither printed nor in an error."""
    key = new_key()
    assert repr(key.secret)[2:-1] not in repr(key)
    assert key.secret.hex() not in str(key)
    for n in (0, MIN_BYTES - 1, MAX_BYTES + 1):
        assert_refused(lambda n=n: Key(bytes(n)), "key")


def test_new_keys_differ() -> None:
    """Each is drawn anew, and long enough."""
    keys = {new_key().secret for _ in range(100)}
    assert len(keys) == 100
    assert {len(secret) for secret in keys} == {MIN_BYTES}


@pytest.mark.reference
def test_choices_are_the_same_on_every_machine() -> None:
    """Signs and orders are pinned to SHAKE-256: what was marked once must be found for ever."""
    secret = bytes(range(16))
    stream = hashlib.shake_256(b"\x10" + secret + b"signs/test").digest(2)
    bits = [int(bit) for byte in stream for bit in f"{byte:08b}"][:13]
    np.testing.assert_array_equal(Key(secret).signs("test", 13), [2 * bit - 1 for bit in bits])
    stream = hashlib.shake_256(b"\x10" + secret + b"order/test").digest(56)
    words = [int.from_bytes(stream[place : place + 8], "big") for place in range(0, 56, 8)]
    np.testing.assert_array_equal(Key(secret).order("test", 7), sorted(range(7), key=words.__getitem__))


@pytest.mark.property
@given(SECRETS, st.text(max_size=20), st.integers(0, 300))
def test_orders_are_permutations_and_signs_are_signs(secret: bytes, purpose: str, n: int) -> None:
    """Every place once; +1 or -1; the same again, and shorter ones are the beginning of longer ones."""
    key = Key(secret)
    np.testing.assert_array_equal(np.sort(key.order(purpose, n)), np.arange(n))
    signs = key.signs(purpose, n)
    assert set(signs.tolist()) <= {-1, 1}
    np.testing.assert_array_equal(key.signs(purpose, n + 9)[:n], signs)


@pytest.mark.theory
def test_keys_and_purposes_are_independent() -> None:
    """Signs of other keys or purposes agree in half their places; no secret and purpose run together."""
    streams = [
        Key(secret).signs(purpose, 4096).astype(int)
        for secret in (bytes(16), bytes(17), b"\1" + bytes(15), bytes(15) + b"\1")
        for purpose in ("", "a", "\0", "order/a")
    ]
    for i, one in enumerate(streams):
        assert abs(one.sum()) < 5 * 64
        assert all(abs(one @ other) < 5 * 64 for other in streams[:i])


@pytest.mark.theory
def test_signs_do_not_depend_on_the_order() -> None:
    """Over keys, what comes early in an order has either sign alike, with one name for both."""
    first = [
        key.signs("same", 64)[key.order("same", 64)[:8]] for key in (Key(i.to_bytes(16)) for i in range(500))
    ]
    at_zero = [
        int(key.signs("same", 64)[0])
        for key in (Key(i.to_bytes(16)) for i in range(2000))
        if 0 in key.order("same", 64)[:16]
    ]
    assert stats.binomtest(int((np.array(first) > 0).sum()), 4000).pvalue > 1e-3
    assert stats.binomtest(at_zero.count(1), len(at_zero)).pvalue > 1e-3
