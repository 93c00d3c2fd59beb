"""OfflineEvaluation: probes on the frozen embeddings under `Trainer.test`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from diet_lightning.backbones.factory import create_backbone
from diet_lightning.callbacks.rank_zero import on_rank_zero
from diet_lightning.callbacks.run_figure import save_and_log
from diet_lightning.data.batch import DatumBatch
from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.data.reading import Split
from diet_lightning.errors import ConfigurationError, DataError, require, require_positive
from diet_lightning.evaluation.neighbours import nearest_neighbours
from diet_lightning.evaluation.probes import EvaluationConfig, evaluate_features
from diet_lightning.evaluation.rank import singular_values
from diet_lightning.figures.embeddings import confusion, embedding_map, load_umap, neighbour_gallery, spectrum
from diet_lightning.runs.scores import Score, read_scores, write_scores
from diet_lightning.transforms.convert import to_pixels
from diet_lightning.utilities.seeding import derive_seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAPPED = 5000  # points of a map
GALLERY = (8, 8)  # samples, and neighbours of each

Features = tuple[NDArray[np.float32], NDArray[np.int64]]  # of a split, in the order of the index, with its labels


class OfflineEvaluation(Callback):
    """Fits probes on the frozen embeddings of the training split and measures them on the test split.

    Logs ``test/linear_top1`` (logistic regression on standardised features), ``test/linear_top5``, ``test/knn{k}_top1``
    (weighted nearest neighbours) and ``test/{n}shot_top1`` (n labels per class, mean over trials). With `baselines` it logs
    the same of raw pixels, such as ``test/raw_linear_top1``, and of the untrained network, such as
    ``test/untrained_linear_top1``. The metrics and their bootstrap intervals are written to ``evaluation.json``. The confusion
    matrix of the probe, a map, the spectrum and a gallery of neighbours are drawn in ``figures/`` and passed to loggers that
    take images (W&B). Without labels neither probes nor a confusion matrix are computed.

    Every sample counts once on any number of ranks. Rank 0 holds the embeddings of the training split in memory.

    Args:
        dirpath: Folder of the results; None for the Trainer's ``default_root_dir``.
        c: Inverse regularisation of the linear probe; None chooses it on a fifth of the training samples.
        k: Number of neighbours.
        temperature: Temperature of the neighbours' votes, see `knn_probabilities`.
        shots: Labels per class, for each of the few-label probes; None for 1 and 5.
        num_trials: Number of draws of those labels; scores are means over the trials.
        level: Coverage of the bootstrap intervals.
        baselines: Measure raw pixels and the untrained backbone too.
        umap: Draw the map by UMAP (needs the package umap-learn) instead of PCA.
        seed: Seed of the hold-out, the trials and the intervals.
        enabled: None skips the probes, with a message, if the data have no labels or no training sample of a class; True
            raises an error then; False switches the evaluation off.

    Raises:
        ConfigurationError: When testing starts, for an argument that does not suit the data.
        DataError: If a class of the test split has no training sample.
    """

    def __init__(
        self,
        dirpath: str | None = None,
        c: float | None = None,
        k: int = 20,
        temperature: float = 0.07,
        shots: list[int] | None = None,
        num_trials: int = 20,
        level: float = 0.95,
        baselines: bool = False,
        umap: bool = False,
        seed: int = 0,
        enabled: bool | None = True,
    ) -> None:
        chosen = (1, 5) if shots is None else tuple(shots)
        require_positive(k=k, num_trials=num_trials, shots=min(chosen, default=1))
        require(c is None or c > 0.0, "c", "greater than 0", c)
        require(temperature > 0.0, "temperature", "greater than 0", temperature)
        require(0.0 < level < 1.0, "level", "in (0, 1)", level)
        self.dirpath = dirpath
        self.config = EvaluationConfig(c, k, temperature, chosen, num_trials, level, seed)
        self.baselines = baselines
        self.umap = umap
        self.enabled = enabled
        self.scores: dict[str, Score] = {}  # of the last test, by the metric's name
        self._test: list[DatumBatch] = []  # embeddings of this rank in place of inputs

    def _folder(self, trainer: Trainer) -> Path:
        return Path(self.dirpath or trainer.default_root_dir)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Checks the arguments and the data before anything is embedded."""
        self._test, self.scores = [], {}
        if stage != "test" or self.enabled is False:
            return
        read_scores(self._folder(trainer))  # raises an error for a damaged file before the work is done
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, DIETDataModule):
            raise ConfigurationError(
                "OfflineEvaluation fits probes on the training split, so it needs a DIETDataModule: test with "
                "`datamodule=`, or use `diet_lightning.evaluation` on arrays."
            )
        if data.num_classes is None and self.enabled:
            raise ConfigurationError(
                "OfflineEvaluation is enabled, but the training data have no labels: add labels, or set `enabled` to null."
            )
        if self.umap:
            load_umap()

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: DatumBatch, *_: Any, **__: Any
    ) -> None:
        """Keeps the embeddings that the test computed."""
        if self.enabled is not False:
            self._test.append(batch._replace(input=outputs["features"]))

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measures, writes and logs."""
        if self.enabled is False:
            return
        data: DIETDataModule = trainer.datamodule  # type: ignore[attr-defined]  # as `setup` has checked
        test, self._test = _gathered(self._test, trainer), []
        # of the trained network, and by prefix of the baselines
        every = {"": (_embed(pl_module, trainer, data, "train", "embedding the training split"), test)}
        if self.baselines:
            for name, network in self._baselines(pl_module, data).items():
                train, test = (_embed(network, trainer, data, split, f"{name} features") for split in ("train", "test"))
                every[f"{name}_"] = (train, test)
        self.scores = on_rank_zero(trainer, lambda: self._measure(every, trainer, data))
        for name, score in self.scores.items():
            for end, value in {"": score.value, "_low": score.low, "_high": score.high}.items():
                pl_module.log(f"{name}{end}", torch.tensor(value, dtype=torch.float32), sync_dist=True)

    def _baselines(self, pl_module: LightningModule, data: DIETDataModule) -> dict[str, nn.Module]:
        networks: dict[str, nn.Module] = {"raw": nn.Flatten()}
        name, stem = pl_module.hparams.get("backbone"), pl_module.hparams.get("stem", "auto")
        if name is None:
            rank_zero_info(
                "The untrained baseline is left out: the backbone is a custom module, which cannot be rebuilt untrained."
            )
            return networks
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(self.config.seed))
            networks["untrained"] = create_backbone(name, data.input_shape, stem).to(pl_module.device).eval()
        return networks

    def _measure(
        self, every: dict[str, tuple[Features, Features]], trainer: Trainer, data: DIETDataModule
    ) -> dict[str, Score]:
        scores: dict[str, Score] = {}
        predicted: NDArray[Any] | None = None
        if self.enabled or all(bool((labels >= 0).any()) for _, labels in every[""]):
            try:
                for prefix, (train, test) in every.items():
                    found, guesses = evaluate_features(*train, *test, self.config)
                    scores |= {f"test/{prefix}{name}": score for name, score in found.items()}
                    predicted = predicted if prefix else guesses
                write_scores(self._folder(trainer), scores)
            except DataError as error:
                if self.enabled:
                    raise
                rank_zero_warn(f"The probes are left out: {error}")
                scores, predicted = {}, None
        else:
            rank_zero_info(
                "The probes are left out, since the training and the test split need labels: the spectrum and the "
                "gallery of neighbours are drawn; `diet audit` and the loss gap need no labels."
            )
        self._draw(*every[""], predicted, trainer, data)
        return scores

    def _draw(
        self, train: Features, test: Features, predicted: NDArray[Any] | None, trainer: Trainer, data: DIETDataModule
    ) -> None:
        names = [str(name) for name in data.class_names or range(data.num_classes or 0)]
        spectra = {"training split": _spectrum(train[0]), "test split": _spectrum(test[0])}
        shown = np.random.default_rng(self.config.seed).permutation(len(test[0]))[:MAPPED]
        features, labels = test
        figures = {"spectrum": spectrum(spectra)}
        if predicted is not None:
            from sklearn.metrics import confusion_matrix

            counts = confusion_matrix(labels[labels >= 0], predicted, labels=np.arange(len(names)))
            figures["confusion"] = confusion(counts, names)
        if min(features.shape) > 2:
            from sklearn.decomposition import PCA

            seed, method = self.config.seed, "UMAP" if self.umap else "PCA"
            projection = load_umap().UMAP(random_state=seed, n_jobs=1) if self.umap else PCA(2, random_state=seed)
            points = projection.fit_transform(features[shown])
            figures["map"] = embedding_map(points, labels[shown], names, method)
        if len(data.input_shape) == 3:
            figures["neighbours"] = _gallery(train, test, data, names, shown[: GALLERY[0]])
        for name, figure in figures.items():
            save_and_log(figure, f"figures/{name}", self._folder(trainer), trainer)
        rank_zero_info(f"Figures: {self._folder(trainer) / 'figures'}")


def _embed(network: nn.Module, trainer: Trainer, data: DIETDataModule, split: Split, description: str) -> Features:
    parts = []
    batches = tqdm(
        data.raw_batches(split, whole=False), description, leave=False, delay=2, disable=not trainer.is_global_zero
    )
    with torch.inference_mode(), trainer.precision_plugin.forward_context():
        for stored in batches:
            batch = trainer.strategy.batch_to_device(stored)  # the data module's hooks are called by this
            parts.append(batch._replace(input=network(batch.input)))
    return _gathered(parts, trainer)


def _gathered(parts: Sequence[DatumBatch], trainer: Trainer) -> Features:
    """A split's embeddings and labels from all ranks, each sample once, in the order of the index."""
    columns = zip(*((batch.input.float().cpu(), batch.index.cpu(), batch.label.cpu()) for batch in parts), strict=True)
    own = tuple(torch.cat(column).numpy() for column in columns)
    every: list[Any] = [own]
    if trainer.world_size > 1:  # by this function, as ranks may have different numbers of samples
        every = [None] * trainer.world_size
        torch.distributed.all_gather_object(every, own)
    features, index, labels = (np.concatenate(column) for column in zip(*every, strict=True))
    _, first = np.unique(index, return_index=True)  # without the repeats of the distributed sampler
    return features[first], labels[first]


def _spectrum(features: NDArray[np.float32]) -> NDArray[Any]:
    rows = torch.from_numpy(features).double()
    return singular_values(rows.T @ rows, len(rows)).numpy()  # up to nine times as fast as torch.linalg.svdvals


def _gallery(train: Features, test: Features, data: DIETDataModule, names: list[str], queries: NDArray[Any]) -> Figure:
    count = min(GALLERY[1], len(train[0]))
    similarity, found = nearest_neighbours(torch.from_numpy(test[0][queries]), torch.from_numpy(train[0]), count)
    words = dict(enumerate(names))
    rows, notes = [], []
    for query, near, cosine in zip(queries.tolist(), found.tolist(), similarity.tolist(), strict=True):
        images = [*data.raw_samples("test", [query]).input, *data.raw_samples("train", near).input]
        rows.append([to_pixels(image) for image in images])
        labels = [words.get(label, "") for label in (test[1][query], *train[1][near])]
        notes.append([labels[0], *(f"{word} {value:.2f}" for word, value in zip(labels[1:], cosine, strict=True))])
    return neighbour_gallery(rows, notes)
