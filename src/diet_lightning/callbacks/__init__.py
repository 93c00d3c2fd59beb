"""Callbacks: probes and ranks, continued pretraining, evaluation, guard, interruption, progress bar, embeddings, and the run's figure."""

import lazy_loader

# the names are listed in the stub; what is not used is not imported, as Lightning and scikit-learn take seconds
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
