"""Names in CSV files are no formulas when a spreadsheet opens them."""

from __future__ import annotations

import csv

import pytest

from diet_lightning.cli.audit import _write_table
from diet_lightning.utilities.csv_cells import csv_cell


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x.png", "@SUM(A1)", "\tx", "\r=1", '=HYPERLINK("x")'])
def test_formulas_are_text(text):
    assert csv_cell(text) == f"'{text}"


@pytest.mark.parametrize("value", ["cat", "a=b", " =1", "", -1, -0.5, None, True])
def test_other_values_stay(value):
    assert csv_cell(value) is value


def test_tables_of_an_audit(tmp_path):
    columns = {"index": [0, 1], "path": ["=cmd|x.png", "a,b.png"], "label_name": ["@home", "-"], "loss": [-1.5, 2.0]}
    _write_table(tmp_path / "samples.csv", columns)
    with (tmp_path / "samples.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))
    assert rows == [list(columns), ["0", "'=cmd|x.png", "'@home", "-1.5"], ["1", "a,b.png", "'-", "2.0"]]
