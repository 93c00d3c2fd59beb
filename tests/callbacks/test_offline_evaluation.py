"""Evaluation of frozen embeddings under `Trainer.test` and `diet test`, and its pictures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import TinyNet, image_data, images
from matplotlib.image import imread
from torch import nn
from torch.utils.data import TensorDataset

from diet_lightning import DIETDataModule, DIETModule, OfflineEvaluation, OnlineLinearProbe
from diet_lightning.__main__ import main
from diet_lightning.errors import ConfigurationError, DataError
from diet_lightning.evaluation.probes import EvaluationConfig, evaluate_features, extract_features
from diet_lightning.figures.embeddings import confusion, embedding_map, neighbour_gallery, spectrum
from diet_lightning.transforms.convert import to_pixels

pytestmark = pytest.mark.slow

QUICK = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")


def diet(*args: object) -> int:
    return main([str(arg) for arg in args])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("offline") / "run"
    assert diet("fit", "--config", "debug", "--run_dir", folder, *QUICK) == 0
    return folder


def test_scores_are_those_of_the_frozen_embeddings(make_trainer, tmp_path):
    module, data = DIETModule("resnet8"), image_data()
    callback = OfflineEvaluation(str(tmp_path / "out"), c=1.0, k=3, shots=[2], num_trials=2, baselines=True)
    trainer = make_trainer(max_epochs=1, callbacks=[callback])
    trainer.fit(module, data)
    trainer.test(module, data, verbose=False)
    features, labels = {}, {}
    for split in ("train", "test"):
        batches = list(data.eval_batches(split))
        features[split] = extract_features(module.backbone, (batch.input for batch in batches))
        labels[split] = torch.cat([batch.label for batch in batches]).numpy()
        features[f"{split} pixels"] = extract_features(nn.Flatten(), (batch.input for batch in batches))
    protocol = EvaluationConfig(c=1.0, k=3, shots=(2,), num_trials=2)
    for prefix, suffix in {"test/": "", "test/raw_": " pixels"}.items():
        expected, _ = evaluate_features(
            features["train" + suffix], labels["train"], features["test" + suffix], labels["test"], protocol
        )
        for metric, score in expected.items():
            assert callback.scores[f"{prefix}{metric}"] == score
            assert float(trainer.callback_metrics[f"{prefix}{metric}"]) == pytest.approx(score.value, abs=1e-6)
            assert float(trainer.callback_metrics[f"{prefix}{metric}_low"]) == pytest.approx(score.low, abs=1e-6)
    assert "test/untrained_linear_top1" in callback.scores
    written = json.loads((tmp_path / "out/evaluation.json").read_text())
    assert written["test/2shot_top1"]["std"] == callback.scores["test/2shot_top1"].std


def test_evaluation_leaves_the_network_as_it_was(make_trainer, tmp_path):
    module, data = DIETModule("resnet8"), image_data()
    trainer = make_trainer(max_epochs=1, callbacks=[OfflineEvaluation(str(tmp_path), c=1.0, k=3, shots=[])])
    trainer.fit(module, data)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer.test(module, data, verbose=False)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_command_writes_scores_and_pictures_and_adds_to_earlier_ones(run, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    checkpoint = folder / "checkpoints/last.ckpt"
    assert diet("test", checkpoint, "--offline.k", 5, "--offline.shots", "[1]", *QUICK) == 0
    shown = {}
    for line in capsys.readouterr().out.splitlines():
        if line.startswith("│"):
            name, value, interval = (cell.strip() for cell in line.strip("│").split("│"))
            shown[name] = (value, interval)
    measured = json.loads((folder / "evaluation.json").read_text())
    assert "test/knn5_top1" in measured
    for name, score in measured.items():
        assert shown[name] == (f"{score['value']:.1%}", f"{score['low']:.1%} to {score['high']:.1%}")
    assert not any(name.endswith(("_low", "_high")) for name in shown)
    assert re.fullmatch(r"[0-9.]+", shown["test/rankme"][0])
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "confusion.png",
        "map.png",
        "neighbours.png",
        "spectrum.png",
    }
    for path in (folder / "figures").iterdir():
        pixels = imread(path)
        assert pixels[0, 0].tolist() == [1, 1, 1, 1]  # white, so that it reads on a dark page
        assert pixels[..., :3].std() > 0.03
    assert diet("test", checkpoint, "--offline.k", 7, "--offline.shots", "[]", *QUICK) == 0
    scores = json.loads((folder / "evaluation.json").read_text())
    assert {"test/linear_top1", "test/knn5_top1", "test/knn7_top1", "test/1shot_top1"} <= set(scores)
    for score in scores.values():
        assert 0.0 <= score["low"] <= score["value"] <= score["high"] <= 1.0


def test_without_labels_it_says_what_it_can_give(make_trainer, tmp_path, caplog):
    data = DIETDataModule.from_datasets(TensorDataset(images(40)), TensorDataset(images(20, seed=1)), batch_size=16)
    callback = OfflineEvaluation(str(tmp_path / "out"), enabled=None)
    trainer = make_trainer(max_epochs=1, callbacks=[callback])
    trainer.fit(DIETModule(TinyNet()), data)
    with caplog.at_level("INFO"):
        trainer.test(datamodule=data, model=trainer.lightning_module, verbose=False)
    assert "The probes are left out, since the training and the test split need labels" in caplog.text
    assert callback.scores == {}
    assert (tmp_path / "out/figures/spectrum.png").exists()
    with pytest.raises(ConfigurationError, match="OfflineEvaluation is enabled, but the training data have no labels"):
        make_trainer(callbacks=[OfflineEvaluation()]).test(trainer.lightning_module, data, verbose=False)


def test_an_evaluation_that_nobody_asked_for_does_not_stop_a_test(make_trainer, tmp_path, caplog):
    train = TensorDataset(images(40), torch.arange(40) % 3)
    unseen = TensorDataset(images(20, seed=1), torch.arange(20) % 4)
    for name, test, said in (
        (
            "unlabelled",
            TensorDataset(images(20, seed=1)),
            "The probes are left out, since the training and the test split",
        ),
        ("unseen", unseen, "The probes are left out: Class 3 of the test samples has no labelled training sample"),
    ):
        data = DIETDataModule.from_datasets(train, train, test, batch_size=16)
        callback = OfflineEvaluation(str(tmp_path / name), enabled=None)
        trainer = make_trainer(max_epochs=1, callbacks=[callback, OnlineLinearProbe(enabled=None)])
        module = DIETModule(TinyNet())
        trainer.fit(module, data)
        with caplog.at_level("INFO"), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.test(module, data, verbose=False)
        assert said in caplog.text + "".join(str(each.message) for each in caught)
        assert callback.scores == {}
        assert (tmp_path / name / "figures/spectrum.png").exists()


def test_bad_input_is_told_in_a_sentence(run, capsys, make_trainer):
    checkpoint = run / "checkpoints/last.ckpt"
    assert diet("test", checkpoint, "--offline.k", 500, *QUICK) == 1
    assert "`k` to be in 1 … 200" in capsys.readouterr().err
    assert diet("test", checkpoint, "--offline.temperature", 0, *QUICK) == 1
    assert "`temperature` to be greater than 0" in capsys.readouterr().err
    with pytest.raises(ConfigurationError, match="umap-learn package: pip install"):
        make_trainer(callbacks=[OfflineEvaluation(umap=True)]).test(DIETModule(TinyNet()), image_data(), verbose=False)
    train = TensorDataset(images(40), torch.arange(40) % 3)
    test = TensorDataset(images(20, seed=1), torch.arange(20) % 4)
    data = DIETDataModule.from_datasets(train, test, class_names=list("abcd"), batch_size=16)
    with pytest.raises(DataError, match="Class 3 of the test samples has no labelled training sample"):
        make_trainer(callbacks=[OfflineEvaluation()]).test(DIETModule(TinyNet()), data, verbose=False)


SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
import torch
from helpers import TinyNet, images
from lightning.pytorch import Trainer, seed_everything
from torch.utils.data import TensorDataset
from diet_lightning import DIETDataModule, DIETModule, FeatureRank, OfflineEvaluation
ranks = int(sys.argv[1])
seed_everything(5)
module = DIETModule(TinyNet(dropout=0.0), num_samples=45, input_shape=[3, 8, 8])
# odd numbers: of two ranks one repeats a sample of each split
train, test = (TensorDataset(images(n, seed=n), torch.arange(n) % 4) for n in (45, 21))
data = DIETDataModule.from_datasets(train, test, batch_size=8, seed=2)
callbacks = [OfflineEvaluation(sys.argv[2], c=1.0, k=3, shots=[2], num_trials=2), FeatureRank()]
trainer = Trainer(accelerator="cpu", devices=ranks, strategy="ddp_fork" if ranks > 1 else "auto", logger=False,
    callbacks=callbacks, enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False)
(metrics,) = trainer.test(module, data, verbose=False)
if trainer.is_global_zero:
    print(json.dumps(metrics))
"""


def test_two_processes_measure_what_one_does(tmp_path):
    found = []
    (tmp_path / "script.py").write_text(SCRIPT.format(tests=str(Path(__file__).parents[1])))
    for ranks in (1, 2):
        command = [sys.executable, "script.py", str(ranks), str(tmp_path / f"out{ranks}")]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        found.append(json.loads([line for line in done.stdout.splitlines() if line.startswith("{")][-1]))
    assert {"test/linear_top1", "test/knn3_top1", "test/rankme"} <= set(found[0])
    assert found[1] == pytest.approx(found[0], rel=1e-4)


# -- pictures ----------------------------------------------------------------------------------------------------------


def test_map_names_each_class_at_the_middle_of_its_points():
    points = np.array([[0.0, 0.0], [2.0, 0.0], [1.0, 0.0], [9.0, 9.0], [5.0, 5.0]])
    figure = embedding_map(points, np.array([0, 0, 0, 1, -1]), ["cat", "dog"])
    (axis,) = figure.axes
    assert [(text.get_text(), tuple(text.xy)) for text in axis.texts] == [("cat", (1.0, 0.0)), ("dog", (9.0, 9.0))]
    assert axis.get_title() == "Embeddings of 5 samples, PCA"
    assert [len(group.get_offsets()) for group in axis.collections] == [1, 3, 1]


def test_confusion_writes_the_shares_of_each_true_class():
    figure = confusion([[3, 1], [0, 2]], ["cat", "dog"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["75", "25", "100"]
    assert figure.axes[0].get_title() == "Linear probe, 83.3% right"
    many = confusion(np.eye(50), [str(n) for n in range(50)])
    assert not many.axes[0].texts


def test_spectrum_is_relative_to_the_greatest_value():
    figure = spectrum({"train": np.array([4.0, 2.0, 0.0])})
    assert figure.axes[0].lines[0].get_ydata().tolist() == [1.0, 0.5, 0.0]


def test_gallery_shows_every_image_with_its_word():
    gray, colour = np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.uint8)
    figure = neighbour_gallery([[gray, colour, gray]], [["query", "a 0.9", "b 0.8"]])
    assert [axis.get_title() for axis in figure.axes] == ["query", "a 0.9", "b 0.8"]
    assert all(len(axis.images) == 1 for axis in figure.axes)


def test_pixels_of_any_stored_image():
    assert to_pixels(torch.zeros(1, 4, 5, dtype=torch.uint8)).shape == (4, 5)
    stored = torch.arange(60, dtype=torch.uint8).reshape(3, 4, 5)
    np.testing.assert_array_equal(to_pixels(stored), stored.permute(1, 2, 0).numpy())
    floats = to_pixels(torch.tensor([[[-1.0, 0.0], [1.0, 3.0]]]))
    assert floats.tolist() == [[0, 63], [127, 255]]
    assert to_pixels(torch.zeros(5, 4, 4, dtype=torch.uint8)).shape == (4, 4, 3)
    assert to_pixels(torch.zeros(2, 4, 4, dtype=torch.uint8)).shape == (4, 4)


def test_a_damaged_file_of_scores_is_refused_before_anything_is_embedded(make_trainer, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/evaluation.json").write_text('{"test/linear_top1": {"value": 0.5}}')
    module, data = DIETModule("resnet8"), image_data()
    callback = OfflineEvaluation(str(tmp_path / "out"), c=1.0, k=3)
    trainer = make_trainer(callbacks=[callback])
    with pytest.raises(ConfigurationError, match=r"'.*evaluation\.json' cannot be read .*move it away"):
        trainer.test(module, data, verbose=False)
    assert not module.is_built
