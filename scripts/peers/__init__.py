"""Our heatmaps beside those of the libraries `grad-cam` and `torchcam`; `compare_with_peers.py` makes a page of it."""
