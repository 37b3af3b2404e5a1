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
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from trabecula import pretrain
from trabecula.artifacts.features import Features, FeaturesCard, check_comparable
from trabecula.artifacts.store import Store
from trabecula.errors import InputError
from trabecula.metrics.fidelity import frechet_distance
from trabecula.nets import extractors
from trabecula.nets.backbone import build_backbone
from trabecula.nets.encoder import load_encoder
from trabecula.nets.extractors import FID_WEIGHTS, Protocol, load_extractor
from trabecula.phantoms.hips import draw_hip
from trabecula.phantoms.patients import Joints
from trabecula.run import execute

IMAGES = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
RAMP = torch.arange(1024).view(1, 1, 32, 32).remainder(37) / 36
GOLDEN_WEIGHTS = "e7469cff46f4d433f334d3d2db2dc1d3d86dca5df94fb82c8cb8654ba8ff5295"
GOLDEN = [0, 9, 20, 30, 90, 130, 160, 176]
GOLDEN_FEATURES = torch.tensor([-1.4972, -0.8057, -0.0792, -0.057, 0.2459, 0.3232, 0.187, 5.9512])


@pytest.fixture(scope="module")
def hips() -> Tensor:
    """(120, 1, 32, 32) hips of as many patients, in [0, 1]."""
    settings = Joints(num_patients=120, size=32)
    drawn = np.stack([draw_hip(settings, patient, "L").image for patient in range(120)])
    return torch.from_numpy(drawn)[:, None].float() / 255


def noisy(images: Tensor, levels: float) -> Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return (images + levels / 255 * noise).clamp(0, 1)


def blurred(images: Tensor, weight: float) -> Tensor:
    smooth = F.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    return (1 - weight) * images + weight * smooth


def shuffled(images: Tensor, num: int) -> Tensor:
    """`num` of the 16 patches of 8 px change places."""
    patches = F.unfold(images, 8, stride=8)
    moved = patches.clone()
    for image, row in zip(moved, patches, strict=True):
        places = torch.randperm(16, generator=torch.Generator().manual_seed(int(row.sum() * 1000)))[:num]
        image[:, places] = row[:, places.roll(1)]
    return F.fold(moved, 32, 8, stride=8)


def mixed(images: Tensor, share: float) -> Tensor:
    return (1 - share) * images + share * images.roll(1, 0)


def mirrored(images: Tensor, share: float) -> Tensor:
    num = round(share * len(images))
    return torch.cat([images[:num].flip(3), images[num:]])


def resampled(images: Tensor, rank: int) -> Tensor:
    """Normal images with the mean and the leading covariance of these."""
    flat = images.flatten(1)
    _, values, directions = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    draw = torch.randn(len(flat), rank, generator=torch.Generator().manual_seed(3))
    drawn = flat.mean(0) + draw * values[:rank] / (len(flat) - 1) ** 0.5 @ directions[:rank]
    return drawn.clamp(0, 1).view_as(images)


def seen(first: Tensor, second: Tensor) -> float:
    extractor = load_extractor("random-conv", 1, 32)
    return frechet_distance(extractor(first).numpy(), extractor(second).numpy())


def test_random_conv_is_the_same_net_every_time() -> None:
    one = load_extractor("random-conv", 1, 32)
    torch.manual_seed(5)
    two = load_extractor("random-conv", 1, 32)
    assert torch.equal(one(IMAGES), two(IMAGES))
    assert one.protocol == two.protocol
    assert one.protocol.num_features == one(IMAGES).shape[1] == 177
    colour = load_extractor("random-conv", 3, 32)
    assert colour.protocol.weights != one.protocol.weights
    assert colour.protocol.num_features == colour(IMAGES.expand(-1, 3, -1, -1)).shape[1] == 307


def test_random_conv_names_its_version_and_has_the_weights_of_it() -> None:
    protocol = load_extractor("random-conv", 1, 32).protocol
    assert (protocol.name, protocol.frechet_name) == ("random-conv 2", "FD[random-conv 2]")
    assert protocol.weights == GOLDEN_WEIGHTS
    assert load_extractor("random-conv", 1, 32)(RAMP)[0, GOLDEN] == pytest.approx(GOLDEN_FEATURES, abs=1e-3)


def test_another_version_has_another_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    now = load_extractor("random-conv", 1, 32).protocol
    monkeypatch.setattr(extractors, "RANDOM_CONV", "random-conv 3")
    later = load_extractor("random-conv", 1, 32).protocol
    assert now.weights != later.weights
    cards = [FeaturesCard(**protocol.record(), num=1) for protocol in (now, later)]
    with pytest.raises(InputError, match="random-conv 2 and random-conv 3"):
        check_comparable(*(Features(np.zeros((1, 177)), ["a"], ["p"], card) for card in cards))


def test_features_of_an_image_do_not_depend_on_its_batch() -> None:
    extractor = load_extractor("random-conv", 1, 32)
    alone = torch.cat([extractor(image[None]) for image in IMAGES])
    assert extractor(IMAGES).numpy() == pytest.approx(alone.numpy(), abs=1e-5)


def test_filters_are_orthonormal_without_a_mean() -> None:
    net = extractors.RandomConv(2)
    for filters in (*net.junctions, net.layout):
        rows = filters.flatten(1).double()
        assert rows @ rows.T == pytest.approx(torch.eye(len(rows), dtype=torch.float64), abs=1e-3)
        assert rows.sum(1).abs().max() < 2e-3
    assert net.wavelets.sum((2, 3)).abs().max() < 1e-3


def test_brightness_moves_no_other_part() -> None:
    extractor = load_extractor("random-conv", 1, 32)
    dark = 0.25 + IMAGES.float() / 255 / 2
    moved = (extractor(dark + 0.2) - extractor(dark)).abs()
    assert moved[:, -1] == pytest.approx(torch.full((3,), 0.2 * 12), abs=1e-4)
    assert float(moved[:, :-1].max()) < 0.01


def test_images_too_small_for_the_coarsest_filters_are_enlarged() -> None:
    extractor = load_extractor("random-conv", 1, 16)
    assert extractor(IMAGES[..., ::2, ::2]).shape == (3, 177)
    assert extractor.protocol.resize == "bilinear, antialiased, to 32 px"


@pytest.mark.parametrize(
    ("worse", "grades"),
    [
        (noisy, (10, 20, 40)), (blurred, (0.3, 0.6, 1)), (shuffled, (3, 6, 16)), (mixed, (0.15, 0.3, 0.6)),
        (mirrored, (0.25, 0.5, 1)),
    ],
)  # fmt: skip
def test_the_worse_the_images_the_farther(
    hips: Tensor, worse: Callable[[Tensor, Any], Tensor], grades: tuple[float, ...]
) -> None:
    first, second = hips[:60], hips[60:]
    distances = [seen(first, second), *(seen(first, worse(second, grade)) for grade in grades)]
    assert distances == sorted(distances)
    assert distances[1] > 1.05 * distances[0]
    assert distances[-1] > 1.5 * distances[0]


def test_structure_is_seen_where_mean_and_covariance_of_pixels_agree(hips: Tensor) -> None:
    first, second = hips[:60], hips[60:]
    same = resampled(second, 59)
    pixels = [frechet_distance(first.flatten(1).numpy(), x.flatten(1).numpy()) for x in (second, same)]
    assert pixels[1] < 1.2 * pixels[0]
    assert seen(first, same) > 1.5 * seen(first, second)


def test_bits_and_levels_do_not_matter() -> None:
    extractor = load_extractor("random-conv", 1, 32)
    wide = torch.from_numpy(IMAGES.numpy().astype(np.uint16) * 257)
    assert extractor(wide) == pytest.approx(extractor(IMAGES), rel=1e-4)
    assert extractor(IMAGES.float() / 255) == pytest.approx(extractor(IMAGES), rel=1e-4)


def test_resizing_is_antialiased_and_recorded() -> None:
    extractor = load_extractor("random-conv", 1, 64, resize=32)
    assert extractor.protocol.resize == "bilinear, antialiased, to 32 px"
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
        ("timm:tf_efficientnet_lite0", {"weights": Path("none.pth")}, "no such"),
        ("random-conv", {"weights": Path("w.pth")}, "leave 'weights' out"),
        ("random-conv", {"resize": 16}, "resize 16: random-conv needs 32 px"),
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
