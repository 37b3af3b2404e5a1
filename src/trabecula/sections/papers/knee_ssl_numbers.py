"""What Rajamohan et al. 2026 print: the values of their tables, as they stand in the text.

H. R. Rajamohan et al. 2026, "Self-Supervised Learning for Knee Osteoarthritis: Diagnostic Limitations and
Prognostic Value of Uncurated Hospital Data", arXiv 2603.24903v1. Their version 2, a day later, has the same
experiments and explains them in another way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

CITATION = (
    "Rajamohan et al. 2026, Self-Supervised Learning for Knee Osteoarthritis, arXiv 2603.24903, version 1 "
    "(version 2 explains the findings in another way)"
)
SETTING = (
    "57,325 knees of OAI, MOST and NYU to pretrain on, 100 epochs, ResNet-34 (chests ResNet-50, MAE "
    "ViT-Small), settings searched in 50 trials, mean (SD) over 10 seeds, no intervals"
)
MARK = "(paper)"
PAPER = f"Rajamohan 2026 {MARK}"
FRACTIONS = (0.01, 0.05, 0.1)
NO_SD = "†"

Value = tuple[float, float | None]
"""Mean, and SD over seeds; None where the paper prints none."""


@dataclass(frozen=True)
class Line:
    """One row of a table: an approach, and by column what is printed, "" for a dash."""

    approach: str
    printed: Sequence[str]
    group: str = ""


@dataclass(frozen=True)
class Printed:
    """One of the paper's tables: columns are (mode, fraction)."""

    name: str
    what: str
    network: str
    metric: str
    columns: Sequence[tuple[str, float]]
    lines: Sequence[Line]

    def value(self, line: Line, mode: str, fraction: float) -> Value | None:
        """What the line has there; None where it has nothing."""
        found = dict(zip(self.columns, line.printed, strict=True)).get((mode, fraction), "")
        return _value(found) if found else None


def _value(printed: str) -> Value:
    mean, _, rest = printed.partition(" (")
    return float(mean), float(rest.removesuffix(")")) if rest else None


_BOTH = tuple((mode, fraction) for fraction in FRACTIONS for mode in ("finetune", "probe"))
_FINE_TUNED = tuple(("finetune", fraction) for fraction in FRACTIONS)

_KNEES = (
    Line("Random", ("0.397 (0.042)", "0.200", "0.555 (0.011)", "0.200", "0.619 (0.015)", "0.200")),
    Line("Imgnet-pret", ("0.483 (0.040)", "0.263", "0.613 (0.014)", "0.308", "0.646 (0.009)", "0.320")),
    Line("MoCo (Knee)", ("0.475 (0.050)", "0.368", "0.606 (0.010)", "0.411", "0.636 (0.012)", "0.422")),
    Line("Barlow (Knee)", ("0.425 (0.063)", "0.324", "0.589 (0.018)", "0.355", "0.620 (0.010)", "0.358")),
    Line("ViCReg (Knee)", ("0.471 (0.048)", "0.336", "0.585 (0.018)", "0.374", "0.635 (0.007)", "0.373")),
)  # fmt: skip

TABLE_3 = Printed(
    "Table 3", "image-only pretraining on knees, by balanced accuracy", "ResNet-34", "balanced_accuracy",
    _BOTH,
    (
        *_KNEES,
        Line("CNN-JEPA (Knee)",
             ("0.476 (0.043)", "0.253", "0.606 (0.015)", "0.33", "0.631 (0.009)", "0.375")),
    ),
)  # fmt: skip

TABLE_4 = Printed(
    "Table 4", "image-only pretraining on chests, by macro AUROC", "ResNet-50", "auroc_macro", _FINE_TUNED,
    (
        Line("Imgnet-pret", ("0.619 (0.013)", "0.699 (0.011)", "0.732 (0.009)")),
        Line("Chest MoCo", ("0.572 (0.015)", "0.646 (0.012)", "0.680 (0.004)")),
        Line("Chest ViCReg", ("0.558 (0.018)", "0.668 (0.006)", "0.699 (0.004)")),
    ),
)  # fmt: skip

_IN, _CROSS, _MIXED = "in-domain", "cross-domain", "mixed-domain"

TABLE_A1 = Printed(
    "Table A.1", "pretraining on other and on mixed images, knees, by balanced accuracy", "ResNet-34",
    "balanced_accuracy", _BOTH,
    (
        *_KNEES[:2],
        *(Line(line.approach, line.printed, _IN) for line in _KNEES[2:]),
        Line("Chest MoCo", ("0.283 (0.064)", "", "0.563 (0.031)", "", "0.611 (0.009)", ""), _CROSS),
        Line("Chest ViCReg", ("0.330 (0.050)", "", "0.575 (0.010)", "", "0.623 (0.007)", ""), _CROSS),
        Line("Knee+Chest MoCo", ("0.363 (0.033)", "", "0.577 (0.010)", "", "0.636 (0.013)", ""), _MIXED),
        Line("Knee+Chest ViCReg", ("0.330 (0.050)", "", "0.590 (0.014)", "", "0.613 (0.009)", ""), _MIXED),
    ),
)  # fmt: skip

TABLE_A2 = Printed(
    "Table A.2", "pretraining on other and on mixed images, chests, by macro AUROC", "ResNet-50",
    "auroc_macro", _BOTH,
    (
        Line("Imgnet-pret", ("0.619 (0.013)", "0.583", "0.699 (0.011)", "0.614", "0.732 (0.009)", "0.633")),
        Line("Chest MoCo",
             ("0.572 (0.015)", "0.593", "0.646 (0.012)", "0.632", "0.680 (0.004)", "0.648"), _IN),
        Line("Chest Barlow",
             ("0.601 (0.018)", "0.570", "0.676 (0.006)", "0.598", "0.702 (0.006)", "0.615"), _IN),
        Line("Knee MoCo", ("0.544 (0.015)", "", "0.661 (0.010)", "", "0.684 (0.010)", ""), _CROSS),
        Line("Knee ViCReg", ("0.551 (0.017)", "", "0.654 (0.007)", "", "0.668 (0.008)", ""), _CROSS),
        Line("Knee+Chest MoCo", ("0.564 (0.008)", "", "0.613 (0.010)", "", "0.662 (0.008)", ""), _MIXED),
        Line("Knee+Chest Barlow", ("0.598 (0.010)", "", "0.676 (0.007)", "", "0.696 (0.010)", ""), _MIXED),
    ),
)  # fmt: skip

TABLE_B1 = Printed(
    "Table B.1", "masked autoencoders by share of patches hidden, by balanced accuracy", "ViT-Small",
    "balanced_accuracy", _BOTH,
    (
        Line("Imgnet-pret", ("0.489 (0.052)", "0.301 (0.017)", "0.589 (0.013)", "0.345 (0.013)",
                             "0.618 (0.013)", "0.381 (0.010)")),
        Line("MAE 0.25", ("0.398 (0.098)", "0.247 (0.011)", "0.574 (0.012)", "0.305 (0.005)",
                          "0.603 (0.011)", "0.332 (0.005)")),
        Line("MAE 0.35", ("0.498 (0.024)", "0.260 (0.011)", "0.571 (0.012)", "0.324 (0.006)",
                          "0.581 (0.021)", "0.352 (0.005)")),
        Line("MAE 0.5", ("0.399 (0.095)", "0.287 (0.013)", "0.573 (0.007)", "0.358 (0.012)",
                         "0.609 (0.009)", "0.389 (0.012)")),
        Line("MAE 0.6", ("0.464 (0.066)", "0.295 (0.012)", "0.581 (0.017)", "0.373 (0.015)",
                         "0.594 (0.012)", "0.404 (0.017)")),
        Line("MAE 0.7", ("0.445 (0.050)", "0.299 (0.015)", "0.553 (0.011)", "0.374 (0.015)",
                         "0.590 (0.011)", "0.405 (0.015)")),
    ),
)  # fmt: skip

TABLES: Mapping[str, Printed] = {
    table.name: table for table in (TABLE_3, TABLE_4, TABLE_A1, TABLE_A2, TABLE_B1)
}

DOUBTS = {
    "Table 3": "The paper's ImageNet probe with 1 % of labels is 0.263 here and 0.268 in its Table 6.",
    "Table 4": "The paper's has neither a random arm nor linear probes.",
    "Table A.1": (
        "In the paper Chest ViCReg and Knee+Chest ViCReg have the same 0.330 (0.050) with 1 % of labels, and "
        "pools that are not knees alone no linear probes."
    ),
    "Table A.2": "The paper's has no random arm, and of pools that are not chests alone no linear probes.",
    "Table B.1": "The paper's has no random arm.",
}
"""What a reader of the paper's numbers should know, by table."""

RANDOM_PROBE = 0.2
"""Balanced accuracy of its random networks' probes, at every fraction (Table 3)."""

SIZES = {
    "Figure 2": (
        "natural images, 6k to 58k of them and all of ImageNet (1.2M), MoCo, fine-tuned for KL grades: 0.627 "
        "from 58k images and 0.648 from all with 10 % of labels"
    ),
    "Figure 3": (
        "knees, 6k to 58k of them, MoCo, fine-tuned for KL grades: 0.627 from 6k images and 0.636 from 58k "
        "with 10 % of labels"
    ),
    "Figure 4": (
        "natural images, for the ten object classes of Imagenette: it improves with the number of images, "
        "to 0.844 with 10 % of labels"
    ),
}
"""All that the text says of these figures (section 3.2); the curves themselves are not in it."""

SPECTRUM = {"3": 0.93}
"""Shares of grades a proxy classifier gave the hospital's pool (section 3.4); no other is in the text."""
