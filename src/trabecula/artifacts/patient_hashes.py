"""Patients without their names: keyed marks that can be compared inside one site and nowhere else.

An encoder's card lists the patients it has seen as HMACs (RFC 2104) under the site's key. Whoever
holds the key can ask whether a patient was seen; whoever holds only the card cannot, because an
unkeyed hash of a seven-digit number is undone by trying all of them.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trabecula.errors import InputError
from trabecula.patient_ids import canonical

SITE_KEY = "TRABECULA_SITE_KEY"


def site_key() -> bytes:
    """The site's secret key: from the environment, else from a file made on the first call.

    `TRABECULA_SITE_KEY` holds any text (32 random hex digits or more are advised). Without it the
    text is read from `trabecula/site.key` under the user's config folder (`XDG_CONFIG_HOME`, else
    `~/.config`), which only its owner can read: one that others can read is refused.
    """
    if SITE_KEY in os.environ:
        return _checked(os.environ[SITE_KEY], f"${SITE_KEY}")
    path = key_file()
    if not path.exists():
        _create(path)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(f"{path}: other users can read the site key; run: chmod 600 '{path}'")
    return _checked(path.read_text(encoding="utf-8"), str(path))


def key_file() -> Path:
    """Where the key lies when the environment gives none."""
    config = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(config) / "trabecula" / "site.key"


def _checked(text: str, where: str) -> bytes:
    if not text.strip():
        raise InputError(f"{where}: the site key is empty; give 32 random hex digits or more")
    return text.strip().encode()


def _create(path: Path) -> None:
    """Write a new key; if another process is first, its key stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32) + "\n")
    try:
        os.link(partial, path)  # unlike a rename, a link never replaces a key that is in use
    except FileExistsError:
        pass
    finally:
        partial.unlink()


def mark(patient_ids: Iterable[str], key: bytes) -> list[str]:
    """HMAC-SHA256 of each patient id, its first 32 hex digits (128 bit), in the order given.

    All spellings of an id have one mark: that of its canonical form.
    """
    return [_mark(canonical(str(patient)), key) for patient in patient_ids]


def _mark(text: str, key: bytes) -> str:
    return hmac.digest(key, text.encode(), "sha256").hex()[:32]


def key_name(key: bytes) -> str:
    """A public name for a key, 8 hex digits: tells two keys apart and gives neither away."""
    return hashlib.sha256(key).hexdigest()[:8]


def seen_among(patients: Iterable[str], card: Mapping[str, Any]) -> list[str] | None:
    """Those of the patients whom a card lists, sorted; None: its hashes are of another site's key.

    Cards of earlier versions have hashes of ids as they were written; both are looked for.

    `card`: with "patients", hashes of those it has seen, and "patients_key", the name of their key.
    """
    key = site_key()
    if card.get("patients_key") != key_name(key):
        return None
    ids, listed = sorted(set(patients)), set(card["patients"])
    marks = zip(ids, mark(ids, key), strict=True)
    return [patient for patient, one in marks if one in listed or _mark(patient, key) in listed]
