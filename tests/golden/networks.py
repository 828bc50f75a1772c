"""Whole networks: logits, gradients, training steps and curve steps in f64, and PyTorch's own f32 error."""

import copy
import math

import torch
from torch.func import functional_call
from torch.nn import functional as F

from formula import fill, header, labels, summary, weight
from models import Mixed, Mlp, ResNet20, Vgg11Bn

N_BATCHES = 5
N_CURVE_STEPS = 20
GOLDEN_RATIO = 0.6180339887498949
MOMENTUM = 0.9

# `inputs` names the stream of the inputs; it is chosen so that no ReLU and no maximum falls on different sides in f32 and f64.
NETWORKS = {
    "mlp_small": {"spec": "mlp:20-16-12-5", "input_shape": [20], "n_classes": 5, "batch": 8, "lr": 0.05, "wd": 1e-2, "inputs": "inputs"},
    "mlp_image": {"spec": "mlp:784-64-32-10", "input_shape": [1, 28, 28], "n_classes": 10, "batch": 16, "lr": 0.02, "wd": 1e-2, "inputs": "inputs"},
    "vgg11_bn": {"spec": "vgg11_bn", "input_shape": [3, 32, 32], "n_classes": 10, "batch": 4, "lr": 0.01, "wd": 1e-2, "inputs": "inputs"},
    "resnet20": {"spec": "resnet20", "input_shape": [3, 32, 32], "n_classes": 10, "batch": 4, "lr": 0.01, "wd": 1e-2, "inputs": "inputs a "},
    "mixed": {"spec": "mixed", "input_shape": [3, 9, 7], "n_classes": 4, "batch": 6, "lr": 0.02, "wd": 1e-2, "inputs": "inputs"},
}
CURVES = [("bezier", 3), ("bezier", 4), ("polychain", 3), ("polychain", 4)]


def module(cfg):
    spec = cfg["spec"]
    if spec.startswith("mlp:"):
        net = Mlp([int(w) for w in spec[4:].split("-")])
    else:
        net = {"vgg11_bn": Vgg11Bn, "resnet20": ResNet20, "mixed": Mixed}[spec](cfg["n_classes"])
    return net.double().train()


def row(net, name, noise=0.0):
    """Control point `name`, optionally moved by `noise` relative to each value (for the conditioning)."""
    values = {n: weight(name, n, p.shape) for n, p in net.named_parameters()}
    if noise:
        values = {n: v * (1.0 + noise * fill(f"noise/{name}/{n}", v.shape)) for n, v in values.items()}
    return values


def load(net, values):
    with torch.no_grad():
        for n, p in net.named_parameters():
            p.copy_(values[n])
    return net


def batch(cfg, idx):
    n = cfg["batch"]
    x = fill(f"{cfg['inputs']}{idx}", [n, *cfg["input_shape"]], scale=math.sqrt(3.0))
    return x, labels(f"{cfg['inputs']}{idx}/labels", n, cfg["n_classes"])


def t_of(step):
    return ((step + 1) * GOLDEN_RATIO) % 1.0


def coefficients(kind, n_points, t):
    n = n_points - 1
    if kind == "bezier":
        return [math.comb(n, k) * t**k * (1.0 - t) ** (n - k) for k in range(n_points)]
    return [max(0.0, 1.0 - abs(t * n - k)) for k in range(n_points)]


def gradient(cfg, dtype=torch.float64, noise=0.0, idx=0):
    """Logits and every gradient at row0 on one batch, in training mode."""
    net = module(cfg)
    load(net, row(net, "row0", noise))
    net = net.to(dtype)
    x, y = batch(cfg, idx)
    logits = net(x.to(dtype))
    loss = F.cross_entropy(logits, y)
    loss.backward()
    return {"loss": loss.detach().double(), "logits": logits.detach().double(), **{n: p.grad.double() for n, p in net.named_parameters()}}


def statistics(net):
    return {n: b.detach().clone().double() for n, b in net.named_buffers()}


def train(cfg, noise=0.0):
    """Five steps of SGD with momentum, Nesterov and decay from row0, then the logits of evaluation on batch 0."""
    net = module(cfg)
    load(net, row(net, "row0", noise))
    optimizer = torch.optim.SGD(net.parameters(), lr=cfg["lr"], momentum=MOMENTUM, nesterov=True, weight_decay=cfg["wd"])
    for step in range(N_BATCHES):
        x, y = batch(cfg, step)
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        optimizer.step()
    result = {n: p.detach().clone() for n, p in net.named_parameters()} | statistics(net)
    with torch.no_grad():
        result["evaluation logits"] = net.eval()(batch(cfg, 0)[0])
    return result


def curve(cfg, kind, n_points, noise=0.0):
    """Twenty steps of the free control points; loss = cross-entropy(phi(t)) + 0.5 wd ||phi(t)||^2 at the given t."""
    net = module(cfg)
    rows = [row(net, f"row{k}", noise) for k in range(n_points)]
    free = [v.requires_grad_() for r in rows[1:-1] for v in r.values()]
    optimizer = torch.optim.SGD(free, lr=cfg["lr"], momentum=MOMENTUM)
    for step in range(N_CURVE_STEPS):
        c = coefficients(kind, n_points, t_of(step))
        point = {n: sum(ck * r[n] for ck, r in zip(c, rows)) for n in rows[0]}
        x, y = batch(cfg, step % N_BATCHES)
        loss = F.cross_entropy(functional_call(net, point, (x,)), y)
        loss = loss + 0.5 * cfg["wd"] * sum((w * w).sum() for w in point.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    result = {f"row{k}/{n}": v.detach() for k in range(1, n_points - 1) for n, v in rows[k].items()}
    return result | statistics(net)


def flips(cfg):
    """How many ReLU signs and max-pool winners differ between f32 and f64, over all batches."""
    seen = {}
    for dtype in (torch.float64, torch.float32):
        net = module(cfg)
        load(net, row(net, "row0"))
        net = net.to(dtype)
        kept, original = [], F.relu
        F.relu = lambda x, *a, **k: (kept.append(x > 0), original(x, *a, **k))[1]
        for m in net.modules():
            if isinstance(m, torch.nn.MaxPool2d):
                pool = lambda m, x: F.max_pool2d(x[0], m.kernel_size, m.stride, m.padding, return_indices=True)[1]
                m.register_forward_pre_hook(lambda m, x: kept.append(pool(m, x)))
        with torch.no_grad():
            for idx in range(N_BATCHES):
                net(batch(cfg, idx)[0].to(dtype))
        F.relu = original
        seen[dtype] = kept
    assert seen[torch.float64]
    return sum(int((a != b).sum()) for a, b in zip(seen[torch.float64], seen[torch.float32]))


def f32_error(cfg):
    """||f32 - f64|| / ||f64|| per tensor, root mean square over the batches; gradients that vanish identically (bias before batch
    norm) relative to the whole gradient; "gradient" is that of all tensors in one vector."""
    squares = {}
    for idx in range(N_BATCHES):
        exact, single = gradient(cfg, idx=idx), gradient(cfg, torch.float32, idx=idx)
        for values in (exact, single):
            values["gradient"] = torch.cat([v.reshape(-1) for n, v in values.items() if n not in ("loss", "logits")])
        whole = float(exact["gradient"].norm())
        for name, value in exact.items():
            norm = float(value.norm())
            error = float((single[name] - value).norm()) / (norm if norm >= 1e-12 * whole else whole)
            squares[name] = squares.get(name, 0.0) + error**2 / N_BATCHES
    return {name: float(f"{math.sqrt(v):.4e}") for name, v in squares.items()}


def movement(make, cfg, *args):
    """The most that any tensor moves, relative to its norm, when every weight moves by up to 1e-13 of itself."""
    a, b = make(cfg, *args), make(cfg, *args, noise=1e-13)
    floor = 1e-6 * max(float(v.double().norm()) for v in a.values())
    return max(float((a[n].double() - b[n].double()).norm()) / max(float(a[n].double().norm()), floor) for n in a)


def golden(cfg):
    print(f"  {cfg['spec']}: {flips(cfg)} flips", flush=True)
    assert flips(cfg) == 0, "choose another stream of inputs"
    net, exact = module(cfg), gradient(cfg)
    result = {
        "names": [n for n, _ in net.named_parameters()],
        "gradient": {n: summary(v) for n, v in exact.items()},
        "f32_error": f32_error(cfg),
        "train": {n: summary(v) for n, v in train(cfg).items()},
    }
    curves = [] if cfg["spec"] == "mixed" else CURVES
    for kind, n_points in curves:
        result[f"{kind}-{n_points}"] = {n: summary(v) for n, v in curve(cfg, kind, n_points).items()}
    moves = {"gradient": movement(gradient_only, cfg), "train": movement(train, cfg)}
    moves |= {f"{kind}-{k}": movement(curve, cfg, kind, k) for kind, k in curves}
    print(f"  {cfg['spec']}: moved by {moves}", flush=True)
    assert max(moves.values()) < 1e-9, "ill conditioned: smaller steps"
    result["movement_under_1e-13"] = {n: float(f"{v:.1e}") for n, v in moves.items()}
    return result


def gradient_only(cfg, noise=0.0):
    return gradient(cfg, noise=noise)


def goldens(only=None):
    text = {
        "loss": "mean cross-entropy; curve steps add 0.5 wd ||phi(t)||^2",
        "t": f"t of step s = frac((s + 1) * {GOLDEN_RATIO})",
        "train": f"{N_BATCHES} steps of torch.optim.SGD(momentum={MOMENTUM}, nesterov=True, weight_decay=wd), batch s at step s",
        "curves": f"{N_CURVE_STEPS} steps of torch.optim.SGD(momentum={MOMENTUM}) on the interior control points, batch s mod {N_BATCHES}",
        "f32_error": "||f32 - f64|| / ||f64|| of PyTorch itself, CPU, per tensor, at row0, root mean square over the batches",
    }
    for name, cfg in NETWORKS.items():
        if only is None or name in only:
            yield name, {"header": header(threads=torch.get_num_threads(), **text), "config": cfg, **golden(copy.deepcopy(cfg))}
