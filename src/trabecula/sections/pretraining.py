"""How the encoders were trained: loss, collapse and neighbours as `pretrain` measured them; a line each.

Reads training.json, the card and the pictures of every run that trained an encoder; computes no statistic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trabecula.artifacts.encoder import has_encoder, read_encoder_card
from trabecula.artifacts.run_record import read_log
from trabecula.artifacts.store import read_store_record
from trabecula.artifacts.training import read_training
from trabecula.config import digest, dump
from trabecula.figures.image_sheets import png_uri
from trabecula.sections.formats import Entry, Table
from trabecula.sections.results import Row
from trabecula.sections.section import Block, PagePicture, Section
from trabecula.sections.wording import count, number, share

_MEASURES = {
    "monitor/rank": ("Effective rank", 1),
    "monitor/spread": ("Spread", 3),
    "monitor/knn": ("Neighbours", 3),
}
_MEANINGS = {
    "Effective rank": "how many directions the features of pool images use",
    "Spread": "1 where features point in all directions, 0 where all are the same",
    "Neighbours": "balanced accuracy of votes of the nearest images of other training patients",
}
_RECONSTRUCTIONS = "reconstructions.png"


@dataclass(frozen=True)
class Pretrainings:
    """A row a run, a sentence for everything that was wrong, and what methods drew.

    at_the_end: by arm, what was still wrong when training ended, for the verdict on that arm.
    """

    table: Table
    wrong: list[str]
    at_the_end: Mapping[str, str]
    sheets: list[PagePicture] = field(default_factory=list)


def read_pretrainings(folders: Sequence[Path], pictures: bool = False) -> Pretrainings | None:
    """Of these runs, those that trained an encoder; None where there is none.

    Args:
        pictures: with reconstructions, which are images of patients, of each arm's first seed.

    Raises:
        InputError: training.json or a card that is no JSON object.
    """
    found = _trained(folders)
    if not found:
        return None
    wrong = [sentence for card, training, _ in found for sentence in _wrong(card, training)]
    table = _table([(card, training) for card, training, _ in found])
    sheets = _sheets([(card, folder) for card, _, folder in found]) if pictures else []
    return Pretrainings(table, wrong, _at_the_end([(c, t) for c, t, _ in found]), sheets)


def _trained(folders: Sequence[Path]) -> list[tuple[Row, dict[str, Any], Path]]:
    """Card, training.json and folder of the runs that trained an encoder, by arm and seed."""
    found = [
        (
            dump(read_encoder_card(folder)),
            training,
            folder,
        )
        for folder in folders
        if has_encoder(folder) and (training := read_training(folder))
    ]
    return sorted(found, key=lambda one: (str(one[0].get("name")), one[0].get("seed") or 0))


def pretraining_section(pretrainings: Pretrainings | None) -> Section | None:
    if pretrainings is None:
        return None
    blocks = [Block("text", text) for text in pretrainings.wrong]
    blocks = blocks or [Block("text", "Nothing that is measured was found wrong.")]
    blocks.append(Block("table", pretrainings.table))
    if pretrainings.sheets:
        note = (
            "What is filled in is made of the visible patches alone; the hidden ones enter nowhere, not by "
            "their brightness either."
        )
        blocks += [Block("heading", "What masked autoencoders fill in"), Block("note", note)]
        blocks.append(Block("pictures", pretrainings.sheets))
    return Section("pretraining", "Pretraining", "Pretraining", blocks)


def _table(found: Sequence[tuple[Row, dict[str, Any]]]) -> Table:
    """A row a run; a measure that no run has is no column."""
    first = (
        "From the first measurement (of a loss its mean until then, of others before training) to the last."
    )
    heads = ("Arm", "Seed", "Images", "Loss")
    rows = [_row(card, training) for card, training in found]
    measures = [(len(heads) + i, name) for i, (name, _) in enumerate(_MEASURES.values())]
    shown = [(i, name) for i, name in measures if any(row[i].text != "–" for row in rows)]
    note = " ".join([first, *(f"{name}: {_MEANINGS[name]}." for _, name in shown)])
    kept = [(*row[: len(heads)], *(row[i] for i, _ in shown)) for row in rows]
    columns = (*heads, *(name for _, name in shown))
    return Table("How the encoders were trained", columns, kept, note, heads=2)


def _at_the_end(found: Sequence[tuple[Row, Row]]) -> dict[str, str]:
    """By arm: "seed 0: the encoder has collapsed: ...; seed 2: ..."."""
    said: dict[str, list[str]] = {}
    for card, training in found:
        points = training.get("points") or [{}]
        last = [f for f in training.get("findings") or () if f["last"] == points[-1].get("images")]
        for finding in last:
            text = f"seed {card.get('seed', '–')}: {finding['text']}"
            said.setdefault(str(card.get("name")), []).append(text)
    return {arm: "; ".join(texts) for arm, texts in said.items()}


def _sheets(found: Sequence[tuple[Row, Path]]) -> list[PagePicture]:
    """The reconstructions of each arm that has some, masked autoencoders by the share that is hidden."""
    first: dict[str, tuple[Row, Path]] = {}
    for card, folder in found:
        if (folder / _RECONSTRUCTIONS).exists():
            first.setdefault(str(card.get("name")), (card, folder))
    ordered = sorted(first.values(), key=lambda one: (_hidden(one[0]) or 0, str(one[0].get("name"))))
    return [_sheet(card, folder / _RECONSTRUCTIONS) for card, folder in ordered]


def _hidden(card: Row) -> float | None:
    ratio = (card.get("settings") or {}).get("mask_ratio")
    return float(ratio) if isinstance(ratio, int | float) else None


def _sheet(card: Row, path: Path) -> PagePicture:
    ratio, seed = _hidden(card), card.get("seed", "–")
    part = "some" if ratio is None else share(ratio)
    caption = (
        f"{card.get('name')}, seed {seed}: images of the pool, the same with {part} of the patches hidden, "
        "and what the network fills in from the rest"
    )
    alt = (
        f"Reconstructions of {card.get('name')} in three rows: images of the pool as they are; the same "
        f"with {part} of their patches, drawn by chance, covered in white; and the images that the network "
        "made of the visible patches alone"
    )
    return PagePicture(caption, alt, png_uri(path.read_bytes()))


def _row(card: Row, training: dict[str, Any]) -> tuple[Entry, ...]:
    points: list[Row] = training.get("points") or []
    losses = [name for name in (points[0] if points else {}) if name.endswith("/loss")]
    shown = "; ".join(
        f"{name.removesuffix('/loss')} {_from_to([p[name] for p in points if name in p], 3)}"
        for name in losses
    )
    measured = [training.get("start") or {}, *points]
    cells = [
        Entry(_from_to([row[key] for row in measured if key in row], digits))
        for key, (_, digits) in _MEASURES.items()
    ]
    images = count(points[-1]["images"]) if points else "–"
    head = (Entry(str(card.get("name"))), Entry(str(card.get("seed", "–"))), Entry(images))
    return (*head, Entry(shown or "–"), *cells)


def _from_to(values: Sequence[float], digits: int) -> str:
    """ "83.1 → 41.2"; one value alone as it is."""
    ends = [values[0], values[-1]] if len(values) > 1 else values
    return " → ".join(number(value, digits) for value in ends) or "–"


def _wrong(card: Row, training: dict[str, Any]) -> list[str]:
    said = []
    for finding in training.get("findings") or ():
        first, last = count(finding["first"]), count(finding["last"])
        when = f"at {first} images" if first == last else f"from {first} to {last} images"
        said.append(f"{card.get('name')}, seed {card.get('seed', '–')}, {when}: {finding['text']}.")
    return said


OWN, OTHER, MIXED = "in-domain", "cross-domain", "mixed-domain"


@dataclass(frozen=True)
class PretrainedOn:
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


def read_learned(folders: Sequence[Path], store: Path | None) -> dict[str, PretrainedOn]:
    """By arm, what the runs among the folders that trained an encoder say of it; the first seed's.

    Args:
        store: of the study's images; without it every pool counts as the study's own.

    Raises:
        InputError: a card or the store's record is no JSON object.
    """
    own = digest(read_store_record(store).plain) if store else ""
    found: dict[str, PretrainedOn] = {}
    for card, _, folder in _trained(folders):
        name = str(card.get("name"))
        if name not in found:
            stores = tuple(card.get("stores") or [card.get("store") or own])
            source = OWN if not own or set(stores) == {own} else MIXED if own in stores else OTHER
            found[name] = PretrainedOn(
                name, card.get("objective") or "", source, stores, _num_images(folder),
                card.get("settings") or {},
            )  # fmt: skip
    return found


def _num_images(folder: Path) -> int | None:
    """Images of the pool, as the log has them."""
    drawn = [int(line["images"]) for line in read_log(folder) if line.get("event") == "pool"]
    return drawn[-1] if drawn else None
