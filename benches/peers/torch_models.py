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


VGG11 = [[64], [128], [256, 256], [512, 512], [512, 512]]
VGG16 = [[64, 64], [128, 128], [256, 256, 256], [512, 512, 512], [512, 512, 512]]


def build(model):
    if model.startswith("mlp:"):
        return Mlp([int(w) for w in model[4:].split("-")])
    return {
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
