"""Writes a PyTorch module as a graph and weights for Landscape. Needs nothing but torch (2.6 or later).

    from export_graph import export
    export(model, (torch.randn(1, 3, 32, 32),), "model.json", "model.safetensors")

    python export_graph.py my_package.my_module:make_model --input 1,3,32,32 --out model
    python export_graph.py my_module:make_gpt --input 1,64:int --out gpt

The first axis of every input is the batch; how long it is does not matter (the module is traced with 2 and with 3 examples, and
whatever depends on their number is refused). The JSON holds the ops, whose names are the paths of the modules; the safetensors
file holds the parameters and BatchNorm statistics under the state dict's names, and the graph once more, so that it is a checkpoint of
its own: `landscape train --init-from model.safetensors`, `landscape connect a.safetensors b.safetensors`.

The module is traced in evaluation mode (and left in the mode it was in); BatchNorm and dropout come back as layers that train.
What does not depend on an input or a parameter becomes a constant. What a graph cannot say is refused with one line per op, all at
once: the op, where it is, the line of your forward, and what to do instead; the command then ends with exit code 2.

It is one file, longer than others of this project, because it is copied to where torch is.
"""

import argparse
import contextlib
import dataclasses
import importlib
import inspect
import io
import json
import linecache
import logging
import math
import os
import re
import struct
import sys
import traceback
import warnings

import torch
from torch.utils import _pytree as pytree

BATCHES = (2, 3)
TORCH_DIR = os.path.dirname(torch.__file__) + os.sep
# An infinite number cannot stand in JSON; exp of it is 0 in any precision.
MINUS_INFINITY = -1e30
MAX_PIECES = 128


class ExportError(Exception):
    """What cannot be exported; `reasons` holds one line each."""

    def __init__(self, reasons):
        super().__init__("\n".join(reasons))
        self.reasons = reasons


class Refused(Exception):
    """Why one op cannot be written, and what to do."""


@dataclasses.dataclass
class Exported:
    """What was written: the graph as a dict, the tensors by name, and what the reader should know."""

    graph: dict
    tensors: dict
    notes: list


@dataclasses.dataclass(eq=False)
class Node:
    """An op of the graph; `shape` is an example's."""

    op: str
    attrs: dict
    inputs: list
    shape: tuple
    tensors: dict
    at: "At"
    name: str = ""

    def is_op(self, op, **attrs):
        return self.op == op and all(self.attrs.get(k) == v for k, v in attrs.items())


@dataclasses.dataclass
class At:
    """Where in the user's program we are."""

    op: str
    fx_name: str
    path: str
    line: str
    is_leaf: bool
    hint: str = ""


@dataclasses.dataclass
class Const:
    """A tensor that depends on no input and no parameter, in both traces."""

    a: torch.Tensor
    b: torch.Tensor
    name: str = ""

    @property
    def shapes(self):
        return tuple(self.a.shape), tuple(self.b.shape)


@dataclasses.dataclass
class Param:
    """A parameter as it is, or its transpose."""

    name: str
    tensor: torch.Tensor
    flipped: bool = False

    @property
    def shapes(self):
        shape = tuple(self.tensor.shape)
        return (shape[::-1] if self.flipped else shape,) * 2


@dataclasses.dataclass
class Value:
    """A tensor that a node yields. Its axis `axis` is left · batch · right long; `axis` is None where examples share it."""

    node: Node
    shapes: tuple
    axis: int | None = None
    left: int = 1
    right: int = 1

    @property
    def rank(self):
        return len(self.shapes[0])


class Unknown:
    """The result of an op that was refused."""


def numel(shape):
    return math.prod(shape)


def example_shape(shape, axis, left, right):
    """An example's part of a tensor."""
    if axis is None:
        return tuple(shape) or (1,)
    folded = tuple(n for n in (left, right) if n > 1)
    return tuple(shape[:axis]) + folded + tuple(shape[axis + 1 :]) or (1,)


def batch_axis(shapes):
    """The axis that is longer in the second trace."""
    a, b = shapes
    if len(a) != len(b):
        raise Refused("the number of axes depends on the batch size; write the forward for any batch size")
    differ = [i for i in range(len(a)) if a[i] != b[i]]
    if not differ:
        return None
    if len(differ) > 1 or a[differ[0]] * BATCHES[1] != b[differ[0]] * BATCHES[0]:
        raise Refused(
            f"the batch axis is mixed with others: the result is {list(a)} for {BATCHES[0]} examples and {list(b)} for {BATCHES[1]}; "
            "keep the batch an axis of its own"
        )
    return differ[0]


def broadcast(a, b):
    rank = max(len(a), len(b))
    a, b = (1,) * (rank - len(a)) + tuple(a), (1,) * (rank - len(b)) + tuple(b)
    if any(m != n and 1 not in (m, n) for m, n in zip(a, b)):
        raise Refused(f"shapes {list(a)} and {list(b)} do not fit example by example")
    return tuple(n if m == 1 else m for m, n in zip(a, b))


def infer(op, attrs, shapes):
    """The shape of a node's result."""
    x = shapes[0] if shapes else ()
    size = attrs.get("kernel_size")
    match op:
        case "linear":
            return x[:-1] + (attrs["out_features"],)
        case "conv2d" | "max_pool2d" | "avg_pool2d":
            dilation = attrs.get("dilation", (1, 1))
            windows = ((x[i + 1] + 2 * attrs["padding"][i] - dilation[i] * (size[i] - 1) - 1) // attrs["stride"][i] + 1 for i in (0, 1))
            return (attrs.get("out_channels", x[0]), *windows)
        case "conv1d":
            return (attrs["out_channels"], (x[1] + 2 * attrs["padding"] - attrs["dilation"] * (size - 1) - 1) // attrs["stride"] + 1)
        case "conv_transpose2d":
            pad, out, step, gap = (attrs[k] for k in ("padding", "output_padding", "stride", "dilation"))
            full = ((x[i + 1] - 1) * step[i] - 2 * pad[i] + gap[i] * (size[i] - 1) + out[i] + 1 for i in (0, 1))
            return (attrs["out_channels"], *full)
        case "embedding":
            return x + (attrs["embedding_dim"],)
        case "attention":
            return shapes[0][:2] + shapes[2][2:]
        case "matmul":
            return x[:-1] + shapes[1][-1:]
        case "add" | "multiply":
            return broadcast(*shapes)
        case "adaptive_avg_pool2d":
            return x[:1] + tuple(attrs["output_size"])
        case "global_avg_pool":
            return x[:1] + (1, 1)
        case "upsample":
            return x[:1] + tuple(attrs["size"])
        case "mean":
            first, last = attrs["start_dim"], attrs["end_dim"]
            return x[:first] + ((1,) * (last + 1 - first) if attrs["keepdim"] else ()) + x[last + 1 :]
        case "flatten":
            return (numel(x),)
        case "reshape" | "expand" | "parameter" | "constant" | "input":
            return tuple(attrs["shape"])
        case "permute":
            return tuple(x[d] for d in attrs["dims"])
        case "slice":
            n = -(-(attrs["end"] - attrs["start"]) // attrs["step"])
            return x[: attrs["dim"]] + (n,) + x[attrs["dim"] + 1 :]
        case "concat":
            dim = attrs["dim"]
            return x[:dim] + (sum(s[dim] for s in shapes),) + x[dim + 1 :]
    return x


HANDLERS = {}
# Their results' shapes are read off the traces, so that their arguments may hold the batch size.
BY_SHAPE = {"new_zeros", "new_ones", "new_full", "view", "reshape", "_unsafe_view", "unflatten", "expand", "repeat", "view_as", "reshape_as", "expand_as", "flatten"}


def handles(*names):
    def register(function):
        HANDLERS.update({name: function for name in names})
        return function

    return register


class Exporter:
    """Walks both traces at once and collects nodes."""

    def __init__(self, model):
        self.nodes, self.reasons, self.notes, self.used_norms = [], [], [], set()
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.reserved = set(self.modules) | {name for name, _ in model.named_parameters(remove_duplicate=False)}
        # Tensors that share memory are one, under the first name.
        self.first_names = {}
        for name, tensor in model.named_parameters(remove_duplicate=False):
            key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride()) if tensor.numel() else (name,)
            self.first_names[name] = self.first_names.setdefault(key, name)
        self.params = dict(model.named_parameters(remove_duplicate=False))
        self.buffers = dict(model.named_buffers(remove_duplicate=False))
        self.attention_dropout = {}
        self.param_nodes, self.constants, self.at, self.out_shapes = {}, {}, None, None

    # Making nodes.

    def emit(self, op, inputs=(), tensors=None, hint="", **attrs):
        """Adds a node, unless it does nothing or makes one op with those before it."""
        inputs = list(inputs)
        x = inputs[0] if inputs else None
        attrs = {k: list(v) if isinstance(v, (tuple, torch.Size)) else v for k, v in attrs.items()}
        if op == "reshape":
            while x.op in ("reshape", "flatten"):
                x = x.inputs[0]
            if x.op == "constant":
                return self.constant(torch.tensor(x.attrs["values"], dtype=torch.float64).reshape(attrs["shape"]))
            inputs = [x]
        elif op == "permute" and x.op == "permute":
            attrs["dims"], x = [x.attrs["dims"][d] for d in attrs["dims"]], x.inputs[0]
            inputs = [x]
        elif op == "affine" and x.op == "affine":
            scale, shift = x.attrs["scale"], x.attrs["shift"]
            attrs = {"scale": attrs["scale"] * scale, "shift": attrs["scale"] * shift + attrs["shift"]}
            inputs = [x := x.inputs[0]]
        elif op == "power" and attrs["exponent"] == -1.0 and x.is_op("power", exponent=0.5):
            attrs["exponent"], inputs = -0.5, [x := x.inputs[0]]
        if op == "reshape" and len(attrs["shape"]) == 1:
            op, attrs = "flatten", {}
        shape = infer(op, attrs, [n.shape for n in inputs])
        nothing = {
            "reshape": lambda: shape == x.shape,
            "flatten": lambda: shape == x.shape,
            "expand": lambda: shape == x.shape,
            "slice": lambda: shape == x.shape,
            "permute": lambda: attrs["dims"] == sorted(attrs["dims"]),
            "affine": lambda: attrs == {"scale": 1.0, "shift": 0.0},
            "power": lambda: attrs["exponent"] == 1.0,
            "dropout": lambda: attrs["p"] == 0.0,
            "concat": lambda: len(inputs) == 1,
        }
        if nothing.get(op, lambda: False)():
            return x
        if len(shape) > 6:
            raise Refused(f"an example has {len(shape)} axes, {list(shape)}, and a graph's have at most 6; reshape in fewer steps")
        if (fused := fuse(self, op, inputs, attrs)) is not None:
            return fused
        node = Node(op, attrs, inputs, shape, tensors or {}, dataclasses.replace(self.at, hint=hint))
        self.nodes.append(node)
        return node

    def reshape(self, x, shape):
        return self.emit("reshape", [x], shape=tuple(shape))

    def affine(self, x, scale=1.0, shift=0.0):
        return self.emit("affine", [x], scale=float(scale), shift=float(shift))

    def expand(self, x, shape):
        if len(x.shape) > len(shape):
            x = self.reshape(x, x.shape[len(x.shape) - len(shape) :])
        return self.emit("expand", [x], shape=tuple(shape))

    def constant(self, tensor):
        tensor = tensor.detach().to("cpu", torch.float64)
        tensor = tensor.reshape(tensor.shape or (1,)).clamp(MINUS_INFINITY, -MINUS_INFINITY)
        if tensor.isnan().any():
            raise Refused("a constant of the network holds NaN")
        key = (tuple(tensor.shape), tensor.numpy().tobytes())
        if key not in self.constants:
            values = [int(v) if v == int(v) and abs(v) < 2**53 else v for v in tensor.flatten().tolist()]
            self.constants[key] = self.emit("constant", shape=tuple(tensor.shape), values=values)
        return self.constants[key]

    def parameter(self, param):
        name = self.first_names[param.name]
        if name not in self.param_nodes:
            node = self.emit("parameter", tensors={"parameter": name}, shape=tuple(param.tensor.shape) or (1,))
            node.name, self.param_nodes[name] = name, node
        node = self.param_nodes[name]
        return self.emit("permute", [node], dims=(1, 0)) if param.flipped else node

    def gather(self, x, axis, indices):
        """The places `indices` of an axis, as slices one after the other."""
        runs = []
        for i in indices:
            if runs and (len(runs[-1]) == 1 and i > runs[-1][0] or len(runs[-1]) > 1 and i - runs[-1][-1] == runs[-1][1] - runs[-1][0]):
                runs[-1].append(i)
            else:
                runs.append([i])
        if len(runs) > MAX_PIECES:
            raise Refused(f"picks {len(indices)} places in no regular order; use `nn.Embedding`, or a product with a constant matrix")
        step = lambda run: run[1] - run[0] if len(run) > 1 else 1
        pieces = [self.emit("slice", [x], dim=axis, start=run[0], end=run[-1] + 1, step=step(run)) for run in runs]
        return self.emit("concat", pieces, dim=axis)

    def rows_product(self, a, b):
        """The product of matrices, where axes in front are repeated as needed."""
        rank = max(len(a.shape), len(b.shape), 2)
        a, b = (self.reshape(t, (1,) * (rank - len(t.shape)) + t.shape) for t in (a, b))
        lead = broadcast(a.shape[:-2], b.shape[:-2])
        return self.emit("matmul", [self.expand(t, lead + t.shape[-2:]) for t in (a, b)])

    # Between PyTorch's tensors and examples.

    def value(self, x):
        """Any operand as a value."""
        if isinstance(x, Value):
            return x
        if isinstance(x, Param):
            return Value(self.parameter(x), x.shapes)
        axis = batch_axis(x.shapes)
        if axis is None:
            if not torch.equal(x.a, x.b):
                raise Refused("a constant depends on the batch size; leave the batch size out of the computation")
            return Value(self.constant(x.a), x.shapes)
        right = x.shapes[0][axis] // BATCHES[0]
        rows = [t.unflatten(axis, (-1, right)) for t in (x.a, x.b)]
        one = rows[0].narrow(axis, 0, 1)
        if not all((t == one).all() for t in rows):
            raise Refused("a constant differs between the examples of a batch; give it to the module as an input")
        one = one.squeeze(axis) if right > 1 else one.squeeze(axis).squeeze(axis)
        return Value(self.constant(one), x.shapes, axis, 1, right)

    def dim(self, v, dim):
        """The axis of an example that is PyTorch's axis `dim`."""
        dim %= max(v.rank, 1)
        if v.axis is None or dim < v.axis:
            return dim
        if dim == v.axis:
            raise Refused("works along the batch axis, and examples know nothing of each other; work along another axis")
        return dim + (v.left > 1) + (v.right > 1) - 1

    def out(self, node, *sources, idx=None, fold=None):
        """The op's result: `node` in the place that the traces say, checked against their shapes."""
        shapes = self.out_shapes if idx is None else self.out_shapes[idx]
        axis = batch_axis(shapes)
        of_batch = [s for s in sources if isinstance(s, Value) and s.axis is not None]
        left, right = fold or (((of_batch[0].left, of_batch[0].right)) if of_batch else (1, 1))
        if axis is None and of_batch:
            raise Refused("loses the batch axis: the result is one for all examples; keep the first axis the batch")
        if axis is not None and shapes[0][axis] != left * BATCHES[0] * right:
            raise Refused(f"moves or mixes the batch axis: the result is {list(shapes[0])} for {BATCHES[0]} examples")
        expected = example_shape(shapes[0], axis, left, right)
        if node.shape != expected:
            if numel(node.shape) != numel(expected):
                raise Refused(f"an example's result would be {list(node.shape)} and PyTorch's is {list(expected)}; report this as a bug")
            node = self.reshape(node, expected)
        return Value(node, shapes, axis, left, right)

    def align(self, *operands):
        """Nodes whose axes, from the last, are the operands' in PyTorch."""
        rank = max(len(x.shapes[0]) for x in operands)
        values = [self.value(x) for x in operands]
        places = {(rank - v.rank + v.axis, v.left, v.right) for v in values if v.axis is not None}
        if len(places) > 1:
            raise Refused("the operands have the batch on different axes; keep the first axis the batch")
        nodes = []
        for v in values:
            if v.axis is None and places:
                (axis, left, right) = next(iter(places))
                shape = (1,) * (rank - v.rank) + v.shapes[0]
                if shape[axis] != 1:
                    raise Refused("an operand without a batch has an axis where the other's batch is; keep the first axis the batch")
                shape = example_shape(shape, axis, left, right) if left * right == 1 else shape[:axis] + (1,) * ((left > 1) + (right > 1)) + shape[axis + 1 :]
                while len(shape) > 1 and shape[0] == 1:
                    shape = shape[1:]
                nodes.append(self.reshape(v.node, shape))
            else:
                nodes.append(v.node)
        return nodes, values

    def images(self, v, rank=3, what="images"):
        """An operand whose first axis must be the batch alone, and what follows must have `rank` axes."""
        v = self.value(v)
        if v.axis != 0 or v.left * v.right != 1 or len(v.node.shape) != rank or v.rank != rank + 1:
            raise Refused(f"takes {what} [batch, ...] of {rank + 1} axes with nothing folded into the batch, got {list(v.shapes[0])}")
        return v

    def learned(self, node):
        seen, stack = set(), [node]
        while stack:
            node = stack.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if node.tensors:
                return True
            stack.extend(node.inputs)
        return False

    # Walking.

    def run(self, graphs, given):
        """Takes the nodes of one level; returns what it returns."""
        a, b = (list(g.graph.nodes) for g in graphs)
        env, places, aliases = dict(zip([n for n in a if n.op == "placeholder"], given)), {n: i for i, n in enumerate(a)}, {}
        if [(n.op, str(n.target)) for n in a] != [(n.op, str(n.target)) for n in b]:
            first = next((x for x, y in zip(a, b) if (x.op, str(x.target)) != (y.op, str(y.target))), a[-1])
            self.at = self.where(first)
            self.refuse("the program takes another path for another batch size; write the forward for any batch size")
            raise ExportError(self.reasons)
        for node, twin in zip(a, b):
            if node.op == "placeholder":
                continue
            if node.op == "output":
                return pytree.tree_map(lambda n: env[n] if isinstance(n, torch.fx.Node) else n, node.args[0])
            if node.op == "get_attr":
                env[node] = self.attribute(graphs, node.target)
                continue
            self.at = self.where(node)
            try:
                env[node] = self.call(node, twin, env, places, aliases)
            except Refused as reason:
                self.refuse(str(reason))
                env[node] = Unknown()

    def attribute(self, graphs, target):
        found = []
        for owner in graphs:
            for part in target.split("."):
                owner = getattr(owner, part)
            found.append(owner)
        return Const(*(t.detach().clone() for t in found)) if isinstance(found[0], torch.Tensor) else tuple(found)

    def where(self, node):
        path = [v[0] for v in (node.meta.get("nn_module_stack") or {}).values()]
        path = re.sub(r"@\d+", "", path[-1]) if path else "m"
        path = path.removeprefix("m").removeprefix(".")
        module = self.modules.get(path)
        name = node.target._schema.name.replace("::", ".") if hasattr(node.target, "_schema") else str(node.target)
        line = user_line(re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or ""))
        return At(name, node.name, path, line, module is not None and bool(path) and not any(True for _ in module.children()))

    def refuse(self, reason, at=None):
        at = at or self.at
        line = f"`{at.op}` at node `{at.fx_name}` of module `{at.path or '(the whole)'}` ({at.line}): {reason}"
        if line not in self.reasons:
            self.reasons.append(line)

    def note(self, text):
        if text not in self.notes:
            self.notes.append(text)

    def call(self, node, twin, env, places, aliases):
        target = node.target
        if getattr(target, "__name__", "") == "getitem":
            source = env[node.args[0]]
            aliases[node] = aliases.get(node.args[0], node.args[0])
            return source if isinstance(source, Unknown) else source[node.args[1]]
        of = lambda n: env[n] if isinstance(n, torch.fx.Node) else n
        if isinstance(target, torch._ops.HigherOrderOperator):
            return self.higher_order(node, [of(x) for x in node.args])
        if not hasattr(target, "_schema"):
            raise Refused("a computation on sizes that depends on the data; use sizes that are known beforehand")
        full_name = target._schema.name.removeprefix("aten::")
        name = full_name[:-1] if full_name.endswith("_") and not full_name.endswith("__") else full_name
        if name.startswith(("_assert", "sym_constrain", "_functional_assert")):
            return None
        args = {}
        for key, mine, theirs in bind(node, twin):
            both_of = lambda m, t: (of(m) if isinstance(m, torch.fx.Node) else m) if m == t or isinstance(m, torch.fx.Node) else Sized(m, t)
            args[key] = [both_of(m, t) for m, t in zip(mine, theirs)] if isinstance(mine, (list, tuple)) else both_of(mine, theirs)
        flat = [x for v in args.values() for x in (v if isinstance(v, list) else [v])]
        tensors = [x for x in flat if isinstance(x, (Const, Param, Value, Unknown))]
        handler = HANDLERS.get(name)
        if name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
            raise Refused("a recurrent layer: a graph has no loops; use convolutions or attention")
        if torch.Tag.nondeterministic_seeded in target.tags and (handler is None or all(isinstance(x, Const) for x in tensors)):
            raise Refused("draws random numbers, which would be fixed in the graph; use `nn.Dropout`, or give them as an input")
        if all(isinstance(x, Const) for x in tensors):
            self.track(node, None, env, places, aliases)
            return self.fold(node, args)
        if handler is None:
            return self.decompose(node, twin, env, any(isinstance(x, Unknown) for x in tensors))
        if any(isinstance(x, Unknown) for x in tensors):
            return Unknown()
        if name not in BY_SHAPE and (sized := next((x for x in flat if isinstance(x, Sized)), None)):
            raise Refused(f"an argument depends on the batch size: {sized.a} for {BATCHES[0]} examples and {sized.b} for {BATCHES[1]}; use a fixed number")
        self.out_shapes = both_shapes(node, twin)
        named = {"x" if k in ("self", "input") else k: v for k, v in args.items()}
        try:
            inspect.signature(handler).bind(self, **named)
        except TypeError as error:
            raise Refused(f"this form of the op has no counterpart ({error})") from None
        result = handler(self, **named)
        self.track(node, result, env, places, aliases)
        return result

    def track(self, node, result, env, places, aliases):
        """Follows views, and lets an op in place change its operand; a change that others would see is refused. Constants are tensors
        of PyTorch, which see to that themselves."""
        base = node.args[0] if node.args and isinstance(node.args[0], torch.fx.Node) else None
        returns = node.target._schema.returns
        if base is None or not returns or returns[0].alias_info is None:
            return
        root = aliases.get(base, base)
        if not returns[0].alias_info.is_write:
            aliases[node] = root
            return
        if result is None:
            return
        if isinstance(env[base], Param):
            raise Refused("changes a parameter in place; compute a new tensor")
        family = [n for n in places if n is not base and n is not node and aliases.get(n, n) is root and places[n] < places[node]]
        late = [n for n in family if any(places[user] > places[node] for user in n.users)]
        if late:
            raise Refused("writes into a part of a tensor that is used later; put the parts together with `torch.cat` or `torch.where`")
        env[base], aliases[node] = result, root

    def fold(self, node, args):
        """Computes what depends on constants alone, in both traces."""
        both = []
        for which in (0, 1):
            pick = lambda x: (x.a, x.b)[which] if isinstance(x, (Const, Sized)) else x
            values = {k: [pick(x) for x in v] if isinstance(v, list) else pick(v) for k, v in args.items()}
            schema = node.target._schema.arguments
            positional = [values[s.name] for s in schema if not s.kwarg_only]
            named = {s.name: values[s.name] for s in schema if s.kwarg_only}
            with torch.no_grad():
                both.append(node.target(*positional, **named))
        if isinstance(both[0], (tuple, list)):
            return [Const(x, y) for x, y in zip(*both)]
        if not isinstance(both[0], torch.Tensor):
            raise Refused("makes a Python number of a tensor")
        return Const(*both)

    def higher_order(self, node, args):
        """`torch.no_grad()` and autocast around a part of the forward: the part itself. Control flow is refused."""
        if node.target.__name__ not in ("wrap_with_set_grad_enabled", "wrap_with_autocast"):
            raise Refused("control flow, which a graph does not have; export one branch, or write the loop out")
        at = next(i for i, x in enumerate(args) if isinstance(x, tuple) and isinstance(x[0], torch.fx.GraphModule))
        operands = args[at + 1 :]
        if node.target.__name__ == "wrap_with_set_grad_enabled" and not args[0]:
            for x in operands:
                if isinstance(x, Param) or isinstance(x, Value) and self.learned(x.node):
                    raise Refused("something learned under `torch.no_grad()`, where gradients stop; take it out of `no_grad`")
        if node.target.__name__ == "wrap_with_autocast" and args[2]:
            self.note(f"{self.at.line}: autocast is left out; Landscape's `--precision` says what products are computed in")
        return self.run(args[at], operands)

    def decompose(self, node, twin, env, has_unknown):
        """An op without a counterpart, as those that PyTorch makes it of."""
        from torch.fx.experimental.proxy_tensor import make_fx

        no_counterpart = Refused("no op of a graph does this; write it with others (`export_graph.HANDLERS` lists those that have a counterpart)")
        graphs, operands = [], None
        for n in (node, twin):
            flat, spec = pytree.tree_flatten((n.args, n.kwargs))
            at = [i for i, x in enumerate(flat) if isinstance(x, torch.fx.Node)]

            def function(*tensors):
                for i, t in zip(at, tensors):
                    flat[i] = t
                positional, named = pytree.tree_unflatten(flat, spec)
                return node.target(*positional, **named)

            if operands is None:
                operands = [env[flat[i]] for i in at]
            vals = [flat[i].meta["val"] for i in at]
            # The table holds the op alone, so that what it is made of stays as high-level as it comes.
            table = {k: v for k, v in torch.export.default_decompositions().items() if k is node.target}
            try:
                with contextlib.nullcontext() if vals[0].fake_mode is None else vals[0].fake_mode:
                    graphs.append(make_fx(function, decomposition_table=table, tracing_mode="real")(*vals))
            except Exception:
                raise no_counterpart from None
        calls = [n for n in graphs[0].graph.nodes if n.op == "call_function"]
        if any(n.target is node.target or getattr(n.target, "_schema", None) is None for n in calls):
            raise no_counterpart
        base = lambda n: re.sub("_$", "", n.target._schema.name.removeprefix("aten::"))
        if any(base(n) not in HANDLERS and not self.is_made_of_constants(n) for n in calls):
            raise no_counterpart
        if has_unknown:
            return Unknown()
        at, n_reasons = self.at, len(self.reasons)
        where, self.where = self.where, lambda _: at
        try:
            return self.run(graphs, operands)
        finally:
            self.where, self.at = where, at

    def is_made_of_constants(self, node):
        return not any(n.op == "placeholder" for n in node.all_input_nodes) and all(self.is_made_of_constants(n) for n in node.all_input_nodes)


@dataclasses.dataclass
class Sized:
    """An argument that differs between the traces."""

    a: object
    b: object


def bind(node, twin):
    """Arguments by the names of the schema, defaults filled in."""
    for i, arg in enumerate(node.target._schema.arguments):
        get = lambda n: n.args[i] if i < len(n.args) else n.kwargs.get(arg.name, arg.default_value)
        mine, theirs = get(node), get(twin)
        if isinstance(mine, torch.fx.Node):
            theirs = mine
        elif isinstance(mine, (list, tuple)):
            theirs = [m if isinstance(m, torch.fx.Node) else t for m, t in zip(mine, theirs)]
        yield arg.name, mine, theirs


def both_shapes(node, twin):
    a, b = node.meta.get("val"), twin.meta.get("val")
    if isinstance(a, (list, tuple)):
        return [(tuple(x.shape), tuple(y.shape)) if x is not None else None for x, y in zip(a, b)]
    return tuple(a.shape), tuple(b.shape)


def user_line(frames):
    """The deepest line that is not torch's."""
    own = [f for f in frames if not f[0].startswith(TORCH_DIR) and os.path.abspath(f[0]) != os.path.abspath(__file__) and not f[0].startswith("<")]
    return f"{own[-1][0]}:{own[-1][1]}" if own else "a line inside torch"


# Ops made of one op.

def unary(op, **attrs):
    return lambda self, x, **_: self.out(self.emit(op, [self.value(x).node], **attrs), self.value(x))


for names, op, attrs in [
    (("relu",), "relu", {}),
    (("silu",), "silu", {}),
    (("sigmoid",), "sigmoid", {}),
    (("hardswish",), "hardswish", {}),
    (("hardsigmoid",), "hardsigmoid", {}),
    (("tanh",), "tanh", {}),
    (("exp",), "exp", {}),
    (("erf",), "erf", {}),
    (("relu6",), "hardtanh", {"min_val": 0.0, "max_val": 6.0}),
    (("neg",), "affine", {"scale": -1.0, "shift": 0.0}),
    (("reciprocal",), "power", {"exponent": -1.0}),
    (("sqrt",), "power", {"exponent": 0.5}),
    (("rsqrt",), "power", {"exponent": -0.5}),
    (("square",), "power", {"exponent": 2.0}),
]:
    handles(*names)(unary(op, **attrs))


@handles("gelu")
def gelu(self, x, approximate):
    return unary("gelu", approximate=approximate)(self, x)


@handles("leaky_relu")
def leaky_relu(self, x, negative_slope):
    return unary("leaky_relu", negative_slope=float(negative_slope))(self, x)


@handles("rrelu")
def rrelu(self, x, lower, upper, **_):
    self.note(f"{self.at.line}: the random slope of rrelu is left out; its mean is used")
    return unary("leaky_relu", negative_slope=(float(lower) + float(upper)) / 2)(self, x)


@handles("hardtanh", "clamp")
def clamp(self, x, min_val=None, max_val=None, min=None, max=None):
    low, high = (number(a if a is not None else b, "bound") for a, b in ((min_val, min), (max_val, max)))
    v = self.value(x)
    if low is not None and high is not None:
        return self.out(self.emit("hardtanh", [v.node], min_val=low, max_val=high), v)
    node = v.node
    if low is not None:
        node = self.affine(self.emit("relu", [self.affine(node, 1, -low)]), 1, low)
    if high is not None:
        node = self.affine(self.emit("relu", [self.affine(node, -1, high)]), -1, high)
    return self.out(node, v)


@handles("clamp_min")
def clamp_min(self, x, min):
    return clamp(self, x, min=min)


@handles("clamp_max")
def clamp_max(self, x, max):
    return clamp(self, x, max=max)


@handles("threshold")
def threshold(self, x, threshold, value):
    if threshold != 0 or value != 0:
        raise Refused("a threshold other than 0; use `nn.ReLU`")
    return unary("relu")(self, x)


@handles("elu")
def elu(self, x, alpha, scale, input_scale):
    v = self.value(x)
    # elu(x) = scale · max(0, x) + scale · min(0, alpha (exp(input_scale x) − 1)); of a positive scaling of x, one is as good as another.
    if input_scale != 1 and scale != 1:
        raise Refused("an ELU with both scales; write it with `torch.where`-free ops")
    node = self.emit("elu", [self.affine(v.node, input_scale)], alpha=float(alpha) * (input_scale if input_scale != 1 else 1.0))
    return self.out(self.affine(node, scale / input_scale), v)


@handles("selu")
def selu(self, x):
    return elu(self, x, 1.6732632423543772, 1.0507009873554805, 1)


@handles("celu")
def celu(self, x, alpha):
    v = self.value(x)
    return self.out(self.affine(self.emit("elu", [self.affine(v.node, 1 / alpha)], alpha=1.0), alpha), v)


@handles("softplus")
def softplus(self, x, beta, threshold):
    v = self.value(x)
    return self.out(self.affine(self.emit("softplus", [self.affine(v.node, beta)]), 1 / beta), v)


@handles("mish")
def mish(self, x):
    v = self.value(x)
    return self.out(self.emit("multiply", [v.node, self.emit("tanh", [self.emit("softplus", [v.node])])]), v)


@handles("log_sigmoid")
def log_sigmoid(self, x):
    v = self.value(x)
    return self.out(self.affine(self.emit("softplus", [self.affine(v.node, -1)]), -1), v)


@handles("abs")
def absolute(self, x):
    v = self.value(x)
    return self.out(self.emit("add", [self.emit("relu", [v.node]), self.emit("relu", [self.affine(v.node, -1)])]), v)


@handles("glu")
def glu(self, x, dim):
    v = self.value(x)
    dim = self.dim(v, dim)
    half = v.node.shape[dim] // 2
    a, b = (self.emit("slice", [v.node], dim=dim, start=i * half, end=(i + 1) * half, step=1) for i in (0, 1))
    return self.out(self.emit("multiply", [a, self.emit("sigmoid", [b])]), v)


@handles("dropout", "native_dropout")
def dropout(self, x, p, **_):
    v = self.value(x)
    if p >= 1:
        raise Refused("dropout of everything; p must be below 1")
    return self.out(self.emit("dropout", [v.node], p=float(p)), v)


@handles("feature_dropout", "alpha_dropout", "feature_alpha_dropout")
def other_dropout(self, x, p, **_):
    if p:
        self.note(f"`{self.at.path}`: {self.at.op.removeprefix('aten.')} (p = {p:g}) is left out: only `nn.Dropout` has a counterpart")
    return x


@handles("contiguous", "clone", "to", "_to_copy", "type_as", "alias", "lift_fresh_copy", "float", "double", "detach", "positive", "_conj", "resolve_conj", "resolve_neg")
def same(self, x, dtype=None, **_):
    if self.at.op == "aten.detach" and (isinstance(x, Param) or self.learned(x.node)):
        raise Refused("stops the gradient of something learned, which a graph does not; take out the `detach`")
    if isinstance(x, Value) and dtype is not None and not dtype.is_floating_point and not is_whole(x.node):
        raise Refused("makes whole numbers of computed ones; compute them outside and give them as an input")
    return x


def is_whole(node):
    if node.op in ("reshape", "flatten", "permute", "expand", "slice", "concat"):
        return all(is_whole(x) for x in node.inputs)
    return node.is_op("input", dtype="int") or node.op == "constant"


# Arithmetic.


def number(x, what):
    """A Python number, or one that a constant holds."""
    if isinstance(x, Const):
        if x.a.numel() != 1 or not torch.equal(x.a, x.b):
            raise Refused(f"a {what} that is a tensor; use a number")
        return x.a.item()
    if isinstance(x, (Param, Value)):
        raise Refused(f"a {what} that is computed; use a number")
    return None if x is None else float(x)


def scalar(x, shapes):
    """The one number of a constant that changes no shape in an op with `shapes`."""
    if isinstance(x, (int, float)):
        return float(x)
    if isinstance(x, Const) and x.a.numel() and broadcasts_into(x.shapes[0], shapes[0]) and (x.a == x.a.flatten()[0]).all() and (x.b == x.a.flatten()[0].to(x.b)).all():
        value = float(x.a.flatten()[0])
        return value if math.isfinite(value) else None
    return None


def broadcasts_into(a, b):
    return len(a) <= len(b) and all(m in (1, n) for m, n in zip(a[::-1], b[::-1]))


@handles("add", "sub", "rsub")
def add(self, x, other, alpha=1):
    sign = {"add": (1, 1), "sub": (1, -1), "rsub": (-1, 1)}[self.at.op.removeprefix("aten.").rstrip("_")] if self.at.op.startswith("aten.") else (1, 1)
    return weighted_sum(self, x, other, *((sign[0], sign[1] * alpha) if sign[0] == 1 else (-alpha, 1)))


def weighted_sum(self, x, other, a, b):
    """a x + b other."""
    if (s := scalar(other, self.out_shapes)) is not None:
        v = self.value(x)
        return self.out(self.affine(v.node, a, b * s), v)
    if (s := scalar(x, self.out_shapes)) is not None:
        v = self.value(other)
        return self.out(self.affine(v.node, b, a * s), v)
    x, other = scaled(x, a), scaled(other, b)
    (m, n), values = self.align(x[0], other[0])
    return self.out(self.emit("add", [self.affine(m, x[1]), self.affine(n, other[1])]), *values)


def scaled(x, factor):
    """A factor of a constant goes into its numbers."""
    return (Const(x.a * factor, x.b * factor), 1) if isinstance(x, Const) and factor != 1 else (x, factor)


@handles("mul")
def mul(self, x, other):
    for p, q in ((x, other), (other, x)):
        if (s := scalar(q, self.out_shapes)) is not None:
            v = self.value(p)
            return self.out(self.affine(v.node, s), v)
    nodes, values = self.align(x, other)
    return self.out(self.emit("multiply", nodes), *values)


@handles("div", "true_divide")
def div(self, x, other, rounding_mode=None):
    if rounding_mode is not None:
        raise Refused("division with rounding, which has no gradient; compute it outside the module")
    if isinstance(other, Const):
        return mul(self, x, Const(1 / other.a.double(), 1 / other.b.double()))
    if isinstance(other, (int, float)):
        return mul(self, x, 1 / other)
    if isinstance(x, (int, float)) or (s := scalar(x, self.out_shapes)) is not None:
        v = self.value(other)
        return self.out(self.affine(self.emit("power", [v.node], exponent=-1.0), x if isinstance(x, (int, float)) else s), v)
    (m, n), values = self.align(x, other)
    return self.out(self.emit("multiply", [m, self.emit("power", [n], exponent=-1.0)]), *values)


@handles("pow")
def power(self, x, exponent):
    if isinstance(exponent, (Param, Value)):
        if not isinstance(x, (int, float)) or x <= 0:
            raise Refused("a power whose exponent is computed; only a positive number can have one")
        v = self.value(exponent)
        return self.out(self.emit("exp", [self.affine(v.node, math.log(x))]), v)
    v = self.value(x)
    return self.out(self.emit("power", [v.node], exponent=number(exponent, "exponent")), v)


@handles("addcmul")
def addcmul(self, x, tensor1, tensor2, value=1):
    (a, m, n), values = self.align(x, tensor1, tensor2)
    return self.out(self.emit("add", [a, self.affine(self.emit("multiply", [m, n]), value)]), *values)


@handles("maximum", "minimum")
def maximum(self, x, other):
    sign = 1 if "max" in self.at.op else -1
    (m, n), values = self.align(x, other)
    above = self.emit("relu", [self.affine(self.emit("add", [n, self.affine(m, -1)]), sign)])
    return self.out(self.emit("add", [m, self.affine(above, sign)]), *values)


@handles("lerp")
def lerp(self, x, end, weight):
    w = number(weight, "weight")
    return weighted_sum(self, x, end, 1 - w, w)


def masks(self, condition, x, other):
    """x where the constant condition holds, else the other."""
    if not isinstance(condition, Const):
        raise Refused("chooses by a condition on data, which has no counterpart; multiply by a mask that is an input")
    keep = [c.to(torch.float64) for c in (condition.a.bool(), condition.b.bool())]
    parts = []
    for operand, mask in ((x, Const(*keep)), (other, Const(*(1 - k for k in keep)))):
        if (s := scalar(operand, self.out_shapes)) is None and isinstance(operand, (int, float, Const)):
            s = MINUS_INFINITY if float(operand if not isinstance(operand, Const) else operand.a.max()) < 0 else -MINUS_INFINITY
        if s == 0:
            continue
        parts.append(Const(mask.a * s, mask.b * s) if s is not None else (operand, mask))
    nodes, sources = [], []
    for part in parts:
        (first, *rest), values = self.align(*(part if isinstance(part, tuple) else (part,)), *([x] if isinstance(x, Value) else [other]))
        nodes.append(self.emit("multiply", [first, rest[0]]) if isinstance(part, tuple) else first)
        sources += values
    node = nodes[0] if len(nodes) == 1 else self.emit("add", nodes)
    return self.out(node if node.shape == infer("add", {}, [node.shape, node.shape]) else node, *sources)


@handles("where")
def where(self, condition, x, other):
    return masks(self, condition, x, other)


@handles("masked_fill")
def masked_fill(self, x, mask, value):
    if not isinstance(mask, Const):
        raise Refused("fills by a condition on data, which has no counterpart; multiply by a mask that is an input")
    return masks(self, Const(~mask.a.bool(), ~mask.b.bool()), x, value)


@handles("tril", "triu")
def triangle(self, x, diagonal=0):
    part = torch.tril if "tril" in self.at.op else torch.triu
    return mul(self, x, Const(*(part(torch.ones(s[-2:]), diagonal) for s in self.value(x).shapes)))


# Layers.


def of_params(self, weight, bias, what):
    """Names of a layer's learned tensors, and the path of the module whose they are."""
    if not isinstance(weight, Param) or not isinstance(bias, (Param, type(None))):
        raise Refused(f"{what} whose weight is computed from others; take the parametrisation off first (`remove_parametrizations`)")
    if weight.flipped:
        raise Refused(f"{what} with a transposed weight; store it the other way round")
    hint = weight.name.removesuffix(".weight") if weight.name.endswith(".weight") else ""
    # A shared weight has the name of another module, and this one's is in its own right too.
    own = f"{self.at.path}.weight"
    if self.at.is_leaf and own in self.params and self.first_names[own] == self.first_names[weight.name]:
        hint = self.at.path
    return {"weight": weight.name} | ({"bias": bias.name} if bias else {}), hint


@handles("linear")
def linear(self, x, weight, bias=None):
    v = self.value(x)
    self.dim(v, -1)
    if isinstance(weight, Param) and isinstance(bias, (Param, type(None))):
        out_features, in_features = weight.shapes[0]
        order = {"weight_order": "in_out"} if weight.flipped else {}
        tensors, hint = of_params(self, Param(weight.name, weight.tensor), bias, "a linear map")
        attrs = {"in_features": in_features, "out_features": out_features, "bias": bias is not None, **order}
        return self.out(self.emit("linear", [v.node], tensors, hint, **attrs), v)
    w = self.value(weight).node
    node = product(self, v.node, self.emit("permute", [w], dims=(1, 0)))
    if bias is not None:
        node = self.emit("add", [node, self.value(bias).node])
    return self.out(node, v)


def product(self, x, matrix):
    """x times one matrix, along the last axis."""
    flat = self.reshape(x, (numel(x.shape[:-1]), x.shape[-1]))
    return self.reshape(self.emit("matmul", [flat, matrix]), x.shape[:-1] + matrix.shape[1:])


@handles("matmul", "mm", "bmm")
def matmul(self, x, other=None, mat2=None):
    other = mat2 if other is None else other
    if isinstance(other, Param) and len(other.shapes[0]) == 2:
        return linear(self, x, Param(other.name, other.tensor, not other.flipped))
    v, w = self.value(x), self.value(other)
    if w.axis is None and w.rank == 2:
        self.dim(v, -1)
        return self.out(product(self, v.node, w.node), v)
    if v.rank < 2 or w.rank < 2:
        raise Refused("a product with a vector that is computed; give it an axis of length 1 (`unsqueeze`)")
    if v.axis is not None and v.axis == v.rank - 2 and w.axis is None:
        # The batch is the rows: an example has left · right of them.
        rows = self.reshape(v.node, v.shapes[0][:-2] + (v.left * v.right,) + v.shapes[0][-1:])
        return self.out(self.rows_product(rows, w.node), v)
    for u in (v, w):
        if u.axis is not None and u.axis >= u.rank - 2:
            raise Refused("a product over the batch axis: it mixes examples; keep the first axis the batch")
    (m, n), values = self.align(v, w)
    return self.out(self.rows_product(m, n), *values)


@handles("addmm", "baddbmm", "addbmm")
def addmm(self, x, mat1=None, mat2=None, batch1=None, batch2=None, beta=1, alpha=1):
    mat1, mat2 = (batch1, batch2) if mat1 is None else (mat1, mat2)
    if isinstance(mat2, Param) and isinstance(x, Param) and len(x.shapes[0]) == 1 and beta == alpha == 1:
        return linear(self, mat1, Param(mat2.name, mat2.tensor, not mat2.flipped), x)
    return weighted_sum(self, matmul(self, mat1, mat2), x, alpha, beta) if beta else mul(self, matmul(self, mat1, mat2), alpha)


def pair(x, default=None):
    x = list(x) if isinstance(x, (list, tuple)) else [x]
    x = x or default
    return [int(i) for i in (x * 2 if len(x) == 1 else x)]


@handles("conv2d", "conv1d")
def conv(self, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    n = 2 if "2d" in self.at.op else 1
    v = self.images(x, n + 1, "images" if n == 2 else "signals")
    tensors, hint = of_params(self, weight, bias, "a convolution")
    out_channels, in_group, *size = weight.tensor.shape
    stride, dilation = pair(stride)[:n], pair(dilation)[:n]
    node = v.node
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, size)]
        padding = [t // 2 for t in total]
        for i, t in enumerate(total):
            node = zeros_around(self, node, i + 1, 0, t % 2)
    else:
        padding = pair(padding)[:n]
    one = (lambda a: a) if n == 2 else (lambda a: a[0])
    attrs = {"in_channels": in_group * groups, "out_channels": out_channels, "kernel_size": one(list(size)), "stride": one(stride)}
    attrs |= {"padding": one(padding), "dilation": one(dilation), "groups": groups, "bias": bias is not None}
    return self.out(self.emit(f"conv{n}d", [node], tensors, hint, **attrs), v)


@handles("conv_transpose2d")
def conv_transpose2d(self, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    v = self.images(x)
    tensors, hint = of_params(self, weight, bias, "a transposed convolution")
    in_channels, out_group, *size = weight.tensor.shape
    attrs = {"in_channels": in_channels, "out_channels": out_group * groups, "kernel_size": size, "stride": pair(stride)}
    attrs |= {"padding": pair(padding), "output_padding": pair(output_padding), "dilation": pair(dilation), "groups": groups, "bias": bias is not None}
    return self.out(self.emit("conv_transpose2d", [v.node], tensors, hint, **attrs), v)


@handles("batch_norm")
def batch_norm(self, x, weight, bias, running_mean, running_var, training, momentum, eps, **_):
    v = self.value(x)
    if v.axis != 0 or v.left * v.right != 1 or v.rank > 4 or v.rank < 2:
        raise Refused(f"takes [batch, channels], [batch, channels, length] or [batch, channels, height, width], got {list(v.shapes[0])}")
    if running_mean is None or running_var is None:
        raise Refused("BatchNorm without running statistics; make it with `track_running_stats=True`")
    if (module := self.modules.get(self.at.path)) is not None and getattr(module, "momentum", 0.1) is None:
        raise Refused("BatchNorm with `momentum=None`, a cumulative average; set a momentum, such as 0.1")
    path = running_mean.name.removesuffix(".running_mean")
    if path == running_mean.name or running_var.name != f"{path}.running_var" or (weight is None) != (bias is None):
        raise Refused("a batch norm that is not a module's own; use `nn.BatchNorm2d`")
    if path in self.used_norms:
        raise Refused("one BatchNorm at several places, whose statistics would be one; use a module of its own for each")
    self.used_norms.add(path)
    tensors = of_params(self, weight, bias, "BatchNorm")[0] if weight is not None else {}
    attrs = {"num_features": v.node.shape[0], "eps": float(eps), "momentum": float(momentum), "affine": weight is not None}
    buffers = {role: f"{path}.{role}" for role in ("running_mean", "running_var", "num_batches_tracked")}
    return self.out(self.emit("batch_norm", [v.node], tensors | buffers, path, **attrs), v)


@handles("layer_norm", "rms_norm")
def layer_norm(self, x, normalized_shape, weight=None, bias=None, eps=None, **_):
    v = self.value(x)
    n = len(normalized_shape)
    for i in range(n):
        self.dim(v, i - n)
    op = self.at.op.removeprefix("aten.")
    eps = float(torch.finfo(torch.float32).eps if eps is None else eps)
    attrs = {"normalized_shape": tuple(normalized_shape), "eps": eps, "elementwise_affine": isinstance(weight, Param)}
    if op == "layer_norm":
        attrs["bias"] = isinstance(weight, Param) and isinstance(bias, Param)
    own = isinstance(weight, Param)
    tensors, hint = of_params(self, weight, bias if own and isinstance(bias, Param) else None, "a norm") if own else ({}, "")
    node = self.emit(op, [v.node], tensors, hint, **attrs)
    if not own and weight is not None:
        node = self.emit("multiply", [node, self.value(weight).node])
    if bias is not None and not attrs.get("bias"):
        node = self.emit("add", [node, self.value(bias).node])
    return self.out(node, v)


@handles("group_norm", "instance_norm")
def group_norm(self, x, num_groups=None, weight=None, bias=None, eps=1e-5, running_mean=None, **_):
    v = self.value(x)
    if v.axis != 0 or v.left * v.right != 1 or v.rank < 2:
        raise Refused(f"takes [batch, channels, ...], got {list(v.shapes[0])}")
    if running_mean is not None:
        raise Refused("InstanceNorm with running statistics; make it with `track_running_stats=False`")
    channels, shape = v.node.shape[0], v.node.shape
    if (weight is None) != (bias is None):
        raise Refused("a group norm with a weight or a bias alone; use both or none")
    tensors, hint = of_params(self, weight, bias, "a group norm") if weight is not None else ({}, "")
    node = v.node if len(shape) <= 3 else self.reshape(v.node, (channels, shape[1], numel(shape[2:])))
    attrs = {"num_groups": num_groups or channels, "num_channels": channels, "eps": float(eps), "affine": weight is not None}
    return self.out(self.reshape(self.emit("group_norm", [node], tensors, hint, **attrs), shape), v)


@handles("embedding")
def embedding(self, weight, indices, padding_idx=-1, **_):
    if isinstance(indices, Const) and indices.shapes[0] == indices.shapes[1]:
        indices = Const(indices.a.squeeze(), indices.b.squeeze())
    v = self.value(indices)
    if not is_whole(v.node):
        raise Refused("looks up indexes that are computed; give them to the module as an input of whole numbers")
    tensors, hint = of_params(self, weight, None, "an embedding")
    if padding_idx >= 0:
        self.note(f"`{hint or self.at.path}`: `padding_idx` {padding_idx} is left out: that row gets gradients as any other")
    rows, width = weight.tensor.shape
    return self.out(self.emit("embedding", [v.node], tensors, hint, num_embeddings=rows, embedding_dim=width), v)


@handles("softmax")
def softmax(self, x, dim, **_):
    v = self.value(x)
    return self.out(self.emit("softmax", [v.node], dim=self.dim(v, dim)), v)


@handles("log_softmax")
def log_softmax(self, x, dim, **_):
    v = self.value(x)
    return self.out(self.emit("log_softmax", [v.node], dim=self.dim(v, dim)), v)


@handles("scaled_dot_product_attention")
def attention(self, query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    q, k, v = (self.value(t) for t in (query, key, value))
    module = self.modules.get(self.at.path)
    for field in ("attention_dropout", "attn_dropout", "dropout", "dropout_p"):
        p = getattr(module, field, 0.0)
        p = getattr(p, "p", p)
        if isinstance(p, float) and p > 0:
            self.attention_dropout[self.at.path] = p
            break
    for t in (q, k, v):
        if t.axis is not None and t.axis >= t.rank - 2:
            raise Refused("attention over the batch axis: it mixes examples; keep the first axis the batch")
    scale = 1 / math.sqrt(q.shapes[0][-1]) if scale is None else float(scale)
    nodes = []
    for t in (q, k, v):
        lead = t.node.shape[:-2]
        nodes.append(t.node if len(lead) == 1 else self.reshape(t.node, (numel(lead),) + t.node.shape[-2:]))
    lead, n, m = q.node.shape[:-2], q.shapes[0][-2], k.shapes[0][-2]
    nodes[1:] = unrepeated(nodes[0], nodes[1], nodes[2]) if len(lead) == 1 else nodes[1:]
    heads, kv_heads = nodes[0].shape[0], nodes[1].shape[0]
    if kv_heads != heads and len(lead) > 1:
        raise Refused("grouped-query attention with more than one axis in front of the heads; reshape them to one")
    mask, causal = attn_mask, bool(is_causal)
    if isinstance(mask, Const):
        kind = kind_of_mask(mask, n, m)
        mask, causal = (None, kind == "causal") if kind else (mask, causal)
    if causal and n != m:
        raise Refused("causal attention with fewer queries than keys; give a mask instead")
    shape = lead + (n, v.shapes[0][-1])
    if mask is None:
        return self.out(self.reshape(self.emit("attention", nodes, causal=causal, scale=scale), shape), q, k, v)
    # A mask without a counterpart: the formula, op by op.
    if kv_heads != heads:
        spread = lambda t: self.reshape(self.expand(self.reshape(t, (kv_heads, 1) + t.shape[1:]), (kv_heads, heads // kv_heads) + t.shape[1:]), (heads,) + t.shape[1:])
        nodes[1:] = [spread(t) for t in nodes[1:]]
    scores = self.emit("matmul", [self.affine(nodes[0], scale), self.emit("permute", [nodes[1]], dims=(0, 2, 1))])
    scores = Value(self.reshape(scores, lead + (n, m)), tuple(s[:-1] + (m,) for s in q.shapes), q.axis, q.left, q.right)
    if isinstance(mask, Const) and mask.a.dtype == torch.bool:
        mask = Const(*(torch.where(t, 0.0, MINUS_INFINITY).double() for t in (mask.a, mask.b)))
    (a, b), _ = self.align(scores, mask)
    weights = self.emit("softmax", [self.emit("add", [a, b])], dim=len(lead) + 1)
    weights = self.reshape(weights, (heads, n, m))
    return self.out(self.reshape(self.emit("matmul", [weights, nodes[2]]), shape), q, k, v)


def kind_of_mask(mask, n, m):
    """`none` for a mask that hides nothing, `causal` for one that hides what comes later."""
    kinds = set()
    for t in (mask.a, mask.b):
        seen = t if t.dtype == torch.bool else t == 0
        hidden = ~t if t.dtype == torch.bool else t <= torch.finfo(torch.float16).min
        below = torch.ones(n, m, dtype=torch.bool, device=t.device).tril()
        if seen.all():
            kinds.add("none")
        elif n == m and (seen == below).all() and (hidden == ~below).all():
            kinds.add("causal")
        else:
            return None
    return kinds.pop() if len(kinds) == 1 else None


def unrepeated(q, *keys):
    """Keys and values before each head was repeated for its group of queries."""
    found = []
    for t in keys:
        wide = t.inputs[0] if t.op == "reshape" else t
        narrow = wide.inputs[0] if wide.op == "expand" else wide
        fits = wide.op == "expand" and len(wide.shape) == 4 and narrow.shape == wide.shape[:1] + (1,) + wide.shape[2:] and wide.shape[2:] == t.shape[1:]
        found.append(narrow.inputs[0] if fits and narrow.op == "reshape" and narrow.inputs[0].shape == wide.shape[:1] + wide.shape[2:] else None)
    return list(found) if None not in found else list(keys)


# Pools and sizes.


def as_image(self, v):
    """A signal [channels, length] as an image one pixel high."""
    v = self.images(v, 2, "signals")
    return v, self.reshape(v.node, (v.node.shape[0], 1, v.node.shape[1]))


def pooled(self, x, op, kernel, stride, padding, ceil_mode, **attrs):
    n = 1 if "1d" in self.at.op else 2
    v, node = as_image(self, x) if n == 1 else (self.images(x), self.value(x).node)
    wide = (lambda a, other: a) if n == 2 else (lambda a, other: [other, a[0]])
    kernel = pair(kernel)
    stride = wide(pair(stride, kernel), 1)
    attrs |= {"kernel_size": wide(kernel, 1), "stride": stride, "padding": wide(pair(padding), 0)}
    shapes = self.out_shapes[0] if isinstance(self.out_shapes, list) else self.out_shapes
    image = infer(op, attrs, [node.shape])
    expected = shapes[0][1:] if n == 2 else shapes[0][1:2] + (1,) + shapes[0][2:]
    if image != expected:
        raise Refused("`ceil_mode=True` with windows over the edge; use `ceil_mode=False` with padding")
    node = self.emit(op, [node], **attrs)
    result = lambda **k: self.out(node if n == 2 else self.reshape(node, (node.shape[0], node.shape[2])), v, **k)
    return (result(idx=0), Unknown()) if isinstance(self.out_shapes, list) else result()


@handles("max_pool2d", "max_pool1d", "max_pool2d_with_indices", "max_pool1d_with_indices")
def max_pool(self, x, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False):
    if set(pair(dilation)) != {1}:
        raise Refused("max pooling with dilation; use `dilation=1`")
    return pooled(self, x, "max_pool2d", kernel_size, stride, padding, ceil_mode)


@handles("avg_pool2d", "avg_pool1d")
def avg_pool(self, x, kernel_size, stride=(), padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    if divisor_override is not None:
        raise Refused("average pooling with a divisor of its own; multiply the result instead")
    return pooled(self, x, "avg_pool2d", kernel_size, stride, padding, ceil_mode, count_include_pad=bool(count_include_pad))


@handles("adaptive_avg_pool2d", "adaptive_avg_pool1d", "adaptive_max_pool2d", "adaptive_max_pool1d")
def adaptive_pool(self, x, output_size):
    n = 1 if "1d" in self.at.op else 2
    v, node = as_image(self, x) if n == 1 else (self.images(x), self.value(x).node)
    shapes = self.out_shapes[0] if isinstance(self.out_shapes, list) else self.out_shapes
    size = list(shapes[0][2:]) if n == 2 else [1, shapes[0][2]]
    if "max" in self.at.op:
        if node.shape[1] % size[0] or node.shape[2] % size[1]:
            raise Refused("adaptive max pooling to a size that does not divide the image's; use `nn.MaxPool2d`")
        window = [node.shape[1] // size[0], node.shape[2] // size[1]]
        node = self.emit("max_pool2d", [node], kernel_size=window, stride=window, padding=[0, 0])
    else:
        node = self.emit("global_avg_pool", [node]) if size == [1, 1] else self.emit("adaptive_avg_pool2d", [node], output_size=size)
    result = lambda **k: self.out(node if n == 2 else self.reshape(node, (node.shape[0], node.shape[2])), v, **k)
    return (result(idx=0), Unknown()) if isinstance(self.out_shapes, list) else result()


def upsampled(self, x, method, scales):
    n = 1 if "1d" in self.at.op else 2
    v, node = as_image(self, x) if n == 1 else (self.images(x), self.value(x).node)
    size = [1] * (2 - n) + list(self.out_shapes[0][2:])
    for factor, before, after in zip([1.0] * (2 - n) + list(scales), node.shape[1:], size):
        if factor is not None and before * factor != after:
            raise Refused("a scale factor that is no whole number of pixels; give a size instead")
    node = self.emit("upsample", [node], size=size, method=method)
    return self.out(node if n == 2 else self.reshape(node, (node.shape[0], node.shape[2])), v)


@handles("upsample_nearest2d", "upsample_nearest1d")
def upsample_nearest(self, x, output_size=None, scale_factors=None, scales_h=None, scales_w=None, scales=None):
    given = scale_factors or [s for s in (scales_h, scales_w, scales) if s is not None]
    return upsampled(self, x, "nearest", given or [None, None])


@handles("upsample_bilinear2d", "upsample_linear1d")
def upsample_linear(self, x, output_size=None, align_corners=False, scale_factors=None, scales_h=None, scales_w=None, scales=None):
    given = scale_factors or [s for s in (scales_h, scales_w, scales) if s is not None]
    given = [None, None] if align_corners or not given else given
    return upsampled(self, x, "bilinear_align_corners" if align_corners else "bilinear", given)


def zeros_around(self, node, dim, before, after, value=0.0):
    blank = lambda n: self.constant(torch.full(node.shape[:dim] + (n,) + node.shape[dim + 1 :], value))
    parts = [blank(before)] * (before > 0) + [node] + [blank(after)] * (after > 0)
    return self.emit("concat", parts, dim=dim)


@handles("pad", "constant_pad_nd")
def pad(self, x, pad, mode="constant", value=None):
    v = self.value(x)
    node = v.node
    for i in range(len(pad) // 2):
        before, after = int(pad[2 * i]), int(pad[2 * i + 1])
        if not before and not after:
            continue
        dim = self.dim(v, v.rank - 1 - i)
        n = node.shape[dim]
        if mode == "constant":
            node = self.emit("slice", [node], dim=dim, start=max(-before, 0), end=n - max(-after, 0), step=1)
            node = zeros_around(self, node, dim, max(before, 0), max(after, 0), number(value, "value") or 0.0)
            continue
        places = range(-before, n + after)
        fold = {"reflect": lambda p: (n - 1) - abs((n - 1) - abs(p)), "replicate": lambda p: min(max(p, 0), n - 1), "circular": lambda p: p % n}
        node = self.gather(node, dim, [fold[mode](p) for p in places])
    return self.out(node, v)


# Reductions.


def dims_of(self, v, dims):
    if dims is None or dims == []:
        dims = list(range(v.rank))
    return sorted({self.dim(v, d) for d in (dims if isinstance(dims, list) else [dims])})


def mean_node(self, node, dims, keepdim=True):
    """The mean over any axes, run of neighbours by run."""
    runs = []
    for d in reversed(dims):
        if runs and runs[-1][0] == d + 1:
            runs[-1][0] = d
        else:
            runs.append([d, d])
    if not keepdim and len(dims) == len(node.shape):
        return self.reshape(mean_node(self, node, dims), (1,))
    for first, last in runs:
        node = self.emit("mean", [node], start_dim=first, end_dim=last, keepdim=bool(keepdim))
    return node


@handles("mean", "sum")
def mean(self, x, dim=None, keepdim=False, **_):
    v = self.value(x)
    if v.rank == 0:
        return v
    dims = dims_of(self, v, dim)
    node = mean_node(self, v.node, dims, keepdim)
    n = numel([v.node.shape[d] for d in dims])
    return self.out(self.affine(node, n) if "sum" in self.at.op else node, v)


@handles("var", "std", "var_mean", "std_mean")
def variance(self, x, dim=None, correction=1, keepdim=False, unbiased=True):
    v = self.value(x)
    dims = dims_of(self, v, dim)
    n = numel([v.node.shape[d] for d in dims])
    correction = float(1 if correction is None else correction) if unbiased else 0.0
    centre = mean_node(self, v.node, dims)
    offset = self.emit("add", [v.node, self.affine(centre, -1)])
    node = self.affine(mean_node(self, self.emit("power", [offset], exponent=2.0), dims, keepdim), n / (n - correction))
    node = self.emit("power", [node], exponent=0.5) if "std" in self.at.op else node
    if isinstance(self.out_shapes, list):
        return self.out(node, v, idx=0), self.out(mean_node(self, v.node, dims, keepdim), v, idx=1)
    return self.out(node, v)


@handles("linalg_vector_norm", "norm")
def norm(self, x, ord=2, p=None, dim=None, keepdim=False, **_):
    v = self.value(x)
    order = float(ord if p is None else p)
    dims = dims_of(self, v, dim)
    n = numel([v.node.shape[d] for d in dims])
    if order not in (1.0, 2.0):
        raise Refused(f"a norm of order {order:g}; only 1 and 2 have counterparts")
    powers = self.emit("power", [v.node], exponent=2.0) if order == 2 else absolute_node(self, v.node)
    node = self.affine(mean_node(self, powers, dims, keepdim), n)
    return self.out(self.emit("power", [node], exponent=0.5) if order == 2 else node, v)


def absolute_node(self, node):
    return self.emit("add", [self.emit("relu", [node]), self.emit("relu", [self.affine(node, -1)])])


# Axes.


@handles("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "reshape_as", "atleast_1d", "squeeze_copy")
def view(self, x, **_):
    if isinstance(x, Param) and x.shapes[0] == self.out_shapes[0]:
        return x
    v = self.value(x)
    axis = batch_axis(self.out_shapes)
    if v.axis is None or axis is None:
        shape = example_shape(self.out_shapes[0], axis, 1, 1)
        if v.axis is not None or axis is not None:
            raise Refused("loses the batch axis; keep the first axis the batch")
        return self.out(self.reshape(v.node, shape), v)
    old, new = v.shapes[0], self.out_shapes[0]
    before, ahead = numel(old[: v.axis]) * v.left, numel(new[:axis])
    left = before // ahead
    right = new[axis] // (left * BATCHES[0]) if left else 0
    if left * ahead != before or left * right * BATCHES[0] != new[axis]:
        raise Refused(f"mixes the batch axis with others: {list(old)} to {list(new)}; move the batch to the front before the reshape")
    return self.out(self.reshape(v.node, example_shape(new, axis, left, right)), v, fold=(left, right))


@handles("permute", "transpose", "t", "numpy_T", "mT", "adjoint", "movedim", "swapaxes", "swapdims")
def permute(self, x, dims=None, dim0=None, dim1=None, axis0=None, axis1=None, source=None, destination=None):
    rank = len(x.shapes[0])
    order = list(range(rank))
    first, second = (dim0, dim1) if dim0 is not None else (axis0, axis1)
    if source is not None:
        source, destination = ([d % rank for d in (s if isinstance(s, list) else [s])] for s in (source, destination))
        rest = iter(d for d in order if d not in source)
        order = [source[destination.index(i)] if i in destination else next(rest) for i in range(rank)]
    elif dims is not None:
        order = [d % rank for d in dims]
    else:
        a, b = (first % rank, second % rank) if first is not None else ((0, 1) if self.at.op in ("aten.t", "aten.numpy_T") else (-2, -1))
        if rank > 1:
            order[a], order[b] = order[b], order[a]
    if isinstance(x, Param) and rank == 2:
        return Param(x.name, x.tensor, x.flipped != (order == [1, 0]))
    v = self.value(x)
    if v.axis is None:
        return self.out(self.emit("permute", [v.node], dims=order), v)
    axes = []
    for d in order:
        if d == v.axis:
            axes += range(d, d + (v.left > 1) + (v.right > 1))
        else:
            axes.append(self.dim(v, d))
    return self.out(self.emit("permute", [v.node], dims=axes or [0]), v)


@handles("expand", "expand_as", "broadcast_to")
def expand(self, x, **_):
    v = self.value(x)
    axis, rank = batch_axis(self.out_shapes), len(self.out_shapes[0])
    if v.axis is not None:
        return self.out(self.expand(v.node, example_shape(self.out_shapes[0], axis, v.left, v.right)), v)
    if axis is None:
        return self.out(self.expand(v.node, self.out_shapes[0] or (1,)), v)
    shape = (1,) * (rank - v.rank) + v.shapes[0]
    right = self.out_shapes[0][axis] // BATCHES[0]
    shape = shape[:axis] + ((1,) if right > 1 else ()) + shape[axis + 1 :]
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    node = self.reshape(v.node, shape or (1,))
    return self.out(self.expand(node, example_shape(self.out_shapes[0], axis, 1, right)), v, fold=(1, right))


@handles("repeat")
def repeat(self, x, repeats):
    v = self.value(x)
    times = [r.a if isinstance(r, Sized) else r for r in repeats]
    rank = len(times)
    shape = (1,) * (rank - v.rank) + v.shapes[0]
    if all(n == 1 or r == 1 for n, r in zip(shape, times)):
        return expand(self, v)
    node, offset = v.node, rank - v.rank
    if v.axis is None and batch_axis(self.out_shapes) is not None:
        raise Refused("repeats for each example together with other axes; use `expand` for the batch first")
    if any(r != 1 for r in times[:offset]):
        raise Refused("repeats into new axes; use `expand` and `reshape`")
    for i, r in enumerate(times[offset:]):
        if r > 1:
            node = self.emit("concat", [node] * r, dim=self.dim(v, i))
    return self.out(node, v)


@handles("repeat_interleave")
def repeat_interleave(self, x, repeats, dim=None, **_):
    if not isinstance(repeats, int) or dim is None:
        raise Refused("repeats by a tensor, or of all axes; give a number and an axis")
    v = self.value(x)
    dim = self.dim(v, dim)
    shape = v.node.shape
    wide = self.expand(self.reshape(v.node, shape[: dim + 1] + (1,) + shape[dim + 1 :]), shape[: dim + 1] + (repeats,) + shape[dim + 1 :])
    return self.out(self.reshape(wide, shape[:dim] + (shape[dim] * repeats,) + shape[dim + 1 :]), v)


@handles("slice", "narrow")
def slice_(self, x, dim=0, start=None, end=None, step=1, length=None):
    start = 0 if start is None else int(start)
    end = start + length if length is not None else 2**62 if end is None else int(end)
    places = [[max(min(i + s[dim] if i < 0 else i, s[dim]), 0) for i in (start, end)] for s in x.shapes]
    v = self.value(x) if isinstance(x, Const) else x
    # All of the batch in one trace alone is the first so many examples.
    if step == 1 and all(place == [0, s[dim]] for place, s in zip(places, x.shapes)):
        return v
    start, end = places[0]
    v = self.value(v)
    return self.out(self.emit("slice", [v.node], dim=self.dim(v, dim), start=start, end=end, step=step), v)


@handles("select")
def select(self, x, dim, index):
    v = self.value(x)
    dim = self.dim(v, dim)
    start = int(index) % v.node.shape[dim]
    node = self.emit("slice", [v.node], dim=dim, start=start, end=start + 1, step=1)
    return self.out(self.reshape(node, node.shape[:dim] + node.shape[dim + 1 :] or (1,)), v)


@handles("split", "split_with_sizes", "chunk", "unbind", "unsafe_split", "unsafe_chunk", "tensor_split", "unsafe_split_with_sizes")
def split(self, x, dim=0, **_):
    v = self.value(x)
    axis, parts, start = self.dim(v, dim), [], 0
    for idx, (shape, _) in enumerate(self.out_shapes):
        n = 1 if self.at.op == "aten.unbind" else shape[dim]
        node = self.emit("slice", [v.node], dim=axis, start=start, end=start + n, step=1)
        if self.at.op == "aten.unbind":
            node = self.reshape(node, node.shape[:axis] + node.shape[axis + 1 :] or (1,))
        parts.append(self.out(node, v, idx=idx))
        start += n
    return parts


@handles("cat", "concat", "concatenate")
def cat(self, tensors, dim=0):
    tensors = [t for t in tensors if t.shapes[0] != (0,)]
    values = [self.value(t) for t in tensors]
    if len({(v.axis, v.left, v.right) for v in values}) > 1:
        raise Refused("joins tensors with the batch on different axes, or without one; `expand` each to the batch size")
    axis = self.dim(values[0], dim)
    return self.out(self.emit("concat", [v.node for v in values], dim=axis), *values)


@handles("stack")
def stack(self, tensors, dim=0):
    values = [self.value(t) for t in tensors]
    if len({(v.axis, v.left, v.right) for v in values}) > 1:
        raise Refused("stacks tensors with the batch on different axes, or without one; `expand` each to the batch size")
    v = values[0]
    dim %= v.rank + 1
    axis = dim if v.axis is None or dim <= v.axis else dim + (v.left > 1) + (v.right > 1) - 1
    shape = v.node.shape if v.rank > (v.axis is not None) else ()
    nodes = [self.reshape(u.node, shape[:axis] + (1,) + shape[axis:]) for u in values]
    return self.out(self.emit("concat", nodes, dim=axis), *values)


@handles("flip")
def flip(self, x, dims):
    v = self.value(x)
    node = v.node
    for d in dims:
        axis = self.dim(v, d)
        node = self.gather(node, axis, list(range(node.shape[axis]))[::-1])
    return self.out(node, v)


@handles("roll")
def roll(self, x, shifts, dims):
    v = self.value(x)
    node = v.node
    if not dims:
        raise Refused("rolls all axes as one; name the axes")
    for shift, d in zip(shifts if isinstance(shifts, list) else [shifts], dims if isinstance(dims, list) else [dims]):
        axis = self.dim(v, d)
        n = node.shape[axis]
        node = self.gather(node, axis, [(i - shift) % n for i in range(n)])
    return self.out(node, v)


@handles("index", "index_select")
def index(self, x, indices=None, dim=None, index=None):
    indices = [None] * (dim % len(x.shapes[0])) + [index] if indices is None else indices
    at = [i for i, t in enumerate(indices) if t is not None]
    if len(at) != 1 or not isinstance(indices[at[0]], Const):
        raise Refused("picks places by several tensors or by data; use slices, or `nn.Embedding` with an input of whole numbers (a mask of padding cannot be an input)")
    at, places = at[0], indices[at[0]]
    if not torch.equal(places.a, places.b):
        raise Refused("picks places that depend on the batch size; use fixed ones")
    picked = places.a.nonzero().flatten() if places.a.dtype == torch.bool else places.a
    if isinstance(x, Param) and at == 0 and len(x.shapes[0]) == 2 and not x.flipped and len(picked.shape):
        rows, width = x.tensor.shape
        tensors, hint = {"weight": x.name}, ""
        node = self.emit("embedding", [self.constant(picked % rows)], tensors, hint, num_embeddings=rows, embedding_dim=width)
        return self.out(node)
    v = self.value(x)
    axis = self.dim(v, at)
    node = self.gather(v.node, axis, [int(i) % v.node.shape[axis] for i in picked.flatten()])
    shape = node.shape
    return self.out(self.reshape(node, shape[:axis] + tuple(picked.shape) + shape[axis + 1 :] or (1,)), v)


@handles("pixel_shuffle")
def pixel_shuffle(self, x, upscale_factor):
    v, r = self.images(x), int(upscale_factor)
    c, h, w = v.node.shape
    node = self.emit("permute", [self.reshape(v.node, (c // r**2, r, r, h, w))], dims=(0, 3, 1, 4, 2))
    return self.out(self.reshape(node, (c // r**2, h * r, w * r)), v)


@handles("pixel_unshuffle")
def pixel_unshuffle(self, x, downscale_factor):
    v, r = self.images(x), int(downscale_factor)
    c, h, w = v.node.shape
    node = self.emit("permute", [self.reshape(v.node, (c, h // r, r, w // r, r))], dims=(0, 2, 4, 1, 3))
    return self.out(self.reshape(node, (c * r * r, h // r, w // r)), v)


@handles("fill", "zero", "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "empty_like")
def fill(self, x, value=None, fill_value=None, **_):
    value = fill_value if value is None else value
    if isinstance(value, Value):
        return expand(self, value)
    n = number(value, "value") if value is not None else 1.0 if "ones" in self.at.op else 0.0
    return Const(*(torch.full(shape, n, dtype=torch.float64) for shape in self.out_shapes))


@handles("copy")
def copy(self, x, src, non_blocking=False):
    return expand(self, src) if not isinstance(src, Value) or src.shapes != self.out_shapes else src


# One op for what is written out in several.


def fuse(self, op, inputs, attrs):
    """The op that an add, a product or an affine map completes, if it does."""
    if op == "multiply":
        for x, y in (inputs, inputs[::-1]):
            for rule in (fused_silu, fused_rms_norm, fused_norm_weight, fused_gelu):
                if (node := rule(self, x, y)) is not None:
                    return node
    if op == "add":
        for x, y in (inputs, inputs[::-1]):
            if (node := fused_rope(self, x, y)) is not None:
                return node
    if op == "affine" and near(attrs["scale"], 1 / 6) and attrs["shift"] == 0.0 and inputs[0].is_op("hardtanh", min_val=0.0, max_val=6.0):
        inner = inputs[0].inputs[0]
        if inner.is_op("affine", scale=1.0, shift=3.0):
            return self.emit("hardsigmoid", inner.inputs)
    return None


def near(a, b):
    return abs(a - b) <= 1e-6 * abs(b)


def is_square(node, x):
    return node.is_op("power", exponent=2.0) and node.inputs[0] is x or node.op == "multiply" and node.inputs[0] is x and node.inputs[1] is x


def fused_silu(self, x, y):
    if y.op == "sigmoid" and y.inputs[0] is x:
        return self.emit("silu", [x])
    return self.emit("hardswish", [x]) if y.op == "hardsigmoid" and y.inputs[0] is x else None


def fused_rms_norm(self, x, y):
    """x · (mean(x²) + eps)^(−1/2)."""
    shifted = y.inputs[0] if y.is_op("power", exponent=-0.5) else None
    if shifted is None or not shifted.is_op("affine", scale=1.0) or shifted.attrs["shift"] <= 0.0:
        return None
    average = shifted.inputs[0]
    if not average.is_op("mean", keepdim=True, end_dim=len(x.shape) - 1) or not is_square(average.inputs[0], x):
        return None
    shape = x.shape[average.attrs["start_dim"] :]
    return self.emit("rms_norm", [x], normalized_shape=shape, eps=shifted.attrs["shift"], elementwise_affine=False)


def fused_norm_weight(self, x, y):
    """The learned factor of an RMS norm."""
    if x.op != "parameter" or not y.is_op("rms_norm", elementwise_affine=False) or list(x.shape) != y.attrs["normalized_shape"]:
        return None
    name = next(local for local, tensor in self.params.items() if self.first_names[local] == x.tensors["parameter"])
    hint = name.removesuffix(".weight") if name.endswith(".weight") else ""
    return self.emit("rms_norm", y.inputs, {"weight": name}, hint, **(y.attrs | {"elementwise_affine": True}))


def fused_gelu(self, x, y):
    """b x · a (1 + tanh(√(2/π) (x + 0.044715 x³))) or b x · a (1 + erf(x/√2)) with a b = ½."""
    if y.op != "affine" or y.inputs[0].op not in ("tanh", "erf") or y.attrs["scale"] != y.attrs["shift"]:
        return None
    curve = y.inputs[0]
    inner = curve.inputs[0]
    x, factor = (x.inputs[0], x.attrs["scale"]) if x.is_op("affine", shift=0.0) else (x, 1.0)
    if not near(factor * y.attrs["scale"], 0.5) or inner.op != "affine" or inner.attrs["shift"] != 0.0:
        return None
    scale, inner = inner.attrs["scale"], inner.inputs[0]
    if curve.op == "erf":
        return self.emit("gelu", [x], approximate="none") if inner is x and near(scale, math.sqrt(0.5)) else None
    for a, b in (inner.inputs, inner.inputs[::-1]) if inner.op == "add" else ():
        cube = b.inputs[0] if b.is_op("affine", shift=0.0) and near(b.attrs["scale"], 0.044715) else None
        if a is x and cube is not None and cube.is_op("power", exponent=3.0) and cube.inputs[0] is x and near(scale, math.sqrt(2 / math.pi)):
            return self.emit("gelu", [x], approximate="tanh")
    return None


def fused_rope(self, x, y):
    """q cos + rotate_half(q) sin with tables of the angles t · base^(−2i/d)."""
    if x.op != "multiply" or y.op != "multiply":
        return None
    for q, cos in (x.inputs, x.inputs[::-1]):
        for turned, sin in (y.inputs, y.inputs[::-1]):
            if cos.op != "constant" or sin.op != "constant" or turned.op != "concat" or len(q.shape) != 3 or len(turned.inputs) != 2:
                continue
            d, length = q.shape[2], q.shape[1]
            upper, lower = turned.inputs
            is_half = lambda n, i: n.is_op("slice", dim=2, start=i * d // 2, end=(i + 1) * d // 2, step=1) and n.inputs[0] is q
            if not (upper.is_op("affine", scale=-1.0, shift=0.0) and is_half(upper.inputs[0], 1) and is_half(lower, 0)):
                continue
            if numel(cos.shape) != length * d or cos.shape != sin.shape or length < 2 or d < 4 or d % 2:
                continue
            c, s = (torch.tensor(t.attrs["values"], dtype=torch.float64).reshape(length, d) for t in (cos, sin))
            # The second pair's angle at place 1 tells the base.
            angle = math.atan2(float(s[1, 1]), float(c[1, 1]))
            if not angle > 0:
                continue
            base = angle ** (-d / 2)
            base = float(round(base)) if abs(base - round(base)) < 1e-4 * base else base
            times = torch.arange(length, dtype=torch.float64)
            angles = times[:, None] * base ** (-2 * torch.arange(d // 2, dtype=torch.float64) / d)
            angles = torch.cat([angles, angles], 1)
            # As exact as single precision knows an angle that grows with the place.
            room = 1e-6 * (1 + times[:, None])
            if ((c - angles.cos()).abs() <= room).all() and ((s - angles.sin()).abs() <= room).all():
                return self.emit("rope", [q], base=base, rotary_dim=d, style="half")
    return None


# The whole.


def trace(model, args, kwargs):
    """The module traced in evaluation mode for both batch sizes, and the names of what it returns."""

    names, dropped = [], []

    class Whole(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.m = model

        def forward(self, args, kwargs):
            found = {}
            collect(self.m(*args, **kwargs), "", found, dropped)
            names[:] = found
            return tuple(found.values())

    # The wrapper must not touch the module's `training`, so modes are kept by hand.
    modes = {module: module.training for module in model.modules()}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    programs = []
    try:
        for batch in BATCHES:
            whole = Whole().eval()
            example = resized(args, batch), resized(kwargs, batch)
            tracer = torch.export.export
            if "strict" not in tracer.__code__.co_varnames or torch.__version__.startswith(("2.5", "2.6")):
                tracer = getattr(torch.export, "export_for_training", tracer)
            # What torch says at length becomes one line of ours.
            with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                warnings.simplefilter("ignore")
                logging.disable(logging.CRITICAL)
                programs.append(tracer(whole, example, strict=False))
    except Exception as error:
        raise ExportError([untraceable(error)]) from None
    finally:
        logging.disable(logging.NOTSET)
        torch.backends.mha.set_fastpath_enabled(fast_path)
        for module, mode in modes.items():
            module.training = mode
    return programs, names, dropped


def collect(x, name, found, dropped):
    """Tensors of a result by name: dicts, dataclasses, named and plain tuples are taken apart."""
    if isinstance(x, torch.Tensor):
        found[name or "output"] = x
    elif x is None:
        pass
    elif name.rsplit(".", 1)[-1] in ("past_key_values", "cache_params", "hidden_states", "attentions") and not isinstance(x, torch.Tensor):
        dropped.append(name)
    elif isinstance(x, dict) or hasattr(x, "keys"):
        for key in x.keys():
            collect(x[key], f"{name}.{key}" if name else str(key), found, dropped)
    elif isinstance(x, (list, tuple)):
        for key, part in zip(getattr(x, "_fields", range(len(x))), x):
            collect(part, f"{name}.{key}" if name else str(key), found, dropped)
    elif dataclasses.is_dataclass(x):
        for field in dataclasses.fields(x):
            collect(getattr(x, field.name), f"{name}.{field.name}" if name else field.name, found, dropped)
    else:
        dropped.append(name or type(x).__name__)


def resized(example, batch):
    """The example repeated or cut to `batch` examples."""

    def one(x):
        if not isinstance(x, torch.Tensor):
            return x
        if x.dim() == 0:
            raise ExportError(["an example input without axes: the first axis of every input is the batch"])
        return x.detach().index_select(0, torch.arange(batch, device=x.device) % x.shape[0]).clone()

    return pytree.tree_map(one, example)


def untraceable(error):
    """Torch's long story in one line: the user's line, and what to do."""
    chain = error
    while chain.__cause__ is not None or chain.__context__ is not None:
        chain = chain.__cause__ or chain.__context__
    line, text = "a line inside torch", ""
    for e in (error, chain):
        frames = [(f.filename, f.lineno) for f in traceback.extract_tb(e.__traceback__)]
        found = user_line(frames)
        if found != "a line inside torch":
            line = found
            text = linecache.getline(*(lambda f, n: (f, int(n)))(*found.rsplit(":", 1))).strip()
    message = str(chain) + str(error)
    at = f"cannot be traced ({line}{f': `{text}`' if text else ''}): "
    name = type(chain).__name__ + type(error).__name__
    if "DataDependent" in name or "data-dependent" in message or "unbacked" in message or "u0" in message:
        return at + "the program's course depends on numbers in a tensor, and a graph has one course; take the branch, the `.item()` or the index by data out of the forward, or export the parts on both sides of it"
    return at + f"{type(chain).__name__}: {str(chain).strip().splitlines()[0] if str(chain).strip() else 'no message'}; the forward must run on tensors alone, without other libraries (numpy) on the way"


def export(model, example_inputs, json_path=None, safetensors_path=None):
    """Writes `model` as a graph (JSON) and its tensors (safetensors), and returns both; a path that is None is not written.

    `example_inputs` is a tensor, a tuple of the forward's arguments, or a dict of them by name; the first axis of each is the batch.
    Raises ExportError with a line for each op that a graph cannot say.
    """
    if isinstance(example_inputs, torch.Tensor):
        example_inputs = (example_inputs,)
    args, kwargs = ((), dict(example_inputs)) if isinstance(example_inputs, dict) else (tuple(example_inputs), {})
    sizes = {x.shape[0] for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and x.dim()}
    if len(sizes) != 1:
        raise ExportError([f"the inputs have first axes of {sorted(sizes)}; the first axis of every input is the batch"])
    programs, names, dropped = trace(model, args, kwargs)
    exporter = Exporter(model)
    for name in dropped:
        exporter.note(f"output `{name}` is left out: it is not a tensor, or it is kept for the next call")
    results = exporter.run([p.graph_module for p in programs], list(inputs(exporter, programs)))
    graph, nodes = assemble(exporter, results, names)
    tensors = stored(exporter, nodes)
    if inside := exporter.attention_dropout.values():
        exporter.note(f"dropout inside attention is left out: at {len(inside)} modules, p up to {max(inside):g}")
    depths = [m for m in exporter.modules.values() if type(m).__name__.endswith(("StochasticDepth", "DropPath"))]
    if depths := [p for m in depths if (p := getattr(m, "p", None) or getattr(m, "drop_prob", None))]:
        exporter.note(f"stochastic depth is left out: at {len(depths)} modules, p up to {max(depths):g}")
    text = json.dumps(graph, separators=(",", ":"), allow_nan=False)
    if safetensors_path is not None:
        metadata = json.dumps({"format_version": 1, "graph": graph}, separators=(",", ":"), sort_keys=True, allow_nan=False)
        replace(safetensors_path, safetensors(tensors, {"landscape": metadata}))
    if json_path is not None:
        replace(json_path, [text.encode() + b"\n"])
    return Exported(graph, tensors, exporter.notes)


def inputs(exporter, programs):
    """What goes in at the placeholders."""
    first, second = (p.graph_signature.input_specs for p in programs)
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [p.name for p in inspect.signature(exporter.modules[""].forward).parameters.values() if p.kind in kinds]
    placeholders = [[n for n in p.graph.nodes if n.op == "placeholder"] for p in programs]
    for spec, node, twin in zip(first, *placeholders):
        kind, target = spec.kind.name, (spec.target or "").removeprefix("m.")
        if kind == "PARAMETER":
            yield Param(target, exporter.params[target])
        elif kind in ("BUFFER", "CONSTANT_TENSOR"):
            found = exporter.buffers.get(target)
            found = [found if found is not None else p.constants.get(spec.target) for p in programs]
            yield Const(*(t.detach().clone() for t in found), name=target)
        elif not isinstance(node.meta.get("val"), torch.Tensor):
            yield None
        else:
            shapes = both_shapes(node, twin)
            whole = not node.meta["val"].dtype.is_floating_point
            # args_0 is the forward's first argument, kwargs_mask the one called mask.
            given = re.fullmatch(r"args_(\d+)|kwargs_(\w+)", node.name)
            name = (names[int(given[1])] if given[1] else given[2]) if given and (given[2] or int(given[1]) < len(names)) else node.name
            exporter.at = At("input", node.name, "", "the example inputs", False, name)
            attrs = {"dtype": "int"} if whole else {}
            made = Node("input", attrs | {"shape": list(shapes[0][1:]) or [1]}, [], shapes[0][1:] or (1,), {}, exporter.at)
            exporter.nodes.append(made)
            yield Value(made, shapes, 0)


def assemble(exporter, results, names):
    """Outputs, what leads to them, and names."""
    outputs = []
    for name, x in zip(names, results):
        if isinstance(x, Unknown):
            continue
        if not isinstance(x, Value) or x.axis is None:
            exporter.note(f"output `{name}` is left out: it is the same for every example")
        elif x.node in outputs:
            exporter.note(f"output `{name}` is left out: it comes twice")
        else:
            outputs.append(x.node)
    readers = {}
    for node in exporter.nodes:
        for x in node.inputs:
            readers.setdefault(id(x), []).append(node)
    # Cross-entropy of log-probabilities is that of the logits.
    for i, node in enumerate(outputs):
        if node.op == "log_softmax":
            exporter.note(f"{node.at.line}: the log_softmax at the end is left out: cross-entropy takes the logits and gives the same")
            outputs[i] = node.inputs[0]
    live, stack = set(), list(outputs)
    while stack:
        node = stack.pop()
        if id(node) not in live:
            live.add(id(node))
            stack.extend(node.inputs)
    nodes = [n for n in exporter.nodes if id(n) in live]
    for node in nodes:
        if node.op == "erf":
            exporter.refuse("the error function alone; as part of a GELU write `nn.functional.gelu`", node.at)
        if node.op == "log_softmax":
            exporter.refuse("log_softmax inside the network; leave it to the loss, which takes logits", node.at)
    if exporter.reasons:
        raise ExportError(exporter.reasons)
    if not outputs:
        raise ExportError(["no output depends on the inputs"])
    for node in exporter.nodes:
        if node.op == "input" and id(node) not in live:
            exporter.note(f"input `{node.at.hint}` is left out: nothing depends on it")
    if not any(n.op == "input" for n in nodes):
        raise ExportError(["no output depends on an input"])
    name_nodes(exporter, nodes)
    return {"format_version": 2, "nodes": [written(exporter, n) for n in nodes], "outputs": [n.name for n in outputs]}, nodes


def name_nodes(exporter, nodes):
    """Paths of modules where the op is a module's own, else the path and the op."""
    taken = {n.name for n in nodes if n.name}
    last = {n.at.path: n for n in nodes if n.at.is_leaf}
    for node in nodes:
        if node.name:
            continue
        base, is_own = node.at.hint or node.at.path, bool(node.at.hint) and node.op != "input"
        if not is_own and node.op != "input":
            is_own = node.at.is_leaf and last[node.at.path] is node and node.at.path not in taken
            base = base if is_own else f"{base}.{node.op}" if base else node.op
        base = re.sub(r"\s", "_", base)
        name, i = base, 1
        while name in taken or (not is_own and name in exporter.reserved):
            name, is_own, i = f"{base}_{i}", False, i + 1
        taken.add(name)
        node.name = name


def written(exporter, node):
    """A node as JSON has it."""
    tensors = {}
    if node.op == "batch_norm" and node.tensors["running_mean"] != f"{node.name}.running_mean":
        raise ExportError([f"BatchNorm `{node.name}`: another op has the module's name; rename the module"])
    for role, name in node.tensors.items():
        if role in ("weight", "bias", "parameter"):
            first = exporter.first_names[name]
            if first != (node.name if role == "parameter" else f"{node.name}.{role}"):
                tensors[role] = first
    out = {"name": node.name, "op": node.op, **node.attrs, "inputs": [x.name for x in node.inputs]}
    return out | ({"tensors": tensors} if tensors else {})


def stored(exporter, nodes):
    """The tensors of the nodes, each once."""
    tensors = {}
    for node in nodes:
        for role, name in node.tensors.items():
            if role in ("weight", "bias", "parameter"):
                name = exporter.first_names[name]
                tensor = exporter.params[name].detach()
                tensors[name] = tensor.reshape(tensor.shape or (1,))
            elif role == "num_batches_tracked" and exporter.buffers.get(name) is None:
                tensors[name] = torch.zeros((), dtype=torch.int64)
            else:
                tensors[name] = exporter.buffers[name].detach()
    unused = [n for n, first in exporter.first_names.items() if n in exporter.params and first not in tensors]
    if unused:
        some = ", ".join(f"`{n}`" for n in unused[:8]) + (f" and {len(unused) - 8} more" if len(unused) > 8 else "")
        exporter.note(f"parameters that no output depends on are left out: {some}")
    return tensors


DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


def safetensors(tensors, metadata):
    """The bytes of a safetensors file: the length of the header, the header, the numbers."""
    header, parts, at = {"__metadata__": metadata}, [], 0
    for name, tensor in sorted(tensors.items()):
        if tensor.dtype not in DTYPES:
            raise ExportError([f"parameter `{name}` is of {tensor.dtype}; convert the module first (`model.float()`)"])
        data = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return [struct.pack("<Q", len(text)), text, *parts]


def replace(path, parts):
    """Writes a file aside and renames it: it is whole or as it was."""
    aside = f"{path}.partial-{os.getpid()}"
    try:
        with open(aside, "wb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(aside)
        raise


def parse_input(text):
    """`1,3,32,32` or `1,64:int`."""
    sizes, _, kind = text.partition(":")
    try:
        shape = [int(n) for n in sizes.split(",")]
        if kind not in ("", "int", "float") or min(shape) < 1:
            raise ValueError
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected sizes such as 1,3,32,32, for whole numbers with `:int`, got `{text}`") from None
    return torch.zeros(shape, dtype=torch.int64) if kind == "int" else torch.randn(shape)


def main():
    parser = argparse.ArgumentParser(description="Write a PyTorch module as a graph and weights for Landscape.")
    parser.add_argument("factory", help="module:function that returns the nn.Module, such as my_package.my_module:make_model")
    parser.add_argument("--input", type=parse_input, action="append", required=True, metavar="SHAPE", help="shape with the batch first, such as 1,3,32,32; with :int for tokens; one for each argument of the forward")
    parser.add_argument("--out", required=True, metavar="NAME", help="writes NAME.json and NAME.safetensors")
    args = parser.parse_args()
    sys.path.insert(0, os.getcwd())
    try:
        place, _, function = args.factory.partition(":")
        if not function:
            raise ExportError([f"expected module:function, got `{args.factory}`"])
        try:
            make = importlib.import_module(place)
            for part in function.split("."):
                make = getattr(make, part)
        except (ImportError, AttributeError) as error:
            raise ExportError([f"`{args.factory}`: {error}"]) from None
        model = make if isinstance(make, torch.nn.Module) else make()
        if not isinstance(model, torch.nn.Module):
            raise ExportError([f"`{args.factory}` gave a {type(model).__name__}, expected an nn.Module"])
        done = export(model, tuple(args.input), f"{args.out}.json", f"{args.out}.safetensors")
    except ExportError as error:
        print("error: the module cannot be exported", *(f"  {line}" for line in error.reasons), sep="\n", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for note in done.notes:
        print(f"note: {note}", file=sys.stderr)
    n = sum(t.numel() for name, t in done.tensors.items() if not name.endswith(("running_mean", "running_var", "num_batches_tracked")))
    print(f"wrote {args.out}.json ({len(done.graph['nodes'])} nodes) and {args.out}.safetensors ({n} parameters)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
