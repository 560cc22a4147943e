"""Results that are remembered on disk by what they were computed from."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from poolproof.errors import InputError
from poolproof.files import hash_json, write_json


def default_cache() -> Path:
    """Where results are remembered unless told otherwise: under XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "poolproof"


def remember(folder: Path | None, content: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
    """What `compute` gives for this content, read from the folder where it is there and whole.

    The file's name is the hash of the content and the content stands in it, so nothing is mistaken for something
    else, and a damaged file is made anew. Files appear at once or not at all, so several processes may share
    a folder.

    Args:
        folder: made where it is missing; None remembers nothing.
        content: all that the result depends on, as JSON.
        compute: gives a JSON value.
    """
    if folder is None:
        return compute()
    key = hash_json(content)
    path = folder / key[:2] / f"{key}.json"
    known = _read(path)
    if isinstance(known, dict) and known.get("content") == content and "result" in known:
        return known["result"]
    result = compute()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"content": content, "result": result})
    except OSError as error:
        raise InputError(
            f"cache: got {str(folder)!r} ({error.strerror}), allowed a folder that can be written; "
            "give another with --cache, or --no-cache"
        ) from error
    return result


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
