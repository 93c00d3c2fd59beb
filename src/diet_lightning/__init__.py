"""DIET: self-supervised learning with the datum index as target, for PyTorch Lightning."""

import lazy_loader

from diet_lightning.__about__ import __version__ as __version__

# the stub lists the names; each is imported on first use, since importing Lightning and scikit-learn takes seconds
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
