"""Localization accuracy: against a plain loop, against the five-heatmap way, and merged over two real processes."""

import multiprocessing
import os
import socket

import numpy as np
import pytest
import torch
import torch.distributed as dist

from wsol.errors import UserError
from wsol.metrics import LocalizationAccuracy, OutcomeCounts, Pointing, PxAP
from wsol.metrics.histogram import pixel_histograms


def _draw(seed: int, samples: int = 40, taus: int = 11) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    ious = generator.random((samples, taus))
    ious[generator.random((samples, taus)) < 0.1] = 0.5  # ties with the IoU threshold
    return ious, generator.integers(-1, 8, samples)


@pytest.mark.parametrize(("gt_rule", "topk_rule"), [(">=", None), (">=", ">"), (">", ">=")])
def test_curves_equal_a_plain_loop(gt_rule: str, topk_rule: str | None) -> None:
    ious, ranks = _draw(0)
    taus = np.arange(ious.shape[1]) / 20
    metric = LocalizationAccuracy(taus, (0.3, 0.5), gt_rule, topk_rule)
    metric.update(ious[:25], ranks[:25])
    metric.update(ious[25:], ranks[25:])
    right = {">=": lambda iou, delta: iou >= delta, ">": lambda iou, delta: iou > delta}
    for delta in (0.3, 0.5):
        for index in range(len(taus)):
            gt, top1, top5 = 0, 0, 0
            for iou, rank in zip(ious[:, index], ranks, strict=True):
                gt += right[gt_rule](iou, delta)
                top1 += right[topk_rule or gt_rule](iou, delta) and rank == 0
                top5 += right[topk_rule or gt_rule](iou, delta) and rank in (0, 1, 2, 3, 4)
            assert metric.curve("gt_known_loc", delta)[index] == gt / len(ranks)
            assert metric.curve("top1_loc", delta)[index] == top1 / len(ranks)
            assert metric.curve("top5_loc", delta)[index] == top5 / len(ranks)
    assert np.allclose(metric.compute()["mean_iou"].numpy(), ious.mean(0), atol=1e-11)


def test_best_threshold_is_the_smallest_of_the_best() -> None:
    metric = LocalizationAccuracy([0.1, 0.2, 0.3, 0.4])
    metric.update([[0.2, 0.6, 0.6, 0.1]], [0])
    assert metric.best_threshold(0.5) == 0.2
    assert metric.max_box_acc(0.7) == 0.0
    assert metric.max_box_acc_v2() == pytest.approx((1 + 1 + 0) / 3)


def test_topk_from_the_true_class_alone_equals_the_naive_five_heatmap_way() -> None:
    generator = np.random.default_rng(3)
    images, classes, taus = 60, 9, 5
    iou_of_class = generator.random((images, classes, taus))  # IoU of the box from each class's own heatmap
    logits, labels = generator.random((images, classes)), generator.integers(0, classes, images)
    naive = np.zeros(taus)
    for image in range(images):
        for guess in np.argsort(-logits[image])[:5]:  # five guesses of class and box; right if both are
            naive += (guess == labels[image]) & (iou_of_class[image, guess] >= 0.5)
    order = np.argsort(-logits, 1)
    ranks = (order == labels[:, None]).argmax(1)
    metric = LocalizationAccuracy(np.arange(taus) / taus)
    metric.update(iou_of_class[np.arange(images), labels], ranks)
    assert np.array_equal(metric.curve("top5_loc", 0.5), naive / images)


def test_wrong_shape_and_unknown_delta_are_named() -> None:
    metric = LocalizationAccuracy([0.0, 0.5])
    with pytest.raises(UserError, match=r"\(2, 3\).*2 samples, 2 thresholds"):
        metric.update(np.zeros((2, 3)), [0, 0])
    with pytest.raises(UserError, match="0.9 was not counted"):
        metric.curve("gt_known_loc", 0.9)


def _measure(part: slice) -> dict[str, bytes]:
    """Feed a part of 51 samples to all metrics; in a process group, computing merges over the group."""
    ious, ranks = _draw(7, samples=51)
    metrics = LocalizationAccuracy(np.arange(11) / 20, num_classes=3), OutcomeCounts(3), PxAP(0.1), Pointing()
    accuracy, counts, pxap, pointing = metrics
    accuracy.update(ious[part], ranks[part], np.arange(51)[part] % 3)
    kinds = np.array(["right", "part", "elsewhere"])[np.arange(51) % 3][part]
    first = ious[part, 0]
    counts.update(np.arange(51)[part] % 3, ranks[part], first > 0.5, first > 0.5, first, kinds)
    for row in ious[part]:
        pxap.update(*pixel_histograms(row[None], row[None] > 0.4, None, pxap.edges))
    pointing.update(first > 0.5, ious[part, 1])
    values = {**accuracy.compute(), **counts.compute(), **pxap.compute(), **pointing.compute()}
    return {name: value.numpy().tobytes() for name, value in values.items()}


def _shard(rank: int, port: int, queue: multiprocessing.Queue) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    queue.put((rank, _measure(slice(0, 20) if rank == 0 else slice(20, None))))
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_merge_to_the_bit() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    workers = [context.Process(target=_shard, args=(rank, port, queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
    merged = dict(queue.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    alone = _measure(slice(None))
    assert merged[0] == alone
    assert merged[1] == alone


def test_counts_are_integers_in_any_order() -> None:
    ious, ranks = _draw(11, samples=500)
    sums = []
    for order in (np.arange(500), np.random.default_rng(0).permutation(500)):
        metric = LocalizationAccuracy(np.arange(11) / 20)
        for start in range(0, 500, 37):
            metric.update(ious[order][start : start + 37], ranks[order][start : start + 37])
        sums.append(metric.iou_sum)
        assert metric.hits.dtype == metric.iou_sum.dtype == torch.int64
    assert torch.equal(*sums)


def test_each_class_has_its_own_best_threshold() -> None:
    metric = LocalizationAccuracy([0.0, 0.5], (0.5,), num_classes=3)
    metric.update([[0.9, 0.1], [0.1, 0.9], [0.2, 0.9]], [0, 0, 0], [0, 1, 1])
    assert metric.max_box_acc(0.5) == pytest.approx(2 / 3)
    assert metric.class_max_box_acc(0.5)[:2].tolist() == [1, 1]
    assert np.isnan(metric.class_max_box_acc(0.5)[2])
