#!/usr/bin/env python3
"""Write keras/*.keras and *.h5, tiny image classifiers with every layer we want to import, bad files, and keras/keras.json.

    python3 -m venv .venv && .venv/bin/pip install -r ../reference/requirements.txt
    .venv/bin/python make_keras.py             # writes
    .venv/bin/python make_keras.py --check     # compares what it would write with what is there
    .venv/bin/python make_keras.py --only conv # makes those files alone, prints their outputs, writes nothing

Files of Keras 2 come from make_keras2.py, which needs an old TensorFlow; both write their own cases into keras.json and leave
the other's alone. Everything here runs Keras 3 on JAX, on the CPU. Fields of a case:

    file         in keras/; the extension is what Keras gives it, which is not always what is inside
    about        what is special about it
    keras        the version of Keras that wrote the file and computed the outputs
    input_shape  of one picture with its batch of 1, as the model is saved; null where the model leaves it open
    layout       "NHWC", or "NCHW" for a model whose input is channels first
    outputs      one row per picture: what Keras computes
    final_activation  "softmax" if the outputs are probabilities; absent for logits
    tolerance    relative to the largest |output|; absent: 1e-4. Half precision only: Keras rounds after every layer
    outputs_float32   then: the same stored weights, computed in float32, which must agree to 1e-4
    resized      {"input_size": n, "outputs": …} or {"input_size": n, "error": kind, "names": […]}: the same file imported
                 with --input-size n; pictures then have n x n pixels
    may_error    the case may also be refused, with this kind
    may_accept   true: a case to refuse may also be accepted
    error, names the case must be refused with an error of this kind that mentions all of these names
    layers       where several layers can't be converted: [name, class] of each; all of them must be listed

Kinds of errors:

    format       not a Keras file at all: neither zip nor HDF5, truncated, empty, parts missing
    config       the configuration is not JSON, or contradicts itself
    weights      weights missing, of another shape, of an impossible type
    unsupported  layers that can't be converted
    inputs       not exactly one picture as input
    size         another input size is not possible, or one has to be given
    limits       larger than anything sensible; must be refused without using time or memory
    architecture weights without a model

Picture number `seed` (1, 2, 3) is not stored. It is made of blocks of 4x4 pixels; integers are unsigned, with 64 bits:

    k = (y / 4) * 31 + (x / 4) * 17 + channel * 7 + seed * 101
    value = float32((k * 2654435761 % 2^32) / 65536 % 1000) / 500 - 1

Weights are random, from fixed seeds; BatchNormalization has statistics that matter. The last dense layer is scaled and shifted
so that logits are of the order of one and differ from picture to picture. Most models flatten whole feature maps into that
layer, so that a picture shifted by one pixel is noticed. Keras stores its zip files without compression; most of those above
15 kB were zipped again with it, to be small.
"""
import argparse
import io
import json
import os
import pathlib
import re
import struct
import sys
import tempfile
import zipfile
import zlib

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"

import h5py
import jax
import keras
import numpy as np
from keras import layers as L
from keras import ops

import keras_cases
from keras_cases import CLASSES, SEEDS, feed

MADE = []
ONLY = re.compile("")
EPOCH = (1980, 1, 1, 0, 0, 0)
TEMP = pathlib.Path(tempfile.mkdtemp())


# --- from a function to a file --------------------------------------------------------------------------------------------


def head(branches, activation=None, dtype=None):
    """Flatten, concatenate, Dense: every value of every branch counts."""
    flat = [L.Flatten()(b) if len(b.shape) > 2 else b for b in branches]
    x = L.Concatenate()(flat) if len(flat) > 1 else flat[0]
    return L.Dense(CLASSES, name="logits", activation=activation, dtype=dtype)(x)


def find(model, name):
    for layer in model.layers:
        if layer.name == name:
            return layer
        if hasattr(layer, "layers"):
            found = find(layer, name)
            if found is not None:
                return found
    return None


def randomise(model, rng):
    for v in model.variables:
        name = v.path.split("/")[-1]
        if v.dtype in ("float32", "float16", "bfloat16"):
            v.assign(keras_cases.fill(rng, name, tuple(v.shape), np.asarray(v.value, np.float64)).astype(np.float32))
    for layer in walk(model) if hasattr(model, "layers") else ():
        if type(layer).__name__ == "LayerScale":  # Its variable has no name, and starts at 1e-6.
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))


def calibrate(model, x):
    """Statistics of BatchNormalization from pictures, for networks too deep for random ones. One pass in training mode with
    momentum 0 sets each layer's from what the layers before it give once they are normalised."""
    changed = []
    for layer in walk(model):
        if isinstance(layer, L.BatchNormalization):
            changed.append((layer, "momentum", layer.momentum))
        elif isinstance(layer, L.Dropout):
            changed.append((layer, "rate", layer.rate))
    for layer, what, _ in changed:
        setattr(layer, what, 0.0)
    for layer in model.layers:
        if isinstance(layer, L.Rescaling):
            x = layer(x)
        elif hasattr(layer, "layers"):
            layer.trainable = True  # Frozen, its statistics would stay.
            train(layer, x)
            layer.trainable = False
    for layer, what, old in changed:
        setattr(layer, what, old)
        if what == "momentum":
            v = np.asarray(layer.moving_variance.value)
            layer.moving_variance.assign(np.maximum(v, 0.01 * v.mean() + 1e-5))


def train(model, x):
    """One pass in training mode, compiled as a whole."""
    _, changed = jax.jit(lambda t, n, x: model.stateless_call(t, n, x, training=True))(
        [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables], x)
    for variable, value in zip(model.non_trainable_variables, changed, strict=True):
        variable.assign(value)


def no_initial_weights():
    """Initial weights are replaced anyway, and drawing them takes longer than all the rest."""
    from keras.src.initializers import random_initializers
    for name in ("VarianceScaling", "RandomNormal", "TruncatedNormal", "RandomUniform"):
        setattr(getattr(random_initializers, name), "__call__",
                lambda self, shape, dtype=None, **_: jax.numpy.zeros(shape, dtype or "float32"))


def walk(model):
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from walk(layer)
        else:
            yield layer


def compute(model, shape, layout="NHWC", seeds=SEEDS):
    return np.asarray(model(feed(shape, seeds, layout), training=False), np.float32)


def last_dense(model):
    found = [l for l in walk(model) if l.name == "logits"]
    return found[-1]


def settle(model, rng, shape, layout, most):
    """See keras_cases.settle. The values before the last layer come from a bare model up to there."""
    dense = last_dense(model)
    before = keras.Model(model.inputs[0], dense.input) if dense in model.layers else None
    x = feed(shape, range(1, 7), layout)
    if before is None:
        inner = next(l for l in model.layers if hasattr(l, "layers") and dense in l.layers)
        outer = keras.Model(model.inputs[0], inner.input) if inner is not model.layers[0] else None
        z = keras.Model(inner.inputs[0], dense.input)(x if outer is None else outer(x))
    else:
        z = before(x, training=False)
    kernel, bias = keras_cases.settle(rng, np.asarray(dense.kernel.value, np.float32), dense.units, np.asarray(z, np.float32), most)
    dense.kernel.assign(kernel)
    if dense.use_bias:
        dense.bias.assign(bias)


def renumber(config):
    """Ids of shared objects are addresses; small numbers, in the order of their appearance, do as well."""
    seen = {}

    def visit(node):
        if isinstance(node, dict):
            return {k: seen.setdefault(v, len(seen) + 1) if k == "shared_object_id" else visit(v) for k, v in node.items()}
        return [visit(v) for v in node] if isinstance(node, list) else node

    return visit(config)


def zipped(parts, deflate=False):
    """A zip of (name, bytes), with the same bytes every time. Keras stores without compression; `deflate` is True or the name of
    the part to compress."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, data in parts:
            info = zipfile.ZipInfo(name, EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED if deflate is True or name == deflate else zipfile.ZIP_STORED
            z.writestr(info, data, compresslevel=9)
    return out.getvalue()


def unzipped(data):
    with zipfile.ZipFile(io.BytesIO(data)) as z:
        return [(i.filename, z.read(i)) for i in z.infolist()]


def saved(model, kind):
    path = TEMP / f"model.{kind}"
    model.save_weights(path) if kind == "weights.h5" else model.save(path)
    data = path.read_bytes()
    path.unlink()
    if kind != "keras":
        return data
    parts = []
    for name, part in unzipped(data):
        if name == "metadata.json":
            part = json.dumps({**json.loads(part), "date_saved": "2026-01-01@00:00:00"}).encode()
        elif name == "config.json":
            part = json.dumps(renumber(json.loads(part))).encode()
        parts.append((name, part))
    return zipped(parts)


def accept(file, about, model, shape, *, layout="NHWC", final=None, random=True, deep=False, kind=None, deflate=None,
           resized=(), declared=None, float32=None, tolerance=None, **fields):
    """Give the model its weights, store the file and what Keras computes."""
    rng = keras_cases.generator(file)
    if random:
        randomise(model, rng)
        if deep:
            calibrate(model, feed(shape, range(1, 9), layout))
        settle(model, rng, shape, layout, 1000 if deep else 60)
    values = compute(model, shape, layout)
    keras_cases.lively(file, values)
    case = {"file": file, "about": about, "keras": keras.__version__, "input_shape": list(declared or shape)}
    if layout != "NHWC":
        case["layout"] = layout
    if final:
        case["final_activation"] = final
    if tolerance:
        case["tolerance"] = tolerance
    case["outputs"] = keras_cases.rows(values)
    if float32:
        full = float32()
        for a, b in zip(full.variables, model.variables, strict=True):
            assert a.shape == b.shape, (a.path, b.path)
            a.assign(np.asarray(b.value, np.float32))
        exact = compute(full, shape, layout)
        print(f"  {file}: half precision costs {np.abs(exact - values).max() / np.abs(exact).max():.1e}")
        assert np.abs(exact - values).max() < tolerance * np.abs(exact).max()
        case["outputs_float32"] = keras_cases.rows(exact)
    if resized:
        size, result, *names = resized
        case["resized"] = {"input_size": size}
        if isinstance(result, str):
            case["resized"].update(error=result, names=names)
        else:
            big = result()
            for a, b in zip(big.variables, model.variables, strict=True):
                a.assign(b)
            case["resized"]["outputs"] = keras_cases.rows(compute(big, (1, size, size, shape[3])))
    case.update(fields)
    data = saved(model, kind or file.split(".", 1)[1])
    if (kind or file).endswith("keras") and (len(data) > 15_000 if deflate is None else deflate):
        data = zipped(unzipped(data), deflate=True)
    MADE.append((case, data))


def refuse(file, about, error, data, names=(), **fields):
    MADE.append(({"file": file, "about": about, "keras": keras.__version__, "error": error, "names": list(names), **fields}, data))


def net(file, about, size, body, *, channels=3, activation=None, input_name="image", **kwargs):
    """A functional model: `body` takes the input and returns a tensor or several, `head` follows."""
    if not ONLY.search(file):
        return
    keras.utils.clear_session()
    layout = kwargs.get("layout", "NHWC")
    shape = (*size, channels) if layout == "NHWC" else (channels, *size)
    model = functional(shape, body, activation, input_name, pathlib.Path(file).name.split(".")[0].replace("-", "_"))
    accept(file, about, model, (1, *shape), **kwargs)


def functional(shape, body, activation=None, input_name="image", name=None):
    i = keras.Input(shape, name=input_name)
    out = body(i)
    return keras.Model(i, head(out if isinstance(out, list) else [out], activation), name=name)


# --- convolutions, dense layers, BatchNormalization -----------------------------------------------------------------------


def convolutions():
    net("conv2d-same.keras", "padding same, odd height, even width: kernels 1 to 5, strides 1 to 3", (9, 8), lambda x: [
        L.Conv2D(2, 3, padding="same", name="k3s1")(x), L.Conv2D(2, 3, 2, padding="same", name="k3s2")(x),
        L.Conv2D(3, 2, 2, padding="same", name="k2s2")(x), L.Conv2D(2, 4, 2, padding="same", name="k4s2")(x),
        L.Conv2D(3, 5, 3, padding="same", name="k5s3")(x), L.Conv2D(3, 1, 2, padding="same", name="k1s2")(x),
        L.Conv2D(2, (3, 2), (2, 1), padding="same", name="k32s21")(x)])
    net("conv2d-valid.keras", "padding valid, even height, odd width", (8, 11), lambda x: [
        L.Conv2D(2, 3, name="k3s1")(x), L.Conv2D(3, 3, 2, name="k3s2")(x), L.Conv2D(3, (2, 5), (3, 2), name="k25s32")(x),
        L.Conv2D(4, 1, 2, use_bias=False, name="k1s2")(x)])
    net("conv2d-options.keras", "dilation, groups, no bias, an activation", (10, 9), lambda x: [
        L.Conv2D(2, 3, dilation_rate=2, padding="same", name="dilated_same")(x),
        L.Conv2D(2, (3, 2), dilation_rate=(1, 3), name="dilated_valid")(x),
        L.Conv2D(6, 3, 2, groups=3, padding="same", use_bias=False, name="groups")(x),
        L.Conv2D(3, 3, 2, padding="same", activation="relu", use_bias=False, name="no_bias")(x)])
    net("depthwise.keras", "DepthwiseConv2D", (9, 8), lambda x: [
        L.DepthwiseConv2D(3, padding="same", name="s1")(x), L.DepthwiseConv2D(3, 2, padding="same", name="s2")(x),
        L.DepthwiseConv2D(3, 2, depth_multiplier=2, use_bias=False, name="multiplier")(x),
        L.DepthwiseConv2D(2, dilation_rate=2, padding="same", depth_multiplier=2, activation="relu", name="dilated")(x),
        L.DepthwiseConv2D(5, 2, padding="same", name="k5s2")(x)])
    net("separable.keras", "SeparableConv2D", (8, 9), lambda x: [
        L.SeparableConv2D(2, 3, padding="same", name="s1")(x), L.SeparableConv2D(4, 3, 2, padding="same", name="s2")(x),
        L.SeparableConv2D(3, 3, 2, depth_multiplier=3, use_bias=False, name="multiplier")(x),
        L.SeparableConv2D(2, 3, dilation_rate=2, padding="same", activation="relu", name="dilated")(x)])
    net("conv2d-transpose.keras", "Conv2DTranspose: kernel smaller than, as large as and larger than the stride", (5, 4), lambda x: [
        L.Conv2DTranspose(2, 3, 2, padding="same", name="same_k3s2")(x),
        L.Conv2DTranspose(1, 4, 2, padding="same", name="same_k4s2")(x),
        L.Conv2DTranspose(1, 2, 2, name="valid_k2s2")(x), L.Conv2DTranspose(1, 5, 2, name="valid_k5s2")(x),
        L.Conv2DTranspose(1, 2, 3, name="valid_k2s3")(x), L.Conv2DTranspose(1, 1, 2, padding="same", name="same_k1s2")(x)])
    net("conv2d-transpose-options.keras", "Conv2DTranspose: output_padding, dilation, no bias, an activation", (4, 5), lambda x: [
        L.Conv2DTranspose(1, 3, 2, padding="same", output_padding=0, name="same_pad0")(x),
        L.Conv2DTranspose(1, 3, 2, padding="same", output_padding=1, name="same_pad1")(x),
        L.Conv2DTranspose(1, 4, 3, padding="valid", output_padding=(1, 2), name="valid_pad12")(x),
        L.Conv2DTranspose(2, 3, 1, padding="same", use_bias=False, activation="relu", name="s1")(x),
        L.Conv2DTranspose(2, 3, 1, dilation_rate=2, padding="valid", name="dilated")(x)])

    def dense(x):
        rank4 = L.Dense(4, activation="relu", name="on_maps")(x)
        flat = L.Flatten()(L.Dense(2, use_bias=False, name="no_bias")(rank4))
        return [L.Dense(7, activation="tanh", name="tanh")(flat), L.Dense(3, activation="softmax", name="softmax")(flat),
                L.Flatten()(L.Dense(2, name="on_rows")(L.Reshape((7, 24))(rank4)))]

    def shared(x):
        x = L.Conv2D(4, 3, name="conv")(x)
        maps_first, vector_first = L.Dense(3, name="maps_first"), L.Dense(3, name="vector_first")
        vector = L.GlobalMaxPooling2D()(x)
        a = [L.AveragePooling2D(3)(maps_first(x)), maps_first(vector)]
        b = [vector_first(vector), L.AveragePooling2D(3)(vector_first(x))]
        return [*a, *b]

    net("dense-shared.keras", "Dense shared by a map and a vector, whichever comes first", (7, 6), shared)
    net("dense.keras", "Dense on vectors, rows and whole maps", (7, 6), dense)

    def batch_norm(x):
        a = L.BatchNormalization(name="first")(x)
        b = L.Conv2D(3, 3, padding="same", use_bias=False, name="conv")(a)
        b1 = L.BatchNormalization(epsilon=1e-2, scale=False, name="no_scale")(b)
        c = L.DepthwiseConv2D(3, 2, padding="same", name="depthwise")(L.ReLU()(b1))
        c = L.BatchNormalization(center=False, name="no_center")(c)
        d = L.Conv2D(3, 1, activation="relu", name="conv_relu")(c)
        d = L.BatchNormalization(scale=False, center=False, name="neither")(d)
        return [b, d, L.BatchNormalization(name="flat")(L.Dense(4, name="dense")(L.Flatten()(d)))]

    net("batch-norm.keras", "BatchNormalization first, after Conv2D, depthwise, an activation, Dense; the Conv2D also read elsewhere",
        (7, 8), batch_norm)
    net("batch-norm-padded.keras", "between BatchNormalization and Conv2D there is padding, so it can't go into that kernel",
        (7, 6), lambda x: L.Conv2D(3, 3, 2, padding="same", name="conv")(
            L.BatchNormalization(name="norm")(L.ZeroPadding2D(name="pad")(L.BatchNormalization(name="first")(x)))))
    net("batch-norm-axis.keras", "BatchNormalization over height, width", (7, 6), lambda x: [
        L.BatchNormalization(axis=1, name="height")(x), L.BatchNormalization(axis=2, name="width")(x)])

    def separable_norm(x):
        x = L.SeparableConv2D(4, 3, padding="same", use_bias=False, name="sep")(x)
        x = L.Activation("relu")(L.BatchNormalization(name="sep_bn")(x))
        x = L.Conv2DTranspose(2, 2, 2, use_bias=False, name="up")(x)
        return L.MaxPooling2D()(L.BatchNormalization(name="up_bn")(x))

    net("batch-norm-separable.keras", "BatchNormalization after SeparableConv2D and Conv2DTranspose", (7, 6), separable_norm)


def channels_first():
    cf = dict(data_format="channels_first")

    def body(x):
        x = L.Conv2D(4, 3, 2, padding="same", name="conv", **cf)(x)
        x = L.ReLU()(L.BatchNormalization(axis=1, name="norm")(x))
        a = L.SeparableConv2D(4, 3, padding="same", name="separable", **cf)(x)
        b = L.DepthwiseConv2D(3, padding="same", name="depthwise", **cf)(L.ZeroPadding2D((1, 2), **cf)(x))
        b = L.Cropping2D((1, 2), **cf)(b)
        x = L.Concatenate(axis=1)([L.Add()([a, b]), L.AveragePooling2D(3, 1, "same", **cf)(x)])
        y = L.Conv2DTranspose(2, 3, 2, padding="same", name="up", **cf)(L.MaxPooling2D(**cf)(x))
        z = L.UpSampling2D(2, interpolation="bilinear", **cf)(L.MaxPooling2D(**cf)(x))
        return [L.Flatten(**cf)(y), L.GlobalAveragePooling2D(**cf)(x), L.GlobalMaxPooling2D(**cf)(x),
                L.GlobalAveragePooling2D(**cf)(z), L.Dense(3, name="on_columns")(y)]

    net("channels-first.keras", "a model that is channels first throughout, its input too", (9, 10), body, layout="NCHW")
    net("channels-permuted.keras", "a model that is channels first, behind a Permute of an input that is channels last", (9, 10),
        lambda x: body(L.Permute((3, 1, 2), name="permute")(x)))
    net("channels-mixed.keras", "a model that is channels last up to a Permute", (9, 10),
        lambda x: body(L.Permute((3, 1, 2))(L.Conv2D(3, 1)(x))))


# --- activations ----------------------------------------------------------------------------------------------------------

COMMON = ("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "swish", "sigmoid", "tanh", "softplus", "softsign",
          "exponential", "hard_sigmoid", "hard_swish", "hard_silu", "softmax", "log_softmax", "linear", "mish")
RARE = ("celu", "squareplus", "soft_shrink", "hard_shrink", "tanh_shrink", "sparse_plus", "sparse_sigmoid",
        "hard_tanh", "log_sigmoid")


def activations():
    def wide(x, channels=4):
        """Values on both sides of every bend: about -6..6."""
        return L.Rescaling(3.0)(L.Conv2D(channels, 1, name="spread")(x))

    def rows_of(x, tensors):
        return [L.AveragePooling2D(3)(t) for t in tensors]

    net("activation-layers.keras", "Activation with every common name", (6, 6), lambda x: rows_of(x, [
        L.Activation(n, name=f"as_{n}")(w) for w in [wide(x)] for n in COMMON]))
    net("activation-rare.keras", "Activation with the names hardly anybody uses", (6, 6), lambda x: rows_of(x, [
        L.Activation(n, name=f"as_{n}")(w) for w in [wide(x)] for n in RARE]), may_error="unsupported")
    net("activation-strings.keras", "the activation as option of Conv2D, Dense, DepthwiseConv2D, SeparableConv2D", (6, 6),
        lambda x: strings(wide(x)))
    net("activation-objects.keras", "a layer as the activation of another, activations as layers of keras.activations", (6, 6),
        lambda x: rows_of(x, objects(wide(x))))
    net("activation-own.keras", "layers of their own: ReLU, LeakyReLU, ELU, Softmax with their options", (6, 6), lambda x: rows_of(
        x, own(wide(x))))
    net("softmax-axes.keras", "Softmax over two axes at once", (6, 6), lambda x: L.Softmax(axis=[1, 2], name="softmax_map")(wide(x)),
        may_error="unsupported")
    net("softmax-operation.keras", "ops.softmax over two axes at once, over height; ops.log_softmax over width", (6, 6), lambda x: rows_of(x, [
        f(w, axis=axis) for w in [wide(x)] for f, axis in ((ops.softmax, (1, 2)), (ops.softmax, 1), (ops.log_softmax, 2))]))
    net("infinity.keras", "limits of infinity, which are no JSON", (6, 6), lambda x: rows_of(x, limits(wide(x))))
    net("prelu.keras", "PReLU: a slope per value, per channel, per column", (6, 5), lambda x: prelu(wide(x, 2)))
    net("softmax-end.keras", "ends in a softmax", (7, 6), lambda x: L.Conv2D(3, 3, 2, activation="relu")(x),
        activation="softmax", final="softmax")
    softmax_layer_end()


def limits(w):
    return [ops.clip(w, -1.0, float("inf")), ops.clip(w, float("-inf"), 1.0), L.ReLU(max_value=float("inf"), negative_slope=0.1, name="relu")(w)]


def strings(w):
    return [L.AveragePooling2D(3)(t) for t in (
        L.Conv2D(2, 1, activation="swish", name="conv_swish")(w), L.Conv2D(2, 1, activation="gelu", name="conv_gelu")(w),
        L.DepthwiseConv2D(1, activation="hard_sigmoid", name="depthwise_hard_sigmoid")(w),
        L.SeparableConv2D(2, 1, activation="elu", name="separable_elu")(w),
        L.Dense(2, activation="softplus", name="dense_softplus")(w),
        L.Conv2DTranspose(2, 1, activation="hard_swish", name="up_hard_swish")(w))]


def objects(w):
    return [L.Conv2D(2, 1, activation=L.LeakyReLU(negative_slope=0.1), name="conv_leaky")(w),
            L.Dense(2, activation=L.ReLU(max_value=2.0), name="dense_relu2")(w),
            L.Activation(keras.activations.gelu, name="gelu_exact")(w),
            L.Activation(L.ELU(alpha=0.5), name="elu_half")(w),
            keras.activations.relu(w, negative_slope=0.2, max_value=3.0, threshold=0.5),
            keras.activations.gelu(w, approximate=True), keras.activations.softmax(w, axis=-1),
            keras.activations.leaky_relu(w, negative_slope=0.3), keras.activations.elu(w, alpha=0.3)]


def own(w):
    return [L.ReLU(name="relu")(w), L.ReLU(max_value=6.0, name="relu6")(w), L.ReLU(negative_slope=0.1, name="slope")(w),
            L.ReLU(max_value=2.0, negative_slope=0.2, threshold=0.5, name="all")(w),
            L.ReLU(threshold=1.0, name="threshold")(w),
            L.LeakyReLU(name="leaky")(w), L.LeakyReLU(negative_slope=0.05, name="leaky_05")(w),
            L.ELU(name="elu")(w), L.ELU(alpha=0.7, name="elu_07")(w), L.Softmax(name="softmax")(w),
            L.Softmax(axis=1, name="softmax_height")(w)]


def prelu(w):
    return [L.PReLU(name="each")(w), L.PReLU(shared_axes=[1, 2], name="channel")(w), L.PReLU(shared_axes=[1, 3], name="column")(w),
            L.PReLU(name="flat")(L.Flatten()(w))]


def softmax_layer_end():
    file = "softmax-layer-end.keras"
    if not ONLY.search(file):
        return
    keras.utils.clear_session()
    i = keras.Input((7, 6, 3), name="image")
    x = L.GlobalAveragePooling2D()(L.Conv2D(6, 3, 2, activation="relu")(i))
    model = keras.Model(i, L.Softmax(name="probabilities")(L.Dense(CLASSES, name="logits")(x)))
    accept(file, "ends in a Softmax layer", model, (1, 7, 6, 3), final="softmax")


# --- pooling, padding, shapes, merging ------------------------------------------------------------------------------------


def shapes():
    for kind in ("Max", "Average"):
        pool = getattr(L, f"{kind}Pooling2D")
        net(f"{kind.lower()}-pooling.keras", f"{kind}Pooling2D; an average leaves the padding out", (9, 8), lambda x: [
            pool(2, name="default")(x), pool(3, 2, "same", name="same_k3s2")(x), pool(3, 2, name="valid_k3s2")(x),
            pool(2, 2, "same", name="same_k2s2")(x), pool(3, 1, "same", name="same_k3s1")(x),
            pool((2, 5), (1, 3), "same", name="same_k25s13")(x), pool((3, 2), (3, 1), name="valid_k32s31")(x)])

    def global_pooling(x):
        x = L.Conv2D(4, 3, padding="same", name="conv")(x)
        kept = L.GlobalAveragePooling2D(keepdims=True, name="average_kept")(x)
        gate = L.Multiply()([x, L.Conv2D(4, 1, activation="sigmoid", name="gate")(kept)])
        return [L.GlobalAveragePooling2D(name="average")(gate), L.GlobalMaxPooling2D(name="max")(x),
                L.GlobalMaxPooling2D(keepdims=True, name="max_kept")(x)]

    net("global-pooling.keras", "global average and maximum, with and without keepdims", (9, 8), global_pooling)
    net("padding-cropping.keras", "ZeroPadding2D and Cropping2D with a number, a pair, pairs of pairs", (8, 7), lambda x: [
        L.Conv2D(2, 3, 2, name="a")(L.ZeroPadding2D(2)(x)), L.Conv2D(2, 3, 2, name="b")(L.ZeroPadding2D((1, 2))(x)),
        L.Conv2D(2, 3, 2, name="c")(L.ZeroPadding2D(((0, 1), (2, 0)))(x)),
        L.AveragePooling2D(2)(L.ZeroPadding2D(((1, 0), (0, 1)))(x)), L.MaxPooling2D(3, 2)(L.ZeroPadding2D(1)(x)),
        L.Cropping2D(2)(x), L.Cropping2D((1, 2))(x), L.Cropping2D(((3, 1), (0, 2)))(x), L.Cropping2D(((0, 0), (3, 0)))(x)])
    net("up-sampling.keras", "UpSampling2D nearest and bilinear", (4, 3), lambda x: [
        L.UpSampling2D(name="nearest")(x), L.UpSampling2D((3, 2), name="nearest_32")(x),
        L.UpSampling2D(2, interpolation="bilinear", name="bilinear")(x),
        L.UpSampling2D((2, 3), interpolation="bilinear", name="bilinear_23")(x)])
    net("up-sampling-bicubic.keras", "UpSampling2D bicubic", (4, 3), lambda x: [
        L.UpSampling2D(2, interpolation="bicubic", name="bicubic")(x)], may_error="unsupported")

    def merges(x):
        a, b = (L.Conv2D(3, 3, padding="same", name=n)(x) for n in "ab")
        row = L.GlobalAveragePooling2D(keepdims=True)(b)
        return [L.AveragePooling2D(2)(t) for t in (
            L.Add(name="add")([a, b, x]), L.Subtract(name="subtract")([a, b]), L.Multiply(name="multiply")([a, b, x]),
            L.Average(name="average")([a, b, x]), L.Maximum(name="maximum")([a, b, x]), L.Minimum(name="minimum")([a, b]),
            L.Concatenate(name="channels")([a, x, b]), L.Concatenate(axis=1, name="height")([a, b]),
            L.Concatenate(axis=2, name="width")([a, b]), L.Concatenate(axis=-2, name="width_too")([b, x]),
            L.Add(name="broadcast")([a, row]), L.Multiply(name="broadcast_first")([row, b]),
            L.Subtract(name="broadcast_subtract")([row, a]), L.Maximum(name="broadcast_maximum")([a, row]))]

    net("merges.keras", "Add, Subtract, Multiply, Average, Maximum, Minimum, Concatenate; two and three inputs; broadcasting", (7, 6),
        merges)
    net("merges-flat.keras", "merging vectors, and a vector with a map", (7, 6), lambda x: [
        L.Multiply(name="vector_map")([L.GlobalAveragePooling2D()(x), L.Conv2D(3, 3, 2, name="map")(x)]),
        L.Concatenate(name="vectors")([L.GlobalMaxPooling2D()(x), L.GlobalAveragePooling2D()(x)]),
        L.Add(name="add_vectors")([L.GlobalMaxPooling2D()(x), L.GlobalAveragePooling2D()(x)])], may_error="unsupported")

    def reshapes(x):
        x = L.Conv2D(4, 3, name="conv")(x)  # 6, 5, 4
        rows = L.Reshape((-1, 4), name="rows")(x)
        split = L.Reshape((6, 5, 2, 2), name="split")(x)
        shuffled = L.Reshape((6, 5, 4), name="join")(L.Permute((1, 2, 4, 3), name="shuffle")(split))
        return [L.Permute((2, 1, 3), name="turn")(x), L.Permute((3, 1, 2), name="channels_first")(x),
                L.Conv2D(2, 3, 2, name="after")(shuffled), L.GlobalMaxPooling2D()(L.Reshape((5, 3, 8), name="mixed")(x)),
                L.Permute((2, 1), name="turn_rows")(rows), L.Flatten()(L.Reshape((3, -1), name="three")(L.Flatten()(x))),
                L.Conv2D(2, 3, name="image_again")(L.Reshape((6, 5, 4), name="map")(L.Flatten()(x)))]

    net("reshapes.keras", "Flatten, Reshape and Permute in the order of Keras, with -1", (8, 7), reshapes)

    def identities(x):
        x = L.Conv2D(4, 3, name="conv")(x)
        for layer in (L.Dropout(0.5), L.SpatialDropout2D(0.3), L.GaussianNoise(0.5), L.GaussianDropout(0.5), L.AlphaDropout(0.2),
                      L.ActivityRegularization(l1=0.1), L.Identity(), L.Activation("linear")):
            x = layer(x)
        return [x, L.Dropout(0.5)(L.GlobalAveragePooling2D()(x))]

    net("dropouts.keras", "layers that do nothing at inference; Dropout has a seed among the weights", (7, 6), identities)


# --- normalisation, preprocessing -----------------------------------------------------------------------------------------


def normalisations():
    net("layer-norm.keras", "LayerNormalization over channels, maps, height; without scale or center", (6, 5), lambda x: layer_norms(
        L.Conv2D(4, 3, padding="same", name="conv")(x)))
    net("layer-norm-rms.keras", "LayerNormalization with rms_scaling, which divides by the deviation", (6, 5), lambda x: [
        layer(y) for y in [L.Conv2D(4, 3, padding="same", name="conv")(x)] for layer in (
            L.LayerNormalization(rms_scaling=True, name="channels"), L.LayerNormalization(axis=[1, 2], rms_scaling=True, name="plane"))])
    net("rms-norm.keras", "RMSNormalization, UnitNormalization", (6, 5), lambda x: rms_norms(
        L.Conv2D(4, 3, padding="same", name="conv")(x)))
    net("group-norm.keras", "GroupNormalization with 2, 1 and as many groups as channels", (6, 5), lambda x: group_norms(
        L.Conv2D(4, 3, padding="same", name="conv")(x)))


def layer_norms(x):
    return [L.LayerNormalization(name="channels")(x), L.LayerNormalization(epsilon=1e-6, axis=3, name="axis_3")(x),
            L.LayerNormalization(axis=[1, 2, 3], name="maps")(x), L.LayerNormalization(axis=1, name="height")(x),
            L.LayerNormalization(axis=[1, 2], name="plane")(x),
            L.LayerNormalization(scale=False, name="no_scale")(x), L.LayerNormalization(center=False, name="no_center")(x),
            L.LayerNormalization(name="flat")(L.GlobalMaxPooling2D()(x))]


def rms_norms(x):
    return [L.RMSNormalization(name="rms")(x), L.RMSNormalization(epsilon=1e-2, name="rms_epsilon")(x),
            L.UnitNormalization(name="unit")(x), L.UnitNormalization(axis=[1, 2], name="unit_plane")(x),
            L.UnitNormalization(axis=1, name="unit_height")(x)]


def group_norms(x):
    return [L.GroupNormalization(2, name="two")(x), L.GroupNormalization(1, name="one")(x),
            L.GroupNormalization(-1, name="each")(x), L.GroupNormalization(2, epsilon=0.1, center=False, name="no_center")(x),
            L.GroupNormalization(2, scale=False, name="no_scale")(x),
            L.GroupNormalization(2, axis=-1, name="flat")(L.GlobalMaxPooling2D()(x))]


def preprocessing():
    adapted = []

    def norms(x):
        adapted.append(L.Normalization(name="adapted"))
        adapted[-1].adapt(feed((1, 7, 6, 3), range(1, 9)) * np.array([1.0, 2.0, 0.5], np.float32))
        return [L.Rescaling(1 / 127.5, offset=-1, name="scalar")(x), L.Rescaling([0.5, 2.0, 1.5], [0.1, -0.2, 0.0], name="list")(x),
                L.Normalization(mean=[0.1, 0.2, -0.3], variance=[0.5, 1.5, 2.0], name="given")(x),
                L.Normalization(mean=[0.1, 0.2, -0.3], variance=[0.5, 1.5, 2.0], invert=True, name="inverted")(x),
                L.Normalization(axis=None, mean=0.3, variance=2.0, name="one_number")(x), adapted[-1](x)]

    net("rescaling-normalization.keras", "Rescaling with numbers and lists; Normalization given, adapted, inverted", (7, 6), norms)
    net("normalization-axes.keras", "Normalization over height, and with a variance of zero", (7, 6), lambda x: [
        L.Normalization(axis=1, mean=np.linspace(-0.2, 0.3, 7), variance=np.linspace(0.5, 2, 7), name="height")(x),
        L.Normalization(axis=(1, 3), mean=np.linspace(-0.2, 0.3, 21).reshape(7, 3),
                        variance=np.linspace(0.5, 2, 21).reshape(7, 3), name="height_channel")(x),
        L.Rescaling(1e-4)(L.Normalization(mean=[0.1, 0.0, -0.1], variance=[0.0, 0.5, 1.0], name="zero_variance")(x))])
    net("resizing.keras", "Resizing bilinear and nearest, up and down", (9, 8), lambda x: [
        L.Resizing(6, 5, name="bilinear_down")(x), L.Resizing(12, 13, name="bilinear_up")(x),
        L.Resizing(6, 5, "nearest", name="nearest_down")(x), L.Resizing(12, 13, "nearest", name="nearest_up")(x),
        L.Resizing(3, 16, name="mixed")(x)])
    net("resizing-aspect.keras", "Resizing that crops or pads to keep the aspect ratio", (9, 8), lambda x: [
        L.Resizing(4, 6, crop_to_aspect_ratio=True, name="crop")(x), L.Resizing(6, 12, pad_to_aspect_ratio=True, name="pad")(x)],
        may_error="unsupported")
    net("resizing-pad-odd.keras", "Resizing that pads an odd number of rows or columns: the same on both sides", (9, 8), lambda x: [
        L.Resizing(4, 6, pad_to_aspect_ratio=True, fill_value=0.5, name="columns")(x),
        L.Resizing(8, 5, pad_to_aspect_ratio=True, name="rows")(x),
        L.Permute((2, 3, 1))(L.Resizing(8, 5, pad_to_aspect_ratio=True, data_format="channels_first", name="first")(L.Permute((3, 1, 2))(x)))])
    net("resizing-rare.keras", "Resizing bicubic and antialiased", (9, 8), lambda x: [
        L.Resizing(5, 12, "bicubic", name="bicubic")(x), L.Resizing(4, 5, antialias=True, name="antialias")(x)],
        may_error="unsupported")
    net("center-crop.keras", "CenterCrop, odd and even remainders", (9, 8), lambda x: [
        L.CenterCrop(5, 5, name="odd")(x), L.CenterCrop(4, 4, name="even")(x), L.CenterCrop(9, 3, name="only_width")(x)])
    net("center-crop-larger.keras", "CenterCrop to more than there is enlarges first", (9, 8), lambda x: [
        L.CenterCrop(12, 5, name="larger")(x)], may_error="unsupported")

    def augmentation(x):
        for layer in (L.RandomFlip("horizontal"), L.RandomRotation(0.1), L.RandomZoom(0.2), L.RandomTranslation(0.1, 0.1),
                      L.RandomContrast(0.2), L.RandomBrightness(0.2, value_range=(-1, 1)), L.RandomShear(0.1, 0.1)):
            x = layer(x)
        return L.Conv2D(3, 3, 2, name="conv")(x)

    net("random-crop.keras", "RandomCrop, which does nothing at inference, smaller and larger than the picture", (9, 8), lambda x: [
        L.GlobalMaxPooling2D()(L.Conv2D(4, 3, name="a")(L.RandomCrop(6, 5, name="smaller")(x))),
        L.GlobalAveragePooling2D()(L.Conv2D(4, 3, name="b")(L.RandomCrop(12, 14, name="larger")(x)))])
    net("pipeline.keras", "a Pipeline of random layers, which does nothing at inference", (9, 8), lambda x: L.Conv2D(3, 3, 2, name="conv")(
        L.Pipeline([L.RandomFlip("horizontal"), L.RandomRotation(0.1)], name="pipeline")(x)))
    net("augmentation.keras", "random layers, which do nothing at inference; each has a seed among the weights", (9, 8), augmentation)


# --- how models hang together ---------------------------------------------------------------------------------------------


def base(size=(9, 8), channels=3, filters=4, name="base"):
    """A little network as the frozen base of others."""
    i = keras.Input((*size, channels), name=f"{name}_input")
    x = L.Conv2D(filters, 3, 2, padding="same", use_bias=False, name=f"{name}_conv")(i)
    x = L.BatchNormalization(name=f"{name}_bn")(x)
    y = L.Activation("relu", name=f"{name}_relu")(x)
    x = L.DepthwiseConv2D(3, padding="same", name=f"{name}_dw")(y)
    return keras.Model(i, L.Add(name=f"{name}_add")([x, y]), name=name)


def nested(size=(9, 8), make=None):
    """The usual transfer learning."""
    frozen = (make or base)(size)
    frozen.trainable = False
    i = keras.Input((*size, 3), name="image")
    x = L.Rescaling(2.0, offset=0.1)(i)
    x = frozen(x, training=False)
    x = L.Dropout(0.5)(L.GlobalAveragePooling2D()(x))
    return keras.Model(i, L.Dense(CLASSES, name="logits")(x), name="transfer")


def one(file, about, make, shape=(1, 9, 8, 3), **kwargs):
    if ONLY.search(file):
        keras.utils.clear_session()
        accept(file, about, make(), shape, **kwargs)


def sequential(explicit=True):
    rest = [L.Conv2D(4, 3, 2, padding="same", name="conv"), L.BatchNormalization(name="bn"), L.ReLU(name="relu"),
            L.MaxPooling2D(name="pool"), L.Flatten(name="flat"), L.Dropout(0.2), L.Dense(CLASSES, name="logits")]
    model = keras.Sequential(([keras.Input((9, 8, 3), name="image")] if explicit else []) + rest, name="stack")
    if not explicit:
        model.build((None, 9, 8, 3))
    return model


def two_towers():
    """A model used twice, a layer used three times, a layer whose second call alone matters."""
    tower, shared = base(), L.Conv2D(4, 1, name="shared")
    i = keras.Input((9, 8, 3), name="image")
    a, b = tower(i), tower(L.Rescaling(-1.0)(i))
    x = L.Subtract()([shared(a), shared(b)])
    norm = L.BatchNormalization(name="shared_norm")
    norm(a)
    y = L.Add()([norm(x), shared(L.ReLU(name="again")(x))])
    z = L.Maximum()([y, y])
    return keras.Model(i, head([L.GlobalAveragePooling2D()(z), L.MaxPooling2D(2)(y)]), name="towers")


def deep_nest():
    inner = base(name="inner")
    wrapped = keras.Sequential([keras.Input((9, 8, 3)), inner, L.Conv2D(3, 1, name="mixer")], name="wrapped")
    i = keras.Input((9, 8, 3), name="middle_input")
    middle = keras.Model(i, [wrapped(i), L.MaxPooling2D(name="side")(i)], name="middle")
    k = keras.Input((9, 8, 3), name="image")
    p, q = middle(L.Activation("tanh")(k))
    return keras.Model(k, head([p, q]), name="outer")


def listed(tower):
    i = keras.Input((9, 8, 3), name="photo")
    if isinstance(tower, dict):
        return keras.Model({"photo": i}, head([tower["photo"](i)]))
    return keras.Model([i], [head([tower[0](i)])])


def sequential_base():
    return keras.Sequential([base(), L.GlobalAveragePooling2D(), L.Dense(6, activation="relu", name="hidden"), L.Dropout(0.5),
                             L.Dense(CLASSES, name="logits")], name="stack")


def compiled():
    model = nested()
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                  metrics=["accuracy"])
    model.fit(feed((1, 9, 8, 3)), np.array([0, 1, 2]), verbose=0, batch_size=3)
    return model


def free_size():
    i = keras.Input((None, None, 3), name="image")
    x = L.Conv2D(4, 3, 2, padding="same", activation="relu", name="conv")(i)
    return keras.Model(i, L.Dense(CLASSES, name="logits")(L.GlobalAveragePooling2D()(x)))


def many(x):
    """keras.ops on the way: each becomes a layer of the class `Operation`."""
    y = L.Conv2D(4, 3, padding="same", name="conv")(x)
    a = ops.add(y, 1.5)
    b = ops.multiply(y, ops.sigmoid(a))
    c = ops.subtract(2.0, y)
    d = ops.divide(y, 3.0) + y * 0.5 - 0.25
    e = ops.mean(y, axis=[1, 2])
    f = ops.max(y, axis=(1, 2), keepdims=True)
    g = ops.reshape(y, (-1, 7 * 6, 4))
    h = ops.transpose(y, (0, 2, 1, 3))
    i = ops.concatenate([y, c], axis=-1)
    k = ops.clip(y, -0.5, 0.5)
    return [L.GlobalMaxPooling2D()(b), L.AveragePooling2D(3)(d), e, f, L.GlobalAveragePooling1D()(g), L.MaxPooling2D(3)(h),
            L.AveragePooling2D(3)(i), L.AveragePooling2D(3)(k), L.AveragePooling2D(3)(ops.maximum(y, c)),
            ops.reshape(L.MaxPooling2D(3)(y), (-1, 16))]


def many_more(x):
    y = L.Conv2D(4, 3, padding="same", name="conv")(x)
    small = L.AveragePooling2D(2)(y)
    return [ops.relu(small), ops.relu6(small * 8.0), ops.gelu(small), ops.gelu(small, approximate=False), ops.silu(small),
            ops.hard_swish(small), ops.tanh(small), ops.softmax(small, axis=-1), ops.exp(small), ops.sqrt(ops.abs(small) + 0.1),
            ops.square(small), -small, ops.sum(y, axis=1), ops.min(y, axis=[1, 2]), ops.squeeze(ops.mean(y, [1, 2], keepdims=True), [1, 2]),
            ops.expand_dims(ops.mean(y, axis=(1, 2)), 1), ops.pad(small, [[0, 0], [1, 0], [0, 1], [0, 0]]), small[:, 1:, ::2, 0],
            ops.average_pool(y, 3, 2, "same"), ops.max_pool(y, 2, 2), ops.power(ops.abs(small) + 0.5, 2.0), ops.minimum(small, 0.1),
            ops.log(ops.abs(small) + 1.0), ops.leaky_relu(small, 0.1), ops.stack([small, small * 2.0], axis=1)]


def structures():
    one("sequential.keras", "Sequential with an Input", sequential)
    one("sequential-built.keras", "Sequential without an Input, built with a shape", lambda: sequential(False))
    one("sequential-base.keras", "Sequential with a functional model as its first layer", sequential_base)
    one("nested.keras", "base_model(inputs, training=False), frozen; as Keras writes it", nested, deflate=False, resized=(16, lambda: nested((16, 16))))
    one("nested-compiled.keras", "compiled and trained: optimizer variables among the weights", compiled)
    one("nested-deflated.keras", "the same, zipped again with compression", nested, deflate=True)
    one("nested-deep.keras", "functional in Sequential in functional in functional; one of them with two outputs", deep_nest)
    one("shared.keras", "a model used twice, layers used several times, one whose first call leads nowhere", two_towers)
    one("free-size.keras", "the input leaves height and width open; refused unless --input-size says it", free_size,
        shape=(1, 12, 12, 3), declared=(1, None, None, 3), resized=(12, free_size))
    one("list-input.keras", "the input and the output are lists of one", lambda: listed([base()]))
    one("dict-input.keras", "the input is a dictionary of one", lambda: listed({"photo": base()}))
    net("flatten-size.keras", "Flatten and Dense allow no other size", (8, 8), lambda x: L.Conv2D(3, 3, 2, name="conv")(x),
        resized=(12, "size", "logits"))
    net("gray.keras", "one channel", (9, 8), lambda x: L.Conv2D(3, 3, 2, name="conv")(x), channels=1)
    net("four-channels.keras", "four channels", (9, 8), lambda x: L.Conv2D(3, 3, 2, name="conv")(x), channels=4)
    net("names.keras", "names that are not ASCII or look like something else", (9, 8), lambda x: L.Conv2D(2, 3, 2, name="é 層:0")(
        L.Conv2D(3, 1, name="vars")(L.Conv2D(3, 1, name="layers")(x))))
    net("class-names.keras", "names of layers that are the folders of others: weights are stored by class, not by name", (9, 8),
        lambda x: L.Conv2D(2, 3, 2, name="conv2d")(L.Conv2D(3, 1, name="conv2d_2")(L.Conv2D(3, 1, name="conv2d_1")(x))))
    for name, about in (("mobilenet_v2", "tf"), ("densenet", "torch"), ("resnet", "caffe")):
        module = getattr(keras.applications, name)
        net(f"preprocess-{about}.keras", f"{name}.preprocess_input inside the model", (9, 8), lambda x: L.Conv2D(3, 3, 2, name="conv")(
            L.Rescaling(1 / 40 if about == "caffe" else 1.0)(module.preprocess_input(L.Rescaling(127.5, offset=127.5)(x)))))
    from keras.src.applications.convnext import LayerScale, StochasticDepth

    net("stochastic-depth.keras", "LayerScale and StochasticDepth of ConvNeXt, with `+`", (9, 8), lambda x: x + StochasticDepth(0.3, name="drop")(
        LayerScale(1.0, 3, name="scale")(L.Conv2D(3, 3, padding="same", activation="gelu", name="conv")(x))))
    net("ops.keras", "operations of keras.ops and operators on tensors", (7, 6), many)
    net("ops-more.keras", "further operations of keras.ops", (7, 6), many_more, may_error="unsupported")


def precisions():
    def body(x):
        x = L.Conv2D(4, 3, 2, padding="same", use_bias=False, name="conv")(x)
        x = L.ReLU()(L.BatchNormalization(name="bn")(x))
        return [L.SeparableConv2D(4, 3, padding="same", name="separable")(x), L.GlobalAveragePooling2D()(x)]

    def float32():
        keras.utils.clear_session()
        return functional((9, 8, 3), body)

    for policy, tolerance in (("float16", 2e-2), ("mixed_float16", 2e-2), ("bfloat16", 1e-1), ("mixed_bfloat16", 1e-1)):
        for kind in ("keras", "h5"):
            if kind == "h5" and policy != "float16":
                continue
            file = f"{policy.replace('_', '-')}{'-legacy' if kind == 'h5' else ''}.{kind}"
            if not ONLY.search(file):
                continue
            keras.utils.clear_session()
            keras.config.set_dtype_policy(policy)
            model = functional((9, 8, 3), body, name="halves")
            keras.config.set_dtype_policy("float32")
            accept(file, f"dtype policy {policy}", model, (1, 9, 8, 3), tolerance=tolerance, float32=float32)
    if ONLY.search("mixed-head.keras"):
        keras.utils.clear_session()
        keras.config.set_dtype_policy("mixed_float16")
        i = keras.Input((9, 8, 3), name="image")
        model = keras.Model(i, head([*body(i)], "softmax", dtype="float32"))
        keras.config.set_dtype_policy("float32")

        def full():
            keras.utils.clear_session()
            return functional((9, 8, 3), body, "softmax")

        accept("mixed-head.keras", "mixed_float16 with the usual last layer in float32 and a Cast before it", model, (1, 9, 8, 3),
               tolerance=2e-2, float32=full, final="softmax")


def legacy_operations(x):
    y = L.Conv2D(4, 3, padding="same", name="conv")(x)
    small = L.AveragePooling2D(2)(y)
    return [small * 2.0 + 1.0, L.ReLU()(small - 0.5), ops.maximum(small, 0.1), small + L.ReLU()(small), 1.0 - small, small / 3.0,
            ops.concatenate([small, L.ReLU()(small)], axis=1), ops.softmax(small, axis=1), ops.leaky_relu(small, 0.1), ops.elu(small, 0.3),
            ops.reshape(L.MaxPooling2D(3)(y), (-1, 16)), keras.activations.relu(small, negative_slope=0.2, max_value=0.5),
            L.Add()([small, small]), L.Concatenate(axis=2)([small, small]), L.Softmax(axis=2)(small), small[:, 1:, ::2, 0]]


@keras.saving.register_keras_serializable(package="shop")
class Trainer(keras.Model):
    def train_step(self, *args):
        return super().train_step(*args)


def own_class():
    model = nested()
    return Trainer(model.inputs[0], model.outputs[0], name="own")


def own_base(size):
    model = base(size)
    return Trainer(model.inputs[0], model.outputs[0], name="own_base")


def legacy():
    one("legacy-sequential.h5", "Keras 3's legacy HDF5, Sequential", sequential)
    one("legacy-deep.h5", "Keras 3's legacy HDF5, nested several times", deep_nest)
    net("legacy-layers.h5", "Keras 3's legacy HDF5 with layers of several weights", (9, 8), lambda x: [
        L.SeparableConv2D(3, 3, 2, padding="same", name="separable")(x), L.DepthwiseConv2D(3, 2, name="depthwise")(x),
        L.PReLU(shared_axes=[1, 2], name="prelu")(x), L.LayerNormalization(name="norm")(x),
        L.Conv2DTranspose(2, 2, 2, name="up")(L.MaxPooling2D()(L.BatchNormalization(name="bn")(x)))])
    net("renamed-hdf5.keras", "an HDF5 file called .keras, as tf.keras before 2.12 wrote", (9, 8), lambda x: L.Conv2D(2, 3, 2)(x), kind="h5")
    net("legacy-operations.h5", "Keras 3's legacy HDF5 with keras.ops, which it writes like layers of the same names", (7, 6), legacy_operations)
    one("own-class.keras", "MyModel(inputs, outputs) with a training step of its own", own_class)
    one("own-class.h5", "the same in Keras 3's legacy HDF5", own_class)
    one("own-class-nested.keras", "the same within another model", lambda: nested(make=own_base))
    one("renamed-zip.h5", "a Keras 3 zip called .h5", nested, kind="keras")


# --- the blocks of keras.applications -------------------------------------------------------------------------------------


def cut(make, size, end, divisor=16, least=4, **options):
    """A network of keras.applications up to the layer `end`, or the Add of that number, with a fraction of its channels, as a frozen base."""
    app = make(weights=None, include_top=False, input_shape=(*size, 3), **options)
    if isinstance(end, int):
        last = [o for o in app.operations if type(o).__name__ == "Add"][end]  # `+` is an operation, not a layer.
    else:
        last = app.get_layer(end) if end else app
    trunk = keras.Model(app.input, last.output)

    def few(n):
        return n if n <= least else max(least, n // divisor)

    def smaller(layer):
        config = layer.get_config()
        if type(layer).__name__ == "Conv2D" and config["groups"] > 1:
            config["groups"] = few(config["groups"])
        for key in ("filters", "units", "projection_dim"):
            if key in config:
                config[key] = few(config[key])
        if type(layer).__name__ == "Reshape":
            config["target_shape"] = [few(n) for n in config["target_shape"]]
        return type(layer).from_config(config)

    def clone(model):
        return keras.models.clone_model(model, clone_function=lambda l: clone(l) if hasattr(l, "layers") else smaller(l))

    small = clone(trunk)
    return keras.Model(small.inputs[0], small.outputs[0], name=app.name)


def transfer(trunk, pool=L.GlobalAveragePooling2D):
    trunk.trainable = False
    i = keras.Input(trunk.input.shape[1:], name="image")
    bytes_wanted = any(isinstance(l, (L.Rescaling, L.Normalization)) for l in walk(trunk))
    x = trunk(L.Rescaling(127.5, offset=127.5)(i) if bytes_wanted else i, training=False)
    return keras.Model(i, L.Dense(CLASSES, name="logits")(pool()(x)), name="classifier")


def application(file, about, size, make, end=None, resized=None, **options):
    pool = L.GlobalAveragePooling2D if resized else L.Flatten

    def build():
        return transfer(cut(make, size, end, **options), pool)

    one(f"app-{file}", about, build, shape=(1, *size, 3), deep=True,
        **({"resized": (resized, lambda: transfer(cut(make, (resized, resized), end, **options), pool))} if resized else {}))


def applications():
    A = keras.applications
    application("xception.keras", "Xception, all its layers with a sixteenth of the channels", (71, 71), A.Xception, None, resized=86, divisor=48)
    application("vgg.keras", "VGG16, two blocks", (32, 33), A.VGG16, "block2_pool")
    application("resnet.keras", "ResNet50, the stem and the first blocks of two stages", (33, 35), A.ResNet50, "conv3_block1_out", resized=48)
    application("resnet-v2.keras", "ResNet50V2, the stem and the first stage", (33, 34), A.ResNet50V2, "conv2_block3_out")
    application("inception-v3.keras", "InceptionV3 up to mixed0", (75, 76), A.InceptionV3, "mixed0")
    application("inception-resnet-v2.keras", "InceptionResNetV2 up to the first residual block", (75, 75), A.InceptionResNetV2, "block35_1_ac")
    application("mobilenet.keras", "MobileNet, four depthwise blocks", (33, 36), A.MobileNet, "conv_pw_4_relu")
    application("mobilenet-v2.keras", "MobileNetV2, three blocks", (33, 34), A.MobileNetV2, "block_2_add", divisor=4)
    application("mobilenet-v3-small.keras", "MobileNetV3Small, three blocks", (36, 33), A.MobileNetV3Small, "expanded_conv_3_project_bn",
                divisor=4)
    application("mobilenet-v3-minimal.keras", "MobileNetV3Large, minimalistic", (33, 33), A.MobileNetV3Large, "expanded_conv_2_add",
                divisor=4, minimalistic=True)
    application("densenet.keras", "DenseNet121, two layers, then a transition", (33, 33), A.DenseNet121, "pool2_pool")
    nasnet()
    application("efficientnet.keras", "EfficientNetB0, MBConv with squeeze and excitation", (35, 34), A.EfficientNetB0, "block2b_add",
                divisor=4)
    application("efficientnet-v2.keras", "EfficientNetV2B0, fused MBConv and MBConv", (35, 34), A.EfficientNetV2B0, "block4b_add", divisor=8)
    application("efficientnet-v2-s.keras", "EfficientNetV2S, whose preprocessing is another", (33, 33), A.EfficientNetV2S, "block1a_add", divisor=4)
    application("convnext.keras", "ConvNeXtTiny, a stage with LayerScale and StochasticDepth", (33, 36), A.ConvNeXtTiny, 2)


def nasnet():
    def build():
        A = keras.applications
        app = A.NASNetMobile(weights=None, include_top=False, input_shape=(35, 34, 3))
        end = [l.name for l in app.layers if l.name.startswith("reduction_concat_stem_2")][0]
        return transfer(cut(A.NASNetMobile, (35, 34), end, divisor=8), L.Flatten)

    one("app-nasnet.keras", "NASNetMobile, the stem cells", build, shape=(1, 35, 34, 3), deep=True)


# --- bad files ------------------------------------------------------------------------------------------------------------


def plain(small=False):
    i = keras.Input((8, 8, 3), name="image")
    x = i if small else L.BatchNormalization(name="bn")(L.Conv2D(3, 3, 2, name="conv")(i))
    x = L.Dense(4, name="hidden")(L.GlobalAveragePooling2D(name="pool")(x))
    return keras.Model(i, x if small else L.Dense(CLASSES, name="logits")(x), name="plain")


def bytes_of(model, kind="keras", stored=False):
    randomise(model, keras_cases.generator(kind))
    data = saved(model, kind)
    return zipped(unzipped(data), deflate=True) if kind == "keras" and not stored else data


def rewrite(data, *, config=None, weights=None, drop=(), add=()):
    """A .keras file with its config (a function of the parsed JSON), its weights (a function of the open HDF5) or parts changed."""
    parts = []
    for name, part in unzipped(data):
        if name in drop:
            continue
        if name == "config.json" and config:
            part = json.loads(part)
            result = config(part)
            part = result if isinstance(result, bytes) else json.dumps(result or part).encode()
        elif name == "model.weights.h5" and weights:
            part = edited(part, weights)
        parts.append((name, part))
    return zipped(parts + list(add), deflate=True)


def edited(data, change):
    path = TEMP / "edit.h5"
    path.write_bytes(data)
    with h5py.File(path, "r+") as f:
        change(f)
    # Freed space would keep what was taken out.
    small = TEMP / "copy.h5"
    with h5py.File(path, "r") as old, h5py.File(small, "w") as new:
        for key, value in old.attrs.items():
            new.attrs[key] = value
        for key in old:
            if isinstance(old.get(key, getlink=True), h5py.HardLink):
                old.copy(key, new, expand_external=False, expand_soft=False)
            else:
                new[key] = old.get(key, getlink=True)
    return small.read_bytes()


def layer_of(config, name):
    return next(l for l in config["config"]["layers"] if l["config"]["name"] == name)


@keras.saving.register_keras_serializable(package="shop")
class Blur(L.Layer):
    def call(self, x):
        return x * 0.5


@keras.saving.register_keras_serializable(package="shop")
class Attention(L.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1],), name="w")

    def call(self, x):
        return x * self.w


@keras.saving.register_keras_serializable(package="shop")
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv, self.pool, self.logits = L.Conv2D(3, 3), L.GlobalAveragePooling2D(), L.Dense(CLASSES)

    def call(self, x):
        return self.logits(self.pool(self.conv(x)))


def bad_files():
    keras.utils.clear_session()
    good, good_h5, weights = bytes_of(plain(), stored=True), bytes_of(plain(True), "h5"), bytes_of(plain(True), "weights.h5")
    inner = dict(unzipped(good))["model.weights.h5"]
    good = zipped(unzipped(good), deflate="model.weights.h5")

    refuse("bad-empty.keras", "no bytes at all", "format", b"")
    refuse("bad-empty.h5", "no bytes at all", "format", b"")
    refuse("bad-text.keras", "neither zip nor HDF5", "format", b"This is not a model.\n")
    refuse("bad-text.h5", "neither zip nor HDF5", "format", b"This is not a model.\n")
    refuse("bad-picture.keras", "a PNG", "format", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(40))
    refuse("bad-truncated.keras", "the first half of a zip", "format", good[: len(good) // 2])
    refuse("bad-truncated-tail.keras", "a zip without its last 20 bytes", "format", good[:-20])
    refuse("bad-truncated.h5", "the first half of an HDF5 file", "format", good_h5[: len(good_h5) // 2])
    refuse("bad-truncated-head.h5", "100 bytes of an HDF5 file", "format", good_h5[:100])
    refuse("bad-truncated-weights.keras", "a whole zip, half of an HDF5 file in it", "format",
           zipped([(n, p[: len(p) // 2] if n.endswith("h5") else p) for n, p in unzipped(good)], deflate=True))
    refuse("bad-no-config.keras", "no config.json", "format", rewrite(good, drop=("config.json",)), ["config.json"])
    refuse("bad-no-weights.keras", "no model.weights.h5", "format", rewrite(good, drop=("model.weights.h5",)), ["model.weights.h5"])
    refuse("bad-zip-of-photos.keras", "a zip of something else", "format", zipped([("photo.txt", b"x")]), ["config.json"])
    refuse("bad-crc.keras", "a byte of config.json differs from its checksum", "format",
           good.replace(b'"kernel_size"', b'"kernel_sizf"', 1), ["config.json"])
    refuse("bad-json.keras", "config.json is cut off", "config", rewrite(good, config=lambda c: json.dumps(c).encode()[:500]))
    refuse("bad-deep-json.keras", "config.json is 50000 brackets", "config", rewrite(good, config=lambda c: b"[" * 50_000))
    refuse("bad-weights-only.weights.h5", "weights of a model that isn't there", "architecture", weights, ["architecture"])
    refuse("bad-h5-of-numbers.h5", "an HDF5 file of something else", "architecture", edited(inner, lambda f: f.clear()))

    def change(name, key, value):
        def apply(config):
            layer_of(config, name)["config"][key] = value
        return rewrite(good, config=apply)

    def inbound(config):
        layer_of(config, "hidden")["inbound_nodes"][0]["args"][0]["config"]["keras_history"][0] = "nowhere"

    def cycle(config):
        layer_of(config, "bn")["inbound_nodes"][0]["args"][0]["config"]["keras_history"][0] = "bn"

    def rename(config):
        layer = layer_of(config, "bn")
        layer["config"]["name"] = layer["name"] = "conv"

    refuse("bad-inbound.keras", "a layer reads one that does not exist", "config", rewrite(good, config=inbound), ["hidden"])
    refuse("bad-cycle.keras", "a layer reads itself", "config", rewrite(good, config=cycle), ["bn"])
    refuse("bad-twice.keras", "two layers of one name", "config", rewrite(good, config=rename), ["conv"])
    refuse("bad-stride.keras", "a stride of zero", "config", change("conv", "strides", [0, 2]), ["conv"])
    refuse("bad-kernel.keras", "a negative kernel size", "config", change("conv", "kernel_size", [-3, 3]), ["conv"])
    refuse("bad-padding.keras", "a padding that does not exist", "config", change("conv", "padding", "sideways"), ["conv", "sideways"])
    refuse("bad-type.keras", "filters are a string", "config", change("conv", "filters", "three"), ["conv"])
    refuse("bad-activation.keras", "an activation that does not exist", "unsupported", change("hidden", "activation", "zigzag"),
           ["hidden", "zigzag"])
    refuse("bad-too-small.keras", "a kernel larger than its input", "config", change("conv", "kernel_size", [9, 9]), ["conv"],
           may_error="weights")

    # Weights that don't fit.
    path = "layers/dense/vars"

    def drop(what):
        return lambda f: f.__delitem__(what)

    def replace(what, array, **options):
        def apply(f):
            del f[what]
            f.create_dataset(what, data=array, **options)
        return apply

    refuse("bad-missing-variable.keras", "the bias of a layer is missing", "weights", rewrite(good, weights=drop(f"{path}/1")), ["hidden"])
    refuse("bad-layer-without-weights.keras", "a layer has no weights", "weights", rewrite(good, weights=drop("layers/dense")), ["hidden"])
    refuse("bad-no-variables.keras", "a layer's folder is empty", "weights", rewrite(good, weights=drop("layers/conv2d/vars")), ["conv"])
    refuse("bad-shape.keras", "the kernel of a layer has another shape", "weights",
           rewrite(good, weights=replace(f"{path}/0", np.ones((4, 3), np.float32))), ["hidden"])
    refuse("bad-rank.keras", "the kernel of a layer has another rank", "weights",
           rewrite(good, weights=replace("layers/conv2d/vars/0", np.ones((3, 3, 9), np.float32))), ["conv"])
    refuse("bad-extra.keras", "a layer has a variable too many", "weights",
           rewrite(good, weights=lambda f: f.create_dataset(f"{path}/2", data=np.ones(4, np.float32))), ["hidden"], may_accept=True)
    refuse("bad-string-weights.keras", "the kernel of a layer is text", "weights",
           rewrite(good, weights=replace(f"{path}/0", np.array([[b"x"] * 4] * 3))), ["hidden"])
    refuse("bad-integer-weights.keras", "the kernel of a layer is int32", "weights",
           rewrite(good, weights=replace(f"{path}/0", np.ones((3, 4), np.int32))), ["hidden"], may_accept=True)
    refuse("bad-nan.keras", "a weight is not a number", "weights",
           rewrite(good, weights=replace(f"{path}/1", np.array([0, np.nan, 0, 0], np.float32))), ["hidden"], may_accept=True)
    refuse("bad-external-link.keras", "a kernel is a link to a file elsewhere, which must not be opened", "weights",
           rewrite(good, weights=lambda f: (drop(f"{path}/0")(f), f.__setitem__(f"{path}/0", h5py.ExternalLink("elsewhere.h5", "/kernel")))),
           ["hidden"])
    refuse("bad-soft-link.keras", "a kernel is a link to itself", "weights",
           rewrite(good, weights=lambda f: (drop(f"{path}/0")(f), f.__setitem__(f"{path}/0", h5py.SoftLink(f"/{path}/0")))), ["hidden"])

    group = "model_weights/hidden"
    with h5py.File(io.BytesIO(good_h5)) as f:
        kernel, bias = (f"{group}/{n}" for n in f[group].attrs["weight_names"])
    refuse("bad-shape.h5", "the kernel of a layer has another shape", "weights",
           edited(good_h5, replace(kernel, np.ones((4, 3), np.float32))), ["hidden"])
    refuse("bad-missing-variable.h5", "the bias of a layer is missing", "weights", edited(good_h5, drop(bias)), ["hidden"])
    refuse("bad-layer-without-weights.h5", "a layer has no weights", "weights", edited(good_h5, drop(group)), ["hidden"])
    refuse("bad-no-weights.h5", "a configuration without weights", "weights", edited(good_h5, drop("model_weights")))

    # Layers that can't be converted.
    def with_layer(*make):
        keras.utils.clear_session()
        i = keras.Input((8, 8, 3), name="image")
        x = L.Conv2D(3, 3, 2, name="conv")(i)
        for layer in make:
            x = layer(x)
        return keras.Model(i, L.Dense(CLASSES, name="logits")(L.GlobalAveragePooling2D()(x)))

    def nested_bad():
        keras.utils.clear_session()
        i = keras.Input((8, 8, 3), name="base_image")
        tower = keras.Model(i, Attention(name="look")(L.Conv2D(3, 3, name="conv")(i)), name="tower")
        k = keras.Input((8, 8, 3), name="image")
        return keras.Model(k, L.Dense(CLASSES, name="logits")(L.GlobalAveragePooling2D()(Blur(name="soften")(tower(k)))))

    refuse("bad-lambda.keras", "Lambda: Python that must never run", "unsupported",
           bytes_of(with_layer(L.Lambda(lambda x: x * 2.0, name="twice"))), ["twice", "Lambda"], layers=[["twice", "Lambda"]])
    refuse("bad-lambda.h5", "Lambda: Python that must never run", "unsupported",
           bytes_of(with_layer(L.Lambda(lambda x: x * 2.0, name="twice")), "h5"), ["twice", "Lambda"], layers=[["twice", "Lambda"]])
    refuse("bad-custom.keras", "two custom layers and a Lambda; all must be listed", "unsupported",
           bytes_of(with_layer(Blur(name="soften"), Attention(name="look"), L.Lambda(lambda x: x + 1.0, name="plus_one"))),
           ["soften", "Blur", "look", "Attention", "plus_one", "Lambda"],
           layers=[["soften", "Blur"], ["look", "Attention"], ["plus_one", "Lambda"]])
    refuse("bad-custom-nested.keras", "custom layers at two depths", "unsupported", bytes_of(nested_bad()),
           ["soften", "Blur", "look", "Attention"], layers=[["soften", "Blur"], ["look", "Attention"]])
    refuse("bad-layers.keras", "layers of Keras that are not for pictures", "unsupported",
           bytes_of(with_layer(L.TimeDistributed(L.Conv1D(3, 3), name="over_time"), L.Reshape((3, 3)), L.LSTM(9, name="memory"),
                               L.Reshape((3, 1, 3)))),
           ["over_time", "TimeDistributed", "memory", "LSTM"], layers=[["over_time", "TimeDistributed"], ["memory", "LSTM"]])
    refuse("bad-cast.keras", "whole numbers on the way", "unsupported",
           bytes_of(with_layer(lambda x: ops.cast(ops.cast(x * 4.0, "int32"), "float32"))), ["cast", "int32"], layers=[["cast", "Cast"]])
    refuse("bad-activation-lambda.keras", "Python as an activation", "unsupported",
           bytes_of(with_layer(L.Conv2D(3, 1, activation=lambda x: x * 2.0, name="twice"))), ["twice", "Python code"], layers=[["twice", "Conv2D"]])
    keras.utils.clear_session()
    subclassed = Subclassed(name="own_model")
    subclassed(np.zeros((1, 8, 8, 3), np.float32))
    refuse("bad-subclassed.keras", "a model that is a Python class", "unsupported", bytes_of(subclassed), ["Subclassed"])

    # Not one picture in.
    keras.utils.clear_session()
    a, b = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    refuse("bad-two-inputs.keras", "two pictures", "inputs", bytes_of(keras.Model([a, b], head([L.GlobalMaxPooling2D()(L.Add()([a, b]))]))),
           ["left", "right"])
    a = keras.Input((30,), name="numbers")
    refuse("bad-vector-input.keras", "the input is a vector", "inputs", bytes_of(keras.Model(a, L.Dense(CLASSES)(a))), ["numbers"], may_accept=True)

    # Bombs.
    huge = 1 << 40

    def instead(shape, *settings):
        """The layer `pool` replaced by others, on an input of another shape."""
        def apply(config):
            kept = layer_of(config, "image")
            kept["config"]["batch_shape"] = [None, *shape]
            layers, last = [kept], "image"
            for n, (kind, options) in enumerate(settings):
                node = json.loads(json.dumps(layer_of(config, "conv")["inbound_nodes"]))
                node[0]["args"][0]["config"]["keras_history"][0] = last
                last = f"layer{n}"
                layers.append({"module": "keras.layers", "class_name": kind, "name": last, "config": {"name": last, **options}, "inbound_nodes": node})
            config["config"].update(layers=layers, output_layers=[[last, 0, 0]])
        return rewrite(good, config=apply)

    refuse("bad-huge-nearest.keras", "nearest rows, 2^31 of them", "limits",
           instead((8, 8, 1), ("Resizing", {"height": 1 << 31, "width": 1, "interpolation": "nearest"})), ["layer0"])
    refuse("bad-huge-up-sampling.keras", "2^27 times as many rows", "limits",
           instead((8, 8, 1), ("UpSampling2D", {"size": [1 << 27, 1], "interpolation": "nearest"})), ["layer0"])
    refuse("bad-huge-ones.keras", "LayerNormalization without a scale over 2^32 values", "limits",
           instead((8192, 8192, 64), ("Flatten", {}), ("LayerNormalization", {"scale": False, "center": False})), ["layer1"])
    refuse("bad-huge-resizing.keras", "200 matrices of 256 MB", "limits",
           instead((8000, 1, 1), *[("Resizing", {"height": 8000 - n % 2, "width": 1}) for n in range(200)]), ["layer"])

    def exponential(config):
        inner, tensor = json.loads(json.dumps(config)), layer_of(config, "conv")["inbound_nodes"][0]["args"][0]
        image = layer_of(config, "image")

        def node(layer, call):
            return {"args": [{**tensor, "config": {**tensor["config"], "keras_history": [layer, call, 0]}}], "kwargs": {}}

        drop = {"module": "keras.layers", "class_name": "Dropout", "name": "drop", "config": {"name": "drop"}, "inbound_nodes": [node("image", 0)]}
        inner["config"].update(layers=[image, drop], output_layers=[["drop", 0, 0]])
        for _ in range(18):
            inner["name"] = "inner"
            inner["inbound_nodes"] = [node("image", 0)] + [node("inner", n) for n in range(5)]
            inner = {**config, "config": {**config["config"], "layers": [image, inner], "output_layers": [["inner", 5, 0]]}}
        return inner

    refuse("bad-exponential.keras", "models that call each other six times, 18 deep, around a layer that does nothing", "limits",
           rewrite(good, config=exponential))
    refuse("bad-outputs.keras", "300000 outputs", "limits",
           rewrite(good, config=lambda c: c["config"].update(output_layers=[["logits", 0, 0]] * 300_000)))
    refuse("bad-huge-input.keras", "an input of 2^31 x 2^31", "limits", change("image", "batch_shape", [None, 1 << 31, 1 << 31, 3]), ["image"])
    refuse("bad-huge-overflow.keras", "an input whose size does not fit 64 bits", "limits",
           change("image", "batch_shape", [None, 1 << 62, 1 << 62, 3]), ["image"])
    refuse("bad-huge-filters.keras", "2^40 filters", "limits", change("conv", "filters", huge), ["conv"], may_error="weights")
    refuse("bad-huge-units.keras", "2^62 units", "limits", change("hidden", "units", 1 << 62), ["hidden"], may_error="weights")

    def padded(config):
        layer_of(config, "pool").update(class_name="ZeroPadding2D", config={
            "name": "pool", "padding": [[huge, huge], [huge, huge]], "data_format": "channels_last"})

    refuse("bad-huge-padding.keras", "padding of 2^40", "limits", rewrite(good, config=padded), ["pool"])
    refuse("bad-huge-dataset.keras", "a kernel of 2^20 x 2^20 that takes no space in the file", "limits",
           rewrite(good, weights=lambda f: (drop(f"{path}/0")(f), f.create_dataset(f"{path}/0", shape=(1 << 20, 1 << 20), dtype="f4"))),
           ["hidden"], may_error="weights")
    refuse("bad-huge-chunks.keras", "a gzipped kernel that is 64 MB of zeros in a few kB", "limits",
           rewrite(good, weights=lambda f: (drop(f"{path}/0")(f), f.create_dataset(
               f"{path}/0", data=np.zeros((4096, 4096), np.float32), chunks=(4096, 4096), compression="gzip", compression_opts=9))),
           ["hidden"], may_error="weights")
    spaces = json.dumps(json.loads(dict(unzipped(good))["config.json"])).encode() + b" " * 24_000_000
    refuse("bad-bomb-config.keras", "config.json is 24 MB of spaces in 25 kB", "limits",
           zipped([(n, spaces if n == "config.json" else p) for n, p in unzipped(good)], deflate=True), ["config.json"])
    bomb = bytearray(zipped([(n, b" " * 2_000_000 if n == "config.json" else p) for n, p in unzipped(good)], deflate=True))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = -1
        while (at := bomb.find(signature, at + 1)) >= 0:
            name = bomb[at + offset + (8 if offset == 22 else 22):][:11]
            if name == b"config.json":
                bomb[at + offset:at + offset + 4] = struct.pack("<I", 100)
    refuse("bad-bomb-lies.keras", "config.json is said to have 100 bytes and has 2 MB", "limits", bytes(bomb), ["config.json"],
           may_error="format")
    claims = bytearray(good)
    at = claims.find(b"PK\x01\x02")
    while at >= 0:
        claims[at + 24:at + 28] = struct.pack("<I", 0xFFFFFFFE)
        at = claims.find(b"PK\x01\x02", at + 1)
    refuse("bad-bomb-claims.keras", "every part is said to have 4 GB and has a few kB", "limits", bytes(claims), may_error="format")
    many = [(f"part{i}", b"") for i in range(400)]
    refuse("bad-name.keras", "parts whose names lead out of the archive, which must be ignored", "format",
           zipped([("../config.json", b"{}"), *many[:3]]), ["config.json"])

    def nest(config):
        model = config
        for n in range(90):
            model = {"module": "keras.src.models.functional", "class_name": "Functional", "registered_name": "Functional", "config": {
                "name": f"level{n}", "trainable": True, "input_layers": [["image", 0, 0]], "output_layers": [[f"inner{n}", 0, 0]],
                "layers": [layer_of(config, "image"), {**model, "name": f"inner{n}", "config": {**model["config"], "name": f"inner{n}"},
                           "inbound_nodes": layer_of(config, "conv")["inbound_nodes"]}]}}
        return model

    refuse("bad-nested-deep.keras", "90 models inside each other", "limits", zipped(unzipped(rewrite(good, config=nest)), deflate=True),
           may_error="config")


def main():
    global ONLY
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the stored files differ")
    p.add_argument("--only", metavar="REGEX", default="", help="make these alone and print their outputs; write nothing")
    a = p.parse_args()
    ONLY = re.compile(a.only)
    no_initial_weights()
    for family in (convolutions, channels_first, activations, shapes, normalisations, preprocessing, structures, precisions, legacy,
                   applications, bad_files):
        family()
    made = [(c, d) for c, d in MADE if ONLY.search(c["file"])]
    if a.only:
        for case, data in made:
            print(f"{case['file']}: {len(data)} bytes", case.get("outputs") or case["error"])
        return 0
    for case, data in made:
        assert len(data) < 110_000, (case["file"], len(data))
    return keras_cases.store(made, "make_keras.py", a.check)


if __name__ == "__main__":
    sys.exit(main())
