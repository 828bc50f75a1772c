"""The zoo's networks as their authors' packages make them, or as modules of the same layers and names where no package has them.

`make(spec, input_shape, n_outputs)` reads the zoo's own specs. Dropout and stochastic depth are off.
"""

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F


def options(spec):
    name, _, rest = spec.partition(":")
    return name, dict(pair.split("=") for pair in rest.split(",") if pair)


def scaled(width, channels):
    return max(1, int(width * channels + 0.5))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel."""

    def __init__(self, channels):
        super().__init__(channels, eps=1e-6)

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def norm_of(opts):
    return {"batch": nn.BatchNorm2d, "layer": ChannelNorm, "group": partial(nn.GroupNorm, int(opts.get("groups", 8)))}[opts.get("norm", "batch")]


class Vgg(nn.Module):
    """All layers of VGG for 32x32, with the reference's head."""

    STAGES = {"11": [1, 1, 2, 2, 2], "13": [2, 2, 2, 2, 2], "16": [2, 2, 3, 3, 3], "19": [2, 2, 4, 4, 4]}

    def __init__(self, depth, width, norm, c_in, size, n_classes):
        super().__init__()
        layers = []
        for n_convs, channels in zip(self.STAGES[depth], [64, 128, 256, 512, 512]):
            for _ in range(n_convs):
                layers += [nn.Conv2d(c_in, scaled(width, channels), 3, padding=1)]
                layers += [norm(scaled(width, channels))] if norm else []
                layers += [nn.ReLU()]
                c_in = scaled(width, channels)
            layers += [nn.MaxPool2d(2, 2)]
        self.features = nn.Sequential(*layers)
        head = scaled(width, 512)
        self.classifier = nn.Sequential(
            nn.Dropout(0.0), nn.Linear(c_in * size, head), nn.ReLU(), nn.Dropout(0.0), nn.Linear(head, head), nn.ReLU(), nn.Linear(head, n_classes)
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


def vgg(name, opts, input_shape, n_classes):
    norm = nn.BatchNorm2d if name.endswith("_bn") else (norm_of(opts) if opts.get("norm", "none") != "none" else None)
    c, h, w = input_shape
    return Vgg(name[3:5], float(opts.get("width", 1)), norm, c, (h // 32) * (w // 32), n_classes)


class Cnn(nn.Module):
    """The zoo's small network for digits."""

    def __init__(self, c, n_classes):
        super().__init__()
        for i, c_out in enumerate([16, 32, 64], 1):
            setattr(self, f"conv{i}", nn.Conv2d(c, c_out, 3, padding=1, bias=False))
            setattr(self, f"bn{i}", nn.BatchNorm2d(c_out))
            c = c_out
        self.fc = nn.Linear(c, n_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        return self.fc(F.relu(self.bn3(self.conv3(x))).mean(dim=(2, 3)))


class ConvFc(nn.Module):
    """The reference's ConvFC."""

    def __init__(self, input_shape, n_classes):
        super().__init__()
        layers, (c, *size) = [], input_shape
        for c_out in (32, 64, 128):
            layers += [nn.Conv2d(c, c_out, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)]
            c, size = c_out, [(s - 3) // 2 + 1 for s in size]
        self.conv_part = nn.Sequential(*layers)
        features = c * size[0] * size[1]
        self.fc_part = nn.Sequential(nn.Linear(features, 1000), nn.ReLU(), nn.Linear(1000, 1000), nn.ReLU(), nn.Linear(1000, n_classes))

    def forward(self, x):
        return self.fc_part(torch.flatten(self.conv_part(x), 1))


class BasicBlock(nn.Module):
    def __init__(self, c_in, c_out, stride, norm, shortcut):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = norm(c_out)
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, shortcut, stride, shortcut // 2, bias=False), norm(c_out))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class PreBlock(nn.Module):
    """Norm, relu, convolution; two or three times."""

    def __init__(self, c_in, planes, stride, norm, bottleneck):
        super().__init__()
        sizes = [(planes, 1, 1), (planes, 3, stride), (4 * planes, 1, 1)] if bottleneck else [(planes, 3, stride), (planes, 3, 1)]
        self.n, c = len(sizes), c_in
        for i, (c_out, k, s) in enumerate(sizes, 1):
            setattr(self, f"bn{i}", norm(c))
            setattr(self, f"conv{i}", nn.Conv2d(c, c_out, k, s, k // 2, bias=False))
            c = c_out
        self.downsample = nn.Sequential(nn.Conv2d(c_in, c, 1, stride, bias=False)) if stride != 1 or c_in != c else None

    def forward(self, x):
        y = x
        for i in range(1, self.n + 1):
            y = getattr(self, f"conv{i}")(F.relu(getattr(self, f"bn{i}")(y)))
        return y + (x if self.downsample is None else self.downsample(x))


class CifarResNet(nn.Module):
    def __init__(self, pre, depth, opts, c, n_classes):
        super().__init__()
        width, norm = float(opts.get("width", 1)), norm_of(opts)
        bottleneck = pre and depth == 164
        n = (depth - 2) // (9 if bottleneck else 6)
        shortcut = 3 if opts.get("norm") == "layer" else 1
        c_in = scaled(width, 16)
        self.pre = pre
        self.conv1 = nn.Conv2d(c, c_in, 3, 1, 1, bias=False)
        if not pre:
            self.bn1 = norm(c_in)
        for stage, channels in enumerate([16, 32, 64], 1):
            blocks, channels = [], scaled(width, channels)
            for i in range(n):
                stride = 2 if stage > 1 and i == 0 else 1
                blocks.append(PreBlock(c_in, channels, stride, norm, bottleneck) if pre else BasicBlock(c_in, channels, stride, norm, shortcut))
                c_in = channels * (4 if bottleneck else 1)
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        if pre:
            self.bn = norm(c_in)
        self.fc = nn.Linear(c_in, n_classes)

    def forward(self, x):
        x = self.conv1(x)
        x = x if self.pre else F.relu(self.bn1(x))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.relu(self.bn(x)) if self.pre else x
        return self.fc(x.mean(dim=(2, 3)))


class WideBlock(nn.Module):
    def __init__(self, c_in, c_out, stride, norm):
        super().__init__()
        self.bn1 = norm(c_in)
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn2 = norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.convShortcut = None if c_in == c_out else nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x):
        active = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return y + (x if self.convShortcut is None else self.convShortcut(active))


class WideStage(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.layer = nn.Sequential(*blocks)

    def forward(self, x):
        return self.layer(x)


class WideResNet28(nn.Module):
    def __init__(self, k, norm, c, n_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(c, 16, 3, 1, 1, bias=False)
        c_in = 16
        for stage, channels in enumerate([16 * k, 32 * k, 64 * k], 1):
            strides = [2 if stage > 1 else 1, 1, 1, 1]
            setattr(self, f"block{stage}", WideStage(*[WideBlock(c_in if i == 0 else channels, channels, s, norm) for i, s in enumerate(strides)]))
            c_in = channels
        self.bn1 = norm(c_in)
        self.fc = nn.Linear(c_in, n_classes)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean(dim=(2, 3)))


def torchvision_resnet(name, opts, c, n_classes):
    from torchvision.models import resnet

    width = float(opts.get("width", 1))

    class AnyWidth(resnet.ResNet):
        """torchvision's own, with all channels multiplied."""

        def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
            if planes == 64:
                self.inplanes = scaled(width, 64)
                self.conv1 = nn.Conv2d(c, self.inplanes, 7, 2, 3, bias=False)
                self.bn1 = self._norm_layer(self.inplanes)
            return super()._make_layer(block, scaled(width, planes), blocks, stride, dilate)

    block = resnet.BasicBlock if name in ("resnet18", "resnet34") else resnet.Bottleneck
    layers = {"18": [2, 2, 2, 2], "34": [3, 4, 6, 3], "50": [3, 4, 6, 3], "101": [3, 4, 23, 3], "152": [3, 8, 36, 3]}[name[6:]]
    net = AnyWidth(block, layers, norm_layer=norm_of(opts))
    net.fc = nn.Linear(scaled(width, 512) * block.expansion, n_classes)
    return net


def torchvision_other(name, opts, input_shape, n_classes):
    from torchvision import models
    from torchvision.models import convnext, efficientnet, vision_transformer

    width = float(opts.get("width", 1))
    if name == "densenet121":
        return models.DenseNet(scaled(width, 32), (6, 12, 24, 16), scaled(width, 64), num_classes=n_classes)
    if name == "mobilenet_v2":
        return models.mobilenet_v2(width_mult=width, num_classes=n_classes, dropout=0.0)
    if name.startswith("mobilenet_v3"):
        return getattr(models, name)(width_mult=width, num_classes=n_classes, dropout=0.0)
    if name == "efficientnet_b0":
        setting, last = efficientnet._efficientnet_conf(name, width_mult=width, depth_mult=1.0)
        return models.EfficientNet(setting, 0.0, stochastic_depth_prob=0.0, num_classes=n_classes, last_channel=last)
    if name == "convnext_tiny":
        c = [scaled(width, c) for c in (96, 192, 384, 768)] + [None]
        setting = [convnext.CNBlockConfig(c[i], c[i + 1], n) for i, n in enumerate([3, 3, 9, 3])]
        return models.ConvNeXt(setting, num_classes=n_classes)
    patch, dim, depth, heads, mlp = {"vit_b_16": (16, 768, 12, 12, 3072), "vit_tiny": (4, 256, 6, 4, 512)}[name]
    dim2, depth, heads, patch = (int(opts.get(k, v)) for k, v in (("width", dim), ("depth", depth), ("heads", heads), ("patch", patch)))
    mlp = int(opts.get("mlp", dim2 * mlp // dim))
    return vision_transformer.VisionTransformer(input_shape[1], patch, depth, heads, dim2, mlp, num_classes=n_classes)


class NanoLayer(nn.Module):
    def __init__(self, width, n_heads, bias):
        super().__init__()
        self.n_heads = n_heads
        self.ln_1 = nn.LayerNorm(width, bias=bias)
        self.attn = nn.Module()
        self.attn.c_attn = nn.Linear(width, 3 * width, bias=bias)
        self.attn.c_proj = nn.Linear(width, width, bias=bias)
        self.ln_2 = nn.LayerNorm(width, bias=bias)
        self.mlp = nn.Module()
        self.mlp.c_fc = nn.Linear(width, 4 * width, bias=bias)
        self.mlp.c_proj = nn.Linear(4 * width, width, bias=bias)

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = (y.view(n, t, self.n_heads, -1).transpose(1, 2) for y in self.attn.c_attn(self.ln_1(x)).chunk(3, dim=2))
        scores = (q @ k.transpose(2, 3)) / (d // self.n_heads) ** 0.5
        hidden = torch.ones(t, t, dtype=torch.bool).triu(1)
        y = (scores.masked_fill(hidden, float("-inf")).softmax(-1) @ v).transpose(1, 2).reshape(n, t, d)
        x = x + self.attn.c_proj(y)
        return x + self.mlp.c_proj(F.gelu(self.mlp.c_fc(self.ln_2(x))))


class NanoGpt(nn.Module):
    """The layers and names of nanoGPT."""

    def __init__(self, opts, n_tokens, vocabulary):
        super().__init__()
        width, bias = int(opts.get("width", 128)), opts.get("bias", "off") == "on"
        layers = [NanoLayer(width, int(opts.get("heads", 4)), bias) for _ in range(int(opts.get("layers", 4)))]
        parts = {
            "wte": nn.Embedding(vocabulary, width),
            "wpe": nn.Embedding(int(opts.get("block", n_tokens)), width),
            "h": nn.ModuleList(layers),
            "ln_f": nn.LayerNorm(width, bias=bias),
        }
        self.transformer = nn.ModuleDict(parts)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.transformer.wte.weight

    def forward(self, tokens):
        x = self.transformer.wte(tokens) + self.transformer.wpe(torch.arange(tokens.shape[1]))
        for layer in self.transformer.h:
            x = layer(x)
        return self.lm_head(self.transformer.ln_f(x))


class Logits(nn.Module):
    """A model of transformers that yields its logits alone."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, tokens):
        return self.net(tokens).logits


def transformers_model(name, opts, n_tokens, vocabulary):
    import transformers as hf

    get = lambda key, default: int(opts.get(key, default))
    if name == "gpt2":
        drop = dict(embd_pdrop=0.0, resid_pdrop=0.0, attn_pdrop=0.0)
        sizes = dict(n_layer=get("layers", 12), n_embd=get("width", 768), n_head=get("heads", 12), n_positions=get("block", 1024))
        return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=vocabulary, bos_token_id=None, eos_token_id=None, **sizes, **drop))
    if name == "bert":
        drop = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        width = get("width", 768)
        sizes = dict(num_hidden_layers=get("layers", 12), hidden_size=width, num_attention_heads=get("heads", 12))
        sizes |= dict(intermediate_size=4 * width, max_position_embeddings=get("block", 512))
        return hf.BertForMaskedLM(hf.BertConfig(vocab_size=vocabulary, pad_token_id=None, **sizes, **drop))
    width, heads = get("width", 4096), get("heads", 32)
    sizes = dict(num_hidden_layers=get("layers", 32), hidden_size=width, num_attention_heads=heads, num_key_value_heads=get("kv_heads", heads))
    sizes |= dict(intermediate_size=get("hidden", -(-(8 * width // 3) // 256) * 256), rms_norm_eps=1e-5, max_position_embeddings=4096)
    return hf.LlamaForCausalLM(hf.LlamaConfig(vocab_size=vocabulary, bos_token_id=None, eos_token_id=None, **sizes))


def make(spec, input_shape, n_outputs):
    name, opts = options(spec)
    if name in ("cnn", "convfc"):
        return Cnn(input_shape[0], n_outputs) if name == "cnn" else ConvFc(input_shape, n_outputs)
    if name.startswith("vgg"):
        return vgg(name, opts, input_shape, n_outputs)
    if name in ("resnet20", "resnet32", "resnet56") or name.startswith("preresnet"):
        pre = name.startswith("pre")
        return CifarResNet(pre, int(name.removeprefix("pre")[6:]), opts, input_shape[0], n_outputs)
    if name == "wrn28":
        return WideResNet28(int(opts.get("k", 10)), norm_of(opts), input_shape[0], n_outputs)
    if name.startswith("resnet"):
        return torchvision_resnet(name, opts, input_shape[0], n_outputs)
    if name == "gpt":
        return NanoGpt(opts, input_shape[0], n_outputs)
    if name in ("gpt2", "bert", "llama"):
        return transformers_model(name, opts, input_shape[0], n_outputs)
    return torchvision_other(name, opts, input_shape, n_outputs)


def of_tokens(spec):
    return options(spec)[0] in ("gpt", "gpt2", "bert", "llama")


def state_dict(net):
    """Names and shapes in order; of tied tensors the first alone."""
    seen, rows = set(), []
    for name, tensor in net.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            rows.append((name, list(tensor.shape)))
    return rows
