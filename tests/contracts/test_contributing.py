"""CONTRIBUTING's method and generator, taken from the page as they are, keep their contracts."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import test_objectives as contract
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from trabecula import pretrain, sample
from trabecula.artifacts.encoder import has_encoder
from trabecula.artifacts.generator import read_generator_card
from trabecula.artifacts.store import Store
from trabecula.config import build
from trabecula.data.batches import Batch
from trabecula.errors import InputError
from trabecula.nets import generators
from trabecula.nets.encoder import Encoder
from trabecula.nets.generators.generator import LatentGenerator, load_generator
from trabecula.objectives import TABLE, find
from trabecula.objectives.adversarial import Adversarial
from trabecula.objectives.objective import Product, Steps, Update
from trabecula.run import execute

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


def install(folder: str, into: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Put the page's file of this folder where a user would put it; gives its name."""
    text = PAGE.read_text(encoding="utf-8")
    ((name, code),) = re.findall(
        rf"<!-- src/trabecula/{folder}/(\w+)\.py -->\n```python\n(.*?)```", text, re.S
    )
    (into / f"{name}.py").write_text(code, encoding="utf-8")
    package = importlib.import_module(f"trabecula.{folder.replace('/', '.')}")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(into)])
    monkeypatch.delitem(sys.modules, f"{package.__name__}.{name}", raising=False)
    return str(name)


@pytest.fixture
def method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The method's file and its line in the table; the name."""
    text = PAGE.read_text(encoding="utf-8")
    ((key, where, title),) = re.findall(r'`"(\w+)": \("([\w:]+)", "([\w ]+)"\)`', text)
    assert where.partition(":")[0] == install("objectives", tmp_path, monkeypatch) == key
    assert title.lower() == key
    monkeypatch.setitem(TABLE, key, (where, title))
    return str(key)


@pytest.fixture
def generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[LatentGenerator]:
    """The generator's file and its line in the table; its class."""
    ((key, where),) = re.findall(r'`"(\w+)": "([\w:]+)"`', PAGE.read_text(encoding="utf-8"))
    assert where.partition(":")[0] == install("nets/generators", tmp_path, monkeypatch) == key
    monkeypatch.setitem(generators.TABLE, key, where)
    kind = generators.find(key)
    assert issubclass(kind, LatentGenerator)
    return kind


@pytest.mark.parametrize(
    "promise",
    [
        contract.test_every_weight_is_in_a_group_gets_a_gradient_and_moves,
        contract.test_a_small_pool_can_be_learned,
        contract.test_accumulation_is_exact_or_refused,
        contract.test_batches_without_what_it_learns_from_are_refused,
        contract.test_bf16_runs_and_stays_near_float32,
        contract.test_steps_leave_the_global_random_numbers_alone,
        contract.test_state_across_steps_is_in_buffers,
    ],
    ids=lambda promise: promise.__name__,
)
def test_the_method_on_the_page_keeps_the_contract(promise: object, method: str, store: Store) -> None:
    promise(method, store)  # type: ignore[operator]


def test_it_resumes_bit_for_bit_and_declares_what_it_does(method: str, store: Store, tmp_path: Path) -> None:
    contract.test_stop_and_resume_is_bit_identical(method, store, tmp_path)
    contract.test_what_it_declares_is_known_and_what_it_leaves_can_be_saved(method, store, tmp_path / "kept")


def test_every_setting_on_the_page_is_explained(method: str) -> None:
    fields = find(method).Config.model_fields
    assert fields
    assert all(field.description for field in fields.values())


def test_its_loss_is_the_papers(method: str) -> None:
    """Against the definition: the mean over both directions of -log softmax of the own pair."""
    contrast = sys.modules[find(method).__module__].contrast
    generator = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(5, 3, generator=generator), dim=1) for _ in range(2))
    found = 0.0
    for i in range(5):
        for mine, others in ((images[i], texts), (texts[i], images)):
            similar = [float(4 * mine @ other) for other in others]
            found -= (similar[i] - np.log(np.exp(similar).sum())) / 10
    assert contrast(images, texts, torch.tensor(4.0)).item() == pytest.approx(found, rel=1e-5)


def test_a_store_without_texts_is_refused_before_training(
    method: str, hospital: Path, tmp_path: Path
) -> None:
    (tmp_path / "splits.csv").write_text("patient_id,split\n100,val\n101,test\n")
    config = pretrain.Config(
        store=hospital / "store", splits=tmp_path / "splits.csv", objective=method, architecture="critic:4-8",
        batch_size=4,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"clip learns from images with text, and the store of .* does not"):
        execute("pretrain", config, tmp_path / "run")


def test_the_generator_on_the_page_is_saved_loaded_and_drawn_from(
    generator: type[LatentGenerator], hospital: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an adversarial method with nets of its own, which keeps no encoder."""

    class OnlyImages(Adversarial):
        batch_coupled = True
        trains_encoder = False
        monitors = ("gan",)

        def nets(self, encoder: Encoder) -> tuple[nn.Module, LatentGenerator]:
            card = encoder.card
            flat = nn.Flatten(), nn.Linear(card.channels * card.size**2, 1), nn.Flatten(0)
            config = build(generator.Config, {"latent": self.config.latent}, "test")
            return nn.Sequential(*flat), generator(config, card.channels, card.size)

        def products(self) -> dict[str, Product]:
            return {"generator": self.kept_generator}

        def step(self, batches: Sequence[Batch], progress: float) -> Steps:  # noqa: ARG002
            for batch in batches:
                on_real, on_fake = self.scores(self.real(batch), self.fakes(batch))
                yield Update("critic", F.softplus(-on_real).mean() + F.softplus(on_fake).mean())
            yield Update("generator", F.softplus(-self.critic(self.fresh_fakes(batches[-1]))).mean())
            self.average()

    OnlyImages.__module__ = "trabecula.objectives.only_images"
    module = type(sys)("trabecula.objectives.only_images")
    module.OnlyImages = OnlyImages  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(TABLE, "only_images", ("only_images:OnlyImages", "Only images"))
    (tmp_path / "splits.csv").write_text("patient_id,split\n100,val\n101,test\n")
    config: dict[str, Any] = {
        "store": hospital / "store", "splits": tmp_path / "splits.csv", "objective": "only_images",
        "architecture": "timm:resnet10t", "settings": {"critic_steps": 1, "latent": 5, "ema": 0.5},
        "images": 32, "every": 16, "snapshots": 16, "batch_size": 8, "device": "cpu",
    }  # fmt: skip
    assert execute("pretrain", pretrain.Config(**config), tmp_path / "run").startswith(
        "only_images: 32 images"
    )
    assert not has_encoder(tmp_path / "run")
    assert not list((tmp_path / "run").rglob("encoder.*"))
    card = read_generator_card(tmp_path / "run")
    assert (card.kind, card.settings, card.averaged) == ("linear", {"latent": 5}, True)
    assert (card.name, len(card.patients), card.images_seen) == ("only_images", 10, 32)
    assert read_generator_card(tmp_path / "run/snapshots/000000016").name == "only_images@16"
    loaded, _ = load_generator(tmp_path / "run")
    assert isinstance(loaded, generator)
    drawn: Tensor = loaded.sample(64, 0)
    assert np.array_equal(np.load(tmp_path / "run" / "samples.npy"), drawn.numpy())
    for kind, name in (("independent", "grid.png"), ("interpolate", "strips.png")):
        out = tmp_path / kind
        execute("sample", sample.Config(generator=tmp_path / "run", num=3, kind=kind, device="cpu"), out)
        with Image.open(out / name) as picture:
            assert picture.size[0] > 32
    made = Store.open(tmp_path / "independent")
    assert torch.equal(made.read(slice(0, 3)), drawn[:3])
    assert set(cast("Any", made.record.generated).patients) == set(card.patients)
