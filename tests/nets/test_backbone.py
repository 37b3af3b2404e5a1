"""Backbones: the libraries' own outputs as oracle, stems, seeds, sizes, weights files."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from trabecula.artifacts.weights import read_weights
from trabecula.errors import InputError
from trabecula.nets.backbone import build_backbone, resolve
from trabecula.nets.weights import guess, load_weights

REAL = Path(__file__).parents[2].parent / "shared" / "weights" / "squeezenet1_0-imagenet.safetensors"

FAMILIES = [
    ("critic", 64, "maps", 512),
    ("critic:4-8", 64, "maps", 8),
    ("timm:resnet10t", 64, "maps", 512),
    ("timm:convnext_atto", 64, "maps", 320),
    ("timm:mobilenetv3_small_050", 64, "maps", 1024),
    ("timm:vit_tiny_patch16_224", 64, "tokens", 192),
    ("torchvision:resnet18", 64, "maps", 512),
    ("torchvision:squeezenet1_1", 64, "maps", 512),
    ("torchvision:densenet121", 64, "maps", 1024),
    ("torchvision:mnasnet0_5", 64, "maps", 1280),
    ("torchvision:shufflenet_v2_x0_5", 64, "maps", 1024),
    ("torchvision:regnet_y_400mf", 64, "maps", 440),
    ("torchvision:mobilenet_v3_small", 64, "maps", 576),
]


@pytest.mark.parametrize(("architecture", "size", "layout", "num_features"), FAMILIES)
def test_every_family_gives_maps_and_one_width(
    architecture: str, size: int, layout: str, num_features: int
) -> None:
    backbone = build_backbone(architecture, 1, size).eval()
    x = torch.randn(2, 1, size, size)
    with torch.no_grad():
        maps = backbone.maps(x)
        assert backbone.pooled(x).shape == (2, num_features)
    assert (backbone.layout, backbone.num_features) == (layout, num_features)
    assert maps.shape == (2, num_features, *(backbone.grid or ()))


@pytest.mark.parametrize(
    "architecture",
    [row[0] for row in FAMILIES] + ["torchvision:swin_t", "torchvision:vit_b_32"],
)
def test_no_weight_is_left_unused(architecture: str) -> None:
    """A layer behind the features would never learn: the classifier is gone, nothing else is."""
    backbone = build_backbone(architecture, 1, 64).train()
    output = backbone(torch.randn(2, 1, 64, 64))
    sum(part.sum() for part in output if part is not None).backward()
    assert [name for name, weight in backbone.named_parameters() if weight.grad is None] == []


@pytest.mark.parametrize(
    "name", ["resnet18", "squeezenet1_0", "densenet121", "mobilenet_v2", "swin_t", "vit_b_32"]
)
def test_torchvision_features_are_those_its_own_classifier_reads(name: str) -> None:
    """Put the library's pooling and classifier on our features: the library's own logits come out."""
    torch.manual_seed(1)
    options = {"image_size": 64} if name == "vit_b_32" else {}
    whole = torchvision.models.get_model(name, weights=None, **options).eval()
    backbone = build_backbone(f"torchvision:{name}", 3, 64).eval()
    state = {k: v for k, v in whole.state_dict().items() if not k.startswith(backbone.classifier)}
    backbone.net.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        if name == "squeezenet1_0":
            logits = whole.classifier(backbone.maps(x)).flatten(1)
        else:
            head = next(
                getattr(whole, key) for key in ("fc", "classifier", "head", "heads") if hasattr(whole, key)
            )
            logits = head(backbone.pooled(x))
        torch.testing.assert_close(logits, whole(x))


@pytest.mark.parametrize("name", ["resnet10t", "efficientnet_b0", "vit_tiny_patch16_224"])
def test_timm_features_are_those_its_own_classifier_reads(name: str) -> None:
    torch.manual_seed(1)
    options = {"img_size": 64} if name.startswith("vit") else {}
    whole = timm.create_model(name, pretrained=False, num_classes=7, **options).eval()
    backbone = build_backbone(f"timm:{name}", 3, 64).eval()
    state = {k: v for k, v in whole.state_dict().items() if not k.startswith(backbone.classifier)}
    backbone.net.load_state_dict(state, strict=True)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(whole.get_classifier()(backbone.pooled(x)), whole(x))


def test_patch_grid_is_row_by_row() -> None:
    """The maps of a transformer keep the image's own geometry."""
    backbone = build_backbone("timm:vit_tiny_patch16_224", 1, 64).eval()
    backbone.net.blocks = torch.nn.Identity()  # type: ignore[union-attr]
    backbone.net.pos_embed.data.zero_()  # type: ignore[union-attr]
    flat = torch.zeros(1, 1, 64, 64)
    marked = flat.clone()
    marked[:, :, 16:32, 48:64] = 1
    with torch.no_grad():
        changed = (backbone.maps(marked) - backbone.maps(flat)).abs().sum(1)[0] > 1e-6
    assert changed.nonzero().tolist() == [[1, 3]]


def test_seed_decides_the_weights_and_nothing_else_moves() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, same, other = (build_backbone("torchvision:resnet18", 1, 64, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    kernels = [backbone.net.get_parameter("layer1.0.conv1.weight") for backbone in (one, same, other)]
    assert torch.equal(kernels[0], kernels[1])
    assert not torch.equal(kernels[0], kernels[2])


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        ("timm:convnext_atto", 64),
        ("timm:swin_tiny_patch4_window7_224", 224),
        ("timm:mobilevit_xxs", 64),
        ("timm:nest_tiny", 224),
        ("timm:repghostnet_050", 64),  # a dropout of its own forward
        ("torchvision:efficientnet_b0", 64),
        ("torchvision:swin_t", 64),
    ],
)
def test_training_mode_draws_no_random_numbers(architecture: str, size: int) -> None:
    backbone = build_backbone(architecture, 1, size).train()
    before = torch.get_rng_state()
    backbone(torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_sum_is_repeat_where_mean_and_std_are_equal(library: str, tmp_path: Path) -> None:
    repeat = build_backbone(f"{library}:resnet18", 1, 64, stem="repeat", seed=1).double().eval()
    file = tmp_path / "rgb.safetensors"
    save_file(repeat.net.state_dict(), file)
    summed = build_backbone(f"{library}:resnet18", 1, 64, stem="sum", seed=2).double().eval()
    load_weights(summed, file)
    x = torch.randn(2, 1, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(summed.maps(x), repeat.maps(x.expand(-1, 3, -1, -1)), rtol=0, atol=1e-10)
    assert summed.net.get_parameter("conv1.weight").shape[1] == 1
    assert (len(repeat.mean), len(summed.mean)) == (3, 1)
    assert summed.mean == pytest.approx([(0.485 + 0.456 + 0.406) / 3])


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_native_stems_take_any_number_of_channels(channels: int) -> None:
    for architecture in ("torchvision:resnet18", "timm:resnet10t", "critic"):
        backbone = build_backbone(architecture, channels, 64)
        assert len(backbone.mean) == len(backbone.std) == channels
        assert backbone.pooled(torch.randn(2, channels, 64, 64)).shape == (2, 512)


def test_bare_names_are_looked_up_timm_first() -> None:
    assert resolve("resnet18") == "timm:resnet18"
    assert resolve("squeezenet1_0") == "torchvision:squeezenet1_0"
    assert resolve("critic") == "critic"


@pytest.mark.parametrize(
    ("architecture", "size", "channels", "stem", "message"),
    [
        ("resnet81", 64, 1, "native", "did you mean 'resnet18'"),
        ("torchvision:resnet81", 64, 1, "native", "did you mean 'resnet18'"),
        ("qqqq", 64, 1, "native", "use 'critic', or a model's name"),
        ("tim:resnet18", 64, 1, "native", "unknown library 'tim', did you mean 'timm'"),
        (
            "timm:resnet18.a1_in1k",
            64,
            1,
            "native",
            "stands for weights, not for a network alone: it goes with init = weights",
        ),
        ("hf-hub:someone/net", 64, 1, "native", "stands for weights, not for a network alone"),
        ("auto", 64, 1, "native", "name a network such as 'timm:resnet18', and a local weights file"),
        ("critic", 100, 1, "native", "size 100: .*multiple of 32"),
        ("critic:4-x", 64, 1, "native", "widths are whole numbers"),
        ("critic", 64, 1, "sum", "stem 'sum' is for grey images.*critic has no RGB stem"),
        ("timm:resnet18", 64, 3, "repeat", "images have 3 channels"),
        ("torchvision:squeezenet1_0", 8, 1, "native", "cannot be built for 1 x 8 x 8 px images"),
        ("torchvision:vit_b_16", 60, 1, "native", "cannot be built for 1 x 60 x 60 px images"),
        ("torchvision:googlenet", 64, 1, "native", "before the classifier cannot be had"),
    ],
)
def test_refusals_say_what_to_do(
    architecture: str, size: int, channels: int, stem: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build_backbone(architecture, channels, size, stem)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


# --- weights files ---


@pytest.fixture
def resnet(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    file = tmp_path / "resnet18.pth"
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), file)
    return file


def test_a_torchvision_file_loads_whole_and_drops_its_classifier(resnet: Path) -> None:
    backbone = build_backbone("torchvision:resnet18", 3, 64)
    load_weights(backbone, resnet)
    given = torch.load(resnet, weights_only=True)
    assert set(given) - set(backbone.net.state_dict()) == {"fc.weight", "fc.bias"}
    for key, value in backbone.net.state_dict().items():
        assert torch.equal(value, given[key])


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_training_checkpoints_are_unwrapped(resnet: Path, wrapper: str, tmp_path: Path) -> None:
    state = torch.load(resnet, weights_only=True)
    torch.save({"epoch": 3, wrapper: state}, tmp_path / "wrapped.pt")
    assert read_weights(tmp_path / "wrapped.pt").keys() == state.keys()


def change(resnet: Path, out: Path, **changes: torch.Tensor | None) -> Path:
    state = copy.copy(torch.load(resnet, weights_only=True))
    for key, value in changes.items():
        state.pop(key, None)
        if value is not None:
            state[key] = value
    torch.save(state, out / "changed.pth")
    return out / "changed.pth"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bn1.weight": None, "bn1.bias": None}, r"2 missing \(bn1.weight, bn1.bias\)"),
        ({"extra.weight": torch.ones(1)}, r"1 unexpected \(extra.weight\)"),
        ({"fc2.weight": torch.ones(1)}, r"1 unexpected \(fc2.weight\)"),
        ({"bn1.bias": torch.ones(3)}, r"1 of another shape \(bn1.bias is \(3,\), needed \(64,\)\)"),
    ],
)
def test_files_that_do_not_fit_are_refused_and_change_nothing(
    resnet: Path, tmp_path: Path, changes: dict[str, torch.Tensor | None], message: str
) -> None:
    backbone = build_backbone("torchvision:resnet18", 3, 64)
    before = copy.deepcopy(backbone.net.state_dict())
    with pytest.raises(InputError, match=message):
        load_weights(backbone, change(resnet, tmp_path, **changes))
    assert all(torch.equal(before[key], value) for key, value in backbone.net.state_dict().items())


def test_a_file_older_than_batch_counters_fits(resnet: Path, tmp_path: Path) -> None:
    state = torch.load(resnet, weights_only=True)
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    assert len(counters) == 20
    old = change(resnet, tmp_path, **dict.fromkeys(counters))
    backbone = build_backbone("torchvision:resnet18", 3, 64)
    load_weights(backbone, old)
    assert torch.equal(backbone.net.state_dict()["bn1.running_var"], state["bn1.running_var"])
    with pytest.raises(InputError, match="missing"):  # counters alone make no batch norm
        load_weights(build_backbone("torchvision:vgg16_bn", 3, 64), old)


def test_three_names_and_a_count_of_each(resnet: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_weights(build_backbone("torchvision:densenet121", 3, 64), resnet)
    message = str(caught.value)
    assert "120 unexpected (bn1.bias, bn1.num_batches_tracked, bn1.running_mean, ...)" in message
    assert message.endswith(
        "its keys are those of torchvision:resnet18: set architecture = 'torchvision:resnet18'"
    )
    assert len(message) < 700


def test_an_rgb_file_for_a_grey_stem_says_so(resnet: Path) -> None:
    with pytest.raises(InputError, match="for RGB images: set stem = 'sum' or 'repeat'"):
        load_weights(build_backbone("torchvision:resnet18", 1, 64), resnet)


def test_guess_tells_networks_apart() -> None:
    for name in ("resnet50", "squeezenet1_1"):
        with torch.device("meta"):
            net = torchvision.models.get_model(name, weights=None)
        assert guess(net.state_dict()) == f"torchvision:{name}"
    assert guess({"a": torch.ones(2)}) is None


class Trap:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (self.path,))  # type: ignore[return-value]


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_pickles_are_refused_and_not_run(tmp_path: Path, suffix: str) -> None:
    file, trap = tmp_path / f"weights{suffix}", tmp_path / "sprung"
    file.write_bytes(pickle.dumps(Trap(trap), protocol=2))
    with pytest.raises(InputError, match="holds code or objects, not only tensors"):
        read_weights(file)
    torch.save({"state_dict": Trap(trap)}, file)
    with pytest.raises(InputError, match=r"convert it with safetensors\.torch\.save_file"):
        read_weights(file)
    assert not trap.exists()


def test_whole_models_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), tmp_path / "model.pt")
    with pytest.raises(InputError, match="holds code or objects"):
        read_weights(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.safetensors", b"", "not a safetensors file, or cut short"),
        ("a.safetensors", b"\xff" * 64, "not a safetensors file, or cut short"),
        ("a.pth", b"", "a.pth: "),
        ("a.pth", b"PK\x03\x04 not a zip", "not a weights file, or cut short"),
        ("a.h5", b"x", "the name of a weights file ends with .safetensors, .pt, .pth, .bin, .ckpt or"),
    ],
)
def test_broken_files_get_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_values_that_are_no_tensors_are_named(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(InputError, match=r"not a state dict .*: 'epoch' is int"):
        read_weights(tmp_path / "a.pt")
    torch.save({1: torch.zeros(2)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="'1' is a tensor without a name"):
        read_weights(tmp_path / "a.pt")
    with pytest.raises(InputError, match="no such weights file"):
        read_weights(tmp_path / "b.pt")


@pytest.mark.skipif(not REAL.exists(), reason="the real SqueezeNet weights are not on this machine")
@pytest.mark.parametrize("stem", ["sum", "repeat"])
def test_real_squeezenet_weights_fit(stem: str) -> None:
    backbone = build_backbone("torchvision:squeezenet1_0", 1, 128, stem=stem)  # type: ignore[arg-type]
    load_weights(backbone, REAL)
    given = read_weights(REAL)
    body = {key: value for key, value in given.items() if not key.startswith("classifier.")}
    own = backbone.net.state_dict()
    assert own.keys() == body.keys()
    assert all(torch.equal(own[key], body[key]) for key in own if key != "features.0.weight")
