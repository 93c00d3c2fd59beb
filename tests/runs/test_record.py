"""``run.json``: what comes back, and what is refused."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path

import pytest

from diet_lightning.errors import ConfigurationError
from diet_lightning.runs.record import RunRecord

VALUES = {
    "num_samples": 123_457,
    "fingerprint": "ab" * 16,
    "input_shape": [3, 32, 32],
    "num_classes": 2,
    "class_names": ["Käfer", "cat"],
    "source": "folder:data",
    "backbone": "resnet18",
    "target": "index",
    "label_smoothing": 0.8,
    "batch_size": 256,
    "data": {"source": "folder:data", "notes": []},
}


def test_record_is_plain_json_and_comes_back():
    RunRecord(**VALUES).write("a/run")
    written = json.loads(Path("a/run/run.json").read_text(encoding="utf-8"))
    versions = written.pop("versions")
    assert written == VALUES
    assert (versions["torch"], versions["python"]) == (version("torch"), platform.python_version())
    assert RunRecord.read("a/run") == RunRecord(**VALUES)
    assert [path.name for path in Path("a/run").iterdir()] == ["run.json"]


def test_record_is_replaced_as_a_whole():
    RunRecord(**VALUES).write("run")
    before = Path("run/run.json").read_text(encoding="utf-8")
    with Path("run/run.json").open(encoding="utf-8") as reader:
        RunRecord(**{**VALUES, "num_samples": 5}).write("run")
        assert reader.read() == before  # the file that was there is left as it was, never cut off
    assert RunRecord.read("run").num_samples == 5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_samples", "5"),
        ("num_samples", 0),
        ("num_samples", True),
        ("fingerprint", 3),
        ("input_shape", "332"),
        ("input_shape", [3, -1]),
        ("num_classes", 2.5),
        ("class_names", [1, 2]),
        ("class_names", "cat"),
        ("source", ["digits"]),
        ("backbone", {}),
        ("target", "both"),
        ("label_smoothing", 1.0),
        ("label_smoothing", None),
        ("batch_size", None),
        ("data", "digits"),
        ("data", []),
        ("versions", []),
        ("versions", {"torch": 2}),
    ],
)
def test_damaged_values_are_told_by_name(name, value):
    Path("run.json").write_text(json.dumps({**VALUES, "versions": {}, name: value}))
    with pytest.raises(
        ConfigurationError, match=rf"'run.json' cannot be read \(ValueError: {name} is .*\): restore it"
    ):
        RunRecord.read(".")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"run"', json.dumps(VALUES), "\udcff"])
def test_damaged_file_is_told_in_a_sentence(text):
    Path("run.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationError, match=r"'run.json' cannot be read \(\w+Error: ") as caught:
        RunRecord.read(".")
    assert "\n" not in str(caught.value)


def test_missing_file_names_what_writes_it():
    with pytest.raises(ConfigurationError, match=r"'gone' holds no run.json: .*`diet fit`.* callback RunRecorder"):
        RunRecord.read("gone")
