#!/usr/bin/env python3
"""Writes state_dicts.json beside it: `python tests/golden/make_state_dicts.py`, with torch, torchvision and transformers installed.

Of every network of the zoo: how many tensors, how many numbers are learned, and the FNV-1a hash of the lines `name [shape]` of its state
dict. `--list SPEC SHAPE OUTPUTS` prints the lines themselves: `--list vit_b_16 3,224,224 1000`.
"""

import json
import pathlib
import sys

import torch
import torchvision
import transformers

from formula import fnv1a
from zoo_models import make, state_dict

IMAGE, CIFAR = [3, 224, 224], [3, 32, 32]
NETWORKS = [(name, IMAGE, 1000) for name in (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "densenet121", "mobilenet_v2", "mobilenet_v3_small",
    "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny", "vit_b_16",
)]
NETWORKS += [(name, CIFAR, 10) for name in (
    "cnn", "convfc",
    "vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn", "resnet20", "resnet32", "resnet56",
    "preresnet20", "preresnet110", "preresnet164", "wrn28:k=10", "wrn28:k=1", "vit_tiny",
    "vgg16:width=0.5,norm=layer", "vgg16:norm=group", "resnet20:width=2", "resnet20:width=4,norm=layer", "resnet20:norm=group,groups=4",
    "resnet56:width=0.3", "resnet50:width=0.5", "mobilenet_v2:width=0.35", "mobilenet_v2:width=1.4", "mobilenet_v3_large:width=0.75",
    "efficientnet_b0:width=1.1", "densenet121:width=0.25", "convnext_tiny:width=0.125",
)]
NETWORKS += [
    ("gpt", [64], 65), ("gpt:layers=6,width=384,heads=6,bias=on", [256], 65), ("gpt2", [128], 50257), ("bert", [128], 30522),
    ("llama:layers=2,width=64,heads=4,kv_heads=2", [16], 100), ("llama:layers=22,width=2048,kv_heads=4", [8], 32000),
]


def lines(spec, input_shape, n_outputs):
    with torch.device("meta"):
        net = make(spec, input_shape, n_outputs)
    if hasattr(net, "tie_weights"):
        net.tie_weights()
    rows = state_dict(net)
    if spec.startswith("llama"):
        rows.sort(key=lambda row: row[0])  # the order differs: see the zoo's documentation
    return net, [f"{name} {shape}" for name, shape in rows]


def entry(spec, input_shape, n_outputs):
    net, rows = lines(spec, input_shape, n_outputs)
    n_parameters = sum(p.numel() for p in net.parameters())
    text = "".join(line + "\n" for line in rows)
    return {"spec": spec, "input_shape": input_shape, "n_outputs": n_outputs, "n_tensors": len(rows), "n_parameters": n_parameters, "hash": f"{fnv1a(text):016x}"}


def main():
    if sys.argv[1:2] == ["--list"]:
        spec, shape, n_outputs = sys.argv[2:]
        print("\n".join(lines(spec, [int(d) for d in shape.split(",")], int(n_outputs))[1]))
        return
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__, "transformers": transformers.__version__}
    header = {"script": "tests/golden/make_state_dicts.py"} | {k: v.split("+")[0] for k, v in versions.items()}
    rows = ",\n".join("  " + json.dumps(entry(*network)) for network in NETWORKS)
    text = "{\n" + f' "header": {json.dumps(header)},\n "networks": [\n{rows}\n ]\n' + "}\n"
    (pathlib.Path(__file__).parent / "state_dicts.json").write_text(text)


if __name__ == "__main__":
    main()
