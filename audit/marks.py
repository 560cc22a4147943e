"""Marks in pools: one row per image, and what the rows say about the pool."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, final

import numpy as np
from jaxtyping import UInt8

from poolproof.audit.decode import Header, decode_image
from poolproof.audit.images import EncodedImage
from poolproof.audit.pool import Unread
from poolproof.detectors.prevalence import Interval, interval
from poolproof.watermark.attacks import jpeg
from poolproof.watermark.dwt import Variant
from poolproof.watermark.key import Key
from poolproof.watermark.payloads import Payload
from poolproof.watermark.public_marks import Support, best_reading, plan_search, read_supports
from poolproof.watermark.screening import Container, PooledSearch, draw_controls, would_be_found
from poolproof.watermark.significance import DETECTION_LEVEL, sign_tail
from poolproof.watermark.spread import SCALES, detect_spread

if TYPE_CHECKING:
    import pyarrow as pa

OWN: Final = "own"
"""Payload name of a keyed mark."""

_LOSSLESS: Final = ("PNG", "BMP", "PPM", "TIFF")
_NULL_IMAGES: Final = 1_000_000
"""Unmarked images that a level of 1e-6 stands for in the correction: none of them is found."""


@final
@dataclass(frozen=True)
class Detection:
    """What one image says of marks.

    Attributes:
        key: of the image in its pool, or its path.
        status: `scored`, or why it was not, as in an audit.
        reason: `code: detail` where it was not scored.
        payload: of the best test; `own` for a keyed mark; None where nothing could be tested.
        variant: how that would have been written, None for a keyed mark.
        p_value: corrected for all tests on the image.
        detected: whether that lies below the level; None where nothing could be tested.
        bits: payload of a keyed mark as 0 and 1, None where it was not recovered.
    """

    key: str
    status: str
    reason: str | None
    payload: str | None = None
    variant: str | None = None
    p_value: float | None = None
    detected: bool | None = None
    bits: str | None = None


@final
@dataclass(frozen=True)
class MarkSearch:
    """What is sought in every image: public payloads, or the mark of one key.

    Args:
        payloads: public ones, in all variants of their algorithms.
        key: seeks this key's mark in place of public ones.
        n_bits: payload length of the keyed mark.
        scales: enlargements tried for it.
        level: detection is a p-value below it.
        n_controls: control payloads tried beside each public one, to show what chance finds.
        n_power: images, evenly spaced, in which a control mark is written to see whether it would be found.
        total: images altogether.
        seed: of controls.
    """

    payloads: tuple[Payload, ...] = ()
    key: Key | None = None
    n_bits: int = 0
    scales: tuple[float, ...] = SCALES
    level: float = DETECTION_LEVEL
    n_controls: int = 0
    n_power: int = 0
    total: int = 1
    seed: int = 0

    def examine(self, image: EncodedImage) -> Examined:
        """The image's detection, and what goes into the pool's figures. Never raises for an image."""
        if isinstance(image.data, Unread):
            return Examined(Detection(image.key, image.data.status, image.data.reason))
        decoded = decode_image(image.data)
        if decoded.pixels is None:
            return Examined(Detection(image.key, decoded.status, decoded.reason))
        if self.key is not None:
            return Examined(self._keyed(image.key, decoded.pixels))
        supports = list(read_supports(decoded.pixels, self.payloads))
        reading = best_reading(supports, self.n_tests)
        if reading is None:
            reason = "too-small: fewer than 65536 pixels; the public schemes mark no smaller images"
            return Examined(Detection(image.key, "scored", reason))
        detection = Detection(
            key=image.key,
            status="scored",
            reason=None,
            payload=reading.payload,
            variant=str(reading.variant),
            p_value=reading.p_value,
            detected=reading.p_value < self.level,
        )
        return Examined(
            detection,
            supports,
            self._find_controls(supports, image.position),
            self._would_be_found(decoded.pixels, decoded.header, image.position),
        )

    @property
    def n_tests(self) -> int:
        """Tests on one image."""
        return len(plan_search(self.payloads))

    def _keyed(self, key: str, pixels: UInt8[np.ndarray, "h w 3"]) -> Detection:
        assert self.key is not None
        found = detect_spread(pixels, self.key, self.n_bits, scales=self.scales)
        detected = found.p_value < self.level
        bits = "".join(map(str, found.bits)) if detected and found.bits is not None else None
        return Detection(key, "scored", None, OWN, None, found.p_value, detected, bits)

    def _find_controls(self, supports: list[Support], position: int) -> int:
        """Control payloads that the image seems to carry, each tested as the true ones are."""
        if not self.n_controls:
            return 0
        rng = np.random.default_rng((self.seed, position))
        found = 0
        for payload, _, values, _ in supports:
            # a control's supports are those of the true payload with signs drawn anew
            magnitudes = values * (2 * np.array(payload.bits)[np.array(payload.free)] - 1)
            for control in draw_controls((payload,), self.n_controls, rng=rng):
                signs = 2 * np.array(control.bits)[np.array(control.free)] - 1
                found += self.n_tests * sign_tail(magnitudes * signs) < self.level
        return found

    def _would_be_found(
        self, pixels: UInt8[np.ndarray, "h w 3"], header: Header | None, position: int
    ) -> bool | None:
        stride = self.total / self.n_power if self.n_power else 0.0
        # the positions of a sample without randomness: the first of each stretch of equal length
        if not self.n_power or (stride > 1 and int((position - 1) // stride) == int(position // stride)):
            return None
        turn = int(position // stride) if stride > 1 else position
        rng = np.random.default_rng((self.seed, position, 1))
        return control_found(pixels, header, self.payloads, turn, level=self.level, rng=rng)


def control_found(
    pixels: UInt8[np.ndarray, "h w 3"],
    header: Header | None,
    payloads: tuple[Payload, ...],
    turn: int,
    *,
    level: float = DETECTION_LEVEL,
    rng: np.random.Generator,
) -> bool | None:
    """Whether a mark written into this image would be found in a file like the image's own.

    None where that is not known: too small an image, or a format whose loss cannot be repeated.

    Args:
        pixels: RGB, as decoded.
        header: of the file.
        payloads: of the search.
        turn: picks the payload and writer that the control imitates; counting up goes through all of them.
        level: of the search.
        rng: draws the control's bits.

    Assumes: as `screening.would_be_found`.
    """
    known, container = _container_of(header)
    if not known or not payloads:
        return None
    payload = payloads[turn % len(payloads)]
    habits = [Variant(payload.algorithm, w.array, w.channels) for w in payload.writers]
    variant = habits[turn // len(payloads) % len(habits)] if habits else Variant(payload.algorithm)
    n_tests = len(plan_search(payloads))
    return would_be_found(pixels, payload, variant, container, n_tests=n_tests, level=level, rng=rng)


@final
@dataclass(frozen=True)
class Examined:
    """One image's detection and its part in the pool's figures."""

    detection: Detection
    supports: list[Support] = field(default_factory=list)
    controls_found: int = 0
    would_be_found: bool | None = None


@final
@dataclass
class MarkSummary:
    """What detections say about a pool, taken in one by one.

    Args:
        search: that was made.
    """

    search: MarkSearch
    n_images: int = 0
    n_tested: int = 0
    n_detected: int = 0
    payloads: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    controls_found: int = 0
    power_found: int = 0
    power_tested: int = 0

    def __post_init__(self) -> None:
        self._pooled = PooledSearch(self.search.payloads)

    def update(self, examined: Examined) -> None:
        """Takes in one image."""
        detection = examined.detection
        self.n_images += 1
        self.statuses[detection.status] += 1
        if detection.p_value is not None:
            self.n_tested += 1
        if detection.detected:
            self.n_detected += 1
            self.payloads[str(detection.payload)] += 1
        if examined.supports:
            self._pooled.add(examined.supports)
        self.controls_found += examined.controls_found
        if examined.would_be_found is not None:
            self.power_tested += 1
            self.power_found += examined.would_be_found

    @property
    def controls_tested(self) -> int:
        """Tests of control payloads."""
        return self.n_tested * self.search.n_tests * self.search.n_controls

    def pooled(self) -> tuple[str, str, float] | None:
        """Payload, variant and p-value of the best test on all images together; None without any."""
        p_values = self._pooled.compute()
        if not p_values:
            return None
        (payload, variant), p_value = min(p_values.items(), key=lambda item: item[1])
        return payload, str(variant), p_value

    def corrected_share(self, level: float = 0.95) -> Interval | None:
        """The share of images that were marked, corrected for marks that the search misses.

        None where no recall was measured. The upper limit is near 1 where the recall is near 0: then the
        images found say nothing of those that were not.

        Assumes: as `screening.would_be_found`, and that the images in which control marks were written stand for
            the pool.
        """
        if not self.power_tested or not self.n_tested:
            return None
        return marked_share(self.n_detected, self.n_tested, self.power_found, self.power_tested, level=level)

    def as_dict(self) -> dict[str, Any]:
        """The summary for JSON."""
        share, pooled = self.corrected_share(), self.pooled()
        return {
            "images": self.n_images,
            "status": dict(sorted(self.statuses.items())),
            "tested": self.n_tested,
            "detected": self.n_detected,
            "payloads": dict(self.payloads.most_common()),
            "level": self.search.level,
            "recall": {"found": self.power_found, "tested": self.power_tested},
            "controls": {"found": self.controls_found, "tested": self.controls_tested},
            "share": None
            if share is None
            else {"point": share.point, "lower": share.lower, "upper": share.upper, "level": share.level},
            "pooled": None
            if pooled is None
            else {"payload": pooled[0], "variant": pooled[1], "p_value": pooled[2]},
        }


def marked_share(
    detected: int, tested: int, found: int, tried: int, *, level: float = 0.95
) -> Interval | None:
    """The share of images that were marked, corrected for the recall of the search; None where that is not known.

    Args:
        detected: images with a mark, of those tested.
        tested: images that could be tested.
        found: control marks that would be found, of those tried.
        tried: control marks.
        level: confidence level in (0, 1).

    Source: `prevalence.interval`, with a rate of false alarms below the level of detection.
    Assumes: as `screening.would_be_found`, and that the images tried stand for the pool.
    """
    if not tried or not tested:
        return None
    return interval(detected, tested, found, tried, 0, _NULL_IMAGES, level=level)


def _container_of(header: Header | None) -> tuple[bool, Container | None]:
    """Whether the file's effect on pixels is known, and that effect; None for lossless files."""
    if header is None:
        return False, None
    if header.format in _LOSSLESS:
        return True, None
    quality, subsampling = header.quality, (header.subsampling or "").replace(":", "")
    if header.format in ("JPEG", "MPO") and quality is not None and subsampling in ("444", "422", "420"):
        return True, lambda pixels: jpeg(pixels, quality, subsampling)
    return False, None


def detections_table(detections: list[Detection]) -> pa.Table:
    """Detections as a table that joins an audit's evidence by `key`.

    Columns `mark_payload`, `mark_variant`, `mark_pvalue` and `marked` mean what they mean there; `mark_qvalue` is the
    smallest false discovery rate at which the image is called marked.

    Source: Benjamini and Hochberg, "Controlling the false discovery rate", 1995.
    Assumes: for the q-values, that images are independent or positively dependent.
    """
    import pyarrow as pa
    from scipy.stats import false_discovery_control

    p_values = [d.p_value for d in detections]
    known = [p for p in p_values if p is not None]
    adjusted = iter(false_discovery_control(known).tolist() if known else [])
    columns = {
        "key": pa.array([d.key for d in detections], pa.string()),
        "status": pa.array([d.status for d in detections], pa.string()),
        "reason": pa.array([d.reason for d in detections], pa.string()),
        "marked": pa.array([d.detected for d in detections], pa.bool_()),
        "mark_payload": pa.array([d.payload for d in detections], pa.string()),
        "mark_variant": pa.array([d.variant for d in detections], pa.string()),
        "mark_pvalue": pa.array(p_values, pa.float64()),
        "mark_qvalue": pa.array([None if p is None else next(adjusted) for p in p_values], pa.float64()),
        "mark_bits": pa.array([d.bits for d in detections], pa.string()),
    }
    return pa.table(columns)
