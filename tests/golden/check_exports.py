"""Checks `export_graph.py` against PyTorch, module by module: `python tests/golden/check_exports.py [NAME...]`.

Each module gets random weights, is exported in f64 and run by `run_graph.py`; its outputs in evaluation mode, and the gradients of all
parameters with BatchNorm in training mode, must be the module's to 1e-10. Modules that cannot be exported must be refused with the
right line. One line a module; exit code 1 if one fails. Needs torch, torchvision and transformers; what is missing is skipped.
"""

import inspect
import os
import sys
import warnings

import torch
from torch import nn
from torch.nn import functional as F

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
sys.path.insert(0, os.path.join(ROOT, "crates", "landscape-cli", "src"))
import run_graph  # noqa: E402
from export_graph import ExportError, export  # noqa: E402

TOLERANCE = 1e-10
# The library takes this softmax in f32.
TOLERANCES = {"hf_llama_eager": 1e-6}
CASES, REFUSALS = {}, {}


def case(function):
    CASES[function.__name__] = function
    return function


def refused(*words):
    """A module that must be refused with these words in the reasons, the first of which is looked for in the line of the source."""

    def register(function):
        REFUSALS[function.__name__] = (function, words)
        return function

    return register


def image(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def tokens(n, length, vocabulary):
    # From 1: the row of a padding token gets no gradient in PyTorch.
    return torch.randint(1, vocabulary, (n, length))


# torchvision: the models of the issue, on small images.


def torchvision(name, size=64, **options):
    import torchvision.models as zoo

    return getattr(zoo, name)(weights=None, **options), (image(4, 3, size, size),)


for _name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "densenet121", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny"):
    CASES[_name] = lambda name=_name: torchvision(name)
CASES["vit_b_16"] = lambda: torchvision("vit_b_16", image_size=64)
CASES["swin_t"] = lambda: torchvision("swin_t")
CASES["vgg11_bn"] = lambda: torchvision("vgg11_bn", 32)
CASES["googlenet"] = lambda: torchvision("googlenet", init_weights=False)
CASES["shufflenet_v2_x0_5"] = lambda: torchvision("shufflenet_v2_x0_5")
CASES["squeezenet1_1"] = lambda: torchvision("squeezenet1_1")
CASES["regnet_y_400mf"] = lambda: torchvision("regnet_y_400mf")


# Hugging Face, from small configurations.


def exact_llama(model):
    """Norms and rotary tables in f64: the library computes them in f32, whatever the model is."""
    for norm in (m for m in model.modules() if type(m).__name__.endswith("RMSNorm")):
        norm.forward = lambda x, norm=norm: norm.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon))
    rotary = next(m for m in model.modules() if type(m).__name__.endswith("RotaryEmbedding"))

    def forward(x, position_ids):
        dim = 2 * rotary.inv_freq.shape[0]
        rates = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles = position_ids[:, :, None].double() * rates
        angles = torch.cat([angles, angles], -1)
        return angles.cos(), angles.sin()

    rotary.forward = forward
    return model


@case
def hf_bert():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=16)
    return BertForSequenceClassification(config), (tokens(3, 9, 50),)


@case
def hf_bert_masked_lm():
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, max_position_embeddings=16)
    return BertForMaskedLM(config), {"input_ids": tokens(3, 9, 50), "token_type_ids": torch.randint(0, 2, (3, 9))}


@case
def hf_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=16)), (tokens(3, 9, 50),)


@case
def hf_vit():
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=16, patch_size=4, num_labels=5)
    return ViTForImageClassification(config), (image(3, 3, 16, 16),)


@case
def hf_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64)
    return exact_llama(LlamaForCausalLM(config)), (tokens(3, 9, 50),)


@case
def hf_llama_eager():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, intermediate_size=64, tie_word_embeddings=True)
    config._attn_implementation = "eager"
    return exact_llama(LlamaForCausalLM(config)), (tokens(3, 9, 50),)


@case
def hf_convnext():
    from transformers import ConvNextConfig, ConvNextForImageClassification

    return ConvNextForImageClassification(ConvNextConfig(hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_labels=5, layer_scale_init_value=0.5)), (image(3, 3, 32, 32),)


# Odd ones.


class Shared(nn.Module):
    """Tied weights, and one layer at two places."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(11, 6), nn.Linear(6, 6), nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        return self.head(self.mix(torch.tanh(self.mix(x))))


@case
def shared_weights():
    return Shared(), (tokens(3, 5, 11),)


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.embed = nn.Linear(4, 6), nn.Linear(5, 6), nn.Embedding(7, 6)

    def forward(self, x, y, kind, unused):
        z = self.a(x) * self.b(y).sigmoid() + self.embed(kind).sum(1)
        return {"logits": z.relu(), "parts": (z.mean(1, keepdim=True), None), "again": z}


@case
def several_inputs_and_outputs():
    return Several(), (image(3, 4), image(3, 5), torch.randint(0, 7, (3, 2)), image(3, 9))


class Signal(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.norm, self.conv2 = nn.Conv1d(2, 6, 5, padding="same"), nn.BatchNorm1d(6), nn.Conv1d(6, 4, 4, padding="same", groups=2)
        self.pool, self.average, self.end, self.fc = nn.MaxPool1d(2), nn.AvgPool1d(3, stride=2, padding=1), nn.AdaptiveAvgPool1d(3), nn.Linear(12, 3)

    def forward(self, x):
        x = self.pool(F.leaky_relu(self.norm(self.conv1(x)), 0.2))
        x = self.end(self.average(F.elu(self.conv2(x))))
        return self.fc(x.view(x.size(0), -1))


@case
def signals():
    return Signal(), (image(3, 2, 24),)


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.InstanceNorm2d(4, affine=True), nn.ReLU(inplace=True))
        self.inner = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 8, 3, padding=1, padding_mode="reflect"), nn.GroupNorm(2, 8), nn.SiLU())
        self.up = nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1)
        self.head, self.wide = nn.Conv2d(8, 2, 1), nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, x):
        a = self.down(x)
        b = self.up(self.inner(a))
        b = F.pad(b, (1, 1, 0, 2))[:, :, : a.shape[2], 1:-1]
        return self.wide(F.interpolate(self.head(torch.cat([a, b], dim=1)), scale_factor=2, mode="nearest")).flatten(1)


@case
def u_net():
    return UNet(), (image(3, 1, 8, 8),)


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2, self.register = nn.Linear(5, 6), nn.Linear(6, 4), nn.Parameter(torch.randn(()))
        self.register_buffer("factor", torch.tensor(3.0))
        self.register_buffer("table", torch.randn(6))

    def forward(self, x):
        x = self.fc1(x)
        x += 1
        x.mul_(self.factor).relu_()
        x = x - self.table
        x[:] = x * 2
        with torch.no_grad():
            ramp = torch.arange(6, dtype=x.dtype)
            ramp[2:4] += 1
        x = F.dropout(x * ramp, 0.1, self.training) / (x.abs() + 1).sum(1, keepdim=True)
        return F.log_softmax(self.fc2(x).clamp_(-1, 1) * self.register, dim=1)


@case
def in_place_and_scalars():
    return InPlace(), (image(3, 5),)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.b, self.m = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6)), nn.Parameter(torch.randn(3, 6, 2))

    def forward(self, x):
        x = F.hardswish(x @ self.w + self.b).mish() if hasattr(torch.Tensor, "mish") else F.mish(F.hardswish(x @ self.w + self.b))
        a, b, c = torch.stack([x, x.pow(2), 1 / (x.exp() + 1)], dim=1).unbind(1)
        y = torch.einsum("bi,nij->bnj", a + b.flip(1) + c.roll(2, 1), self.m)
        y = y * F.normalize(x, dim=1)[:, :2].unsqueeze(1) - torch.var(x, dim=1).view(-1, 1, 1)
        y = torch.where(torch.tensor([True, False, True])[:, None], y, -y).masked_fill(torch.tensor([[False, True]]), 0.5)
        y = torch.cat([y, y[:, [2, 0, 1]]], -1).repeat(1, 2, 1).repeat_interleave(2, dim=2)
        y = torch.maximum(y, F.softplus(y, beta=2)) + F.selu(y) + F.celu(y, 0.5) + F.logsigmoid(y) + y.square().sqrt().tril()
        return F.glu(y.movedim(1, 2).flatten(1).unflatten(1, (8, 6)).chunk(2, dim=1)[0], dim=-1).std(dim=(1,), keepdim=True)


@case
def functional():
    return Functional(), (image(3, 4),)


@case
def transformer_encoder():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False), (image(3, 5, 8),)


class Decoder(nn.Module):
    """Causal self-attention by a mask, cross-attention with a packed projection, an additive mask, grouped heads."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.grouped = nn.Linear(8, 16)
        self.bias = nn.Parameter(torch.randn(4, 5, 5))
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(5))
        self.register_buffer("window", torch.randn(5, 5))

    def forward(self, x, memory):
        x = self.layer(x, memory, tgt_mask=self.mask, tgt_is_causal=True)
        q, k, v = self.grouped(x).split([8, 4, 4], dim=-1)
        heads = lambda t, n: t.view(*t.shape[:2], n, -1).transpose(1, 2)
        q, k, v = heads(q, 4), heads(k, 2), heads(v, 2)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        y = y + F.scaled_dot_product_attention(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), attn_mask=self.mask)
        y = y + F.scaled_dot_product_attention(q, k, v, attn_mask=self.window.double(), enable_gqa=True)
        y = y + F.scaled_dot_product_attention(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), attn_mask=self.bias)
        return y.transpose(1, 2).flatten(2)


@case
def decoder():
    return Decoder(), (image(3, 5, 8), image(3, 4, 8))


class WrittenOut(nn.Module):
    """What is fused: an RMS norm, both GELUs, silu, hardswish, by hand."""

    def __init__(self):
        super().__init__()
        self.weight, self.fc = nn.Parameter(torch.randn(6)), nn.Linear(6, 6)

    def forward(self, x):
        x = self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        x = 0.5 * x * (1.0 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * torch.pow(x, 3.0))))
        x = self.fc(x)
        x = x * 0.5 * (1.0 + torch.erf(x / 2**0.5))
        return x * torch.sigmoid(x) + x * F.relu6(x + 3) / 6


@case
def written_out():
    return WrittenOut(), (image(3, 4, 6),)


@case
def sequence_first():
    class SequenceFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.TransformerEncoderLayer(8, 2, 16)

        def forward(self, x):
            return self.layer(x.transpose(0, 1))[0]

    return SequenceFirst(), (image(3, 5, 8),)


# Refused.


@refused("self.rnn(x)", "lstm", "a recurrent layer", "no op of a graph does this")
def lstm():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.fc = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            y, _ = self.rnn(x)
            return self.fc(y[:, -1]).cumsum(1)

    return Recurrent(), (image(3, 5, 3),)


@refused("if x.sum() > 0", "cannot be traced", "depends on numbers in a tensor")
def branch_on_data():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            x = self.fc(x)
            if x.sum() > 0:
                return x
            return -x

    return Branch(), (image(3, 3),)


@refused("x.mean(0)", "batch axis")
def mixes_the_batch():
    class Mixes(nn.Module):
        def forward(self, x):
            return x - x.mean(0)

    return Mixes(), (image(3, 3),)


@refused("x / len(x)", "depends on the batch size")
def depends_on_the_batch_size():
    class Depends(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, x):
            x = self.fc(x)
            return x / len(x)

    return Depends(), (image(3, 3),)


@refused("x.view(3, -1)", "batch")
def fixed_batch():
    class Fixed(nn.Module):
        def forward(self, x):
            return x.view(3, -1).sin()

    return Fixed(), (image(3, 6),)


@refused("x[:2]", "batch axis")
def first_examples():
    class First(nn.Module):
        def forward(self, x):
            return x.relu() + x[:2].mean()

    return First(), (image(3, 6),)


@refused("y[:, 0] = 1", "writes into a part")
def writes_into_a_part():
    class Writes(nn.Module):
        def forward(self, x):
            y = x * 2
            y[:, 0] = 1
            return y

    return Writes(), (image(3, 6),)


@refused("np.asarray", "cannot be traced")
def numpy_inside():
    import numpy as np

    class Outside(nn.Module):
        def forward(self, x):
            return x * torch.from_numpy(np.asarray(x.detach().tolist()))

    return Outside(), (image(3, 6),)


@refused("self.norm(self.norm(x))", "one BatchNorm at several places")
def norm_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(4)

        def forward(self, x):
            return self.norm(self.norm(x))

    return Twice(), (image(3, 4),)


def outputs(x):
    """The tensors of a result as export_graph.py orders them."""
    if isinstance(x, torch.Tensor):
        return [x]
    if x is None:
        return []
    if hasattr(x, "keys"):
        return [t for k in x.keys() if k not in ("past_key_values",) for t in outputs(x[k])]
    return [t for part in x for t in outputs(part)]


def relative(got, want, room=0.0):
    return float((got - want).norm() / (want.norm() + room))


def check(make):
    """The greatest relative difference of outputs and of gradients, and the graph's size."""
    torch.manual_seed(0)
    model, inputs = make()
    model = model.double()
    for name, p in model.named_parameters():
        # Nothing zero, nothing large.
        scale = p.shape[1:].numel() ** -0.5 if p.dim() > 1 else 0.3
        p.data = scale * torch.randn_like(p) + (1.0 if p.dim() == 1 and name.endswith("weight") else 0.0)
    model.train()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = export(model, inputs)
    assert all(m.training for m in model.modules()), "the module was left in another mode"
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    kept = {n["name"] for n in done.graph["nodes"] if n["op"] == "input"}
    given = list(kwargs.values()) if kwargs else list(args)
    if len(kept) < len(given):
        # Named by the argument.
        names = list(kwargs) if kwargs else [p for p in inspect.signature(model.forward).parameters][: len(given)]
        given = [x for name, x in zip(names, given) if name in kept]
    model.eval()
    tensors = {name: t.double().clone() for name, t in done.tensors.items()}
    stats = ("running_mean", "running_var", "num_batches_tracked")
    learned = {name for name in tensors if not name.endswith(stats)}
    with torch.no_grad():
        want = outputs(model(*args, **kwargs))[: len(done.graph["outputs"])]
        got = run_graph.run(done.graph, tensors, given)
    logits = any("log_softmax" in note for note in done.notes)
    forward = max(relative((g.log_softmax(-1) if logits else g).reshape(w.shape), w) for g, w in zip(got, want))
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()
    want = outputs(model(*args, **kwargs))[: len(got)]
    signs = [torch.randn_like(w) for w in want]
    params = {n: p for n, p in model.named_parameters() if n in learned}
    assert set(params) == learned, set(params) ^ learned
    theirs = dict(zip(params, torch.autograd.grad(sum((w * s).sum() for w, s in zip(want, signs)), list(params.values()), allow_unused=True)))
    for name in learned:
        tensors[name].requires_grad_(True)
    got = run_graph.run(done.graph, tensors, given, training=True)
    total = sum(((g.log_softmax(-1) if logits else g).reshape(w.shape) * s).sum() for g, w, s in zip(got, want, signs))
    ours = dict(zip(params, torch.autograd.grad(total, [tensors[n] for n in params])))
    whole = torch.stack([g.norm() for g in theirs.values() if g is not None]).norm()
    backward = max((relative(ours[n].reshape(theirs[n].shape), theirs[n], 1e-3 * whole), n) for n in params if theirs[n] is not None)
    return forward, backward, done


def main():
    wanted = sys.argv[1:] or [*CASES, *REFUSALS]
    failures = 0
    for name in wanted:
        try:
            if name in REFUSALS:
                make, words = REFUSALS[name]
                try:
                    model, inputs = make()
                    export(model.double(), inputs)
                except ExportError as error:
                    text = " | ".join(error.reasons)
                    source, first = inspect.getsourcelines(make)
                    lines = [first + i for i, line in enumerate(source) if words[0] in line and "refused" not in line]
                    fits = any(f"{os.path.basename(__file__)}:{n}" in text for n in lines) and all(w in text for w in words[1:])
                    print(f"{name:28} {'refused' if fits else 'FAIL, refused otherwise'}: {text}")
                    failures += not fits
                else:
                    print(f"{name:28} FAIL: was not refused")
                    failures += 1
                continue
            forward, (backward, where), done = check(CASES[name])
            tolerance = TOLERANCES.get(name, TOLERANCE)
            fails = not (forward <= tolerance and backward <= tolerance)
            failures += fails
            notes = f"; {len(done.notes)} notes" if done.notes else ""
            print(f"{name:28} {'FAIL' if fails else 'ok'}: outputs {forward:.1e}, gradients {backward:.1e}{f' at {where}' if fails else ''}, {len(done.graph['nodes'])} nodes{notes}")
        except ImportError as error:
            print(f"{name:28} skipped: {error}")
        except ExportError as error:
            failures += 1
            print(f"{name:28} FAIL, refused:", *error.reasons, sep="\n    ")
        sys.stdout.flush()
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
