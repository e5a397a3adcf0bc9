"""Tables survive the programs they are made for: spreadsheets and LaTeX read texts as texts."""

import csv
import io
import re

import pytest

from qa.exports import as_csv, as_latex, latex_text

HOSTILE = ["=1+1", "+1", "-1", "@x", "\tx", 'a,"b"\nc', "plain"]


def test_csv_read_back():
    rows = [[text, 0.1 + 0.2, -3, None] for text in HOSTILE]
    found = [*csv.reader(io.StringIO(as_csv(["name", "=f1", "count", "none"], rows), newline=""))]
    assert found[0] == ["name", "'=f1", "count", "none"]
    assert [row[0] for row in found[1:]] == [f"'{text}" for text in HOSTILE[:5]] + HOSTILE[5:]
    assert "\\ud83d" in as_csv(["a"], [["\ud83d"]])
    assert {tuple(row[1:]) for row in found[1:]} == {("0.30000000000000004", "-3", "")}
    assert [float(row[1]) for row in found[1:]] == [0.1 + 0.2] * 7


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (r"a_b & 50% #1 $x$ {y} \z", r"a\_b \& 50\% \#1 \$x\$ \{y\} \textbackslash{}z"),
        ("~^<>", r"\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}"),
        ("Δ 1 ± 2 – −3", r"$\Delta$ 1 $\pm$ 2 -- $-$3"),
        ("two\nlines\x1b", r"two lines\textbackslash{}x1b"),
    ],
)
def test_latex_prints_any_text(text, printed):
    assert latex_text(text) == printed


def test_no_character_escapes_from_a_latex_table():
    table = as_latex(["name_1", "F1"], [["\\input{x}", -1.234], ["b%", None]], caption="50% & more")
    assert r"\caption{50\% \& more}" in table
    assert r"\begin{tabular}{lr}" in table
    assert r"name\_1 & F1 \\" in table
    assert r"\textbackslash{}input\{x\} & $-1.23$ \\" in table
    assert r"b\% & --- \\" in table
    assert len(re.findall(r"(?<!\\)&", table)) == 3
    assert table.count(r"\\" + "\n") == 3
