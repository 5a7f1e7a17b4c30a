"""Somebody else's heatmaps: found by sample id, and every fault named before anything is scored."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from wsol.datasets.sample import Dataset, Sample
from wsol.errors import UserError
from wsol.heatmaps.method import make_method
from wsol.heatmaps.store import NOISE, HeatmapStore, add_baselines, open_heatmaps, save_heatmaps

IDS = ("a/0.jpeg", "a/1.jpeg", "b/c/2.jpeg")


class Listed(Dataset):
    """Samples with ids and sizes, and images that are not there."""

    name, split, classes, role = "listed", "val", ("x", "y"), "train-fullsup"

    def __init__(self, ids: tuple[str, ...] = IDS, size: tuple[int, int] | None = (40, 30), mask: bool = False) -> None:
        self.given, self.size, self.mask = ids, size, np.ones((20, 50), bool) if mask else None

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, index: int) -> Sample:
        sample_id = self.given[index]
        return Sample(
            sample_id=sample_id, image_id=sample_id.partition("#")[0], label=index % 2, boxes=[[1, 2, 20, 20]],
            image=Path("/nowhere") / sample_id, image_size=self.size, mask=self.mask,
        )  # fmt: skip


def a_map(seed: int = 0, shape: tuple[int, ...] = (7, 9)) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def write(root: Path, maps: dict[str, np.ndarray]) -> Path:
    for name, values in maps.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / name, values)
    return root


def whole(root: Path) -> Path:
    """A map for each sample, one of them without its image's suffix."""
    return write(root, {"a/0.jpeg.npy": a_map(0), "a/1.npy": a_map(1), "b/c/2.jpeg.npy": a_map(2)})


def opened(root: Path, dataset: Dataset | None = None, **options: object):
    return open_heatmaps(dataset or Listed(), root, show_progress=False, **options)  # type: ignore[arg-type]


def test_files_in_sub_folders_with_and_without_suffix(tmp_path: Path) -> None:
    whole(tmp_path / "mine")
    (tmp_path / "mine" / "b").symlink_to((tmp_path / "mine" / "b").rename(tmp_path / "elsewhere"))
    store, notes = opened(tmp_path / "mine")
    assert notes == [] and not store.missing(*store.methods).any()
    assert (store.sample_ids, list(store.methods)) == (list(IDS), ["mine"])
    for index in range(3):
        heatmap = store.heatmap("mine", index)
        assert np.array_equal(heatmap.values, a_map(index))
        assert (heatmap.kind, heatmap.image_size, heatmap.rectangle) == ("scoremap", (40, 30), (0, 0, 40, 30))


def test_an_archive_with_ids_as_keys(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", **{"a/0.jpeg": a_map(0), "a/1": a_map(1), "b/c/2.jpeg": a_map(2, (3, 4))})
    store, _ = opened(tmp_path / "x.npz", name="theirs", workers=3)
    assert list(store.methods) == ["theirs"]
    assert store.score_map_shapes == [(7, 9), (7, 9), (3, 4)]
    assert np.array_equal(store.heatmap("theirs", 1).values, a_map(1))


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f8", "uint8", "bool"])
def test_all_kinds_of_numbers_in_any_order_become_float64(tmp_path: Path, dtype: str) -> None:
    values = np.asfortranarray(a_map().round().astype(dtype))
    store, _ = opened(write(tmp_path, {f"{i}.npy": values for i in IDS}))
    assert store.heatmap(tmp_path.name, 0).values.dtype == np.float64
    assert np.array_equal(store.heatmap(tmp_path.name, 0).values, values)


def test_several_classes_on_an_image(tmp_path: Path) -> None:
    dataset = Listed(("a.jpg#cat", "a.jpg#dog"))
    write(tmp_path, {"a.jpg#cat.npy": a_map(0), "a#dog.npy": a_map(1)})
    store, _ = opened(tmp_path, dataset)
    assert np.array_equal(store.heatmap(tmp_path.name, 1).values, a_map(1))


def as_file(values: np.ndarray, **options: bool) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, **options)
    return stream.getvalue()


def header_of(shape: tuple[int, ...], data: bytes = b"") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return stream.getvalue() + data


class Trap:
    """Something that notes when it is unpickled."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


FAULTY = {
    "nan": as_file(np.where(a_map() > 0.9, np.nan, a_map())),
    "range": as_file(a_map() * 3 - 1),
    "bytes": as_file(np.full((3, 3), 200, np.uint8)),
    "rank": as_file(a_map(0, (1, 7, 9))),
    "empty": as_file(np.zeros((0, 4))),
    "complex": as_file(np.array([[1j]])),
    "no array": b"0.1 0.2",
    "cut": header_of((9, 9), bytes(80)),
    "a bomb": header_of((10**6, 10**6)),
    "code in the header": b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('os').abort()".ljust(31) + b"\n",
    "a pickle": b"\x80\x04\x95\x0c\x00\x00\x00",
    "objects": as_file(np.array([[Trap()]], dtype=object), allow_pickle=True),
}


@pytest.mark.parametrize("case", FAULTY)
@pytest.mark.parametrize("archive", [False, True])
def test_faulty_maps_are_named_and_never_unpickled(tmp_path: Path, case: str, archive: bool) -> None:
    place = whole(tmp_path / "maps")
    (place / "a" / "1.npy").write_bytes(FAULTY[case])
    if archive:
        with zipfile.ZipFile(tmp_path / "maps.npz", "w") as made:
            for path in place.rglob("*.npy"):
                made.write(path, path.relative_to(place))
        place = tmp_path / "maps.npz"
    with pytest.raises(UserError, match=r"a/1\.jpeg.* 1 of 3 samples"):
        opened(place)
    store, notes = opened(place, on_error="skip")
    assert store.missing("maps").tolist() == [False, True, False]
    assert not store.heatmap("maps", 1).values.any()
    assert "a/1.jpeg" in notes[0] and "1 of 3 samples" in notes[0]
    assert not Trap.sprung


def test_a_map_that_unpacks_to_more_than_memory_is_not_unpacked(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("wsol.heatmaps.store.LARGEST", 1000)
    np.savez_compressed(tmp_path / "x.npz", a=np.zeros((20, 20)), b=np.zeros((2, 2)))
    with pytest.raises(UserError, match=r"a \(.* 1 of 2 samples"):
        opened(tmp_path / "x.npz", Listed(("a", "b")))


def test_missing_and_extra_files_are_named(tmp_path: Path) -> None:
    whole(tmp_path)
    (tmp_path / "a" / "1.npy").unlink()
    write(tmp_path, {"other/z.npy": a_map(), ".hidden.npy": a_map()})
    with pytest.raises(UserError, match="a/1.jpeg.*other/z.* 1 of 3 samples"):
        opened(tmp_path)
    with pytest.raises(UserError, match="other/z. 0 of 3 samples"):
        opened(write(tmp_path, {"a/1.npy": a_map()}))


def test_a_part_of_a_dataset_may_have_more_files(tmp_path: Path) -> None:
    store, notes = opened(whole(tmp_path), Listed(IDS[:1]), part=True)
    assert notes == [] and len(store.sample_ids) == 1


def test_one_file_never_serves_two_samples(tmp_path: Path) -> None:
    write(tmp_path, {"a.npy": a_map(), "b.npy": a_map()})
    with pytest.raises(UserError, match="a.jpg.*a.png"):
        opened(tmp_path, Listed(("a.jpg", "a.png", "b.jpg")))


def test_raw_maps_may_have_any_range(tmp_path: Path) -> None:
    store, _ = opened(write(tmp_path, {f"{i}.npy": a_map() * 50 - 9 for i in IDS}), kind="raw")
    assert store.kind(tmp_path.name) == "raw"
    assert np.array_equal(store.heatmap(tmp_path.name, 0).values, a_map() * 50 - 9)
    with pytest.raises(UserError, match="grey"):
        opened(tmp_path, kind="grey")


@pytest.mark.parametrize("sample_id", ["../secret", "a/../../secret", "{folder}/secret", "a\0b"])
def test_ids_never_lead_out_of_the_folder(tmp_path: Path, sample_id: str) -> None:
    write(tmp_path, {"secret.npy": a_map(), "maps/a.npy": a_map()})
    dataset = Listed(("a", sample_id.format(folder=tmp_path)))
    store, _ = opened(tmp_path / "maps", dataset, on_error="skip")
    assert store.missing("maps").tolist() == [False, True]


@pytest.mark.parametrize("name", ["none", "empty", "a.npy", "bad.npz", "empty.npz"])
def test_what_is_no_heatmaps(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.npy").write_bytes(b"")
    (tmp_path / "bad.npz").write_bytes(b"PK")
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(UserError, match=f"heatmaps={tmp_path / name}"):
        opened(tmp_path / name, on_error="skip")


def test_sizes_come_from_masks_where_annotations_have_none(tmp_path: Path) -> None:
    store, _ = opened(whole(tmp_path), Listed(size=None, mask=True))
    assert store.image_size(0) == (50, 20)
    with pytest.raises(UserError, match="a/0.jpeg"):
        opened(tmp_path, Listed(size=None))


def test_baselines_stand_beside_heatmaps_and_lack_no_sample(tmp_path: Path) -> None:
    whole(tmp_path)
    (tmp_path / "a" / "1.npy").unlink()
    store, _ = opened(tmp_path, on_error="skip", name="mine")
    add_baselines(store, {"noise": make_method("random"), "center": make_method("center")}, seed=3)
    assert list(store.methods) == ["mine", "noise", "center"]
    assert (store.heatmap("noise", 1).values.shape, store.kind("noise")) == (NOISE, "raw")
    assert store.missing("mine").tolist() == [False, True, False]
    assert not store.missing("noise").any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]
    with pytest.raises(UserError, match="mine"):
        add_baselines(store, {"mine": make_method("full")})
    with pytest.raises(UserError, match="cam"):
        add_baselines(store, {"cam": make_method("cam")})


def test_a_runs_own_heatmaps_are_raw(tmp_path: Path) -> None:
    (tmp_path / "run" / "heatmaps").mkdir(parents=True)
    kept = HeatmapStore(["a"], {"center": {"function": "center", "layer": ""}}, {})
    save_heatmaps([kept], 1, tmp_path / "run" / "heatmaps")
    dataset = Listed(("a",))
    store, _ = open_heatmaps(dataset, tmp_path / "run" / "heatmaps", kind="raw")
    assert store.kind("center") == "center"
    assert store.source["role"] == "train-fullsup"
    for option, value in (("kind", "scoremap"), ("name", "x")):
        with pytest.raises(UserError, match=f"{option}={value}"):
            open_heatmaps(dataset, tmp_path / "run" / "heatmaps", **{option: value})
    with pytest.raises(UserError, match="run/heatmaps"):
        open_heatmaps(dataset, tmp_path / "run")
    (tmp_path / "run" / "heatmaps" / "index.parquet").unlink()
    with pytest.raises(UserError, match=str(tmp_path)):
        open_heatmaps(dataset, tmp_path / "run" / "heatmaps")
