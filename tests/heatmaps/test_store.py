"""The store: maps are rounded as documented, come back as they were kept, and damaged folders are named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from wsol.errors import UserError
from wsol.heatmaps.store import HeatmapStore, join_stores, save_heatmaps

METHODS = {
    "cam": {"function": "cam", "layer": "layer4"},
    "middle": {"function": "center", "layer": ""},
    "noise": {"function": "random", "layer": "layer4"},
}
SOURCE = {"dataset": "shapes", "split": "test", "classes": "Käfer"}


def maps(count: int = 3, side: int = 4) -> torch.Tensor:
    return torch.randn(count, side, side, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[[1e-3]], [[1.0]], [[7e4]]]
    )


def filled() -> HeatmapStore:
    store = HeatmapStore(["a", "b#1", "ç/d"], METHODS, SOURCE)
    for i in range(3):
        store.place([i], (40 + i, 30), (0.5, 0.0, 40.25, 30.0), missing=i == 1)
    store.add("cam", [2, 0], maps()[[2, 0]])
    store.add("noise", [0, 1, 2], torch.rand(3, 5, 2))
    return store


def save(store: HeatmapStore, folder: Path) -> HeatmapStore:
    save_heatmaps([store], len(store.sample_ids), folder)
    return HeatmapStore.open(folder)


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("on_disk", [False, True])
def test_rounding(tmp_path: Path, on_disk: bool) -> None:
    """Divided by the largest absolute value, which is kept in float32; the quotient rounded to half precision."""
    store = save(filled(), tmp_path / "h") if on_disk else filled()
    for i in (0, 2):
        raw = maps()[i].numpy()
        largest = np.abs(raw).max()
        expected = (raw / largest).astype(np.float16).astype(np.float64) * np.float64(largest)
        values = store.heatmap("cam", i).values
        assert values.dtype == np.float64 and np.array_equal(values, expected)
        assert np.abs(values - raw).max() <= largest * 2.0**-11
        assert np.abs(values).max() == np.float64(largest)


def test_zero_and_constant_maps() -> None:
    store = HeatmapStore(["a", "b", "c"], METHODS)
    store.add("cam", [0, 1, 2], torch.stack([torch.zeros(2, 2), torch.full((2, 2), -3.7), torch.full((2, 2), 1e-40)]))
    assert not store.heatmap("cam", 0).values.any()
    assert np.array_equal(store.heatmap("cam", 1).values, np.full((2, 2), -np.float64(np.float32(3.7))))
    assert (store.heatmap("cam", 2).values > 0).all()


def test_round_trip_through_a_folder(tmp_path: Path) -> None:
    kept = filled()
    save(kept, tmp_path / "run" / "heatmaps")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["heatmaps"]
    store = HeatmapStore.open(str(tmp_path / "run" / "heatmaps"))
    assert (store.sample_ids, store.methods, store.source) == (["a", "b#1", "ç/d"], METHODS, SOURCE)
    assert list(store.methods) == list(METHODS)
    assert store.missing("cam").tolist() == [False, True, False]
    assert [store.kind(name) for name in METHODS] == ["raw", "center", "raw"]
    for i in range(3):
        for name in ("noise", "cam"):
            heatmap = store.heatmap(name, i)
            assert (heatmap.image_size, heatmap.rectangle) == ((40 + i, 30), (0.5, 0.0, 40.25, 30.0))
            assert np.array_equal(heatmap.values, kept.heatmap(name, i).values)


def test_folder_holds_what_is_documented(tmp_path: Path) -> None:
    save(filled(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cam.npy", "cam.scale.npy", "heatmaps.json", "index.parquet", "noise.npy", "noise.scale.npy",
    ]  # fmt: skip
    array, scale = np.load(tmp_path / "cam.npy"), np.load(tmp_path / "cam.scale.npy")
    assert (array.shape, array.dtype, scale.shape, scale.dtype) == ((3, 4, 4), np.float16, (3,), np.float32)
    assert np.abs(array[[0, 2]]).max((1, 2)).tolist() == [1, 1]
    index = pd.read_parquet(tmp_path / "index.parquet")
    assert list(index.columns) == ["sample_id", "width", "height", "x0", "y0", "x1", "y1", "missing"]
    text = (tmp_path / "heatmaps.json").read_text(encoding="utf-8")
    assert "Käfer" in text and json.loads(text)["methods"] == METHODS


def test_maps_of_another_shape_are_refused() -> None:
    store = HeatmapStore(["a", "b"], METHODS)
    store.add("cam", [0], torch.rand(1, 4, 4))
    with pytest.raises(UserError, match="cam"):
        store.add("cam", [1], torch.rand(1, 5, 4))


def test_shards_are_joined_in_memory_and_on_disk_alike(tmp_path: Path) -> None:
    """Also where of a shard nothing could be read."""
    unread = HeatmapStore(["x", "y"], METHODS, SOURCE)
    unread.unreadable[:] = True
    for order in ([filled(), unread], [unread, filled()]):
        whole = join_stores(order)
        save_heatmaps(iter(order), 5, tmp_path / "h")
        stored = HeatmapStore.open(tmp_path / "h")
        assert stored.sample_ids == whole.sample_ids == [name for store in order for name in store.sample_ids]
        for index in range(5):
            for name in METHODS:
                assert stored.missing(name).tolist() == whole.missing(name).tolist()
                one, other = stored.heatmap(name, index), whole.heatmap(name, index)
                assert np.array_equal(one.values, other.values) and one.image_size == other.image_size
    other = HeatmapStore(["x"], METHODS, SOURCE)
    other.add("cam", [0], torch.rand(1, 2, 2))
    with pytest.raises(UserError, match="cam"):
        save_heatmaps([filled(), other], 4, tmp_path / "odd")
    with pytest.raises(UserError, match="cam"):
        join_stores([filled(), other])


def test_second_run_takes_the_place_of_the_first(tmp_path: Path) -> None:
    save(filled(), tmp_path / "heatmaps")
    (tmp_path / "heatmaps" / "notes.txt").write_text("mine")
    store = HeatmapStore(["x"], {"cam": METHODS["cam"]}, SOURCE)
    store.add("cam", [0], torch.ones(1, 2, 2))
    second = save(store, tmp_path / "heatmaps")
    assert second.sample_ids == ["x"]
    assert second.heatmap("cam", 0).values.tolist() == [[1, 1], [1, 1]]
    assert (tmp_path / "heatmaps" / "notes.txt").read_text() == "mine"


def test_run_where_nothing_could_be_read(tmp_path: Path) -> None:
    store = HeatmapStore(["a"], METHODS, {})
    store.unreadable[:] = True
    assert save(store, tmp_path).missing("cam").tolist() == [True]


DAMAGED = [
    ("heatmaps.json", b"{"),
    ("heatmaps.json", b'{"format": 99, "methods": {}, "source": {}}'),
    ("heatmaps.json", b'{"format": 1, "methods": {"cam": {"layer": "x"}}, "source": {}}'),
    ("index.parquet", None),
    ("index.parquet", b"not parquet"),
    ("index.parquet", pd.DataFrame({"sample_id": ["a"]})),
    ("cam.npy", None),
    ("cam.npy", b"text"),
    ("cam.npy", np.zeros((2, 4, 4), np.float16)),
    ("cam.npy", np.zeros((3, 4), np.float16)),
    ("cam.npy", np.zeros((3, 4, 4), "U3")),
    ("cam.npy", np.array([[[{}]]] * 3, object)),
    ("cam.scale.npy", None),
    ("cam.scale.npy", np.zeros(5, np.float32)),
    ("cam.scale.npy", np.float32(1)),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGED)
def test_damaged_files_are_named_and_pickles_never_run(tmp_path: Path, name: str, damage: object) -> None:
    save(filled(), tmp_path)
    (tmp_path / name).unlink()
    if isinstance(damage, bytes):
        (tmp_path / name).write_bytes(damage)
    elif isinstance(damage, pd.DataFrame):
        damage.to_parquet(tmp_path / name)
    elif damage is not None:
        np.save(tmp_path / name, damage)
    with pytest.raises(UserError, match=str(tmp_path / name)):
        HeatmapStore.open(tmp_path)
