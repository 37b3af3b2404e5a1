"""The arms of an evaluation and their controls."""

from compared_arms import ARMS, with_controls
from trabecula.artifacts.results import IncompleteArm
from trabecula.comparison.arms import baselines_of, decide_controls, missing_baselines, why_none


def test_where_nothing_is_compared_the_reason_is_told() -> None:
    missing = missing_baselines(with_controls(("critic-gan", "critic", "pretrained")))
    told = "critic: no random arm of this architecture among the predictions"
    assert why_none(["pretrained"], missing) == told
    assert why_none(["random"], []) == "every arm has random weights: there is no pretraining to judge"
    assert why_none(["random", "imagenet"], []).startswith("no arm was pretrained here")
    assert "share" in why_none(["random", "pretrained"], [])


def test_baselines_are_the_own_random_arm_and_all_imagenet_arms():
    names = {arm.name: [base.name for base in baselines_of(arm, ARMS)] for arm in ARMS}
    assert names == {
        "critic-gan": ["critic-random", "res-imagenet"],
        "critic-random": [],
        "res-imagenet": ["res-random"],
        "res-moco": ["res-random", "res-imagenet"],
        "res-random": [],
    }


def test_only_networks_with_published_weights_can_lack_an_imagenet_arm():
    more = with_controls(
        ("vgg-random", "timm:vgg16", "random"), ("vgg-moco", "torchvision:vgg16", "pretrained")
    )
    arms = [*ARMS, *more]
    assert [(r.family, r.architecture) for r in missing_baselines(arms)] == [
        ("random", "torchvision:vgg16"),
        ("imagenet", "timm:vgg16"),
        ("imagenet", "torchvision:vgg16"),
    ]


def test_random_weights_trained_in_another_way_have_the_first_random_arm_as_their_control():
    arms = with_controls(
        ("critic-gan", "critic", "pretrained"), ("critic-random", "critic", "random"),
        ("critic-random-augmented", "critic", "random"), ("res-random", "resnet", "random"),
    )  # fmt: skip
    assert {arm.name: [base.name for base in baselines_of(arm, arms)] for arm in arms} == {
        "critic-gan": ["critic-random", "critic-random-augmented"],
        "critic-random": [],
        "critic-random-augmented": ["critic-random"],
        "res-random": [],
    }


def test_another_random_arm_does_not_take_the_place_of_a_control_that_is_gone():
    names = ("critic-gan", "critic-random-augmented", "critic-random-regularised")
    families = ("pretrained", "random", "random")
    gone = IncompleteArm(name="critic-random", architecture="critic", family="random", reason="train failed")
    arms = with_controls(*((n, "critic", f) for n, f in zip(names, families, strict=True)), incomplete=[gone])
    assert {arm.control_reason for arm in arms} == {"the control critic-random is incomplete: train failed"}
    arms += [a for a in ARMS if a.architecture == "resnet"]
    assert {arm.name: [base.name for base in baselines_of(arm, arms)] for arm in arms} == {
        "critic-gan": ["res-imagenet"],
        "critic-random-augmented": [],
        "critic-random-regularised": [],
        "res-imagenet": ["res-random"],
        "res-moco": ["res-random", "res-imagenet"],
        "res-random": [],
    }
    assert missing_baselines(arms, {"critic-random": "another reason"}, [gone]) == [
        {"family": "random", "architecture": "critic", "reason": "train failed"}
    ]


def test_a_snapshot_of_given_weights_is_no_baseline():
    arms = with_controls(("res-imagenet@100", "resnet", "imagenet"), ("res-moco", "resnet", "pretrained"))
    assert baselines_of(arms[1], arms) == []


def test_a_control_is_decided_by_name_whatever_the_order_and_kept_by_snapshots():
    arms = with_controls(
        ("res-b", "resnet", "random"), ("res-a", "resnet", "random"), ("res-moco", "resnet", "pretrained"),
        ("res-moco@100", "resnet", "pretrained"), ("vgg-moco", "vgg", "pretrained"),
    )  # fmt: skip
    assert {arm.name: (arm.control, arm.control_reason) for arm in arms} == {
        "res-a": (None, ""),
        "res-b": ("res-a", ""),
        "res-moco": ("res-a", ""),
        "res-moco@100": ("res-a", ""),
        "vgg-moco": (None, "no random arm of this architecture"),
    }


def test_an_incomplete_random_arm_that_is_not_the_control_changes_no_control():
    gone = IncompleteArm(
        name="critic-random-z", architecture="critic", family="random", reason="train failed"
    )
    other = gone.model_copy(update={"name": "aaa", "architecture": "resnet"})
    plain = with_controls(("critic-random", "critic", "random"), ("critic-gan", "critic", "pretrained"))
    assert decide_controls(plain, [gone, other]) == plain


def test_a_failed_control_of_a_library_network_is_not_replaced():
    """Its recipe may say resnet18; the cards, and so the incomplete arm, say timm:resnet18."""
    gone = IncompleteArm(
        name="resnet18-random", architecture="timm:resnet18", family="random", reason="embed failed"
    )
    left = with_controls(
        ("resnet18-moco", "timm:resnet18", "pretrained"),
        ("resnet18-random-augmented", "timm:resnet18", "random"), incomplete=[gone],
    )  # fmt: skip
    assert {arm.name: arm.control for arm in left} == dict.fromkeys(arm.name for arm in left)
    assert [baselines_of(arm, left) for arm in left] == [[], []]
    assert {a.control_reason for a in left} == {"the control resnet18-random is incomplete: embed failed"}
    assert missing_baselines(left, incomplete=[gone])[0].reason == "embed failed"
