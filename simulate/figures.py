"""The figures of a loop of trained generators by column: what each means and how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final


@final
@dataclass(frozen=True)
class Figure:
    """One figure of a generation.

    Attributes:
        heading: above its chart.
        axis: what its axis measures, with the unit.
        meaning: what it says, in a sentence.
        panel: part of the page that it stands in, a key of `PANELS`.
        is_share: whether it lies in [0, 1].
        log: whether a logarithmic axis suits where it grows manifold.
        is_charted: whether it has a chart; the table of figures has all.
    """

    heading: str
    axis: str
    meaning: str
    panel: str
    is_share: bool = False
    log: bool = False
    is_charted: bool = True


PANELS: Final[Mapping[str, str]] = {
    "distance": "Distance from the real data",
    "precision": "Precision and recall",
    "density": "Density and coverage",
    "accuracy": "Classes",
    "modes": "Variety",
    "marks": "Marks",
    "policy": "Arms and policies",
    "size": "Effective size",
}
"""Parts of the page by name, in order, with their headings."""

FIGURES: Final[Mapping[str, Figure]] = {
    "frechet_distance": Figure(
        "Fréchet distance",
        "Fréchet distance (squared)",
        "Between normal fits to the features of samples and of real data; smaller is better.",
        "distance",
        log=True,
    ),
    "kernel_distance": Figure(
        "Kernel distance",
        "kernel distance (squared)",
        "Squared maximum mean discrepancy of the features; unbiased, so it can fall below 0.",
        "distance",
    ),
    "squared_w2": Figure(
        "Squared W2 distance",
        "squared W2 distance",
        "2-Wasserstein distance from the truth, squared; smaller is better.",
        "distance",
        log=True,
    ),
    "precision": Figure(
        "Precision",
        "precision",
        "Share of samples that lie where real data lie: it falls as quality is lost.",
        "precision",
        is_share=True,
    ),
    "recall": Figure(
        "Recall",
        "recall",
        "Share of real data that lie where samples lie: it falls as variety is lost.",
        "precision",
        is_share=True,
    ),
    "density": Figure(
        "Density",
        "density",
        "Real neighbourhoods that a sample lies in, over those expected: like precision, but not misled by "
        "single outliers. It can exceed 1.",
        "density",
    ),
    "coverage": Figure(
        "Coverage",
        "coverage",
        "Share of real data with a sample in their neighbourhood: like recall, but not misled by single "
        "outliers.",
        "density",
        is_share=True,
    ),
    "class_accuracy": Figure(
        "Samples in their class",
        "share of samples",
        "Share of samples that a classifier trained on real images puts in the class they were made for.",
        "accuracy",
        is_share=True,
    ),
    "trained_accuracy": Figure(
        "Classifier trained on samples",
        "accuracy on real images",
        "Accuracy on real images of a classifier that learnt from samples alone.",
        "accuracy",
        is_share=True,
    ),
    "variance": Figure(
        "Variance",
        "variance of the features, over that of real data",
        "Total variance of the features over that of real data: 1 is right. It can look healthy while modes vanish.",
        "modes",
        log=True,
    ),
    "n_modes": Figure(
        "Modes kept",
        "modes with samples",
        "Modes of the real data that still have samples.",
        "modes",
    ),
    "high_quality": Figure(
        "Samples near a mode",
        "share of samples",
        "Share of samples that lie near some mode of the real data.",
        "modes",
        is_share=True,
    ),
    "mode_variance": Figure(
        "Variance within modes",
        "variance within a mode",
        "Variance of the samples about their mode: it shrinks before modes vanish.",
        "modes",
        log=True,
    ),
    "mark_strength": Figure(
        "Strength of the mark",
        "strength, amplitudes written",
        "How much of the mark the samples carry; 1 is the amplitude that was written.",
        "marks",
    ),
    "mark_z": Figure(
        "Significance of the mark",
        "z score of the whole set",
        "Standard errors by which the mark stands out over all samples together.",
        "marks",
        log=True,
    ),
    "mark_p_value": Figure(
        "p-value of the mark",
        "p-value of the whole set",
        "Chance of a mark that strong in images without one.",
        "marks",
        is_share=True,
        is_charted=False,  # its mean over seeds says little; the z score tells the same over many decades
    ),
    "mark_detected": Figure(
        "Marked images found",
        "share of images",
        "Share of samples in which the mark is found alone, at the level of the spec, which holds over random "
        "keys, not for each key.",
        "marks",
        is_share=True,
    ),
    "mark_bit_accuracy": Figure(
        "Bits of the mark",
        "share of bits read right",
        "Share of the message's bits that are read right; guessing gives 0.5.",
        "marks",
        is_share=True,
    ),
    "flag_tpr": Figure(
        "Synthetic images flagged",
        "share of synthetic images",
        "Share of the synthetic images of the pool that the policy's detector flagged (TPR).",
        "policy",
        is_share=True,
    ),
    "flag_fpr": Figure(
        "Real images flagged",
        "share of real images",
        "Share of the real images of the pool that the policy's detector flagged (FPR).",
        "policy",
        is_share=True,
    ),
    "n_e": Figure(
        "Effective size",
        "n_e, real images that do as well",
        "Real images that alone would give the same distance.",
        "size",
        log=True,
    ),
    "ratio": Figure(
        "Effective over real size",
        "n_e / n_real",
        "From 1 up the synthetic images cost no effective real ones.",
        "size",
        log=True,
    ),
}
"""The figures of a generation by column, in the order of the page."""
