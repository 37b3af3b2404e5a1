"""Which features files may be compared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from trabecula.artifacts.features import Features, FeaturesCard, check_comparable
from trabecula.errors import InputError

RECORD = {"extractor": "random-conv", "weights": "a" * 64, "resize": "none", "dtype": "float32", "num": 3}


def features(**changes: Any) -> Features:
    return Features(
        np.zeros((2, 4), np.float32), ["a", "b"], ["1", "2"], FeaturesCard(**{**RECORD, **changes})
    )


def test_equal_protocols_compare_whatever_their_images() -> None:
    check_comparable(features(), features(num=9, store="another"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"extractor": "timm:resnet18"}, "extractor random-conv and timm:resnet18"),
        ({"weights": "b" * 64}, "weights aaaaaaaaaaaa and bbbbbbbbbbbb"),
        ({"resize": "bilinear to 64 px"}, "resize none and bilinear to 64 px"),
        ({"region": "corners 0.25"}, "region all and corners 0.25"),
        ({"dtype": "float16"}, "dtype float32 and float16"),
    ],
)
def test_another_extractor_or_another_way_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_comparable(features(), features(**changes))
