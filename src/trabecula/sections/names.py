"""Names of metrics, modes, networks and arms as a reader sees them."""

from __future__ import annotations

import re

from trabecula.artifacts.predictions import corner_of
from trabecula.artifacts.results import EvaluatedEncoder
from trabecula.objectives import title
from trabecula.sections.numbers import share

MODES = {"probe": "linear probe", "finetune": "fine-tuning", "imported": "another tool's predictions"}
FAMILY_NAMES = {
    "random": "random initialisation", "imagenet": "ImageNet weights", "weights": "given weights",
}  # fmt: skip
_ARCHITECTURES = {
    "resnet": "ResNet-", "densenet": "DenseNet-", "vgg": "VGG-", "efficientnet_": "EfficientNet-",
    "vit_": "ViT-", "convnext_": "ConvNeXt-", "squeezenet": "SqueezeNet ",
}  # fmt: skip
_VIT = re.compile(r"vit_(?P<size>[a-z]+)_patch(?P<patch>\d+)(?:_\d{3})?[._]?(?P<rest>.*)")
_METRICS = {
    "auroc": "AUROC", "auroc_macro": "macro AUROC",
    "brier": "Brier score", "ece": "calibration error (ECE)", "f1": "F1",
    "macro_f1": "macro F1", "mcc": "Matthews correlation", "mae": "mean absolute error",
    "quadratic_kappa": "quadratic kappa",
    "ppv": "positive predictive value", "npv": "negative predictive value",
}  # fmt: skip


def metric_name(metric: str) -> str:
    name, _, label = metric.partition("[")
    shown = _METRICS.get(name, name.replace("_", " "))
    return f"{shown} of {label.removesuffix(']')}" if label else shown


def mode_name(mode: str) -> str:
    """ "finetune:best head" -> "fine-tuning, best head"."""
    kind, sign, variant = mode.partition(":")
    corner = corner_of(mode)
    if corner is not None:
        return f"{MODES[kind]} of the corners alone ({corner} of a side each)"
    return MODES.get(kind, kind) + (f", {variant}" if sign else "")


def architecture_name(architecture: str) -> str:
    """ "timm:resnet18" -> "ResNet-18"; "timm:vit_tiny_patch8_224" -> "ViT-Tiny/8"."""
    bare = architecture.partition(":")[2] or architecture
    if vit := _VIT.fullmatch(bare):
        return f"ViT-{vit['size'].capitalize()}/{vit['patch']} {vit['rest']}".strip()
    for prefix, name in _ARCHITECTURES.items():
        if bare.startswith(prefix):
            version = re.sub(r"(?<=\d)_(?=\d)", ".", bare.removeprefix(prefix))
            return name + version.replace("_", " ")
    return bare.replace("_", " ")


def arm_name(card: EvaluatedEncoder) -> str:
    """ "random initialisation", "MoCo pretraining, 10 % of the pool"."""
    if card.family in FAMILY_NAMES:
        return FAMILY_NAMES[card.family]
    if card.objective in ("", "none"):
        return card.arm
    bound = f", upper bound: saw labels of {card.labels}" if card.labels else ""
    return f"{title(card.objective)} pretraining{pool_words(card)}{bound}"


def pool_words(card: EvaluatedEncoder) -> str:
    """ ", 10 % of the pool", ", cohort check-like alone", or "" for the whole pool."""
    words = [f"{share(card.pool_fraction)} of the pool"] if card.pool_fraction < 1 else []
    if card.pool_cohorts:
        words.append(f"cohort{'s' * (len(card.pool_cohorts) > 1)} {' and '.join(card.pool_cohorts)} alone")
    return "".join(f", {text}" for text in words)
