"""Callbacks: probes and ranks, continued pretraining, evaluation, guard, interruption, progress bar, embeddings, and the run's figure."""

from typing import TYPE_CHECKING

from diet_lightning.utilities.lazy import attach

if TYPE_CHECKING:
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
else:
    # what is not used is not imported, as Lightning and scikit-learn take seconds
    __getattr__, __dir__ = attach(
        __name__,
        {
            "EmbeddingWriter": "diet_lightning.callbacks.embedding_writer",
            "FeatureRank": "diet_lightning.callbacks.feature_rank",
            "FiniteGuard": "diet_lightning.callbacks.finite_guard",
            "FitProgressBar": "diet_lightning.callbacks.progress_bar",
            "InterruptCheckpoint": "diet_lightning.callbacks.interrupt_checkpoint",
            "LastBlocks": "diet_lightning.callbacks.last_blocks",
            "OfflineEvaluation": "diet_lightning.callbacks.offline_evaluation",
            "OnlineKNN": "diet_lightning.callbacks.online_knn",
            "OnlineLinearProbe": "diet_lightning.callbacks.online_probe",
            "RunFigure": "diet_lightning.callbacks.run_figure",
            "default_callbacks": "diet_lightning.callbacks.defaults",
        },
    )

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
    "default_callbacks",
]
