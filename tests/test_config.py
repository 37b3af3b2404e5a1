"""Groups of settings: what is given changes the defaults of its place."""

import pytest

from trabecula.config import Record, build
from trabecula.errors import InputError
from trabecula.objectives.barlow import BarlowConfig
from trabecula.objectives.moco import MocoConfig
from trabecula.objectives.optim import Optimizer


class Inner(Record):
    depth: int = 1
    """A number."""
    width: int = 2
    """A number."""


class Middle(Record):
    inner: Inner = Inner(depth=3)
    """A group."""
    other: int = 0
    """A number."""


class Outer(Record):
    middle: Middle = Middle(inner=Inner(depth=5, width=6), other=7)
    """A group."""
    either: str | Inner = Inner(depth=8)
    """A group or a word."""


def test_a_rate_alone_keeps_the_methods_optimizer():
    given = build(BarlowConfig, {"optimizer": {"lr": 0.4}}, "test").optimizer
    assert given == BarlowConfig().optimizer.model_copy(update={"lr": 0.4})
    assert given.name == "lars"
    assert given.schedule == "cosine"


def test_another_rule_starts_anew():
    given = build(MocoConfig, {"optimizer": {"name": "adamw", "lr": 1e-3}}, "test").optimizer
    assert given == Optimizer(name="adamw", lr=1e-3)
    assert given.schedule == "constant"
    assert MocoConfig().optimizer.schedule == "cosine"


def test_groups_within_groups_keep_the_defaults_of_their_place():
    given = build(Outer, {"middle": {"inner": {"width": 9}}}, "test")
    assert given.middle == Middle(inner=Inner(depth=5, width=9), other=7)
    assert given.either == Inner(depth=8)
    assert build(Outer, {"either": {"width": 9}}, "test").either == Inner(depth=8, width=9)
    assert build(Outer, {"either": "word"}, "test").either == "word"


def test_unknown_keys_and_wrong_values_are_still_refused():
    for values, problem in (
        ({"middle": {"inner": {"widht": 9}}}, "middle.inner.widht"),
        ({"middle": {"inner": {"width": "wide"}}}, "middle.inner.width"),
        ({"middle": 3}, "middle"),
    ):
        with pytest.raises(InputError, match=problem):
            build(Outer, values, "test")


def test_settings_that_do_not_go_together_are_refused_after_the_defaults():
    with pytest.raises(InputError, match="one_cycle"):
        build(BarlowConfig, {"optimizer": {"schedule": "one_cycle"}}, "test")  # its default has a warm-up
