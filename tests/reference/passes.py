#!/usr/bin/env python3
"""Runs a network some times in another runtime, on one thread: what `cargo xtask instructions` counts the instructions of.

    passes.py onnxruntime MODEL.onnx PASSES
    passes.py ncnn MODEL.ncnn.param PASSES 3,224,224    # with MODEL.ncnn.bin beside it, as pnnx makes them

The pixels are those of crates/edge-engine/examples/passes.rs, so the greatest output, which is printed, is the same one.
"""
import sys

import numpy as np

_, runtime, path, passes, *shape = sys.argv


def picture(shape):
    count = int(np.prod(shape))
    return (np.arange(count, dtype=np.uint64) * 2_654_435_761 % 1000).astype(np.float32).reshape(shape) / 500 - 1


if runtime == "onnxruntime":
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    feed = {entry.name: picture([d if isinstance(d, int) and d > 0 else 1 for d in entry.shape])}

    def infer():
        return session.run(None, feed)[0]
else:
    import ncnn
    net = ncnn.Net()
    net.opt.num_threads = 1
    # What its user asks for who wants the accuracy of the file.
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = False
    net.load_param(path)
    net.load_model(path.removesuffix(".param") + ".bin")
    # Without the batch.
    pixels = picture([int(side) for side in shape[0].split(",")])
    mat = ncnn.Mat(pixels)

    def infer():
        extractor = net.create_extractor()
        extractor.input(net.input_names()[0], mat)
        code, output = extractor.extract(net.output_names()[0])
        if code:
            sys.exit(f"ncnn gives the code {code}")
        return np.array(output)

for _ in range(int(passes)):
    logits = infer().ravel()
print("greatest:", int(logits.argmax()), float(logits.max()))
