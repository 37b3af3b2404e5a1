"""A note that every cell shares is said once."""

from __future__ import annotations

from trabecula.reporting.formats import Cell, Table, said_once

NOTE = "fewer than 5 patients in a class: no interval"


def _table(*cells: Cell) -> Table:
    return Table(
        "AUROC", ("Network", "10 %", "100 %"), [(Cell("critic"), *cells)], "Every value: 8 patients."
    )


def test_a_note_of_all_cells_stands_above_the_table_once() -> None:
    found = said_once(_table(Cell("0.7", "no interval", NOTE), Cell("0.8", "no interval", NOTE)), 1)
    assert found.note == f"Every value: 8 patients. All cells: {NOTE}."
    assert list(found.rows) == [(Cell("critic"), Cell("0.7"), Cell("0.8"))]


def test_a_note_of_some_cells_stays_with_them() -> None:
    mixed = _table(Cell("0.7", "no interval", NOTE), Cell("0.8", "0.6 to 0.9"))
    assert said_once(mixed, 1) == mixed
    tested = _table(Cell("0.1", "0.0 to 0.2", "p 0.50, Holm 0.50"), Cell("0.1", "", "p 0.50, Holm 0.50"))
    assert said_once(tested, 1, kinds=("not estimable",)) == tested
