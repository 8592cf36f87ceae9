#!/usr/bin/env python3
"""Small random networks, ours beside ONNX Runtime's: windows, strides, dilations and padding of every kind over the picture.

    python random_networks.py --edge-pack target/debug/edge-pack [--count 40] [--seed 1]

Each network is two or three convolutions (dense, depthwise, pointwise), activations (rectifier, swish, hard swish as one operator and
as several, sigmoid), now and then a squeeze-and-excitation, a normalization by itself, branches put beside each other or pooled, then
pooling and a dense layer, on a picture of a random size, in float32 and as ONNX Runtime's static quantizer makes it. Logits must agree within 1e-4 of the largest in float32;
of the quantized ones within four steps of the last, or else each layer by itself, by compare_layers.py, within one.
"""
import argparse
import json
import logging
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import onnx
from compare_layers import session
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from PIL import Image


logging.disable(logging.WARNING)


def activation(rng, nodes, constant, value, i):
    kind = rng.choice(["none", "Relu", "Relu", "silu", "HardSwish", "hard swish", "Sigmoid", "Clip"])
    if kind == "none":
        return value
    if kind == "silu":
        nodes.append(helper.make_node("Sigmoid", [value], [f"s{i}"]))
        nodes.append(helper.make_node("Mul", [value, f"s{i}"][:: rng.choice([-1, 1])], [f"a{i}"]))
    elif kind == "hard swish":
        # As it is written by hand: x * relu6(x + 3) / 6, divided before or after the product.
        nodes.append(helper.make_node("Add", [value, constant(f"three{i}", np.array(3.0))], [f"h{i}"]))
        nodes.append(helper.make_node("Clip", [f"h{i}", constant(f"zero{i}", np.array(0.0)), constant(f"six{i}", np.array(6.0))], [f"k{i}"]))
        six = constant(f"by{i}", np.array(6.0))
        if rng.random() < 0.5:
            nodes.append(helper.make_node("Div", [f"k{i}", six], [f"d{i}"]))
            nodes.append(helper.make_node("Mul", [value, f"d{i}"], [f"a{i}"]))
        else:
            nodes.append(helper.make_node("Mul", [value, f"k{i}"], [f"d{i}"]))
            nodes.append(helper.make_node("Div", [f"d{i}", six], [f"a{i}"]))
    elif kind == "Clip":
        nodes.append(helper.make_node("Clip", [value, constant(f"low{i}", np.array(0.0)), constant(f"high{i}", np.array(6.0))], [f"a{i}"]))
    else:
        nodes.append(helper.make_node(kind, [value], [f"a{i}"]))
    return f"a{i}"


def excitation(rng, nodes, constant, value, channels, i):
    inner = int(rng.integers(1, 9))
    nodes.append(helper.make_node("GlobalAveragePool", [value], [f"sq{i}"]))
    inputs = [f"sq{i}", constant(f"wr{i}", rng.normal(0, 1, (inner, channels, 1, 1))), constant(f"br{i}", rng.normal(0, 0.1, inner))]
    nodes.append(helper.make_node("Conv", inputs, [f"re{i}"], kernel_shape=[1, 1]))
    nodes.append(helper.make_node("Relu", [f"re{i}"], [f"rr{i}"]))
    inputs = [f"rr{i}", constant(f"we{i}", rng.normal(0, 1, (channels, inner, 1, 1))), constant(f"be{i}", rng.normal(0, 0.1, channels))]
    nodes.append(helper.make_node("Conv", inputs, [f"ex{i}"], kernel_shape=[1, 1]))
    nodes.append(helper.make_node(str(rng.choice(["Sigmoid", "HardSigmoid"])), [f"ex{i}"], [f"ga{i}"]))
    nodes.append(helper.make_node("Mul", [value, f"ga{i}"][:: rng.choice([-1, 1])], [f"se{i}"]))
    return f"se{i}"


def branches(rng, nodes, constant, value, channels, size, i):
    """A pooled branch, a normalized one and the value itself, beside each other."""
    kernel, pads = [3, 3], [1, 1, 1, 1]
    inside = int(rng.integers(0, 2))
    nodes.append(helper.make_node("AveragePool", [value], [f"ap{i}"], kernel_shape=kernel, pads=pads, count_include_pad=inside))
    vectors = [rng.normal(1, 0.1, channels), rng.normal(0, 0.1, channels), rng.normal(0, 0.1, channels), rng.uniform(0.5, 1.5, channels)]
    names = [constant(f"bn{i}{j}", v) for j, v in enumerate(vectors)]
    nodes.append(helper.make_node("BatchNormalization", [value, *names], [f"n{i}"]))
    nodes.append(helper.make_node("Relu", [f"n{i}"], [f"nr{i}"]))
    outputs = int(rng.integers(1, 20))
    inputs = [f"nr{i}", constant(f"wb{i}", rng.normal(0, (2 / channels) ** 0.5, (outputs, channels, 1, 1)))]
    nodes.append(helper.make_node("Conv", inputs, [f"nb{i}"], kernel_shape=[1, 1]))
    parts = [value, f"ap{i}", f"nb{i}"]
    rng.shuffle(parts)
    nodes.append(helper.make_node("Concat", parts, [f"cat{i}"], axis=int(rng.choice([1, -3]))))
    channels = 2 * channels + outputs
    if min(size) > 2 and rng.random() < 0.5:
        nodes.append(helper.make_node("AveragePool", [f"cat{i}"], [f"half{i}"], kernel_shape=[2, 2], strides=[2, 2]))
        return f"half{i}", channels, [s // 2 for s in size]
    return f"cat{i}", channels, size


def network(rng):
    h, w = (int(v) for v in rng.integers(9, 40, 2))
    nodes, weights = [], []

    def constant(name, values):
        weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    nhwc = rng.random() < 0.5
    value, channels, size = "picture", 3, [h, w]
    if nhwc:
        nodes.append(helper.make_node("Transpose", ["picture"], ["nchw"], perm=[0, 3, 1, 2]))
        value = "nchw"
    if rng.random() < 0.3:
        # Normalized in the network, before anything pads it.
        spread = rng.uniform(0.5, 2, (3, 1, 1) if nhwc or rng.random() < 0.5 else (1,))
        nodes.append(helper.make_node("Sub", [value, constant("mean", rng.normal(0, 1, (1, 3, 1, 1)))], ["centred"]))
        nodes.append(helper.make_node("Div", ["centred", constant("spread", spread)], ["normal"]))
        value = "normal"
    for i in range(int(rng.integers(2, 4))):
        kernel = [int(v) for v in rng.integers(1, 5, 2)]
        dilations = [int(v) for v in rng.integers(1, 3, 2)]
        strides = [int(v) for v in rng.integers(1, 4, 2)]
        pads = [int(v) for v in rng.integers(0, 3, 4)]
        # Now and then what is computed with fewer multiplications: 3x3 of stride 1 between many channels.
        many = rng.random() < 0.3
        if many and i:
            kernel, dilations, strides = [3, 3], [1, 1], [1, 1]
        elif many:
            strides = [1, 1]
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
        made = [(s + pads[j] + pads[j + 2] - reach[j]) // strides[j] + 1 for j, s in enumerate(size)]
        if min(made) < 1 or any(s + pads[j] + pads[j + 2] < reach[j] for j, s in enumerate(size)):
            kernel, dilations, strides, pads, made = [1, 1], [1, 1], [1, 1], [0] * 4, size
        kind = rng.choice(["full", "depthwise"]) if i and not many else "full"
        outputs = channels if kind == "depthwise" else int(rng.integers(1, 40) + 31 * many)
        shape = (outputs, 1 if kind == "depthwise" else channels, *kernel)
        scale = (2 / np.prod(shape[1:])) ** 0.5
        inputs = [value, constant(f"w{i}", rng.normal(0, scale, shape)), constant(f"b{i}", rng.normal(0, 0.1, outputs))]
        nodes.append(helper.make_node("Conv", inputs, [f"c{i}"], kernel_shape=kernel, strides=strides, dilations=dilations,
                                      pads=pads, group=channels if kind == "depthwise" else 1))
        value, channels, size = f"c{i}", outputs, made
        value = activation(rng, nodes, constant, value, i)
        if rng.random() < 0.3:
            value = excitation(rng, nodes, constant, value, channels, i)
        if rng.random() < 0.3:
            value, channels, size = branches(rng, nodes, constant, value, channels, size, i)
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pool"]))
    nodes.append(helper.make_node("Flatten", ["pool"], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", constant("w", rng.normal(0, 1, (channels, 5))), constant("b", rng.normal(0, 1, 5))], ["logits"]))
    picture = [1, h, w, 3] if nhwc else [1, 3, h, w]
    graph = helper.make_graph(nodes, "random", [helper.make_tensor_value_info("picture", TensorProto.FLOAT, picture)],
                              [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 5])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model, (h, w), nhwc


class Reader(CalibrationDataReader):
    def __init__(self, tensors):
        self.tensors = iter([{"picture": t} for t in tensors])

    def get_next(self):
        return next(self.tensors, None)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--edge-pack", required=True)
    p.add_argument("--count", type=int, default=40)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    failed, worst, steps, ours_alone, drifted = [], 0.0, 0.0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for number in range(a.count):
            rng = np.random.default_rng([a.seed, number])
            model, (h, w), nhwc = network(rng)
            onnx.save(model, folder / "float.onnx")
            Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8)).save(folder / "picture.png")
            tensors = [rng.uniform(-1, 1, (1, h, w, 3) if nhwc else (1, 3, h, w)).astype(np.float32) for _ in range(4)]
            kind = QuantType.QUInt8 if rng.random() < 0.5 else QuantType.QInt8
            quantize_static(folder / "float.onnx", folder / "int8.onnx", Reader(tensors), quant_format=QuantFormat.QDQ,
                            activation_type=kind, weight_type=QuantType.QInt8, per_channel=True)
            for file in ("float.onnx", "int8.onnx"):
                out = subprocess.run([a.edge_pack, "run", folder / file, folder / "picture.png", "--tensor", folder / "t.npy",
                                      "--json"], capture_output=True, text=True)
                if out.returncode:
                    failed.append(f"network {number}, {file}: {out.stderr.strip()[-300:]}")
                    continue
                ours = np.array(json.loads(out.stdout)["logits"], np.float32)
                plain = session(onnx.load(folder / file))
                theirs = plain.run(None, {"picture": np.load(folder / "t.npy")})[0].reshape(-1)
                off, largest = np.abs(ours - theirs).max(), np.abs(theirs).max()
                plan = subprocess.run([a.edge_pack, "inspect", "--plan", folder / file], capture_output=True, text=True).stdout
                ours_alone += "tract:" not in plan
                if file == "float.onnx":
                    worst = max(worst, off / largest)
                    bad = off > 1e-4 * largest
                else:
                    step = np.unique(np.abs(np.diff(np.unique(theirs)))).min(initial=largest / 255)
                    step = max(step, largest / 255)
                    bad = off > 4 * step
                    if bad:
                        # A tie that fell the other way early on is seen by all layers after it: each by itself is asked.
                        layers = subprocess.run([sys.executable, pathlib.Path(__file__).with_name("compare_layers.py"), "--edge-pack",
                                                 a.edge_pack, "--onnx", folder / file, folder / "picture.png"], capture_output=True)
                        bad, drifted = layers.returncode != 0, drifted + 1
                    else:
                        steps = max(steps, off / step)
                if bad:
                    failed.append(f"network {number}, {file}: logits differ by {off:.3g} of {largest:.3g}\n{plan}")
    if failed:
        sys.exit("\n".join(failed))
    print(f"{a.count} random networks in float32 and int8: logits within {worst:.1e} of ONNX Runtime's largest in float32, within "
          f"{steps:.1f} steps in int8, but for {drifted} where only each layer by itself is within one; {ours_alone} of {2 * a.count} run on our kernels alone")


if __name__ == "__main__":
    main()
