#!/usr/bin/env python3
"""Write train/adam.json: heads trained by Keras on a fixed problem, step by step.

    python3 -m venv .venv && .venv/bin/pip install -r ../reference/requirements.txt
    .venv/bin/python make_train.py

Runs on JAX, on the CPU. Each case begins with weights of its own, takes the same photos in the same order, and stores the loss of
each step and all weights after some of them. No dropout: its random numbers are nobody else's.
"""
import json
import os
import pathlib

os.environ["KERAS_BACKEND"] = "jax"
os.environ["JAX_PLATFORMS"] = "cpu"
import keras
import numpy as np

FEATURES, CLASSES, BATCH, STEPS, SHOWN = 12, 4, 8, 40, (1, 2, 10, 40)


def case(name, inner, activation, multi_label, smoothing, rate, weighted):
    rng = np.random.default_rng(len(name))
    x = rng.normal(0, 1, (3 * BATCH, FEATURES)).astype(np.float32)
    truth = rng.integers(0, CLASSES, 3 * BATCH)
    y = np.eye(CLASSES, dtype=np.float32)[truth]
    if multi_label:
        y = (rng.uniform(0, 1, y.shape) < 0.4).astype(np.float32)
    layers = [keras.layers.Input((FEATURES,))]
    layers += [keras.layers.Dense(n, activation=activation) for n in inner]
    layers += [keras.layers.Dense(CLASSES)]
    model = keras.Sequential(layers)
    for w in model.weights:
        w.assign(rng.normal(0, 0.4, w.shape).astype(np.float32))
    start = [w.tolist() for w in model.get_weights()]
    if multi_label:
        loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)
    else:
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
    weights = [1.0, 0.5, 2.0, 1.5] if weighted else []
    losses, shown = [], {}
    for step in range(1, STEPS + 1):
        at = slice((step - 1) % 3 * BATCH, ((step - 1) % 3 + 1) * BATCH)
        model.reset_metrics()
        own = np.array([weights[t] for t in truth[at]], np.float32) if weighted else None
        losses.append(float(model.train_on_batch(x[at], y[at], sample_weight=own)))
        if step in SHOWN:
            shown[str(step)] = [w.tolist() for w in model.get_weights()]
    return {"name": name, "keras": keras.__version__, "inner": inner, "activation": activation, "multi_label": multi_label,
            "label_smoothing": smoothing, "learning_rate": rate, "class_weights": weights, "batch": BATCH,
            "features": x.tolist(), "wanted": y.tolist(), "start": start, "losses": losses, "weights": shown}


def rounded(value):
    """Float32 values with the digits that tell them apart."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


cases = [
    case("one layer", [], "relu", False, 0.0, 1e-2, False),
    case("inner layers", [6, 5], "relu", False, 0.0, 1e-2, False),
    case("sigmoid, smoothed", [6], "sigmoid", False, 0.1, 1e-3, False),
    case("tanh, class weights", [6], "tanh", False, 0.0, 1e-3, True),
    case("several labels", [6], "relu", True, 0.1, 1e-2, False),
]
out = pathlib.Path(__file__).parent / "train" / "adam.json"
out.write_text(json.dumps(rounded(cases), separators=(",", ":")) + "\n")
print(f"{out}: {len(cases)} cases, {out.stat().st_size} bytes")
