"""Weakly supervised object localization: measures how well a classifier's heatmaps say where the object is."""

import lazy_loader

__version__ = "0.1.0"

# Names are fetched when they are used, and listed in __init__.pyi: `wsol --help` must not wait seconds for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
