"""Embeddings in a file: what is in it, in every format, also after a kill and from several processes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import TinyNet, image_data, images
from lightning.pytorch import Callback
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file
from torch.utils.data import DataLoader, Dataset, TensorDataset

from diet_lightning import DIETDataModule, DIETModule, Embeddings, EmbeddingWriter, FitProgressBar, read_embeddings
from diet_lightning.__main__ import main
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.data.loaders import identity_collate
from diet_lightning.data.sampling import BlockSampler
from diet_lightning.embeddings import formats
from diet_lightning.embeddings.resumable import COLUMNS
from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.utilities import row_store

pytestmark = pytest.mark.slow

FORMATS = ("npz", "parquet", "safetensors")
COUNT, BATCH = 203, 16  # 13 batches, the last of 11


def tiny(count=COUNT, seed=0):
    torch.manual_seed(seed)
    return DIETModule(TinyNet(), num_samples=count, input_shape=[3, 8, 8])


@pytest.fixture
def predict(make_trainer):
    """Runs predict and returns the rows that each batch computed."""

    class Seen(Callback):
        def __init__(self):
            self.batches, self.total = [], []

        def on_predict_batch_end(self, trainer, pl_module, outputs, batch, *_):
            self.batches.append(batch.index.tolist())
            self.total += [
                each.predict_progress_bar.total for each in trainer.callbacks if isinstance(each, FitProgressBar)
            ]

    def run(module, data, file, *callbacks, writer=EmbeddingWriter, **options):
        seen = Seen()
        trainer = make_trainer(callbacks=[writer(str(file)), seen, *callbacks], **options)
        trainer.predict(module, data, return_predictions=False)
        return seen

    return run


@pytest.fixture
def folder(tmp_path):
    """Images in class folders, one of them with a name beyond ASCII."""
    generator = np.random.default_rng(0)
    for n in range(10):
        path = tmp_path / "photos" / ("cat", "dog")[n % 2] / ("ö" * n + f"{n}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def class_names_in(metadata):
    text = {key.decode() if isinstance(key, bytes) else key: value for key, value in (metadata or {}).items()}
    return {name: np.array(json.loads(text[name])) for name in ("class_names",) if name in text}


def by_library(file):
    """A file as the library of its format reads it."""
    if file.suffix == ".npz":
        return dict(np.load(file, allow_pickle=False))
    if file.suffix == ".parquet":
        table = pq.read_table(file)
        arrays = {name: np.array(table[name].to_pylist()) for name in table.column_names}
        return arrays | class_names_in(table.schema.metadata)
    arrays = load_file(file)
    with safe_open(file, "np") as opened:
        arrays |= class_names_in(opened.metadata())
    if "path" in arrays:
        text, ends = arrays["path"].tobytes(), arrays.pop("path_ends")
        arrays["path"] = np.array(
            [part.decode() for part in np.split(np.frombuffer(text, "S1"), ends[:-1]) for part in [part.tobytes()]]
        )
    return arrays


def mapped_file(array):
    """The file that an array's memory is mapped from, as the kernel says; None for memory of the process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, *_, inode, name = line.split(maxsplit=5) if line.count("/") else (*line.split()[:5], None)
        start, end = (int(each, 16) for each in addresses.split("-"))
        if start <= array.ctypes.data < end:
            return name if int(inode) else None
    raise AssertionError("the array is not mapped at all")


def by_hand(module, data, split="train"):
    """The features as the module gives them for each batch."""
    with torch.no_grad():
        return torch.cat([module.eval()(batch.input) for batch in data.eval_batches(split)]).numpy()


def assert_same(found, expected):
    for name in ("features", "index", "label"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
        assert getattr(found, name).dtype == getattr(expected, name).dtype


# -- what is written ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", FORMATS)
def test_file_holds_the_backbones_features_and_the_names_for_its_library_and_for_ours(
    predict, folder, tmp_path, suffix, monkeypatch
):
    monkeypatch.setattr(formats, "ROWS", 3)
    data = DIETDataModule(f"folder:{folder}", batch_size=4, holdout=0.0, mean=[0.5] * 3, std=[0.25] * 3)
    module, file = tiny(10), tmp_path / "deep" / f"e.{suffix}"
    predict(module, data, file)
    theirs, ours = by_library(file), read_embeddings(file)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))
    expected = {
        "features": by_hand(module, data),
        "index": np.arange(10),
        "label": np.array([0] * 5 + [1] * 5),
        "path": np.array(data.names("train")),
        "class_names": np.array(["cat", "dog"]),
    }
    assert sorted(data.names("train")) == files
    for name, value in expected.items():
        np.testing.assert_array_equal(theirs[name], value)
        np.testing.assert_array_equal(getattr(ours, name), value)
    assert theirs.keys() == expected.keys()
    dtypes = {"features": np.float32, "index": np.int64, "label": np.int64}
    assert {name: getattr(ours, name).dtype for name in dtypes} == dtypes
    assert ours.features.flags.aligned
    assert (mapped_file(ours.features) == str(file)) == (suffix != "parquet")
    assert ours.features.flags.writeable == (suffix == "parquet")
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # nothing partial is left


@pytest.mark.parametrize("suffix", FORMATS)
def test_samples_without_names_have_no_path(predict, tmp_path, suffix):
    data = image_data(20)
    data.predict_split = "val"
    predict(module := tiny(20), data, file := tmp_path / f"e.{suffix}")
    assert "path" not in by_library(file)
    found = read_embeddings(file)
    assert found.path is None
    assert_same(found, Embeddings(by_hand(module, data, "val"), np.arange(20), np.arange(20) % 4))


def test_reduced_precision_is_written_as_float32(predict, tmp_path):
    predict(module := tiny(48), image_data(), tmp_path / "e.npz", precision="bf16-true")
    found = read_embeddings(tmp_path / "e.npz").features
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(module.float(), image_data()), atol=0.05)


def test_foreign_loader_in_any_order_is_computed_as_a_whole(predict, tmp_path):
    class Shifted(Dataset):  # its samples have names of their own
        names = tuple(f"sample {n}" for n in range(30))

        def __len__(self):
            return 30

        def __getitem__(self, index):
            return images(30)[index].float(), index - 1

    loader = DataLoader(
        IndexedDataset(Shifted()),
        batch_size=7,
        sampler=np.random.default_rng(0).permutation(30).tolist(),
        collate_fn=identity_collate,
    )
    file, module = tmp_path / "e.npz", tiny(30)
    partial = tmp_path / ".e.npz.partial"
    partial.mkdir()
    for name in (*COLUMNS, row_store.DONE):  # what a killed run left
        (partial / name).write_bytes(b"\1" * 30)
    predict(module, loader, file)
    found = read_embeddings(file)
    with torch.no_grad():
        expected = module.eval()(images(30).float()).numpy()
    np.testing.assert_allclose(found.features, expected, rtol=1e-5)
    np.testing.assert_array_equal(found.index, np.arange(30))
    np.testing.assert_array_equal(found.label, np.arange(30) - 1)
    assert found.path.tolist() == list(Shifted.names)


def test_a_part_of_the_data_is_written_as_such(predict, tmp_path):
    data = image_data(COUNT)
    predict(module := tiny(), data, tmp_path / "e.safetensors", limit_predict_batches=2)
    found = read_embeddings(tmp_path / "e.safetensors")
    np.testing.assert_array_equal(found.index, np.arange(32))
    np.testing.assert_array_equal(found.features, by_hand(module, data)[:32])


def test_two_writers_at_once_agree(predict, tmp_path):
    data, module = image_data(), tiny(48)
    predict(module, data, tmp_path / "a.npz", EmbeddingWriter(str(tmp_path / "b.parquet")))
    assert_same(read_embeddings(tmp_path / "a.npz"), read_embeddings(tmp_path / "b.parquet"))
    assert len(data.predict_dataloader()) == 3  # what was written is left out of a run of `predict` alone


MEMORY = """
import sys
import threading
import time
from pathlib import Path
import torch
from torch.utils.data import TensorDataset
from lightning.pytorch import Trainer
from diet_lightning import DIETDataModule, DIETModule, EmbeddingWriter
from diet_lightning.embeddings import formats

formats.ROWS = 64

class Wide(torch.nn.Module):  # 4 numbers in, 4,096 out
    def forward(self, x):
        return x.repeat(1, 1024)

def predict(count, file):
    inputs = torch.arange(4.0 * count).reshape(count, 4)
    data = DIETDataModule.from_datasets(TensorDataset(inputs, torch.zeros(count)), batch_size=100, strength=0)
    module = DIETModule(Wide(), num_samples=2, input_shape=[4])
    Trainer(accelerator="cpu", devices=1, logger=False, callbacks=[EmbeddingWriter(file)], enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False).predict(module, data, return_predictions=False)

def taken():  # without pages of mapped files, which the kernel drops when it needs room
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024

def watch():
    global peak
    while True:
        peak = max(peak, taken())
        time.sleep(0.001)

peak = 0
threading.Thread(target=watch, daemon=True).start()
for suffix in sys.argv[1:]:
    predict(500, f"small.{suffix}")  # what is taken once, such as by libraries
    before = peak = taken()
    predict(6_000, f"e.{suffix}")
    print("grown", suffix, peak - before)
"""


def test_memory_does_not_grow_with_the_embeddings(tmp_path):
    # so that malloc gives back what is freed, instead of keeping more of it the busier the machine is
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", MEMORY, *FORMATS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=env)
    assert done.returncode == 0, done.stderr
    grown = {line.split()[1]: int(line.split()[2]) for line in done.stdout.splitlines() if line.startswith("grown")}
    size = 6_000 * 4096 * 4
    assert grown.keys() == set(FORMATS)
    assert max(grown.values()) < size / 2, grown
    for suffix in FORMATS:
        features = read_embeddings(f"e.{suffix}").features
        assert features.nbytes == size
        np.testing.assert_array_equal(features[-1], np.tile(np.arange(23_996.0, 24_000.0), 1024))


# -- going on ----------------------------------------------------------------------------------------------------------

SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from callbacks.test_embedding_writer import COUNT, tiny, image_data
from lightning.pytorch import Callback, Trainer
from diet_lightning import EmbeddingWriter
from diet_lightning.utilities import row_store
row_store.FLUSH_SECONDS = 0.0

class Kill(Callback):
    def on_predict_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with open(f"{{file}}.{{trainer.global_rank}}.seen", "a") as seen:
            seen.write(f"{{int(batch.index[0])}}\\n")
        if batch_idx + 1 == int(kill):
            os.kill(os.getpid(), signal.SIGKILL)

ranks, kill = int(sys.argv[1]), sys.argv[2]
for file in sys.argv[3:]:
    trainer = Trainer(accelerator="cpu", devices=ranks, strategy="ddp_fork" if ranks > 1 else "auto", logger=False,
        callbacks=[EmbeddingWriter(file), Kill()], enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False)
    trainer.predict(tiny(), image_data(COUNT), return_predictions=False)
"""


def run(folder, ranks, kill, *files):
    script = folder / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parents[1])))
    command = [sys.executable, str(script), str(ranks), str(kill), *map(str, files)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == (-signal.SIGKILL if kill else 0), done.stdout + done.stderr


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a run that was killed after five of thirteen batches; what it had not done is spoilt."""
    folder = tmp_path_factory.mktemp("killed")
    run(folder, 1, 5, folder / "e.npz")
    partial = folder / ".e.npz.partial"
    assert sorted(path.name for path in folder.glob("*.npz")) == []
    done = np.fromfile(partial / "done", np.uint8)
    assert done.tolist() == [1] * 80
    features = np.full((COUNT, 12), np.nan, np.float32)
    features[:80] = np.fromfile(partial / "features", np.float32).reshape(-1, 12)[:80]
    features.tofile(partial / "features")
    return partial


def left_behind(killed, file):
    shutil.copytree(killed, file.with_name(f".{file.name}.partial"))
    return file


def test_killed_and_resumed_is_one_pass_and_computes_only_what_is_missing(killed, predict, tmp_path, caplog):
    once = predict(tiny(), image_data(COUNT), tmp_path / "once.npz")
    assert [rows[0] for rows in once.batches] == list(range(0, COUNT, BATCH))
    resumed = predict(
        tiny(), image_data(COUNT), left_behind(killed, tmp_path / "e.npz"), FitProgressBar(), enable_progress_bar=True
    )
    assert [rows[0] for rows in resumed.batches] == list(range(80, COUNT, BATCH))
    assert resumed.total == [8] * 8
    assert (tmp_path / "e.npz").read_bytes() == (tmp_path / "once.npz").read_bytes()
    assert "80 of 203 embeddings are there" in caplog.text


def test_two_processes_write_and_resume_what_one_does(killed, predict, tmp_path):
    predict(tiny(), image_data(COUNT), tmp_path / "once.npz")
    fresh, resumed = tmp_path / "two.npz", left_behind(killed, tmp_path / "e.npz")
    run(tmp_path, 2, 0, fresh, resumed)
    once = (tmp_path / "once.npz").read_bytes()
    assert fresh.read_bytes() == once
    assert resumed.read_bytes() == once
    seen = [[int(n) // BATCH for n in Path(f"{resumed}.{rank}.seen").read_text().split()] for rank in range(2)]
    assert seen == [[5, 7, 9, 11], [6, 8, 10, 12]]


@pytest.mark.parametrize("change", ["weights", "data", "labels", "precision", "normalisation", "split", "damage"])
def test_unfinished_work_on_something_else_is_thrown_away(killed, predict, tmp_path, caplog, change):
    file, options, trainer = left_behind(killed, tmp_path / "e.npz"), {}, {}
    module = tiny(seed=int(change == "weights"))
    if change == "normalisation":
        options = {"mean": [0.1] * 3, "std": [0.2] * 3}
    data = image_data(COUNT, classes=5 if change == "labels" else 4, **options)
    if change == "split":
        data.predict_split = "val"
    elif change == "data":
        other = TensorDataset(255 - images(COUNT), torch.arange(COUNT) % 4)
        data = DIETDataModule.from_datasets(other, batch_size=BATCH)
    elif change == "precision":
        trainer = {"precision": "bf16-mixed"}
    elif change == "damage":
        (tmp_path / ".e.npz.partial/meta.json").write_text("{")
    seen = predict(module, data, file, **trainer)
    assert [rows[0] for rows in seen.batches] == list(range(0, 20 if change == "split" else COUNT, BATCH))
    assert "starting over" in caplog.text
    if change != "precision":
        np.testing.assert_array_equal(read_embeddings(file).features, by_hand(module, data, data.predict_split))


def test_work_of_another_batch_size_is_gone_on_with(killed, predict, tmp_path):
    file, data, module = left_behind(killed, tmp_path / "e.npz"), image_data(COUNT, batch_size=50), tiny()
    seen = predict(module, data, file)
    assert [rows[0] for rows in seen.batches] == [50, 100, 150, 200]
    np.testing.assert_allclose(read_embeddings(file).features, by_hand(module, data), atol=1e-6)


def test_a_run_killed_before_the_file_had_its_name_needs_one_batch(killed, predict, tmp_path):
    file, data, module = left_behind(killed, tmp_path / "e.npz"), image_data(COUNT), tiny()
    partial = tmp_path / ".e.npz.partial"
    by_hand(module, data).tofile(partial / "features")
    (np.arange(COUNT) % 4).tofile(partial / "label")
    (partial / "done").write_bytes(b"\1" * COUNT)
    (partial / "output.npz").write_bytes(b"half")
    assert len(predict(module, data, file).batches) == 1
    assert_same(read_embeddings(file), Embeddings(by_hand(module, data), np.arange(COUNT), np.arange(COUNT) % 4))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, signal.SIGTERM, RuntimeError])
def test_what_was_computed_when_a_run_is_stopped_is_kept(predict, tmp_path, stop):
    class Stop(Callback):
        def on_predict_batch_start(self, trainer, pl_module, batch, batch_idx):
            if batch_idx == 3:
                if stop is signal.SIGTERM:
                    signal.raise_signal(stop)
                else:
                    raise stop

    data = image_data(COUNT)
    with pytest.raises((SystemExit, RuntimeError)):
        predict(tiny(), data, tmp_path / "e.npz", Stop())
    done = np.fromfile(tmp_path / ".e.npz.partial/done", np.uint8)
    assert done.sum() == (64 if stop is signal.SIGTERM else 48)
    assert len(data.predict_dataloader()) == 13
    seen = predict(tiny(), data, tmp_path / "e.npz")
    assert len(seen.batches) == 13 - done.sum() // BATCH


@pytest.mark.parametrize("world", [1, 2, 3, 5])
@pytest.mark.parametrize("blocks", [[0], [2], [0, 2], [1, 2], [0, 1, 2]])
def test_every_rank_takes_whole_batches_and_as_many(world, blocks):
    dataset = IndexedDataset(TensorDataset(torch.zeros(10, 1)))
    ranks = [
        DataLoader(
            dataset, 4, sampler=BlockSampler(dataset, 4, world, rank, np.array(blocks)), collate_fn=identity_collate
        )
        for rank in range(world)
    ]
    batches = [[tuple(batch.index.tolist()) for batch in loader] for loader in ranks]
    whole = {0: (0, 1, 2, 3), 1: (4, 5, 6, 7), 2: (8, 9)}
    assert {batch for rank in batches for batch in rank} == {whole[block] for block in blocks}
    assert {len(rank) for rank in batches} == {-(-len(blocks) // world)}
    assert [len(loader) for loader in ranks] == [len(rank) for rank in batches]


# -- bad input ---------------------------------------------------------------------------------------------------------


class Never(Callback):
    def on_predict_start(self, trainer, pl_module):
        raise AssertionError("something was computed")


def test_what_cannot_be_written_is_refused_before_anything_is_computed(predict, tmp_path, monkeypatch):
    (tmp_path / "there.npz").write_bytes(b"mine")
    for file, message in {
        "e.csv": r"end in one of \['.npz', '.parquet', '.safetensors'\], but got '.*e.csv'",
        "none": "end in one of",
        "there.npz": "there.npz' exists: move it, or choose another path",
        "there.npz/e.npz": r"there.npz/e.npz' cannot be written \(Not a directory\): make room",
    }.items():
        with pytest.raises(ConfigurationError, match=message):
            predict(tiny(48), image_data(), tmp_path / file, Never())
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for refused in (EmbeddingWriter, read_embeddings):
        with pytest.raises(
            ConfigurationError, match=r"e.parquet' need the pyarrow package: pip install 'diet-lightning\[parquet\]'"
        ):
            refused("e.parquet")
    assert (tmp_path / "there.npz").read_bytes() == b"mine"


@contextmanager
def room_for(size):
    """Files of this process may grow to `size` bytes; more gives an error as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("suffix", FORMATS)
def test_full_disk_is_told_and_what_was_computed_is_kept(predict, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(row_store, "FLUSH_SECONDS", 0.0)
    data, module, file = image_data(COUNT), tiny(), tmp_path / f"e.{suffix}"
    message = rf"e.{suffix}' cannot be written \(.*File too large.*\): make room there.*are kept"
    with room_for(100 * 12 * 4), pytest.raises(ConfigurationError, match=message):
        predict(module, data, file)
    assert np.fromfile(tmp_path / f".e.{suffix}.partial/done", np.uint8).tolist() == [1] * 96
    with room_for(COUNT * 12 * 4), pytest.raises(ConfigurationError, match=message):  # for the rows, not for the file
        predict(module, data, file)
    assert not file.exists()
    assert len(predict(module, data, file).batches) == 1
    np.testing.assert_array_equal(read_embeddings(file).features, by_hand(module, data))


def test_file_that_appears_meanwhile_is_not_written_over(predict, tmp_path):
    class Appear(Callback):
        def on_predict_start(self, trainer, pl_module):
            (tmp_path / "e.npz").write_bytes(b"mine")

    with pytest.raises(ConfigurationError, match=r"e\.npz' exists"):
        predict(tiny(48), image_data(), tmp_path / "e.npz", Appear())
    assert (tmp_path / "e.npz").read_bytes() == b"mine"
    (tmp_path / "e.npz").unlink()
    assert len(predict(tiny(48), image_data(), tmp_path / "e.npz").batches) == 1


def test_two_runs_at_once_do_not_write_one_file(predict, tmp_path):
    class Second(Callback):
        def on_predict_start(self, trainer, pl_module):
            predict(tiny(48), image_data(), tmp_path / "e.npz", Never())

    with pytest.raises(ConfigurationError, match=r"e\.npz' are being written by another process: wait for it"):
        predict(tiny(48), image_data(), tmp_path / "e.npz", Second())


def test_module_that_predicts_something_else_is_refused(predict, tmp_path):
    class Bare(DIETModule):
        def predict_step(self, batch, batch_idx):
            return self.backbone(batch.input)

    with pytest.raises(ConfigurationError, match=r"return tensors under \['features', 'index', 'label'\]"):
        predict(Bare(TinyNet(), num_samples=48, input_shape=[3, 8, 8]), image_data(), tmp_path / "e.npz")
    loaders = [image_data().predict_dataloader(), image_data().predict_dataloader()]
    with pytest.raises(ConfigurationError, match="one loader, but `predict` was given several"):
        predict(Several(TinyNet(), num_samples=48, input_shape=[3, 8, 8]), loaders, tmp_path / "f.npz")


class Several(DIETModule):
    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return super().predict_step(batch._replace(input=batch.input.float()), batch_idx)


@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_file_is_told_in_a_sentence(predict, tmp_path, suffix):
    file = tmp_path / f"e.{suffix}"
    predict(tiny(48), image_data(), file)
    whole = file.read_bytes()
    message = rf"Embeddings '.*e.{suffix}' cannot be read \(.*\): the file is damaged, .* run `diet predict` again\.$"
    for content in (whole[: len(whole) // 2], whole[:20], b"", b"\xff" * 100):
        file.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_embeddings(file)
    with pytest.raises(DataError, match="do not exist"):
        read_embeddings(tmp_path / f"none.{suffix}")


def test_files_of_something_else_are_refused_and_pickles_are_not_opened(tmp_path):
    rows = {"features": np.zeros((3, 2), np.float32), "index": np.arange(3), "label": np.arange(3)}
    for name, value, message in (
        ("label", None, "array 'label' is missing"),
        ("label", np.arange(4), r"'label' is int64 of shape \(4,\)"),
        ("features", np.zeros(3, np.float32), r"'features' is float32 of shape \(3,\)"),
        ("path", np.array([{}] * 3, dtype=object), "Object arrays cannot be loaded when allow_pickle=False"),
    ):
        np.savez("e.npz", **{key: value for key, value in {**rows, name: value}.items() if value is not None})
        with pytest.raises(DataError, match=message):
            read_embeddings("e.npz")
    np.savez_compressed("e.npz", **rows)  # somebody else's, but sound
    assert_same(read_embeddings("e.npz"), Embeddings(**rows))
    with zipfile.ZipFile("e.npz") as archive:
        assert archive.testzip() is None


# -- the command line --------------------------------------------------------------------------------------------------

QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished debug run."""
    folder = tmp_path_factory.mktemp("embeddings") / "run"
    assert main(["fit", "--config", "debug", "--run_dir", str(folder), *QUIET]) == 0
    return folder


@pytest.mark.filterwarnings("ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning")
def test_command_writes_where_it_is_told(finished, tmp_path, capsys):
    predict = ["predict", str(finished / "checkpoints/last.ckpt"), *QUIET]
    assert main(predict) == 0
    assert main([*predict, "--output", "e.parquet"]) == 0
    writer = "--trainer.callbacks+=diet_lightning.EmbeddingWriter"
    assert main([*predict, writer, "--trainer.callbacks.path=own.safetensors", "--run_dir", "elsewhere"]) == 0
    found = [read_embeddings(file) for file in (finished / "embeddings.npz", "e.parquet", "own.safetensors")]
    assert found[0].features.shape == (200, 128)
    for each in found[1:]:
        assert_same(each, found[0])
    assert not Path("elsewhere/embeddings.npz").exists()
    capsys.readouterr()
    assert main([*predict, "--output", "e.txt"]) == 1
    assert "end in one of ['.npz', '.parquet', '.safetensors'], but got 'e.txt'" in capsys.readouterr().err
    assert main([*predict, "--output", "e.parquet"]) == 1
    assert "'e.parquet' exists" in capsys.readouterr().err
