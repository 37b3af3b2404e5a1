"""Writes a number."""

from trabecula.config import Record
from trabecula.run import Run


class Style(Record):
    digits: int = 4
    """Digits written."""
    sign: bool = False
    """Whether a sign is written."""


class Config(Record):
    value: int = 1
    """The number."""
    style: Style = Style()
    """How it is written."""


def run(config: Config, out: Run) -> str:
    print("a verb may print")
    out.write("number.txt", f"{config.value:0{config.style.digits}d}\n")
    (out / "parts").mkdir(exist_ok=True)
    out.write("parts/half.txt", f"{config.value / 2}\n")
    return f"the number {config.value}"
