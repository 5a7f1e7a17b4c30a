"""Every method of one recording against its paper's formula, written plainly in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.decomposition import KernelPCA
from torch import nn
from torchvision import models

from wsol.heatmaps import HeatmapExtractor, make_method
from wsol.heatmaps.activation import first_component, kpcacam
from wsol.heatmaps.extractor import fuse
from wsol.models import gapnet

Maps = np.ndarray


class Curved(nn.Module):
    """A network whose class score bends between the layer and the logits, so that no two methods agree."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.relu = nn.Conv2d(3, 6, 3, 2), nn.ReLU()
        self.second, self.head = nn.Conv2d(6, 8, 3), nn.Linear(8, 5)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.behind(self.relu(self.first(pictures)))

    def behind(self, A: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.gelu(self.second(A)).mean((2, 3)))


@pytest.fixture(scope="module")
def recorded() -> tuple[nn.Module, torch.Tensor, torch.Tensor, Maps, Maps]:
    torch.manual_seed(1)
    model = Curved().double().eval()
    nn.init.normal_(model.head.weight)
    pictures, targets = torch.randn(3, 3, 16, 20, dtype=torch.float64), torch.tensor([1, 4, 0])
    A = model.relu(model.first(pictures)).detach().requires_grad_()
    (G,) = torch.autograd.grad(model.behind(A)[range(3), targets].sum(), A)
    return model, pictures, targets, A.detach().numpy(), G.numpy()


def maps_of(model: nn.Module, pictures: torch.Tensor, targets: torch.Tensor, name: str, **options: object) -> Maps:
    with HeatmapExtractor(model, {"it": make_method(name, **{"layer": "relu"} | options)}) as extractor:
        return extractor(pictures, targets).maps["it"].numpy()


def relu(value: Maps) -> Maps:
    return np.maximum(value, 0)


def gradcam(A: Maps, G: Maps) -> Maps:
    return relu(sum(G[k].mean() * A[k] for k in range(len(A))))


def gradcampp(A: Maps, G: Maps) -> Maps:
    total = np.zeros(A.shape[1:])
    for k in range(len(A)):
        weight = 0.0
        for place in np.ndindex(A[k].shape):
            g = G[k][place]
            alpha = g**2 / (2 * g**2 + A[k].sum() * g**3) if g else 0
            weight += alpha * max(g, 0)
        total += weight * A[k]
    return relu(total)


def gradcamelementwise(A: Maps, G: Maps) -> Maps:
    return sum(relu(G[k] * A[k]) for k in range(len(A)))


def xgradcam(A: Maps, G: Maps) -> Maps:
    return relu(sum((G[k] * A[k]).sum() / A[k].sum() * A[k] for k in range(len(A)) if A[k].sum()))


def hirescam(A: Maps, G: Maps) -> Maps:
    return relu(sum(G[k] * A[k] for k in range(len(A))))


def layercam(A: Maps, G: Maps) -> Maps:
    return relu(sum(relu(G[k]) * A[k] for k in range(len(A))))


def fem(A: Maps, G: Maps) -> Maps:
    return sum(A[k].mean() * (A[k] > A[k].mean() + 2 * A[k].std()) for k in range(len(A)))


FORMULAS = pytest.mark.parametrize(
    "formula", [gradcam, gradcampp, gradcamelementwise, xgradcam, hirescam, layercam, fem], ids=lambda f: f.__name__
)


@FORMULAS
def test_formula(recorded: tuple, formula: Callable[[Maps, Maps], Maps]) -> None:
    model, pictures, targets, A, G = recorded
    expected = np.stack([formula(A[i], G[i]) for i in range(3)])
    assert (expected.max((1, 2)) > 0).all()
    maps = maps_of(model, pictures, targets, formula.__name__)
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6 * expected.max())


@FORMULAS
def test_formula_where_activations_are_negative(recorded: tuple, formula: Callable[[Maps, Maps], Maps]) -> None:
    model, pictures, targets, below, _ = recorded
    leaf = model.second(torch.from_numpy(below)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model.head(nn.functional.gelu(leaf).mean((2, 3)))[range(3), targets].sum(), leaf)
    A, G = leaf.detach().numpy(), gradient.numpy()
    assert ((A < 0) & (G > 0)).any() and ((A < 0) & (G < 0)).any()
    expected = np.stack([formula(A[i], G[i]) for i in range(3)])
    assert (expected.max((1, 2)) > 0).all()
    maps = maps_of(model, pictures, targets, formula.__name__, layer="second")
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6 * expected.max())


def first_direction(rows: Maps, agree: Maps) -> Maps:
    _, _, directions = np.linalg.svd(rows, full_matrices=False)
    projected = rows @ directions[0]
    return projected if projected @ agree >= 0 else -projected


@pytest.mark.parametrize("center", [False, True])
def test_eigencam(recorded: tuple, center: bool) -> None:
    model, pictures, targets, A, _ = recorded
    maps = maps_of(model, pictures, targets, "eigencam", center=center)
    for i in range(3):
        rows = A[i].reshape(len(A[i]), -1).T
        expected = first_direction(rows - center * rows.mean(0), A[i].mean(0).ravel())
        np.testing.assert_allclose(maps[i].ravel(), expected, atol=1e-6)


def test_eigengradcam(recorded: tuple) -> None:
    model, pictures, targets, A, G = recorded
    maps = maps_of(model, pictures, targets, "eigengradcam")
    for i in range(3):
        rows = (A[i] * G[i]).reshape(len(A[i]), -1).T
        expected = first_direction(rows - rows.mean(0), rows.sum(1))
        np.testing.assert_allclose(maps[i].ravel(), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("kernel", "gamma"), [("sigmoid", None), ("sigmoid", 0.02), ("rbf", 0.1), ("linear", None)])
def test_kpcacam_is_scikit_learns_kernel_pca(recorded: tuple, kernel: str, gamma: float | None) -> None:
    model, pictures, targets, A, _ = recorded
    maps = maps_of(model, pictures, targets, "kpcacam", kernel=kernel, gamma=gamma)
    for i in range(3):
        rows = A[i].reshape(len(A[i]), -1).T
        rows = rows - rows.mean(0)
        expected = KernelPCA(1, kernel=kernel, gamma=gamma, eigen_solver="dense").fit_transform(rows)[:, 0]
        expected *= np.sign(expected @ A[i].mean(0).ravel())
        np.testing.assert_allclose(maps[i].ravel(), expected, atol=1e-6)


@pytest.mark.parametrize(("gamma", "references"), [(0.6, 3), (1.0, 1), (0.9, 99)])
def test_finercam(recorded: tuple, gamma: float, references: int) -> None:
    model, pictures, targets, A, _ = recorded
    expected = []
    for i, c in enumerate(targets.tolist()):
        leaf = torch.from_numpy(A[i : i + 1]).requires_grad_()
        y = model.behind(leaf)[0]
        others = sorted((d for d in range(5) if d != c), key=lambda d: (y[d] - y[c]).abs().item())[:references]
        score = y[c] - gamma * sum(y[d] for d in others) / len(others)
        expected.append(gradcam(A[i], torch.autograd.grad(score, leaf)[0][0].numpy()))
    maps = maps_of(model, pictures, targets, "finercam", gamma=gamma, references=references)
    np.testing.assert_allclose(maps, np.stack(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("score", [None, "logit", "log_prob"])
def test_shapleycam(recorded: tuple, score: str | None) -> None:
    """The product of the second derivatives with A by finite differences of the gradient along A."""
    model, pictures, targets, A, _ = recorded

    def gradient(values: Maps, i: int) -> Maps:
        leaf = torch.from_numpy(values[None]).requires_grad_()
        y, c = model.behind(leaf)[0], targets[i]
        value = {None: y[c] + y.log_softmax(0)[c], "logit": y[c], "log_prob": y.log_softmax(0)[c]}[score]
        return torch.autograd.grad(value, leaf)[0][0].numpy()

    expected = []
    for i in range(3):
        along = (gradient((1 + 1e-5) * A[i], i) - gradient((1 - 1e-5) * A[i], i)) / 2e-5
        expected.append(gradcam(A[i], gradient(A[i], i) - 0.5 * along))
    maps = maps_of(model, pictures, targets, "shapleycam", score=score)
    np.testing.assert_allclose(maps, np.stack(expected), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("score", ["logit", "log_prob", "rest"])
def test_scores(recorded: tuple, score: str) -> None:
    model, pictures, targets, A, _ = recorded
    leaf = torch.from_numpy(A).requires_grad_()
    y = model.behind(leaf)
    p = y.exp() / y.exp().sum(1, keepdim=True)
    values = {"logit": y, "log_prob": p.log(), "rest": y + p.log()}[score][range(3), targets]
    (G,) = torch.autograd.grad(values.sum(), leaf)
    expected = np.stack([gradcam(A[i], G[i].numpy()) for i in range(3)])
    with HeatmapExtractor(model, ("gradcam",), "relu", score=score) as extractor:
        np.testing.assert_allclose(extractor(pictures, targets).maps["gradcam"], expected, rtol=1e-5, atol=1e-7)


def test_identities_behind_pooling_and_one_linear_layer() -> None:
    """Grad-CAM = XGrad-CAM = HiResCAM = ShapleyCAM of the logit = ReLU(CAM) / cells there."""
    model = gapnet(7, widths=(8, 12), strides=(2, 2), seed=0).double()
    names = ("cam", "gradcam", "xgradcam", "hirescam")
    methods = {name: make_method(name) for name in names} | {"shapleycam": make_method("shapleycam", score="logit")}
    with HeatmapExtractor(model, methods) as extractor:  # of the highest logit: some place raises it
        maps = extractor(torch.randn(4, 3, 32, 32, dtype=torch.float64)).maps
    expected = maps["cam"].relu() / 64
    assert expected.amax((1, 2)).min() > 0
    for name in ("gradcam", "xgradcam", "hirescam", "shapleycam"):
        torch.testing.assert_close(maps[name], expected, rtol=1e-5, atol=1e-7)


def test_gradients_far_below_one_do_not_vanish() -> None:
    """Grad-CAM++ divides powers of G: at 1e-20 its cubes are 0 in float32, the ratio is not."""
    model = gapnet(3, widths=(8,), strides=(2,), seed=0)
    pictures, targets = torch.rand(2, 3, 16, 16), torch.tensor([0, 1])
    with torch.no_grad():
        model.classifier.weight.abs_()
    with HeatmapExtractor(model, ("gradcampp",)) as extractor:
        usual = extractor(pictures, targets).maps["gradcampp"]
    with torch.no_grad():
        model.classifier.weight.mul_(1e-20)
    with HeatmapExtractor(model, ("gradcampp",)) as extractor:
        small = extractor(pictures, targets).maps["gradcampp"]
    assert small.amax((1, 2)).min() > 0
    assert usual.amax((1, 2)).min() > 0


# --- the sign of principal components ---


@pytest.mark.parametrize("sign", [1, -1])
def test_it_goes_with_what_it_is_told(sign: int) -> None:
    maps = torch.rand(2, 5, 3, 4, generator=torch.Generator().manual_seed(0))
    like = sign * maps.mean(1)
    assert ((first_component(maps, like) * like).sum((1, 2)) > 0).all()


def kernel_component(maps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return kpcacam(SimpleNamespace(activations=maps))


@pytest.mark.parametrize("component", [first_component, kernel_component])
def test_where_that_tells_nothing_the_side_that_sticks_out_is_positive(component) -> None:
    maps = torch.zeros(2, 2, 3, 3)
    maps[0, 0, 1, 1], maps[1, 0, 1, 1] = 5, -5
    maps[:, 1] = -maps[:, 0]  # the mean over channels is 0
    for noise in (0, 1e-9, -1e-9):
        result = component(maps, maps.mean(1) + noise * torch.randn(2, 3, 3))
        assert (result[:, 1, 1] > 0).all()


@pytest.mark.parametrize("name", ["eigencam", "kpcacam", "centered"])
def test_eigencam_of_layer_normalized_tokens_is_not_upside_down(name: str) -> None:
    """Their channels' mean is 0 but for rounding, which differs from machine to machine."""
    torch.manual_seed(0)
    model = models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=5).eval()
    nn.init.constant_(model.encoder.pos_embedding, 0.5)
    method = make_method("eigencam", center=True) if name == "centered" else make_method(name)
    with HeatmapExtractor(model, {"it": method}) as extractor:
        maps = extractor(torch.randn(8, 3, 32, 32)).maps["it"].double()
    assert ((maps**3).sum((1, 2)) > 0).all()


# --- several layers as one map ---


def between(size: int, of: int) -> np.ndarray:
    """Linear interpolation between the centers of pixels, as a matrix (size, of); none goes on beyond the border."""
    matrix = np.zeros((size, of))
    for row in range(size):
        place = min(max((row + 0.5) * of / size - 0.5, 0), of - 1)
        low = math.floor(place)
        matrix[row, low] += 1 - (place - low)
        matrix[row, min(low + 1, of - 1)] += place - low
    return matrix


def resized(heatmap: np.ndarray, height: int, width: int) -> np.ndarray:
    return between(height, heatmap.shape[0]) @ heatmap @ between(width, heatmap.shape[1]).T


@pytest.mark.parametrize("how", ["max", "mean"])
def test_each_layer_is_scaled_by_tanh_then_fused(how: str) -> None:
    generator = np.random.default_rng(0)
    maps = [generator.normal(size=(2, *size)) for size in ((3, 4), (6, 8), (5, 5))]
    maps[2][1] = -1  # nothing of it is positive
    expected = np.zeros((2, 6, 8))
    for image in range(2):
        scaled = []
        for heatmap in maps:
            positive = np.maximum(heatmap[image], 0)
            highest = positive.max()
            scaled.append(resized(np.tanh(2 * positive / highest) if highest else positive, 6, 8))
        expected[image] = np.max(scaled, 0) if how == "max" else np.mean(scaled, 0)
    result = fuse([torch.from_numpy(heatmap) for heatmap in maps], how)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("how", ["max", "mean"])
def test_a_fused_method_fuses_its_own_layers(how: str) -> None:
    layers = ("features.1", "features.4")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    methods = {str(i): make_method("layercam", layer=layer) for i, layer in enumerate(layers)}
    methods["fused"] = make_method("layercam", layer=layers, fuse=how)
    with HeatmapExtractor(gapnet(7, seed=0), methods) as extractor:
        maps = extractor(images, torch.tensor([1, 2])).maps
    assert maps["0"].shape != maps["1"].shape
    torch.testing.assert_close(maps["fused"], fuse([maps["0"], maps["1"]], how))
