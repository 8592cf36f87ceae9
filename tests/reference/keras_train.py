#!/usr/bin/env python3
"""How long Keras takes for the recipe of `edge-pack train`: a frozen base, pooling, one dense layer, forward passes each epoch.

    KERAS_BACKEND=jax python keras_train.py base.keras photos/ --size 299 --epochs 10 --batches 6

Reads photos as flow_from_directory does, trains on some batches after a warm-up, and scales their time up to all photos and
epochs (training and validation passes; loading is part of each batch). Prints one JSON object.
"""
import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
import keras
import numpy as np

p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
p.add_argument("base")
p.add_argument("photos", type=pathlib.Path)
p.add_argument("--validation", type=pathlib.Path)
p.add_argument("--size", type=int, default=299)
p.add_argument("--epochs", type=int, default=10)
p.add_argument("--batches", type=int, default=6)
a = p.parse_args()

loaded = keras.models.load_model(a.base, compile=False)
layer = next(l for l in loaded.layers if isinstance(l, keras.Model))
layer.trainable = False
classes = sorted(d.name for d in a.photos.iterdir() if d.is_dir())
inputs = keras.Input((a.size, a.size, 3))
base = keras.applications.Xception(weights=None, include_top=False, input_shape=(a.size, a.size, 3))
base.set_weights(layer.get_weights())
base.trainable = False
vectors = keras.layers.GlobalAveragePooling2D()(base(inputs, training=False))
model = keras.Model(inputs, keras.layers.Dense(len(classes))(keras.layers.Dropout(0.2)(vectors)))
model.compile(optimizer=keras.optimizers.Adam(1e-3), loss=keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])


def batches(folder):
    files = [(f, c) for c in classes for f in sorted((folder / c).iterdir())]
    order = np.random.default_rng(1).permutation(len(files))
    while True:
        for at in range(0, len(order) - 31, 32):
            chosen = [files[i] for i in order[at:at + 32]]
            x = np.stack([keras.utils.img_to_array(keras.utils.load_img(f, target_size=(a.size, a.size))) for f, _ in chosen])
            yield keras.applications.xception.preprocess_input(x), np.eye(len(classes))[[classes.index(c) for _, c in chosen]]


def count(folder):
    return sum(len(list((folder / c).iterdir())) for c in classes)


stream = batches(a.photos)
model.train_on_batch(*next(stream))
start = time.time()
for _ in range(a.batches):
    model.train_on_batch(*next(stream))
train = (time.time() - start) / (32 * a.batches)
model.test_on_batch(*next(stream))
start = time.time()
for _ in range(max(a.batches // 3, 1)):
    model.test_on_batch(*next(stream))
test = (time.time() - start) / (32 * max(a.batches // 3, 1))
total = a.epochs * (train * count(a.photos) + test * (count(a.validation) if a.validation else 0))
print(json.dumps({"keras": keras.__version__, "backend": keras.backend.backend(), "train_s_per_photo": train,
                  "validate_s_per_photo": test, "scaled_s": total, "epochs": a.epochs, "timed_photos": 32 * a.batches}))
