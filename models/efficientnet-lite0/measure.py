#!/usr/bin/env python3
"""Tell what float16 weights cost, and check the three pictures of model.toml.

    .venv/bin/python convert.py --float32 float32.onnx
    .venv/bin/pip download --no-deps --dest wheels scikit-image==0.26.0
    .venv/bin/python measure.py --float32 float32.onnx --pictures wheels/scikit_image-0.26.0-*.whl [--photos DIR]

--pictures is a scikit-image wheel (or a folder with chelsea.png, coffee.png, rocket.jpg); --photos is a folder that is
searched for JPEGs. Preprocessing is that of the metadata: Pillow's bicubic on the shortest side to 224 with the other
side truncated, torchvision's centre crop to 224, (x - 127) / 128. Two other policies are printed beside it, to show what
the wrong one does: shortest side to 256 before the crop, and `squash` (nearest, straight to 224x224). Exits with 1 if a
picture has another class than expected.
"""
import argparse
import hashlib
import io
import json
import pathlib
import sys
import zipfile

import numpy as np
import onnxruntime
from PIL import Image

HERE = pathlib.Path(__file__).resolve().parent
EXPECTED = {"chelsea.png": 285, "coffee.png": 967, "rocket.jpg": 657}


def fit_shortest(image, shortest=224):
    w, h = image.size
    w, h = (shortest, int(shortest * h / w)) if w <= h else (int(shortest * w / h), shortest)
    left, top = round((w - 224) / 2.0), round((h - 224) / 2.0)
    return image.resize((w, h), Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))


def squash(image):
    return image.resize((224, 224), Image.Resampling.NEAREST)


def tensor(image):
    x = (np.asarray(image, np.float32) - 127) / 128
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None])


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def logits(model, image):
    return model.run(None, {"image": tensor(image)})[0][0]


def describe(y, names):
    p = np.exp(y - y.max())
    p /= p.sum()
    return ", ".join(f"{i} {names[i]} {p[i]:.3f}" for i in np.argsort(-y)[:3])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--float16", type=pathlib.Path, default=HERE / "efficientnet-lite0.onnx")
    p.add_argument("--float32", type=pathlib.Path, required=True)
    p.add_argument("--pictures", type=pathlib.Path, required=True)
    p.add_argument("--photos", type=pathlib.Path)
    a = p.parse_args()
    half, full = session(a.float16), session(a.float32)
    names = [label["label"] for label in json.loads(half.get_modelmeta().custom_metadata_map["edgepack.labels"])]

    images, wrong = [], 0
    for name, expected in EXPECTED.items():
        if a.pictures.is_dir():
            data = (a.pictures / name).read_bytes()
        else:
            with zipfile.ZipFile(a.pictures) as archive:
                data = archive.read(f"skimage/data/{name}")
        image = Image.open(io.BytesIO(data)).convert("RGB")
        images.append(image)
        y = logits(half, fit_shortest(image))
        wrong += int(y.argmax()) != expected
        print(f"{name} {image.size[0]}x{image.size[1]} sha256 {hashlib.sha256(data).hexdigest()}")
        print(f"  fit-shortest 224: {describe(y, names)}  [{'ok' if y.argmax() == expected else f'expected {expected}'}]")
        print(f"  fit-shortest 256: {describe(logits(half, fit_shortest(image, 256)), names)}")
        print(f"  squash:           {describe(logits(half, squash(image)), names)}")

    if a.photos:
        paths = sorted(f for f in a.photos.rglob("*") if f.suffix.lower() in (".jpg", ".jpeg"))
        images += [Image.open(f).convert("RGB") for f in paths]
    same = top5 = 0
    deltas = []
    for image in images:
        x = fit_shortest(image)
        h, f = logits(half, x), logits(full, x)
        same += h.argmax() == f.argmax()
        top5 += f.argmax() in np.argsort(-h)[:5]
        deltas.append(np.abs(h - f).max() / np.abs(f).max())
    print(f"float16 against float32 weights on {len(images)} pictures: same top-1 {same} ({100 * same / len(images):.2f} %), "
          f"float32's class in float16's top five {top5}, "
          f"max |dlogit| / max |logit|: worst {max(deltas):.2e}, median {np.median(deltas):.2e}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
