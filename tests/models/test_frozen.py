"""What a network is like while heatmaps are made, and afterwards."""

from __future__ import annotations

import subprocess
import sys
import threading

import torch
from torch import nn

from wsol import HeatmapExtractor
from wsol.models.frozen import frozen


def is_as_before(model: nn.Module) -> bool:
    return model.training and all(parameter.requires_grad for parameter in model.parameters())


def test_blocks_over_one_model_end_in_any_order() -> None:
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)):
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        model[1].eval().weight.requires_grad_(False)
        blocks = [frozen(model) for _ in range(3)]
        for block in blocks:
            block.__enter__()
        for count, number in enumerate(order):
            assert not model.training and not model[0].weight.requires_grad, f"{count} of {order} have ended"
            blocks[number].__exit__(None, None, None)
        assert model.training and model[0].training and not model[1].training
        assert model[0].weight.requires_grad and not model[1].weight.requires_grad and model[1].bias.requires_grad


def test_threads_leave_a_model_as_it_was() -> None:
    model, seen = nn.Sequential(*(nn.Linear(2, 2) for _ in range(50))), []

    def use() -> None:
        for _ in range(200):
            with frozen(model):
                seen.append(model.training or model[49].training or model[49].weight.requires_grad)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 800 and not any(seen) and is_as_before(model)


def test_extractors_of_one_model_close_in_any_order() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.rand(2, 3, 8, 8)
    first, second = (HeatmapExtractor(model, ("gradcam",), "0") for _ in range(2))
    first.__enter__()
    second.__enter__()
    before = second(images).maps["gradcam"]
    first.__exit__(None, None, None)
    assert torch.equal(second(images).maps["gradcam"], before) and not model.training
    second.__exit__(None, None, None)
    assert is_as_before(model)


class Merging(nn.Linear):
    """Adds a second matrix to its weights for as long as it is evaluated."""

    def __init__(self) -> None:
        super().__init__(4, 5)
        self.low, self.merged = nn.Parameter(torch.randn(5, 4)), False

    def train(self, mode: bool = True) -> Merging:
        super().train(mode)
        if mode == self.merged:
            self.weight.data += self.low.data * (-1 if mode else 1)
            self.merged = not mode
        return self


def test_a_mode_that_does_more_than_set_its_flag_is_asked_for() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), Merging())
    weight = model[3].weight.detach().clone()
    with HeatmapExtractor(model, ("gradcam",)) as extractor:  # looks for the layer, too
        extractor(torch.rand(2, 3, 8, 8))
        assert model[3].merged
    assert is_as_before(model) and not model[3].merged
    torch.testing.assert_close(model[3].weight.detach(), weight)


def test_an_extractor_that_is_never_closed_says_nothing_at_the_end() -> None:
    code = (
        "import torch; from wsol import HeatmapExtractor; from wsol.models import gapnet\n"
        "model = gapnet(3); extractor = HeatmapExtractor(model, ('gradcam',)).__enter__()\n"
        "extractor(torch.rand(1, 3, 32, 32))\n"
        "def again():\n"
        "    own = gapnet(3); own.itself = [own]; HeatmapExtractor(own, ('gradcam',)).__enter__()\n"
        "again(); import gc; gc.collect()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
