"""Vision transformers of the transformers library as networks of timm: the same weights under other names.

Nothing of that library is needed. What is known: ViT (DINO, MAE and plain DeiT among them),
DINOv2 (RAD-DINO among them) with and without registers, and DINOv3. timm's networks have LayerNorm's epsilon
of the original code, 1e-6 in ViT and DINOv2; transformers keeps a ViT's own, often 1e-12.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trabecula.errors import InputError
from trabecula.nets.libraries import timm_model
from trabecula.nets.weights import few

# (width, blocks, heads) -> the name of that size
_VIT = {
    (64, 6, 2): "test", (192, 12, 3): "tiny", (384, 12, 6): "small", (768, 12, 12): "base",
    (1024, 24, 16): "large", (1280, 32, 16): "huge",
}  # fmt: skip
_DINOV2 = {(384, 12, 6): "small", (768, 12, 12): "base", (1024, 24, 16): "large", (1536, 40, 24): "giant"}
_DINOV3 = {(384, 12, 6): "small", (768, 12, 12): "base", (1024, 24, 16): "large", (1280, 32, 20): "huge",
           (4096, 40, 32): "7b"}  # fmt: skip
_SIZES: dict[Any, dict[Any, str]] = {
    "vit": _VIT, "vit_mae": _VIT, "dinov2": _DINOV2, "dinov2_with_registers": _DINOV2, "dinov3_vit": _DINOV3,
}  # fmt: skip
KINDS = tuple(_SIZES)  # values of `model_type` in a config.json that are known
_QKV = ("query", "key", "value")
_ROPE = 100.0  # of DINOv3's rotary positions (Simeoni et al. 2025, arXiv 2508.10104)
_PREFIX = re.compile(
    r"^(?:vit|dinov2(?:_with_registers)?|dinov3_vit|model)\.(?=embeddings|encoder|layer|norm)"
)
_UNUSED = re.compile(r"^(?:pooler|classifier|decoder|lm_head|rope_embeddings)\b|(?:^|\.)mask_token$")
_PLAIN = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?(weight|bias)$", r"patch_embed.proj.\1"),
    (r"^(?:layernorm|norm)\.(weight|bias)$", r"norm.\1"),
)
# Within a block; the first part of a key there is `encoder.layer.3.`, `layer.3.` or `model.layer.3.`.
_BLOCK = re.compile(r"^(?:encoder\.)?layers?\.(\d+)\.(.+)$")
_WITHIN = (
    (r"^(?:layernorm_before|norm1)\.(weight|bias)$", r"norm1.\1"),
    (r"^(?:layernorm_after|norm2)\.(weight|bias)$", r"norm2.\1"),
    (r"^attention\.(?:attention\.)?(query|key|value)\.(weight|bias)$", r"\1.\2"),
    (r"^attention\.q_proj\.(weight|bias)$", r"query.\1"),
    (r"^attention\.k_proj\.(weight|bias)$", r"key.\1"),
    (r"^attention\.v_proj\.(weight|bias)$", r"value.\1"),
    (r"^attention\.(?:output\.dense|o_proj)\.(weight|bias)$", r"attn.proj.\1"),
    (r"^(?:intermediate\.dense|mlp\.(?:fc1|weights_in|up_proj))\.(weight|bias)$", r"mlp.fc1.\1"),
    (r"^(?:output\.dense|mlp\.(?:fc2|weights_out|down_proj))\.(weight|bias)$", r"mlp.fc2.\1"),
    (r"^mlp\.gate_proj\.(weight|bias)$", r"mlp.gate.\1"),
    (r"^layer_scale([12])\.lambda1$", r"scale\1"),
)


def network(config: Mapping[str, Any]) -> str | None:
    """timm's name of the network that a config.json of transformers describes; None for one unknown here."""
    kind, gated = config.get("model_type"), bool(config.get("use_gated_mlp"))
    theta = config.get("rope_theta", (config.get("rope_parameters") or {}).get("rope_theta", _ROPE))
    if kind not in KINDS or config.get("hidden_act", "gelu") != ("silu" if gated else "gelu"):
        return None
    shape = tuple(config.get(key) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads"))
    size = _SIZES[kind].get(shape)
    patch, registers = config.get("patch_size", 16), config.get("num_register_tokens", 4)
    if kind in ("vit", "vit_mae"):
        name = f"test_vit_patch{patch}" if size == "test" else f"vit_{size}_patch{patch}_224"
    elif kind == "dinov3_vit":
        if theta != _ROPE or (gated and size in ("base", "large")) or (not gated and size in ("huge", "7b")):
            return None
        biased = config.get("query_bias", True) and config.get("value_bias", True)
        plus = "_plus" if gated and size != "7b" else ""
        name = f"vit_{size}{plus}_patch{patch}_dinov3{'_qkvb' if biased else ''}"
    else:
        reg = f"_reg{registers}" if kind == "dinov2_with_registers" else ""
        name = f"vit_{size}_patch{patch}{reg}_dinov2"
    return f"timm:{name}" if size and timm_model(name) else None


def convert(config: Mapping[str, Any], state: Mapping[str, Tensor], where: str) -> dict[str, Tensor]:
    """The tensors of a known `network`, as transformers saves it, under timm's names.

    Heads, poolers and tokens of masks are left out.

    Raises:
        InputError: a key that this layout does not have, after `where`.
    """
    made: dict[str, Tensor] = {}
    blocks: dict[str, dict[str, Tensor]] = {}
    strange = []
    for given, value in state.items():
        key = _PREFIX.sub("", given)
        if _UNUSED.search(key):
            continue
        block = _BLOCK.match(key)
        found = _renamed(block[2], _WITHIN) if block else _renamed(key, _PLAIN)
        if found is None:
            strange.append(given)
        else:
            (blocks.setdefault(block[1], {}) if block else made)[found] = value
    if strange:
        kind = config["model_type"]
        raise InputError(
            f"{where}: {len(strange)} keys are none of a {kind} of transformers ({few(strange)})"
        )
    for index, pieces in blocks.items():
        joined = _joined(pieces, separate_bias=config["model_type"] == "dinov3_vit")
        made |= {f"blocks.{index}.{key}": value for key, value in joined.items()}
    if config["model_type"] == "dinov2_with_registers" and {"pos_embed", "cls_token"} <= made.keys():
        # timm's has positions for patches alone: the class token's own is added to it
        made["cls_token"] = made["cls_token"] + made["pos_embed"][:, :1]
        made["pos_embed"] = made["pos_embed"][:, 1:]
    return made


def _joined(pieces: dict[str, Tensor], separate_bias: bool) -> dict[str, Tensor]:
    """A block as timm has it: query, key and value in one matrix; `separate_bias`: their biases beside it."""
    block = dict(pieces)
    if all(f"{part}.weight" in block for part in _QKV):
        block["attn.qkv.weight"] = torch.cat([block.pop(f"{part}.weight") for part in _QKV])
    if separate_bias:
        for part, name in (("query", "attn.q_bias"), ("value", "attn.v_bias")):
            if f"{part}.bias" in block:
                block[name] = block.pop(f"{part}.bias")
    elif all(f"{part}.bias" in block for part in _QKV):
        block["attn.qkv.bias"] = torch.cat([block.pop(f"{part}.bias") for part in _QKV])
    for index in "12":
        if f"scale{index}" in block:
            block[f"gamma_{index}" if separate_bias else f"ls{index}.gamma"] = block.pop(f"scale{index}")
    if "mlp.gate.weight" in block:
        for kind in ("weight", "bias"):
            block[f"mlp.fc1_x.{kind}"] = block.pop(f"mlp.fc1.{kind}")
            block[f"mlp.fc1_g.{kind}"] = block.pop(f"mlp.gate.{kind}")
    return block


def _renamed(key: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, replacement in rules:
        new, count = re.subn(pattern, replacement, key)
        if count:
            return new
    return None
