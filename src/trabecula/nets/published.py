"""Networks that others publish: a model's folder, or its name on the Hugging Face hub.

Folders are read in three formats, and nothing in them is run:

    transformers    config.json (`model_type`), model.safetensors, preprocessor_config.json
    timm            config.json (`architecture`), model.safetensors
    trabecula       encoder.json, model.safetensors: what `export` writes

A name is `hf:OWNER/NAME` (`hf:facebook/dinov2-small@REVISION`), or as timm has it `timm:hf-hub:OWNER/NAME`
or `timm:NAME.TAG`. Only then, and only where weights are asked for, files are fetched.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from trabecula.artifacts.encoder import CARD_FILE, EXPORTED_FILE, WEIGHTS_FILE, has_encoder, read_encoder_card
from trabecula.artifacts.patient_hashes import key_name, site_key
from trabecula.artifacts.weights import read_weights, refuse_own
from trabecula.errors import InputError
from trabecula.files import read_json, sha256_of
from trabecula.nets.backbone import Backbone, resolve
from trabecula.nets.weights import fit, other_keys

AUTO = "auto"  # the architecture that stands for what the given folder holds
_WEIGHTS = (EXPORTED_FILE, WEIGHTS_FILE, "pytorch_model.safetensors", "pytorch_model.bin")
_INDEX = "model.safetensors.index.json"
_IMAGENET = re.compile(r"(?:^|[^a-z0-9])(?:imagenet|in1k|in12k|in21k|in22k)", re.IGNORECASE)
_HUB = re.compile(r"(?:hf|hf-hub|hf_hub|timm:hf-hub|timm:hf_hub):(?P<repo>[^@]+)(?:@(?P<revision>.+))?$")
_TAGGED = re.compile(r"(?:timm:)?(?P<name>[^:/@]+\.[^:/@]+)$")
_BYTE = 1 / 255
# What a network built here has of its own, or what only a classifier would need.
_OWN_OPTIONS = {"img_size", "in_chans", "num_classes", "global_pool", "patch_size", "fc_norm", "class_token"}


@dataclass(frozen=True)
class Published:
    """A network with weights, as its folder describes it."""

    folder: Path
    name: str  # of its weights, given or "facebook/dinov2-small@1a2b3c", or the folder's
    architecture: str  # the network's name here
    mean: tuple[float, ...]  # of images in [0, 1], as is std; both empty where the folder gives none
    std: tuple[float, ...]
    config: Mapping[str, Any]  # its config.json; {} of an own export

    @property
    def is_imagenet(self) -> bool:
        """Whether the weights are of ImageNet, by their name."""
        return names_imagenet(self.name)

    def load(self, backbone: Backbone, prefix: str = "") -> tuple[str, str]:
        """Put the weights into a backbone; gives their name and sha256, and their prefix, for a card.

        Raises:
            InputError: no weights there, a pickle with more than tensors, weights of another network, or
                those of an encoder of this site: they come without patients, who would pass for unseen.
        """
        card = read_encoder_card(self.folder) if has_encoder(self.folder) else None
        if card and (card.patients or (card.patients_key and card.patients_key == key_name(site_key()))):
            raise InputError(
                f"{self.folder}: an encoder of this site: start from the folder that `pretrain` wrote, with "
                "init = encoder, so that the patients it has seen stay known"
            )
        state, sha256 = _read(self.folder, own=card is not None)
        if "model_type" in self.config:
            from trabecula.nets import from_transformers

            state = from_transformers.convert(self.config, state, str(self.folder))
        elif self.config:
            state = _as_timm_loads(backbone, state)
        prefix = fit(backbone, state, str(self.folder), prefix)
        return f"{self.name} sha256:{sha256}", prefix


def names_imagenet(name: str) -> bool:
    """Whether the name of some weights says that they are of ImageNet."""
    return bool(_IMAGENET.search(name))


def is_hub_name(architecture: str) -> bool:
    """Whether an architecture's name stands for weights on the hub, or for what a folder holds."""
    return bool(_HUB.match(architecture) or _TAGGED.match(architecture))


def stands_for_weights(architecture: str) -> bool:
    """Whether the network is only known from the weights that a setting names."""
    return architecture == AUTO or is_hub_name(architecture)


def open_folder(path: Path, name: str = "") -> Published:
    """Read what a model's folder says of it, by its own name where none is given; the weights are not read.

    Raises:
        InputError: no model in a format that is known, or a network that is not.
    """
    name = name or path.resolve().name
    if has_encoder(path):
        card = read_encoder_card(path)
        return Published(path, name, card.architecture, card.mean, card.std, {})
    config = _json(path / "config.json")
    try:
        if "architecture" in config:
            return _of_timm(path, name, config)
        if "model_type" in config:
            return _of_transformers(path, name, config)
    except InputError:  # a ValueError too
        raise
    except (TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise InputError(
            f"{path}: config.json or preprocessor_config.json has a value of another kind than it should "
            f"({error}); fetch the folder again"
        ) from None
    raise InputError(
        f"{path}: no model's folder: it needs {CARD_FILE} (an export), or config.json with 'architecture' "
        "(timm) or 'model_type' (transformers)"
    )


def _of_timm(path: Path, name: str, config: Mapping[str, Any]) -> Published:
    from trabecula.nets.libraries import timm_model

    described = config.get("pretrained_cfg") or config  # older folders have it all on one level
    options = dict(config.get("model_args") or {})
    model = str(config["architecture"]).partition(".")[0]
    patch = options.get("patch_size")
    if patch and "patch" in model:
        model = re.sub(r"_patch\d+", f"_patch{patch}", model, count=1)
    elif patch:
        model += f"_patch{patch}"
    strange = sorted(options.keys() - _OWN_OPTIONS)
    if strange or timm_model(model) is None:
        what = f"options that are not taken here ({', '.join(strange)})" if strange else "a name timm lacks"
        raise InputError(f"{path}: timm's '{config['architecture']}' with {what}; choose another model")
    mean, std = _numbers(described, "mean"), _numbers(described, "std")
    return Published(path, name, f"timm:{model}", mean, std, config)


def _of_transformers(path: Path, name: str, config: Mapping[str, Any]) -> Published:
    from trabecula.nets import from_transformers

    architecture = from_transformers.network(config)
    if architecture is None:
        keys = ("hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act")
        shape = ", ".join(f"{key} {config[key]}" for key in keys if key in config)
        raise InputError(
            f"{path}: a '{config['model_type']}' of transformers{f' ({shape})' if shape else ''} is not "
            f"known here; known are the usual sizes of {', '.join(from_transformers.KINDS)}; many others are "
            "published in timm's format too"
        )
    prepared = _json(path / "preprocessor_config.json")
    mean, std = _numbers(prepared, "image_mean"), _numbers(prepared, "image_std")
    if prepared.get("do_normalize") is False:
        mean, std = (0.0,), (1.0,)
    if prepared:  # of pixels times rescale_factor; ours are bytes by 255
        factor = prepared.get("rescale_factor", _BYTE) if prepared.get("do_rescale", True) else 1.0
        scale = _BYTE / factor
        mean, std = (tuple(value * scale for value in part) for part in (mean, std))
    return Published(path, name, architecture, mean, std, config)


def _numbers(values: Mapping[str, Any], key: str) -> tuple[float, ...]:
    found = values.get(key) or ()
    numbers = tuple(float(value) for value in (found if isinstance(found, list | tuple) else [found]))
    if key.endswith("std") and not all(value > 0 for value in numbers):
        raise ValueError(f"{key} {found}")
    return numbers


def _json(file: Path) -> dict[str, Any]:
    """What a file says; {} where there is none."""
    return read_json(file, "timm or transformers") if file.is_file() else {}


def _read(folder: Path, own: bool) -> tuple[dict[str, Tensor], str]:
    """The tensors of a folder, and the sha256 of the file; of several, that of their hashes by name.

    own: whether a card of this program lies beside them; without one, files of this program are refused.
    """
    files = [folder / name for name in _WEIGHTS if (folder / name).is_file()][:1]
    if not files:
        places = _json(folder / _INDEX).get("weight_map") or {}
        files = [folder / Path(name).name for name in sorted(set(places.values()))]
    if not files:
        raise InputError(f"{folder}: no weights there: model.safetensors is needed")
    state: dict[str, Tensor] = {}
    for file in files:
        if not own:
            refuse_own(file)
        state |= read_weights(file)
    hashes = [sha256_of(file) for file in files]
    whole = hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()
    return state, whole


def _as_timm_loads(backbone: Backbone, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Files of a network's authors have their own keys at times: timm's module of it renames them."""
    rename = getattr(sys.modules[type(backbone.net).__module__], "checkpoint_filter_fn", None)
    if rename is not None and other_keys(backbone, state):
        state = rename(dict(state), backbone.net)
    return state


def find_published(architecture: str, init: str, weights: Path | None, weights_name: str) -> Published | None:
    """The published network that an arm with these settings starts from; None for one that starts otherwise.

    Where `weights_name` is "", the weights have the network's name.

    Raises:
        InputError: a name on the hub without weights asked for, or with a file beside it; no such folder.
    """
    if init == "package":
        if weights is not None:
            raise InputError("init 'package' takes no weights: leave 'weights' out, or set init = weights")
        from trabecula.nets.packaged import find_packaged

        return find_packaged(resolve(architecture), weights_name)
    named = is_hub_name(architecture)
    if named and init != "weights":
        raise InputError(
            f"architecture '{architecture}' names weights on the hub: set init = weights; for random weights "
            f"of the same network give its folder and architecture = {AUTO}, or the network's name alone"
        )
    folder = _model_folder(weights) if weights is not None and init != "encoder" else None
    if architecture == AUTO and folder is None and init != "encoder":
        raise InputError(
            f"architecture '{AUTO}' is that of a model's folder: set weights to the folder, or name a network"
        )
    if named and weights is None:
        published = fetch(architecture)
    elif folder is None:
        return None
    else:
        published = open_folder(folder, _repo_name(architecture) if named else "")
    held = published.architecture
    if not stands_for_weights(architecture) and held != (wanted := resolve(architecture)):
        raise InputError(f"{folder}: holds {held}, not {wanted}: set architecture = {AUTO}")
    return replace(published, name=weights_name) if weights_name else published


def _model_folder(weights: Path) -> Path | None:
    """A model's folder; that of an encoder's weights file too, whose card says what it is."""
    if weights.is_dir():
        return weights
    beside = weights.name in _WEIGHTS and has_encoder(weights.parent)
    return weights.parent if beside and weights.is_file() else None


def _repo_name(architecture: str) -> str:
    """ "facebook/dinov2-small@main" of "hf:facebook/dinov2-small@main"; "timm/NAME.TAG" of timm's tags."""
    hub, tagged = _HUB.match(architecture), _TAGGED.match(architecture)
    if hub:
        return hub["repo"] + (f"@{hub['revision']}" if hub["revision"] else "")
    return f"timm/{tagged['name']}" if tagged else architecture


def fetch(architecture: str) -> Published:
    """Fetch a model from the Hugging Face hub into its own cache, or find it there.

    Raises:
        InputError: no network, no such model, or one that needs a login.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    repo, _, revision = _repo_name(architecture).partition("@")
    download = partial(huggingface_hub.snapshot_download, repo, revision=revision or None)
    wanted = ["config.json", "preprocessor_config.json", "model*.safetensors", _INDEX]
    try:
        folder = Path(download(allow_patterns=wanted))
        if not any(folder.glob("model*.safetensors")):
            download(allow_patterns=["pytorch_model.bin"])
    except HFValidationError as error:
        raise InputError(f"architecture '{architecture}': no name on the hub ({error})") from None
    except (OSError, HfHubHTTPError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0].partition(". ")[0]
        raise InputError(
            f"{architecture}: cannot be fetched from the Hugging Face hub ({reason[:160]}); on a machine "
            f"with a network run `hf download {repo} --local-dir {repo.split('/')[-1]}`, bring the folder "
            f"here and give --weights FOLDER -s architecture={AUTO} -s init=weights"
        ) from None
    return open_folder(folder, f"{repo}@{folder.name[:12]}")
