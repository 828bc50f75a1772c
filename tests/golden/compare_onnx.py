"""Exports networks of torchvision and Hugging Face to ONNX and compares what landscape-onnx makes of them with ONNX Runtime.

    cargo build --release -p landscape-onnx --example compare
    python tests/golden/compare_onnx.py target/release/examples/compare [NAME ...]

Needs torch, torchvision, transformers, onnx, onnxscript and onnxruntime; downloads nothing. Each network is exported four ways: by
PyTorch's newer exporter as it is (`dyn`) and optimised (`opt`), by the older one with batch norms kept (`kept`) and folded (`leg`).
A row says how many parameters were found and how many there are, whether their names are the module's, and how far the logits are from
ONNX Runtime's, as a share of the largest. The optimised and the folded files have fewer parameters, or other names, by design.
"""

import json
import logging
import pathlib
import subprocess
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
import onnxruntime
import torch
import torchvision
import transformers as hf

SIZES = {name: 64 for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "densenet121", "mobilenet_v2")}
SIZES |= {name: 64 for name in ("mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny")} | {"vit_b_16": 32}
N = 2


class Logits(torch.nn.Module):
    def __init__(self, m):
        super().__init__()
        self.m = m

    def forward(self, x):
        return self.m(x).logits


def networks():
    for name, size in SIZES.items():
        options = {"image_size": size} if name.startswith("vit") else {}
        make = lambda name=name, options=options: getattr(torchvision.models, name)(num_classes=10, **options)
        yield name, make, lambda size=size: torch.randn(N, 3, size, size)
    small = dict(vocab_size=50, max_position_embeddings=32)
    body = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    tokens = lambda: torch.randint(0, 50, (N, 12))
    yield "bert", lambda: Logits(hf.BertForSequenceClassification(hf.BertConfig(**small, **body, num_labels=3))), tokens
    gpt2 = hf.GPT2Config(vocab_size=50, n_positions=32, n_embd=32, n_layer=2, n_head=4, use_cache=False)
    yield "gpt2", lambda: Logits(hf.GPT2LMHeadModel(gpt2)), tokens
    vit = hf.ViTConfig(**body, image_size=16, patch_size=4, num_labels=3)
    yield "vit", lambda: Logits(hf.ViTForImageClassification(vit)), lambda: torch.randn(N, 3, 16, 16)
    llama = hf.LlamaConfig(**small, **body, num_key_value_heads=2, use_cache=False)
    yield "llama", lambda: Logits(hf.LlamaForCausalLM(llama)), tokens


def export(model, x, path, how):
    if how in ("dyn", "opt"):
        shapes = ({0: torch.export.Dim("batch", min=1)},)
        program = torch.onnx.export(model, (x,), dynamo=True, optimize=how == "opt", dynamic_shapes=shapes, input_names=["x"], verbose=False)
        program.save(path, external_data=False)
    else:
        kept = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False} if how == "kept" else {}
        axes = {"x": {0: "batch"}}
        torch.onnx.export(model, (x,), path, dynamo=False, dynamic_axes=axes, input_names=["x"], opset_version=17, **kept)


def main(compare, *wanted):
    for name, make, example in networks():
        if wanted and name not in wanted:
            continue
        torch.manual_seed(0)
        model, x = make().eval(), example()
        for p in model.parameters():
            # A head of zeros would hide all that is before it.
            if p.ndim > 1 and not p.any():
                torch.nn.init.normal_(p, std=0.1)
        for m in model.modules():
            if isinstance(m, torch.nn.BatchNorm2d):
                m.running_mean.normal_(0, 0.1)
                m.running_var.uniform_(0.5, 1.5)
        names = {key for key, _ in model.named_parameters()}
        n_parameters = sum(p.numel() for p in model.parameters())
        for how in ("dyn", "opt", "kept", "leg"):
            with tempfile.TemporaryDirectory() as folder:
                files = [str(pathlib.Path(folder) / file) for file in ("model.onnx", "x", "y")]
                try:
                    export(model, x, files[0], how)
                except Exception as error:
                    print(f"{name:20} {how:5} PyTorch does not export it: {type(error).__name__}", flush=True)
                    continue
                y = onnxruntime.InferenceSession(files[0]).run(None, {"x": x.numpy()})[0]
                x.numpy().astype("<f4").tofile(files[1])
                y.astype("<f4").tofile(files[2])
                done = subprocess.run([compare, *files, str(N)], capture_output=True, text=True)
                if done.returncode:
                    print(f"{name:20} {how:5} {done.stderr.strip()}", flush=True)
                    continue
                got = json.loads(done.stdout)
                off = got["largest_difference"] / max(got["largest"], 1.0)
                same = "same names" if set(got["names"]) == names else f"{len(names - set(got['names']))} names differ"
                verdict = "ok" if got["fits"] and off <= 1e-5 else "FAR OFF"
                print(f"{name:20} {how:5} {got['n_parameters']} of {n_parameters} parameters, {same}, {off:.1e} {verdict}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
