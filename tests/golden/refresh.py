"""Batch-norm statistics taken anew on a tiny network with an uneven last batch."""

import torch
from torch.optim.swa_utils import update_bn

from formula import fill, header, weight
from models import TinyNorm

SIZES = [4, 4, 2]
SHAPE = [2, 7, 6]


def network():
    net = TinyNorm().double()
    with torch.no_grad():
        for n, p in net.named_parameters():
            p.copy_(weight("row0", n, p.shape))
    return net


def batches():
    x = fill("inputs", [sum(SIZES), *SHAPE])
    return list(torch.split(x, SIZES))


def norms(net):
    return {n: m for n, m in net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}


def reset(net):
    for m in norms(net).values():
        m.reset_running_stats()


def run_training(net, momentum):
    """One pass in training mode; momentum(batch_size, n_before) is set before each batch."""
    reset(net)
    net.train()
    seen = 0
    with torch.no_grad():
        for x in batches():
            for m in norms(net).values():
                m.momentum = momentum(len(x), seen)
            net(x)
            seen += len(x)


def result(net):
    statistics = {n: [float(v) for v in b.reshape(-1)] for n, b in net.named_buffers() if not n.endswith("num_batches_tracked")}
    net.eval()
    with torch.no_grad():
        output = net(batches()[0][:1])
    return statistics | {"output of the first example": [float(v) for v in output.reshape(-1)]}


def pooled(net):
    """Mean and biased variance of all values together, each batch normalised by its own statistics on the way."""
    seen = {n: [] for n in norms(net)}
    hooks = [m.register_forward_pre_hook(lambda _, x, n=n: seen[n].append(channels_first(x[0]))) for n, m in norms(net).items()]
    run_training(net, lambda b, n: 0.1)
    for hook in hooks:
        hook.remove()
    for n, m in norms(net).items():
        x = torch.cat(seen[n], dim=1)
        m.running_mean.copy_(x.mean(1))
        m.running_var.copy_(x.var(1, unbiased=False))


def channels_first(x):
    return x.transpose(0, 1).flatten(1)


def sequential(net):
    """Each layer's mean and biased variance over all examples at once, inputs normalised by the final statistics of the layers before."""
    reset(net)
    net.eval()
    for m in norms(net).values():
        seen = []
        hook = m.register_forward_pre_hook(lambda _, x: seen.append(x[0]))
        with torch.no_grad():
            net(torch.cat(batches()))
        hook.remove()
        x = channels_first(seen[0])
        m.running_mean.copy_(x.mean(1))
        m.running_var.copy_(x.var(1, unbiased=False))


def golden():
    net = network()
    goldens = {
        "header": header(
            net="conv1(2->3, 3x3, padding 1, bias) bn1 relu conv2(3->4, 3x3, stride 2, bias) bn2, weights of row0",
            sizes=SIZES,
            input_shape=SHAPE,
            batch_average="momentum b/(n+b) before each batch of size b after n examples, as the reference's utils.update_bn",
            pooled="mean and biased variance of all values; each batch normalised by its own statistics on the way",
            sequential="the same, layer by layer: inputs normalised by the final statistics of the layers before",
        )
    }
    run_training(net, lambda b, n: b / (n + b))
    goldens["batch_average"] = result(net)
    for m in norms(net).values():
        m.momentum = 0.1
    update_bn(batches(), net)
    goldens["torch_cumulative"] = result(net)
    pooled(net)
    goldens["pooled"] = result(net)
    sequential(net)
    goldens["sequential"] = result(net)
    return goldens
