"""DIET: self-supervised learning with the datum index as target, for PyTorch Lightning."""

from typing import TYPE_CHECKING

from diet_lightning.__about__ import __version__ as __version__
from diet_lightning.utilities.lazy import attach

if TYPE_CHECKING:
    from diet_lightning.backbones.factory import create_backbone
    from diet_lightning.callbacks.defaults import default_callbacks
    from diet_lightning.callbacks.embedding_writer import EmbeddingWriter
    from diet_lightning.callbacks.feature_rank import FeatureRank
    from diet_lightning.callbacks.finite_guard import FiniteGuard
    from diet_lightning.callbacks.interrupt_checkpoint import InterruptCheckpoint
    from diet_lightning.callbacks.last_blocks import LastBlocks
    from diet_lightning.callbacks.offline_evaluation import OfflineEvaluation
    from diet_lightning.callbacks.online_knn import OnlineKNN
    from diet_lightning.callbacks.online_probe import OnlineLinearProbe
    from diet_lightning.callbacks.progress_bar import FitProgressBar
    from diet_lightning.callbacks.run_figure import RunFigure
    from diet_lightning.data.batch import DatumBatch
    from diet_lightning.data.datamodule import DIETDataModule
    from diet_lightning.data.indexed import IndexedDataset
    from diet_lightning.embeddings.formats import Embeddings, read_embeddings
    from diet_lightning.errors import DIETError
    from diet_lightning.objective.head_config import HeadConfig
    from diet_lightning.runs.checkpoint import LeanCheckpointIO
    from diet_lightning.training.module import DIETModule
    from diet_lightning.training.supervised import SupervisedModule
else:
    # what is not used is not imported, as Lightning and scikit-learn take seconds
    __getattr__, __dir__ = attach(
        __name__,
        {
            "DIETDataModule": "diet_lightning.data.datamodule",
            "DIETError": "diet_lightning.errors",
            "DIETModule": "diet_lightning.training.module",
            "DatumBatch": "diet_lightning.data.batch",
            "EmbeddingWriter": "diet_lightning.callbacks.embedding_writer",
            "Embeddings": "diet_lightning.embeddings.formats",
            "FeatureRank": "diet_lightning.callbacks.feature_rank",
            "FiniteGuard": "diet_lightning.callbacks.finite_guard",
            "FitProgressBar": "diet_lightning.callbacks.progress_bar",
            "HeadConfig": "diet_lightning.objective.head_config",
            "IndexedDataset": "diet_lightning.data.indexed",
            "InterruptCheckpoint": "diet_lightning.callbacks.interrupt_checkpoint",
            "LastBlocks": "diet_lightning.callbacks.last_blocks",
            "LeanCheckpointIO": "diet_lightning.runs.checkpoint",
            "OfflineEvaluation": "diet_lightning.callbacks.offline_evaluation",
            "OnlineKNN": "diet_lightning.callbacks.online_knn",
            "OnlineLinearProbe": "diet_lightning.callbacks.online_probe",
            "RunFigure": "diet_lightning.callbacks.run_figure",
            "SupervisedModule": "diet_lightning.training.supervised",
            "create_backbone": "diet_lightning.backbones.factory",
            "default_callbacks": "diet_lightning.callbacks.defaults",
            "read_embeddings": "diet_lightning.embeddings.formats",
        },
    )

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
    "HeadConfig",
    "IndexedDataset",
    "InterruptCheckpoint",
    "LastBlocks",
    "LeanCheckpointIO",
    "OfflineEvaluation",
    "OnlineKNN",
    "OnlineLinearProbe",
    "RunFigure",
    "SupervisedModule",
    "create_backbone",
    "default_callbacks",
    "read_embeddings",
]
