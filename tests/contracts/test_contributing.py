"""CONTRIBUTING's method, taken from the page as it stands, keeps the contract."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import test_objectives as contract

from trabecula.artifacts.store import Store
from trabecula.objectives import TABLE, find

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Its file, where a user would put it, and its line in the table; the name."""
    text = PAGE.read_text(encoding="utf-8")
    (found,) = re.findall(r"<!-- src/trabecula/objectives/(\w+)\.py -->\n```python\n(.*?)```", text, re.S)
    ((key, where, title),) = re.findall(r'`"(\w+)": \("([\w:]+)", "([\w ]+)"\)`', text)
    assert where.partition(":")[0] == found[0] == key
    assert title.lower() == key
    (tmp_path / f"{key}.py").write_text(found[1], encoding="utf-8")
    package = importlib.import_module("trabecula.objectives")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.setitem(TABLE, key, (where, title))
    monkeypatch.delitem(sys.modules, f"trabecula.objectives.{key}", raising=False)
    return str(key)


@pytest.mark.parametrize(
    "promise",
    [
        contract.test_every_weight_is_in_a_group_gets_a_gradient_and_moves,
        contract.test_a_small_pool_can_be_learned,
        contract.test_accumulation_is_exact_or_refused,
        contract.test_bf16_runs_and_stays_near_float32,
        contract.test_steps_leave_the_global_random_numbers_alone,
        contract.test_state_across_steps_is_in_buffers,
    ],
    ids=lambda promise: promise.__name__,
)
def test_the_method_on_the_page_keeps_the_contract(promise: object, method: str, store: Store) -> None:
    promise(method, store)  # type: ignore[operator]


def test_it_resumes_bit_for_bit(method: str, store: Store, tmp_path: Path) -> None:
    contract.test_stop_and_resume_is_bit_identical(method, store, tmp_path)


def test_every_setting_on_the_page_is_explained(method: str) -> None:
    fields = find(method).Config.model_fields
    assert fields
    assert all(field.description for field in fields.values())
