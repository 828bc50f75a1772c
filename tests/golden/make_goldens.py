#!/usr/bin/env python3
"""Writes the goldens beside it: `python tests/golden/make_goldens.py [NAME...]`, with torch and numpy installed,
for the zoo also torchvision and transformers."""

import json
import pathlib
import sys

import torch

import networks
import ops
import refresh
import zoo
from formula import rounded

DIGITS = 12  # the tests ask for nine


def write(name, golden, digits):
    """One line per tensor, so that a difference is readable."""
    folder = pathlib.Path(__file__).parent
    lines = []
    for key, value in rounded(golden, digits).items():
        if isinstance(value, dict) and value:
            inner = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (folder / f"{name}.json").write_text(text)
    print(f"{name}.json: {len(text)} bytes", flush=True)


def main(only):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    if not only or "ops" in only:
        write("ops", ops.golden(), DIGITS)
    if not only or "refresh" in only:
        write("refresh", refresh.golden(), DIGITS)
    for name, golden in networks.goldens(only or None):
        write(name, golden, DIGITS)
    for name, golden in zoo.goldens(only or None):
        write(name, golden, DIGITS)


if __name__ == "__main__":
    main(sys.argv[1:])
