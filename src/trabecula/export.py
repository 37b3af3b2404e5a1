"""generator + audit -> a generator that may leave: its weights, and a card with the audit and no patient.

generator.safetensors     the weights, unchanged
generator.json            the card, with the memorisation audit of these very weights

Nothing else of the training's folder comes along: no encoder, no critic, no patient's mark.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from trabecula.config import Record
from trabecula.data.audit import CLEAR, read_audit
from trabecula.errors import InputError
from trabecula.nets.generator import WEIGHTS_FILE, load_generator, save_generator
from trabecula.run import Run


class Config(Record):
    """Settings of `export`."""

    generator: Path
    """A folder written by `pretrain` with an adversarial method, or one of its snapshots."""
    audit: Path
    """The folder that `fidelity` wrote of this generator, or its audit.json."""
    accept: bool = False
    """Export also a generator whose audit finds copying, or could find nothing; the card says so."""


def run(config: Config, out: Run) -> str:
    """Write the generator with its audit; refuses one without, or one that copies."""
    folder = config.generator if config.generator.is_dir() else config.generator.parent
    generator, card = load_generator(folder)
    weights = hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
    audit = read_audit(config.audit, weights)
    if not str(audit["finding"]).startswith(CLEAR) and not config.accept:
        raise InputError(
            f"{config.audit}: the audit says '{audit['finding']}': this generator may give away its training "
            "images; set accept = true to export it all the same"
        )
    save_generator(generator, card.model_copy(update={"audit": audit, "store": ""}), out)
    return f"{card.objective} generator of {card.images_seen:,} images seen; {audit['finding']}"
