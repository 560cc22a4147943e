"""Marks across generations: written into synthetic samples, searched for in those of models that learnt from them."""

from __future__ import annotations

import abc
import hashlib
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from jaxtyping import Float

from poolproof.errors import InputError
from poolproof.simulate.generator import OtherSamples, Samples
from poolproof.simulate.loop_spec import MarkSpec
from poolproof.watermark.key import Key
from poolproof.watermark.payloads import load_payloads
from poolproof.watermark.presence import embed_presence, measure_presence, presence_pvalues
from poolproof.watermark.schemes import AbstractScheme, DwtScheme, SpreadScheme

MOST_READ: Final = 1000
"""Samples of a generation that are read one after the other."""


class AbstractLoopMark(abc.ABC):
    """A mark as loops use it: on stacks of samples."""

    @abc.abstractmethod
    def write(self, samples: Samples) -> Samples:
        """Marked copies, in the type they came in.

        Raises:
            InputError: samples that this mark cannot be written into.
        """

    @abc.abstractmethod
    def pvalues(self, samples: Samples) -> Float[np.ndarray, " n"]:
        """A p-value for each sample alone, in (0, 1]."""

    @abc.abstractmethod
    def measure(self, samples: Samples, real: OtherSamples, level: float | int) -> dict[str, float | None]:
        """Figures of the mark in samples that were not marked themselves.

        Args:
            samples: of one generation.
            real: unmarked real samples, whose mean is taken off where the scheme can use it.
            level: samples with a p-value below it count as detected.

        Returns:
            `mark_strength` in units of what was written, `mark_z` (strength over its error), `mark_p_value` of the
            samples together, `mark_detected` (share detected alone), `mark_bit_accuracy`; None where a scheme has
            no such figure.
        """


@final
@dataclass(frozen=True)
class PresenceMark(AbstractLoopMark):
    """The keyed pattern of `watermark/presence.py`.

    Attributes:
        key: whose.
        amplitude: in grey levels, root mean square.
    """

    key: Key
    amplitude: float | int

    def write(self, samples: Samples) -> Samples:
        """The samples with the pattern added."""
        return embed_presence(samples, self.key, self._scaled(samples))

    def pvalues(self, samples: Samples) -> Float[np.ndarray, " n"]:
        """Exact over keys."""
        return presence_pvalues(samples, self.key)

    def measure(self, samples: Samples, real: OtherSamples, level: float | int) -> dict[str, float | None]:
        """By matched filter against the mean of the real samples."""
        found = measure_presence(samples, self.key, reference=real)
        return {
            "mark_strength": found.strength / self._scaled(samples),
            "mark_z": found.strength / found.stderr if found.stderr > 0 else None,
            "mark_p_value": found.p_value,
            "mark_detected": float((self.pvalues(samples[:MOST_READ]) < level).mean()),
            "mark_bit_accuracy": None,
        }

    def _scaled(self, samples: Samples) -> float:
        return float(self.amplitude) if samples.dtype == np.uint8 else self.amplitude / 127.5


@final
@dataclass(frozen=True)
class SchemeMark(AbstractLoopMark):
    """A scheme that marks and reads one image after the other.

    Attributes:
        scheme: of `watermark/schemes.py`.
    """

    scheme: AbstractScheme

    def write(self, samples: Samples) -> Samples:
        """Each image marked; grey ones as three equal channels, whose mean is taken afterwards."""
        marked = [self.scheme.embed(pixels) for pixels in _to_colour(samples)]
        images = np.stack(marked)
        if samples.shape[3] == 1:
            images = np.rint(images.mean(axis=3, keepdims=True)).astype(np.uint8)
        if samples.dtype == np.uint8:
            return images
        return (images / np.float32(127.5) - np.float32(1)).astype(samples.dtype)

    def pvalues(self, samples: Samples) -> Float[np.ndarray, " n"]:
        """As the scheme reads them."""
        return np.array([self.scheme.read(pixels).p_value for pixels in _to_colour(samples)])

    def measure(self, samples: Samples, real: OtherSamples, level: float | int) -> dict[str, float | None]:
        """By reading up to `MOST_READ` images; strength is not defined for such schemes."""
        del real
        readings = [self.scheme.read(pixels) for pixels in _to_colour(samples[:MOST_READ])]
        p_values = np.array([reading.p_value for reading in readings])
        bits = [reading.bits for reading in readings if reading.bits is not None]
        accuracy = float(np.mean(np.array(bits) == self.scheme.bits)) if self.scheme.bits and bits else None
        return {
            "mark_strength": None,
            "mark_z": None,
            # by Bonferroni over the images: the smallest of n times n, valid under any dependence
            "mark_p_value": float(min(1.0, p_values.min() * len(p_values))),
            "mark_detected": float((p_values < level).mean()),
            "mark_bit_accuracy": accuracy,
        }


@final
@dataclass(frozen=True)
class ShiftMark(AbstractLoopMark):
    """A shift of points along their first coordinate: the mark of the theory.

    Attributes:
        amplitude: the shift.
    """

    amplitude: float | int

    def write(self, samples: Samples) -> Samples:
        """The points, moved."""
        shift = np.zeros(samples.shape[1:], samples.dtype)
        shift.flat[0] = self.amplitude
        return samples + shift

    def pvalues(self, samples: Samples) -> Float[np.ndarray, " n"]:
        """Refused: a single point shows no shift."""
        raise InputError("policy.flags: got 'mark' for points, allowed for images; use kind = 'set'")

    def measure(self, samples: Samples, real: OtherSamples, level: float | int) -> dict[str, float | None]:
        """By the difference of the first coordinate's means.

        There is no p-value: the models' own wandering moves the mean as well, and shows only over seeds.
        """
        del level
        first, other = samples.reshape(len(samples), -1)[:, 0], real.reshape(len(real), -1)[:, 0]
        strength = float(first.mean() - other.mean()) / self.amplitude
        return {
            "mark_strength": strength,
            "mark_z": None,
            "mark_p_value": None,
            "mark_detected": None,
            "mark_bit_accuracy": None,
        }


def make_mark(spec: MarkSpec, shape: tuple[int, ...]) -> AbstractLoopMark:
    """The mark that a spec describes, for samples of a shape.

    Args:
        spec: what to write.
        shape: of one sample.

    Raises:
        InputError: an unknown scheme, or one that needs larger images.
    """
    key = make_key(spec.seed)
    if spec.scheme == "shift":
        return ShiftMark(spec.amplitude)
    if spec.scheme == "presence":
        mark: AbstractLoopMark = PresenceMark(key, spec.amplitude)
    elif spec.scheme == "spread":
        mark = SchemeMark(SpreadScheme(key))
    else:
        payloads = {payload.name: payload for payload in load_payloads()}
        if spec.scheme not in payloads:
            raise InputError(
                f"mark.scheme: got {spec.scheme!r}, allowed presence, spread, shift, {', '.join(payloads)}"
            )
        mark = SchemeMark(DwtScheme(payloads[spec.scheme]))
    trial = np.full((1, *shape), 128, np.uint8)
    try:
        mark.write(trial)
    except InputError as error:
        raise InputError(
            f"mark.scheme: got {spec.scheme!r} for samples of shape {shape}, allowed a mark that fits: {error}"
        ) from error
    return mark


def make_key(seed: int) -> Key:
    """A key that depends on the seed alone: for experiments, not for secrets."""
    return Key(hashlib.sha256(f"poolproof loop mark {seed}".encode()).digest())


def _to_colour(samples: Samples) -> Any:
    """Bytes in RGB."""
    images = (
        samples
        if samples.dtype == np.uint8
        else np.clip(np.rint((samples + 1) * 127.5), 0, 255).astype(np.uint8)
    )
    return np.repeat(images, 3, axis=3) if images.shape[3] == 1 else images
