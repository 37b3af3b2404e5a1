"""encoder, classifier or generator -> a folder that may leave: weights, a card without patients, no more.

    hub/model.safetensors     an encoder's weights as timm or torchvision loads them, with strict=True
    hub/config.json           with it timm.create_model("local-dir:FOLDER", pretrained=True) makes the network
    hub/README.md             the model card: use, data, intended use, limits, metrics, licence to fill in
    hub/encoder.json          the card, with which `pretrain` takes the folder as weights
    hub/model.onnx            images in [0, 1] to features or probabilities, normalisation inside
    export.json               what was written, and how far each form is from the encoder's own features

A classifier leaves as hub/model.onnx, classifier.safetensors and classifier.json. A generator leaves as
generator.safetensors and generator.json, with the memorisation audit of these very weights in its card.

Nothing else of the training's folder comes along: no image, no path, no patient's hash.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from trabecula.artifacts.encoder import EncoderCard, write_encoder_card
from trabecula.artifacts.fidelity import CLEAR, read_audit
from trabecula.artifacts.generator import WEIGHTS_FILE, write_generator
from trabecula.artifacts.training import read_training
from trabecula.artifacts.weights import write_weights
from trabecula.config import Record, dump
from trabecula.errors import InputError
from trabecula.files import sha256_of, write_atomically, write_json
from trabecula.nets import exported
from trabecula.nets.classifier import Classifier, load_classifier
from trabecula.nets.encoder import Encoder, load_encoder
from trabecula.nets.exported import LibraryFormat
from trabecula.nets.generators.generator import load_generator
from trabecula.run import Run
from trabecula.summaries.model_card import metric_rows, readme

HUB, ONNX_FILE = "hub", "model.onnx"


class Config(Record):
    """Settings of `export`."""

    encoder: Path | None = None
    """An encoder: a folder written by `pretrain`, or one of its snapshots."""
    classifier: Path | None = None
    """A classifier: a folder written by `finetune`. It leaves as ONNX and in its own format."""
    generator: Path | None = None
    """A generator: a folder written by `pretrain` with an adversarial method, or one of its snapshots."""
    audit: Path | None = None
    """For a generator: the folder that `fidelity` wrote of it, or its audit.json."""
    metrics: Path | None = None
    """For an encoder's model card: metrics.json of `evaluate`, or its folder."""
    onnx: bool = True
    """Write model.onnx too; needs the extra `export`."""
    rgb: bool = False
    """For an encoder of grey images: give the first layer three channels, each kernel thrice by a third, for
    programs that show it a grey image three times. The features stay the same."""
    license: str = ""
    """Name of the licence for the model card, such as apache-2.0; to be filled in by hand where not set."""
    accept: bool = False
    """Export also a generator whose audit finds copying, or could find nothing; the card says so."""

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        given = [key for key in ("encoder", "classifier", "generator") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give encoder, classifier or generator, not {' and '.join(given) or 'none'}")
        if (self.generator is None) != (self.audit is None):
            raise ValueError("generator and audit go together: a generator leaves only with its audit")
        return self


def run(config: Config, out: Run) -> str:
    """Write what may leave; refuses a generator without an audit, or one that copies."""
    if config.generator is not None and config.audit is not None:
        return _generator(config.generator, config.audit, config.accept, out)
    if config.onnx:
        exported.check_onnx_installed()
    (out / HUB).mkdir(exist_ok=True)
    if config.classifier is not None:
        return _classifier(config.classifier, config.onnx, out)
    assert config.encoder is not None  # for the type checker: `_one_thing` has made sure
    return _encoder(config.encoder, config, out)


def _generator(path: Path, audit_path: Path, accept: bool, out: Run) -> str:
    folder = path if path.is_dir() else path.parent
    generator, card = load_generator(folder)
    weights = sha256_of(folder / WEIGHTS_FILE)
    audit = read_audit(audit_path, weights)
    if not str(audit["finding"]).startswith(CLEAR) and not accept:
        raise InputError(
            f"{audit_path}: the audit says '{audit['finding']}': this generator may give away its training "
            "images; set accept = true to export it all the same"
        )
    write_generator(out.path, card.exported(audit), generator.state_dict())
    return f"{card.objective} generator of {card.images_seen:,} images seen; {audit['finding']}"


def _encoder(path: Path, config: Config, out: Run) -> str:
    encoder = load_encoder(path).eval()
    whole = encoder.card
    metrics = metric_rows(config.metrics, whole.name, whole.seed) if config.metrics is not None else None
    if config.rgb:
        encoder = exported.widened(encoder)
    card, forms, folder = _without_patients(encoder.card), exported.formats_of(encoder), out / HUB
    write_weights(folder / exported.WEIGHTS_FILE, encoder.backbone.net.state_dict(), "encoder")
    write_encoder_card(folder, card)
    record: dict[str, Any] = {
        "arm": card.name, "architecture": card.architecture, "num_features": card.num_features,
        "differences": {form.library: form.difference for form in forms},
        "impossible": _impossible(card, forms),
    }  # fmt: skip
    ready = next((form.config for form in forms if form.config is not None), None)
    # for a network that timm does not have: what a program needs to know to use the weights
    plain = {"network": card.architecture, "input_size": [len(card.mean), card.size, card.size],
             "mean": list(card.mean), "std": list(card.std), "num_features": card.num_features}  # fmt: skip
    write_json(folder / exported.CONFIG_FILE, ready or plain)
    if config.onnx:
        record["differences"]["onnxruntime"] = _write_onnx(encoder, card, "features", _notes(card), out)
    programs = _programs(encoder, forms, ready is not None, config.onnx)
    training = read_training(path)
    end = (training.get("points") or [{}])[-1].get("images")
    warnings = [str(found["text"]) for found in training.get("findings") or () if found.get("last") == end]
    counted = {**dump(card), "patients": whole.patients}
    text = readme(counted, programs, record["impossible"], config.license, metrics, warnings)
    write_atomically(folder / "README.md", text)
    out.write_json("export.json", record)
    return f"{card.name}: {_forms(record)}" + "".join(f"; {line}" for line in record["impossible"])


def _without_patients(card: EncoderCard) -> EncoderCard:
    """The name of the key stays: at its own site a folder is refused as weights of unknown patients."""
    return card.model_copy(update={"patients": (), "store": "", "stores": ()})


def _write_onnx(
    net: Encoder | Classifier, card: EncoderCard, output: str, notes: dict[str, Any], out: Run
) -> float | None:
    """Write model.onnx; gives how far its output is from the network's own."""
    file = exported.onnx_bytes(net, card.channels, card.size, output, notes)
    write_atomically(out / HUB / ONNX_FILE, file)
    return exported.onnx_difference(net, file, card.channels, card.size)


def _impossible(card: EncoderCard, forms: list[LibraryFormat]) -> list[str]:
    if not forms:
        return [f"{card.architecture} is a network of neither timm nor torchvision: use ONNX or Trabecula"]
    missing = f"{card.architecture} does not load in timm: use torchvision or ONNX"
    return [] if any(form.library == "timm" for form in forms) else [missing]


def _notes(card: EncoderCard) -> dict[str, Any]:
    """What the ONNX file says of itself."""
    keys = ("name", "architecture", "channels", "size", "num_features", "objective", "prepared", "version")
    values = dump(card)
    return {**{key: values[key] for key in keys}, "input": "float32 in [0, 1], N x C x S x S"}


def _programs(encoder: Encoder, forms: list[LibraryFormat], ready: bool, onnx: bool) -> list[tuple[str, str]]:
    """What to type, a program for each library, in this folder."""
    card = encoder.card
    programs = []
    if ready:
        lines = 'import timm\n\nnet = timm.create_model("local-dir:.", pretrained=True).eval()'
        programs.append(("The network with timm, from this folder (on the hub: `hf-hub:OWNER/NAME`):", lines))
    programs += [(f"The features with {form.library}:", form.code(encoder)) for form in forms]
    if onnx:
        lines = (
            "import numpy\nimport onnxruntime\n\n"
            f'session = onnxruntime.InferenceSession("{ONNX_FILE}")\n'
            f'images = numpy.random.rand(2, {card.channels}, {card.size}, {card.size}).astype("float32")\n'
            'features = session.run(None, {"images": images})[0]'
        )
        programs.append(("The features with ONNX Runtime, normalisation inside:", lines))
    own = "from pathlib import Path\n\nfrom trabecula import load_encoder\n\n"
    return [*programs, ("In Trabecula:", own + 'encoder = load_encoder(Path(".")).eval()')]


def _forms(record: dict[str, Any]) -> str:
    """ "largest difference of features, of the largest: timm 0, ONNX Runtime 4e-07"."""
    names = {"timm": "timm", "torchvision": "torchvision", "onnxruntime": "ONNX Runtime"}
    parts = [
        f"{names[key]} {'not checked, it is not installed' if value is None else f'{value:.1g}'}"
        for key, value in record["differences"].items()
    ]
    return "largest difference of features, of the largest: " + ", ".join(parts) if parts else "own format"


def _classifier(path: Path, onnx: bool, out: Run) -> str:
    classifier = load_classifier(path).eval()
    if onnx and classifier.card.centre_crop < 1:
        raise InputError(
            f"{path}: sees the middle {classifier.card.centre_crop:g} of an image's side, resized, which an "
            "ONNX file does not do here; set onnx = false, and apply it with `trabecula predict`"
        )
    card = classifier.card.model_copy(update={"encoder": _without_patients(classifier.card.encoder)})
    classifier.card = card
    classifier.save(out / HUB)
    record: dict[str, Any] = {"arm": card.origin.arm, "task": card.origin.task, "differences": {}}
    if onnx:
        notes = {**_notes(card.encoder), "task": dump(card.task), "class_names": list(card.class_names),
                "threshold": list(card.choice.threshold), "output": "probabilities"}  # fmt: skip
        difference = _write_onnx(classifier, card.encoder, "probabilities", notes, out)
        record["differences"]["onnxruntime"] = difference
    out.write_json("export.json", record)
    return f"{card.origin.arm}, {card.origin.task}: {_forms(record).replace('features', 'probabilities')}"
