#!/usr/bin/env python3
"""Quantize an ONNX classifier with ONNX Runtime's static quantizer: QDQ, int8 weights with a scale per channel.

    python quantize_ort.py model.onnx model-int8.onnx [--activations u8|s8] [--divide 127.5] PHOTO [PHOTO…]

It is what other tools make, for our engine to be compared on. Photos calibrate; they are resized to the input's size and
scaled to (x - DIVIDE) / DIVIDE, which is near enough to what the networks here want. A symbolic batch becomes 1.
"""
import argparse
import pathlib
import tempfile

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image


class Photos(CalibrationDataReader):
    def __init__(self, name, shape, photos, divide):
        self.name, self.shape, self.photos, self.divide = name, shape, iter(photos), divide

    def get_next(self):
        photo = next(self.photos, None)
        if photo is None:
            return None
        first = self.shape[1] == 3
        height, width = self.shape[2:] if first else self.shape[1:3]
        x = np.asarray(Image.open(photo).convert("RGB").resize((width, height)), np.float32)[None] / self.divide - 1
        return {self.name: np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if first else x}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("source", type=pathlib.Path)
    p.add_argument("target", type=pathlib.Path)
    p.add_argument("--activations", choices=("u8", "s8"), default="u8")
    p.add_argument("--divide", type=float, default=127.5)
    p.add_argument("photos", nargs="+", type=pathlib.Path)
    a = p.parse_args()
    model = onnx.load(a.source)
    properties = {m.key: m.value for m in model.metadata_props}
    entry = model.graph.input[0]
    entry.type.tensor_type.shape.dim[0].dim_value = 1
    shape = [d.dim_value for d in entry.type.tensor_type.shape.dim]
    with tempfile.TemporaryDirectory() as folder:
        fixed, prepared = pathlib.Path(folder) / "fixed.onnx", pathlib.Path(folder) / "prepared.onnx"
        onnx.save(model, fixed)
        quant_pre_process(str(fixed), str(prepared), skip_symbolic_shape=True)
        kind = QuantType.QUInt8 if a.activations == "u8" else QuantType.QInt8
        quantize_static(str(prepared), str(a.target), Photos(entry.name, shape, a.photos, a.divide), quant_format=QuantFormat.QDQ,
                        per_channel=True, activation_type=kind, weight_type=QuantType.QInt8)
    made = onnx.load(a.target)
    onnx.helper.set_model_props(made, properties)
    onnx.save(made, a.target)


if __name__ == "__main__":
    main()
