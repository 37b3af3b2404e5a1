"""What of a recipe was not run."""

from __future__ import annotations

from trabecula.recipe import not_run_lines


def test_a_missing_file_is_named_once_with_the_controls_that_go_with_it() -> None:
    arms = {
        "net-random": {"skip_if_missing": "w.bin", "pretrain": {"architecture": "net"}},
        "net-imagenet": {"skip_if_missing": "w.bin", "pretrain": {"weights": "w.bin"}},
        "own": {"skip_if_missing": "other.bin", "pretrain": {"size": 3}},
    }
    not_run = {
        "net-random": "w.bin is not there",
        "net-imagenet": "w.bin is not there",
        "own": "other.bin is",
    }
    assert not_run_lines({"axes": {"arm": arms}}, not_run) == [
        "net-imagenet: w.bin is not there; left out with it: its control net-random",
        "own: other.bin is",
    ]
    assert not_run_lines({}, {"x": "why"}) == ["x: why"]
    assert not_run_lines({"axes": {"arm": arms}}, {}) == []
