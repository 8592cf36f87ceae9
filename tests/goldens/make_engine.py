#!/usr/bin/env python3
"""Write engine/*.onnx, tiny image classifiers in every style we want to take or to refuse, and engine/engine.json.

    python3 -m venv .venv && .venv/bin/pip install -r ../reference/requirements.txt
    .venv/bin/python make_engine.py            # writes
    .venv/bin/python make_engine.py --check    # compares what it would write with what is there

Every case is one file and one object in engine.json. A case to accept has the logits that ONNX Runtime computes, its graph
optimisations off (so quantised models are computed as their nodes say), for three pictures. A case to refuse has the kind of
error, and the names that the message must mention. Fields:

    file              in engine/
    about             what is special about it
    input_shape       concrete shape to run it with; batch 1
    layout            "NHWC" or "NCHW"
    opset             of the default domain
    qdq               holds QuantizeLinear and DequantizeLinear
    final_activation  "softmax", "sigmoid" or "none": what the graph ends in
    outputs_logits    one row per picture: the values before the final activation
    outputs           one row per picture: what the graph computes; absent when it ends in no activation
    spread            how far ONNX Runtime with all optimisations on is from `outputs_logits`, relative to the largest |logit|:
                      what another order of additions, or integer kernels, may cost
    may_error         the case may also be refused, with this kind: not every engine has to do it
    error, names      the case must be refused

Picture number `seed` (1, 2, 3) is not stored. It is made of blocks of 4x4 pixels; integers are unsigned, with 64 bits:

    k = (y / 4) * 31 + (x / 4) * 17 + channel * 7 + seed * 101
    value = float32((k * 2654435761 % 2^32) / 65536 % 1000) / 500 - 1

Weights are random, from fixed seeds. The last layer is scaled and shifted so that logits are of the order of one and differ
from picture to picture. The float files come out with the same bytes everywhere; those that ONNX Runtime quantised and the
last digits of the numbers may depend on the CPU, which --check allows for.
"""
import argparse
import json
import logging
import os
import pathlib
import sys
import tempfile
import zlib

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

HERE = pathlib.Path(__file__).resolve().parent / "engine"
SEEDS = (1, 2, 3)
CLASSES = 5
F32, F16, I64, U8 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.UINT8

CASES = []


def picture(seed, height, width, channels=3):
    """[height, width, channels], float32 in -1..1."""
    y, x, c = np.meshgrid(*(np.arange(n, dtype=np.uint64) for n in (height, width, channels)), indexing="ij")
    four = np.uint64(4)
    k = (y // four) * np.uint64(31) + (x // four) * np.uint64(17) + c * np.uint64(7) + np.uint64(seed * 101)
    h = k * np.uint64(2654435761) % np.uint64(2**32) // np.uint64(65536) % np.uint64(1000)
    return h.astype(np.float32) / np.float32(500) - np.float32(1)


def feed(seed, shape, layout):
    h, w, c = shape[1:] if layout == "NHWC" else (shape[2], shape[3], shape[1])
    x = picture(seed, h, w, c)
    return np.ascontiguousarray((x if layout == "NHWC" else x.transpose(2, 0, 1))[None])


class Net:
    """A graph under construction. Methods take and return tensor names."""

    def __init__(self, file, about, shape, opset, *, layout="NCHW", dims=None, input_name="input", names="{}"):
        self.file, self.about, self.shape, self.opset, self.layout = file, about, list(shape), opset, layout
        self.dims = list(shape) if dims is None else dims
        self.input, self.names = input_name, names
        self.rng = np.random.default_rng(zlib.crc32(file.encode()))
        self.nodes, self.constants, self.half = [], {}, False
        self.dense_kernel = self.dense_bias = None
        self.logits = None
        self.metadata = {}
        self.count = 0

    # --- building blocks -------------------------------------------------------------------------------------------------

    def const(self, array, name=None):
        self.count += 1
        name = name or self.names.format(f"const_{self.count}")
        self.constants[name] = np.asarray(array)
        return name

    def op(self, kind, *inputs, out=None, name=None, **attributes):
        self.count += 1
        out = out or self.names.format(f"{kind}_{self.count}")
        self.nodes.append(helper.make_node(kind, list(inputs), [out], name=name or out, **attributes))
        return out

    def normal(self, *shape, fan=None):
        fan = fan or int(np.prod(shape[1:]))
        return self.rng.normal(0, np.sqrt(2 / fan), shape).astype(np.float32)

    def conv(self, x, cin, cout, kernel=3, stride=1, pads=None, group=1, bias=True, **attributes):
        if pads is None and "auto_pad" not in attributes:
            pads = [kernel // 2] * 4
        if pads is not None:
            attributes["pads"] = pads
        inputs = [x, self.const(self.normal(cout, cin // group, kernel, kernel))]
        if bias:
            inputs.append(self.const(self.rng.normal(0, 0.2, cout).astype(np.float32)))
        return self.op("Conv", *inputs, kernel_shape=[kernel] * 2, strides=[stride] * 2, group=group, **attributes)

    def bn(self, x, c):
        r = self.rng
        parts = (r.uniform(0.7, 1.3, c), r.normal(0, 0.2, c), r.normal(0, 0.2, c), r.uniform(0.5, 1.5, c))
        return self.op("BatchNormalization", x, *(self.const(p.astype(np.float32)) for p in parts), epsilon=1e-3)

    def relu6(self, x):
        if self.opset < 11:
            return self.op("Clip", x, min=0.0, max=6.0)
        return self.op("Clip", x, self.const(np.float32(0)), self.const(np.float32(6)))

    def mean(self, x, keep=1):
        """Mean over height and width as ReduceMean; its axes became an input at opset 18."""
        if self.opset < 18:
            return self.op("ReduceMean", x, axes=[2, 3], keepdims=keep)
        return self.op("ReduceMean", x, self.const(np.array([2, 3], np.int64)), keepdims=keep)

    def squeeze(self, x):
        if self.opset < 13:
            return self.op("Squeeze", x, axes=[2, 3])
        return self.op("Squeeze", x, self.const(np.array([2, 3], np.int64)))

    def flatten(self, x):
        return self.op("Flatten", x, axis=1)

    def gemm(self, x, features, classes=CLASSES):
        self.dense_kernel = self.const(self.normal(classes, features))
        self.dense_bias = self.const(np.zeros(classes, np.float32))
        self.logits = self.op("Gemm", x, self.dense_kernel, self.dense_bias, transB=1)
        return self.logits

    def matmul(self, x, features, classes=CLASSES):
        self.dense_kernel = self.const(self.normal(features, classes, fan=features))
        self.dense_bias = self.const(np.zeros(classes, np.float32))
        self.logits = self.op("Add", self.op("MatMul", x, self.dense_kernel), self.dense_bias)
        return self.logits

    def nchw(self, x):
        return self.op("Transpose", x, perm=[0, 3, 1, 2])

    def squeeze_excite(self, x, c, gate="Sigmoid"):
        s = self.mean(x)
        s = self.op("Relu", self.conv(s, c, c // 2, 1))
        s = self.conv(s, c // 2, c, 1)
        s = self.op("HardSigmoid", s, alpha=1 / 6, beta=0.5) if gate == "HardSigmoid" else self.op("Sigmoid", s)
        return self.op("Mul", x, s)

    # --- the model -------------------------------------------------------------------------------------------------------

    def model(self, out, out_dims=None, out_type=F32, in_type=F32, extra_outputs=(), initializers_as_inputs=False,
              domains=(), value_info=()):
        constants, nodes = dict(self.constants), list(self.nodes)
        if self.half:
            casts = []
            for name, value in self.constants.items():
                if value.dtype == np.float32 and value.ndim > 1:
                    constants[f"{name}_f16"] = constants.pop(name).astype(np.float16)
                    casts.append(helper.make_node("Cast", [f"{name}_f16"], [name], name=f"{name}_cast", to=F32))
            nodes = casts + nodes
        batch = self.dims[0] if not isinstance(self.dims[0], int) or self.dims[0] > 0 else None
        inputs = [helper.make_tensor_value_info(self.input, in_type, self.dims)]
        if initializers_as_inputs:
            inputs += [helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
                       for k, v in constants.items()]
        outputs = [] if out is None else [
            helper.make_tensor_value_info(out, out_type, [batch, CLASSES] if out_dims is None else out_dims)]
        outputs += [helper.make_tensor_value_info(n, t, d) for n, t, d in extra_outputs]
        graph = helper.make_graph(nodes, pathlib.Path(self.file).stem, inputs, outputs,
                                  [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
                                  value_info=list(value_info))
        opsets = [helper.make_opsetid("", self.opset)] + [helper.make_opsetid(d, 1) for d in domains]
        ir = {9: 4, 11: 6, 13: 7, 15: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10, 23: 11}[self.opset]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=ir, producer_name="edge-suite make_engine.py")
        if self.metadata:
            helper.set_model_props(model, {k: json.dumps(v) for k, v in self.metadata.items()})
        return model

    def settle(self, **kwargs):
        """Scale and shift the dense layer by what it says to six pictures; ours are three of them."""
        model = self.model(self.logits, out_dims=[None, self.constants[self.dense_bias].size], **kwargs)
        y = np.concatenate([run(model, self, s)[0] for s in range(1, 7)])
        scale = np.float32(min(1.2 / (y - y.mean(0)).std(), 30))
        self.constants[self.dense_kernel] = self.constants[self.dense_kernel] * scale
        # A sixteenth is exact in float16 as well, and keeps the last digits of the CPU out of the file.
        bias = self.rng.normal(0, 0.5, y.shape[1]) - scale * y.mean(0)
        self.constants[self.dense_bias] = (np.round(bias * 16) / 16).astype(np.float32)
        self.constants[self.dense_kernel] = (np.round(self.constants[self.dense_kernel] * 1024) / 1024).astype(np.float32)

    def accept(self, out, final="none", *, model=None, qdq=False, may_error=None, logits=None, feed_with=None, **kwargs):
        """Store the file and what it computes. `logits` is the tensor before the final activation."""
        if model is None:
            self.settle(**{k: v for k, v in kwargs.items() if k in ("in_type", "domains")})
            model = self.model(out, **kwargs)
            onnx.checker.check_model(model, full_check=True)
        case = {"file": self.file, "about": self.about, "input_shape": self.shape, "layout": self.layout,
                "opset": self.opset, "qdq": qdq, "final_activation": final}
        if self.metadata:
            case["metadata"] = self.metadata
        before = logits or (self.logits if final != "none" else None)
        source = expose(model, before) if before else model
        index = len(source.graph.output) - 1 if before else 0
        rows = [[r.reshape(-1) for r in run(source, self, s, feed_with)] for s in SEEDS]
        fast = [run(source, self, s, feed_with, optimise=True)[index].reshape(-1) for s in SEEDS]
        values = np.stack([r[index] for r in rows])
        assert np.abs(values).max() < 20 and values.std(0).mean() > 0.2, (self.file, values)
        case["outputs_logits"] = [[float(str(v)) for v in row] for row in values]
        if final != "none":
            case["outputs"] = [[float(str(v)) for v in r[0]] for r in rows]
        case["spread"] = float(f"{np.abs(values - np.stack(fast)).max() / np.abs(values).max():.1e}")
        if may_error:
            case["may_error"] = may_error
        CASES.append((case, model.SerializeToString(deterministic=True)))

    def refuse(self, error, names=(), *, model=None, data=None, out=None, **kwargs):
        """Store the file and the kind of error. Not checked: many of them are not valid ONNX, on purpose."""
        data = data if data is not None else (model or self.model(out, **kwargs)).SerializeToString(deterministic=True)
        case = {"file": self.file, "about": self.about, "input_shape": self.shape, "layout": self.layout,
                "opset": self.opset, "qdq": False, "error": error, "names": list(names)}
        if self.metadata:
            case["metadata"] = self.metadata
        CASES.append((case, data))


def expose(model, tensor):
    """The model with one more output."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(helper.make_tensor_value_info(tensor, F32, None))
    return copy


def run(model, net, seed, feed_with=None, optimise=False):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    x = feed(seed, net.shape, net.layout)
    if feed_with:
        x = feed_with(x)
    if "float16" in session.get_inputs()[0].type:
        x = x.astype(np.float16)
    return [np.asarray(y, np.float32) for y in session.run(None, {session.get_inputs()[0].name: x})]


# --- cases to accept -----------------------------------------------------------------------------------------------------


def keras_styles():
    def body(n, x):
        x = n.relu6(n.conv(x, 3, 8, stride=2, pads=[0, 0, 1, 1]))
        x = n.conv(x, 8, 8, group=8, bias=False)
        # The exporter leaves the BatchNormalization of a depthwise convolution as Mul and Add.
        x = n.op("Mul", x, n.const(n.rng.uniform(0.7, 1.3, (1, 8, 1, 1)).astype(np.float32)))
        x = n.relu6(n.op("Add", x, n.const(n.rng.normal(0, 0.2, (1, 8, 1, 1)).astype(np.float32))))
        x = n.op("Relu", n.conv(x, 8, 12, 1))
        return n.matmul(n.squeeze(n.op("GlobalAveragePool", x)), 12)

    for file, dim, about in (("nhwc-unk-softmax.onnx", "unk__12", "as tf2onnx writes Keras: batch unk__12, Transpose, Softmax"),
                             ("nhwc-minus-one.onnx", -1, "the batch is -1"),
                             ("nhwc-unset.onnx", None, "the batch has neither a value nor a name")):
        n = Net(file, about, (1, 20, 20, 3), 15 if dim == "unk__12" else 13, layout="NHWC", dims=[dim, 20, 20, 3],
                input_name="input_layer_1", names="functional_1/{}:0")
        logits = body(n, n.nchw(n.input))
        if dim == "unk__12":
            n.metadata = {"edgepack.labels": ["cup", "fork", "glass", "knife", {"id": "n04270147", "label": "spatula"}],
                          "edgepack.preprocess": "tf",
                          "edgepack.resize": {"policy": "squash", "interpolation": "nearest"},
                          "edgepack.activation": "probabilities"}
            n.accept(n.op("Softmax", logits, out="Identity:0"), "softmax")
        else:
            n.accept(logits)

    n = Net("nhwc-sigmoid.onnx", "ends in Sigmoid: classes that do not exclude one another", (1, 20, 20, 3), 15, layout="NHWC",
            dims=["unk__9", 20, 20, 3])
    n.accept(n.op("Sigmoid", body(n, n.nchw(n.input))), "sigmoid")

    n = Net("nhwc-rescaling.onnx", "Rescaling inside the model, as Mul and Add before the Transpose; a Pad before the strided Conv",
            (1, 20, 20, 3), 15, layout="NHWC", dims=["unk__398", 20, 20, 3], input_name="keras_tensor_154")
    x = n.op("Add", n.op("Mul", n.input, n.const(np.float32(0.75))), n.const(np.float32(0.125)))
    x = n.relu6(n.conv(n.nchw(x), 3, 8, stride=2, pads=[0, 0, 1, 1]))
    x = n.op("Pad", x, n.const(np.array([0, 0, 0, 0, 0, 0, 1, 1], np.int64)), n.const(np.float32(0)))
    x = n.op("Relu", n.conv(x, 8, 8, stride=2, pads=[0, 0, 0, 0], group=8))
    n.accept(n.op("Softmax", n.matmul(n.squeeze(n.op("GlobalAveragePool", x)), 8), axis=-1), "softmax")

    n = Net("nhwc-transposes.onnx", "a Transpose before and after every Conv, as when the exporter's optimiser gave up",
            (1, 16, 16, 3), 15, layout="NHWC", dims=["unk__995", 16, 16, 3])
    x = n.input
    for cin, cout in ((3, 8), (8, 8), (8, 12)):
        x = n.op("Transpose", n.conv(n.nchw(x), cin, cout, stride=2 if cout > cin else 1), perm=[0, 2, 3, 1])
        # Keras' hard swish: x * relu6(x + 3) / 6.
        y = n.op("Mul", n.relu6(n.op("Add", x, n.const(np.float32(3)))), n.const(np.float32(1 / 6)))
        x = n.op("Mul", x, y)
    x = n.op("ReduceMean", x, axes=[1, 2], keepdims=0)
    n.accept(n.matmul(x, 12))

    n = Net("nhwc-auto-pad.onnx", "auto_pad SAME_UPPER and SAME_LOWER, odd size", (1, 19, 21, 3), 13, layout="NHWC",
            dims=["N", 19, 21, 3])
    x = n.op("Relu", n.conv(n.nchw(n.input), 3, 8, stride=2, auto_pad="SAME_UPPER"))
    x = n.op("Relu", n.conv(x, 8, 8, stride=2, auto_pad="SAME_LOWER"))
    x = n.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER")
    n.accept(n.matmul(n.squeeze(n.op("GlobalAveragePool", x)), 8))

    n = Net("nhwc-dynamic.onnx", "batch, height and width are all symbolic", (1, 24, 20, 3), 15, layout="NHWC",
            dims=["unk__1", "unk__2", "unk__3", 3])
    n.accept(body(n, n.nchw(n.input)))


def pytorch_styles():
    n = Net("nchw-b1-flatten-gemm.onnx", "as PyTorch exports it: batch 1, BatchNormalization, MaxPool, Flatten, Gemm",
            (1, 3, 16, 16), 17)
    x = n.op("Relu", n.bn(n.conv(n.input, 3, 8, bias=False), 8))
    x = n.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = n.op("Relu", n.bn(n.conv(x, 8, 12, stride=2, bias=False), 12))
    n.accept(n.gemm(n.flatten(x), 12 * 4 * 4))

    n = Net("nchw-dynamic.onnx", "batch, height and width are symbolic; GlobalAveragePool", (1, 3, 18, 22), 17,
            dims=["batch", 3, "height", "width"])
    x = n.op("Relu", n.conv(n.input, 3, 8, stride=2))
    x = n.op("Relu", n.conv(x, 8, 12))
    n.accept(n.gemm(n.flatten(n.op("GlobalAveragePool", x)), 12))

    n = Net("nchw-view.onnx", "x.view(x.size(0), -1): Shape, Gather, Unsqueeze, Concat, Reshape; constants are nodes",
            (1, 3, 12, 12), 11, dims=["batch", 3, 12, 12])
    x = n.op("Relu", n.conv(n.input, 3, 8, stride=2))
    shape = n.op("Shape", x)
    zero = n.op("Constant", value=numpy_helper.from_array(np.array(0, np.int64)))
    batch = n.op("Unsqueeze", n.op("Gather", shape, zero, axis=0), axes=[0])
    rest = n.op("Constant", value=numpy_helper.from_array(np.array([-1], np.int64)))
    x = n.op("Reshape", x, n.op("Concat", batch, rest, axis=0))
    n.accept(n.gemm(x, 8 * 6 * 6))

    n = Net("nchw-log-softmax.onnx", "ends in LogSoftmax, which softmax turns into the right probabilities",
            (1, 3, 16, 16), 13, dims=["N", 3, 16, 16])
    x = n.flatten(n.op("GlobalAveragePool", n.op("Relu", n.conv(n.input, 3, 12, stride=2))))
    n.accept(n.op("LogSoftmax", n.gemm(x, 12), axis=1), "none")

    n = Net("nchw-identity-dropout.onnx", "Identity and Dropout left in; AveragePool with and without count_include_pad",
            (1, 3, 16, 16), 13, dims=["N", 3, 16, 16])
    x = n.op("LeakyRelu", n.conv(n.op("Identity", n.input), 3, 8), alpha=0.1)
    x = n.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)
    x = n.op("PRelu", n.conv(x, 8, 12), n.const(np.full((12, 1, 1), 0.25, np.float32)))
    x = n.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    x = n.op("Dropout", n.flatten(n.mean(x)))
    n.accept(n.gemm(x, 12))

    n = Net("nchw-concat-dilated.onnx", "two branches, one dilated, one grouped; Concat; MaxPool with ceil_mode", (1, 3, 17, 17), 13,
            dims=["N", 3, 17, 17])
    x = n.op("Relu", n.conv(n.input, 3, 8))
    a = n.conv(x, 8, 8, pads=[2, 2, 2, 2], dilations=[2, 2])
    b = n.conv(x, 8, 8, group=2)
    x = n.op("Relu", n.op("Concat", a, b, axis=1))
    x = n.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)
    n.accept(n.gemm(n.flatten(n.op("GlobalAveragePool", x)), 16))

    n = Net("nchw-one-logit.onnx", "one output only, ends in Sigmoid: yes or no", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    x = n.flatten(n.op("GlobalAveragePool", n.op("Relu", n.conv(n.input, 3, 12, stride=2))))
    n.accept(n.op("Sigmoid", n.gemm(x, 12, 1)), "sigmoid", out_dims=["N", 1])

    n = Net("two-outputs.onnx", "two outputs: logits first, then features", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    x = n.flatten(n.op("GlobalAveragePool", n.op("Relu", n.conv(n.input, 3, 12, stride=2))))
    features = n.op("Identity", x, out="features")
    n.accept(n.gemm(x, 12), extra_outputs=[(features, F32, ["N", 12])], may_error="outputs")

    n = Net("nchw-output-rank-4.onnx", "the logits are [N, 5, 1, 1]: a convolution is the last layer", (1, 3, 16, 16), 13,
            dims=["N", 3, 16, 16])
    x = n.op("GlobalAveragePool", n.op("Relu", n.conv(n.input, 3, 12, stride=2)))
    n.dense_kernel, n.dense_bias = n.const(n.normal(CLASSES, 12, 1, 1)), n.const(np.zeros(CLASSES, np.float32))
    convolved = n.op("Conv", x, n.dense_kernel, n.dense_bias, kernel_shape=[1, 1])
    n.logits = n.flatten(convolved)
    n.settle()
    n.nodes.pop()
    model = n.model(convolved, out_dims=["N", CLASSES, 1, 1])
    n.accept(convolved, model=model, may_error="output-shape")


def opsets():
    n = Net("opset09.onnx", "opset 9: Clip, Pad and axes as attributes, initializers listed as inputs too", (1, 3, 16, 16), 9,
            dims=["N", 3, 16, 16])
    x = n.op("Pad", n.input, pads=[0, 0, 0, 0, 0, 0, 1, 1], mode="constant", value=0.0)
    x = n.relu6(n.bn(n.conv(x, 3, 8, stride=2, pads=[0, 0, 0, 0], bias=False), 8))
    x = n.relu6(n.bn(n.conv(x, 8, 8, group=8, bias=False), 8))
    x = n.op("Reshape", n.mean(x), n.const(np.array([-1, 8], np.int64)))
    n.accept(n.op("Softmax", n.gemm(x, 8)), "softmax", initializers_as_inputs=True)

    n = Net("opset11-softmax-rank-4.onnx", "opset 11: Softmax without an axis on [N, 5, 1, 1], which flattens from axis 1",
            (1, 3, 16, 16), 11, dims=["N", 3, 16, 16])
    x = n.op("Pad", n.input, n.const(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)), n.const(np.float32(0)))
    x = n.relu6(n.conv(x, 3, 12, stride=2, pads=[0, 0, 0, 0]))
    n.dense_kernel, n.dense_bias = n.const(n.normal(CLASSES, 12, 1, 1)), n.const(np.zeros(CLASSES, np.float32))
    convolved = n.op("Conv", n.mean(x), n.dense_kernel, n.dense_bias, kernel_shape=[1, 1])
    n.logits = n.flatten(convolved)
    n.settle()
    n.nodes.pop()
    n.logits = convolved
    out = n.flatten(n.op("Softmax", convolved))
    n.accept(out, "softmax", model=n.model(out))

    n = Net("opset13-hard-sigmoid-se.onnx", "opset 13: squeeze and excitation with HardSigmoid; axes as inputs", (1, 3, 16, 16), 13,
            dims=["N", 3, 16, 16])
    x = n.op("Relu", n.conv(n.input, 3, 8, stride=2))
    x = n.squeeze_excite(x, 8, "HardSigmoid")
    n.accept(n.op("Softmax", n.gemm(n.squeeze(n.mean(x)), 8)), "softmax")

    n = Net("opset15-hard-swish.onnx", "opset 15: HardSwish (MobileNetV3)", (1, 3, 16, 16), 15, dims=["N", 3, 16, 16])
    x = n.op("HardSwish", n.conv(n.input, 3, 8, stride=2))
    x = n.op("HardSwish", n.conv(x, 8, 8, 5, group=8))
    x = n.squeeze_excite(x, 8, "HardSigmoid")
    x = n.op("HardSwish", n.conv(x, 8, 12, 1))
    n.accept(n.gemm(n.flatten(n.mean(x)), 12))

    n = Net("opset17-silu-se.onnx", "opset 17: SiLU and squeeze and excitation (EfficientNet); Reshape to [-1, 8, 1, 1]",
            (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])

    def silu(x):
        return n.op("Mul", x, n.op("Sigmoid", x))
    x = silu(n.conv(n.input, 3, 8, stride=2))
    s = n.op("Reshape", n.mean(x, 0), n.const(np.array([-1, 8, 1, 1], np.int64)))
    s = n.op("Sigmoid", n.conv(silu(n.conv(s, 8, 4, 1)), 4, 8, 1))
    x = silu(n.conv(n.op("Mul", x, s), 8, 12, 1))
    n.accept(n.gemm(n.flatten(n.op("GlobalAveragePool", x)), 12))

    n = Net("opset18-dynamo.onnx", "opset 18, as PyTorch's newer exporter: batch s77, ReduceMean with axes as an input and keepdims",
            (1, 3, 16, 16), 18, dims=["s77", 3, 16, 16], input_name="x", names="val_{}")
    x = n.op("Relu", n.conv(n.input, 3, 8, stride=2, auto_pad="NOTSET", pads=[1, 1, 1, 1], dilations=[1, 1]))
    x = n.op("Relu", n.conv(x, 8, 12, stride=2, auto_pad="NOTSET", pads=[1, 1, 1, 1], dilations=[1, 1]))
    x = n.op("ReduceMean", x, n.const(np.array([-1, -2], np.int64)), noop_with_empty_axes=0, keepdims=1)
    x = n.op("Reshape", x, n.const(np.array([-1, 12], np.int64)), allowzero=1)
    n.accept(n.gemm(x, 12))

    n = Net("opset20-gelu.onnx", "opset 20: Gelu as an operator", (1, 3, 16, 16), 20, dims=["N", 3, 16, 16])
    x = n.op("Gelu", n.conv(n.input, 3, 12, 4, 4, pads=[0, 0, 0, 0]))
    x = n.op("Gelu", n.conv(x, 12, 12, 1), approximate="tanh")
    n.accept(n.gemm(n.flatten(n.mean(x)), 12), may_error="unsupported-ops")

    n = Net("opset19-reduce-mean-resize.onnx", "opset 19: ReduceMean and Pad with axes as inputs; Resize to twice the size",
            (1, 3, 10, 10), 19, dims=["N", 3, 10, 10])
    x = n.op("Resize", n.input, "", n.const(np.array([1, 1, 2, 2], np.float32)), mode="nearest",
             coordinate_transformation_mode="asymmetric", nearest_mode="floor")
    x = n.op("Pad", x, n.const(np.array([0, 0, 1, 1], np.int64)), n.const(np.float32(0)), n.const(np.array([2, 3], np.int64)))
    x = n.op("Relu", n.conv(x, 3, 12, stride=2, pads=[0, 0, 0, 0]))
    n.accept(n.gemm(n.mean(x, 0), 12), may_error="unsupported-ops")

    n = Net("opset21-separable.onnx", "opset 21: depthwise separable block", (1, 3, 20, 20), 21, dims=["N", 3, 20, 20])
    x = n.op("Relu", n.bn(n.conv(n.input, 3, 8, stride=2, bias=False), 8))
    x = n.conv(x, 8, 8, group=8, bias=False)
    x = n.op("Relu", n.bn(n.conv(x, 8, 16, 1, bias=False), 16))
    n.accept(n.gemm(n.flatten(n.mean(x)), 16))

    n = Net("opset23-inverted-residual.onnx", "opset 23: inverted residual with ReLU6, BatchNormalization unfolded", (1, 3, 20, 20), 23,
            dims=["N", 3, 20, 20])
    n.accept(inverted_residual(n, folded=False), may_error="opset")

    n = Net("inverted-residual.onnx", "the same, folded, opset 17", (1, 3, 20, 20), 17, dims=["N", 3, 20, 20])
    n.accept(inverted_residual(n))

    n = Net("float16-weights.onnx", "weights stored as float16, each with a Cast", (1, 3, 20, 20), 17, dims=["N", 3, 20, 20])
    n.half = True
    n.accept(inverted_residual(n))

    n = Net("float16-input.onnx", "the input itself is float16", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    x = n.op("Cast", n.input, to=F32)
    x = n.flatten(n.op("GlobalAveragePool", n.op("Relu", n.conv(x, 3, 12, stride=2))))
    n.accept(n.gemm(x, 12), in_type=F16, may_error="input-type")

    n = Net("layer-norm-gelu.onnx", "ConvNeXt's block: depthwise 7x7, LayerNormalization over the last axis, MatMul, GELU by Erf",
            (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    x = n.conv(n.input, 3, 8, 4, 4, pads=[0, 0, 0, 0])
    y = n.op("Transpose", n.conv(x, 8, 8, 7, group=8), perm=[0, 2, 3, 1])
    y = n.op("LayerNormalization", y, n.const(n.rng.uniform(0.7, 1.3, 8).astype(np.float32)),
             n.const(n.rng.normal(0, 0.2, 8).astype(np.float32)), axis=-1, epsilon=1e-6)
    y = n.op("MatMul", y, n.const(n.normal(8, 16, fan=8)))
    e = n.op("Add", n.op("Erf", n.op("Div", y, n.const(np.float32(np.sqrt(2))))), n.const(np.float32(1)))
    y = n.op("Mul", n.op("Mul", y, e), n.const(np.float32(0.5)))
    y = n.nchw(n.op("MatMul", y, n.const(n.normal(16, 8, fan=16))))
    n.accept(n.gemm(n.flatten(n.mean(n.op("Add", x, y))), 8))

    for file, declared, about in (("batch-4.onnx", 4, "the batch is 4; nothing else depends on it"),
                                  ("batch-4-reshape.onnx", None, "the batch is 4 and a Reshape says so too")):
        n = Net(file, about, (1, 3, 16, 16), 17, dims=[4, 3, 16, 16])
        x = n.op("GlobalAveragePool", n.op("Relu", n.conv(n.input, 3, 12, stride=2)))
        x = n.flatten(x) if declared else n.op("Reshape", x, n.const(np.array([4, 12], np.int64)))
        logits = n.gemm(x, 12)
        if declared:
            n.dims[0] = "N"
            n.settle()
            n.dims[0] = 4
            four = n.model(logits)
            n.accept(logits, model=four, feed_with=lambda x: np.repeat(x, 4, 0), may_error="batch")
            case = CASES[-1][0]
            case["outputs_logits"] = [row[:CLASSES] for row in case["outputs_logits"]]
        else:
            n.refuse("batch", out=logits)


def inverted_residual(n, folded=True):
    def block(x, cin, cout, **kwargs):
        x = n.conv(x, cin, cout, bias=folded, **kwargs)
        return x if folded else n.bn(x, cout)
    x = n.relu6(block(n.input, 3, 8, stride=2, pads=[0, 0, 1, 1]))
    y = n.relu6(block(x, 8, 24, kernel=1))
    y = n.relu6(block(y, 24, 24, group=24))
    x = n.op("Add", x, block(y, 24, 8, kernel=1))
    y = n.relu6(block(x, 8, 24, kernel=1))
    y = n.relu6(block(y, 24, 24, group=24, stride=2, kernel=5, pads=[1, 1, 2, 2]))
    x = n.relu6(block(block(y, 24, 12, kernel=1), 12, 16, kernel=1))
    return n.gemm(n.flatten(n.op("GlobalAveragePool", x)), 16)


# --- quantised models ----------------------------------------------------------------------------------------------------


class Pictures(CalibrationDataReader):
    def __init__(self, net):
        self.queue = iter([{net.input: feed(s, net.shape, net.layout)} for s in range(1, 17)])

    def get_next(self):
        return next(self.queue, None)


def quantised(n, out, **options):
    """The network after onnxruntime.quantization.quantize_static."""
    n.settle()
    with tempfile.TemporaryDirectory() as folder:
        before, after = os.path.join(folder, "float.onnx"), os.path.join(folder, "int8.onnx")
        onnx.save(n.model(out), before)
        quantize_static(before, after, Pictures(n), **{"quant_format": QuantFormat.QDQ, "per_channel": True,
                                                       "weight_type": QuantType.QInt8, **options})
        model = onnx.load(after)
    del model.metadata_props[:]
    model.producer_name, model.producer_version = "edge-suite make_engine.py", ""
    return model


def drop_last_pair(model):
    """The model without the QuantizeLinear and DequantizeLinear before its output."""
    out = model.graph.output[0].name
    by_output = {n.output[0]: n for n in model.graph.node}
    dequantize = by_output[out]
    quantize = by_output[dequantize.input[0]]
    assert dequantize.op_type == "DequantizeLinear" and quantize.op_type == "QuantizeLinear"
    model.graph.node.remove(dequantize)
    model.graph.node.remove(quantize)
    by_output[quantize.input[0]].output[0] = out
    return model


def quantised_models():
    def network(file, about, opset=13, layout="NCHW"):
        dims = ["N", 3, 20, 20] if layout == "NCHW" else ["unk__7", 20, 20, 3]
        n = Net(file, about, (1, 3, 20, 20) if layout == "NCHW" else (1, 20, 20, 3), opset, layout=layout, dims=dims)
        return n

    u8 = {"activation_type": QuantType.QUInt8}
    s8 = {"activation_type": QuantType.QInt8}
    n = network("qdq-u8.onnx", "int8 weights per channel, uint8 activations; ends in DequantizeLinear")
    out = inverted_residual(n)
    n.accept(out, model=quantised(n, out, **u8), qdq=True)

    n = network("qdq-s8.onnx", "int8 weights per channel, int8 activations; ends in DequantizeLinear", 17)
    out = inverted_residual(n)
    n.accept(out, model=quantised(n, out, **s8), qdq=True)

    n = network("qdq-s8-float-end.onnx", "the same without the last QuantizeLinear and DequantizeLinear", 17)
    out = inverted_residual(n)
    n.accept(out, model=drop_last_pair(quantised(n, out, **s8)), qdq=True)

    n = network("qdq-s8-symmetric.onnx", "int8 weights per channel, symmetric int8 activations (every zero point is 0)", 17)
    out = inverted_residual(n)
    n.accept(out, model=quantised(n, out, **s8, extra_options={"ActivationSymmetric": True}), qdq=True)

    n = network("qdq-u8-per-tensor.onnx", "uint8 weights with a zero point, one scale per tensor", 17)
    out = inverted_residual(n)
    n.accept(out, model=quantised(n, out, **u8, per_channel=False, weight_type=QuantType.QUInt8), qdq=True)

    n = network("qdq-nhwc-softmax.onnx", "NHWC, depthwise separable, Transpose between QuantizeLinear and the first Conv, Softmax",
                17, "NHWC")
    x = n.op("Relu", n.conv(n.nchw(n.input), 3, 8, stride=2, pads=[0, 0, 1, 1]))
    x = n.op("Relu", n.conv(n.conv(x, 8, 8, group=8, bias=False), 8, 16, 1))
    x = n.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1])
    logits = n.matmul(n.flatten(n.op("GlobalAveragePool", x)), 16)
    out = n.op("Softmax", logits, axis=-1)
    n.accept(out, "softmax", qdq=True, model=quantised(n, out, **u8, op_types_to_quantize=["Conv", "Relu", "MaxPool", "Add", "MatMul"]))

    n = network("qdq-convs-only.onnx", "only Conv and Add are quantised; average pool and dense layer stay float", 17)
    out = inverted_residual(n)
    n.accept(out, model=quantised(n, out, **s8, op_types_to_quantize=["Conv", "Add"]), qdq=True)

    n = network("qdq-u8-output.onnx", "the output itself is uint8: QuantizeLinear is the last node", 17)
    out = inverted_residual(n)
    model = quantised(n, out, **u8)
    last = next(node for node in model.graph.node if node.output[0] == out)
    model.graph.node.remove(last)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info(last.input[0], U8, ["N", CLASSES]))
    n.refuse("output-type", [last.input[0]], model=model)
    CASES[-1][0]["qdq"] = True

    n = network("qlinear-conv.onnx", "QOperator format: QLinearConv instead of QuantizeLinear around Conv", 17)
    out = inverted_residual(n)
    n.accept(out, model=quantised(n, out, **u8, quant_format=QuantFormat.QOperator), qdq=True, may_error="unsupported-ops")

    n = network("dynamic-quantised.onnx", "dynamic quantisation: DynamicQuantizeLinear, ConvInteger, MatMulInteger", 17)
    out = inverted_residual(n)
    n.settle()
    with tempfile.TemporaryDirectory() as folder:
        before, after = os.path.join(folder, "float.onnx"), os.path.join(folder, "int8.onnx")
        onnx.save(n.model(out), before)
        quantize_dynamic(before, after, weight_type=QuantType.QUInt8)
        model = onnx.load(after)
    del model.metadata_props[:]
    n.accept(out, model=model, may_error="unsupported-ops")


# --- cases to refuse -----------------------------------------------------------------------------------------------------


def refused():
    def tail(n, x, features):
        return n.gemm(n.flatten(n.op("GlobalAveragePool", x)), features)

    n = Net("bad-custom-ops.onnx", "three operators of another domain, one of them in a branch of an If, and one unknown one of "
            "ONNX's own domain: all are to be listed", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    x = n.op("Relu", n.conv(n.input, 3, 8, stride=2))
    x = n.op("Frobnicate", x, name="stage1/frobnicate", domain="com.acme", strength=3)
    x = n.op("Mangle", n.conv(x, 8, 8), name="stage2/mangle", domain="com.acme")
    x = n.op("EdgeImaginary", x, name="stage3/imaginary")
    def branch(name, *nodes):
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}_out", F32, None)])
    x = n.op("If", n.const(np.array(True)), name="stage4/if",
             then_branch=branch("then", helper.make_node("Twiddle", [x], ["then_out"], name="stage4/twiddle", domain="com.acme")),
             else_branch=branch("else", helper.make_node("Identity", [x], ["else_out"], name="stage4/identity")))
    n.refuse("unsupported-ops", ["com.acme", "Frobnicate", "stage1/frobnicate", "Mangle", "stage2/mangle", "EdgeImaginary",
                                 "stage3/imaginary", "Twiddle", "stage4/twiddle"], out=tail(n, x, 8), domains=["com.acme"])

    for file, channels, layout in (("bad-1-channel.onnx", 1, "NCHW"), ("bad-4-channels.onnx", 4, "NHWC")):
        shape = (1, channels, 16, 16) if layout == "NCHW" else (1, 16, 16, channels)
        n = Net(file, f"pictures of {channels} channel(s)", shape, 17, layout=layout, dims=["N", *shape[1:]])
        x = n.input if layout == "NCHW" else n.nchw(n.input)
        n.refuse("channels", [str(channels)], out=tail(n, n.op("Relu", n.conv(x, channels, 8, stride=2)), 8))

    n = Net("bad-vector-input.onnx", "the input is [N, 128]: not a picture", (1, 128), 17, dims=["N", 128], input_name="features")
    n.refuse("input-shape", ["features"], out=n.gemm(n.op("Relu", n.input), 128))

    n = Net("bad-sequence-input.onnx", "the input is [N, 8, 3, 16, 16]: a film", (1, 8, 3, 16, 16), 17, dims=["N", 8, 3, 16, 16],
            input_name="clip")
    n.refuse("input-shape", ["clip"], out=n.gemm(n.op("Reshape", n.input, n.const(np.array([-1, 6144], np.int64))), 6144, 1),
             out_dims=["N", 1])

    n = Net("bad-unknown-channels.onnx", "no dimension of the input is known, not even which one is the colour", (1, 3, 16, 16), 17,
            dims=["a", "b", "c", "d"], input_name="anything")
    n.refuse("input-shape", ["anything"], out=tail(n, n.op("Relu", n.conv(n.input, 3, 8)), 8))

    n = Net("bad-two-inputs.onnx", "two inputs, one of them a constant that an exporter forgot to store", (1, 16, 16, 3), 15, layout="NHWC",
            dims=["unk__2284", 16, 16, 3], input_name="keras_tensor_578")
    missing = "normalization_1/Sub/y:0"
    out = tail(n, n.op("Relu", n.conv(n.nchw(n.op("Sub", n.input, missing)), 3, 8)), 8)
    model = n.model(out)
    model.graph.input.append(helper.make_tensor_value_info(missing, F32, [1, 1, 1, 3]))
    n.refuse("inputs", ["keras_tensor_578", missing], model=model)

    n = Net("bad-no-input.onnx", "no input at all", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    out = tail(n, n.const(np.zeros((1, 3, 4, 4), np.float32)), 3)
    model = n.model(out)
    del model.graph.input[:]
    n.refuse("inputs", model=model)

    for file, kind, name in (("bad-int64-input.onnx", I64, "int64"), ("bad-uint8-input.onnx", U8, "uint8"),
                             ("bad-string-input.onnx", TensorProto.STRING, "string")):
        n = Net(file, f"the input is {name}", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16], input_name="pixels")
        x = n.op("Cast", n.input, to=F32)
        n.refuse("input-type", ["pixels", name], out=tail(n, n.op("Relu", n.conv(x, 3, 8)), 8), in_type=kind)

    n = Net("bad-no-outputs.onnx", "no output", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    tail(n, n.op("Relu", n.conv(n.input, 3, 8)), 8)
    n.refuse("outputs", out=None)

    n = Net("bad-segmentation.onnx", "the output is a map of [N, 5, 8, 8]", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    out = n.op("Conv", n.input, n.const(n.normal(CLASSES, 3, 3, 3)), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4, out="mask")
    n.refuse("output-shape", ["mask"], out=out, out_dims=["N", CLASSES, 8, 8])

    n = Net("bad-int64-output.onnx", "the output is ArgMax: a class, no scores", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    out = n.op("ArgMax", tail(n, n.op("Relu", n.conv(n.input, 3, 8)), 8), axis=1, keepdims=0, out="class")
    n.refuse("output-type", ["class"], out=out, out_dims=["N"], out_type=I64)

    n = Net("bad-external-data.onnx", "the weights lie in another file, which is not there", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    model = n.model(tail(n, n.op("Relu", n.conv(n.input, 3, 8)), 8))
    for tensor in model.graph.initializer:
        if len(tensor.dims) > 1:
            length = len(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "weights/model.onnx.data"), ("offset", "0"), ("length", str(length))):
                tensor.external_data.add(key=key, value=value)
    n.refuse("external-data", ["weights/model.onnx.data"], model=model)

    n = Net("bad-labels.onnx", "four labels for five classes", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    n.metadata = {"edgepack.labels": ["cup", "fork", "glass", "knife"]}
    n.refuse("labels", ["4", "5"], out=tail(n, n.op("Relu", n.conv(n.input, 3, 8)), 8))

    n = Net("bad-metadata.onnx", "edgepack.preprocess is not JSON", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    model = n.model(tail(n, n.op("Relu", n.conv(n.input, 3, 8)), 8))
    helper.set_model_props(model, {"edgepack.preprocess": "{mean: 127"})
    n.refuse("metadata", ["edgepack.preprocess"], model=model)

    n = Net("bad-missing-tensor.onnx", "a Conv reads a tensor that nothing writes", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    out = tail(n, n.op("Relu", n.op("Conv", n.input, "lost/kernel", kernel_shape=[3, 3], name="conv_without_weights")), 8)
    n.refuse("graph", ["lost/kernel"], out=out)

    n = Net("bad-shapes.onnx", "the dense layer's weights do not fit its input", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    n.refuse("graph", out=n.gemm(n.flatten(n.op("GlobalAveragePool", n.conv(n.input, 3, 8))), 9))

    n = Net("bad-opset.onnx", "opset 99", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    model = n.model(tail(n, n.op("Relu", n.conv(n.input, 3, 8)), 8))
    model.opset_import[0].version = n.opset = 99
    n.refuse("opset", ["99"], model=model)

    n = Net("bad-truncated.onnx", "half of a file", (1, 3, 16, 16), 17, dims=["N", 3, 16, 16])
    data = n.model(tail(n, n.op("Relu", n.conv(n.input, 3, 8)), 8)).SerializeToString(deterministic=True)
    n.refuse("not-onnx", data=data[:len(data) // 2])

    n = Net("bad-text.onnx", "not ONNX at all", (1, 3, 16, 16), 17)
    n.refuse("not-onnx", data=b"version https://git-lfs.example/spec/v1\noid sha256:0\nsize 83964303\n")

    n = Net("bad-empty.onnx", "an empty file, which is a valid protobuf message", (1, 3, 16, 16), 17)
    n.refuse("not-onnx", data=b"")


def document():
    formula = ("k = (y/4)*31 + (x/4)*17 + channel*7 + seed*101; value = f32((k*2654435761 % 2^32) / 65536 % 1000) / 500 - 1; "
               "integer divisions, u64; seeds 1, 2, 3")
    cases = ",\n".join("  " + json.dumps(case, ensure_ascii=False) for case, _ in CASES)
    return (f'{{"about": "written by make_engine.py, which explains the fields", "onnxruntime": {json.dumps(ort.__version__)},\n'
            f' "input": {json.dumps(formula)}, "seeds": {list(SEEDS)},\n "cases": [\n{cases}\n]}}\n')


def differences():
    """What --check finds, one line each."""
    stored = {case["file"]: case for case in json.loads((HERE / "engine.json").read_text())["cases"]}
    for case, data in CASES:
        file, other = case["file"], stored.pop(case["file"], {})
        path = HERE / file
        if not path.exists():
            yield f"{file}: missing"
        elif path.read_bytes() != data and not case["qdq"] and "dynamic" not in file:
            yield f"{file}: other bytes"
        for key in (set(case) | set(other)) - {"outputs", "outputs_logits", "spread"}:
            if case.get(key) != other.get(key):
                yield f"{file}: {key} is {other.get(key)!r}, would be {case.get(key)!r}"
        for key in ("outputs", "outputs_logits"):
            if key in case and key in other:
                a, b = np.array(case[key]), np.array(other[key])
                if a.shape != b.shape or np.abs(a - b).max() > (0.1 if case["qdq"] else 1e-4) * np.abs(b).max():
                    yield f"{file}: {key} differ"
    for file in stored:
        yield f"{file}: no such case any more"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the stored files differ")
    a = p.parse_args()
    logging.disable(logging.WARNING)  # The quantiser recommends a pre-processing that these graphs have no use for.
    for family in (keras_styles, pytorch_styles, opsets, quantised_models, refused):
        family()
    for case, data in CASES:
        assert len(data) < 40_000, (case["file"], len(data))
    if a.check:
        found = list(differences())
        print("\n".join(found) or f"{len(CASES)} cases agree")
        return 1 if found else 0
    HERE.mkdir(exist_ok=True)
    for old in HERE.glob("*.onnx"):
        old.unlink()
    for case, data in CASES:
        (HERE / case["file"]).write_bytes(data)
    (HERE / "engine.json").write_text(document(), encoding="utf-8")
    errors = sum("error" in case for case, _ in CASES)
    print(f"{len(CASES)} cases, {errors} of them errors, {sum(len(d) for _, d in CASES)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
