"""DIET: self-supervised learning with the datum index as target, for PyTorch Lightning."""

from diet_lightning.backbones.factory import create_backbone
from diet_lightning.callbacks import (
    EmbeddingWriter,
    FeatureRank,
    FiniteGuard,
    FitProgressBar,
    InterruptCheckpoint,
    LastBlocks,
    OfflineEvaluation,
    OnlineKNN,
    OnlineLinearProbe,
    RunFigure,
)
from diet_lightning.data.batch import DatumBatch
from diet_lightning.data.datamodule import DIETDataModule
from diet_lightning.data.indexed import IndexedDataset
from diet_lightning.embeddings.formats import Embeddings, read_embeddings
from diet_lightning.errors import DIETError
from diet_lightning.training.module import DIETModule

__version__ = "0.1.0"
__all__ = [
    "DIETDataModule",
    "DIETError",
    "DIETModule",
    "DatumBatch",
    "EmbeddingWriter",
    "Embeddings",
    "FeatureRank",
    "FiniteGuard",
    "FitProgressBar",
    "IndexedDataset",
    "InterruptCheckpoint",
    "LastBlocks",
    "OfflineEvaluation",
    "OnlineKNN",
    "OnlineLinearProbe",
    "RunFigure",
    "create_backbone",
    "read_embeddings",
]
