"""The zoo's networks at small sizes: logits, gradients and five training steps in f64.

Of each gradient and of each tensor after the steps one number is kept, its projection on random signs; ours must agree to 1e-9 of the norm that
the tensor has on our side. `movement_under_1e-13` says how far these numbers move when every weight does, which bounds what a test may ask.
"""

import math

import torch
from torch.nn import functional as F

from formula import fill, fnv1a, header, labels, summary, weight
from zoo_models import Logits, make, of_tokens

N_STEPS = 5
MOMENTUM = 0.9

IMAGES = {
    "vgg13": ("vgg13:width=0.125", 32), "vgg19_bn": ("vgg19_bn:width=0.125", 32), "vgg11_layer": ("vgg11:width=0.125,norm=layer", 32),
    "vgg16_group": ("vgg16:width=0.125,norm=group", 32),
    "vgg11": ("vgg11:width=0.125", 32), "vgg16": ("vgg16:width=0.125", 32), "vgg19": ("vgg19:width=0.125", 32),
    "vgg13_bn": ("vgg13_bn:width=0.125", 32), "vgg16_bn": ("vgg16_bn:width=0.125", 32), "cnn": ("cnn", 8), "convfc": ("convfc", 15),
    "resnet20_layer": ("resnet20:width=0.5,norm=layer", 16), "resnet20_group": ("resnet20:width=0.5,norm=group,groups=4", 16),
    "resnet32_wide": ("resnet32:width=1.3", 16), "resnet56": ("resnet56:width=0.25", 16),
    "preresnet20": ("preresnet20:width=0.5", 16), "preresnet110": ("preresnet110:width=0.25", 16), "preresnet164": ("preresnet164:width=0.25", 16),
    "wrn28": ("wrn28:k=2", 16),
    "resnet18": ("resnet18:width=0.125", 64), "resnet34": ("resnet34:width=0.125", 64), "resnet50": ("resnet50:width=0.125", 64),
    "resnet101": ("resnet101:width=0.125", 64), "resnet152": ("resnet152:width=0.125", 64),
    "densenet121": ("densenet121:width=0.125", 64), "mobilenet_v2": ("mobilenet_v2:width=0.25", 64),
    "mobilenet_v3_small": ("mobilenet_v3_small:width=0.25", 64), "mobilenet_v3_large": ("mobilenet_v3_large:width=0.25", 64),
    "efficientnet_b0": ("efficientnet_b0:width=0.25", 64), "convnext_tiny": ("convnext_tiny:width=0.125", 64),
    "vit_b_16": ("vit_b_16:width=24,heads=3", 48), "vit_tiny": ("vit_tiny:width=16,depth=2", 32),
}
TOKENS = {
    "gpt": "gpt:layers=2,width=16", "gpt_bias": "gpt:layers=2,width=16,heads=2,bias=on,block=20", "gpt2": "gpt2:layers=2,width=16,heads=2,block=20",
    "bert": "bert:layers=2,width=16,heads=2,block=20", "llama": "llama:layers=2,width=32,heads=4,kv_heads=2,hidden=48",
}
NETWORKS = {name: {"spec": spec, "input_shape": [3, size, size], "n_outputs": 10} for name, (spec, size) in IMAGES.items()}
NETWORKS |= {name: {"spec": spec, "input_shape": [12], "n_outputs": 23} for name, spec in TOKENS.items()}
for cfg in NETWORKS.values():
    cfg |= {"batch": 4, "wd": 1e-2}
for name in ("resnet50", "resnet101", "resnet152"):
    NETWORKS[name]["batch"] = 16  # statistics of few pixels at this depth amplify rounding


class ExactHardsigmoid(torch.nn.Module):
    """PyTorch's own has 1/6 in single precision in its backward pass, in f64 too."""

    def forward(self, x):
        return F.relu6(x + 3.0) / 6.0


class ExactRmsNorm(torch.nn.Module):
    """transformers' own goes through single precision."""

    def __init__(self, weight, eps):
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class ExactRotary(torch.nn.Module):
    """transformers' own goes through single precision."""

    def __init__(self, base, head_dim):
        super().__init__()
        self.base, self.head_dim = base, head_dim

    def forward(self, x, position_ids):
        turns = self.base ** (-torch.arange(0, self.head_dim, 2, dtype=torch.float64) / self.head_dim)
        angles = position_ids[..., None].double() * turns
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos(), angles.sin()


def exact(net):
    """The same network where every step is computed in f64."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            kind = type(child).__name__
            if kind == "Hardsigmoid":
                setattr(parent, name, ExactHardsigmoid())
            elif kind == "LlamaRMSNorm":
                setattr(parent, name, ExactRmsNorm(child.weight, child.variance_epsilon))
            elif kind == "LlamaRotaryEmbedding":
                setattr(parent, name, ExactRotary(10000.0, net.config.hidden_size // net.config.num_attention_heads))
    return net


def module(cfg):
    net = make(cfg["spec"], cfg["input_shape"], cfg["n_outputs"])
    if hasattr(net, "tie_weights"):
        net.tie_weights()
    return exact(net).double().train()


def load(net, noise=0.0):
    with torch.no_grad():
        for n, p in net.named_parameters():
            value = weight("row0", n, p.shape)
            p.copy_(value * (1.0 + noise * fill(f"noise/row0/{n}", p.shape)) if noise else value)
    return net


def batch(cfg, idx):
    n, v = cfg["batch"], cfg["n_outputs"]
    if not of_tokens(cfg["spec"]):
        return fill(f"inputs{idx}", [n, *cfg["input_shape"]], scale=math.sqrt(3.0)), labels(f"inputs{idx}/labels", n, v)
    t = cfg["input_shape"][0]
    return labels(f"inputs{idx}", n * t, v).view(n, t), labels(f"inputs{idx}/labels", n * t, v)


def logits_of(cfg, net, x):
    out = (Logits(net) if cfg["spec"].split(":")[0] in ("gpt2", "bert", "llama") else net)(x)
    return out.reshape(-1, cfg["n_outputs"])


def gradient(cfg, noise=0.0):
    net = load(module(cfg), noise)
    x, y = batch(cfg, 0)
    logits = logits_of(cfg, net, x)
    loss = F.cross_entropy(logits, y)
    loss.backward()
    return {"loss": loss.detach(), "logits": logits.detach(), **{n: p.grad for n, p in net.named_parameters()}}


def train(cfg, noise=0.0):
    """Five steps of SGD with momentum, Nesterov and decay, then the logits of evaluation on batch 0."""
    net = load(module(cfg), noise)
    optimizer = torch.optim.SGD(net.parameters(), lr=cfg["lr"], momentum=MOMENTUM, nesterov=True, weight_decay=cfg["wd"])
    for step in range(N_STEPS):
        x, y = batch(cfg, step)
        optimizer.zero_grad()
        F.cross_entropy(logits_of(cfg, net, x), y).backward()
        optimizer.step()
    kept = net.state_dict()  # without tables such as places, which are no tensors of the network
    result = {n: p.detach() for n, p in net.named_parameters()} | {n: b.double() for n, b in net.named_buffers() if n in kept}
    with torch.no_grad():
        result["evaluation logits"] = logits_of(cfg, net.eval(), batch(cfg, 0)[0])
    return result


def movement(make_values, cfg):
    """The most that any tensor moves, relative to its norm, when every weight moves by up to 1e-13 of itself."""
    a, b = make_values(cfg), make_values(cfg, noise=1e-13)
    floor = 1e-6 * max(float(v.norm()) for v in a.values())
    return max(float((a[n] - b[n]).norm()) / max(float(a[n].norm()), floor) for n in a)


def golden(cfg):
    found, moves = gradient(cfg), {"gradient": movement(gradient, cfg)}
    # The largest steps that do not blow rounding up: deep networks at weights of this size are touchy.
    for cfg["lr"] in (1e-2, 1e-4, 1e-6):
        moves["train"] = movement(train, cfg)
        if moves["train"] < 1e-10:
            break
    trained = train(cfg)
    result = {"whole": summary(torch.cat([v.reshape(-1) for n, v in found.items() if n not in ("loss", "logits")]))[0]}
    for part, values in (("gradient", found), ("train", trained)):
        text = "".join(f"{n}\n" for n in sorted(values))
        result[part] = {"names": f"{fnv1a(text):016x}", "projections": [summary(values[n])[1] for n in sorted(values)]}
    return result | {"movement_under_1e-13": {n: float(f"{v:.1e}") for n, v in moves.items()}}


def goldens(only=None):
    text = {
        "loss": "mean cross-entropy, over tokens where there are any",
        "train": f"{N_STEPS} steps of torch.optim.SGD(momentum={MOMENTUM}, nesterov=True, weight_decay=wd), batch s at step s",
        "projections": "projection 0 of each tensor, in the order of the names sorted; `names` is the FNV-1a hash of these, a line each",
    }
    for name, cfg in NETWORKS.items():
        if only is None or f"zoo_{name}" in only:
            result = golden(cfg)  # sets the rate
            print(f"  {cfg['spec']}: rate {cfg['lr']}, moved by {result['movement_under_1e-13']}", flush=True)
            yield f"zoo_{name}", {"header": header(threads=torch.get_num_threads(), **text), "config": cfg, **result}
