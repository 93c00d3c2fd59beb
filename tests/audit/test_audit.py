"""`diet audit` on data with planted copies, and on what it cannot serve."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers import TinyNet, image_data, images

from diet_lightning import DIETDataModule, DIETModule
from diet_lightning.__main__ import main
from diet_lightning.audit.audit import audit_data
from diet_lightning.audit.report import Card, Section, page
from diet_lightning.transforms.augmentation import BatchAugmentation

pytestmark = pytest.mark.slow

QUICK = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
COPIES = 6


def diet(*args: object) -> int:
    return main([str(arg) for arg in args])


def smooth(count: int, seed: int) -> torch.Tensor:
    """Images with large shapes, as photographs have: uint8 ``(count, 3, 16, 16)``."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return (torch.nn.functional.interpolate(coarse, 16, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on 240 labelled images, of which the last six are the first six a little brighter."""
    folder = tmp_path_factory.mktemp("audit")
    inputs = smooth(240, 0)
    inputs[-COPIES:] = (inputs[:COPIES].float() * 1.04).clamp(max=255).to(torch.uint8)
    labels = torch.arange(240) % 4
    np.savez(folder / "data.npz", train_images=inputs.permute(0, 2, 3, 1).numpy(), train_labels=labels.numpy())
    options = ["--model.backbone", "resnet8", "--trainer.max_epochs", 2, "--data.batch_size", 48, *QUICK]
    assert diet("fit", "--data.source", f"npz:{folder}/data.npz", "--run_dir", folder / "run", *options) == 0
    return folder / "run"


def rows_of(path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_audit_finds_the_planted_copies_and_writes_all_it_knows(run, tmp_path, capsys):
    assert diet("audit", run, "--output", tmp_path / "out") == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["samples"] == 240
    pairs = {(int(row["first"]), int(row["second"])) for row in rows_of(tmp_path / "out/duplicates.csv")}
    planted = {(n, 240 - COPIES + n) for n in range(COPIES)}
    assert len(pairs & planted) >= COPIES - 1
    assert len(pairs - planted) <= 2
    samples = rows_of(tmp_path / "out/samples.csv")
    assert [int(row["index"]) for row in samples] == list(range(240))
    assert {int(row["label"]) for row in samples} == {0, 1, 2, 3}
    by_loss = sorted(samples, key=lambda row: float(row["loss"]))
    assert [by_loss[0]["loss_percentile"], by_loss[-1]["loss_percentile"]] == ["0.0", "100.0"]
    for first, second in pairs:
        assert samples[first]["duplicate_group"] == samples[second]["duplicate_group"] != "-1"
    html = (tmp_path / "out/index.html").read_text()
    assert html.count("<img") == len(re.findall(r'src="data:image/', html)) > 80
    assert "http" not in html  # nothing is fetched
    for name in ("Hardest samples", "Easiest samples", "Near-duplicates", "Label issues", "What was read"):
        assert name in html
    assert "<tr><th>train</th><td>240 samples, 4 classes: 0 (60), 1 (60), 2 (60), 3 (60)</td></tr>" in html


def test_tables_are_written_as_parquet_too(run, tmp_path):
    assert diet("audit", run, "--output", tmp_path / "out", "--format", "parquet", "--pictures", 12) == 0
    table = pq.read_table(tmp_path / "out/samples.parquet")
    assert table.column("index").to_pylist() == list(range(240))
    assert (tmp_path / "out/index.html").read_text().count("<img") <= 12


def test_losses_are_the_heads_on_augmented_views(make_trainer):
    module, data = DIETModule(TinyNet(dropout=0.0), label_smoothing=0.4), image_data(48)
    make_trainer(max_epochs=1).fit(module, data)
    found = audit_data(module, data, augmentations=3)
    again = audit_data(module, data, augmentations=3)
    np.testing.assert_array_equal(found.loss, again.loss)  # the views are the same ones
    # with no augmentation at all, the clean loss, by plain torch
    data = image_data(48, strength=0)
    plain = audit_data(module, data, augmentations=2)
    features = torch.cat([module(batch.input) for batch in data.eval_batches("train")]).detach()
    expected = torch.nn.functional.cross_entropy(
        features @ module.head.weight.T, torch.arange(48), label_smoothing=0.4, reduction="none"
    )
    np.testing.assert_allclose(plain.loss, expected.detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(plain.loss_std, 0.0, atol=1e-7)
    assert found.loss_std.min() > 0.0


def test_network_is_left_as_it_was(make_trainer):
    module, data = DIETModule("resnet8"), image_data()
    make_trainer(max_epochs=1).fit(module, data)
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    audit_data(module, data, augmentations=1)
    assert module.training
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_every_batch_draws_views_of_its_own(make_trainer, monkeypatch):
    draws, whole = [], BatchAugmentation.draw

    def spy(*args):
        draws.append(whole(*args))
        return draws[-1]

    module, data = DIETModule(TinyNet()), image_data(48)
    make_trainer(max_epochs=1).fit(module, data)
    monkeypatch.setattr(BatchAugmentation, "draw", spy)
    audit_data(module, data, augmentations=2)
    boxes = [tuple(drawn[0].flatten().tolist()) for drawn in draws]
    assert len(boxes) == len(set(boxes)) == 6  # three batches, twice each


def test_without_labels_or_images_it_says_what_it_gives(tmp_path, capsys):
    np.savez(tmp_path / "rows.npz", train_images=np.random.default_rng(0).normal(size=(60, 3, 12)).astype(np.float32))
    data = DIETDataModule(f"npz:{tmp_path}/rows.npz", batch_size=20, strength=0)
    found = audit_data(DIETModule(nn_rows(), num_samples=60, input_shape=[3, 12]), data, augmentations=1)
    assert found.label_issues.suggested_label.tolist() == [-1] * 60
    np.savez(tmp_path / "plain.npz", train_images=smooth(60, 1).permute(0, 2, 3, 1).numpy())
    options = ["--model.backbone", "resnet8", "--trainer.max_epochs", 1, "--data.batch_size", 20, *QUICK]
    assert diet("fit", "--data.source", f"npz:{tmp_path}/plain.npz", "--run_dir", tmp_path / "run", *options) == 0
    assert diet("audit", tmp_path / "run") == 0
    html = (tmp_path / "run/audit/index.html").read_text()
    assert "The data have no labels, so label issues were not searched for; all other results need no labels." in html
    assert "Label issues" not in html
    assert "label" not in rows_of(tmp_path / "run/audit/samples.csv")[0]


def nn_rows() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 8))


def test_bad_input_is_told_in_a_sentence(run, tmp_path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note").write_text("mine")
    np.savez(tmp_path / "other.npz", train_images=images(240).permute(0, 2, 3, 1).numpy())
    cases = {
        "exists and is not empty: move it": [run, "--output", tmp_path / "full"],
        "Run 'nowhere' does not exist": ["nowhere"],
        "`augmentations` to be at least 1": [run, "--augmentations", 0],
        "`fdr` to be in (0, 1)": [run, "--fdr", 1.5],
        "other data of the same length": [run, "--source", f"npz:{tmp_path}/other.npz"],
    }
    for sentence, args in cases.items():
        assert diet("audit", *args) == 1
        error = capsys.readouterr().err
        assert sentence in error
        assert "Traceback" not in error
    assert (tmp_path / "full/note").read_text() == "mine"
    assert diet("audit", run, "--format", "xlsx") == 2
    assert "xlsx" in capsys.readouterr().err


def test_page_of_a_thousand_thumbnails_stays_small_and_escapes_names():
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)  # the worst there is for JPEG
    cards = [Card(noise, f"#{n}", ["<b>&name</b>"]) for n in range(1000)]
    html = page("Audit", ["<script>"], [Section("All", "All of them.", [cards])])
    assert len(html.encode()) < 20e6
    assert "<script>" not in html
    assert "&lt;b&gt;&amp;name&lt;/b&gt;" in html
