"""Remembered vectors: they come back, never wrong, with several processes at once and after damage."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from poolproof.detectors.backbone import AbstractEmbedder
from poolproof.detectors.cache import (
    EmbeddingCache,
    default_cache,
    embed_cached,
    hash_pixels,
    reader_identity,
)
from poolproof.errors import InputError


class CountingEmbedder(AbstractEmbedder):
    """Vectors of the first pixels, and how many images were asked for."""

    def __init__(self, name: str = "clip:a/b", dim: int = 3) -> None:
        self.name, self.dim, self.weights_sha256, self.asked = name, dim, "0" * 64, 0

    def embed(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Rows of three numbers."""
        self.asked += len(images)
        rows = [image.reshape(-1)[: self.dim] for image in images]
        return np.array(rows, np.float32).reshape(-1, self.dim)


@pytest.fixture
def cache(tmp_path: Path) -> EmbeddingCache:
    """An empty cache."""
    return EmbeddingCache(tmp_path / "cache", "a reader")


def key(i: int) -> bytes:
    """A key of 32 bytes."""
    return i.to_bytes(32)


def vectors(n: int, seed: int = 0) -> dict[bytes, np.ndarray]:
    """Vectors by key."""
    rng = np.random.default_rng(seed)
    return {key(i): rng.normal(size=5).astype(np.float32) for i in range(n)}


def assert_holds(cache: EmbeddingCache, expected: dict[bytes, np.ndarray]) -> None:
    """Checks that exactly these come back, bit by bit."""
    found = cache.get_many(list(expected))
    assert found.keys() == expected.keys()
    for name, vector in expected.items():
        np.testing.assert_array_equal(found[name], vector)
        assert found[name].dtype == np.float32


def test_vectors_come_back(cache: EmbeddingCache) -> None:
    """More than one question's worth of vectors comes back; keys that are absent or doubled do no harm."""
    assert cache.get_many([key(1)]) == {}
    cache.put_many({})
    assert not cache.folder.exists()
    stored = vectors(1200)
    stored[key(7)] = np.array([np.nan, np.inf, -0.0, 1e-45, 3e38], np.float32)
    cache.put_many(stored)
    assert_holds(cache, stored)
    assert list(cache.get_many([key(3), key(5000), key(3)])) == [key(3)]
    cache.put_many({key(3): np.ones(5, np.float32)})
    np.testing.assert_array_equal(cache.get_many([key(3)])[key(3)], 1)


def test_another_reader_has_other_vectors(cache: EmbeddingCache) -> None:
    """Identities do not share, and clearing one leaves the others."""
    other = EmbeddingCache(cache.folder, "another reader")
    cache.put_many(vectors(3))
    assert other.get_many(list(vectors(3))) == {}
    other.put_many(vectors(3, seed=1))
    cache.clear()
    cache.clear()
    assert cache.get_many(list(vectors(3))) == {}
    assert_holds(other, vectors(3, seed=1))


def test_the_identity_has_all_that_vectors_depend_on() -> None:
    """Name, weights, precision and version each change it."""
    first, second = CountingEmbedder(), CountingEmbedder("clip:a/b@raw")
    third, fourth = CountingEmbedder(), CountingEmbedder()
    third.weights_sha256, fourth.precision = "1" * 64, "bfloat16"
    assert len({reader_identity(embedder) for embedder in (first, second, third, fourth)}) == 4
    assert reader_identity(first) == reader_identity(CountingEmbedder())


def test_a_damaged_entry_is_absent_until_it_is_written_anew(cache: EmbeddingCache) -> None:
    """A changed vector, a vector under another's key and a cut one are not given out."""
    stored = vectors(5)
    cache.put_many(stored)
    with sqlite3.connect(cache.path) as connection:
        connection.execute("UPDATE vectors SET vector = x'0000803f' WHERE key = ?", (key(1),))
        connection.execute("UPDATE vectors SET vector = 'text' WHERE key = ?", (key(2),))
        connection.execute("UPDATE vectors SET key = ? WHERE key = ?", (key(99), key(3)))
    connection.close()
    assert sorted(cache.get_many([*stored, key(99)])) == [key(0), key(4)]
    cache.put_many(stored)
    assert_holds(cache, stored)


@pytest.mark.parametrize("content", [b"", b"not a database at all" * 100, b"SQLite format 3\0" + bytes(2000)])
def test_a_damaged_file_is_made_anew(cache: EmbeddingCache, content: bytes) -> None:
    """Whatever lies in its place, reading finds nothing and writing works."""
    for write_first in (True, False):
        cache.folder.mkdir(exist_ok=True)
        cache.path.write_bytes(content)
        if not write_first:
            assert cache.get_many([key(1)]) == {}
        cache.put_many(vectors(3))
        assert_holds(cache, vectors(3))


def test_a_table_of_another_layout_is_made_anew(cache: EmbeddingCache) -> None:
    """A file of the right name with other columns loses its place at the first write."""
    cache.folder.mkdir()
    with sqlite3.connect(cache.path) as connection:
        connection.execute("CREATE TABLE vectors (key BLOB PRIMARY KEY, other TEXT)")
    connection.close()
    assert cache.get_many([key(1)]) == {}
    cache.put_many(vectors(3))
    assert_holds(cache, vectors(3))


def test_reading_does_not_take_a_file_away_that_is_being_made(cache: EmbeddingCache) -> None:
    """A database without its table, as another process has it for a moment, is left where it is."""
    cache.folder.mkdir()
    cache.path.touch()
    assert cache.get_many([key(1)]) == {}
    assert cache.path.exists()


def test_a_file_cut_in_the_middle_loses_entries_and_invents_none(cache: EmbeddingCache) -> None:
    """Pages that are gone cost vectors; those that come back are right."""
    stored = vectors(2000)
    cache.put_many(stored)
    content = bytearray(cache.path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 5000] = bytes(5000)
    cache.path.write_bytes(content)
    for name, vector in cache.get_many(list(stored)).items():
        np.testing.assert_array_equal(vector, stored[name])
    cache.put_many(stored)


WRITER = """
import sys, pathlib, numpy as np
from poolproof.detectors.cache import EmbeddingCache
cache = EmbeddingCache(pathlib.Path(sys.argv[1]), "a reader")
start = int(sys.argv[2])
for i in range(start, start + 40, 4):
    cache.put_many({j.to_bytes(32): np.full(4, j, np.float32) for j in range(i, i + 8)})
    cache.get_many([j.to_bytes(32) for j in range(200)])
"""


def test_several_processes_share_it(cache: EmbeddingCache) -> None:
    """Four processes that write overlapping keys at once lose nothing."""
    commands = [[sys.executable, "-c", WRITER, str(cache.folder), str(20 * n)] for n in range(4)]
    workers = [subprocess.Popen(command) for command in commands]
    assert [worker.wait(60) for worker in workers] == [0] * 4
    assert_holds(cache, {key(j): np.full(4, j, np.float32) for j in range(104)})


def test_images_are_embedded_once(cache: EmbeddingCache, rng: np.random.Generator) -> None:
    """Only images that are not remembered are embedded, a doubled one once, and rows keep their order."""
    embedder = CountingEmbedder()
    images = [rng.integers(0, 256, (4, 5, 3), dtype=np.uint8) for _ in range(6)]
    expected = CountingEmbedder().embed(images)
    np.testing.assert_array_equal(embed_cached(embedder, images[:3], cache), expected[:3])
    assert embedder.asked == 3
    order = [5, 2, 2, 0, 5, 4]
    np.testing.assert_array_equal(embed_cached(embedder, [images[i] for i in order], cache), expected[order])
    assert embedder.asked == 5
    assert embed_cached(embedder, [], cache).shape == (0, 3)
    assert embed_cached(embedder, images, None).shape == (6, 3)
    assert embedder.asked == 11


def test_keys_may_be_those_of_encoded_bytes(cache: EmbeddingCache, rng: np.random.Generator) -> None:
    """Given keys decide; vectors of another length under them are made anew."""
    image = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    cache.put_many({key(1): np.ones(3, np.float32), key(2): np.ones(9, np.float32)})
    found = embed_cached(CountingEmbedder(), [image, image], cache, [key(1), key(2)])
    np.testing.assert_array_equal(found[0], 1)
    np.testing.assert_array_equal(found[1], image.reshape(-1)[:3])


def test_pixels_of_another_shape_have_another_key() -> None:
    """The hash is over shape and values, whatever the memory layout."""
    image = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    assert hash_pixels(image) != hash_pixels(image.reshape(4, 3, 3))
    assert hash_pixels(image) == hash_pixels(np.asfortranarray(image))
    assert len(hash_pixels(image)) == 32


def test_the_default_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """XDG_CACHE_HOME decides, and ~/.cache where it is not set or empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "poolproof" / "embeddings"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "poolproof" / "embeddings"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A file in the way gives one line."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="can be written") as caught:
        EmbeddingCache(tmp_path / "file" / "cache", "a reader").put_many(vectors(1))
    assert "\n" not in str(caught.value)
