"""What encoders learned from, by the cards and logs of the runs that trained them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trabecula.artifacts.encoder import has_encoder, read_encoder_card
from trabecula.config import digest, dump
from trabecula.sections.results import read_json
from trabecula.summaries.run_folder import log_lines

OWN, OTHER, MIXED = "in-domain", "cross-domain", "mixed-domain"


@dataclass(frozen=True)
class Learned:
    """One arm's pretraining.

    source: OWN where it saw the study's images alone, OTHER where it saw none of them, MIXED where it saw
    both; stores: their ids; num_images: of its pool, None where the log does not say.
    """

    arm: str
    objective: str
    source: str
    stores: tuple[str, ...] = ()
    num_images: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mask_ratio(self) -> float | None:
        """Of a masked autoencoder, the share of patches that were hidden."""
        ratio = self.settings.get("mask_ratio")
        return float(ratio) if self.objective == "mae" and isinstance(ratio, int | float) else None


def read_learned(folders: Sequence[Path], store: Path | None) -> dict[str, Learned]:
    """By arm, what the runs among the folders that trained an encoder say of it; the first seed's.

    Args:
        store: of the study's images; without it every pool counts as the study's own.

    Raises:
        InputError: a card or the store's record is no JSON object.
    """
    own = digest(read_json(store / "store.json", "`trabecula prepare`")) if store else ""
    cards = [
        (dump(read_encoder_card(folder)), folder)
        for folder in folders
        if (folder / "training.json").exists() and has_encoder(folder)
    ]
    cards.sort(key=lambda pair: (str(pair[0].get("name")), pair[0].get("seed") or 0))
    found: dict[str, Learned] = {}
    for card, folder in cards:
        name = str(card.get("name"))
        if name not in found:
            stores = tuple(card.get("stores") or [card.get("store") or own])
            source = OWN if not own or set(stores) == {own} else MIXED if own in stores else OTHER
            found[name] = Learned(
                name, card.get("objective") or "", source, stores, _num_images(folder),
                card.get("settings") or {},
            )  # fmt: skip
    return found


def _num_images(folder: Path) -> int | None:
    """Images of the pool, as the log has them."""
    drawn = [int(line["images"]) for line in log_lines(folder) if line.get("event") == "pool"]
    return drawn[-1] if drawn else None
