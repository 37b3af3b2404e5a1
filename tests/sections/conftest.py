"""The report of a made-up study, written once for each file of tests that reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from report_page import make_study
from trabecula.report import Config
from trabecula.run import execute


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def made(study: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "report"
    execute("report", study, out)
    return out


@pytest.fixture(scope="module")
def page(made: Path) -> str:
    return (made / "report.html").read_text()
