"""Embeddings on disk."""

import lazy_loader

# the stub lists the names; each is imported on first use, since importing Lightning and scikit-learn takes seconds
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
