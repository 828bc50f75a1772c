#!/usr/bin/env python3
"""Take the 8x8 digits out of scikit-learn's wheel, unchanged.

    pip download --no-deps scikit-learn
    python3 make_digits.py scikit_learn-*.whl

writes digits.csv.gz beside this script: 1,797 lines of 64 pixels (0..16, row-major) and the digit.
The bytes are those of the wheel; the check below says whether a later wheel still carries the same.
"""
import hashlib
import os
import sys
import zipfile

MEMBER = "sklearn/datasets/data/digits.csv.gz"
SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


def main(wheel):
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(MEMBER)
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256:
        sys.exit(f"{wheel}: {MEMBER} has sha256 {found}, expected {SHA256}")
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "digits.csv.gz"), "wb") as out:
        out.write(data)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
