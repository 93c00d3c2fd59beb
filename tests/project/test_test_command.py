"""`make test` ends, whatever a test does."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OTHERS = """
import pytest

@pytest.mark.parametrize("n", range(10))
def test_other(n):
    pass
"""
CRASH = """
import os, signal

def test_that_crashes():
    os.kill(os.getpid(), signal.SIGSEGV)
"""
HANG = """
import time

def test_that_hangs():
    while True:
        try:
            time.sleep(1000)
        except BaseException:  # also the time limit of a single test
            pass
"""


def make_test(folder: Path, limit: int | None = None) -> tuple[subprocess.CompletedProcess, float]:
    """The command of `make test` on other tests, from the project's root, and how long it took."""
    lines = subprocess.run(["make", "--dry-run", "test"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    (line,) = [line for line in lines if "pytest" in line]
    command = [sys.executable if part == ".venv/bin/python" else part for part in shlex.split(line)]
    if limit is not None:
        command[2] = str(limit)
    start = time.monotonic()
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml", f"--rootdir={folder}", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
    )
    return done, time.monotonic() - start


def test_crash_is_a_failure_with_its_name_and_the_rest_runs(tmp_path):
    for name in "abcd":
        (tmp_path / f"test_{name}.py").write_text(OTHERS)
    (tmp_path / "test_b_crash.py").write_text(CRASH)
    done, seconds = make_test(tmp_path)
    assert done.returncode == 1, done.stdout
    assert "crashed while running 'test_b_crash.py::test_that_crashes'" in done.stdout
    assert "1 failed, 40 passed" in done.stdout
    assert "Fatal Python error: Segmentation fault" in done.stderr
    assert "in test_that_crashes" in done.stderr
    assert seconds < 60


@pytest.mark.parametrize("limit", [15])
def test_hang_is_ended_with_its_processes(tmp_path, limit):
    (tmp_path / "test_hang.py").write_text(HANG)
    done, seconds = make_test(tmp_path, limit)
    assert done.returncode == 124
    assert f"took more than {limit} seconds and was ended" in done.stderr
    assert seconds < limit + 30


def test_ended_command_ends_all_it_started(tmp_path):
    script = "import os, time; print(os.getpid(), flush=True); time.sleep(100)"
    command = [sys.executable, ROOT / "tests/limited.py", "90", sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        child = int(process.stdout.readline())
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
