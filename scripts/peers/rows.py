"""Which method of ours stands beside which of theirs, and why the two may differ."""

from __future__ import annotations

from functools import partial

from scripts.peers import formulas
from scripts.peers.comparison import Cause, Row, clipped, turned
from scripts.peers.maps import fullgrad_of_grad_cam, guided_of_grad_cam, of_grad_cam, of_torchcam, ours

TURNED = (
    "The sign of a singular vector is arbitrary. grad-cam takes what comes and clips at 0, and so may show the wrong "
    "half of a map; ours is turned to go with {}, and not clipped."
)


def grad_cam_rows() -> list[Row]:
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST

    plusplus = Cause(
        "grad-cam adds 1e-6 to the denominator of α, which is no small number beside squared gradients; ours cancels "
        "G² and needs no such thing.",
        ours=ours(formulas.plusplus_with_epsilon),
    )
    eigen = Cause(
        f"{TURNED.format('the mean of the channels')} It also takes each channel's mean off first (our `center=True`); "
        "the paper doesn't.",
        ours=ours("eigencam", center=True),
        compare=turned,
    )
    finer = Cause(
        "grad-cam compares with three classes weighted by their probabilities, at full strength, and differentiates "
        "the weights too; the paper's equation has the plain mean of the logits times γ, by default 0.6.",
        ours=ours(formulas.finer_by_probability),
    )
    share = Cause(
        "grad-cam weighs each channel's activations by the share of places above the threshold; the paper sums binary "
        "maps weighted by the channel's mean.",
        ours=ours(formulas.fem_by_share),
    )
    rest = Cause(
        "grad-cam differentiates the logit unless it is given `ClassifierOutputReST`, the paper's score, our default.",
        theirs=of_grad_cam("ShapleyCAM", ClassifierOutputReST),
    )
    corners = Cause(
        "grad-cam enlarges masks corner to corner (`align_corners=True`), ours by half-pixel centers.",
        ours=ours(formulas.score_corner_to_corner),
    )
    far = Cause(
        "Where activations are negative somewhere, grad-cam sets an ablated channel not to 0 but to 1e7 below the "
        "lowest, and to n times that for the n-th channel of a batch; of tokens the class's too (ours: only those that "
        "stand for a place).",
        ours=ours(formulas.ablation_far_below),
    )
    divided = Cause(
        "grad-cam adds 1e-7 to the maximum by which each channel is divided; nothing is left when its score is taken "
        "1e12 times.",
        theirs=fullgrad_of_grad_cam(1e12),
    )
    channels, hires = (Cause(TURNED.format(what), compare=turned) for what in ("the mean of the channels", "HiResCAM"))
    row = partial(Row, compare=clipped)
    return [
        row("gradcam", "GradCAM", of_grad_cam("GradCAM")),
        row("gradcampp", "GradCAMPlusPlus", of_grad_cam("GradCAMPlusPlus"), plusplus),
        row("gradcamelementwise", "GradCAMElementWise", of_grad_cam("GradCAMElementWise")),
        row("xgradcam", "XGradCAM", of_grad_cam("XGradCAM")),
        row("hirescam", "HiResCAM", of_grad_cam("HiResCAM")),
        row("layercam", "LayerCAM", of_grad_cam("LayerCAM")),
        row("eigencam", "EigenCAM", of_grad_cam("EigenCAM"), eigen),
        row("eigengradcam", "EigenGradCAM", of_grad_cam("EigenGradCAM"), hires),
        row("kpcacam", "KPCA_CAM", of_grad_cam("KPCA_CAM"), channels),
        row("finercam", "FinerCAM", of_grad_cam("FinerCAM"), finer),
        row("fem", "FEM", of_grad_cam("FEM"), share),
        row("shapleycam", "ShapleyCAM", of_grad_cam("ShapleyCAM"), rest),
        row("scorecam", "ScoreCAM", of_grad_cam("ScoreCAM"), corners),
        row("ablationcam", "AblationCAM", of_grad_cam("AblationCAM"), far),
        row("fullgrad", "FullGrad", fullgrad_of_grad_cam(1), divided),
        row("guidedbackprop", "GuidedBackpropReLUModel", guided_of_grad_cam),
    ]


def torchcam_rows() -> list[Row]:
    copied = Cause(
        "torchcam divides a copy: α stays G², the ratio is lost.", ours=ours(formulas.plusplus_without_ratio)
    )
    first = Cause(
        "torchcam brings a channel to [0, 1] before it is enlarged; ours, as in the paper, afterwards, so that every "
        "mask reaches 0 and 1.",
        ours=ours(formulas.score_bright_first),
    )
    noise = Cause(
        "torchcam draws noise of its own for every channel (ours: the same for all), and its masks are Score-CAM's.",
        ours=ours(formulas.noisy_bright_first, samples=2, std=2.0),
    )
    pile = Cause(
        "torchcam's factors pile up, 1/N, 3/N, 6/N, … (our `cumulative=True`), and its masks are Score-CAM's.",
        ours=ours(formulas.integrated_bright_first, steps=2),
    )
    last = Cause(
        "torchcam takes A and ReLU(G) of the last noisy image alone, Σ A G³ for Σ A · G³, adds 1e-8 to the "
        "denominator, and its noise is 0.3 whatever the image's range.",
        ours=ours(formulas.smooth_last_sample, samples=2, std=0.3),
    )
    samples, steps = (("samples", 2),), (("steps", 2),)
    return [
        Row("cam", "CAM", of_torchcam("CAM")),
        Row("gradcam", "GradCAM", of_torchcam("GradCAM")),
        Row("gradcampp", "GradCAMpp", of_torchcam("GradCAMpp"), copied),
        Row("xgradcam", "XGradCAM", of_torchcam("XGradCAM")),
        Row("layercam", "LayerCAM", of_torchcam("LayerCAM")),
        Row("finercam", "FinerCAM", of_torchcam("FinerCAM")),
        Row("scorecam", "ScoreCAM", of_torchcam("ScoreCAM"), first),
        Row("sscam", "SSCAM", of_torchcam("SSCAM", num_samples=2), noise, samples),
        Row("iscam", "ISCAM", of_torchcam("ISCAM", num_samples=2), pile, steps),
        Row("smoothgradcampp", "SmoothGradCAMpp", of_torchcam("SmoothGradCAMpp", num_samples=2), last, samples),
        Row("legrad", "LeGrad", of_torchcam("LeGrad")),
    ]
