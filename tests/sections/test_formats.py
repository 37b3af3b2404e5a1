"""A note that every cell shares is said once."""

from __future__ import annotations

import pytest

from trabecula.sections.formats import Entry, Table, said_in_title, said_once, tex, to_latex

NOTE = "fewer than 5 patients in a class: no interval"


def _table(*cells: Entry) -> Table:
    return Table(
        "AUROC", ("Network", "10 %", "100 %"), [(Entry("critic"), *cells)], "Every value: 8 patients."
    )


def test_a_note_of_all_cells_stands_above_the_table_once() -> None:
    found = said_once(_table(Entry("0.7", "no interval", NOTE), Entry("0.8", "no interval", NOTE)), 1)
    assert found.note == f"Every value: 8 patients. All cells: {NOTE}."
    assert list(found.rows) == [(Entry("critic"), Entry("0.7"), Entry("0.8"))]


def test_a_note_of_some_cells_stays_with_them() -> None:
    mixed = _table(Entry("0.7", "no interval", NOTE), Entry("0.8", "0.6 to 0.9"))
    assert said_once(mixed, 1) == mixed
    tested = _table(Entry("0.1", "0.0 to 0.2", "p 0.50, Holm 0.50"), Entry("0.1", "", "p 0.50, Holm 0.50"))
    assert said_once(tested, 1, kind="not estimable") == tested


def test_a_heading_that_is_the_same_in_every_row_stands_in_the_title() -> None:
    rows = [(Entry(network), Entry("random weights"), Entry("0.1")) for network in ("critic", "vit")]
    table = Table("Differences", ("Network", "Against", "10 %"), rows, heads=2)
    found = said_in_title(table, 1)
    assert found.title == "Differences, against random weights"
    assert found.columns == ("Network", "10 %")
    assert [[cell.text for cell in row] for row in found.rows] == [["critic", "0.1"], ["vit", "0.1"]]
    assert found.heads == 1
    other = Table(
        "Differences",
        table.columns,
        [*rows, (Entry("vit"), Entry("ImageNet"), Entry("0"))],
        heads=2,
    )
    assert said_in_title(other, 1) == other


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("kl >= 2", r"kl $\geq$ 2"), ("kl <= 2", r"kl $\leq$ 2"), ("kl != 2", r"kl $\neq$ 2"),
        ("a < b > c", "a $<$ b $>$ c"), ("kl≥2", r"kl$\geq$2"), ("50 % & x_1 #2", r"50 \% \& x\_1 \#2"),
        ("a|b", r"a\textbar{}b"), ("~^\\", r"\textasciitilde{}\textasciicircum{}\textbackslash{}"),
        ("{x} $y$", r"\{x\} \$y\$"), ("0.8 ± 0.1 µm²", r"0.8 $\pm$ 0.1 $\mu$m$^2$"), ("a\nb", "a b"),
        ("κ → ∞", r"$\kappa$ $\to$ $\infty$"), ('"x"', "''x''"),
        ("[0.1, 0.2]", "{}[0.1, 0.2]"), ("*", "{}*"), ("x [0.1] *", "x [0.1] *"),
    ],
)  # fmt: skip
def test_signs_are_escaped_for_latex(text: str, wanted: str) -> None:
    assert tex(text) == wanted


def test_rules_are_rules_in_every_place_of_a_latex_table() -> None:
    table = Table("kl >= 2", ("Task >= 1", "AUROC"), [(Entry("[x] >= 3"), Entry("1", strong=True))], "n <= 4")
    text = to_latex([table])
    for part in (r"\caption{kl $\geq$ 2. n $\leq$ 4}", r"Task $\geq$ 1 &", r"{}[x] $\geq$ 3 &"):
        assert part in text
    assert "$=" not in text
