"""Our heatmaps beside those of `grad-cam` and `torchcam`: they agree, or differ for a cause that is proved.

The rows are those of the page `results/heatmaps_and_peers.md`, here on small networks.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from scripts.peers.comparison import ALIKE, LAST_RELU, Row, apart, judge
from scripts.peers.maps import of_grad_cam, ours
from scripts.peers.networks import Case
from scripts.peers.rows import grad_cam_rows, torchcam_rows
from tests.heatmaps import networks
from tests.heatmaps.networks import vit
from wsol.models import gapnet

AGREE = {
    "pytorch_grad_cam": (
        "gradcam", "gradcamelementwise", "xgradcam", "hirescam", "layercam", "ablationcam", "fullgrad",
        "guidedbackprop"),
    "torchcam": ("gradcam", "xgradcam", "layercam", "finercam"),
}  # fmt: skip
DIFFER = {
    "pytorch_grad_cam": (
        "gradcampp", "eigencam", "eigengradcam", "kpcacam", "finercam", "fem", "shapleycam", "scorecam"),
    "torchcam": ("gradcampp", "scorecam", "sscam", "iscam", "smoothgradcampp"),
}  # fmt: skip
IN_BOTH = [(peer, name) for peer, names in AGREE.items() for name in names]
IN_NEITHER = [(peer, name) for peer, names in DIFFER.items() for name in names]


def row(peer: str, name: str) -> Row:
    pytest.importorskip(peer, reason=f"{peer} is not installed")
    rows = grad_cam_rows() if peer == "pytorch_grad_cam" else torchcam_rows()
    return next(row for row in rows if row.method == name)


def case(make: Callable[[], nn.Module], layer: str, side: int = 32) -> Case:
    """Seeded weights, noise, and for each image the best class and the second best."""
    torch.manual_seed(0)
    model, pictures = make().eval(), torch.randn(2, 3, side, side)
    with torch.no_grad():
        order = model(pictures).argsort(1, descending=True)
    return Case("Shapes", model, layer, pictures, torch.stack([order[0, 0], order[1, 1]]))


def small() -> nn.Module:
    """Of a layer below the last, where methods differ; the scores are large enough for no map to be faint."""
    model = gapnet(7, widths=(6, 8), strides=(2, 2), seed=0)
    with torch.no_grad():
        model.classifier.weight.mul_(10)
        model.classifier.bias.fill_(5)
    return model


def densenet() -> nn.Module:
    return networks.densenet(blocks=2)


BELOW = "features.2"


@pytest.mark.parametrize(("peer", "name"), IN_BOTH)
def test_they_agree(peer: str, name: str) -> None:
    verdict = judge(row(peer, name), case(small, BELOW))
    assert verdict.agrees, verdict


@pytest.mark.parametrize(("peer", "name"), IN_NEITHER)
def test_they_differ_and_agree_without_the_cause(peer: str, name: str) -> None:
    chosen = row(peer, name)
    verdict = judge(chosen, case(small, BELOW))
    assert verdict.difference is not None
    assert verdict.difference > ALIKE
    assert verdict.causes == (chosen.cause,)
    assert verdict.left is not None
    assert verdict.left < ALIKE


@pytest.mark.parametrize("name", ["gradcam", "hirescam", "layercam", "fem"])
def test_grad_cam_sees_a_relu_in_place_by_halves(name: str) -> None:
    """A behind it, G before it: that hurts where G alone is averaged."""
    verdict = judge(row("pytorch_grad_cam", name), case(densenet, "features.norm5"))
    if name == "gradcam":
        assert not verdict.agrees
        assert verdict.causes == (LAST_RELU,)
    assert verdict.explained


TOKENS = "encoder.layers.encoder_layer_1.ln_1"


@pytest.mark.parametrize(
    ("peer", "name", "make", "layer"),
    [("torchcam", "cam", small, "features")]
    + [("torchcam", name, densenet, "features.norm5") for name in ("cam", "gradcam", "xgradcam", "layercam")]
    + [("pytorch_grad_cam", name, lambda: vit().float(), TOKENS) for name in ("gradcam", "hirescam")]
    + [("torchcam", name, lambda: vit().float(), TOKENS) for name in ("gradcam", "legrad")],
)
def test_they_agree_on_other_networks(peer: str, name: str, make: Callable[[], nn.Module], layer: str) -> None:
    verdict = judge(row(peer, name), case(make, layer))
    assert verdict.agrees, verdict


def test_grad_cam_turns_ablationcam_around_where_the_score_is_negative() -> None:
    """It divides by the score itself, and we by its size."""
    pytest.importorskip("pytorch_grad_cam", reason="pytorch_grad_cam is not installed")
    shown = case(small, BELOW)
    with torch.no_grad():
        shown.model.classifier.bias.fill_(-100)
    theirs, mine = of_grad_cam("AblationCAM")(shown), ours("ablationcam")(shown)
    assert apart(mine, theirs.relu()) > 0.5
    assert apart(mine, (-theirs).relu()) < 1e-3  # it rounds scores of -100 to float32


@pytest.mark.parametrize("name", ["gradcampp", "fullgrad"])
def test_what_grad_cam_adds_to_a_denominator_swamps_faint_maps(name: str) -> None:
    """A score a millionth as large gives the same map of ours."""
    chosen, shown = row("pytorch_grad_cam", name), case(small, BELOW)
    with torch.no_grad():
        shown.model.classifier.weight.mul_(1e-4)
    usual = chosen.ours(shown)
    assert apart(usual, chosen.theirs(shown)) > 10 * ALIKE
    with torch.no_grad():
        shown.model.classifier.weight.mul_(1e-6)
    assert apart(chosen.ours(shown), usual) < ALIKE
