"""Where networks are trained: the processor, or a graphics processor."""

from __future__ import annotations

from poolproof.errors import InputError


def find_device(name: str) -> str:
    """`cpu` or `cuda`: the device that was asked for, or for `auto` the best that is there.

    Raises:
        InputError: `cuda` where there is none.
    """
    import torch

    if name == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if name == "cuda":
        raise InputError("device: got 'cuda', allowed 'cpu' or 'auto' where there is none; choose one")
    return "cpu"
