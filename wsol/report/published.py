"""Localization numbers as papers published them, to stand beside a run's own on the same dataset and architecture."""

from __future__ import annotations

import re
from functools import lru_cache

import pandas as pd

from wsol.io import published_file

__all__ = ["COLUMNS", "matching", "published"]

COLUMNS = ("dataset", "split", "model", "method", "metric", "value", "source", "note")

# Other names of the table's datasets and models, without case and signs.
DATASETS = {
    "imagenet": "ilsvrc", "imagenet1k": "ilsvrc", "ilsvrc2012": "ilsvrc", "cub200": "cub", "cub2002011": "cub",
    "openimages": "openimages30k",
}  # fmt: skip
MODELS = {
    "vggnetgap": "vgg16gap", "vgg": "vgg16",
    "deittinypatch16224": "deitt", "deitsmallpatch16224": "deits", "deitbasepatch16384": "deitb384",
}  # fmt: skip
ALSO = {"vgg16gap": ("vgg16",)}  # Choe et al. call their VGG-16 with global average pooling vgg16


@lru_cache(maxsize=1)
def published() -> pd.DataFrame:
    """All published numbers.

    Returns
    -------
    DataFrame
        `dataset, split, model, method, metric, value, source, note`: the metric is a column of `summary.csv`, the
        value percent; `model` is empty where the number is of no particular network.

    Examples
    --------
    >>> published().query("method == 'Grad-CAM' and metric == 'top1_loc'")["value"].tolist()
    [31.7, 39.91, 43.49]
    """
    texts = dict.fromkeys(COLUMNS, str) | {"value": float}
    return pd.read_csv(published_file(), dtype=texts, keep_default_na=False, na_values={"value": [""]})


def matching(dataset: str, model: str) -> pd.DataFrame:
    """Find the published numbers of a dataset and an architecture.

    Parameters
    ----------
    dataset, model : str
        As in `summary.csv`; case and signs don't matter, and other usual names are known.

    Returns
    -------
    DataFrame
        The columns of `published`; without rows where there is nothing to compare. Numbers of no particular network
        (the center baseline) match every model.

    Examples
    --------
    >>> matching("cub", "resnet50").query("method == 'CAM'")[["metric", "value"]].values.tolist()
    [['max_box_acc_v2', 63.0]]
    >>> len(matching("shapes", "resnet50"))
    0
    """
    table = published()
    own = _plain(model, MODELS)
    wanted = {"", own, *ALSO.get(own, ())}
    fits = table["model"].map(lambda name: _plain(name, MODELS)).isin(wanted)
    fits &= table["dataset"].map(lambda name: _plain(name, DATASETS)) == _plain(dataset, DATASETS)
    return table[fits].reset_index(drop=True)


def _plain(name: str, known: dict[str, str]) -> str:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return known.get(plain, plain)
