"""The zoo's networks as PyTorch modules: the same layers, the same parameter names. Dropout has p = 0 here and in the tests."""

import torch
from torch import nn
from torch.nn import functional as F


class Mlp(nn.Module):
    """Linear layers fc1, fc2, ... with ReLU between them."""

    def __init__(self, widths):
        super().__init__()
        self.n_layers = len(widths) - 1
        for i in range(self.n_layers):
            setattr(self, f"fc{i + 1}", nn.Linear(widths[i], widths[i + 1]))

    def forward(self, x):
        x = torch.flatten(x, 1)
        for i in range(self.n_layers):
            x = getattr(self, f"fc{i + 1}")(x)
            x = F.relu(x) if i + 1 < self.n_layers else x
        return x


class Vgg11Bn(nn.Module):
    """All layers of VGG11 with batch norm for 32x32, with the reference's 512-512-classes head."""

    CONFIG = [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"]

    def __init__(self, n_classes):
        super().__init__()
        layers, channels = [], 3
        for entry in self.CONFIG:
            if entry == "M":
                layers.append(nn.MaxPool2d(2, 2))
            else:
                layers += [nn.Conv2d(channels, entry, 3, padding=1), nn.BatchNorm2d(entry), nn.ReLU()]
                channels = entry
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Dropout(0.0), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(0.0), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, n_classes)
        )

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


class Block(nn.Module):
    """A basic block; 1x1 convolution and norm on the shortcut where the shape changes."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.relu2 = nn.ReLU()
        self.downsample = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu2(y + (x if self.downsample is None else self.downsample(x)))


class ResNet20(nn.Module):
    """ResNet-20 for 32x32: stem of 16, three stages of three blocks."""

    def __init__(self, n_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        c_in = 16
        for stage, c_out in enumerate([16, 32, 64]):
            blocks = []
            for i in range(3):
                blocks.append(Block(c_in, c_out, 2 if stage > 0 and i == 0 else 1))
                c_in = c_out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(64, n_classes)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class Mixed(nn.Module):
    """The ops that the zoo's networks leave out: gelu, groups, dilation, concatenation, average and adaptive pools, a node used twice."""

    def __init__(self, n_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.bn1 = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False)
        self.conv3 = nn.Conv2d(10, 5, 1, bias=False)
        self.conv4 = nn.Conv2d(5, 5, 3, padding=2, dilation=2, groups=5)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.fc = nn.Linear(20, n_classes)

    def forward(self, x):
        x = F.gelu(self.bn1(self.conv1(x)), approximate="tanh")
        a = F.gelu(self.conv2(x))
        b = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        x = self.conv3(torch.cat([a, b], dim=1))
        x = x + self.conv4(x)
        x = self.pool(x)
        return self.fc(torch.flatten(F.adaptive_avg_pool2d(x, 2), 1))


class TinyNorm(nn.Module):
    """Convolution and batch norm twice, for the refresh of statistics."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 3, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(3)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(3, 4, 3, stride=2)
        self.bn2 = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
