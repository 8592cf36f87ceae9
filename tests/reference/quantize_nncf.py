#!/usr/bin/env python3
"""Quantize an ONNX classifier with NNCF, OpenVINO's quantizer, to compare ours with. Needs `pip install nncf openvino pillow`.

    python quantize_nncf.py model.onnx model-int8.xml [--divide 127.5] PHOTO [PHOTO…]

Photos calibrate; they are resized to the input's size and scaled to (x - DIVIDE) / DIVIDE. The mixed preset: weights symmetric,
activations not. The target is OpenVINO's own format, an .xml with a .bin beside it.
"""
import argparse
import pathlib

import nncf
import numpy as np
import openvino
from PIL import Image


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("source", type=pathlib.Path)
    p.add_argument("target", type=pathlib.Path)
    p.add_argument("--divide", type=float, default=127.5)
    p.add_argument("photos", nargs="+", type=pathlib.Path)
    a = p.parse_args()
    model = openvino.Core().read_model(a.source)
    entry = model.inputs[0]
    shape = [1, *(d.get_length() for d in list(entry.partial_shape)[1:])]
    model.reshape({entry: shape})
    first = shape[1] == 3
    height, width = shape[2:] if first else shape[1:3]

    def tensor(photo):
        x = np.asarray(Image.open(photo).convert("RGB").resize((width, height), Image.NEAREST), np.float32)[None]
        x = x / a.divide - 1
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if first else x

    data = nncf.Dataset(a.photos, tensor)
    made = nncf.quantize(model, data, preset=nncf.QuantizationPreset.MIXED, subset_size=len(a.photos))
    openvino.save_model(made, a.target)


if __name__ == "__main__":
    main()
