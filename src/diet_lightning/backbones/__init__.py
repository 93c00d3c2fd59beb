"""A name, a module or a folder in, a feature extractor out."""

from typing import TYPE_CHECKING

from diet_lightning.utilities.lazy import attach

if TYPE_CHECKING:
    from diet_lightning.backbones.factory import Backbone, create_backbone
else:
    # what is not used is not imported, as Lightning and scikit-learn take seconds
    __getattr__, __dir__ = attach(
        __name__,
        {
            "Backbone": "diet_lightning.backbones.factory",
            "create_backbone": "diet_lightning.backbones.factory",
        },
    )

__all__ = [
    "Backbone",
    "create_backbone",
]
