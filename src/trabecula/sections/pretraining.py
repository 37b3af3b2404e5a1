"""How the encoders were trained: loss, collapse and neighbours as `pretrain` measured them; a line each.

Reads training.json, the card and the pictures of every run that trained an encoder; computes no statistic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trabecula.artifacts.encoder import EncoderCard, has_encoder, read_encoder_card
from trabecula.artifacts.run_record import read_log
from trabecula.artifacts.store import read_store_record
from trabecula.artifacts.training import read_training
from trabecula.config import digest
from trabecula.figures.image_sheets import png_uri
from trabecula.sections.formats import Table, cells
from trabecula.sections.numbers import count, number, share
from trabecula.sections.section import Block, PagePicture, Section

_MEASURES = (  # key, name, digits, meaning
    ("monitor/rank", "Effective rank", 1, "how many directions the features of pool images use"),
    ("monitor/spread", "Spread", 3, "1 where features point in all directions, 0 where all are the same"),
    ("monitor/knn", "Neighbours", 3,
     "balanced accuracy of votes of the nearest images of other training patients"),
)  # fmt: skip
_RECONSTRUCTIONS = "reconstructions.png"


@dataclass(frozen=True)
class Pretrainings:
    """A row a run, a sentence for everything that was wrong, and what methods drew."""

    table: Table
    wrong: list[str]
    at_the_end: Mapping[str, str]  # by arm, what was still wrong when training ended, for its verdict
    sheets: list[PagePicture] = field(default_factory=list)


@dataclass(frozen=True)
class _Trained:
    """A run that trained an encoder: its folder, its card, and training.json."""

    folder: Path
    card: EncoderCard
    training: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.card.name}, seed {self.card.seed}"

    @property
    def points(self) -> list[dict[str, float]]:
        return self.training.get("points") or []


def _trained(folders: Sequence[Path]) -> list[_Trained]:
    """By arm and seed."""
    found = [
        _Trained(folder, read_encoder_card(folder), training)
        for folder in folders
        if has_encoder(folder) and (training := read_training(folder))
    ]
    return sorted(found, key=lambda run: (run.card.name, run.card.seed))


def read_pretrainings(folders: Sequence[Path], pictures: bool = False) -> Pretrainings | None:
    """Of these runs, those that trained an encoder; None where there is none.

    `pictures`: with reconstructions, which are images of patients, of each arm's first seed.
    """
    runs = _trained(folders)
    if not runs:
        return None
    wrong = [sentence for run in runs for sentence in _wrong(run)]
    return Pretrainings(_table(runs), wrong, _at_the_end(runs), _sheets(runs) if pictures else [])


def pretraining_section(pretrainings: Pretrainings | None) -> Section | None:
    if pretrainings is None:
        return None
    texts = pretrainings.wrong or ["Nothing that is measured was found wrong."]
    blocks = [*(Block("text", text) for text in texts), Block("table", pretrainings.table)]
    if pretrainings.sheets:
        note = "What is filled in is made of the visible patches alone; the hidden ones enter nowhere, not "
        note += "by their brightness either."
        blocks += [Block("heading", "What masked autoencoders fill in"), Block("note", note)]
        blocks.append(Block("pictures", pretrainings.sheets))
    return Section("pretraining", "Pretraining", "Pretraining", blocks)


def _table(runs: Sequence[_Trained]) -> Table:
    """A row a run; a measure that no run has is no column."""
    measured = {(i, key): _measured(run, key, d) for i, run in enumerate(runs) for key, _, d, _ in _MEASURES}
    shown = [m for m in _MEASURES if any(measured[i, m[0]] != "–" for i in range(len(runs)))]
    note = "From the first measurement (of a loss its mean until then, of others before training) to the "
    note += "last." + "".join(f" {name}: {meaning}." for _, name, _, meaning in shown)
    rows = []
    for i, run in enumerate(runs):
        images = count(run.points[-1]["images"]) if run.points else "–"
        values = (measured[i, key] for key, *_ in shown)
        rows.append(cells(run.card.name, str(run.card.seed), images, _losses(run.points), *values))
    columns = ("Arm", "Seed", "Images", "Loss", *(name for _, name, *_ in shown))
    return Table("How the encoders were trained", columns, rows, note, heads=2)


def _measured(run: _Trained, key: str, digits: int) -> str:
    rows = [run.training.get("start") or {}, *run.points]
    return _from_to([row[key] for row in rows if key in row], digits)


def _losses(points: Sequence[Mapping[str, float]]) -> str:
    """ "query 4.306 → 3.021; key 1.2 → 0.9"."""
    names = [name for name in (points[0] if points else ()) if name.endswith("/loss")]
    courses = {name: _from_to([p[name] for p in points if name in p], 3) for name in names}
    return "; ".join(f"{name.removesuffix('/loss')} {course}" for name, course in courses.items()) or "–"


def _from_to(values: Sequence[float], digits: int) -> str:
    """ "83.1 → 41.2"; one value alone as it is."""
    ends = [values[0], values[-1]] if len(values) > 1 else values
    return " → ".join(number(value, digits) for value in ends) or "–"


def _wrong(run: _Trained) -> list[str]:
    sentences = []
    for finding in run.training.get("findings") or ():
        first, last = count(finding["first"]), count(finding["last"])
        when = f"at {first} images" if first == last else f"from {first} to {last} images"
        sentences.append(f"{run.name}, {when}: {finding['text']}.")
    return sentences


def _at_the_end(runs: Sequence[_Trained]) -> dict[str, str]:
    """By arm: "seed 0: the encoder has collapsed: ...; seed 2: ..."."""
    found: dict[str, list[str]] = {}
    for run in runs:
        end = run.points[-1].get("images") if run.points else None
        for finding in run.training.get("findings") or ():
            if finding["last"] == end:
                found.setdefault(run.card.name, []).append(f"seed {run.card.seed}: {finding['text']}")
    return {arm: "; ".join(texts) for arm, texts in found.items()}


def _sheets(runs: Sequence[_Trained]) -> list[PagePicture]:
    """The reconstructions of each arm that has some, masked autoencoders by the share that is hidden."""
    first: dict[str, _Trained] = {}
    for run in runs:
        if (run.folder / _RECONSTRUCTIONS).exists():
            first.setdefault(run.card.name, run)
    return [_sheet(run) for run in sorted(first.values(), key=lambda r: (_hidden(r.card) or 0, r.card.name))]


def _hidden(card: EncoderCard) -> float | None:
    ratio = card.settings.get("mask_ratio")
    return float(ratio) if isinstance(ratio, int | float) else None


def _sheet(run: _Trained) -> PagePicture:
    ratio = _hidden(run.card)
    part = "some" if ratio is None else share(ratio)
    caption = (
        f"{run.name}: images of the pool, the same with {part} of the patches hidden, and what the network "
        "fills in from the rest"
    )
    alt = (
        f"Reconstructions of {run.card.name} in three rows: images of the pool as they are; the same with "
        f"{part} of their patches, drawn by chance, covered in white; and the images that the network made "
        "of the visible patches alone"
    )
    return PagePicture(caption, alt, png_uri((run.folder / _RECONSTRUCTIONS).read_bytes()))


OWN, OTHER, MIXED = "in-domain", "cross-domain", "mixed-domain"


@dataclass(frozen=True)
class PretrainedOn:
    """One arm's pretraining."""

    card: EncoderCard
    source: str  # OWN where it saw the study's images alone, OTHER where none of them, MIXED where both
    stores: tuple[str, ...]  # ids
    num_images: int | None  # of its pool; None where the log does not say

    @property
    def mask_ratio(self) -> float | None:
        """Of a masked autoencoder, the share of patches that were hidden."""
        return _hidden(self.card) if self.card.objective == "mae" else None


def read_learned(folders: Sequence[Path], store: Path | None) -> dict[str, PretrainedOn]:
    """By arm, what the runs among the folders that trained an encoder say of it; the first seed's.

    Without the store of the study's images every pool counts as the study's own.
    """
    own = digest(read_store_record(store).plain) if store else ""
    found: dict[str, PretrainedOn] = {}
    for run in _trained(folders):
        stores = run.card.stores or (run.card.store or own,)
        source = OWN if not own or set(stores) == {own} else MIXED if own in stores else OTHER
        pools = [int(line["images"]) for line in read_log(run.folder) if line.get("event") == "pool"]
        found.setdefault(run.card.name, PretrainedOn(run.card, source, stores, pools[-1] if pools else None))
    return found
