"""The protocol of `benches/src/worker.rs`: one JSON argument, a first line, a block of seconds per line `run`."""

import json
import sys
import time


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
    run(min(request["repetitions"], 2))
    say({"ready": True, "answer": answer, "versions": versions, "kernel_path": None, "idle_bytes": idle_bytes, **cost})
    for line in sys.stdin:
        if line.strip() == "run":
            say({"seconds": run(request["repetitions"])})
    say({"done": True, "peak_bytes": field("VmHWM:")})
