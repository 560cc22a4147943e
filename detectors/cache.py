"""Vectors of images, remembered on disk by the image's hash and by what made them.

One SQLite file per reader, so that several processes may read and write at once. A vector whose checksum does
not fit is as good as absent, and a file that is damaged is made anew: a cache can lose entries, never invent one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, final

import numpy as np
from jaxtyping import Float32, UInt8

from poolproof.detectors.backbone import READER_VERSION, AbstractEmbedder
from poolproof.errors import InputError

_ASKED: Final = 500
"""Keys in one question; SQLite allows 999 in its oldest releases."""

_PATIENCE: Final = 60.0
"""Seconds for which a process waits until another has written."""

_ATTEMPTS: Final = 3

_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, checksum INTEGER NOT NULL, vector BLOB NOT NULL) "
    "WITHOUT ROWID"
)


def default_cache() -> Path:
    """Where vectors are remembered unless told otherwise: under XDG_CACHE_HOME, or ~/.cache."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "poolproof" / "embeddings"


def reader_identity(embedder: AbstractEmbedder) -> str:
    """Return all that a reader's vectors depend on, apart from the image, as one line."""
    parts = [embedder.name, embedder.weights_sha256, embedder.precision, READER_VERSION]
    return json.dumps(parts)


def hash_pixels(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """Return the key of an image of which only the pixels are known."""
    digest = hashlib.sha256(f"pixels {pixels.shape}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


@final
class EmbeddingCache:
    """Vectors of one reader by the hashes of images.

    Args:
        folder: made on the first write.
        identity: of the reader, as `reader_identity` gives it. Another one has other vectors.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.identity = identity
        self.path = folder / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.sqlite"

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Float32[np.ndarray, " d"]]:
        """Return the vectors that are remembered, by key; what is absent or damaged is left out.

        Args:
            keys: hashes of images, of their encoded bytes or their pixels.
        """
        found: dict[bytes, np.ndarray] = {}
        wanted = list(dict.fromkeys(keys))
        if not wanted or not self.path.is_file():
            return found
        try:
            with self._open() as connection:
                for start in range(0, len(wanted), _ASKED):
                    part = wanted[start : start + _ASKED]
                    marks = ",".join("?" * len(part))
                    question = f"SELECT key, checksum, vector FROM vectors WHERE key IN ({marks})"
                    for key, checksum, blob in connection.execute(question, part):
                        if isinstance(blob, bytes) and blob and checksum == _checksum(key, blob):
                            found[bytes(key)] = np.frombuffer(blob, "<f4").astype(np.float32)
        except sqlite3.OperationalError:
            pass  # no table yet, or a file that cannot be read: what is not found is made anew
        except sqlite3.DatabaseError:
            self.clear()
        return found

    def put_many(self, vectors: Mapping[bytes, Float32[np.ndarray, " d"]]) -> None:
        """Remembers vectors by key; one that is there is replaced.

        Raises:
            InputError: the folder cannot be written.
        """
        if not vectors:
            return
        blobs = {key: np.ascontiguousarray(vector, "<f4").tobytes() for key, vector in vectors.items()}
        rows = [(key, _checksum(key, blob), blob) for key, blob in blobs.items()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for attempt in range(_ATTEMPTS):
                try:
                    return self._write(rows)
                except sqlite3.DatabaseError as error:
                    # Damaged, of another layout, or taken away by a process that found it so.
                    if attempt == _ATTEMPTS - 1:
                        raise
                    if not isinstance(error, sqlite3.OperationalError) or "no column" in str(error):
                        self.clear()
        except (OSError, sqlite3.DatabaseError) as error:
            raise InputError(
                f"cache: got {str(self.folder)!r} ({error}), allowed a folder that can be written; "
                "give another or leave it out"
            ) from error

    def clear(self) -> None:
        """Forgets all vectors of this reader."""
        for suffix in ("", "-journal"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    def _write(self, rows: Sequence[tuple[bytes, int, bytes]]) -> None:
        with self._open() as connection, connection:
            connection.execute(_TABLE)
            connection.executemany(
                "INSERT OR REPLACE INTO vectors (key, checksum, vector) VALUES (?, ?, ?)", rows
            )

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self.path, timeout=_PATIENCE)
        try:
            yield connection
        finally:
            connection.close()


def embed_cached(
    embedder: AbstractEmbedder,
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
    cache: EmbeddingCache | None,
    keys: Sequence[bytes] | None = None,
) -> Float32[np.ndarray, "n d"]:
    """Return the vectors of images, from the cache where it has them; the others are made and remembered.

    Args:
        embedder: makes them.
        images: RGB, of any sizes.
        cache: of this embedder, by `reader_identity`; None makes all.
        keys: hashes of the images' encoded bytes, None to take those of the pixels.
    """
    if cache is None:
        return embedder.embed(images)
    named = [hash_pixels(pixels) for pixels in images] if keys is None else list(keys)
    known = {key: v for key, v in cache.get_many(named).items() if len(v) == embedder.dim}
    todo = {key: pixels for key, pixels in zip(named, images, strict=True) if key not in known}
    if todo:
        made = dict(zip(todo, embedder.embed(list(todo.values())), strict=True))
        cache.put_many(made)
        known |= made
    return np.stack([known[key] for key in named]) if named else np.zeros((0, embedder.dim), np.float32)


def _checksum(key: bytes, blob: bytes) -> int:
    return zlib.crc32(blob, zlib.crc32(key))
