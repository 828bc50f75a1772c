"""The numbers of the goldens: every weight, input and label is a formula of a name and an index, the same on both sides.

value(name, i) = 2 u - 1 with u = (splitmix64(fnv1a64(name) + (i + 1) g) >> 11) / 2^53 and g = 0x9E3779B97F4A7C15, all in 64-bit
integers, so that Rust (tests/src/golden.rs) and numpy agree to the last bit and no weight file is needed.
Values are rounded to f32 once, so that the f32 and the f64 run start from the same numbers.
"""

import math

import numpy as np
import torch

GAMMA = np.uint64(0x9E3779B97F4A7C15)
N_PROJECTIONS = 3
TEXT = (
    "value(name, i) = f32(scale * (2u - 1)), u = (splitmix64(fnv1a64(name) + (i+1)*0x9E3779B97F4A7C15) >> 11) / 2^53; "
    "projection j of v = sum_i s_ij v_i, s_ij = -1 where bit j of splitmix64(fnv1a64('projection') + (i+1)*0x9E3779B97F4A7C15) "
    "is set, else 1; a tensor is held as [norm, projection 0, 1, 2]"
)


def fnv1a(name: str) -> int:
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) % 2**64
    return h


def bits(name: str, n: int) -> np.ndarray:
    """The 64 random bits of indices 0..n."""
    with np.errstate(over="ignore"):
        z = np.uint64(fnv1a(name)) + (np.arange(n, dtype=np.uint64) + np.uint64(1)) * GAMMA
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def fill(name: str, shape, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    """f64 numbers in shift + [-scale, scale), each exactly an f32."""
    n = math.prod(shape)
    unit = (bits(name, n) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    values = (shift + scale * (2.0 * unit - 1.0)).astype(np.float32).astype(np.float64)
    return torch.from_numpy(values.reshape(tuple(shape)))


def quarters(name: str, shape) -> torch.Tensor:
    """Multiples of 1/4 in [-1, 1]: zeros and ties on purpose."""
    return torch.floor(fill(name, shape) * 4.0 + 0.5) / 4.0


def labels(name: str, n: int, n_classes: int) -> torch.Tensor:
    return torch.from_numpy(((bits(name, n) >> np.uint64(33)) % np.uint64(n_classes)).astype(np.int64))


def weight(row: str, name: str, shape) -> torch.Tensor:
    """A parameter of control point `row`: He's uniform for matrices and filters, about 1 for norm weights, small for the rest."""
    stream = f"{row}/{name}"
    if len(shape) > 1:
        return fill(stream, shape, scale=math.sqrt(6.0 / math.prod(shape[1:])))
    if name.endswith(".weight"):
        return fill(stream, shape, scale=0.25, shift=1.0)
    return fill(stream, shape, scale=0.125)


_signs = np.empty((N_PROJECTIONS, 0))


def summary(tensor: torch.Tensor) -> list[float]:
    """Norm and projections on fixed random signs, which are as large as the norm (in the mean of squares)."""
    global _signs
    v = tensor.detach().double().reshape(-1).numpy()
    if _signs.shape[1] < v.size:
        z = bits("projection", v.size)
        _signs = np.stack([1.0 - 2.0 * ((z >> np.uint64(j)) & np.uint64(1)).astype(np.float64) for j in range(N_PROJECTIONS)])
    return [float(np.linalg.norm(v))] + [float(s[: v.size] @ v) for s in _signs]


def rounded(value, digits: int):
    """Floats with `digits` significant digits; everything else as it is."""
    if isinstance(value, float):
        return float(f"{value:.{digits - 1}e}")
    if isinstance(value, dict):
        return {k: rounded(v, digits) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(v, digits) for v in value]
    return value


def header(**more) -> dict:
    return {
        "script": "tests/golden/make_goldens.py",
        "torch": torch.__version__.split("+")[0],
        "numpy": np.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "formula": TEXT,
        **more,
    }
