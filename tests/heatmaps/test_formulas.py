"""Every method of one recording against its paper's formula, written plainly in float64."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.decomposition import KernelPCA
from torch import nn

from tests.heatmaps.networks import enlarged, gap, images, maps_of, vit
from wsol.heatmaps import make_method
from wsol.heatmaps.activation import first_component, kpcacam
from wsol.heatmaps.extractor import fuse

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
        return self.behind_second(self.second(A))

    def behind_second(self, A: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.gelu(A).mean((2, 3)))


@pytest.fixture(scope="module")
def recorded() -> tuple[nn.Module, torch.Tensor, torch.Tensor, Maps, Maps]:
    torch.manual_seed(1)
    model = Curved().double().eval()
    nn.init.normal_(model.head.weight)
    pictures, targets = torch.randn(3, 3, 16, 20, dtype=torch.float64), torch.tensor([1, 4, 0])
    A = model.relu(model.first(pictures)).detach().requires_grad_()
    (G,) = torch.autograd.grad(model.behind(A)[range(3), targets].sum(), A)
    return model, pictures, targets, A.detach().numpy(), G.numpy()


def one(model: nn.Module, pictures: torch.Tensor, targets: torch.Tensor, name: str, **options: object) -> Maps:
    return maps_of(model, {"it": {"function": name, "layer": "relu", **options}}, pictures, targets)["it"].numpy()


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


@pytest.mark.parametrize("layer", ["relu", "second"])  # "second" has activations of either sign
@pytest.mark.parametrize(
    "formula", [gradcam, gradcampp, gradcamelementwise, xgradcam, hirescam, layercam, fem], ids=lambda f: f.__name__
)
def test_formula(recorded: tuple, formula: Callable[[Maps, Maps], Maps], layer: str) -> None:
    model, pictures, targets, A, G = recorded
    if layer == "second":
        leaf = model.second(torch.from_numpy(A)).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model.behind_second(leaf)[range(3), targets].sum(), leaf)
        A, G = leaf.detach().numpy(), gradient.numpy()
        assert ((A < 0) & (G > 0)).any() and ((A < 0) & (G < 0)).any()
    expected = np.stack([formula(A[i], G[i]) for i in range(3)])
    assert (expected.max((1, 2)) > 0).all()
    maps = one(model, pictures, targets, formula.__name__, layer=layer)
    np.testing.assert_allclose(maps, expected, rtol=1e-5, atol=1e-6 * expected.max())


def first_direction(rows: Maps, agree: Maps) -> Maps:
    _, _, directions = np.linalg.svd(rows, full_matrices=False)
    projected = rows @ directions[0]
    return projected if projected @ agree >= 0 else -projected


@pytest.mark.parametrize("center", [False, True])
def test_eigencam(recorded: tuple, center: bool) -> None:
    model, pictures, targets, A, _ = recorded
    maps = one(model, pictures, targets, "eigencam", center=center)
    for i in range(3):
        rows = A[i].reshape(len(A[i]), -1).T
        expected = first_direction(rows - center * rows.mean(0), A[i].mean(0).ravel())
        np.testing.assert_allclose(maps[i].ravel(), expected, atol=1e-6)


def test_eigengradcam(recorded: tuple) -> None:
    model, pictures, targets, A, G = recorded
    maps = one(model, pictures, targets, "eigengradcam")
    for i in range(3):
        rows = (A[i] * G[i]).reshape(len(A[i]), -1).T
        expected = first_direction(rows - rows.mean(0), rows.sum(1))
        np.testing.assert_allclose(maps[i].ravel(), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(("kernel", "gamma"), [("sigmoid", None), ("sigmoid", 0.02), ("rbf", 0.1), ("linear", None)])
def test_kpcacam_is_scikit_learns_kernel_pca(recorded: tuple, kernel: str, gamma: float | None) -> None:
    model, pictures, targets, A, _ = recorded
    maps = one(model, pictures, targets, "kpcacam", kernel=kernel, gamma=gamma)
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
    maps = one(model, pictures, targets, "finercam", gamma=gamma, references=references)
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
    maps = one(model, pictures, targets, "shapleycam", score=score)
    np.testing.assert_allclose(maps, np.stack(expected), rtol=1e-4, atol=1e-6)


def test_identities_behind_pooling_and_one_linear_layer() -> None:
    """Grad-CAM = XGrad-CAM = HiResCAM = ShapleyCAM of the logit = ReLU(CAM) / cells there, and CAM is w · A."""
    names = {name: name for name in ("cam", "gradcam", "xgradcam", "hirescam")}
    methods = names | {"shapleycam": {"function": "shapleycam", "score": "logit"}}
    maps = maps_of(gap(), methods, images(side=32), None)  # of the highest logit: some place raises it
    weight = gap().classifier.weight[gap()(images(side=32)).argmax(1)]
    torch.testing.assert_close(maps["cam"], torch.einsum("bk,bkhw->bhw", weight, gap().features(images(side=32))))
    expected = maps["cam"].relu() / 64
    assert expected.amax((1, 2)).min() > 0
    for name in ("gradcam", "xgradcam", "hirescam", "shapleycam"):
        torch.testing.assert_close(maps[name], expected, rtol=1e-5, atol=1e-7)


def test_gradients_far_below_one_do_not_vanish() -> None:
    """Grad-CAM++ divides powers of G: at 1e-20 its cubes are 0 in float32, the ratio is not."""
    for scale in (1, 1e-20):
        model = gap(scale=scale).float()
        model.classifier.weight.abs_()
        assert maps_of(model, "gradcampp", images().float()).amax((1, 2)).min() > 0


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
    model = vit().float()
    nn.init.constant_(model.encoder.pos_embedding, 0.5)
    method = {"function": "eigencam", "center": True} if name == "centered" else {"function": name}
    maps = maps_of(model, {"it": method}, images(8, 32).float(), None)["it"].double()
    assert ((maps**3).sum((1, 2)) > 0).all()


# --- several layers as one map ---


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
            scaled.append(enlarged(np.tanh(2 * positive / highest) if highest else positive, 6, 8))
        expected[image] = np.max(scaled, 0) if how == "max" else np.mean(scaled, 0)
    result = fuse([torch.from_numpy(heatmap) for heatmap in maps], how)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("how", ["max", "mean"])
def test_a_fused_method_fuses_its_own_layers(how: str) -> None:
    layers = ("features.1", "features.4")
    methods = {str(i): make_method("layercam", layer=layer) for i, layer in enumerate(layers)}
    maps = maps_of(gap(), methods | {"fused": make_method("layercam", layer=layers, fuse=how)})
    assert maps["0"].shape != maps["1"].shape
    torch.testing.assert_close(maps["fused"], fuse([maps["0"], maps["1"]], how))
