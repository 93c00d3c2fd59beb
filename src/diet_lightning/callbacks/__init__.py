"""Callbacks: probes and ranks, continued pretraining, evaluation, guard, interruption, progress bar, embeddings, and the run's figure."""

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

__all__ = [
    "EmbeddingWriter",
    "FeatureRank",
    "FiniteGuard",
    "FitProgressBar",
    "InterruptCheckpoint",
    "LastBlocks",
    "OfflineEvaluation",
    "OnlineKNN",
    "OnlineLinearProbe",
    "RunFigure",
]
