"""The same picture twice in the training set, and in two splits: counted and told."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import images
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import TensorDataset

from diet_lightning import DIETDataModule
from diet_lightning.data.duplicates import duplicate_notes, repeated_content, shared_content
from diet_lightning.data.fingerprint import row_digests

VALUES = st.lists(st.integers(0, 5), max_size=12)  # 0: without digest


def digests(values):
    known = row_digests(np.array(values, np.int64).reshape(-1, 1))
    return np.where(np.array(values, np.int64)[:, None] == 0, 0, known).astype(np.uint8).reshape(-1, 16)


@given(VALUES, VALUES)
def test_counts_are_those_of_sets(train, other):
    assert shared_content(digests(train), digests(other)) == sum(value in train for value in other if value)
    assert repeated_content(digests(train)) == sum(value in train[:n] for n, value in enumerate(train) if value)


def test_a_sentence_for_each_kind_and_none_without():
    notes = duplicate_notes({"train": digests([1, 2, 2, 3]), "val": digests([2, 2, 9]), "test": digests([8])})
    assert [note.partition(":")[0] for note in notes] == [
        "1 of the 4 training samples repeats the content of another one",
        "2 of the 3 validation samples are also in the training set (same content)",
    ]
    assert duplicate_notes({"train": digests([1, 2]), "val": None}) == []
    assert duplicate_notes({"train": None, "val": digests([1, 2])}) == []


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


def test_files_in_two_splits_are_told_when_the_data_are_opened(tmp_path):
    for n, image in enumerate(images(6)):
        write(tmp_path / f"train/cat/{n}.png", image)
    for n, image in enumerate([*images(3), *images(2, seed=1)]):
        write(tmp_path / f"val/cat/other{n}.png", image)
    write(tmp_path / "test/cat/0.png", images(1)[0])
    data = DIETDataModule(f"folder:{tmp_path}")
    data.setup()
    told = [note for note in data.notes if "same content" in note]
    assert [note.split(":")[0] for note in told] == [
        "3 of the 5 validation samples are also in the training set (same content)",
        "1 of the 1 test samples is also in the training set (same content)",
    ]


@pytest.mark.parametrize("in_memory", [True, False])
def test_arrays_are_compared_by_rows_and_custom_data_sets_are_not(in_memory):
    inputs = images(8)
    train, val = TensorDataset(inputs, torch.zeros(8)), TensorDataset(inputs[5:], torch.zeros(3))
    data = DIETDataModule.from_datasets(train, val, in_memory=in_memory)
    data.setup()
    assert any("3 of the 3 validation samples are also in" in note for note in data.notes)
    data = DIETDataModule.from_datasets(list(inputs), list(inputs))
    data.setup()
    assert data.notes == []


def test_a_subset_is_compared_and_not_what_is_left_out():
    inputs = images(8)
    data = DIETDataModule.from_datasets(TensorDataset(inputs), TensorDataset(inputs), subset=3)
    data.setup()
    assert [note.partition(":")[0] for note in data.notes] == [
        "3 of the 8 validation samples are also in the training set (same content)"
    ]


def test_digits_have_no_duplicates():
    data = DIETDataModule("digits")
    data.setup()
    assert data.notes == []
