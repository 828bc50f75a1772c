#!/usr/bin/env python3
"""Writes `exports/*.json`: graphs as `export_graph.py` writes them, with what PyTorch finds for weights and inputs by the formula.

`python tests/golden/make_exports.py [NAME...]`, with torch, numpy and transformers installed. The modules are those of
`check_exports.py`; the numbers are the modules' own, not those of an interpreter of the graph.
"""

import json
import pathlib
import sys
import warnings

import torch
from torch import nn

import check_exports
from formula import fill, header, labels, rounded, summary, weight
from make_goldens import DIGITS

NAMES = (
    "shared_weights several_inputs_and_outputs signals u_net functional transformer_encoder decoder written_out "
    "hf_bert hf_gpt2 hf_llama hf_vit"
).split()
N_EXAMPLES = 3


def golden(name):
    torch.manual_seed(0)
    model, given = check_exports.CASES[name]()
    model = model.double()
    for tensor_name, p in model.named_parameters():
        p.data = weight("row0", tensor_name, p.shape)
    for tensor_name, b in model.named_buffers():
        # Tables that are part of the module, not what BatchNorm keeps.
        if b.is_floating_point() and not tensor_name.endswith(("running_mean", "running_var", "inv_freq", "mask")):
            b.copy_(fill(f"row0/{tensor_name}", b.shape))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = check_exports.export(model, given)
    nodes = [n for n in done.graph["nodes"] if n["op"] == "input"]
    bounds = {n["inputs"][0]: n["num_embeddings"] for n in done.graph["nodes"] if n["op"] == "embedding"}
    inputs, streams = [], {}
    for node in nodes:
        shape = (N_EXAMPLES, *node["shape"])
        size = torch.Size(shape).numel()
        if node.get("dtype") == "int":
            # From 1: the row of a padding token gets no gradient in PyTorch.
            n_classes = bounds[node["name"]] - 1
            inputs.append(1 + labels(node["name"], size, n_classes).reshape(shape))
            streams[node["name"]] = n_classes
        else:
            inputs.append(fill(node["name"], shape, 3**0.5))
            streams[node["name"]] = 0
    parameters = list(check_exports.inspect.signature(model.forward).parameters)
    by_name = dict(zip([n["name"] for n in nodes], inputs))
    arguments = {p: by_name.get(p, x) for p, x in zip(parameters, given)} if isinstance(given, tuple) else by_name
    assert not any("log_softmax" in note for note in done.notes), "its outputs are not the graph's"

    def outputs():
        return check_exports.outputs(model(**arguments))[: len(done.graph["outputs"])]

    model.eval()
    evaluated = [summary(y) for y in outputs()]
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    found = outputs()
    params = {n: p for n, p in model.named_parameters() if n in done.tensors}
    found[0].backward(fill("cotangent", found[0].shape))
    return {
        "header": header() | {"script": "tests/golden/make_exports.py"},
        "graph": done.graph,
        "inputs": streams,
        "evaluated": evaluated,
        "outputs": [summary(y) for y in found],
        "gradient": {n: summary(p.grad if p.grad is not None else torch.zeros_like(p)) for n, p in params.items()},
    }


def main(names):
    folder = pathlib.Path(__file__).parent / "exports"
    folder.mkdir(exist_ok=True)
    for name in names or NAMES:
        found = golden(name)
        graph = found["graph"]
        nodes = ",\n".join(f"  {json.dumps(n, separators=(',', ':'))}" for n in graph["nodes"])
        head = f' "graph": {{"format_version":2,"outputs":{json.dumps(graph["outputs"])},"nodes":[\n{nodes}\n ]}}'
        rest = rounded({k: v for k, v in found.items() if k != "graph"}, DIGITS)
        lines = [f" {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in rest.items() if k != "gradient"]
        gradient = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in rest["gradient"].items())
        text = "{\n" + ",\n".join([*lines, head, f' "gradient": {{\n{gradient}\n }}']) + "\n}\n"
        (folder / f"{name}.json").write_text(text)
        print(f"{name}.json: {len(text)} bytes", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
