"""The backbone for other programs."""

from typing import TYPE_CHECKING

from diet_lightning.utilities.lazy import attach

if TYPE_CHECKING:
    from diet_lightning.export.folder import export_backbone, load_backbone, load_preprocessing
else:
    # what is not used is not imported, as Lightning and scikit-learn take seconds
    __getattr__, __dir__ = attach(
        __name__,
        {
            "export_backbone": "diet_lightning.export.folder",
            "load_backbone": "diet_lightning.export.folder",
            "load_preprocessing": "diet_lightning.export.folder",
        },
    )

__all__ = [
    "export_backbone",
    "load_backbone",
    "load_preprocessing",
]
