"""Callbacks: online probe, guard, interruption, progress bar, embeddings, and the run's figure."""

from diet_lightning.callbacks.embeddings import EmbeddingWriter
from diet_lightning.callbacks.figure import RunFigure
from diet_lightning.callbacks.guard import FiniteGuard
from diet_lightning.callbacks.interrupt import InterruptCheckpoint
from diet_lightning.callbacks.probe import OnlineLinearProbe
from diet_lightning.callbacks.progress import FitProgressBar

__all__ = ["EmbeddingWriter", "FiniteGuard", "FitProgressBar", "InterruptCheckpoint", "OnlineLinearProbe", "RunFigure"]
