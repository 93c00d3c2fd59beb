"""Loaders: what cannot be sent to a loader process is told in a sentence."""

from __future__ import annotations

import multiprocessing

import pytest
from helpers import images
from torch.utils.data import Dataset

from diet_lightning import DIETDataModule
from diet_lightning.errors import ConfigurationError


class Transformed(Dataset):
    def __init__(self, transform):
        self.transform, self.pixels = transform, images(8)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.transform(self.pixels[index])


@pytest.mark.parametrize("loader", ["train_dataloader", "predict_dataloader"])
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_lambda_is_told_where_processes_are_spawned(monkeypatch, loader, method):
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method(method, force=True)
    try:
        data = DIETDataModule.from_datasets(Transformed(lambda image: image), batch_size=4, num_workers=1)
        with pytest.raises(ConfigurationError) as error:
            next(iter(getattr(data, loader)()))
    finally:
        multiprocessing.set_start_method(before, force=True)
    for part in ("cannot be sent to 1 loader processes", "lambda", "`num_workers` to 0"):
        assert part in str(error.value)


def test_an_error_of_a_data_set_is_not_taken_for_it():
    def broken(image):
        raise AttributeError("no such field")

    data = DIETDataModule.from_datasets(Transformed(broken), batch_size=4, num_workers=0)
    with pytest.raises(Exception, match="Sample 0 of Transformed cannot be read: no such field"):
        next(iter(data.train_dataloader()))
