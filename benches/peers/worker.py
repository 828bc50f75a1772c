"""The protocol of `benches/src/worker.rs`: one JSON argument, a first line, a block of seconds per line `run`."""

import json
import sys
import time

import numpy as np


def request():
    return json.loads(sys.argv[1])


def field(name):
    try:
        with open("/proc/self/status") as status:
            for line in status:
                if line.startswith(name):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def idx(path, n_dims):
    """An IDX file of unsigned bytes."""
    with open(path, "rb") as file:
        data = np.frombuffer(file.read(), np.uint8)
    shape = data[4:4 + 4 * n_dims].view(">u4").astype(int)
    return data[4 + 4 * n_dims:].reshape(shape)


def resident_bytes():
    return field("VmRSS:")


def say(document):
    print(json.dumps(document), flush=True)


def skip(reason):
    say({"skip": reason})
    sys.exit(0)


def timed(once):
    """A block runner: the seconds of each call of `once`."""

    def run(n):
        seconds = []
        for _ in range(n):
            started = time.perf_counter()
            once()
            seconds.append(time.perf_counter() - started)
        return seconds

    return run


def serve(request, versions, idle_bytes, set_up):
    """`set_up()` gives (answer, run, cost): what was computed, a function of n repetitions that gives their seconds, and a dict with
    `bytes` or `flops` of one repetition."""
    answer, run, cost = set_up()
    if request["repetitions"] > 1:
        run(2)
    say({"ready": True, "answer": answer, "versions": versions, "kernel_path": None, "idle_bytes": idle_bytes, **cost})
    for line in sys.stdin:
        if line.strip() == "run":
            say({"seconds": run(request["repetitions"])})
    say({"done": True, "peak_bytes": field("VmHWM:")})
