"""Targets as users have them: classes by name, and functions of what the network answers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor, make_method
from wsol.models import Classifier, gapnet

RISE = make_method("rise", masks=20)
METHODS = {name: name for name in ("gradcam", "scorecam", "ablationcam", "saliency")} | {"rise": RISE}


def images(count: int = 2, side: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


class Segmenter(nn.Module):
    """Images → {"out": logits (B, 5, H, W)}, as torchvision's segmentation networks answer."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = gapnet(5, widths=(6, 8), strides=(2, 2), seed=0).features
        self.classifier = nn.Conv2d(8, 5, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.classifier(self.backbone(images))
        return {"out": functional.interpolate(logits, images.shape[2:], mode="bilinear")}


def by_hand(model: nn.Module, layer: str, batch: torch.Tensor, score) -> torch.Tensor:
    """Grad-CAM of a score, by plain autograd."""
    kept = []
    hook = model.get_submodule(layer).register_forward_hook(lambda module, _, output: kept.append(output))
    answer = model.eval()(batch)
    hook.remove()
    (gradients,) = torch.autograd.grad(score(answer).sum(), kept[0])
    return (gradients.mean((2, 3), keepdim=True) * kept[0]).sum(1).relu().detach()


def test_segmentation_how_much_of_the_image_is_of_a_class() -> None:
    model = Segmenter()
    score = lambda answer: answer["out"][:, 3].mean((1, 2))  # noqa: E731
    with HeatmapExtractor(model, ("gradcam", "scorecam"), "backbone", score=score) as extractor:
        heatmaps = extractor(images())
    torch.testing.assert_close(heatmaps.maps["gradcam"], by_hand(model, "backbone", images(), score))
    assert heatmaps.logits.shape == (2, 1) and not heatmaps.targets.any()
    assert not any(len(module._forward_hooks) for module in model.modules())


def test_similarity_to_an_embedding() -> None:
    model = gapnet(16, widths=(6, 8), strides=(2, 2), seed=0)
    wanted = model.eval()(images(1, 32).flip(3)).detach()
    score = lambda answer: functional.cosine_similarity(answer, wanted)  # noqa: E731
    with HeatmapExtractor(model, ("gradcam",), "features", score=score) as extractor:
        heatmaps = extractor(images())
    torch.testing.assert_close(heatmaps.maps["gradcam"], by_hand(model, "features", images(), score))
    torch.testing.assert_close(heatmaps.logits[:, 0], score(model(images())))


def test_one_output_of_several_and_several_at_once() -> None:
    model = nn.Sequential(gapnet(4, widths=(6, 8), strides=(2, 2), seed=0), nn.Unflatten(1, (2, 2))).eval()
    with HeatmapExtractor(model, METHODS, "0.features", score=lambda answer: answer[:, 1, 0]) as extractor:
        alone = extractor(images()).maps
    with HeatmapExtractor(model, METHODS, "0.features", score=lambda answer: answer.flatten(1)) as extractor:
        several = extractor(images(), torch.tensor([[2, 0], [2, 3]])).maps
    with HeatmapExtractor(model[0], METHODS, "features", score="logit") as extractor:
        plain = extractor(images(), torch.tensor([[2, 0], [2, 3]])).maps
    for name in METHODS:
        torch.testing.assert_close(several[name][:, 0], alone[name])
        torch.testing.assert_close(several[name], plain[name])


@pytest.mark.parametrize("score", [lambda answer: answer.sum(), lambda answer: 3.0, lambda answer: answer[None]])
def test_a_function_that_makes_no_score_is_refused(score) -> None:
    with HeatmapExtractor(gapnet(4), score=score) as extractor, pytest.raises(UserError, match="score"):
        extractor(images())


def test_classes_by_name_or_id() -> None:
    net = gapnet(3, widths=(6, 8), strides=(2, 2), seed=0)
    names, ids = ("goldfish, Carassius auratus", "tabby, tabby cat", "lynx"), ("n1", "n2", "n3")
    classifier = Classifier(name="small", module=net, layer="features", classes=names, class_ids=ids)
    with HeatmapExtractor(classifier, ("cam",)) as extractor:
        numbers = extractor(images(), torch.tensor([[1, 2], [0, 2]]))
        named = extractor(images(), [["Tabby", "n3"], ["goldfish", "lynx"]])
        assert named.targets.tolist() == [[1, 2], [0, 2]]
        torch.testing.assert_close(named.maps["cam"], numbers.maps["cam"])
        assert extractor(images(), "tabby cat").targets.tolist() == [1, 1]
        assert extractor(images(), ["lynx", "n1"]).maps["cam"].shape == (2, 8, 8)
        with pytest.raises(UserError, match="tabbi.*tabby"):
            extractor(images(), "tabbi")
    with HeatmapExtractor(net, ("cam",)) as extractor, pytest.raises(UserError, match="tabby"):
        extractor(images(), "tabby")
