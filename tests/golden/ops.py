"""Single ops at odd sizes, values in full: outputs, gradients and optimiser steps."""

import torch
from torch.nn import functional as F

from formula import fill, header, labels, quarters

N, H, W = 2, 5, 4

CONVS = {
    "conv 3x3 padded": {"in": 3, "out": 2, "kernel_size": [3, 3], "padding": [1, 1], "bias": True},
    "conv 3x3 stride 2": {"in": 2, "out": 3, "kernel_size": [3, 3], "stride": [2, 2], "padding": [1, 1]},
    "conv uneven": {"in": 2, "out": 2, "kernel_size": [2, 3], "stride": [2, 1], "padding": [1, 2], "dilation": [1, 2], "bias": True},
    "conv groups": {"in": 4, "out": 6, "kernel_size": [3, 2], "padding": [0, 1], "groups": 2, "bias": True},
    "conv depthwise": {"in": 3, "out": 6, "kernel_size": [3, 3], "padding": [1, 1], "groups": 3},
    "conv 1x1": {"in": 3, "out": 4, "kernel_size": [1, 1], "bias": True},
    "conv 1x1 stride 2": {"in": 3, "out": 2, "kernel_size": [1, 1], "stride": [2, 2]},
    "conv 5x5 dilated": {"in": 1, "out": 2, "kernel_size": [5, 5], "padding": [4, 4], "dilation": [2, 2]},
}
MAX_POOLS = {
    "max pool 2": {"kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0]},
    "max pool 3 stride 2": {"kernel_size": [3, 3], "stride": [2, 2], "padding": [1, 1]},
    "max pool uneven": {"kernel_size": [3, 2], "stride": [1, 2], "padding": [1, 0]},
    "max pool ties": {"kernel_size": [3, 3], "stride": [1, 1], "padding": [1, 1], "quarters": True},
}
AVERAGE_POOLS = {
    "average pool counted": {"kernel_size": [3, 3], "stride": [2, 2], "padding": [1, 1], "count_include_pad": True},
    "average pool not counted": {"kernel_size": [3, 3], "stride": [2, 2], "padding": [1, 1], "count_include_pad": False},
    "average pool uneven": {"kernel_size": [2, 3], "stride": [1, 2], "padding": [1, 0], "count_include_pad": True},
}
ADAPTIVE_POOLS = {
    "adaptive pool 3x3": {"output_size": [3, 3]},
    "adaptive pool 2x4": {"output_size": [2, 4]},
    "adaptive pool global": {"output_size": [1, 1]},
    "adaptive pool larger": {"output_size": [7, 3]},
}
SGD = {
    "sgd plain": {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False},
    "sgd decay": {"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.3, "nesterov": False},
    "sgd momentum": {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.3, "nesterov": False},
    "sgd dampening": {"lr": 0.1, "momentum": 0.8, "dampening": 0.4, "weight_decay": 0.1, "nesterov": False},
    "sgd nesterov": {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "weight_decay": 0.3, "nesterov": True},
}
ADAM = {
    "adam": {"lr": 0.05, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "decoupled": False},
    "adam decay": {"lr": 0.05, "betas": [0.8, 0.95], "eps": 1e-3, "weight_decay": 0.3, "decoupled": False},
    "adamw": {"lr": 0.05, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.3, "decoupled": True},
}


def values(tensor):
    return [float(v) for v in tensor.detach().reshape(-1)]


def differentiate(y, inputs):
    """Gradients of sum(y * fill('dy')) for the named inputs, together with y and its shape."""
    grads = torch.autograd.grad((y * fill("dy", y.shape)).sum(), list(inputs.values()))
    return {"y_shape": list(y.shape), "y": values(y)} | {f"d{n}": values(g) for n, g in zip(inputs, grads)}


def leaf(name, shape):
    return fill(name, shape).requires_grad_()


def linear(bias):
    inputs = {"x": leaf("x", [5, 7]), "weight": leaf("weight", [3, 7])}
    if bias:
        inputs["bias"] = leaf("bias", [3])
    return differentiate(F.linear(inputs["x"], inputs["weight"], inputs.get("bias")), inputs)


def conv(cfg):
    groups = cfg.setdefault("groups", 1)
    cfg.setdefault("stride", [1, 1])
    cfg.setdefault("padding", [0, 0])
    cfg.setdefault("dilation", [1, 1])
    cfg.setdefault("bias", False)
    inputs = {"x": leaf("x", [N, cfg["in"], H, W]), "weight": leaf("weight", [cfg["out"], cfg["in"] // groups, *cfg["kernel_size"]])}
    if cfg["bias"]:
        inputs["bias"] = leaf("bias", [cfg["out"]])
    y = F.conv2d(inputs["x"], inputs["weight"], inputs.get("bias"), cfg["stride"], cfg["padding"], cfg["dilation"], groups)
    return {"config": cfg} | differentiate(y, inputs)


def batch_norm(training):
    """Three examples of 2 channels at 3x3; running statistics start at fill('mean') and 1 + fill('var')/2."""
    inputs = {"x": leaf("x", [3, 2, 3, 3]), "weight": leaf("weight", [2]), "bias": leaf("bias", [2])}
    mean, var = fill("mean", [2]), 1.0 + 0.5 * fill("var", [2])
    y = F.batch_norm(inputs["x"], mean, var, inputs["weight"], inputs["bias"], training, momentum=0.1, eps=1e-5)
    return differentiate(y, inputs) | {"running_mean": values(mean), "running_var": values(var)}


def pool(cfg, function):
    x = (quarters if cfg.get("quarters") else fill)("x", [N, 2, H, W]).requires_grad_()
    return {"config": cfg} | differentiate(function(x), {"x": x})


def gelu(approximate):
    x = (6.0 * fill("x", [4, 9])).requires_grad_()
    return differentiate(F.gelu(x, approximate=approximate), {"x": x})


def relu():
    x = quarters("x", [4, 9]).requires_grad_()
    return differentiate(F.relu(x), {"x": x})


def cross_entropy():
    logits, y = (10.0 * fill("x", [6, 5])).requires_grad_(), labels("labels", 6, 5)
    loss = F.cross_entropy(logits, y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, [logits])
    return {"loss_sum": loss.item(), "n_wrong": int((logits.argmax(1) != y).sum()), "dx": values(gradient)}


def squared_error():
    outputs = leaf("x", [6, 3])
    loss = F.mse_loss(outputs, fill("targets", [6, 3]))
    (gradient,) = torch.autograd.grad(loss, [outputs])
    return {"loss_mean": loss.item(), "dx": values(gradient)}


def steps(make):
    """Five steps from fill('theta') with gradient fill('gradient s') at step s."""
    theta = torch.nn.Parameter(fill("theta", [11]))
    optimizer = make([theta])
    for step in range(5):
        theta.grad = fill(f"gradient {step}", [11])
        optimizer.step()
    return values(theta)


def sgd(cfg):
    return {"config": cfg, "theta": steps(lambda p: torch.optim.SGD(p, **cfg))}


def adam(cfg):
    options = {k: v for k, v in cfg.items() if k != "decoupled"}
    kind = torch.optim.AdamW if cfg["decoupled"] else torch.optim.Adam
    return {"config": cfg, "theta": steps(lambda p: kind(p, **options))}


def golden():
    size = {"n": N, "in_size": [H, W]}
    result = {"header": header(inputs="x, weight, bias, dy, ... are fill(NAME, shape) with scale 1 unless said otherwise", **size)}
    result |= {"linear": linear(True), "linear no bias": linear(False)}
    result["conv"] = {name: conv(cfg) for name, cfg in CONVS.items()}
    result |= {"batch norm train": batch_norm(True), "batch norm eval": batch_norm(False)}
    result |= {"gelu none": gelu("none"), "gelu tanh": gelu("tanh"), "relu": relu()}
    result["max pool"] = {
        n: pool(c, lambda x: F.max_pool2d(x, c["kernel_size"], c["stride"], c["padding"])) for n, c in MAX_POOLS.items()
    }
    result["average pool"] = {
        n: pool(c, lambda x: F.avg_pool2d(x, c["kernel_size"], c["stride"], c["padding"], count_include_pad=c["count_include_pad"]))
        for n, c in AVERAGE_POOLS.items()
    }
    result["adaptive pool"] = {n: pool(c, lambda x: F.adaptive_avg_pool2d(x, c["output_size"])) for n, c in ADAPTIVE_POOLS.items()}
    result |= {"cross entropy": cross_entropy(), "squared error": squared_error()}
    result["sgd"] = {n: sgd(c) for n, c in SGD.items()}
    result["adam"] = {n: adam(c) for n, c in ADAM.items()}
    return result
