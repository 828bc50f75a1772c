"""PyTorch on a GPU, eager and compiled: the curve steps and evaluations of `landscape-gpu`, on the same weights and data.

`torch_gpu.py f32|tf32|bf16 [cuda:N]` prints a line of JSON for every network and way, as it is measured. f32 keeps TF32 off everywhere,
tf32 allows it everywhere, bf16 is autocast to bfloat16. Batches come from pinned memory, and ten steps are waited for together, as ours.
A line has the losses of the first steps, taken without dropout, and of the evaluation: without the same losses there is nothing to compare."""

import json
import statistics
import sys
import time

import torch
from torch.func import functional_call
from torch.nn import functional as F

import torch_models as models
import values

SEED, BATCH, TOGETHER, BLOCKS, WARM_UP = 1, 128, 10, 15, 3
ANSWER_STEPS, ANSWER_RATE, TIMED_RATE = 3, 0.01, 1e-6
MODELS = ["mlp:784-512-512-512-10", "resnet20", "vgg16"]
PRECISION = sys.argv[1]
DEVICE = sys.argv[2] if len(sys.argv) > 2 else "cuda:0"


def seconds(run, wait):
    """Median and quartiles of a step's seconds; the first blocks compile and choose algorithms."""
    times = []
    for block in range(BLOCKS + WARM_UP):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for idx in range(TOGETHER):
            result = run(block * TOGETHER + idx)
        wait(result)
        torch.cuda.synchronize()
        times.append((time.perf_counter() - start) / TOGETHER)
    times = sorted(times[WARM_UP:])
    return statistics.median(times), [times[BLOCKS // 4], times[3 * BLOCKS // 4]]


def measure(model, how):
    torch._dynamo.reset()
    net = models.build(model).to(DEVICE).to(memory_format=torch.channels_last)
    rows = [[t.to(DEVICE) for t in models.point(net, SEED, k)] for k in range(3)]
    models.load(net, rows[0])
    models.load_statistics(net, SEED)
    names = [name for name, _ in net.named_parameters()]
    rows[1] = [t.clone().requires_grad_() for t in rows[1]]
    momenta = [torch.zeros_like(t) for t in rows[1]]
    x, y = (torch.from_numpy(v).pin_memory() for v in values.batch(SEED, 0, BATCH, model))
    # On the device before any clock runs, since making a tensor there waits for it; four wide, so that every row is aligned.
    t = torch.from_numpy(values.ts(SEED, ANSWER_STEPS + TOGETHER * (BLOCKS + WARM_UP)))
    coefficients = torch.stack([(1 - t) ** 2, 2 * t * (1 - t), t * t, 0 * t], dim=1).float().to(DEVICE)

    def loss_at(c, x, y):
        point = {name: c[0] * a + c[1] * b + c[2] * d for name, a, b, d in zip(names, *rows)}
        decay = sum((w * w).sum() for w in point.values())
        with torch.autocast("cuda", torch.bfloat16, enabled=PRECISION == "bf16"):
            nll = F.cross_entropy(functional_call(net, point, (x,)), y)
        return nll, nll + 0.5 * 5e-4 * decay

    def evaluate(x, y):
        with torch.autocast("cuda", torch.bfloat16, enabled=PRECISION == "bf16"):
            return F.cross_entropy(net(x), y, reduction="sum")

    if how == "compiled":
        loss_at, evaluate = torch.compile(loss_at), torch.compile(evaluate)

    def on_gpu():
        images = x.to(DEVICE, non_blocking=True)
        images = images.to(memory_format=torch.channels_last) if images.dim() == 4 else images
        return images, y.to(DEVICE, non_blocking=True)

    def step(idx, rate):
        nll, loss = loss_at(coefficients[idx, :3], *on_gpu())
        gradient = torch.autograd.grad(loss, rows[1])
        with torch.no_grad():
            torch._foreach_mul_(momenta, 0.9)
            torch._foreach_add_(momenta, gradient)
            torch._foreach_add_(rows[1], momenta, alpha=-rate)
        return nll.detach()

    def measured(idx):
        with torch.no_grad():
            return evaluate(*on_gpu())

    result = {"model": model, "precision": PRECISION, "batch": BATCH, "how": how}
    net.train()
    models.set_dropout(net, 0.0)
    result["curve_step_losses"] = [step(idx, ANSWER_RATE).item() for idx in range(ANSWER_STEPS)]
    models.set_dropout(net, 0.5)
    timed = lambda idx: step(ANSWER_STEPS + idx, TIMED_RATE)
    result["curve_step_seconds"], result["curve_step_quartiles"] = seconds(timed, lambda loss: loss.item())
    net.eval()
    # Training has moved them.
    models.load_statistics(net, SEED)
    result["evaluation_losses"] = [measured(0).item() / BATCH]
    result["evaluation_seconds"], result["evaluation_quartiles"] = seconds(measured, lambda loss: loss.item())
    return result


if PRECISION not in ("f32", "tf32", "bf16"):
    sys.exit(f"expected f32, tf32 or bf16, got {PRECISION}")
if not torch.cuda.is_available():
    sys.exit("PyTorch sees no GPU")
torch.cuda.set_device(DEVICE)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = PRECISION == "tf32"
for model in MODELS:
    for how in ("eager", "compiled"):
        try:
            row = measure(model, how)
        except Exception as error:
            if how == "eager":
                raise
            row = {"model": model, "precision": PRECISION, "how": how, "failed": str(error).splitlines()[0][:200]}
        # At once: a run that is ended loses what it has not measured, and nothing else.
        print(json.dumps(row | {"torch": torch.__version__}), flush=True)
