"""The results page is what the kept runs say, and names no machine's folders."""

import importlib.util
import json
import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
specification = importlib.util.spec_from_file_location("make_results", DOCS / "make_results.py")
make_results = importlib.util.module_from_spec(specification)
specification.loader.exec_module(make_results)


def test_page_is_made_of_the_kept_runs():
    assert (DOCS / "results.md").read_text(encoding="utf-8") == make_results.page()


def test_every_kept_run_is_on_the_page():
    page = make_results.page()
    files = sorted((DOCS / "results").glob("*.json"))
    assert files
    for file in files:
        found = json.loads(file.read_text(encoding="utf-8"))
        assert found["command"] in page
        assert not re.search(r"/(home|root|tmp|work)/", file.read_text(encoding="utf-8"))
        for row in found["rows"]:
            name = row["what"].replace("|", r"\|")  # or a table would end there
            assert f"| {name} | {make_results._value(row)} |" in page
    for figure in (DOCS / "results").glob("*.png"):
        assert f"(results/{figure.name})" in page
