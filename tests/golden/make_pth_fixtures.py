"""Makes the small PyTorch files that crates/landscape-core/tests/pth.rs reads.

Run from the repository root, with torch installed:
    python tests/golden/make_pth_fixtures.py
Element i of the tensor with tag j is ((7 i + 13 j) mod 64 - 32) / 32, which every float type holds exactly; so the test needs no
second copy of the numbers. The files that would run code are made as bytes and are never loaded here.
"""

import argparse
import collections
import io
import os
import pickle
import warnings
import zipfile

import numpy
import torch

FOLDER = "crates/landscape-core/tests/fixtures"


def filled(tag, shape, dtype=torch.float32):
    n = 1
    for size in shape:
        n *= size
    values = [((7 * i + 13 * tag) % 64 - 32) / 32 for i in range(n)]
    return torch.tensor(values, dtype=torch.float64).reshape(shape).to(dtype)


def mlp(dtype=torch.float32, prefix=""):
    shapes = [("0.weight", (5, 4)), ("0.bias", (5,)), ("2.weight", (3, 5)), ("2.bias", (3,))]
    return collections.OrderedDict((prefix + name, filled(tag, shape, dtype)) for tag, (name, shape) in enumerate(shapes))


def save(name, value, **options):
    torch.save(value, os.path.join(FOLDER, name), **options)


def save_zip(name, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(os.path.join(FOLDER, name), "w", compression) as archive:
        for entry, content in entries:
            archive.writestr(zipfile.ZipInfo(entry), content, compress_type=compression)


class Evil:
    """Pickles as a call of os.system."""

    def __reduce__(self):
        return os.system, ("echo this must never run",)


def pickled(value, protocol):
    buffer = io.BytesIO()
    pickle.Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def main():
    os.makedirs(FOLDER, exist_ok=True)
    save("plain.pth", mlp())
    for protocol in (3, 4, 5):
        save(f"protocol{protocol}.pth", mlp(), pickle_protocol=protocol)
    for name, dtype in [("bf16", torch.bfloat16), ("f16", torch.float16), ("f64", torch.float64)]:
        save(f"{name}.pth", mlp(dtype))
    whole = {name: torch.tensor([0, 1, 100], dtype=getattr(torch, name)) for name in ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64")}
    save("integers.pth", {**whole, "bool": torch.tensor([False, True, True]), "scalar": torch.tensor(7), "empty": torch.zeros(0, 3)})

    # Views: transposed, every other column from the second on, permuted, and a slice far from the start of its storage.
    wide = filled(0, (4, 6))
    save("strided.pth", {
        "transposed": filled(0, (4, 5)).t(),
        "columns": wide[:, 1::2],
        "permuted": filled(1, (2, 3, 4)).permute(2, 0, 1),
        "slice": filled(2, (10, 3))[7:9],
        "unit": filled(3, (3, 1, 2)).transpose(0, 1),
    })
    tied = filled(0, (3, 4))
    save("shared.pth", {"encoder.weight": tied, "decoder.weight": tied, "decoder.transposed": tied.t(), "row": tied[1]})

    layer = torch.nn.Linear(4, 3)
    with torch.no_grad():
        layer.weight.copy_(filled(0, (3, 4)))
        layer.bias.copy_(filled(1, (3,)))
    save("parameters.pth", dict(layer.named_parameters()))

    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    state = network.state_dict()
    for tag, (name, tensor) in enumerate(state.items()):
        tensor.copy_(torch.tensor(5) if name.endswith("tracked") else filled(tag, tuple(tensor.shape)))
    save("batch_norm.pth", state)

    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    for wrapper in ("state_dict", "model_state", "model_state_dict", "model"):
        save(f"wrapped_{wrapper}.pth", {"epoch": 3, "best": torch.tensor(0.5), "loss": 0.25, "big": 1 << 70, "shape": torch.Size([1, 2]),
                                        "device": torch.device("cpu"), "names": {"a", "b"}, "note": b"bytes", "args": argparse.Namespace(lr=0.1), "accuracy": numpy.float64(0.5),
                                        "optimizer": optimizer.state_dict(), wrapper: mlp()})
    save("wrapped_twice.pth", {"model": mlp(), "state_dict": mlp()})
    save("data_parallel_compiled.pth", {"model": mlp(prefix="module._orig_mod.")})
    save("no_tensors.pth", {"epoch": 3})
    save("list.pth", [filled(0, (2,))])
    save("whole_module.pth", layer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save("legacy.pth", mlp(), _use_new_zipfile_serialization=False)

    with zipfile.ZipFile(os.path.join(FOLDER, "plain.pth")) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.namelist()]
    save_zip("deflated.pth", entries, zipfile.ZIP_DEFLATED)
    save_zip("big_endian.pth", [(entry, b"big" if entry.endswith("byteorder") else content) for entry, content in entries])
    for protocol in (0, 2, 4):
        save_zip(f"evil{protocol}.pth", [("archive/data.pkl", pickled({"weight": Evil()}, protocol)), ("archive/version", b"3\n")])
    # INST, which calls without REDUCE.
    save_zip("evil_inst.pth", [("archive/data.pkl", b"(S'echo this must never run'\nios\nsystem\n."), ("archive/version", b"3\n")])


if __name__ == "__main__":
    main()
