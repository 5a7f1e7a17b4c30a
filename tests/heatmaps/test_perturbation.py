"""Methods that change the image or the activations, against their formulas, written plainly."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from tests.heatmaps import networks
from tests.heatmaps.networks import TARGETS, densenet, enlarged, images, lively, maps_of, resnet, swin, vit
from wsol.errors import UserError
from wsol.heatmaps import Recording
from wsol.heatmaps import perturbation as methods

gap = partial(networks.gap, scale=20)  # softmaxes are not flat
recorded = partial(networks.recorded, gradients=False)


def logits_of(model: nn.Module, pictures: list[np.ndarray], target: int) -> np.ndarray:
    return model(torch.from_numpy(np.stack(pictures)))[:, target].numpy()


def prob_of(model: nn.Module, picture: np.ndarray, target: int) -> float:
    return float(model(torch.from_numpy(picture)[None])[0].softmax(0)[target])


def plain(recording: Recording, scores_of: Callable[[np.ndarray, list[np.ndarray], int], np.ndarray]) -> np.ndarray:
    """ReLU(Σ softmax(score)_k A_k) for scores_of(picture, masks, target)."""
    maps = []
    for i, picture in enumerate(recording.images.numpy()):
        A = recording.activations[i].numpy()
        masks = [enlarged(a, *picture.shape[1:]) for a in A]
        masks = [(mask - mask.min()) / (mask.max() - mask.min() or 1) for mask in masks]
        scores = scores_of(picture, masks, int(recording.targets[i]))
        weights = np.exp(scores - scores.max())
        maps.append(np.einsum("k,khw->hw", weights / weights.sum(), A).clip(0))
    return np.stack(maps)


NETWORKS = pytest.mark.parametrize(
    ("make", "layer"), [(gap, "features"), (gap, "features.3"), (lambda: lively(resnet()), "layer1")]
)


@NETWORKS
def test_scorecam_is_its_formula(make: Callable[[], nn.Module], layer: str) -> None:
    model, count = make(), 3 if make is gap else 1
    recording = recorded(model, layer, images(count=count), TARGETS[:count], chunk=32)

    def scores(picture: np.ndarray, masks: list[np.ndarray], target: int) -> np.ndarray:
        base = logits_of(model, [np.zeros_like(picture)], target)  # the paper's baseline, which cancels
        return logits_of(model, [picture * mask for mask in masks], target) - base

    result = methods.scorecam(recording)
    assert float(result.amax((1, 2)).min()) > 0
    np.testing.assert_allclose(result, plain(recording, scores), rtol=1e-10, atol=1e-12)


def test_scorecam_hides_all_where_a_channel_is_constant() -> None:
    model = gap()
    model.features[3].weight[2] = 0  # the convolution behind which the batch normalization's output is constant
    recording = recorded(model, "features.4", images())
    assert float(recording.activations[0, 2].std()) == 0
    assert torch.isfinite(methods.scorecam(recording)).all()


@pytest.mark.parametrize("smooth", ["mask", "image"])
def test_sscam_is_its_formula(smooth: str) -> None:
    model = gap()
    recording = recorded(model, "features", images(), seed=7)

    def scores(picture: np.ndarray, masks: list[np.ndarray], target: int) -> np.ndarray:
        total = np.zeros(len(masks))
        for n in range(4):
            shape = (1, 16, 16) if smooth == "mask" else (3, 16, 16)
            noise = 0.5 * np.random.default_rng((7, n)).standard_normal(shape, np.float32).astype(np.float64)
            for k, mask in enumerate(masks):
                shown = picture * (mask + noise) if smooth == "mask" else picture * mask + noise
                total[k] += logits_of(model, [shown], target)[0] / 4
        return total

    result = methods.sscam(recording, samples=4, std=0.5, smooth=smooth)
    np.testing.assert_allclose(result, plain(recording, scores), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cumulative", [False, True])
def test_iscam_is_its_formula(cumulative: bool) -> None:
    model = gap()
    recording = recorded(model, "features", images())

    def scores(picture: np.ndarray, masks: list[np.ndarray], target: int) -> np.ndarray:
        total = np.zeros(len(masks))
        for k, mask in enumerate(masks):
            factor = 0.0
            for i in range(1, 5):
                factor = factor + i / 4 if cumulative else i / 4
                total[k] += logits_of(model, [factor * mask * picture], target)[0] / 4
        return total

    result = methods.iscam(recording, steps=4, cumulative=cumulative)
    np.testing.assert_allclose(result, plain(recording, scores), rtol=1e-10, atol=1e-12)


# --- Ablation-CAM ---


class Encoder(nn.Module):
    """PyTorch's transformer, which calculates around its parts where nobody looks at them; all tokens are patches."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
        self.patches, self.fc = nn.Conv2d(3, 16, 4, 4), nn.Linear(16, 5)
        self.enc = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.enc(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


@pytest.mark.parametrize(
    ("make", "layer"),
    [
        (resnet, "layer1"),
        (densenet, "features.norm5"),
        (densenet, "features.denseblock3.denselayer1"),
        (vit, "encoder.layers.encoder_layer_1.ln_1"),
        (swin, "features.3"),
        (Encoder, "enc.layers.0"),
        (Encoder, "enc.layers.1.norm1"),
        (Encoder, "enc.layers.1.linear2"),
    ],
)
def test_ablationcam_by_replay_is_ablation_in_the_whole_network(make: Callable[[], nn.Module], layer: str) -> None:
    torch.manual_seed(0)
    model = lively(make())
    recording = recorded(model, layer, images(side={resnet: 16, densenet: 64}.get(make, 32)), chunk=64)
    maps = []
    for i, target in enumerate(TARGETS.tolist()):
        A = recording.activations[i].numpy()

        def ablate(module: nn.Module, _: object, output: torch.Tensor) -> torch.Tensor:
            output = output.clone()
            for k in range(len(output) - 1):  # one channel in each copy, none in the last
                if output.ndim == 3:
                    output[k, int(make is vit) :, k] = 0  # the class token stands for no place
                elif make is swin:
                    output[k, :, :, k] = 0
                else:
                    output[k, k] = 0
            return output

        handle = model.get_submodule(layer).register_forward_hook(ablate)
        *without, full = model(recording.images[[i] * (len(A) + 1)])[:, target].tolist()
        handle.remove()
        maps.append(np.einsum("k,khw->hw", [(full - score) / abs(full) for score in without], A).clip(0))
    result = methods.ablationcam(recording)
    assert float(result.amax((1, 2)).max()) > 0
    np.testing.assert_allclose(result, np.stack(maps), rtol=1e-7, atol=1e-10 * float(result.max()))


def test_ablationcam_runs_the_head_only() -> None:
    model, calls = lively(resnet()), []
    recording = recorded(model, "layer4", images(side=64), chunk=64)
    hooks = [model.layer3[1].conv2.register_forward_hook(lambda *_: calls.append("below"))]
    hooks.append(model.fc.register_forward_hook(lambda *_: calls.append("behind")))
    methods.ablationcam(recording)
    assert calls.count("below") == 4  # once on noise, and once for each image
    assert calls.count("behind") == 1 + 3 * (2 + 512 // 64)  # below too, and once to prove that the logits come again
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("shift", [100, -100])
def test_ablationcam_keeps_its_sign_where_the_score_is_negative(shift: float) -> None:
    """With a linear head, what a channel adds to the logit is its weight times its mean, whatever the bias."""
    model = gap()
    model.classifier.bias += shift
    recording = recorded(model, "features", images())
    score, A = recording.scores_of(recording.logits), recording.activations
    assert bool((score * shift > 0).all())
    weights = model.classifier.weight[TARGETS] * A.mean((2, 3)) / score.abs()[:, None]
    expected = torch.einsum("bk,bkhw->bhw", weights, A).relu()
    np.testing.assert_allclose(methods.ablationcam(recording), expected, rtol=1e-8, atol=1e-12)


# --- RISE and occlusion ---


def test_rise_is_its_formula() -> None:
    model, side, cells = gap(), 15, 4
    recording = recorded(model, "", images(side=side), seed=3, score="prob")
    cell = 4  # ⌈15 / 4⌉
    maps = np.zeros((3, side, side))
    for n in range(30):
        random = np.random.default_rng((3, n))
        grid = (random.random((1, 1, cells, cells)) < 0.4)[0, 0].astype(float)
        large = enlarged(grid, 5 * cell, 5 * cell)
        top, left = random.integers(0, (cell, cell))
        mask = large[top : top + side, left : left + side]
        for i, picture in enumerate(recording.images.numpy()):
            maps[i] += prob_of(model, picture * mask, int(TARGETS[i])) * mask / (0.4 * 30)
    result = methods.rise(recording, masks=30, cells=cells, keep=0.4)
    np.testing.assert_allclose(result, maps, rtol=1e-6)  # the masks are drawn in float32


def test_occlusion_is_its_formula() -> None:
    model, side = gap(), 15
    recording = recorded(model, "", images(side=side), score="prob")
    starts = [0, 4, 8, 11]  # windows of 4 of 15, the last at the border
    maps = np.zeros((3, side, side))
    for i, picture in enumerate(recording.images.numpy()):
        cover, target = np.zeros((side, side)), int(TARGETS[i])
        for top in starts:
            for left in starts:
                hidden = picture.copy()
                hidden[:, top : top + 4, left : left + 4] = -1
                maps[i, top : top + 4, left : left + 4] += prob_of(model, picture, target)
                maps[i, top : top + 4, left : left + 4] -= prob_of(model, hidden, target)
                cover[top : top + 4, left : left + 4] += 1
        maps[i] /= cover
    result = methods.occlusion(recording, size=0.28, stride=0.25, value=-1.0)
    np.testing.assert_allclose(result, maps, rtol=1e-9, atol=1e-14)


def test_they_watch_the_probability_unless_told() -> None:
    asked = {"own": {"function": "occlusion"}} | {
        score: {"function": "occlusion", "score": score} for score in ("prob", "logit")
    }
    result = maps_of(gap(), asked)
    assert torch.equal(result["own"], result["prob"])
    assert float((result["own"] - result["logit"]).abs().max()) > 0.01


# --- all of them ---

ALL: dict[str, Callable[[Recording], torch.Tensor]] = {
    "scorecam": methods.scorecam,
    "sscam": lambda recording: methods.sscam(recording, samples=2, std=0.5),
    "iscam": lambda recording: methods.iscam(recording, steps=2),
    "ablationcam": methods.ablationcam,
    "rise": lambda recording: methods.rise(recording, masks=10),
    "occlusion": methods.occlusion,
}


@pytest.mark.parametrize("name", ALL)
def test_no_pass_is_larger_than_the_chunk_and_progress_is_said(name: str) -> None:
    model, sizes, said = gap(), [], []
    recording = recorded(model, "features", images(), chunk=4, say=said.append)
    if name == "ablationcam":
        recording.replay()  # prepared on the batch itself
    hook = model.classifier.register_forward_hook(lambda module, inputs, output: sizes.append(len(output)))
    ALL[name](recording)
    hook.remove()
    assert max(sizes) == 4
    done, total = said[-1].split("/")
    assert len(said) > 1
    assert done == total


def test_a_stride_that_leaves_pixels_out_is_refused() -> None:
    with pytest.raises(UserError, match=r"stride=0\.3"):
        maps_of(gap(), {"m": {"function": "occlusion", "stride": 0.3}})
