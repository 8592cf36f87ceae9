#!/usr/bin/env python3
"""How often quantized networks give the class of the float one, in several runtimes, and how far their logits are apart.

    python agreement.py --edge-pack target/debug/edge-pack [--divide 127.5] float.onnx quantized.onnx[,other.xml…] PHOTOS

PHOTOS is a folder of class folders, or of photos. Each quantized file runs in our engine (ONNX files), in ONNX Runtime (as the
file says, in float32: optimisations off) and in OpenVINO; the float file in our engine. The others get photos resized to the nearest
pixel and scaled to (x - DIVIDE) / DIVIDE; that ours are the same is proven elsewhere (compare_ort.py). Printed are the share of photos with
the float network's class, accuracy where folders are classes of the model, and for each pair of runtimes on one file how far
logits are apart, in steps of max|logit| / 127, an output quantized to bytes.
"""
import argparse
import collections
import itertools
import json
import pathlib
import subprocess
import tempfile

import numpy as np
import onnx
import onnxruntime
import openvino
from PIL import Image


def ours(edge_pack, model, photos, folder):
    package = folder / "model.edgepack"
    subprocess.run([edge_pack, model, "-o", package], check=True, capture_output=True)
    out = subprocess.run([edge_pack, "run", package, *photos, "--json"], check=True, stdout=subprocess.PIPE, text=True).stdout
    return np.array([json.loads(line)["logits"] for line in out.splitlines()])


def tensors_of(model, photos, divide):
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    first = shape[1] == 3
    height, width = shape[2:] if first else shape[1:3]
    for photo in photos:
        x = np.asarray(Image.open(photo).convert("RGB").resize((width, height), Image.NEAREST), np.float32)[None] / divide - 1
        yield np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if first else x


def in_onnx_runtime(model, tensors):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return np.array([session.run(None, {name: t})[0].reshape(-1) for t in tensors])


def in_openvino(model, tensors):
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    return np.array([np.array(compiled(t)[0]).reshape(-1) for t in tensors])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--edge-pack", required=True)
    p.add_argument("--divide", type=float, default=127.5)
    p.add_argument("float")
    p.add_argument("quantized", help="files, separated by commas")
    p.add_argument("photos", type=pathlib.Path)
    a = p.parse_args()
    photos = sorted(f for f in a.photos.rglob("*") if f.suffix.lower() in (".jpg", ".jpeg", ".png"))
    model = onnx.load(a.float)
    properties = {m.key: m.value for m in model.metadata_props}
    labels = [x if isinstance(x, str) else x.get("label", x) for x in json.loads(properties.get("edgepack.labels", "[]"))]
    truth = np.array([labels.index(f.parent.name) if f.parent.name in labels else -1 for f in photos])
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        wanted, tensors = ours(a.edge_pack, a.float, photos, folder), list(tensors_of(model, photos, a.divide))
        classes = wanted.argmax(1)
        known = truth >= 0
        accuracy = lambda found: f", accuracy {np.mean(found[known] == truth[known]):.4f}" if known.any() else ""
        print(f"{len(photos)} photos; float{accuracy(classes)}")
        for model in a.quantized.split(","):
            found = collections.OrderedDict()
            if model.endswith(".onnx"):
                found["ours"] = ours(a.edge_pack, model, photos, folder)
                found["ONNX Runtime"] = in_onnx_runtime(model, tensors)
            found["OpenVINO"] = in_openvino(model, tensors)
            for name, logits in found.items():
                same = logits.argmax(1) == classes
                print(f"{pathlib.Path(model).name} in {name}: {same.mean():.4f} the float network's class{accuracy(logits.argmax(1))}")
            for (one, x), (other, y) in itertools.combinations(found.items(), 2):
                steps = np.abs(x - y).max(1) / (np.abs(x).max(1) / 127)
                same = np.mean(x.argmax(1) == y.argmax(1))
                print(f"  {one} and {other}: {same:.4f} the same class; logits apart by {np.median(steps):.1f} steps in the median, "
                      f"{np.percentile(steps, 99):.1f} for 99 of 100, {steps.max():.1f} at most")


if __name__ == "__main__":
    main()
