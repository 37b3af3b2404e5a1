"""Arms of comparisons, made up."""

from collections.abc import Sequence
from typing import Any

from trabecula.comparison.arms import ComparedArm, decide_controls


def with_controls(*arms: Any, incomplete: Any = ()) -> list[ComparedArm]:
    """(name, architecture, family) of each, their controls decided."""
    return decide_controls([ComparedArm(*arm) for arm in arms], incomplete)


ARMS = with_controls(
    ("critic-gan", "critic", "pretrained"),
    ("critic-random", "critic", "random"),
    ("res-imagenet", "resnet", "imagenet"),
    ("res-moco", "resnet", "pretrained"),
    ("res-random", "resnet", "random"),
)


def cards_with_controls(cards: Sequence[dict[str, Any]], incomplete: Any = ()) -> list[dict[str, Any]]:
    """Rows of flow.json's `arms`, each with its control, as evaluate writes them."""
    kinds = ((card["arm"], card["architecture"], card["family"]) for card in cards)
    arms = with_controls(*kinds, incomplete=incomplete)
    return [
        {**card, "control": arm.control, "control_reason": arm.control_reason}
        for card, arm in zip(cards, arms, strict=True)
    ]
