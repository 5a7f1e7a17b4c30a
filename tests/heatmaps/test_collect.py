"""One pass over a dataset: maps, ranks and rectangles by sample; unreadable images; what a failure leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from wsol.datasets import Dataset, Sample
from wsol.datasets.classes import ClassMap
from wsol.datasets.views import apply_view
from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor, Method, make_method
from wsol.heatmaps.collect import Recorder, count_logits
from wsol.heatmaps.recording import Recording
from wsol.heatmaps.store import HeatmapStore, random
from wsol.models import Classifier, gapnet

ALL = ClassMap(np.arange(3), "name")


def methods(*names: str) -> dict[str, Method]:
    return {name: make_method(name) for name in names}


def collect(dataset: Dataset, classifier: Classifier, names: Sequence[str] = ("cam", "gradcam"), **options: object):
    options = {"class_map": ALL, "batch_size": 4, **options}
    chosen = names if isinstance(names, dict) else methods(*names)
    with Recorder(dataset, classifier, chosen, **options) as recorder:
        ((store, samples, *_),) = recorder.record([range(len(dataset))])
    return store, samples


def assert_same(
    store: HeatmapStore, expected: HeatmapStore, names: Sequence[str], rtol: float = 2e-3, atol: float = 1e-3
) -> None:
    """The same heatmaps up to `rtol` of each value, or `atol` of a map's maximum."""
    for name in names:
        for i in range(len(expected.sample_ids)):
            values = expected.heatmap(name, i).values
            allowed = atol * np.abs(values).max()
            np.testing.assert_allclose(store.heatmap(name, i).values, values, rtol=rtol, atol=allowed)


def assert_same_answers(table: pd.DataFrame, expected: pd.DataFrame) -> None:
    plain = expected.columns.drop(["top5", "top5_probability"])
    pd.testing.assert_frame_equal(table[plain], expected[plain])
    assert [top.tolist() for top in table["top5"]] == [top.tolist() for top in expected["top5"]]
    for one, other in zip(table["top5_probability"], expected["top5_probability"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


class Pictures(Dataset):
    """Noise of several sizes; some of it can't be read."""

    name, split, classes = "pictures", "test", ("a", "b", "c")

    def __init__(self, count: int = 7, broken: Sequence[int] = (), twice: int = -1) -> None:
        self.count, self.broken, self.twice = count, broken, twice

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        size = (20 + 3 * index, 50 - 2 * index, 3)
        image = np.random.default_rng(index).integers(0, 256, size, dtype=np.uint8)
        name = f"p{0 if index == self.twice else index}"
        if index in self.broken:
            return Sample(sample_id=name, label=index % 3, image=Path(f"/nowhere/{name}.jpg"))
        return Sample(sample_id=name, label=index % 3, image=image)


def alone(classifier: Classifier, sample: Sample, target: int, view: str = "squash"):
    """Heatmaps by method, logits and rectangle of one sample, without collecting."""
    pixels, rectangle = apply_view(sample.read_image(), view, (32, 32))
    with HeatmapExtractor(classifier, ("cam", "gradcam")) as extractor:
        heatmaps = extractor(classifier.prepare(pixels[None]), torch.tensor([target]))
    return {name: maps[0].numpy() for name, maps in heatmaps.maps.items()}, heatmaps.logits[0].double(), rectangle


@pytest.mark.parametrize("view", ["squash", "crop"])
def test_every_sample_gets_its_own(classifier: Classifier, view: str) -> None:
    data = Pictures()
    store, table = collect(data, classifier, ("cam", "gradcam", "random"), view=view, seed=3)
    assert store.sample_ids == table["sample_id"].tolist() == [f"p{i}" for i in range(7)]
    for i, sample in enumerate(data):
        maps, logits, rectangle = alone(classifier, sample, sample.label, view)
        for name, values in maps.items():
            np.testing.assert_allclose(store.heatmap(name, i).values, values, atol=1e-3 * np.abs(values).max())
        np.testing.assert_allclose(store.heatmap("random", i).values, random((8, 8), f"p{i}", 3), atol=1e-3)
        assert (store.rectangle(i), store.image_size(i)) == (rectangle, sample.size())
        row = table.iloc[i]
        assert row["rank"] == int((logits > logits[sample.label]).sum())
        assert row["top5"].tolist() == logits.argsort(descending=True).tolist()
        np.testing.assert_allclose(row["top5_probability"], logits.softmax(0).sort(descending=True)[0], rtol=1e-4)
        assert (row["label"], row["class"], row["image_id"]) == (i % 3, "abc"[i % 3], f"p{i}")
        assert (row["width"], row["height"]) == sample.size()
        assert tuple(row[["x0", "y0", "x1", "y1"]]) == rectangle


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (3, 1), (99, 4)])
def test_batches_and_threads_do_not_matter(classifier: Classifier, batch_size: int, workers: int) -> None:
    names = ("cam", "random")
    expected, rows = collect(Pictures(), classifier, names)
    store, table = collect(Pictures(), classifier, names, batch_size=batch_size, workers=workers)
    assert_same(store, expected, ["cam"], atol=1e-6)
    assert_same(store, expected, ["random"], 0, 0)
    assert_same_answers(table, rows)


@pytest.mark.parametrize("broken", [[5], [0, 1, 4, 6], range(7)])
def test_skipped_images_count_as_misses(classifier: Classifier, broken: Sequence[int]) -> None:
    store, table = collect(Pictures(broken=broken), classifier, on_error="skip", batch_size=2)
    whole, _ = collect(Pictures(), classifier, batch_size=2)
    wanted = [i in broken for i in range(7)]
    assert store.unreadable.tolist() == wanted
    assert (table["rank"] == -1).tolist() == wanted
    assert [len(top) for top in table["top5"]] == [0 if gone else 3 for gone in wanted]
    for i in set(range(7)) - set(broken):
        np.testing.assert_allclose(store.heatmap("cam", i).values, whole.heatmap("cam", i).values, rtol=2e-3, atol=1e-6)


class Interrupted(Pictures):
    def __getitem__(self, index: int) -> Sample:
        if index == 5:
            raise KeyboardInterrupt
        return super().__getitem__(index)


@pytest.mark.parametrize(
    ("data", "options", "error", "culprit"),
    [
        (Pictures(broken=[5]), {}, UserError, "'p5'.*/nowhere/p5.jpg"),
        (Pictures(twice=2), {}, UserError, "'p0'"),
        (Interrupted(), {"workers": 0}, KeyboardInterrupt, ""),
        (Pictures(), {"predict_over": "some"}, UserError, "some"),
        (Pictures(), {"view": "stretch"}, UserError, "stretch"),
        (Pictures(), {"batch_size": 0}, UserError, "batch_size=0"),
        (Pictures(), {"names": ("eigencam", "rollout")}, UserError, "rollout"),
    ],
)
def test_what_stops_a_pass(classifier: Classifier, data, options, error, culprit) -> None:
    with pytest.raises(error, match=culprit):
        collect(data, classifier, **options)


@pytest.mark.parametrize(("predict_over", "competing"), [("all", list(range(9))), ("present", [1, 4, 7])])
def test_more_classes_than_the_dataset_has_in_another_order(predict_over: str, competing: list[int]) -> None:
    module, to_model, data = gapnet(9, widths=(6, 8), strides=(2, 2), seed=1), [7, 1, 4], Pictures()
    wide = Classifier(name="wide", module=module, layer="features", input_size=(32, 32))
    class_map = ClassMap(np.array(to_model), "file x")
    store, table = collect(data, wide, ("cam",), class_map=class_map, predict_over=predict_over)
    for i, sample in enumerate(data):
        target = to_model[sample.label]
        maps, logits, _ = alone(wide, sample, target)
        np.testing.assert_allclose(store.heatmap("cam", i).values, maps["cam"], atol=1e-3 * np.abs(maps["cam"]).max())
        logits = logits.numpy()
        best = sorted(competing, key=lambda c: -logits[c])
        row = table.iloc[i]
        assert (row["rank"], row["top5"].tolist()) == (best.index(target), best[:5])
        shares = np.exp(logits[best]) / np.exp(logits[competing]).sum()
        np.testing.assert_allclose(row["top5_probability"], shares[:5], rtol=1e-4)


class Several(Dataset):
    """Pictures that show one to three classes each; `shared` says whether collecting may know it."""

    name, split, classes = "several", "test", ("a", "b", "c")
    shown = ((2,), (0, 1, 2), (1,), (0, 2), (1, 2), (0,), (2, 1, 0))

    def __init__(self, shared: bool = True, broken: int = -1) -> None:
        self.multilabel, self.broken, self.decoded = shared, broken, 0
        self.pairs = [(image, label) for image, labels in enumerate(self.shown) for label in labels]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image, label = self.pairs[index]

        def decode() -> np.ndarray:
            self.decoded += 1
            size = (20 + 3 * image, 50 - 2 * image, 3)
            return np.random.default_rng(image).integers(0, 256, size, dtype=np.uint8)

        source = Path("/nowhere.jpg") if image == self.broken else decode
        return Sample(sample_id=f"p{image}#{self.classes[label]}", label=label, image=source, image_id=f"p{image}")


def count_passes(classifier: Classifier) -> list[int]:
    """A list that gets the number of images of each forward pass from now on."""
    passes: list[int] = []
    classifier.module.register_forward_pre_hook(lambda _module, inputs: passes.append(len(inputs[0])))
    return passes


def own_gradients(recording: Recording) -> torch.Tensor:
    """A method of somebody's own that asks for the gradients of its column."""
    return (recording.gradients * recording.activations).sum(1)


@pytest.mark.parametrize("batch_size", [1, 3, 99])
def test_classes_of_an_image_share_decoding_and_forward_pass(classifier: Classifier, batch_size: int) -> None:
    names = ("cam", "gradcam", "shapleycam", "scorecam", "ablationcam", "random")
    chosen = methods(*names, "center") | {"mine": make_method(own_gradients)}
    options = {"class_map": ClassMap(np.array([2, 0, 1]), "file x"), "batch_size": batch_size}
    data, separate = Several(), Several(shared=False)
    store, table = collect(data, classifier, chosen, **options)
    expected, rows = collect(separate, classifier, chosen, **options)
    assert (data.decoded, separate.decoded) == (len(Several.shown), len(separate)) == (7, 13)
    assert store.sample_ids == table["sample_id"].tolist() == [sample.sample_id for sample in data]
    assert_same(store, expected, (*names, "mine"))
    two = [store.heatmap("gradcam", i).values for i in (1, 2)]  # two classes of one image
    assert not np.allclose(*two)
    assert_same_answers(table, rows)


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 7), (3, [3, 3, 3]), (99, [7])])
def test_forward_passes_are_as_many_as_images(classifier: Classifier, batch_size: int, sizes: list[int]) -> None:
    passes = count_passes(classifier)
    collect(Several(), classifier, ("cam", "gradcam", "layercam"), batch_size=batch_size)
    assert passes == sizes


def test_images_with_as_many_classes_share_a_batch(classifier: Classifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest first, so that memory which suffices for the first batch suffices for all."""
    widths: list[int] = []
    run = HeatmapExtractor.__call__

    def watch(self: HeatmapExtractor, images: torch.Tensor, targets: torch.Tensor, names: list[str]) -> object:
        widths.append(targets.shape[1])
        return run(self, images, targets, names)

    monkeypatch.setattr(HeatmapExtractor, "__call__", watch)
    collect(Several(), classifier, batch_size=2)
    assert widths == [3, 2, 1, 1]


def test_an_unreadable_image_is_missed_by_all_its_classes(classifier: Classifier) -> None:
    store, table = collect(Several(broken=1), classifier, on_error="skip")
    assert store.unreadable.tolist() == [name.startswith("p1#") for name in table["sample_id"]]


@pytest.mark.parametrize("data", [Pictures(5), Several()], ids=["one class", "several"])
@pytest.mark.parametrize(("view", "flip", "pictures"), [("tencrop", False, 10), ("squash", True, 2)])
def test_pictures_of_an_image_stay_together_in_a_batch(
    classifier: Classifier, data: Dataset, view: str, flip: bool, pictures: int
) -> None:
    names, options = ("gradcam", "random"), {"class_map": ClassMap(np.array([2, 0, 1]), "file x"), "seed": 3}
    passes = count_passes(classifier)
    expected, rows = collect(data, classifier, names, view=view, flip=flip, batch_size=1, **options)
    images = rows["image_id"].nunique()
    assert passes == [pictures] * images
    passes.clear()
    store, table = collect(data, classifier, names, view=view, flip=flip, batch_size=99, **options)
    assert passes == [pictures * images]
    assert_same(store, expected, names)
    assert_same_answers(table, rows)


def test_how_far_a_method_is_arrives_at_the_bar_and_chunks_at_the_network(classifier: Classifier) -> None:
    said: list[tuple[int, str]] = []
    passes = count_passes(classifier)
    with Recorder(Pictures(2), classifier, methods("scorecam"), ALL, batch_size=1, chunk=3) as recorder:
        list(recorder.record([range(2)], lambda steps, note="": said.append((steps, note))))
    one = [(0, "scorecam 3/8"), (0, "scorecam 6/8"), (0, "scorecam 8/8"), (1, "")]
    assert said == one * 2
    assert passes == [1, 3, 3, 2] * 2


def test_logits_are_counted_and_modes_kept(classifier: Classifier) -> None:
    classifier.module.train().features[1].eval()
    modes = [part.training for part in classifier.module.modules()]
    assert count_logits(classifier) == 3
    assert [part.training for part in classifier.module.modules()] == modes
