"""Weights are listed without the network, and a failed fetch is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from poolproof.detectors.weights import SUGGESTED, list_weights, pull_weights
from poolproof.errors import InputError


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Hugging Face cache with nothing in it."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_nothing_is_here(empty_cache: Path) -> None:
    """With an empty cache every suggested spec is listed as absent."""
    listed = list_weights()
    assert [weights.spec for weights in listed] == list(SUGGESTED)
    assert all(weights.path is None for weights in listed if "openai" not in weights.spec)


def test_pull_returns_the_cached_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are here are not fetched again."""
    monkeypatch.setattr("poolproof.detectors.weights.find_weights", lambda spec: tmp_path / spec[5:])
    assert pull_weights("clip:a/b") == tmp_path / "a/b"


def test_pull_of_an_unknown_spec(empty_cache: Path) -> None:
    """A tag that open_clip does not have is refused with an example."""
    with pytest.raises(InputError, match="clip:ViT-B-32"):
        pull_weights("clip:ViT-B-32/no-such-tag")


def test_pull_of_timm_without_network_is_one_line(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of timm come from the hub, and a hub that cannot be reached is one line."""

    def unreachable(*args: object, **kwargs: object) -> str:
        raise ConnectionError("no route to\nhost")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", unreachable)
    for spec in ("timm:vit_small_patch16_dinov3/lvd1689m", "rigid"):
        with pytest.raises(InputError, match="no route to host") as raised:
            pull_weights(spec)
        assert "\n" not in str(raised.value)


def test_pull_of_timm_takes_the_file_that_the_hub_has(
    empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a repository has no safetensors, its other file is fetched."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    asked: list[str] = []

    def fetch(repository: str, name: str) -> str:
        asked.append(f"{repository}/{name}")
        if name.endswith("safetensors"):
            raise LocalEntryNotFoundError("not there")
        return "/somewhere/weights.bin"

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    assert pull_weights("timm:test_vit/r160_in1k") == Path("/somewhere/weights.bin")
    assert asked == [f"timm/test_vit.r160_in1k/{name}" for name in ("model.safetensors", "pytorch_model.bin")]


def test_nothing_is_pulled_for_weight_free_features(empty_cache: Path) -> None:
    """The weight-free features need no file, and the answer says so."""
    with pytest.raises(InputError, match="needs no weights"):
        pull_weights("forensic")


def test_pull_without_network_is_one_line(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A publisher that cannot be reached is an InputError that names the spec."""

    def unreachable(*args: object, **kwargs: object) -> str:
        raise ConnectionError("no route to\nhost")

    monkeypatch.setattr("open_clip.pretrained.download_pretrained", unreachable)
    with pytest.raises(InputError, match="no route to host") as raised:
        pull_weights(SUGGESTED[0])
    assert "\n" not in str(raised.value)
