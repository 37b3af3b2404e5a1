"""What is installed: packages, and the optional parts ("extras") of this one."""

from __future__ import annotations

import re
from importlib import metadata

_NOT_FOR_USERS = ("dev", "docs")


def installed(package: str) -> str | None:
    """The version of an installed package; None of one that is not."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def required() -> dict[str, str]:
    """What Trabecula needs: package -> the versions that it takes, such as ">=2.8"."""
    return dict(_parts(line) for line in metadata.requires("trabecula") or [] if "extra ==" not in line)


def extras() -> dict[str, tuple[str, ...]]:
    """The extras for users: name -> packages that it installs."""
    names = metadata.metadata("trabecula").get_all("Provides-Extra") or []
    lines = metadata.requires("trabecula") or []
    return {
        name: tuple(_parts(line)[0] for line in lines if f'extra == "{name}"' in line)
        for name in names if name not in _NOT_FOR_USERS
    }  # fmt: skip


def has_extra(name: str) -> bool:
    """Whether all packages of an extra are installed; of an unknown one, False."""
    packages = extras().get(name, ())
    return bool(packages) and all(installed(package) for package in packages)


def _parts(requirement: str) -> tuple[str, str]:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    text = name.group() if name else requirement
    return text, requirement[len(text) :].partition(";")[0].strip()
