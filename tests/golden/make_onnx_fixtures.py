"""Writes the ONNX files of crates/landscape-onnx/tests/fixtures and what ONNX Runtime computes of them.

    python tests/golden/make_onnx_fixtures.py

Made with onnx 1.23.2 and onnxruntime 1.31.1. Weights and inputs are formulas (formula.py); `expected.json` holds, per file, how many
parameters there are and which, the inputs example by example, input after input, and every output.
"""

import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import formula

OUT = pathlib.Path(__file__).parents[2] / "crates/landscape-onnx/tests/fixtures"
N = 3
F, I = TensorProto.FLOAT, TensorProto.INT64


class File:
    """A graph that grows node by node; weights are initialisers by name, constants `Constant` nodes."""

    def __init__(self, name, opset=17):
        self.name, self.opset = name, opset
        self.nodes, self.weights, self.inputs, self.outputs, self.n = [], [], [], [], 0

    def input(self, name, shape, kind=F, batch="batch"):
        self.inputs.append(helper.make_tensor_value_info(name, kind, [batch, *shape]))
        return name

    def weight(self, name, *shape, scale=0.5, shift=0.0):
        values = formula.fill(f"onnx/{self.name}/{name}", shape, scale, shift).numpy().astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def const(self, values, kind=np.float32):
        return self("Constant", value=numpy_helper.from_array(np.asarray(values, kind)))

    def ints(self, *values):
        return self.const(values, np.int64)

    def __call__(self, op, *inputs, n_outputs=1, **attributes):
        outputs = [f"v{self.n + i}" for i in range(n_outputs)]
        self.n += n_outputs
        self.nodes.append(helper.make_node(op, list(inputs), outputs, name=f"{op.lower()}{len(self.nodes)}", **attributes))
        return outputs[0] if n_outputs == 1 else outputs

    def output(self, value):
        self.outputs.append(helper.make_tensor_value_info(value, F, None))

    def model(self):
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], producer_name="")
        model.ir_version = 10
        return model


def mlp():
    f = File("mlp")
    x = f.input("features", [6])
    x = f("Gemm", x, f.weight("fc1.weight", 5, 6), f.weight("fc1.bias", 5), transB=1)
    x = f("Relu", x)
    # A linear layer in two ops, its weight transposed by one of its own.
    x = f("MatMul", x, f("Transpose", f.weight("fc2.weight", 4, 5), perm=[1, 0]))
    f.output(f("Add", f.weight("fc2.bias", 4), x))
    return f


def convnet():
    f = File("convnet")
    x = f.input("image", [2, 9, 8])
    x = f("Conv", x, f.weight("conv1.weight", 4, 2, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER")
    # No part of a norm is near zero.
    bn = [f.weight("bn1.weight", 4, shift=1.0), f.weight("bn1.bias", 4), f.weight("bn1.running_mean", 4), f.weight("bn1.running_var", 4, shift=1.0)]
    x = f("BatchNormalization", x, *bn, epsilon=1e-3, momentum=0.8)
    x = f("Mul", x, f("Sigmoid", x))
    y = f("Conv", x, f.weight("conv2.weight", 4, 1, 3, 3), f.weight("conv2.bias", 4), group=4, pads=[1, 1, 1, 1])
    x = f("Add", x, f("HardSwish", y))
    # Squeeze and excite.
    s = f("GlobalAveragePool", x)
    s = f("HardSigmoid", f("Conv", s, f.weight("se.weight", 4, 4, 1, 1), f.weight("se.bias", 4)), alpha=1 / 6, beta=0.5)
    x = f("Mul", s, x)
    x = f("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    x = f("ConvTranspose", x, f.weight("up.weight", 4, 3, 2, 2), f.weight("up.bias", 3), strides=[2, 2], output_padding=[1, 0])
    x = f("Clip", x, f.const(0.0), f.const(6.0))
    x = f("Resize", x, "", f.const([1, 1, 2, 2]), mode="linear", coordinate_transformation_mode="half_pixel")
    x = f("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=0)
    x = f("Pad", x, f.ints(0, 0, 0, 1, 0, 0, 1, 0), f.const(0.5))
    x = f("Flatten", x, axis=1)
    width = 3 * 8 * 5
    f.output(f("Gemm", x, f.weight("fc.weight", width, 3, scale=0.2), f.weight("fc.bias", 3)))
    return f


def layer_norm(f, x, name, width):
    mean = f("ReduceMean", x, axes=[-1])
    d = f("Sub", x, mean)
    variance = f("ReduceMean", f("Pow", d, f.const(2.0)), axes=[-1])
    y = f("Div", d, f("Sqrt", f("Add", variance, f.const(1e-5))))
    return f("Add", f("Mul", y, f.weight(f"{name}.weight", width, shift=1.0)), f.weight(f"{name}.bias", width))


def rms_norm(f, x, name, width):
    scale = f("Reciprocal", f("Sqrt", f("Add", f("ReduceMean", f("Mul", x, x), axes=[-1]), f.const(1e-6))))
    return f("Mul", f.weight(f"{name}.weight", width, shift=1.0), f("Mul", x, scale))


def gelu(f, x):
    gate = f("Add", f("Erf", f("Div", x, f.const(np.sqrt(2.0)))), f.const(1.0))
    return f("Mul", f("Mul", x, gate), f.const(0.5))


def gelu_tanh(f, x):
    inner = f("Add", x, f("Mul", f.const(0.044715), f("Pow", x, f.const(3.0))))
    gate = f("Add", f.const(1.0), f("Tanh", f("Mul", f.const(np.sqrt(2 / np.pi)), inner)))
    return f("Mul", f("Mul", f.const(0.5), x), gate)


def transformer():
    """A decoder as exporters write one: the batch moves, heads join it, masks and shapes are computed."""
    f = File("transformer")
    vocabulary, length, width, heads = 11, 5, 8, 2
    tokens = f.input("tokens", [length], I)
    f.weight("wte.weight", vocabulary, width)
    x = f("Gather", "wte.weight", tokens, axis=0)
    positions = f("Range", f.const(0, np.int64), f.const(length, np.int64), f.const(1, np.int64))
    x = f("Add", x, f("Gather", f.weight("wpe.weight", length + 2, width), f("Unsqueeze", positions, f.ints(0)), axis=0))
    batch = f("Gather", f("Shape", tokens), f.const(0, np.int64), axis=0)

    h = layer_norm(f, x, "ln_1", width)
    h = f("Transpose", h, perm=[1, 0, 2])
    qkv = f("Add", f("MatMul", h, f.weight("attn.weight", width, 3 * width)), f.weight("attn.bias", 3 * width))
    q, k, v = f("Split", qkv, f.ints(width, width, width), n_outputs=3, axis=2)
    joined = f("Concat", f.ints(length), f("Unsqueeze", f("Mul", batch, f.const(heads, np.int64)), f.ints(0)), f.ints(width // heads), axis=0)
    q, k, v = (f("Transpose", f("Reshape", part, joined), perm=[1, 0, 2]) for part in (q, k, v))
    q = f("Mul", q, f.const((width // heads) ** -0.5))
    scores = f("MatMul", q, f("Transpose", k, perm=[0, 2, 1]))
    size = f.ints(length, length)
    seen = f("Trilu", f("ConstantOfShape", size, value=numpy_helper.from_array(np.ones(1, np.float32))), upper=0)
    mask = f("Where", f("Equal", seen, f.const(0.0)), f.const(-np.inf), f.const(0.0))
    weights = f("Softmax", f("Add", scores, mask), axis=-1)
    y = f("Transpose", f("MatMul", weights, v), perm=[1, 0, 2])
    y = f("Reshape", y, f("Concat", f.ints(length), f("Unsqueeze", batch, f.ints(0)), f.ints(width), axis=0))
    y = f("Add", f("MatMul", y, f.weight("proj.weight", width, width)), f.weight("proj.bias", width))
    x = f("Add", x, f("Transpose", y, perm=[1, 0, 2]))

    h = rms_norm(f, x, "ln_2", width)
    h = gelu(f, f("MatMul", h, f.weight("up.weight", width, 12)))
    x = f("Add", x, f("MatMul", gelu_tanh(f, h), f.weight("down.weight", 12, width)))
    # The table of tokens again, as the last layer.
    f.output(f("MatMul", x, f("Transpose", "wte.weight", perm=[1, 0])))
    return f


def mixed():
    """Two inputs and outputs, a batch that the file fixes, and what else there is."""
    f = File("mixed")
    signal = f.input("signal", [4, 10], batch=N)
    extra = f.input("extra", [6], batch=N)
    x = f("Conv", signal, f.weight("conv.weight", 6, 2, 3), f.weight("conv.bias", 6), group=2, pads=[2, 0], strides=[2])
    # Group norm with the detour.
    y = f("InstanceNormalization", f("Reshape", x, f.ints(0, 3, -1)), f.const(np.ones(3)), f.const(np.zeros(3)), epsilon=1e-5)
    y = f("Reshape", y, f("Shape", x))
    x = f("Add", f("Mul", y, f.weight("norm.weight", 6, 1, shift=1.0)), f.weight("norm.bias", 6, 1))
    x = f("InstanceNormalization", x, f.weight("instance.weight", 6, shift=1.0), f.weight("instance.bias", 6))
    x = f("LeakyRelu", x, alpha=0.2)
    x = f("PRelu", x, f.weight("slope", 6, 1))
    x = f("Elu", x, alpha=0.7)
    x = f("MaxPool", x, kernel_shape=[2], strides=[1])
    x = f("LayerNormalization", x, f.weight("ln.weight", 4, shift=1.0), f.weight("ln.bias", 4), axis=-1)
    # [N, 6, 4], and the batch in front of the features as a burnt number.
    flat = f("Reshape", x, f.ints(N, 24))
    picked = f("Gather", x, f.const(-1, np.int64), axis=2)
    both = f("Concat", f("Slice", flat, f.ints(1), f.ints(1000), f.ints(1), f.ints(2)), picked, extra, axis=1)
    token = f("Expand", f.weight("token", 1, 1, 2), f.ints(N, 1, 2))
    both = f("Concat", f("Unsqueeze", both, f.ints(1)), f("Pad", token, f.ints(0, 0, 0, 0, 0, 22)), axis=1)
    both = f("ReduceMean", both, axes=[1], keepdims=0)
    logits = f("Gemm", both, f.weight("fc.weight", 3, 24), f.weight("fc.bias", 3), transB=1, alpha=1.0, beta=1.0)
    f.output(logits)
    mean = f("ReduceSum", f("Softplus", x), f.ints(1, 2), keepdims=0)
    mean = f("Unsqueeze", mean, f.ints(1))
    f.output(f("Div", f("Exp", f("Neg", f("Sub", f.const(1.0), f("Sqrt", mean)))), f("Max", mean, f.const(0.5))))
    return f


def attention():
    """The ops of version 23."""
    f = File("attention", opset=23)
    x = f.input("x", [6, 8])
    h = f("RMSNormalization", x, f.weight("norm.weight", 8, shift=1.0), epsilon=1e-6)
    q, k, v = (f("MatMul", h, f.weight(f"{name}.weight", 8, width)) for name, width in (("q", 8), ("k", 4), ("v", 4)))
    y = f("Attention", q, k, v, q_num_heads=4, kv_num_heads=2, is_causal=1)
    x = f("Add", x, y)
    x = f("Gelu", x, approximate="tanh")
    f.output(f("ReduceMean", x, f.ints(1), keepdims=0))
    return f


def inputs_of(f):
    feeds = {}
    for info in f.inputs:
        shape = [N] + [d.dim_value for d in info.type.tensor_type.shape.dim][1:]
        name = f"onnx/{f.name}/input/{info.name}"
        if info.type.tensor_type.elem_type == I:
            feeds[info.name] = formula.labels(name, int(np.prod(shape)), 11).numpy().reshape(shape)
        else:
            feeds[info.name] = formula.fill(name, shape).numpy().astype(np.float32)
    return feeds


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    expected = {"generator": "tests/golden/make_onnx_fixtures.py", "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__, "n": N}
    for make in (mlp, convnet, transformer, mixed, attention):
        f = make()
        model = f.model()
        onnx.save(model, OUT / f"{f.name}.onnx")
        feeds = inputs_of(f)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        outputs = session.run(None, feeds)
        rows = np.concatenate([feeds[info.name].reshape(N, -1).astype(np.float64) for info in f.inputs], axis=1)
        buffers = ("running_mean", "running_var")
        names = {w.name: list(w.dims) for w in f.weights if not w.name.endswith(buffers)}
        expected[f.name] = {
            "n_parameters": int(sum(np.prod(dims) for dims in names.values())),
            "names": sorted(names),
            "inputs": rows.reshape(-1).tolist(),
            "outputs": [o.reshape(-1).astype(np.float64).tolist() for o in outputs],
        }
    # The first network again, its weights in a file of their own.
    model = mlp().model()
    onnx.save(model, OUT / "external.onnx", save_as_external_data=True, location="external.bin", size_threshold=0)
    (OUT / "expected.json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
