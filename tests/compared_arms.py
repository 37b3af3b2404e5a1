"""Arms of comparisons, made up."""

from trabecula.comparison.arms import ComparedArm, decide_controls


def with_controls(*arms, incomplete=()):
    """(name, architecture, family) of each, their controls decided."""
    return decide_controls([ComparedArm(*arm) for arm in arms], incomplete)


ARMS = with_controls(
    ("critic-gan", "critic", "pretrained"),
    ("critic-random", "critic", "random"),
    ("res-imagenet", "resnet", "imagenet"),
    ("res-moco", "resnet", "pretrained"),
    ("res-random", "resnet", "random"),
)
