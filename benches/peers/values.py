"""Numbers by formula: the twin of `benches/src/values.rs`, so that a peer starts from the same weights on the same data."""

import numpy as np

N_CLASSES, N_TOKENS, CONTEXT = 10, 65, 64
U64 = np.uint64


def uniform(stream, n):
    """The first n numbers of a stream, uniform in [0, 1), in double precision."""
    with np.errstate(over="ignore"):
        z = U64(stream) + np.arange(1, n + 1, dtype=U64) * U64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> U64(30))) * U64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> U64(27))) * U64(0x94D049BB133111EB)
        return ((z ^ (z >> U64(31))) >> U64(11)).astype(np.float64) * 2.0**-53


def stream(seed, name, idx):
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = ((h ^ b) * 0x100000001B3) % 2**64
    return (h + idx * 0xD1342543DE82EF95 + seed * 0xA24BAED4963EE407) % 2**64


def symmetric(stream, n, bound):
    return ((2.0 * uniform(stream, n) - 1.0) * bound).astype(np.float32)


def tensor(seed, k, name, shape):
    """A tensor of control point k, by its name in the state dict."""
    n = int(np.prod(shape))
    if len(shape) > 1:
        bound = np.sqrt(6.0 / float(np.prod(shape[1:])))
        return symmetric(stream(seed, name, k), n, bound).reshape(shape)
    if name.endswith(".weight"):
        return np.ones(shape, np.float32)
    return symmetric(stream(seed, name, k), n, 0.05)


def statistics(seed, name, n):
    u = uniform(stream(seed, name, 0), n)
    return (0.2 * u - 0.1 if name.endswith("running_mean") else 0.5 + u).astype(np.float32)


def batch(seed, idx, n, model):
    """Inputs of variance one and a class for each example, or tokens and one to come at every place."""
    shape = (n, *input_shape(model))
    n_inputs = int(np.prod(shape))
    inputs, labels = stream(seed, "inputs", idx), stream(seed, "labels", idx)
    if reads_tokens(model):
        return tuple((uniform(s, n_inputs) * N_TOKENS).astype(np.int64).reshape(shape) for s in (inputs, labels))
    return symmetric(inputs, n_inputs, np.sqrt(3.0)).reshape(shape), (uniform(labels, n) * N_CLASSES).astype(np.int64)


def ts(seed, n):
    return uniform(stream(seed, "t", 0), n)


def reads_tokens(model):
    return model.startswith("gpt")


def input_shape(model):
    if reads_tokens(model):
        return [CONTEXT]
    return [int(model[4:].split("-")[0])] if model.startswith("mlp:") else [3, 32, 32]


def check():
    """The first outputs of splitmix64 from state 0, as its author publishes them."""
    expected = np.array([0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F], dtype=U64)
    assert (uniform(0, 3) == (expected >> U64(11)).astype(np.float64) * 2.0**-53).all()


check()
