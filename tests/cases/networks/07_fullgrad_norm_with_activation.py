"""FullGrad of ReLU networks with timm's BatchNormAct2d: the parts must add up to the logit, and do not."""
from common import *
import timm
from wsol.heatmaps.pixel import full_gradients
from wsol.heatmaps.recording import record
from wsol.models.inference import frozen
def check(net):
    net = net.double().eval(); x = torch.rand(1, 3, 96, 96).double()
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d): m.running_mean.normal_(0, .3); m.running_var.uniform_(.5, 1.5); m.bias.data.normal_(0, .3)
    with frozen(net):
        r = record(net, [], x, None)
        got = float(sum(p.sum() for p in full_gradients(r, torch.tensor([0])))); logit = float(r.logits.max())
    # by itself: x dy/dx + sum over normalizations of (beta - mu gamma / sigma) dy/dbeta + other biases b dy/db
    for p in net.parameters(): p.requires_grad_(True)
    xx = x.clone().requires_grad_(); net(xx).max().backward()
    own = float((xx * xx.grad).sum())
    for m in net.modules():
        if isinstance(m, nn.BatchNorm2d): own += float(((m.bias - m.running_mean * m.weight / (m.running_var + m.eps).sqrt()) * m.bias.grad).sum())
        elif isinstance(m, (nn.Conv2d, nn.Linear)) and m.bias is not None: own += float((m.bias * m.bias.grad).sum())
    return got, own, logit
rows = {n: check(timm.create_model(n, num_classes=5)) for n in ("resnet18", "regnetx_002", "densenet121")}
end(all(abs(g - l) < 1e-6 * max(1, abs(l)) for g, o, l in rows.values()), "; ".join(f"{n}: wsol {g:.4f}, own decomposition {o:.4f}, logit {l:.4f}" for n, (g, o, l) in rows.items()))
