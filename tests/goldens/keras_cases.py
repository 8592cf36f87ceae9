"""What make_keras.py and make_keras2.py share: pictures, weights from fixed seeds, and keras.json."""
import json
import pathlib
import zlib

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent / "keras"
SEEDS = (1, 2, 3)
CLASSES = 5
INPUT = ("k = (y/4)*31 + (x/4)*17 + channel*7 + seed*101; value = f32((k*2654435761 % 2^32) / 65536 % 1000) / 500 - 1; "
         "integer divisions, u64; seeds 1, 2, 3")


def picture(seed, height, width, channels=3):
    """[height, width, channels], float32 in -1..1."""
    y, x, c = np.meshgrid(*(np.arange(n, dtype=np.uint64) for n in (height, width, channels)), indexing="ij")
    four = np.uint64(4)
    k = (y // four) * np.uint64(31) + (x // four) * np.uint64(17) + c * np.uint64(7) + np.uint64(seed * 101)
    h = k * np.uint64(2654435761) % np.uint64(2**32) // np.uint64(65536) % np.uint64(1000)
    return h.astype(np.float32) / np.float32(500) - np.float32(1)


def feed(shape, seeds=SEEDS, layout="NHWC"):
    """Pictures as one batch; `shape` has a batch of 1 before height, width and channels in the order of `layout`."""
    if layout == "NHWC":
        return np.stack([picture(s, *shape[1:]) for s in seeds])
    return np.stack([picture(s, shape[2], shape[3], shape[1]).transpose(2, 0, 1) for s in seeds])


def fill(rng, name, shape, old):
    """Values for a variable by the last part of its name. Gammas are negative now and then: folding must allow it."""
    if "kernel" in name:
        fan = int(np.prod(shape[:2])) if "depthwise" in name else int(np.prod(shape[:-1]))
        return rng.normal(0, np.sqrt(1.5 / fan), shape)
    if name in ("gamma", "scale"):
        return rng.uniform(0.7, 1.3, shape) * np.where(rng.uniform(size=shape) < 0.2, -1, 1)
    if name in ("beta", "bias"):
        return rng.normal(0, 0.2, shape)
    if name == "moving_mean":
        return rng.normal(0, 0.3, shape)
    if name == "moving_variance":
        return rng.uniform(0.5, 1.5, shape)
    if name == "alpha":
        return rng.uniform(0.1, 0.6, shape)
    return old


def generator(file):
    return np.random.default_rng(zlib.crc32(file.encode()))


def settle(rng, kernel, classes, before, most=60):
    """(kernel, bias) of the last layer, so that logits are of the order of one and differ from picture to picture."""
    y = before @ kernel
    # Rounding errors in `before` must stay small in what is left once the mean is gone.
    assert (y - y.mean(0)).std() > 0.015 * np.abs(y).max(), ((y - y.mean(0)).std(), np.abs(y).max())
    scale = min(1.2 / (y - y.mean(0)).std(), most)
    kernel = kernel * scale
    step = 2.0 ** np.floor(np.log2(np.abs(kernel).max())) / 1024  # Keeps the last digits of the CPU out of the file.
    kernel = np.round(kernel / step) * step
    bias = np.round((rng.normal(0, 0.5, classes) - scale * y.mean(0)) * 16) / 16
    return kernel.astype(np.float32), bias.astype(np.float32)


def rows(values):
    return [[float(str(v)) for v in row] for row in np.asarray(values, np.float32)]


def lively(file, values):
    """Wrong weights, or none, must not give the right answer by accident."""
    assert np.isfinite(values).all() and np.abs(values).max() < 50, (file, values)
    assert values.std(0).mean() > (0.02 if np.allclose(values.sum(-1), 1, atol=1e-2) else 0.2), (file, values)
    assert (values.std(0) > 1e-3).all(), (file, values)


def document(cases):
    head = {"about": "written by make_keras.py and make_keras2.py; make_keras.py explains the fields",
            "keras": sorted({c["keras"] for c in cases}), "input": INPUT, "seeds": list(SEEDS)}
    text = json.dumps(head, ensure_ascii=False)[:-1] + ',\n "cases":[\n  '
    return text + ",\n  ".join(json.dumps(c, ensure_ascii=False) for c in cases) + "\n ]}\n"


def stored():
    path = HERE / "keras.json"
    return json.loads(path.read_text(encoding="utf-8"))["cases"] if path.exists() else []


def store(made, maker, check):
    """Put `made`, pairs of a case and the bytes of its file, in the place of all that `maker` wrote before. Returns an exit
    status; with `check`, nothing is written and outputs may differ by what another CPU costs."""
    for case, data in made:
        case["maker"] = maker
    old = [c for c in stored() if c["maker"] == maker]
    if check:
        found = differences(made, {c["file"]: c for c in old})
        print("\n".join(found) or f"{len(made)} cases agree")
        return 1 if found else 0
    HERE.mkdir(exist_ok=True)
    for case in old:
        (HERE / case["file"]).unlink(missing_ok=True)
    for case, data in made:
        (HERE / case["file"]).write_bytes(data)
    keep = [c for c in stored() if c["maker"] != maker]
    cases = [c for c, _ in made] + keep if maker == "make_keras.py" else keep + [c for c, _ in made]
    assert len({c["file"] for c in cases}) == len(cases)
    (HERE / "keras.json").write_text(document(cases), encoding="utf-8")
    errors = sum("error" in c for c, _ in made)
    print(f"{len(made)} cases, {errors} of them errors, {sum(len(d) for _, d in made)} bytes")
    return 0


# What another CPU may cost: Keras itself, whose convolutions sum in another order there, moves by this much of the largest output.
ANOTHER_CPU = 1e-3


def differences(made, old):
    def compare(file, new, was, prefix=""):
        for key in sorted(set(new) | set(was)):
            a, b = new.get(key), was.get(key)
            if isinstance(a, dict) and isinstance(b, dict):
                yield from compare(file, a, b, f"{prefix}{key}.")
            elif not key.startswith("outputs") or a is None or b is None:
                if a != b:
                    yield f"{file}: {prefix}{key} differs: {b} is stored, {a} is made"
            else:
                a, b = np.array(a), np.array(b)
                if a.shape != b.shape or np.abs(a - b).max() > max(new.get("tolerance", 0), ANOTHER_CPU) * np.abs(b).max():
                    yield f"{file}: {prefix}{key} differ"

    found = []
    for case, _ in made:
        file = case["file"]
        was = old.pop(file, None)
        if was is None or not (HERE / file).exists():
            found.append(f"{file}: not there")
        else:
            found.extend(compare(file, case, was))
    return found + [f"{file}: no such case any more" for file in old]
