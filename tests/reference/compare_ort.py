#!/usr/bin/env python3
"""The whole way from photo to logits, ours beside ONNX Runtime's, on the same ONNX file.

    python compare_ort.py --edge-pack target/debug/edge-pack --package model.edgepack --onnx model.onnx PHOTO [PHOTO…]
        [--truth photos.csv] [--tolerance 1e-4] [--plain]

For every photo: `edge-pack run --tensor` writes the tensor that the network gets and `--json` prints the logits; ONNX Runtime
runs the same ONNX file on that tensor. Logits must agree within tolerance x max|logit|. With --truth (a CSV of Id,label; Id is
the photo's name without extension) the best class of each photo that stands there must be the label. --plain turns ONNX Runtime's optimisations off: it then computes a quantized network as its
file says, in float32; otherwise its int8 kernels saturate on x86-64 machines without VNNI. That the tensor itself
is Keras' is proven elsewhere (tests/goldens/make_vision.py).
"""
import argparse
import csv
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--edge-pack", required=True)
    p.add_argument("--package", required=True)
    p.add_argument("--onnx", required=True)
    p.add_argument("--truth", type=pathlib.Path)
    p.add_argument("--tolerance", type=float, default=1e-4)
    p.add_argument("--plain", action="store_true")
    p.add_argument("photos", nargs="+", type=pathlib.Path)
    a = p.parse_args()
    truth = {}
    if a.truth:
        with a.truth.open(newline="") as f:
            truth = {row["Id"]: row["label"] for row in csv.DictReader(f)}
    options = onnxruntime.SessionOptions()
    if a.plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(a.onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    worst, labelled, wrong = 0.0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        npy = pathlib.Path(folder) / "tensor.npy"
        for photo in a.photos:
            out = subprocess.run([a.edge_pack, "run", a.package, photo, "--tensor", npy, "--json"], check=True,
                                 stdout=subprocess.PIPE, text=True).stdout
            ours = json.loads(out)
            theirs = session.run(None, {name: np.load(npy)})[0].reshape(-1)
            logits = np.array(ours["logits"], np.float32)
            off = float(np.abs(logits - theirs).max() / np.abs(theirs).max())
            worst = max(worst, off)
            # Two classes that lie closer than what may differ can change places.
            best = np.sort(theirs)[-2:]
            clear = len(best) < 2 or best[1] - best[0] > 2 * a.tolerance * np.abs(theirs).max()
            if off > a.tolerance or clear and logits.argmax() != theirs.argmax():
                wrong.append(f"{photo.name}: logits differ by {off:.1e} of the largest")
            if photo.stem in truth:
                labelled += 1
                if ours["top"][0]["label"] != truth[photo.stem]:
                    wrong.append(f"{photo.name}: {ours['top'][0]['label']}, but it is {truth[photo.stem]}")
    if wrong:
        sys.exit("\n".join(wrong))
    right = f", {labelled} of {labelled} labelled photos right" if truth else ""
    print(f"{len(a.photos)} photos, logits within {worst:.1e} of the largest logit of ONNX Runtime's{right}")


if __name__ == "__main__":
    main()
