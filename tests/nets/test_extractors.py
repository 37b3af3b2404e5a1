"""Feature extractors: names, hashes, resize rules, and what each refuses."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from trabecula import pretrain
from trabecula.data.store import Store
from trabecula.errors import InputError
from trabecula.nets import extractors
from trabecula.nets.backbone import build_backbone
from trabecula.nets.encoder import load_encoder
from trabecula.nets.extractors import FID_WEIGHTS, Protocol, load_extractor
from trabecula.run import execute

IMAGES = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_random_conv_is_the_same_net_every_time() -> None:
    one, two = load_extractor("random-conv", 1, 32), load_extractor("random-conv", 1, 32)
    torch.manual_seed(5)
    assert torch.equal(one(IMAGES), two(IMAGES))
    assert one.protocol == two.protocol
    assert one.protocol.num_features == one(IMAGES).shape[1] == 960
    assert len(one.protocol.weights) == 64
    assert load_extractor("random-conv", 3, 32).protocol.weights != one.protocol.weights


def test_random_conv_keeps_the_scale_of_its_input_through_the_layers() -> None:
    features = load_extractor("random-conv", 1, 32)(IMAGES)
    stages = features.split([64, 128, 256, 512], dim=1)
    assert all(0.05 < float(stage.std()) < 5 for stage in stages)


def test_bits_and_levels_do_not_matter() -> None:
    extractor = load_extractor("random-conv", 1, 32)
    wide = torch.from_numpy(IMAGES.numpy().astype(np.uint16) * 257)
    assert extractor(wide) == pytest.approx(extractor(IMAGES), rel=1e-4)
    assert extractor(IMAGES.float() / 255) == pytest.approx(extractor(IMAGES), rel=1e-4)


def test_resizing_is_antialiased_and_recorded() -> None:
    extractor = load_extractor("random-conv", 1, 32, resize=16)
    assert extractor.protocol.resize == "bilinear, antialiased, to 16 px"
    assert load_extractor("random-conv", 1, 32).protocol.resize == "none"
    stripes = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    stripes[..., ::2] = 255  # a grid finer than half the size: antialiasing leaves grey
    grey = torch.full((1, 1, 16, 16), 0.5)
    inner = extractors._resized(stripes, 16)[..., 2:-2, 2:-2]
    assert inner == pytest.approx(grey[..., 2:-2, 2:-2], abs=0.05)


def test_a_library_network_takes_a_local_file(tmp_path: Path) -> None:
    net = build_backbone("torchvision:squeezenet1_1", 3, 64, seed=1)
    save_file(net.net.state_dict(), tmp_path / "w.safetensors")
    extractor = load_extractor("torchvision:squeezenet1_1", 1, 32, tmp_path / "w.safetensors", resize=64)
    assert extractor.protocol.weights == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    assert extractor(IMAGES).shape == (3, 512)
    assert extractor.protocol.frechet_name == "FD[torchvision:squeezenet1_1]"


def test_our_own_encoder(hospital: Path, tmp_path: Path) -> None:
    store = Store.open(hospital / "store")
    execute("pretrain", pretrain.Config(store=hospital / "store", architecture="critic"), tmp_path / "arm")
    extractor = load_extractor("encoder", 1, 32, tmp_path / "arm")
    encoder = load_encoder(tmp_path / "arm").eval()
    images = store.read(slice(0, 4))
    with torch.no_grad():
        assert extractor(images) == pytest.approx(encoder(images.float() / 255), rel=1e-5)
    assert extractor.protocol.name == "critic-random"
    with pytest.raises(InputError, match="takes images of 1 channels and 32 px, these have 1 and 64"):
        load_extractor("encoder", 1, 64, tmp_path / "arm")


# --- Inception


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of the right layout with random numbers in it."""
    from torch_fidelity import feature_extractor_inceptionv3 as library

    patch = pytest.MonkeyPatch()
    patch.setattr(library, "load_state_dict_from_url", lambda *_, **__: {})
    patch.setattr(library.FeatureExtractorInceptionV3, "load_state_dict", lambda *_, **__: None)
    torch.manual_seed(0)
    net = library.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    patch.undo()
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save(net.state_dict(), file)
    return file


def test_other_weights_than_the_known_ones_are_not_called_fid(
    inception_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = hashlib.sha256(inception_file.read_bytes()).hexdigest()
    extractor = load_extractor("inception-v3", 1, 32, inception_file)
    assert extractor.protocol.frechet_name == f"FD[inception-v3 {digest[:8]}]"
    assert extractor(IMAGES[:1]).shape == (1, 2048)
    monkeypatch.setattr(extractors, "FID_WEIGHTS", digest)
    known = load_extractor("inception-v3", 1, 32, inception_file).protocol
    assert (known.frechet_name, known.kernel_name) == ("FID", "KID")


def test_inception_features_are_those_of_torch_fidelity(inception_file: Path) -> None:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    theirs = FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048"], feature_extractor_weights_path=str(inception_file)
    )
    with torch.no_grad():
        expected = theirs(IMAGES[:1].repeat(1, 3, 1, 1))[0]
    ours = load_extractor("inception-v3", 1, 32, inception_file)(IMAGES[:1])
    assert ours == pytest.approx(expected, rel=1e-5)


def test_only_the_known_file_is_fid() -> None:
    of: Callable[[str], Any] = lambda weights: Protocol("inception-v3", weights, "", "float32", 2048)  # noqa: E731
    assert FID_WEIGHTS.startswith("6726825d")  # the digits in the file's name
    assert len(FID_WEIGHTS) == 64
    assert of(FID_WEIGHTS).frechet_name == "FID"
    assert of("0" * 64).frechet_name == "FD[inception-v3]"


def test_torch_fidelity_missing_is_told(inception_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(InputError, match=r"pip install 'trabecula\[fid\]'"):
        load_extractor("inception-v3", 1, 32, inception_file)


def test_a_file_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "run",))

    torch.save({"a": Bomb()}, tmp_path / "bad.pth")
    with pytest.raises(InputError, match="holds code or objects"):
        load_extractor("inception-v3", 1, 32, tmp_path / "bad.pth")
    assert not (tmp_path / "run").exists()


def test_a_file_of_another_network_is_told(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="1 tensors that do not fit torch-fidelity's Inception v3"):
        load_extractor("inception-v3", 1, 32, tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("random-convs", {}, "not known; use random-conv"),
        ("inception-v3", {}, "needs a local weights file"),
        ("encoder", {}, "needs a folder written by"),
        ("timm:resnet18", {}, "nothing is downloaded"),
        ("random-conv", {"weights": Path("w.pth")}, "leave 'weights' out"),
        ("inception-v3", {"weights": Path("w.pth"), "resize": 64}, "by its own rule"),
        ("inception-v3", {"weights": Path("none.pth")}, "no such weights file"),
    ],
)
def test_bad_settings_are_one_line(name: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_extractor(name, 1, 32, **given)
    assert "\n" not in str(caught.value)


def test_inception_takes_grey_or_rgb_only(inception_file: Path) -> None:
    with pytest.raises(InputError, match="not 2 channels"):
        load_extractor("inception-v3", 2, 32, inception_file)
