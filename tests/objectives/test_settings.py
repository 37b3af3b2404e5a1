"""A method's settings: what is given over its defaults."""

from __future__ import annotations

import json

import pytest

from trabecula.artifacts.tasks import Task
from trabecula.config import dump
from trabecula.errors import InputError
from trabecula.objectives import TABLE, find

KL = Task(name="kl", labels=("kl",), kind="multiclass", classes=("0", "1", "2"))


@pytest.mark.parametrize("method", sorted(TABLE))
def test_resolved_settings_are_settings(method: str) -> None:
    """What config.json holds can be given again, as plain JSON, and means the same."""
    once = find(method).resolved({})
    assert once
    assert find(method).resolved(json.loads(json.dumps(once))) == once
    made = dump(find(method).settings(once, 224, KL if method == "classify" else None))
    assert once.items() <= made.items()


def test_a_group_changes_what_it_names_and_a_mistyped_setting_is_told() -> None:
    barlow = find("barlow").resolved({"optimizer": {"lr": 0.4}})
    assert barlow["optimizer"] == {**find("barlow").resolved({})["optimizer"], "lr": 0.4}
    with pytest.raises(InputError, match="settings of wgan_gp: unknown key 'penlty', did you mean 'penalty'"):
        find("wgan_gp").resolved({"penlty": 1})


def test_a_classifiers_task_says_how_many_classes() -> None:
    assert not {"kind", "num_classes"} & find("classify").resolved({}).keys()
    assert dump(find("classify").settings(find("classify").resolved({}), 64, KL))["num_classes"] == 3
    with pytest.raises(InputError, match="'num_classes' comes from the task; leave it out"):
        find("classify").settings(find("classify").resolved({"num_classes": 3}), 64, KL)


def test_views_have_the_size_of_the_images_or_the_methods_own() -> None:
    made = dump(find("vicreg").settings(find("vicreg").resolved({"views_b": {"flip": 0.5}}), 64))
    assert (made["views_a"]["size"], made["views_b"]["size"], made["views_b"]["flip"]) == (64, 64, 0.5)
    assert dump(find("cnn_jepa").settings({"size": 128}, 64))["views"]["size"] == 128
    assert dump(find("cnn_jepa").settings({}, 64))["views"]["size"] == 64
    with pytest.raises(InputError, match=r"views have 64 px here, not 96; leave views_a.size out"):
        find("vicreg").settings({"views_a": {"size": 96}}, 64)
