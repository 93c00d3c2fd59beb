"""A plugin of pytest that appends a JSON line for each test to the file named by DIET_TEST_REPORT, as soon as it has run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":  # of set-up and tear-down, failures and skips only
        line = {"test": report.nodeid, "outcome": report.outcome, "seconds": round(report.duration, 2)}
        if report.failed:
            line["error"] = str(report.longrepr)[-2000:]
        with Path(os.environ["DIET_TEST_REPORT"]).open("a") as file:
            print(json.dumps(line), file=file)
