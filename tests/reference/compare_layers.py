#!/usr/bin/env python3
"""Every layer of a quantized network, ours beside ONNX Runtime's, on the same ONNX file and the same photo.

    python compare_layers.py --edge-pack target/debug/edge-pack --onnx model.onnx PHOTO [PHOTO…]

`edge-pack run --values` writes what each quantized value stands for. ONNX Runtime computes each layer as the file says, without
optimisations, from our values before it: the sub-graph from the quantized values that the layer reads to the one that it makes.
At least --within of the values of each layer must lie within one quantization step. (From the photo on, two exact runtimes
drift apart: where a sum lies halfway between two steps, the last bit of a float decides, and the layers after it see that.)

Layers are asked for in two runs: all of them, which keeps each by itself, and those that no depthwise convolution makes, so
that the fused pairs of depthwise and pointwise are compared as they run.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from onnx import helper


def session(model):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class Network:
    def __init__(self, path):
        self.model = onnx.load(path)
        graph = self.model.graph
        self.constants = {t.name: t for t in graph.initializer}
        self.maker = {o: n for n in graph.node for o in n.output}
        self.input = graph.input[0].name
        # What each quantized value stands for, and its step.
        self.values, self.steps = [], {}
        for node in graph.node:
            if node.op_type == "DequantizeLinear" and node.input[0] not in self.constants:
                self.values.append(node.output[0])
                self.steps[node.output[0]] = float(onnx.numpy_helper.to_array(self.constants[node.input[1]]))

    def depthwise(self, value):
        """Whether a depthwise convolution makes the value."""
        node = self.maker[value]
        while node and node.op_type in ("DequantizeLinear", "QuantizeLinear", "Relu", "Clip"):
            node = self.maker.get(node.input[0])
        return node and node.op_type == "Conv" and any(a.name == "group" and a.i > 1 for a in node.attribute)

    def layer(self, value, given):
        """The sub-graph that makes a value from those in `given`, and which of them it reads."""
        nodes, read, seen, pending = [], [], set(), [value]
        while pending:
            name = pending.pop()
            if name in seen or name in self.constants or not name:
                continue
            seen.add(name)
            if name != value and (name in given or name == self.input):
                read.append(name)
                continue
            node = self.maker[name]
            if not any(node is n for n in nodes):
                nodes.append(node)
                pending.extend(node.input)
        order = {id(n): i for i, n in enumerate(self.model.graph.node)}
        nodes.sort(key=lambda n: order[id(n)])
        used = {i for n in nodes for i in n.input}
        info = lambda n: helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "layer", [info(n) for n in read], [info(value)],
                                  [t for n, t in self.constants.items() if n in used])
        model = helper.make_model(graph, opset_imports=self.model.opset_import)
        model.ir_version = self.model.ir_version
        return session(model), read


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--edge-pack", required=True)
    p.add_argument("--onnx", required=True)
    p.add_argument("--within", type=float, default=0.999)
    p.add_argument("photos", nargs="+")
    a = p.parse_args()
    network = Network(a.onnx)
    failed, worst, equal, count = [], 1.0, 0, 0
    for photo in a.photos:
        for names in (network.values, [v for v in network.values if not network.depthwise(v)]):
            with tempfile.TemporaryDirectory() as folder:
                folder = pathlib.Path(folder)
                only = [x for name in names for x in ("--value", name)] if names is not network.values else []
                subprocess.run([a.edge_pack, "run", a.onnx, photo, "--values", folder / "values", *only,
                                "--tensor", folder / "tensor.npy"], check=True, stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
                index = json.loads((folder / "values/index.json").read_text())
                ours = {name: np.load(folder / "values" / file) for name, file in index.items()}
                tensor = np.load(folder / "tensor.npy")
            given = {**ours, network.input: tensor}
            for name in names:
                run, read = network.layer(name, ours)
                wanted = run.run(None, {n: given[n] for n in read})[0]
                off = np.abs(wanted.reshape(ours[name].shape) - ours[name]) / network.steps[name]
                near = float((off < 1.01).mean())
                equal, count, worst = equal + int((off < 0.01).sum()), count + off.size, min(worst, near)
                if near < a.within:
                    failed.append(f"{photo}: {name}: {near:.3%} within one step, largest {off.max():.1f} steps")
    if failed:
        sys.exit("\n".join(failed))
    print(f"{len(network.values)} layers, {len(a.photos)} photos: at least {worst:.3%} of each layer's values within one step of "
          f"ONNX Runtime's from the same input, {equal / count:.3%} of all equal")


if __name__ == "__main__":
    main()
