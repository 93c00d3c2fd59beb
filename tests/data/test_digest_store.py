"""Digests that are kept between runs: used only where nothing has changed, whatever happens to their file."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diet_lightning.data.digest_store import RACY, _file_of, kept_digests

NOW = time.time_ns()
OLD = NOW - 10 * RACY


class Items:
    """Items with given digests; counts which are computed."""

    def __init__(self, names, digests, stamps=None):
        self.names = np.array(names, np.uint64)
        self.digests = np.array(digests, np.uint8)[:, None].repeat(16, 1)
        self.stamps = np.array([(3, OLD, OLD) for _ in names] if stamps is None else stamps, np.int64).reshape(-1, 3)
        self.computed = []

    def compute(self, positions):
        self.computed += positions.tolist()
        return self.digests[positions]

    def read(self, key="folder", read_at=NOW):
        self.computed = []
        return kept_digests(key, self.names, self.stamps, read_at, self.compute)


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """The folder of the kept digests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "diet_lightning"


def table_of(store):
    (file,) = (path for path in store.iterdir() if not path.suffix)
    return file


def test_a_second_reading_computes_nothing_and_gives_the_same():
    items = Items([7, 5, 9], [1, 2, 3])
    assert items.read().tolist() == items.digests.tolist()
    assert items.computed == [0, 1, 2]
    again = Items([9, 7, 5], [0, 0, 0])  # another order, as of a subset
    assert again.read()[:, 0].tolist() == [3, 1, 2]
    assert again.computed == []
    assert Items([9], [8]).read("another folder")[0, 0] == 8


@pytest.mark.parametrize(
    "stamp", [(4, OLD, OLD), (3, OLD + 1, OLD), (3, OLD, OLD + 1)], ids=["size", "content", "status"]
)
def test_a_change_of_size_or_times_is_computed_again(stamp):
    Items([7, 5], [1, 2]).read()
    changed = Items([7, 5], [6, 6], [(3, OLD, OLD), stamp])
    assert changed.read()[:, 0].tolist() == [1, 6]
    assert changed.computed == [1]
    changed.read()
    assert changed.computed == []


@pytest.mark.parametrize("young", [(3, NOW - RACY, OLD), (3, OLD, NOW - RACY)], ids=["content", "status"])
def test_a_file_as_young_as_its_reading_is_not_trusted(young):
    items = Items([7, 5], [1, 2], [(3, OLD, OLD), young])
    items.read()
    items.digests[:] = 9  # changed without a visible change of the times
    assert items.read()[:, 0].tolist() == [1, 9]
    items.read(read_at=NOW + 1)  # old enough now
    items.digests[:] = 4
    assert items.read()[:, 0].tolist() == [1, 9]


def test_items_without_digest_are_tried_again_and_others_are_kept():
    items = Items([7, 5], [1, 0])
    items.read()
    items.digests[:] = 2
    assert items.read()[:, 0].tolist() == [1, 2]


@settings(deadline=None)
@given(st.booleans(), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_any_damage_is_noticed(cut, position, flip):
    items = Items(range(5), [1, 2, 3, 4, 5])
    items.read("damaged")
    content = bytearray(_file_of("damaged").read_bytes())
    at = int(position * len(content))
    content[at] ^= flip
    _file_of("damaged").write_bytes(content[:at] if cut else content)
    assert items.read("damaged")[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert items.computed == [0, 1, 2, 3, 4]
    items.read("damaged")
    assert items.computed == []  # replaced by a sound one


def test_a_foreign_file_or_folder_in_its_place_costs_only_the_time(store):
    items = Items([7], [1])
    items.read()
    file = table_of(store)
    file.write_bytes(b"something else")
    assert items.read()[0, 0] == 1
    assert items.computed == [0]
    file.unlink()
    file.mkdir()
    for _ in range(2):
        assert items.read()[0, 0] == 1
        assert items.computed == [0]


@pytest.mark.parametrize("broken", ["a file in place of the folder", "no lock", "no home"])
def test_without_a_writable_cache_folder_all_are_computed(tmp_path, monkeypatch, broken):
    if broken == "no lock":

        def acquire(self):
            raise NotImplementedError("FileSystem does not appear to support flock")

        monkeypatch.setattr("diet_lightning.data.digest_store.FileLock.acquire", acquire)
    elif broken == "no home":

        def home():
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", home)
    else:
        (tmp_path / "home").write_text("")
    items = Items([7, 5], [1, 2])
    for _ in range(2):
        assert items.read()[:, 0].tolist() == [1, 2]
        assert items.computed == [0, 1]
    assert not list(tmp_path.rglob("*.partial"))


def test_a_full_disk_keeps_the_older_table(store, monkeypatch):
    items = Items([7], [1])
    items.read()
    kept = table_of(store).read_bytes()

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    more = Items([7, 5], [0, 2])
    assert more.read()[:, 0].tolist() == [1, 2]
    assert table_of(store).read_bytes() == kept
    assert not list(store.glob("*.partial"))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 3), st.integers(1, 255)), max_size=12))
def test_the_table_follows_a_dictionary(changes):
    key = str(time.monotonic_ns())
    current = {}
    for name, size, digest in changes:
        if current.get(name, (0, 0))[0] != size:
            current[name] = (size, digest)
        names = sorted(current)
        items = Items(names, [current[n][1] for n in names], [(current[n][0], OLD, OLD) for n in names])
        assert items.read(key)[:, 0].tolist() == [current[n][1] for n in names]
        assert set(items.computed) <= {names.index(name)}


def test_names_share_a_table_with_those_that_are_not_asked_for():
    Items([1, 2], [1, 2]).read()
    Items([3], [3]).read()  # another split of the same folder
    items = Items([1, 2, 3], [0, 0, 0])
    assert items.read()[:, 0].tolist() == [1, 2, 3]
    assert items.computed == []
