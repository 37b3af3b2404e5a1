"""A report of a made-up study, and what a reader sees of its page."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from evaluated_study import write_manifest, write_results, write_run, write_store
from trabecula.report import Config


def make_study(root: Path) -> Config:
    samples = np.random.default_rng(0).random((10, 1, 24, 24)).astype(np.float32)
    np.save(root / "samples.npy", samples)
    return Config(
        results=write_results(root / "results"),
        manifest=write_manifest(root / "data"),
        store=write_store(root / "store"),
        runs=tuple(
            write_run(root / f"r{i}", verb, i) for i, verb in enumerate(("probe", "pretrain", "probe"))
        ),
        samples=(root / "samples.npy",),
        title="Does <pretraining> pay?",
        command="trabecula study /home/ann/SECRET/knees.toml --out runs",
    )


def visible(page: str) -> str:
    """The page's text as a reader sees it, spaces folded."""

    class Text(HTMLParser):
        parts: list[str]
        skipping = False

        def handle_starttag(self, tag: str, attrs: Any) -> None:  # noqa: ARG002
            self.skipping = tag == "style"

        def handle_data(self, data: str) -> None:
            if not self.skipping:
                self.parts.append(data)

    parser = Text()
    parser.parts = []
    parser.feed(page)
    return " ".join(" ".join(parser.parts).replace("\N{NO-BREAK SPACE}", " ").split())


class Balance(HTMLParser):
    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [str(value) for name, value in attrs if name == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"{tag} at {self.getpos()}")
