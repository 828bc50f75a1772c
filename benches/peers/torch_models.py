"""The networks of the suites in PyTorch, with the names of `landscape_zoo::models`."""

import torch
from torch import nn
from torch.nn import functional as F

import values


class Mlp(nn.Module):
    def __init__(self, widths):
        super().__init__()
        self.n = len(widths) - 1
        for i in range(self.n):
            setattr(self, f"fc{i + 1}", nn.Linear(widths[i], widths[i + 1]))

    def forward(self, x):
        x = x.flatten(1)
        for i in range(1, self.n):
            x = F.relu(getattr(self, f"fc{i}")(x))
        return getattr(self, f"fc{self.n}")(x)


class Block(nn.Module):
    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.downsample = None
        if stride != 1 or n_in != n_out:
            self.downsample = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    def __init__(self, n_blocks):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        n_in = 16
        for stage, n_out in ((1, 16), (2, 32), (3, 64)):
            blocks = []
            for i in range(n_blocks):
                blocks.append(Block(n_in, n_out, 2 if stage > 1 and i == 0 else 1))
                n_in = n_out
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean((2, 3)))


class Vgg(nn.Module):
    def __init__(self, stages, norm):
        super().__init__()
        layers, n_in = [], 3
        for stage in stages:
            for n_out in stage:
                layers.append(nn.Conv2d(n_in, n_out, 3, 1, 1))
                if norm:
                    layers.append(nn.BatchNorm2d(n_out))
                layers.append(nn.ReLU(inplace=True))
                n_in = n_out
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(512, 512), nn.ReLU(inplace=True),
            nn.Dropout(), nn.Linear(512, 512), nn.ReLU(inplace=True), nn.Linear(512, 10),
        )

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class SelfAttention(nn.Module):
    """torchvision's, which has `nn.MultiheadAttention`: the same parameters and products."""

    def __init__(self, width, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x):
        return self.out_proj(attend(F.linear(x, self.in_proj_weight, self.in_proj_bias), self.n_heads, False))


def attend(qkv, n_heads, is_causal):
    n, length, width = qkv.shape
    q, k, v = (part.view(n, length, n_heads, -1).transpose(1, 2) for part in qkv.split(width // 3, dim=2))
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal).transpose(1, 2).reshape(n, length, width // 3)


class EncoderBlock(nn.Module):
    def __init__(self, width, n_heads, mlp):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-6)
        self.self_attention = SelfAttention(width, n_heads)
        self.ln_2 = nn.LayerNorm(width, eps=1e-6)
        # Number 2 is torchvision's dropout, of probability 0.
        self.mlp = nn.Sequential(nn.Linear(width, mlp), nn.GELU(), nn.Identity(), nn.Linear(mlp, width))

    def forward(self, x):
        x = x + self.self_attention(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Encoder(nn.Module):
    def __init__(self, length, width, depth, n_heads, mlp):
        super().__init__()
        self.pos_embedding = nn.Parameter(torch.empty(1, length, width))
        self.layers = nn.Sequential()
        for i in range(depth):
            self.layers.add_module(f"encoder_layer_{i}", EncoderBlock(width, n_heads, mlp))
        self.ln = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x):
        return self.ln(self.layers(x + self.pos_embedding))


class Vit(nn.Module):
    """torchvision's vision transformer at the sizes of ViT-Lite-6/4."""

    def __init__(self, size=32, patch=4, width=256, depth=6, n_heads=4, mlp=512):
        super().__init__()
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.conv_proj = nn.Conv2d(3, width, patch, patch)
        self.encoder = Encoder((size // patch) ** 2 + 1, width, depth, n_heads, mlp)
        self.heads = nn.Sequential()
        self.heads.add_module("head", nn.Linear(width, values.N_CLASSES))

    def forward(self, x):
        x = self.conv_proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        return self.heads(self.encoder(x)[:, 0])


class CausalAttention(nn.Module):
    def __init__(self, width, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)

    def forward(self, x):
        return self.c_proj(attend(self.c_attn(x), self.n_heads, True))


class GptBlock(nn.Module):
    def __init__(self, width, n_heads):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, bias=False)
        self.attn = CausalAttention(width, n_heads)
        self.ln_2 = nn.LayerNorm(width, bias=False)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width, bias=False), "c_proj": nn.Linear(4 * width, width, bias=False)})

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))


class Gpt(nn.Module):
    """nanoGPT's, without biases, the head tied to the embedding."""

    def __init__(self, layers=4, width=128, heads=4):
        super().__init__()
        self.transformer = nn.ModuleDict({
            "wte": nn.Embedding(values.N_TOKENS, width),
            "wpe": nn.Embedding(values.CONTEXT, width),
            "h": nn.ModuleList(GptBlock(width, heads) for _ in range(layers)),
            "ln_f": nn.LayerNorm(width, bias=False),
        })

    def forward(self, tokens):
        parts = self.transformer
        x = parts["wte"](tokens) + parts["wpe"](torch.arange(tokens.shape[1]))
        for block in parts["h"]:
            x = block(x)
        return F.linear(parts["ln_f"](x), parts["wte"].weight)


VGG11 = [[64], [128], [256, 256], [512, 512], [512, 512]]
VGG16 = [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]]


def build(model):
    if model.startswith("mlp:"):
        return Mlp([int(w) for w in model[4:].split("-")])
    if model.startswith("gpt:"):
        return Gpt(**{key: int(value) for key, value in (option.split("=") for option in model[4:].split(","))})
    return {
        "vit_tiny": Vit,
        "resnet20": lambda: ResNet(3), "resnet32": lambda: ResNet(5), "resnet56": lambda: ResNet(9),
        "vgg11": lambda: Vgg(VGG11, False), "vgg11_bn": lambda: Vgg(VGG11, True),
        "vgg16": lambda: Vgg(VGG16, False), "vgg16_bn": lambda: Vgg(VGG16, True),
    }[model]()


def point(net, seed, k):
    """Control point k: a tensor per parameter, in the order of `net.parameters()`."""
    return [torch.from_numpy(values.tensor(seed, k, name, tuple(p.shape))) for name, p in net.named_parameters()]


def load(net, tensors):
    with torch.no_grad():
        for p, t in zip(net.parameters(), tensors):
            p.copy_(t)


def load_statistics(net, seed):
    with torch.no_grad():
        for name, b in net.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                b.copy_(torch.from_numpy(values.statistics(seed, name, b.numel())))


def set_dropout(net, p):
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = p
