"""JAX on the CPU: many small networks trained at once, one `vmap` over their weights, one jitted scan over the steps of an epoch.

The networks differ by seed alone and see the same data, each in an order of its own. Compiling and reading are left out of the time."""

import os

import numpy as np

import worker

REQUEST = worker.request()
THREADS = REQUEST["threads"]
os.environ["XLA_FLAGS"] = f"--xla_cpu_multi_thread_eigen={'true' if THREADS > 1 else 'false'} intra_op_parallelism_threads={THREADS}"
os.environ.setdefault("NPROC", str(THREADS))
import jax
import jax.numpy as jnp

IDLE_BYTES = worker.resident_bytes()


def digits(folder):
    data = {}
    for split, name in (("train", "train"), ("test", "t10k")):
        images = worker.idx(f"{folder}/{name}-images-idx3-ubyte", 3)
        data[f"x_{split}"] = images.reshape(len(images), -1).astype(np.float32) / 16
        data[f"y_{split}"] = worker.idx(f"{folder}/{name}-labels-idx1-ubyte", 1).astype(np.int32)
    return data


def train_networks(widths, data, n_networks, n_epochs, n_batch, lr, momentum, decay):
    x, y = (jnp.asarray(data[k]) for k in ("x_train", "y_train"))
    x_test, y_test = (jnp.asarray(data[k]) for k in ("x_test", "y_test"))
    n = len(x)
    n_steps = -(-n // n_batch)

    def init(key):
        layers = []
        for n_in, n_out in zip(widths, widths[1:]):
            key, a, b = jax.random.split(key, 3)
            bound = n_in**-0.5
            layers.append((jax.random.uniform(a, (n_out, n_in), minval=-bound, maxval=bound),
                           jax.random.uniform(b, (n_out,), minval=-bound, maxval=bound)))
        return layers

    def logits(layers, x):
        for w, b in layers[:-1]:
            x = jax.nn.relu(x @ w.T + b)
        w, b = layers[-1]
        return x @ w.T + b

    def loss(layers, x, y, weight):
        nll = -jnp.take_along_axis(jax.nn.log_softmax(logits(layers, x)), y[:, None], 1)[:, 0]
        return (nll * weight).sum() / weight.sum()

    gradient = jax.grad(loss)

    def epoch(layers, velocity, key, rate):
        # The last batch is smaller: its missing examples have weight zero.
        order = jnp.pad(jax.random.permutation(key, n), (0, n_steps * n_batch - n))
        weight = (jnp.arange(n_steps * n_batch) < n).astype(jnp.float32)

        def step(state, part):
            layers, velocity = state
            idx, weight = part
            g = gradient(layers, x[idx], y[idx], weight)
            velocity = jax.tree.map(lambda v, g, w: momentum * v + g + decay * w, velocity, g, layers)
            return (jax.tree.map(lambda w, v: w - rate * v, layers, velocity), velocity), None

        parts = (order.reshape(n_steps, n_batch), weight.reshape(n_steps, n_batch))
        return jax.lax.scan(step, (layers, velocity), parts)[0]

    epochs = jax.jit(jax.vmap(epoch, in_axes=(0, 0, 0, None)), donate_argnums=(0, 1))
    errors = jax.jit(jax.vmap(lambda layers: (logits(layers, x_test).argmax(1) != y_test).mean()))

    def factor(share):
        return 1.0 if share <= 0.5 else max(0.01, 1.0 - (share - 0.5) / 0.4 * 0.99)

    def once():
        keys = jax.random.split(jax.random.key(0), n_networks)
        layers = jax.vmap(init)(keys)
        velocity = jax.tree.map(jnp.zeros_like, layers)
        for e in range(n_epochs):
            keys = jax.vmap(lambda k: jax.random.fold_in(k, e))(keys)
            layers, velocity = epochs(layers, velocity, keys, lr * factor(e / n_epochs))
        return float(jax.block_until_ready(errors(layers)).mean())

    return once


def set_up():
    if REQUEST["job"] != "networks":
        worker.skip(f"this peer has no job `{REQUEST['job']}`")
    r = REQUEST
    widths = [int(w) for w in r["model"][4:].split("-")]
    once = train_networks(widths, digits(r["folder"]), r["networks"], r["epochs"], r["batch"], r["lr"], 0.9, r["weight_decay"])
    return [once()], worker.timed(once), {}


worker.serve(REQUEST, {"jax": jax.__version__}, IDLE_BYTES, set_up)
