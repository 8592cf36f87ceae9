#!/usr/bin/env python3
"""What Keras' ImageDataGenerator makes of pictures: the expectation that edge-vision's augment must meet.

    pip install -r ../reference/requirements.txt
    make_augment.py --write                         the committed folder vision/augment
    make_augment.py --many N --out DIR              N random transforms of each kind, every pixel, not committed

The Rust test reads the second where EDGE_VISION_AUGMENT names its folder. A folder holds the pictures,
augment.json and augment.f32: for each transform in turn, the numbers (float32, little-endian) of every
`step`-th pixel from the pixel `first` on.
"""

import argparse
import hashlib
import json
import math
import os
import warnings
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "numpy")
warnings.simplefilter("ignore")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import PIL  # noqa: E402
import scipy  # noqa: E402
from keras.applications.imagenet_utils import preprocess_input  # noqa: E402
from keras.src.legacy.preprocessing.image import ImageDataGenerator  # noqa: E402
from PIL import Image  # noqa: E402

import vision_pictures  # noqa: E402

FOLDER = Path(__file__).parent / "vision" / "augment"

FILLS = ["nearest", "reflect", "constant", "wrap"]
# One pixel along an axis is a case of its own to SciPy.
SIZES = [(23, 17), (40, 31), (1, 1), (1, 9), (7, 1)]
# About this many pixels of each transform are committed.
SAMPLES = 70

EVERYTHING = {
    "rotation_range": 25,
    "width_shift_range": 0.2,
    "height_shift_range": 0.3,
    "shear_range": 20,
    "zoom_range": 0.3,
    "horizontal_flip": True,
    "vertical_flip": True,
}
WARPS = {
    "rotate": {"rotation_range": 40},
    "turn": {"rotation_range": 180},
    "shift": {"width_shift_range": 0.2, "height_shift_range": 0.4},
    "shear": {"shear_range": 30},
    "zoom": {"zoom_range": 0.4},
    "far": {"zoom_range": (0.2, 5.0), "rotation_range": 180, "width_shift_range": 0.9},
    "everything": EVERYTHING,
    "bright": {**EVERYTHING, "brightness_range": (0.4, 1.8), "channel_shift_range": 60.0},
}
LEVELS = {
    "flips": {"horizontal_flip": True, "vertical_flip": True},
    "brightness": {"brightness_range": (0.0, 2.5)},
    "channels": {"channel_shift_range": 90.0},
}
# Points that lie on pixels, on the border and half-way, and factors that Pillow takes a shorter way for.
EXACT = [
    {},
    {"tx": 3, "ty": -2},
    {"tx": -60.5, "ty": 47.5},
    {"tx": 0.5},
    {"theta": 180, "fill": ["nearest", "reflect"]},
    {"zx": 0.5, "zy": 0.5},
    {"zx": 2, "zy": 4},
    {"zx": 0.01, "zy": 100},
    {"brightness": 0.0},
    {"brightness": 1.0},
    {"theta": 7, "brightness": 1.0},
    {"brightness": 1 / 3},
    {"brightness": 100.0},
    {"channel_shift_intensity": 255.0},
    {"channel_shift_intensity": -0.1},
]


def picture(width, height):
    """A smooth scene, in whose right half each pixel is random: errors by a pixel or a bit show there."""
    pixels = vision_pictures.scene(width, height, seed=width)
    noise = np.random.default_rng(height).integers(0, 256, pixels.shape, dtype=np.uint8)
    pixels[:, width // 2 :] = noise[:, width // 2 :]
    return pixels


def cases(warps, levels):
    """Yields (size, fill, generator, parameters): `warps` and `levels` are how many of each kind are drawn."""
    seed = 0
    for size in SIZES:
        tiny = min(size) == 1
        for fill in FILLS:
            generator = ImageDataGenerator(fill_mode=fill)
            for exact in EXACT:
                parameters = {key: value for key, value in exact.items() if key != "fill"}
                # What comes after the warp is the same whatever lies beyond the border.
                warped = set(parameters) & {"theta", "tx", "ty", "zx", "zy"} or fill == FILLS[0]
                if warped and fill in exact.get("fill", FILLS) and (not tiny or "zx" in exact or "tx" in exact):
                    yield size, fill, generator, parameters
            kinds = {"everything": EVERYTHING} if tiny else {**WARPS, **(LEVELS if fill == FILLS[0] else {})}
            for kind, options in kinds.items():
                generator = ImageDataGenerator(fill_mode=fill, **options)
                for _ in range(levels if kind in LEVELS else warps):
                    seed += 1
                    yield size, fill, generator, generator.get_random_transform((size[1], size[0], 3), seed=seed)


def preprocessed(numbers):
    """Digests of `numbers`, which are not whole, after each preprocess mode; channels last and first."""
    out = {}
    for mode in ("tf", "torch", "caffe"):
        array = preprocess_input(numbers.copy(), data_format="channels_last", mode=mode)
        assert array.dtype == np.float32, array.dtype
        for layout, laid in (("nhwc", array), ("nchw", np.ascontiguousarray(array.transpose(2, 0, 1)))):
            out[f"{mode}/{layout}"] = hashlib.sha256(laid.astype("<f4").tobytes()).hexdigest()[:16]
    return out


def write(folder, warps, levels, samples):
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    pictures = {size: picture(*size) for size in SIZES}
    for (width, height), pixels in pictures.items():
        Image.fromarray(pixels).save(folder / f"{width}x{height}.png", optimize=True)
    entries, numbers = [], []
    for i, (size, fill, generator, parameters) in enumerate(cases(warps, levels)):
        x = pictures[size].astype(np.float32)
        got = np.asarray(generator.apply_transform(x, parameters))
        assert got.dtype == np.float32 and got.shape == x.shape, (got.dtype, got.shape)
        width, height = size
        step = max(1, width * height // samples) if samples else 1
        # Steps that share no factor with the width pass through every column.
        while math.gcd(step, width) != 1:
            step += 1
        first = i % step
        numbers.append(got.reshape(-1, 3)[first::step])
        neutral = {"zx": 1, "zy": 1}
        # As text, because serde_json's quick way of reading a number may miss its last bit.
        changed = {k: repr(float(v)) for k, v in parameters.items() if v is not None and v != neutral.get(k, 0)}
        # A factor of 0 isn't the same as none.
        if parameters.get("brightness") == 0:
            changed["brightness"] = "0.0"
        entries.append({"size": f"{width}x{height}", "fill": fill, **changed, "first": first, "step": step})
    flat = np.concatenate(numbers).astype("<f4")
    (folder / "augment.f32").write_bytes(flat.tobytes())
    document = {
        "keras": keras.__version__,
        "scipy": scipy.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        # The first pixels of augment.f32, as a picture one pixel high.
        "preprocessed": {"pixels": 500, **preprocessed(flat[None, :500])},
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in document.items()]
    lines.append('"transforms": [\n' + ",\n".join(json.dumps(entry) for entry in entries) + "\n]")
    (folder / "augment.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    total = sum(p.stat().st_size for p in folder.iterdir())
    print(f"{len(entries)} transforms, {flat.size} numbers, {total} bytes")
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true")
    what.add_argument("--many", type=int, metavar="N")
    parser.add_argument("--out", metavar="DIR")
    args = parser.parse_args()
    if args.write:
        total = write(FOLDER, 1, 4, SAMPLES)
        assert total < 300_000, total
    elif not args.out:
        parser.error("--out says where the expectation goes")
    else:
        write(Path(args.out), args.many, args.many, None)


if __name__ == "__main__":
    main()
