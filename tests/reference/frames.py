#!/usr/bin/env python3
"""A camera's frame on its way to a tensor, beside Pillow and OpenCV doing the same work.

    pip install -r requirements-peers.txt
    frames.py --ours target/debug/examples/frames [--rounds 5] [--runs 50]

The work: 1280x720 YUYV (BT.601, limited range) to RGB, to 299x299, to float32 as `x / 127.5 - 1`, on one thread. As in
peers.py, all are measured shortly after each other in every round, each keeps the best of --runs, and the ratio is taken
inside the round. Pillow has no YUYV, so that OpenCV converts for it.

Two ways to resize: the nearest pixel, which is Keras' default; and bilinear with antialiasing, as Pillow does it. What comes
nearest to that in OpenCV is INTER_AREA. Its INTER_LINEAR reads four pixels wherever the others are, which is another
picture: it is measured, but not compared with.

The column "off" is the mean difference to Pillow's tensor in levels of 255: OpenCV takes the nearest pixel a little
beside, and its area is another filter.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import PIL
from PIL import Image

WIDTH, HEIGHT, SIDE = 1280, 720, 299


def scene():
    """A YUYV frame with slopes, discs and a little noise, as photos have them; values in the limited range."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    luma = 120 + 60 * np.sin(x / 37) + 40 * y / HEIGHT + 50 * ((x - 700) ** 2 + (y - 300) ** 2 < 180**2)
    frame = np.empty((HEIGHT, WIDTH, 2), np.uint8)
    frame[..., 0] = np.clip(luma + rng.normal(0, 4, luma.shape), 16, 235)
    frame[:, 0::2, 1] = np.clip(128 + 60 * np.sin(x[:, ::2] / 90 + y[:, ::2] / 50), 16, 240)
    frame[:, 1::2, 1] = np.clip(128 + 60 * np.cos(x[:, ::2] / 70 - y[:, ::2] / 110), 16, 240)
    return frame


def preprocess(pixels):
    """Keras' `preprocess_input` of mode "tf", with its in-place operators."""
    x = pixels.astype(np.float32)
    x /= 127.5
    x -= 1.0
    return x


def opencv(interpolation):
    def run(frame):
        rgb = cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_YUYV)
        return preprocess(cv2.resize(rgb, (SIDE, SIDE), interpolation=interpolation))

    return run


def pillow(resample):
    def run(frame):
        image = Image.fromarray(cv2.cvtColor(frame, cv2.COLOR_YUV2RGB_YUYV))
        return preprocess(np.asarray(image.resize((SIDE, SIDE), resample)))

    return run


# What is done, our name for it, and (name, function, whether it is the same work) of the peers.
WORK = [
    ("nearest", "nearest", [
        (f"Pillow {PIL.__version__}", pillow(Image.Resampling.NEAREST), True),
        (f"OpenCV {cv2.__version__}, INTER_NEAREST", opencv(cv2.INTER_NEAREST), True),
    ]),
    ("bilinear, antialiased", "bilinear", [
        (f"Pillow {PIL.__version__}", pillow(Image.Resampling.BILINEAR), True),
        (f"OpenCV {cv2.__version__}, INTER_AREA", opencv(cv2.INTER_AREA), True),
        (f"OpenCV {cv2.__version__}, INTER_LINEAR (not antialiased)", opencv(cv2.INTER_LINEAR), False),
    ]),
]


def ours(program, path, interpolation, runs, tensor=None):
    command = [program, path, interpolation, str(runs), *([tensor] if tensor else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} exited with {done.returncode}")
    return json.loads(done.stdout)["min_ms"]


def measure(run, frame, runs):
    """Milliseconds, the best of `runs`."""
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        run(frame)
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ours", metavar="PROGRAM", required=True)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--runs", type=int, default=50)
    a = p.parse_args()
    cv2.setNumThreads(1)
    frame = scene()
    print("| resize | by | min, ms | median, ms | off | ours / fastest (lowest to highest round) |")
    print("|---|---|---:|---:|---:|---|")
    with tempfile.TemporaryDirectory() as folder:
        path, tensor = str(Path(folder) / "frame.yuyv"), str(Path(folder) / "tensor.f32")
        frame.tofile(path)
        for what, name, peers in WORK:
            times = {"ours": [], **{peer: [] for peer, _, _ in peers}}
            for _ in range(a.rounds):
                for peer, run, _ in peers:
                    times[peer].append(measure(run, frame, a.runs))
                times["ours"].append(ours(a.ours, path, name, a.runs, tensor))
            wanted = peers[0][1](frame)
            off = {peer: np.abs(run(frame) - wanted).mean() * 127.5 for peer, run, _ in peers}
            mine = np.fromfile(tensor, "<f4").reshape(wanted.shape)
            off["ours"] = np.abs(mine - wanted).mean() * 127.5
            same = [peer for peer, _, same in peers if same]
            ratios = [t / min(times[peer][i] for peer in same) for i, t in enumerate(times["ours"])]
            for who in [*(peer for peer, _, _ in peers), "ours"]:
                ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if who == "ours" else ""
                best, middle = min(times[who]), statistics.median(times[who])
                print(f"| {what} | {who} | {best:.2f} | {middle:.2f} | {off[who]:.2f} | {ratio} |")


if __name__ == "__main__":
    main()
