"""Targets as users have them: classes by name, and functions of what the network answers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.heatmaps.networks import gap, images, maps_of
from wsol.errors import UserError
from wsol.heatmaps import HeatmapExtractor
from wsol.models import Classifier

METHODS = {name: {"function": name} for name in ("gradcam", "scorecam", "ablationcam", "saliency")}
METHODS |= {"rise": {"function": "rise", "masks": 20}}


class Segmenter(nn.Module):
    """Images → {"out": logits (B, 5, H, W)}, as torchvision's segmentation networks answer."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.classifier = gap().features, nn.Conv2d(8, 5, 1, dtype=torch.float64)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.classifier(self.backbone(images))
        return {"out": functional.interpolate(logits, images.shape[2:], mode="bilinear")}


def by_hand(model: nn.Module, layer: str, batch: torch.Tensor, score) -> torch.Tensor:
    """Grad-CAM of a score, by plain autograd."""
    kept = []
    hook = model.get_submodule(layer).register_forward_hook(lambda module, _, output: kept.append(output))
    answer = model.eval()(batch.requires_grad_())
    hook.remove()
    (gradients,) = torch.autograd.grad(score(answer).sum(), kept[0])
    return (gradients.mean((2, 3), keepdim=True) * kept[0]).sum(1).relu().detach()


def test_segmentation_how_much_of_the_image_is_of_a_class() -> None:
    model = Segmenter()
    score = lambda answer: answer["out"][:, 3].mean((1, 2))  # noqa: E731
    with HeatmapExtractor(model, ("gradcam", "scorecam"), "backbone", score=score) as extractor:
        heatmaps = extractor(images())
    torch.testing.assert_close(heatmaps.maps["gradcam"], by_hand(model, "backbone", images(), score))
    assert heatmaps.logits.shape == (3, 1) and not heatmaps.targets.any()
    assert not any(len(module._forward_hooks) for module in model.modules())


def test_similarity_to_an_embedding() -> None:
    model = gap(classes=16)
    wanted = model(images(1).flip(3))
    score = lambda answer: functional.cosine_similarity(answer, wanted)  # noqa: E731
    with HeatmapExtractor(model, ("gradcam",), "features", score=score) as extractor:
        heatmaps = extractor(images())
    torch.testing.assert_close(heatmaps.maps["gradcam"], by_hand(model, "features", images(), score))
    torch.testing.assert_close(heatmaps.logits[:, 0], score(model(images())))


def test_one_output_of_several_and_several_at_once() -> None:
    model, columns = nn.Sequential(gap(classes=4), nn.Unflatten(1, (2, 2))), torch.tensor([[2, 0], [2, 3], [2, 1]])
    alone = maps_of(model, METHODS, targets=None, layer="0.features", score=lambda answer: answer[:, 1, 0])
    several = maps_of(model, METHODS, targets=columns, layer="0.features", score=lambda answer: answer.flatten(1))
    plain = maps_of(model[0], METHODS, targets=columns, layer="features", score="logit")
    for name in METHODS:
        torch.testing.assert_close(several[name][:, 0], alone[name])
        torch.testing.assert_close(several[name], plain[name])


@pytest.mark.parametrize("score", [lambda answer: answer.sum(), lambda answer: 3.0, lambda answer: answer[None]])
def test_a_function_that_makes_no_score_is_refused(score) -> None:
    with HeatmapExtractor(gap(), score=score) as extractor, pytest.raises(UserError, match="score"):
        extractor(images())


def test_classes_by_name_or_id() -> None:
    net = gap(classes=3)
    names, ids = ("goldfish, Carassius auratus", "tabby, tabby cat", "lynx"), ("n1", "n2", "n3")
    classifier = Classifier(name="small", module=net, layer="features", classes=names, class_ids=ids)
    with HeatmapExtractor(classifier, ("cam",)) as extractor:
        numbers = extractor(images(2), torch.tensor([[1, 2], [0, 2]]))
        named = extractor(images(2), [["Tabby", "n3"], ["goldfish", "lynx"]])
        assert named.targets.tolist() == [[1, 2], [0, 2]]
        torch.testing.assert_close(named.maps["cam"], numbers.maps["cam"])
        assert extractor(images(2), "tabby cat").targets.tolist() == [1, 1]
        assert extractor(images(2), ["lynx", "n1"]).maps["cam"].shape == (2, 4, 4)
        with pytest.raises(UserError, match="tabbi.*tabby"):
            extractor(images(2), "tabbi")
    with HeatmapExtractor(net, ("cam",)) as extractor, pytest.raises(UserError, match="tabby"):
        extractor(images(2), "tabby")
