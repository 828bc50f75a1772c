"""Runs a graph's JSON in PyTorch, op by op as `landscape-graph` defines them: the second opinion on what `export_graph.py` writes.

Every value has the batch as its first axis; parameters and constants are repeated along it. In training mode BatchNorm takes the
batch's statistics, and dropout does nothing.
"""

import torch
from torch.nn import functional as F


def rope(x, base, rotary_dim, style):
    length, half = x.shape[-2], rotary_dim // 2
    rates = base ** (-2 * torch.arange(half, dtype=x.dtype) / rotary_dim)
    angles = torch.arange(length, dtype=x.dtype)[:, None] * rates
    cos, sin = angles.cos(), angles.sin()
    turned, rest = x[..., :rotary_dim], x[..., rotary_dim:]
    if style == "half":
        a, b = turned[..., :half], turned[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)
    a, b = turned[..., 0::2], turned[..., 1::2]
    return torch.cat([torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2), rest], -1)


def attention(q, k, v, causal, scale):
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = scale * q @ k.transpose(-1, -2)
    if causal:
        scores = scores.masked_fill(~torch.ones(scores.shape[-2:], dtype=torch.bool).tril(), float("-inf"))
    return scores.softmax(-1) @ v


def apply(op, at, x, t, training):
    """One op on its operands `x` with its tensors `t`."""
    w, b = t.get("weight"), t.get("bias")
    if op in ("add", "multiply"):
        rank = max(a.dim() for a in x)
        x = [a.reshape(a.shape[:1] + (1,) * (rank - a.dim()) + a.shape[1:]) for a in x]
        return x[0] + x[1] if op == "add" else x[0] * x[1]
    match op:
        case "linear":
            return F.linear(x[0], w.T if at.get("weight_order") == "in_out" else w, b)
        case "conv2d":
            return F.conv2d(x[0], w, b, at["stride"], at["padding"], at["dilation"], at["groups"])
        case "conv1d":
            return F.conv1d(x[0], w, b, at["stride"], at["padding"], at["dilation"], at["groups"])
        case "conv_transpose2d":
            return F.conv_transpose2d(x[0], w, b, at["stride"], at["padding"], at["output_padding"], at["groups"], at["dilation"])
        case "batch_norm":
            mean, var = t["running_mean"].clone(), t["running_var"].clone()
            return F.batch_norm(x[0], mean, var, w, b, training, at["momentum"], at["eps"])
        case "layer_norm":
            return F.layer_norm(x[0], at["normalized_shape"], w, b, at["eps"])
        case "rms_norm":
            return F.rms_norm(x[0], at["normalized_shape"], w, at["eps"])
        case "group_norm":
            return F.group_norm(x[0], at["num_groups"], w, b, at["eps"])
        case "embedding":
            return F.embedding(x[0].long(), w)
        case "attention":
            return attention(*x, at["causal"], at["scale"])
        case "rope":
            return rope(x[0], at["base"], at["rotary_dim"], at["style"])
        case "matmul":
            return x[0] @ x[1]
        case "softmax":
            return x[0].softmax(at["dim"] + 1)
        case "relu" | "silu" | "hardswish" | "hardsigmoid" | "softplus":
            return getattr(F, op)(x[0])
        case "sigmoid" | "tanh" | "exp":
            return getattr(torch, op)(x[0])
        case "gelu":
            return F.gelu(x[0], approximate=at["approximate"])
        case "leaky_relu":
            return F.leaky_relu(x[0], at["negative_slope"])
        case "hardtanh":
            return F.hardtanh(x[0], at["min_val"], at["max_val"])
        case "elu":
            return F.elu(x[0], at["alpha"])
        case "affine":
            return at["scale"] * x[0] + at["shift"]
        case "power":
            return x[0] ** at["exponent"]
        case "dropout":
            return x[0]
        case "max_pool2d":
            return F.max_pool2d(x[0], at["kernel_size"], at["stride"], at["padding"])
        case "avg_pool2d":
            return F.avg_pool2d(x[0], at["kernel_size"], at["stride"], at["padding"], count_include_pad=at["count_include_pad"])
        case "adaptive_avg_pool2d":
            return F.adaptive_avg_pool2d(x[0], at["output_size"])
        case "global_avg_pool":
            return x[0].mean((2, 3), keepdim=True)
        case "mean":
            return x[0].mean(list(range(at["start_dim"] + 1, at["end_dim"] + 2)), keepdim=at["keepdim"])
        case "upsample":
            mode, corners = {"nearest": ("nearest", None), "bilinear": ("bilinear", False)}.get(at["method"], ("bilinear", True))
            return F.interpolate(x[0], at["size"], mode=mode, align_corners=corners)
        case "flatten":
            return x[0].flatten(1)
        case "reshape":
            return x[0].reshape(-1, *at["shape"])
        case "permute":
            return x[0].permute(0, *(d + 1 for d in at["dims"]))
        case "expand":
            rank = len(at["shape"])
            return x[0].reshape(x[0].shape[:1] + (1,) * (rank + 1 - x[0].dim()) + x[0].shape[1:]).expand(-1, *at["shape"])
        case "slice":
            places = torch.arange(at["start"], at["end"], at["step"])
            return x[0].index_select(at["dim"] + 1, places)
        case "concat":
            return torch.cat(x, at["dim"] + 1)
    raise ValueError(f"unknown op `{op}`")


ROLES = {"batch_norm": ("weight", "bias", "running_mean", "running_var"), "parameter": ("parameter",)}


def run(graph, tensors, inputs, training=False):
    """The outputs for a batch; `tensors` by name."""
    values, given, n = {}, iter(inputs), len(inputs[0])
    for node in graph["nodes"]:
        at, op, name = node, node["op"], node["name"]
        own = node.get("tensors", {})
        find = lambda role: tensors.get(own.get(role, name if role == "parameter" else f"{name}.{role}"))
        t = {role: find(role) for role in ROLES.get(op, ("weight", "bias"))}
        if op in ("linear", "conv2d", "conv1d", "conv_transpose2d") and not at["bias"] or op in ("rms_norm", "embedding"):
            t["bias"] = None
        if not at.get("affine", True) or not at.get("elementwise_affine", True):
            t["weight"] = t["bias"] = None
        elif op == "layer_norm" and not at["bias"]:
            t["bias"] = None
        if op == "input":
            values[name] = next(given).reshape(n, *at["shape"])
        elif op == "parameter":
            values[name] = t["parameter"].reshape(1, *at["shape"]).expand(n, *at["shape"])
        elif op == "constant":
            values[name] = torch.tensor(at["values"], dtype=torch.float64).reshape(1, *at["shape"]).expand(n, *at["shape"])
        else:
            values[name] = apply(op, at, [values[i] for i in node["inputs"]], t, training)
    return [values[name] for name in graph["outputs"]]
