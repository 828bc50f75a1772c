"""PyTorch on the CPU: eager (default and channels-last layout) and `torch.compile`.

Options beside the job's own: `layout` (`channels_last`), `compile` (true). Jobs in bf16 run by `torch.autocast`."""

import math
import time

import numpy as np
import torch
from torch.func import functional_call
from torch.nn import functional as F

import torch_models as models
import values
import worker

REQUEST = worker.request()
SEED = REQUEST["seed"]
THREADS = REQUEST["threads"]
torch.set_num_threads(THREADS)
torch.manual_seed(0)
IDLE_BYTES = worker.resident_bytes()
ANSWER_RATE, TIMED_RATE, DECAY, N_ANSWER_STEPS, N_TS = 0.01, 1e-6, 1e-4, 3, 64


def layout(x):
    if REQUEST.get("layout") == "channels_last" and (isinstance(x, torch.nn.Module) or x.dim() == 4):
        return x.to(memory_format=torch.channels_last)
    return x


def precision():
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=REQUEST.get("precision") == "bf16")


def compiled(f):
    return torch.compile(f) if REQUEST.get("compile") else f


def network(model, k=0):
    net = models.build(model)
    models.load(net, models.point(net, SEED, k))
    return layout(net)


def batch(idx, n, model):
    x, y = values.batch(SEED, idx, n, model)
    return layout(torch.from_numpy(x)), torch.from_numpy(y)


def cross_entropy(outputs, y, **options):
    """Of one class per example, or of one at every place."""
    return F.cross_entropy(outputs.flatten(0, -2), y.flatten(), **options)


def bezier(n_points, t):
    n = n_points - 1
    return [math.comb(n, k) * t**k * (1 - t) ** (n - k) for k in range(n_points)]


def blend(c, rows):
    """One tensor per parameter, as dnn-mode-connectivity sums them: coefficient times control point, in turn."""
    point = []
    for tensors in zip(*rows):
        w = tensors[0] * c[0]
        for c_k, tensor in zip(c[1:], tensors[1:]):
            w = w + c_k * tensor
        point.append(w)
    return point


def step(model, n_batch, n_points):
    """Endpoint: `torch.optim.SGD` with weight decay. Curve: the bends are parameters, the point's L2 term joins the loss, and the
    network runs functionally on the point (dnn-mode-connectivity, `curves.py` and `train.py`)."""
    net = network(model)
    x, y = batch(0, n_batch, model)
    names = [name for name, _ in net.named_parameters()]
    if n_points == 1:
        optimizer = torch.optim.SGD(net.parameters(), ANSWER_RATE, momentum=0.9, weight_decay=DECAY)
        forward = compiled(lambda: cross_entropy(net(x), y))

        def loss_of(_):
            loss = forward()
            return loss, loss
    else:
        rows = [[layout(t) for t in models.point(net, SEED, k)] for k in range(n_points)]
        bends = [[t.requires_grad_() for t in row] for row in rows[1:-1]]
        optimizer = torch.optim.SGD([t for row in bends for t in row], ANSWER_RATE, momentum=0.9)
        ts = values.ts(SEED, N_TS)

        def on_curve(c):
            w = blend(c, rows)
            nll = cross_entropy(functional_call(net, dict(zip(names, w)), (x,)), y)
            return nll, nll + 0.5 * DECAY * sum((t * t).sum() for t in w)

        forward = compiled(on_curve)

        def loss_of(i):
            c = bezier(n_points, ts[i % N_TS])
            # A compiled function takes the coefficients as tensors, or it is compiled anew for each t.
            return forward(torch.tensor(c, dtype=torch.float32) if REQUEST.get("compile") else c)

    count = 0

    def once():
        nonlocal count
        optimizer.zero_grad(set_to_none=True)
        with precision():
            nll, loss = loss_of(count)
        loss.backward()
        optimizer.step()
        count += 1
        return nll.item()

    models.set_dropout(net, 0.0)
    answer = [once() for _ in range(N_ANSWER_STEPS)]
    models.set_dropout(net, 0.5)
    for group in optimizer.param_groups:
        group["lr"] = TIMED_RATE
    return answer, worker.timed(once), {}


def evaluate(model, n_batch):
    net = network(model).eval()
    models.load_statistics(net, SEED)
    x, y = batch(0, n_batch, model)
    f = compiled(lambda: cross_entropy(net(x), y))

    def once():
        with torch.no_grad(), precision():
            return f().item()

    return [once()], worker.timed(once), {}


def profile_point(model, n_batch, n_train, n_test):
    """`eval_curve.py` at one t: blend, `update_bn` over the training batches, then `test` on both splits."""
    net = network(model)
    rows = [models.point(net, SEED, k) for k in range(3)]
    batches = [batch(i, n_batch, model) for i in range(n_train + n_test)]
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    train, test = compiled(lambda x: net(x)), compiled(lambda x, y: cross_entropy(net(x), y, reduction="sum"))

    def once():
        with torch.no_grad():
            models.load(net, blend(bezier(3, 0.3), rows))
            net.train()
            for norm in norms:
                norm.running_mean.zero_()
                norm.running_var.zero_()
            seen = 0
            for x, _ in batches[:n_train]:
                for norm in norms:
                    norm.momentum = len(x) / (seen + len(x))
                train(x)
                seen += len(x)
            net.eval()
            losses = []
            for part in (batches[:n_train], batches[n_train:]):
                total = sum(test(x, y).item() for x, y in part)
                losses.append(total / (len(part) * n_batch))
        return losses

    return once(), worker.timed(once), {}


def convolution(conv_pass, n, channels, size, kernel, stride, groups):
    n_in, n_out = channels
    pad, out = kernel // 2, (size + 2 * (kernel // 2) - kernel) // stride + 1
    memory = torch.channels_last if REQUEST.get("layout") == "channels_last" else torch.contiguous_format

    def image(name, c, s):
        flat = values.symmetric(values.stream(SEED, name, 0), n * s * s * c, 1.0)
        return torch.from_numpy(flat).reshape(n, s, s, c).permute(0, 3, 1, 2).contiguous(memory_format=memory)

    x, dy = image("x", n_in, size), image("dy", n_out, out)
    flat = values.symmetric(values.stream(SEED, "weight", 0), n_out * n_in // groups * kernel * kernel, 0.1)
    w = torch.from_numpy(flat).reshape(n_out, n_in // groups, kernel, kernel).contiguous(memory_format=memory)
    two = lambda v: [v, v]

    def once():
        with torch.no_grad():
            if conv_pass == "forward":
                return F.conv2d(x, w, None, stride, pad, 1, groups)
            mask = [conv_pass == "input-gradient", conv_pass == "weight-gradient", False]
            return torch.ops.aten.convolution_backward(dy, x, w, None, two(stride), two(pad), two(1), False, two(0), groups, mask)[mask.index(True)]

    answer = [once().double().square().sum().item()]
    return answer, worker.timed(once), {"flops": 2 * dy.numel() * n_in // groups * kernel * kernel}


def weight_space(operation, n, n_points):
    vector = lambda name, k=0: torch.from_numpy(values.symmetric(values.stream(SEED, name, k), n, 1.0))
    total = n_points * (n_points + 1) // 2
    c = [(k + 1) / total for k in range(n_points)]
    if operation == "blend":
        rows = [vector("row", k) for k in range(n_points)]
        result = None

        def once():
            nonlocal result
            result = blend(c, [[row] for row in rows])[0]

        once()
    else:
        row, gradient, point = vector("row").requires_grad_(), vector("gradient"), vector("point")
        if operation == "spread-sgd":
            optimizer = torch.optim.SGD([row], 0.01, momentum=0.9)
        else:
            optimizer = torch.optim.Adam([row], 0.001)

        def once():
            with torch.no_grad():
                row.grad = 0.5 * (gradient + DECAY * point)
            optimizer.step()

        once()
        once()
        result = row.detach()
    answer = [result.double().sum().item(), result.double().square().sum().item()]
    n_vectors = {"blend": n_points + 1, "spread-sgd": 6, "spread-adam": 8}[operation]
    return answer, worker.timed(once), {"bytes": 4 * n_vectors * n}


def plane(model, folder, grid, n_batch, margin):
    """`plane.py` of dnn-mode-connectivity: orthonormal axes through three networks, the loss at every cell of the grid; measured, as
    `landscape plane` measures, on both splits. The data are decoded once, outside the time."""
    net = models.build(model).eval()
    rows = [torch.cat([t.flatten() for t in models.point(net, SEED, k)]) for k in range(3)]
    splits = []
    for name in ("train", "t10k"):
        x = torch.from_numpy(worker.idx(f"{folder}/{name}-images-idx3-ubyte", 3).astype(np.float32) / 255).flatten(1)
        y = torch.from_numpy(worker.idx(f"{folder}/{name}-labels-idx1-ubyte", 1).astype(np.int64))
        splits.append(list(zip(x.split(n_batch), y.split(n_batch))))
    u = rows[2] - rows[0]
    dx = u.norm()
    u = u / dx
    v = rows[1] - rows[0]
    v = v - torch.dot(u, v) * u
    dy = v.norm()
    v = v / dy
    axis = np.linspace(-margin, 1 + margin, grid)
    parameters = list(net.parameters())
    f = compiled(lambda x, y: cross_entropy(net(x), y, reduction="sum"))

    def once():
        losses = np.zeros((2, grid, grid))
        with torch.no_grad():
            for j, beta in enumerate(axis):
                for i, alpha in enumerate(axis):
                    w = rows[0] + alpha * dx * u + beta * dy * v
                    torch.nn.utils.vector_to_parameters(w, parameters)
                    for s, batches in enumerate(splits):
                        losses[s, j, i] = sum(f(x, y).item() for x, y in batches) / sum(len(y) for _, y in batches)
        return losses

    # The least and the mean test loss: nothing that depends on the order of the three points within an axis.
    losses = once()[1]
    return [float(losses.min()), float(losses.mean())], worker.timed(once), {}


def set_up():
    r = REQUEST
    match r["job"]:
        case "step":
            return step(r["model"], r["batch"], r["points"])
        case "evaluate":
            return evaluate(r["model"], r["batch"])
        case "profile-point":
            return profile_point(r["model"], r["batch"], r["n_train_batches"], r["n_test_batches"])
        case "convolution":
            return convolution(r["pass"], r["batch"], r["channels"], r["size"], r["kernel"], r["stride"], r.get("groups", 1))
        case "weight-space":
            return weight_space(r["operation"], r["parameters"], r["points"])
        case "plane":
            return plane(r["model"], r["folder"], r["grid"], r["batch"], r["margin"])
        case job:
            worker.skip(f"this peer has no job `{job}`")


started = time.perf_counter()
try:
    worker.serve(REQUEST, {"torch": torch.__version__, "numpy": np.__version__}, IDLE_BYTES, set_up)
except Exception as error:
    if not REQUEST.get("compile"):
        raise
    worker.skip(f"torch.compile failed after {time.perf_counter() - started:.0f} s: {str(error).splitlines()[0][:200]}")
