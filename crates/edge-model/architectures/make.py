#!/usr/bin/env python3
"""Write architectures.zip: the layers of every network of keras.applications, as JSON, for weights files without layers.

    python3 -m venv .venv && .venv/bin/pip install -r ../../../tests/reference/requirements.txt
    .venv/bin/python make.py            # writes
    .venv/bin/python make.py --check    # compares what it would write with what is there

They are what Keras builds for weights="imagenet" (some networks get a layer more then; nothing is downloaded here), without what
does not matter at inference: initializers, regularizers, defaults. One entry per network, named in lower case without `_`:
{"top": model} and {"cut": layer}, where the network without its top ends, or {"no_top": model} where that has layers of its own.
Keras is under the Apache License 2.0, https://github.com/keras-team/keras/blob/v3.15.1/LICENSE.
"""
import io
import json
import os
import pathlib
import sys
import zipfile

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"

import keras
from keras.src.models import Model
from keras.src.utils import file_utils

HERE = pathlib.Path(__file__).resolve().parent
NAMES = """Xception VGG16 VGG19 ResNet50 ResNet101 ResNet152 ResNet50V2 ResNet101V2 ResNet152V2 InceptionV3 InceptionResNetV2
MobileNet MobileNetV2 MobileNetV3Small MobileNetV3Large DenseNet121 DenseNet169 DenseNet201 NASNetMobile NASNetLarge EfficientNetB0
EfficientNetB1 EfficientNetB2 EfficientNetB3 EfficientNetB4 EfficientNetB5 EfficientNetB6 EfficientNetB7 EfficientNetV2B0
EfficientNetV2B1 EfficientNetV2B2 EfficientNetV2B3 EfficientNetV2S EfficientNetV2M EfficientNetV2L ConvNeXtTiny ConvNeXtSmall
ConvNeXtBase ConvNeXtLarge ConvNeXtXLarge""".split()
ENDS = ("_initializer", "_regularizer", "_constraint")
DROP = {"name", "trainable", "dtype", "momentum", "synchronized", "renorm", "noise_shape", "seed", "sparse", "ragged", "optional",
        "rate", "drop_path_rate", "quantization_config", "lora_rank", "init_values", "projection_dim"}
DEFAULTS = {"data_format": "channels_last", "strides": [1, 1], "dilation_rate": [1, 1], "groups": 1, "activation": "linear",
            "use_bias": True, "scale": True, "center": True, "padding": "valid", "depth_multiplier": 1, "keepdims": False}


def call(node):
    """Keras 2's short spelling where it says the same: for one argument, a tensor or a list of tensors. Two tensors are the operands
    of an operation, which the short spelling would make a list of."""
    args = node["args"]
    if len(args) != 1:
        return node
    tensors = args[0] if isinstance(args[0], list) else args
    history = [t.get("config", {}).get("keras_history") for t in tensors if isinstance(t, dict)]
    if len(history) == len(tensors) and all(history) and not {k: v for k, v in node["kwargs"].items() if v is not None and k != "mask"}:
        return history
    return node


def slim(value):
    """A model or a layer without what does not matter."""
    config = value["config"]
    if "layers" in config:
        config = {k: config[k] for k in ("name", "layers", "input_layers", "output_layers") if k in config}
        config["layers"] = [slim(layer) for layer in config["layers"]]
    else:
        operation = value.get("module", "").startswith("keras.src.ops")
        defaults = {k: v for k, v in DEFAULTS.items() if k != "strides" or "Pooling" not in value["class_name"]}
        config = {k: v for k, v in config.items()
                  if v is not None and not k.endswith(ENDS) and (k not in DROP or operation and k != "name") and defaults.get(k) != v}
    out = {"class_name": value["class_name"], "name": value.get("name") or value["config"]["name"], "config": config}
    if value.get("inbound_nodes"):
        out["inbound_nodes"] = [call(n) for n in value["inbound_nodes"]]
    # Keras 3's long spelling without a module would be taken for an operation.
    if value.get("module", "").startswith("keras.src.ops") or any(isinstance(n, dict) for n in out.get("inbound_nodes", ())):
        out["module"] = value["module"]
    return out


def build(name, top):
    make = getattr(keras.applications, name)
    # Some networks leave the size open without a word; with their top they were trained at this one.
    size = make(weights="imagenet").inputs[0].shape[1] or 224
    keras.utils.clear_session()
    model = make(weights="imagenet", include_top=top, input_shape=(size, size, 3))
    return slim(json.loads(model.to_json()))


def entry(name):
    top, no_top = build(name, True), build(name, False)
    layers, cut = no_top["config"]["layers"], no_top["config"]["output_layers"]
    cut = cut[0] if isinstance(cut[0], str) else cut[0][0]
    same = layers == top["config"]["layers"][: len(layers)]
    return {"top": top, "cut": cut} if same else {"top": top, "no_top": no_top}


def main():
    from keras.src import initializers
    for initializer in (initializers.VarianceScaling, initializers.RandomNormal, initializers.TruncatedNormal):
        initializer.__call__ = lambda self, shape, dtype=None, **_: keras.ops.zeros(shape, dtype or "float32")
    # Nothing is fetched and nothing loaded: only the layers are of interest.
    file_utils.get_file = lambda *args, **kwargs: "nothing"
    Model.load_weights = lambda self, *args, **kwargs: None
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as z:
        for name in NAMES:
            made = entry(name)
            text = json.dumps(made, separators=(",", ":"))
            z.writestr(zipfile.ZipInfo(name.lower(), (1980, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)
            info = z.getinfo(name.lower())
            print(name, "cut at " + made["cut"] if "cut" in made else "two models", len(text), info.compress_size, file=sys.stderr)
    path = HERE / "architectures.zip"
    if "--check" in sys.argv:
        same = path.read_bytes() == out.getvalue()
        print("the same" if same else "differs")
        return 0 if same else 1
    path.write_bytes(out.getvalue())
    print(f"{path.name}: {len(NAMES)} networks, {len(out.getvalue())} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
