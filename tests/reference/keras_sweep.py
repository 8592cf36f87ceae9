#!/usr/bin/env python3
"""Import every model of keras.applications with edge-pack and compare what ONNX Runtime computes with what Keras computes.

    python3 -m venv .venv && .venv/bin/pip install -r requirements.txt
    .venv/bin/python keras_sweep.py --edge-pack target/release/edge-pack --out sweep.json
        [--only REGEX] [--form keras|h5|weights] [--redo-failed]
    .venv/bin/python keras_sweep.py --edge-pack … --goldens            # tests/goldens/keras instead
    .venv/bin/python keras_sweep.py --edge-pack … --real model.keras --photos images [--truth train.csv] [--sizes 150 299]

No weights are downloaded. They are random, from a fixed seed, scaled to keep the variance; the statistics of
BatchNormalization are what the layers before it give for eight pictures (channels that hardly vary get a little more for
the next ones), so that activations stay of the order of one to the last layer. For each model with and without its top:
`edge-pack import`, onnx.checker, two pictures as one batch through both. The outputs of the two must differ, those of Keras
and of ONNX Runtime must agree to 1e-4 x max|output|. Rows that are in --out already are skipped. A model is built, saved and
run in a process of its own. Peak memory is that of edge-pack alone.

--form h5 saves Keras 3's legacy HDF5; --form weights saves the variables alone as the files of keras.applications have them, and
--form weights3 as Keras 3's save_weights does; both are imported with --architecture.
"""
import argparse
import csv
import io
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

# Small ones first.
MODELS = """MobileNetV3Small MobileNet MobileNetV2 MobileNetV3Large NASNetMobile EfficientNetB0 EfficientNetV2B0 DenseNet121
Xception ResNet50 ResNet50V2 InceptionV3 EfficientNetB1 EfficientNetV2B1 EfficientNetB2 EfficientNetV2B2 DenseNet169
EfficientNetB3 EfficientNetV2B3 DenseNet201 ResNet101 ResNet101V2 InceptionResNetV2 EfficientNetB4 EfficientNetV2S ConvNeXtTiny
ResNet152 ResNet152V2 EfficientNetB5 ConvNeXtSmall EfficientNetB6 EfficientNetV2M EfficientNetB7 NASNetLarge ConvNeXtBase VGG16
VGG19 EfficientNetV2L ConvNeXtLarge ConvNeXtXLarge""".split()
TOLERANCE = 1e-4


def walk(model):
    for layer in model.layers:
        if hasattr(layer, "layers"):
            yield from walk(layer)
        else:
            yield layer


def randomise(model, seed):
    rng = np.random.default_rng(seed)
    for v in model.variables:
        name, shape = v.path.split("/")[-1], tuple(v.shape)
        if "kernel" in name:
            fan = int(np.prod(shape[:2])) if "depthwise" in name else int(np.prod(shape[:-1]))
            v.assign(rng.standard_normal(shape, dtype=np.float32) * np.float32(np.sqrt(1.8 / fan)))
        elif name == "gamma":
            v.assign(rng.uniform(0.7, 1.3, shape).astype(np.float32))
        elif name in ("beta", "bias"):
            v.assign(rng.normal(0, 0.1, shape).astype(np.float32))
        elif name == "mean":
            v.assign(rng.uniform(0.4, 0.6, shape).astype(np.float32))
        elif name == "variance":
            v.assign(rng.uniform(0.05, 0.1, shape).astype(np.float32))
    for layer in residual_ends(model):
        layer.gamma.assign(np.asarray(layer.gamma) * np.float32(0.25))
    for layer in walk(model):
        if type(layer).__name__ == "LayerScale":
            layer.gamma.assign(rng.uniform(0.05, 0.3, layer.gamma.shape).astype(np.float32))
        if type(layer).__name__ == "Normalization":
            layer.finalize_state()  # It computes with copies of its variables.


def residual_ends(model):
    """The BatchNormalization that ends each residual branch. What it gives is made small against what it is added to, as
    training does: random branches of full size, a hundred in a row, enlarge every rounding error."""
    from keras import layers as L
    place = {l.name: i for i, l in enumerate(model.layers)}
    for add in model.layers:
        if not isinstance(add, L.Add):
            continue
        sources = [t._keras_history.operation for t in add.input]
        branch = max(sources, key=lambda l: place[l.name])
        if isinstance(branch, L.Dropout):
            branch = branch.input._keras_history.operation
        if isinstance(branch, L.BatchNormalization) and branch.scale:
            yield branch


def pictures(count, shape, seed):
    """Coarse blobs, fine noise, each picture with a brightness and a contrast of its own; in -1..1."""
    rng = np.random.default_rng(seed)
    h, w, c = shape
    out = []
    for _ in range(count):
        coarse = rng.uniform(-1, 1, (8, 8, c)).repeat(-(-h // 8), 0).repeat(-(-w // 8), 1)[:h, :w]
        out.append(np.clip(rng.uniform(0.3, 0.9) * coarse + rng.normal(0, 0.2, shape) + rng.uniform(-0.4, 0.4), -1, 1))
    return np.stack(out).astype(np.float32)


def forward(model, x, training=False):
    """What the model computes, compiled as a whole: far less to compile than layer by layer. In training, variables that the
    pass changes are set."""
    import jax
    outputs, changed = jax.jit(lambda t, n, x: model.stateless_call(t, n, x, training=training))(
        [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables], x)
    if training:
        for variable, value in zip(model.non_trainable_variables, changed, strict=True):
            variable.assign(value)
    return np.asarray(outputs)


def no_initial_weights():
    """Initial weights are replaced anyway, and drawing them takes longer than all the rest."""
    from keras import initializers
    from keras.src.initializers import random_initializers
    for name in ("VarianceScaling", "RandomNormal", "TruncatedNormal", "RandomUniform"):
        setattr(getattr(random_initializers, name), "__call__", lambda self, shape, dtype=None, **_: np.zeros(shape, dtype or "float32"))
    assert not np.any(initializers.get("glorot_uniform")((2, 2)))


def calibrate(model, x):
    """One pass in training mode with momentum 0: each BatchNormalization gets the statistics of what comes to it once all
    before it are normalised."""
    from keras import layers as L
    norms = [l for l in walk(model) if isinstance(l, L.BatchNormalization)]
    drops = [(l, l.rate) for l in walk(model) if isinstance(l, L.Dropout)]
    if not norms:
        return
    momentum = [l.momentum for l in norms]
    for layer in norms:
        layer.momentum = 0.0
    for layer, _ in drops:
        layer.rate = 0.0
    forward(model, x, training=True)
    for layer, m in zip(norms, momentum):
        layer.momentum = m
        v = np.asarray(layer.moving_variance)
        layer.moving_variance.assign(np.maximum(v, 0.01 * v.mean()))
    for layer, rate in drops:
        layer.rate = rate


def settle(model, x):
    """Scale the last layer so that its outputs differ by about one from picture to picture, and shift them so that what is
    common to all pictures does not drown that; but to no less than a third, for it would only enlarge rounding errors."""
    last = [l for l in walk(model) if getattr(l, "kernel", None) is not None][-1]
    last.bias.assign(np.zeros(last.bias.shape, np.float32))
    y = forward(model, x)
    scale = 1 / y.std(0).mean()
    mean = y.mean(0) * scale
    last.kernel.assign(np.asarray(last.kernel) * scale)
    last.bias.assign(-mean * min(2 / 3, max(0.0, 1 - 10 / np.abs(mean).max())))


def imported(edge_pack, source, target, *options):
    """(seconds, peak MB, what it printed) of edge-pack import. Raises with its message."""
    # A process starts with the peak memory of the one that started it, and this one is large: a small one goes between.
    between = ("import json, os, resource, subprocess, sys, time; t = time.monotonic(); "
               "c = subprocess.run(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr).returncode; "
               "print(json.dumps([c, time.monotonic() - t, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024]))")
    done = subprocess.run([sys.executable, "-S", "-c", between, edge_pack, "import", str(source), *options, "-o", str(target)],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    status, seconds, peak = json.loads(done.stdout)
    text = done.stderr.decode(errors="replace")
    if status:
        raise RuntimeError(f"exit status {status}: {text.strip()}")
    return seconds, peak, text


def session_of(path):
    import onnxruntime as ort
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def compare(mine, theirs):
    if mine.shape != theirs.shape:
        raise RuntimeError(f"the shape is {list(mine.shape)}, Keras has {list(theirs.shape)}")
    if not np.isfinite(mine).all():
        raise RuntimeError("the imported model gives NaN or infinity")
    return float(np.abs(mine - theirs).max() / np.abs(theirs).max())


def application(name, top, form, edge_pack, folder):
    """One row of the table."""
    import keras
    import onnx
    from keras import layers as L
    no_initial_weights()
    row = {"model": name, "top": top, "form": form}
    options = dict(classifier_activation=None) if top else {}
    options["weights"] = None
    if form.startswith("weights"):
        # A few networks have a layer more for ImageNet's weights, which are not fetched.
        from keras.src.models import Model
        from keras.src.utils import file_utils
        options["weights"] = "imagenet"
        file_utils.get_file = lambda *args, **kwargs: "nothing"
        Model.load_weights = lambda self, *args, **kwargs: None
    model = getattr(keras.applications, name)(include_top=top, **options)
    shape = model.input.shape[1:]
    if None in shape:
        size = getattr(keras.applications, name)(weights=None).input.shape[1] or 224
        model = getattr(keras.applications, name)(include_top=top, input_shape=(size, size, 3), **options)
        shape = model.input.shape[1:]
    wants_bytes = any(isinstance(l, (L.Rescaling, L.Normalization)) for l in walk(model))
    scaled = (lambda x: (x + 1) * 127.5) if wants_bytes else (lambda x: x)
    randomise(model, zlib.crc32(name.encode()))
    several = scaled(pictures(8 if shape[0] < 300 else 4, shape, 1))
    calibrate(model, several)
    if top:
        settle(model, several)
    x = scaled(pictures(2, shape, 2))
    expected = forward(model, x)
    assert np.isfinite(expected).all()
    row["largest"] = float(np.abs(expected).max())
    row["differ"] = float(np.abs(expected[0] - expected[1]).max() / np.abs(expected).max())
    assert row["differ"] > 1e-2, f"the outputs of two pictures are alike: {row['differ']:.1e}"
    row["layers"] = len(model.operations)
    source, target, extra = folder / f"model.{'keras' if form == 'keras' else 'h5'}", folder / "model.onnx", []
    if form == "weights3":
        source = folder / "model.weights.h5"
        model.save_weights(source)
        extra = ["--architecture", name, *([] if top else ["--no-top"])]
    elif form == "weights":
        import h5py
        from keras.src.legacy.saving import legacy_h5_format
        with h5py.File(source, "w") as f:
            legacy_h5_format.save_weights_to_hdf5_group(f, model)
        extra = ["--architecture", name.lower()] + ([] if top else ["--no-top"])
    else:
        model.save(source)
    del model
    keras.utils.clear_session()
    row["mb"] = source.stat().st_size / 1e6
    try:
        row["seconds"], row["rss_mb"], row["printed"] = imported(edge_pack, source, target, *extra)
        onnx.checker.check_model(str(target), full_check=target.stat().st_size < 1 << 30)
        session = session_of(target)
        found = session.run(None, {session.get_inputs()[0].name: x})[0]
        if form.startswith("weights") and top:
            # The architecture ends with a softmax: back to logits, but for what is common to all classes.
            found = np.log(found.astype(np.float64))
            found, expected = found - found.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True)
        row["error"] = compare(found, expected)
        row["nodes"] = len(onnx.load(target, load_external_data=False).graph.node)
        row["ok"] = row["error"] <= TOLERANCE
        if not row["ok"]:
            row["why"] = f"error {row['error']:.1e}"
    except Exception as e:
        row["ok"], row["why"] = False, f"{type(e).__name__}: {e}"[:1500]
    return row


def line(row):
    if "error" not in row:
        return f"| {row['model']} | {'yes' if row['top'] else 'no'} | {row.get('layers', '')} | {row.get('mb', 0):.0f} | failed: {row['why'][:200]!r} |"
    return (f"| {row['model']} | {'yes' if row['top'] else 'no'} | {row['layers']} | {row['mb']:.0f} | {row['seconds']:.2f} | "
            f"{row['rss_mb']:.0f} | {row['rss_mb'] / row['mb']:.1f} | {row['error']:.1e}{'' if row['ok'] else ' **too large**'} |")


def sweep(a):
    rows = json.loads(a.out.read_text()) if a.out and a.out.exists() else []
    if a.redo_failed:
        rows = [r for r in rows if r["ok"]]
    print("| model | top | layers | file MB | import s | peak RSS MB | RSS / file | max relative error |")
    print("|---|---|---:|---:|---:|---:|---:|---:|", flush=True)
    for name in MODELS:
        for top in (True, False):
            old = [r for r in rows if (r["model"], r["top"], r["form"]) == (name, top, a.form)]
            if not re.search(a.only, name):
                continue
            if old:
                print(line(old[0]), flush=True)
                continue
            with tempfile.TemporaryDirectory(dir=a.temp) as folder:
                child = subprocess.run([sys.executable, __file__, "--edge-pack", a.edge_pack, "--form", a.form, "--temp", folder,
                                        "--child", name, *([] if top else ["--child-no-top"])], stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True)
            try:
                row = json.loads(child.stdout.splitlines()[-1])
            except (IndexError, json.JSONDecodeError):
                row = {"model": name, "top": top, "form": a.form, "ok": False, "why": f"harness: {child.stderr.strip()[-800:]}"}
            rows.append(row)
            print(line(row), flush=True)
            if a.out:
                a.out.write_text(json.dumps(rows, indent=1))
            if not row["ok"] and a.failures:
                with a.failures.open("a") as f:
                    f.write(f"{name} top={top} {a.form}: {row['why']}\n")
    bad = [r for r in rows if not r["ok"]]
    print(f"\n{len(rows) - len(bad)} of {len(rows)} agree")
    return 1 if bad else 0


# --- the goldens ----------------------------------------------------------------------------------------------------------


def goldens(a):
    """Every case of tests/goldens/keras through edge-pack import and ONNX Runtime."""
    import onnx
    here = pathlib.Path(__file__).resolve().parent.parent / "goldens"
    sys.path.insert(0, str(here))
    from keras_cases import feed
    cases = json.loads((here / "keras" / "keras.json").read_text(encoding="utf-8"))["cases"]
    bad = total = 0

    def check(case, source, target, expected, shape, options, tolerance):
        imported(a.edge_pack, source, target, *options)
        onnx.checker.check_model(str(target), full_check=True)
        session = session_of(target)
        x = feed(shape, layout=case.get("layout", "NHWC"))
        got = session.run(None, {session.get_inputs()[0].name: x})[0]
        worst = min(compare(got.reshape(len(e), -1), np.array(e, np.float32)) for e in expected)
        if worst > tolerance:
            raise RuntimeError(f"differs by {worst:.1e} of the largest output")

    def refused(case, source, target, options):
        try:
            seconds, rss, _ = imported(a.edge_pack, source, target, *options)
        except RuntimeError as e:
            text = str(e)
            missing = [n for n in case["names"] if n not in text]
            if "panicked" in text or not text.startswith("exit status 1") and not text.startswith("exit status 2"):
                raise RuntimeError(f"crashed: {text[:300]}")
            if missing:
                raise RuntimeError(f"the message lacks {missing}: {text[:300]}")
            return
        raise RuntimeError("accepted")

    with tempfile.TemporaryDirectory(dir=a.temp) as folder:
        target = pathlib.Path(folder) / "model.onnx"
        for case in cases:
            if not re.search(a.only, case["file"]):
                continue
            source = here / "keras" / case["file"]
            runs = []
            if "error" in case:
                runs.append(lambda: refused(case, source, target, []))
            elif None not in case["input_shape"]:
                expected = [case["outputs_float32"]] if "outputs_float32" in case else [case["outputs"]]
                runs.append(lambda: check(case, source, target, expected, case["input_shape"], [], TOLERANCE))
            if "resized" in case:
                r = case["resized"]
                size, options = r["input_size"], ["--input-size", str(r["input_size"])]
                if "error" in r:
                    runs.append(lambda: refused(r, source, target, options))
                else:
                    runs.append(lambda: check(case, source, target, [r["outputs"]], [1, size, size, case["input_shape"][3]], options, TOLERANCE))
            for run in runs:
                total += 1
                try:
                    run()
                except Exception as e:
                    allowed = (" (may be refused)" if "may_error" in case and "exit status" in str(e) else
                               " (may be accepted)" if case.get("may_accept") and str(e) == "accepted" else "")
                    bad += not allowed
                    print(f"{case['file']}: {str(e)[:900]}{allowed}", flush=True)
                    if a.failures and not allowed:
                        with a.failures.open("a") as f:
                            f.write(f"golden {case['file']}: {e}\n")
    print(f"{total - bad} of {total} goldens agree")
    return 1 if bad else 0


# --- a real file and its photos -------------------------------------------------------------------------------------------


def at_size(data, size):
    """The bytes of a .keras file with another input size, for Keras: the shape of every InputLayer is changed."""
    def visit(node):
        if isinstance(node, dict):
            if node.get("class_name") == "InputLayer":
                shape = node["config"]["batch_shape"]
                node["config"]["batch_shape"] = [shape[0], size, size, shape[3]]
            node.pop("build_config", None)
            for value in node.values():
                visit(value)
        elif isinstance(node, list):
            for value in node:
                visit(value)

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for item in old.infolist():
            part = old.read(item)
            if item.filename == "config.json":
                config = json.loads(part)
                visit(config)
                part = json.dumps(config)
            new.writestr(item, part)
    return out.getvalue()


def real(a):
    import keras
    import onnx
    truth = {}
    if a.truth:
        with a.truth.open(newline="") as f:
            truth = {row["Id"]: row["label"] for row in csv.DictReader(f)}
    classes = a.classes.split(",")
    photos = sorted(p for p in a.photos.iterdir() if p.suffix == ".jpg" and not p.name.startswith("."))
    mb = a.real.stat().st_size / 1e6
    status = 0
    with tempfile.TemporaryDirectory(dir=a.temp) as folder:
        folder = pathlib.Path(folder)
        saved_size = keras.saving.load_model(a.real, compile=False).inputs[0].shape[1]
        for size in a.sizes:
            copy, target = folder / "copy.keras", folder / "model.onnx"
            copy.write_bytes(at_size(a.real.read_bytes(), size))
            model = keras.saving.load_model(copy, compile=False)
            try:
                seconds, rss, text = imported(a.edge_pack, a.real, target, *([] if size == saved_size else ["--input-size", str(size)]))
                onnx.checker.check_model(str(target), full_check=True)
                session = session_of(target)
            except Exception as e:
                print(f"{size}x{size}: {e}")
                status = 1
                continue
            worst, same, right, mine_right, labelled, largest = 0.0, 0, 0, 0, 0, 0.0
            for photo in photos:
                x = keras.utils.img_to_array(keras.utils.load_img(photo, target_size=(size, size)))[None]
                x = keras.applications.xception.preprocess_input(x)
                expected = np.asarray(model(x, training=False))
                got = session.run(None, {session.get_inputs()[0].name: x})[0]
                worst, largest = max(worst, compare(got, expected)), max(largest, float(np.abs(expected).max()))
                same += int(got.argmax() == expected.argmax())
                if photo.stem in truth:
                    labelled += 1
                    right += int(classes[expected.argmax()] == truth[photo.stem])
                    mine_right += int(classes[got.argmax()] == truth[photo.stem])
            ok = worst <= TOLERANCE and same == len(photos)
            status |= not ok
            print(f"{size}x{size}: {len(photos)} photos, largest logit {largest:.2f}, delta at most {worst:.1e} of a photo's largest, "
                  f"same class on {same}, labelled right {right} (Keras) and {mine_right} (imported) of {labelled}; "
                  f"import {seconds:.2f} s, {rss:.0f} MB = {rss / mb:.1f} x the file{'' if ok else '; TOO FAR'}")
            print("    " + text.strip().replace("\n", "\n    "), flush=True)
    return status


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--edge-pack", required=True)
    p.add_argument("--out", type=pathlib.Path, help="JSON with the rows; what stands there is not run again")
    p.add_argument("--only", default="", metavar="REGEX")
    p.add_argument("--form", choices=("keras", "h5", "weights", "weights3"), default="keras")
    p.add_argument("--redo-failed", action="store_true", help="run again what failed before")
    p.add_argument("--failures", type=pathlib.Path, help="append a line for every failure")
    p.add_argument("--temp", type=pathlib.Path, help="folder for models; up to 3 GB")
    p.add_argument("--goldens", action="store_true", help="run tests/goldens/keras instead")
    p.add_argument("--real", type=pathlib.Path, metavar="FILE", help="a .keras file of a classifier, with photos, instead")
    p.add_argument("--photos", type=pathlib.Path)
    p.add_argument("--truth", type=pathlib.Path, help="CSV of Id,label; Id is the photo's name without extension")
    p.add_argument("--classes", default="cup,fork,glass,knife,plate,spoon")
    p.add_argument("--sizes", type=int, nargs="+", default=[150, 299])
    p.add_argument("--child", help=argparse.SUPPRESS)
    p.add_argument("--child-no-top", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.child:
        print(json.dumps(application(a.child, not a.child_no_top, a.form, a.edge_pack, a.temp)))
        return 0
    if a.real:
        return real(a)
    return goldens(a) if a.goldens else sweep(a)


if __name__ == "__main__":
    sys.exit(main())
