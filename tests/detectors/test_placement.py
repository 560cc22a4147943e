"""A model that was placed embeds as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from model_files import pictures

from poolproof.detectors.embed import load_embedder
from poolproof.detectors.placement import place_embedder


@pytest.mark.parametrize("form", ["timm:test_vit/{}", "rigid:timm:test_vit/{}"])
def test_a_placed_model_gives_the_same_vectors(form: str, tmp_path: Path) -> None:
    """On the processor, where it was, its vectors are equal; models inside others are placed too."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "tiny.safetensors")
    spec = form.format(tmp_path / "tiny.safetensors")
    before = load_embedder(spec)
    again = load_embedder(spec)
    assert before is not None
    assert again is not None
    placed = place_embedder(again, "cpu")
    assert (placed.name, placed.dim, placed.weights_sha256) == (
        before.name,
        before.dim,
        before.weights_sha256,
    )
    np.testing.assert_array_equal(placed.embed(pictures(5)), before.embed(pictures(5)))


def test_a_model_moves_to_the_device(tmp_path: Path) -> None:
    """Weights and batches go where they are asked to."""
    import timm
    import torch
    from safetensors.torch import save_file

    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "tiny.safetensors")
    embedder = load_embedder(f"timm:test_vit/{tmp_path / 'tiny.safetensors'}")
    assert embedder is not None
    tower = vars(embedder)["encode"]
    place_embedder(embedder, "meta")
    assert {parameter.device for parameter in tower.parameters()} == {torch.device("meta")}
