"""DIET: self-supervised learning with the datum index as target, for PyTorch Lightning."""

import lazy_loader

from diet_lightning.__about__ import __version__ as __version__

# the names are listed in the stub; what is not used is not imported, as Lightning and scikit-learn take seconds
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
