#!/usr/bin/env python3
"""What Keras and Pillow make of pictures: the expectation that edge-vision must meet without a difference.

    pip install -r ../reference/requirements.txt
    make_vision.py --write                          the committed pictures and vision.json
    make_vision.py --photos DIR --json OUT          the same for any folder of photos
    make_vision.py --mutations N --json OUT         damaged files, for comparing what is accepted

The second and third are not committed; the Rust test reads them where EDGE_VISION_EXPECT names the file.
"""

import argparse
import hashlib
import io
import itertools
import json
import math
import os
import random
import re
import warnings
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "numpy")
warnings.simplefilter("ignore")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import PIL  # noqa: E402
from keras.applications.imagenet_utils import preprocess_input  # noqa: E402
from keras.utils import img_to_array, load_img  # noqa: E402
from PIL import Image, ImageOps  # noqa: E402

import vision_pictures  # noqa: E402

HERE = Path(__file__).parent
FOLDER = HERE / "vision"

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}
# (width, height, shorter side before the crop); the last two make the crop larger than the picture.
SIZES = [(299, 299, 342), (224, 224, 256), (37, 61, 70), (96, 7, 101), (50, 41, 37), (160, 20, 30)]
# The sizes that pictures are padded to, and the colour beside them.
PADDED = [(299, 299), (37, 61), (96, 7)]
PAD_COLOR = (12, 200, 97)
# How cameras hang: degrees clockwise, what is mirrored then, and the part of what is seen then: left, top, width, height.
ROTATIONS = {0: None, 90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}
FLIPS = {"": [], "h": [Image.Transpose.FLIP_LEFT_RIGHT], "v": [Image.Transpose.FLIP_TOP_BOTTOM]}
FLIPS["hv"] = FLIPS["h"] + FLIPS["v"]
ROIS = ["", "10%,10%,80%,80%", "1,0,7,15", "33.3%,5,25%,11"]
MOUNTED = ["420-large.jpg", "rgb8.png", "422.jpg", "tall.jpg"]
AFFINE = {"mean": [123.5, 110.25, 97.125], "std": [58.1, 57.3, 61.7]}


def digest(data):
    """The first 64 bits of the SHA-256: a difference is caught, and the file stays small."""
    return hashlib.sha256(data).hexdigest()[:16]


def center_crop(image, width, height):
    """torchvision.transforms.functional.center_crop on a PIL image."""
    w, h = image.size
    if width > w or height > h:
        left = (width - w) // 2 if width > w else 0
        top = (height - h) // 2 if height > h else 0
        right = (width - w + 1) // 2 if width > w else 0
        bottom = (height - h + 1) // 2 if height > h else 0
        image = ImageOps.expand(image, border=(left, top, right, bottom), fill=0)
        w, h = image.size
        if (w, h) == (width, height):
            return image
    top = int(round((h - height) / 2.0))
    left = int(round((w - width) / 2.0))
    return image.crop((left, top, left + width, top + height))


def fit_shortest(image, shortest, width, height, resample):
    """torchvision.transforms.Resize(shortest) and CenterCrop((height, width)) on a PIL image."""
    w, h = image.size
    short, long = (w, h) if w <= h else (h, w)
    new_long = int(shortest * long / short)
    size = (shortest, new_long) if w <= h else (new_long, shortest)
    if size != (w, h):
        image = image.resize(size, resample)
    return center_crop(image, width, height)


def region(text, width, height):
    """The box of "x,y,w,h" for Image.crop; percents are of the picture, and edges go to the nearest pixel."""

    def edge(text, side):
        return float(text[:-1]) * side / 100 if text.endswith("%") else float(text)

    x, y, w, h = text.split(",")
    left, top, right, bottom = edge(x, width), edge(y, height), edge(w, width), edge(h, height)
    return tuple(math.floor(v + 0.5) for v in (left, top, left + right, top + bottom))


def mounts(path, name):
    """What a camera sees that is turned, mirrored, and looked at in part, in this order."""
    image = load_img(path)
    seen = {}
    for (degrees, rotation), (flip, steps), roi in itertools.product(ROTATIONS.items(), FLIPS.items(), ROIS):
        turned = image
        for step in [rotation, *steps]:
            turned = turned if step is None else turned.transpose(step)
        if roi:
            turned = turned.crop(region(roi, *turned.size))
        seen[f"{degrees}/{flip}/{roi}"] = f"{turned.width}x{turned.height} {digest(turned.tobytes())}"
    return {"file": name, "seen": seen}


def tensors(image):
    """The tensors of every preprocess mode, float32 little-endian, channels last and first."""
    out = {}

    def note(name, array):
        array = np.asarray(array)
        assert array.dtype == np.float32, array.dtype
        out[name + "/nhwc"] = digest(array.astype("<f4").tobytes())
        out[name + "/nchw"] = digest(np.ascontiguousarray(array.transpose(2, 0, 1)).astype("<f4").tobytes())

    note("none", img_to_array(image))
    for mode in ("tf", "torch", "caffe"):
        note(mode, preprocess_input(img_to_array(image), data_format="channels_last", mode=mode))
    mean, std = (np.array(AFFINE[k], np.float32) for k in ("mean", "std"))
    note("affine-rgb", (img_to_array(image) - mean) / std)
    note("affine-bgr", (img_to_array(image)[..., ::-1] - mean) / std)
    return out


def expect(path, name, sizes=SIZES):
    image = load_img(path)
    entry = {"file": name, "size": list(image.size), "decoded": digest(image.tobytes()), "resized": {}}
    with Image.open(path) as opened:
        turned = ImageOps.exif_transpose(opened).convert("RGB")
    if turned.size != image.size or turned.tobytes() != image.tobytes():
        entry["turned"] = {"size": list(turned.size), "decoded": digest(turned.tobytes())}
    for width, height, shortest in sizes:
        squash, fit = [], []
        for interpolation, resample in INTERPOLATIONS.items():
            squashed = load_img(path, target_size=(height, width), interpolation=interpolation)
            squash.append(digest(squashed.tobytes()))
            fit.append(digest(fit_shortest(image, shortest, width, height, resample).tobytes()))
            if (width, interpolation) == (37, "nearest"):
                entry["tensors"] = {"size": [width, height], **tensors(squashed)}
        # One digest for each interpolation, in the order of INTERPOLATIONS.
        entry["resized"][f"{width}x{height}/squash"] = " ".join(squash)
        entry["resized"][f"{width}x{height}/{shortest}"] = " ".join(fit)
    for size in PADDED:
        pad = [ImageOps.pad(image, size, resample, PAD_COLOR) for resample in INTERPOLATIONS.values()]
        entry["resized"][f"{size[0]}x{size[1]}/pad"] = " ".join(digest(padded.tobytes()) for padded in pad)
    return entry


def outcome(data, damaged=True):
    """What Keras gives for the bytes: a digest with a size, or the words of its error.

    "either" marks damaged PNGs: the `image` crate draws the line between what is refused and what is read in
    spite of its damage elsewhere than Pillow. It wants to see another chunk begin after the pixels, for one, and
    skips damaged chunks that it doesn't need. Where both read a file, the pixels must be the same.
    """
    either = {"either": True} if damaged and data.startswith(b"\x89PNG") else {}
    try:
        image = load_img(io.BytesIO(data))
        return {"size": list(image.size), "decoded": digest(image.tobytes()), **either}
    except Exception as error:  # noqa: BLE001 - any failure is an outcome here
        # Addresses of objects would differ from run to run.
        words = re.sub(r" at 0x[0-9a-f]+", "", f"{type(error).__name__}: {error}")
        return {"error": words, **either}


def cuts():
    """Files cut short, or with bytes after their end."""
    names = ["420-large.jpg", "progressive.jpg", "restart.jpg", "grey.jpg", "cmyk.jpg", "rgb8.png", "rgba16-interlaced.png"]
    names += ["palette4.png", "rgb8-many-idats.png", "1x1.jpg", "1x1.png"]
    for name in names:
        data = (FOLDER / name).read_bytes()
        n = len(data)
        ends = {1, 2, 5, 11, 20, 40, n // 4, n // 2, n * 3 // 4, n - 60, n - 30, n - 17, n - 13}
        ends |= {n - 12, n - 9, n - 8, n - 5, n - 4, n - 3, n - 2, n - 1}
        for end in sorted(e for e in ends if 0 < e < n):
            entry = {"file": name, "cut": end, **outcome(data[:end])}
            if "error" in entry:
                # What even Pillow finds too short must be refused.
                entry.pop("either", None)
            yield entry
        for tail in (b"\0" * 7, b"\xff\xd9", b"\xff\xd8\xff\xe0junk"):
            yield {"file": name, "cut": n, "append": tail.hex(), **outcome(data + tail, damaged=False)}


def header():
    return {"pillow": PIL.__version__, "keras": keras.__version__, "numpy": np.__version__, "affine": AFFINE, "pad": PAD_COLOR}


def dump(path, document):
    def one_line(entries):
        return "[\n" + ",\n".join(json.dumps(e) for e in entries) + "\n]"

    parts = [f"{json.dumps(k)}: {one_line(v) if isinstance(v, list) else json.dumps(v)}" for k, v in document.items()]
    Path(path).write_text("{\n" + ",\n".join(parts) + "\n}\n")


def write():
    FOLDER.mkdir(exist_ok=True)
    for old in filter(Path.is_file, FOLDER.iterdir()):
        old.unlink()
    pictures, refused = [], []
    for name, data in [*vision_pictures.jpegs(), *vision_pictures.pngs()]:
        assert not (FOLDER / name).exists(), name
        (FOLDER / name).write_bytes(data)
        pictures.append(expect(FOLDER / name, name))
    for name, data, words in vision_pictures.refused():
        (FOLDER / name).write_bytes(data)
        refused.append({"file": name, "words": words})
    mounted = [mounts(FOLDER / name, name) for name in MOUNTED]
    total = sum(p.stat().st_size for p in FOLDER.iterdir())
    assert total < 400_000, total
    document = {**header(), "pictures": pictures, "mounts": mounted, "cuts": list(cuts()), "refused": refused}
    dump(FOLDER / "vision.json", document)
    print(f"{len(pictures)} pictures, {total} bytes, {len(document['cuts'])} cuts, {len(refused)} refused")


def photos(folder, out, limit):
    paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})[:limit]
    dump(out, {**header(), "pictures": [expect(p, str(p.resolve())) for p in paths]})
    print(f"{len(paths)} photos")


def mutations(count, out):
    """Damaged copies next to `out`, with what Keras gives for each."""
    rng = random.Random(1)
    folder = Path(out).resolve().parent / "mutations"
    folder.mkdir(exist_ok=True)
    # Damaged files of other formats would tell only that Pillow knows more formats.
    kinds = (b"\xff\xd8\xff", b"\x89PNG")
    names = sorted(p.name for p in FOLDER.iterdir() if p.is_file() and p.read_bytes().startswith(kinds) and "grey16" not in p.name)
    entries = []
    for i in range(count):
        name = rng.choice(names)
        data = bytearray((FOLDER / name).read_bytes())
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.randrange(2, len(data))
            action = rng.randrange(4)
            if action == 0:
                data[at] = rng.randrange(256)
            elif action == 1:
                data[at] ^= 1 << rng.randrange(8)
            elif action == 2:
                del data[at : at + rng.randrange(1, 20)]
            else:
                data[at:at] = rng.randbytes(rng.randrange(1, 8))
        file = folder / f"{i:05}-{name}"
        file.write_bytes(data)
        entries.append({"file": str(file), "cut": len(data), **outcome(bytes(data))})
    dump(out, {**header(), "pictures": [], "cuts": entries})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true")
    what.add_argument("--photos", metavar="DIR")
    what.add_argument("--mutations", type=int, metavar="N")
    parser.add_argument("--json", metavar="OUT")
    parser.add_argument("--limit", type=int)
    args = parser.parse_args()
    if args.write:
        write()
    elif not args.json:
        parser.error("--json says where the expectation goes")
    elif args.photos:
        photos(args.photos, args.json, args.limit)
    else:
        mutations(args.mutations, args.json)


if __name__ == "__main__":
    main()
