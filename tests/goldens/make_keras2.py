#!/usr/bin/env python3
"""Write keras/k2-*, files that Keras 2 itself wrote, and their cases in keras/keras.json; make_keras.py explains the fields.

    python3.10 -m venv .venv2 && .venv2/bin/pip install -r requirements-keras2.txt
    .venv2/bin/python make_keras2.py            # writes
    .venv2/bin/python make_keras2.py --check    # compares what it would write with what is there

Keras 2 is what TensorFlow up to 2.15 has as tf.keras. Its HDF5 files are what most people have lying around. Differences that
matter: `batch_input_shape`, lists as `inbound_nodes`, `alpha` for LeakyReLU, lists as axes, hard_sigmoid as 0.2 x + 0.5,
operations as TFOpLambda. Files that still older versions would have written are made by editing the configuration.
"""
import argparse
import io
import json
import os
import pathlib
import sys
import tempfile
import zipfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import h5py
import keras
import numpy as np
import tensorflow as tf

import keras_cases
from keras_cases import CLASSES, feed

K = tf.keras
L = K.layers
MADE = []
TEMP = pathlib.Path(tempfile.mkdtemp())


def randomise(model, rng):
    for v in model.variables:
        name = v.name.split("/")[-1].split(":")[0]
        if v.dtype.is_floating:
            v.assign(tf.cast(keras_cases.fill(rng, name, tuple(v.shape), v.numpy().astype(np.float64)), v.dtype))
    for layer in walk(model):
        if type(layer).__name__ == "LayerScale":
            layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))


def walk(model):
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from walk(layer)
        else:
            yield layer


def calibrate(model, x):
    """See make_keras.py."""
    norms = [l for l in walk(model) if isinstance(l, L.BatchNormalization)]
    for layer in norms:
        layer.momentum, layer.trainable = 0.0, True
    for layer in model.layers:
        if isinstance(layer, L.Rescaling):
            x = layer(x)
        elif hasattr(layer, "layers"):
            layer.trainable = True
            layer(x, training=True)
    for layer in norms:
        layer.momentum = 0.99
        v = layer.moving_variance.numpy()
        layer.moving_variance.assign(np.maximum(v, 0.01 * v.mean() + 1e-5))


def deterministic(data):
    """A zip with fixed times and without compression, as Keras writes it but for those."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for item in old.infolist():
            part = old.read(item)
            if item.filename == "metadata.json":
                part = json.dumps({**json.loads(part), "date_saved": "2026-01-01@00:00:00"}).encode()
            info = zipfile.ZipInfo(item.filename, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED if len(data) > 25_000 else zipfile.ZIP_STORED
            new.writestr(info, part, compresslevel=9)
    return out.getvalue()


def saved(model, kind, weights=False):
    path = TEMP / f"model.{kind}"
    (model.save_weights if weights else model.save)(path)
    data = path.read_bytes()
    path.unlink()
    return deterministic(data) if data[:2] == b"PK" else data


def accept(file, about, make, shape, *, final=None, deep=False, tolerance=None, float32=None, edit=None, **fields):
    K.backend.clear_session()
    model = make()
    rng = keras_cases.generator(file)
    randomise(model, rng)
    if deep:
        calibrate(model, feed(shape, range(1, 9)))
    dense = next(l for l in walk(model) if l.name == "logits")
    x = feed(shape, range(1, 7))
    before = K.Model(model.inputs, dense.input)(x, training=False).numpy().astype(np.float32)
    kernel, bias = keras_cases.settle(rng, dense.kernel.numpy().astype(np.float32), CLASSES, before, 1000 if deep else 60)
    dense.kernel.assign(kernel)
    dense.bias.assign(bias)
    values = model(feed(shape), training=False).numpy().astype(np.float32)
    keras_cases.lively(file, values)
    case = {"file": file, "about": about, "keras": keras.__version__, "input_shape": list(shape)}
    if final:
        case["final_activation"] = final
    if tolerance:
        case["tolerance"] = tolerance
    case["outputs"] = keras_cases.rows(values)
    data = saved(model, file.split(".", 1)[1])
    if float32:
        K.backend.clear_session()
        full = float32()
        for a, b in zip(full.variables, model.variables, strict=True):
            a.assign(tf.cast(b, tf.float32))
        case["outputs_float32"] = keras_cases.rows(full(feed(shape), training=False).numpy())
    case.update(fields)
    MADE.append((case, edit(data) if edit else data))


def reconfigured(data, change):
    path = TEMP / "edit.h5"
    path.write_bytes(data)
    with h5py.File(path, "r+") as f:
        config = json.loads(f.attrs["model_config"])
        del f.attrs["model_config"], f.attrs["keras_version"]
        f.attrs["model_config"] = json.dumps(change(config) or config).encode()
        f.attrs["keras_version"] = b"2.2.4"
    return path.read_bytes()


def functional(shape, body, activation=None, **kwargs):
    i = K.Input(shape, name="image")
    out = body(i)
    flat = [L.Flatten()(b) if len(b.shape) > 2 else b for b in (out if isinstance(out, list) else [out])]
    x = L.Concatenate()(flat) if len(flat) > 1 else flat[0]
    return K.Model(i, L.Dense(CLASSES, activation=activation, name="logits", **kwargs)(x))


def base(size=(9, 8)):
    i = K.Input((*size, 3), name="base_input")
    x = L.Conv2D(4, 3, 2, padding="same", use_bias=False, name="base/conv")(i)
    y = L.Activation("relu", name="base/relu")(L.BatchNormalization(name="base/bn")(x))
    return K.Model(i, L.Add(name="base/add")([y, L.DepthwiseConv2D(3, padding="same", name="base/dw")(y)]), name="base")


def nested():
    frozen = base()
    frozen.trainable = False
    i = K.Input((9, 8, 3), name="image")
    x = frozen(L.Rescaling(2.0, offset=0.1)(i), training=False)
    return K.Model(i, L.Dense(CLASSES, name="logits")(L.Dropout(0.5)(L.GlobalAveragePooling2D()(x))))


def compiled():
    model = nested()
    model.compile("adam", K.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(feed((1, 9, 8, 3)), np.array([0, 1, 2]), verbose=0)
    return model


def stack(first=True):
    return K.Sequential(([K.Input((9, 8, 3))] if first else []) + [
        L.Conv2D(4, 3, 2, padding="same", **({} if first else {"input_shape": (9, 8, 3)})), L.BatchNormalization(),
        L.ReLU(6.0), L.MaxPooling2D(), L.Flatten(), L.Dropout(0.2), L.Dense(6, activation="hard_sigmoid"),
        L.Dense(CLASSES, name="logits")])


def towers():
    tower, shared = base(), L.Conv2D(4, 1, name="shared")
    i = K.Input((9, 8, 3), name="image")
    a, b = tower(i), tower(L.Rescaling(-1.0)(i))
    x = L.Subtract()([shared(a), shared(b)])
    y = L.Add()([x, shared(L.ReLU(name="again")(x))])
    return K.Model(i, L.Dense(CLASSES, name="logits")(L.Flatten()(L.MaxPooling2D(2)(L.Maximum()([y, y])))))


def layers(x):
    n = L.BatchNormalization(name="bn")(L.Conv2D(4, 3, name="conv")(x))
    return [L.SeparableConv2D(3, 3, 2, padding="same", name="separable")(x), L.DepthwiseConv2D(3, 2, name="depthwise")(x),
            L.Conv2DTranspose(2, 3, 2, padding="same", name="up")(L.MaxPooling2D()(x)), L.PReLU(shared_axes=[1, 2], name="prelu")(n),
            L.LayerNormalization(name="norm")(n), L.LeakyReLU(name="leaky")(n), L.LeakyReLU(0.1, name="leaky_01")(n),
            L.ReLU(2.0, 0.1, 0.5, name="relu")(n),
            L.GlobalMaxPooling2D(keepdims=True)(n), L.AveragePooling2D(3, 2, "same")(n), L.UpSampling2D((2, 1), interpolation="bilinear")(
                L.MaxPooling2D(3)(n)), L.Permute((2, 1, 3))(n), L.Reshape((-1, 7))(n)]


def activations(x):
    w = L.Rescaling(3.0)(L.Conv2D(4, 1, name="spread")(x))
    names = ("elu", "gelu", "swish", "exponential", "hard_sigmoid")
    return [L.AveragePooling2D(3)(t) for t in [L.Activation(n, name=f"as_{n}")(w) for n in names] + [
        L.Activation(tf.nn.relu6, name="tf_relu6")(w), L.Conv2D(2, 1, activation="hard_sigmoid", name="conv_hard_sigmoid")(w),
        L.Conv2D(2, 1, activation=L.LeakyReLU(0.2), name="conv_leaky")(w), L.Softmax(name="softmax")(w)]]


def preprocessing(x):
    x = L.RandomZoom(0.1)(L.RandomRotation(0.1)(L.RandomFlip()(x)))
    return [L.Resizing(6, 5)(x), L.CenterCrop(5, 4)(x), L.Rescaling(0.5, offset=-0.5)(x),
            L.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 1.0, 2.0], name="given")(x), adapted()(x)]


def adapted():
    layer = L.Normalization(name="adapted")
    layer.adapt(feed((1, 9, 8, 3), range(1, 9)))
    return layer


def lambdas(x):
    """TFOpLambda and SlicingOpLambda."""
    y = L.Conv2D(4, 3, padding="same", name="conv")(x)
    small = L.AveragePooling2D(3)(y)
    return [small * 2.0 + 1.0, small - 0.5, 1.0 - small, small / 3.0, tf.nn.relu(small), tf.nn.relu6(small + 3.0) * (1.0 / 6.0), tf.sigmoid(small),
            tf.reduce_mean(y, axis=[1, 2]), tf.reduce_max(y, axis=[1, 2], keepdims=True), tf.reshape(small, [-1, small.shape[1] * small.shape[2], 4]),
            tf.concat([small, small * small], axis=-1), tf.math.multiply(small, tf.nn.sigmoid(small))]


def functions(x):
    """TFOpLambda with arguments that change what is computed."""
    small = L.AveragePooling2D(3)(L.Conv2D(4, 3, padding="same", name="conv")(x)) * 3.0
    return [tf.nn.softmax(small, axis=1), tf.nn.softmax(small), tf.nn.leaky_relu(small, 0.3), tf.nn.leaky_relu(small),
            tf.nn.gelu(small, approximate=True), tf.nn.gelu(small), tf.nn.log_softmax(small, 2), tf.cast(small, tf.float32),
            K.activations.softmax(small, axis=1), K.activations.gelu(small, True)]


def preprocess_input(module):
    def body(x):
        return L.Conv2D(3, 3, 2, name="conv")(L.Rescaling(1 / 30)(module.preprocess_input(L.Rescaling(127.5, offset=127.5)(x)))
                                             if module is not K.applications.mobilenet_v2
                                             else module.preprocess_input(L.Rescaling(127.5, offset=127.5)(x)))
    return body


def cut(make, size, end, divisor=16, least=4, **options):
    """See make_keras.py."""
    app = make(weights=None, include_top=False, input_shape=(*size, 3), **options)
    if end == "first add":
        end = next(l.name for l in app.layers if isinstance(l, L.Add))
    trunk = K.Model(app.input, app.get_layer(end).output)

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

    small = K.models.clone_model(trunk, clone_function=smaller)
    small._name = app.name
    return small


def convnext(x):
    from keras.src.applications.convnext import LayerScale, StochasticDepth
    x = L.LayerNormalization(epsilon=1e-6)(L.Conv2D(6, 2, 2)(x))
    y = L.LayerNormalization(epsilon=1e-6)(L.Conv2D(6, 7, padding="same", groups=1)(x))
    y = L.Dense(6)(L.Activation("gelu")(L.Dense(12)(y)))
    return x + StochasticDepth(0.1)(LayerScale(1.0, 6, name="scale")(y))


def transfer(*args, pool=L.GlobalAveragePooling2D, **kwargs):
    def build():
        trunk = cut(*args, **kwargs)
        trunk.trainable = False
        i = K.Input(trunk.input.shape[1:], name="image")
        wants_bytes = any(isinstance(l, (L.Rescaling, L.Normalization)) for l in trunk.layers)
        x = trunk(L.Rescaling(127.5, offset=127.5)(i) if wants_bytes else i, training=False)
        return K.Model(i, L.Dense(CLASSES, name="logits")(pool()(x)))
    return build


def cases():
    small = (1, 9, 8, 3)
    accept("k2-nested.h5", "Keras 2: base_model(inputs, training=False), names with slashes", nested, small)
    accept("k2-nested.keras", "Keras 2 in the new format: a zip with the configuration of Keras 2", nested, small)
    accept("k2-sequential.h5", "Keras 2: Sequential", stack, small)
    accept("k2-sequential.keras", "Keras 2 in the new format: Sequential", stack, small)
    accept("k2-shared.h5", "Keras 2: a model used twice, a layer used three times", towers, small)
    accept("k2-shared.keras", "Keras 2 in the new format: a model used twice, a layer used three times", towers, small)
    accept("k2-layers.h5", "Keras 2: layers with weights and its spelling of options", lambda: functional((9, 8, 3), lambda x: layers(x)[:7]), small)
    accept("k2-layers.keras", "Keras 2 in the new format: layers with its spelling of options", lambda: functional((9, 8, 3), layers), small)
    accept("k2-activations.keras", "Keras 2: activations; its hard_sigmoid is 0.2 x + 0.5", lambda: functional((6, 6, 3), activations), (1, 6, 6, 3))
    accept("k2-preprocessing.keras", "Keras 2: preprocessing layers", lambda: functional((9, 8, 3), preprocessing), small)
    accept("k2-softmax.keras", "Keras 2: ends in a softmax", lambda: functional((9, 8, 3), lambda x: L.Conv2D(3, 3, 2)(x), "softmax"), small, final="softmax")
    accept("k2-oplambda.keras", "Keras 2: operations of TensorFlow as TFOpLambda", lambda: functional((9, 9, 3), lambdas), (1, 9, 9, 3))
    accept("k2-functions.keras", "Keras 2: functions of TensorFlow with arguments", lambda: functional((9, 9, 3), functions), (1, 9, 9, 3))
    accept("k2-random-crop.keras", "Keras 2: RandomCrop, which resizes the largest window at inference", lambda: functional((9, 8, 3), lambda x: [
        L.RandomCrop(5, 5)(x), L.RandomCrop(4, 3)(x), L.RandomCrop(12, 5)(x)]), small)
    for name in ("mobilenet_v2", "resnet50", "densenet"):
        accept(f"k2-preprocess-{name.replace('_', '-')}.{'keras' if name == 'mobilenet_v2' else 'h5'}", f"Keras 2: {name}.preprocess_input inside the model",
               lambda: functional((9, 8, 3), preprocess_input(getattr(K.applications, name))), small)

    def policy(name):
        def make():
            K.mixed_precision.set_global_policy(name)
            try:
                return functional((9, 8, 3), halves, dtype="float32" if "mixed" in name else None)
            finally:
                K.mixed_precision.set_global_policy("float32")
        return make

    def halves(x):
        x = L.ReLU()(L.BatchNormalization()(L.Conv2D(4, 3, 2, padding="same", use_bias=False)(x)))
        return [L.Flatten()(L.SeparableConv2D(4, 3, padding="same")(x)), L.GlobalAveragePooling2D()(x)]

    accept("k2-mixed-float16.h5", "Keras 2: mixed_float16, the last layer in float32", policy("mixed_float16"), small, tolerance=2e-2,
           float32=lambda: functional((9, 8, 3), halves))

    def bare_list(config):
        """Sequential before 2.2: a list of layers; options of Keras 2.0."""
        stack = [l for l in config["config"]["layers"] if l["class_name"] != "InputLayer"]
        stack[0]["config"]["batch_input_shape"] = [None, 9, 8, 3]
        for layer in stack:
            for key in ("groups", "dtype", "ragged", "keepdims"):
                layer["config"].pop(key, None)
            for key in ("module", "registered_name", "build_config"):
                layer.pop(key, None)
        return {"class_name": "Sequential", "config": stack}

    def old_model(config):
        config["class_name"] = "Model"
        for layer in config["config"]["layers"]:
            if layer["class_name"] == "Functional":
                layer["class_name"] = "Model"

    accept("k2-old-sequential.h5", "as Keras 2.0 wrote Sequential: a bare list of layers", lambda: stack(False), small,
           edit=lambda data: reconfigured(data, bare_list))
    accept("k2-old-model.h5", "as Keras 2.2 wrote functional models: class Model; with training_config and optimizer weights", compiled, small, edit=lambda data: reconfigured(data, old_model))

    A = K.applications
    accept("k2-app-xception.h5", "Keras 2: Xception, entry flow, nested", transfer(A.Xception, (71, 71), "first add", pool=L.GlobalMaxPooling2D), (1, 71, 71, 3), deep=True)
    accept("k2-app-mobilenet-v3.h5", "Keras 2: MobileNetV3Small with its TFOpLambda layers, nested",
           transfer(A.MobileNetV3Small, (36, 33), "expanded_conv_1/project/BatchNorm", divisor=4), (1, 36, 33, 3), deep=True)
    accept("k2-app-efficientnet.keras", "Keras 2 in the new format: EfficientNetB0, nested", transfer(A.EfficientNetB0, (35, 34), "block2b_add", divisor=4),
           (1, 35, 34, 3), deep=True)
    accept("k2-convnext.h5", "Keras 2: a block of ConvNeXt with its LayerScale, StochasticDepth and `+`", lambda: functional((9, 8, 3), convnext), small)

    K.backend.clear_session()
    model = nested()
    MADE.append(({"file": "bad-k2-weights.h5", "about": "Keras 2: save_weights, no model", "keras": keras.__version__, "error": "architecture",
                  "names": ["architecture"]}, saved(model, "h5", weights=True)))
    i = K.Input((9, 8, 3), name="image")
    model = K.Model(i, L.Dense(CLASSES, name="logits")(L.Lambda(lambda x: tf.reduce_mean(x, [1, 2]), name="average")(i)))
    MADE.append(({"file": "bad-k2-lambda.h5", "about": "Keras 2: Lambda, pickled Python that must never run", "keras": keras.__version__,
                  "error": "unsupported", "names": ["average", "Lambda"], "layers": [["average", "Lambda"]]}, saved(model, "h5")))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the stored files differ")
    a = p.parse_args()
    cases()
    for case, data in MADE:
        assert len(data) < 110_000, (case["file"], len(data))
    return keras_cases.store(MADE, "make_keras2.py", a.check)


if __name__ == "__main__":
    sys.exit(main())
