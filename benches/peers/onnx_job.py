"""ONNX Runtime on the CPU: a network exported from PyTorch, evaluated on a batch."""

import io

import numpy as np
import onnxruntime
import torch

import torch_models as models
import values
import worker

REQUEST = worker.request()
IDLE_BYTES = worker.resident_bytes()


def export(model, n_batch):
    net = models.build(model).eval()
    models.load(net, models.point(net, REQUEST["seed"], 0))
    models.load_statistics(net, REQUEST["seed"])
    x = torch.zeros(n_batch, *values.input_shape(model))
    file = io.BytesIO()
    # The exporter that needs nothing beside torch.
    torch.onnx.export(net, (x,), file, dynamo=False, input_names=["x"], output_names=["y"])
    return file.getvalue()


def set_up():
    if REQUEST["job"] != "evaluate":
        worker.skip(f"this peer has no job `{REQUEST['job']}`")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = REQUEST["threads"]
    options.inter_op_num_threads = 1
    # Threads that spin between runs would take the cores from the other sides.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(export(REQUEST["model"], REQUEST["batch"]), options, providers=["CPUExecutionProvider"])
    x, y = values.batch(REQUEST["seed"], 0, REQUEST["batch"], REQUEST["model"])

    def once():
        logits = session.run(None, {"x": x})[0].astype(np.float64)
        top = logits.max(1, keepdims=True)
        return float((np.log(np.exp(logits - top).sum(1)) + top[:, 0] - logits[np.arange(len(y)), y]).mean())

    return [once()], worker.timed(once), {}


versions = {"onnxruntime": onnxruntime.__version__, "torch": torch.__version__}
worker.serve(REQUEST, versions, IDLE_BYTES, set_up)
