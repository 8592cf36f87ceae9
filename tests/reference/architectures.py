#!/usr/bin/env python3
"""The classifiers of keras.applications that people bring, with random weights, as ONNX files to be timed.

    python architectures.py --edge-pack target/debug/edge-pack --out folder [--only ResNet50]

Keras makes each network without downloading anything, `edge-pack import` makes ONNX of it. Its weights are drawn anew by He's rule,
so that values keep their size from layer to layer, as they do in a trained network: time depends on them where they vanish.
A file that is there stays.
"""
import argparse
import os
import pathlib
import subprocess
import sys
import tempfile

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np
import onnx
from onnx import numpy_helper

# Name in keras.applications and the size of the picture that it is used with.
NETWORKS = {
    "MobileNet": 224, "MobileNetV2": 224, "MobileNetV3Large": 224, "ResNet50": 224, "InceptionV3": 299, "EfficientNetB0": 224,
    "DenseNet121": 224, "VGG16": 224,
}


def draw(model):
    rng = np.random.default_rng(7)
    constants = {t.name: t for t in model.graph.initializer}

    def set_to(name, values):
        constants[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))

    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            shape = numpy_helper.to_array(constants[node.input[1]]).shape
            inputs = np.prod(shape[1:]) if node.op_type == "Conv" else shape[0]
            set_to(node.input[1], rng.normal(0, (2 / inputs) ** 0.5, shape))
            if len(node.input) > 2 and node.input[2]:
                set_to(node.input[2], rng.normal(0, 0.1, numpy_helper.to_array(constants[node.input[2]]).shape))
        elif node.op_type == "BatchNormalization":
            for name, (mean, spread) in zip(node.input[1:5], [(1, 0.1), (0, 0.1), (0, 0.1), (1, 0.1)]):
                set_to(name, np.abs(rng.normal(mean, spread, numpy_helper.to_array(constants[name]).shape)) if mean else
                       rng.normal(mean, spread, numpy_helper.to_array(constants[name]).shape))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--edge-pack", required=True)
    p.add_argument("--out", required=True, type=pathlib.Path)
    p.add_argument("--only", choices=NETWORKS)
    a = p.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    for name, size in NETWORKS.items():
        target = a.out / f"{name}.onnx"
        if a.only in (None, name) and not target.exists():
            import keras

            with tempfile.TemporaryDirectory() as folder:
                file = pathlib.Path(folder) / f"{name}.keras"
                getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3)).save(file)
                made = pathlib.Path(folder) / f"{name}.onnx"
                done = subprocess.run([a.edge_pack, "import", file, "--input-size", str(size), "-o", made], capture_output=True, text=True)
                if done.returncode:
                    sys.exit(f"{name}: {done.stderr}")
                model = onnx.load(made)
            draw(model)
            partial = target.with_suffix(".partial")
            onnx.save(model, partial)
            partial.rename(target)
        if a.only in (None, name):
            print(f"{name}\t{size}\t{target}")


if __name__ == "__main__":
    main()
