"""Embeddings on disk."""

from typing import TYPE_CHECKING

from diet_lightning.utilities.lazy import attach

if TYPE_CHECKING:
    from diet_lightning.embeddings.formats import Embeddings, read_embeddings
else:
    # what is not used is not imported, as Lightning and scikit-learn take seconds
    __getattr__, __dir__ = attach(
        __name__,
        {
            "Embeddings": "diet_lightning.embeddings.formats",
            "read_embeddings": "diet_lightning.embeddings.formats",
        },
    )

__all__ = [
    "Embeddings",
    "read_embeddings",
]
