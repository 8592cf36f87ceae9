#!/usr/bin/env python3
"""Our inference time beside that of other runtimes, on the same ONNX file and the same machine.

    python3 -m venv .venv-peers && .venv-peers/bin/pip install -r requirements-peers.txt
    .venv-peers/bin/python peers.py model.onnx --threads 1,2 \\
        --ours 'edge-pack bench model.edgepack --threads {threads} --runs {runs} --json'

A shared or a hot machine does not keep its speed, so one long measurement of each says little. Here every round measures all
of them, one shortly after the other, in an order that turns with the round; each keeps its best of --runs inferences; and the
ratio is taken inside the round. What is reported is the median over the rounds of that ratio: ours to the fastest peer's.

Of a quantized network ONNX Runtime is measured twice: as it comes, and told to be exact (session.x64quantprecision). On x86-64
machines without VNNI its fast int8 kernels, and OpenVINO's, add pairs of products in 16 bits and saturate; the column "off" says how
far a runtime's output is then from what the file says (ONNX Runtime without optimisations), in percent of the largest output.

--ours is a shell command in which {threads} and {runs} are filled in. The last line that it prints is a JSON object with
"min_ms". Without --ours only the peers are measured. Output is a Markdown table, or one JSON object with --json.
"""
import argparse
import json
import platform
import statistics
import subprocess
import sys
import time

import numpy as np


def values(shape):
    """Something that is neither zero nor equal everywhere; a runtime's time must not depend on it."""
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


class OnnxRuntime:
    name = "ONNX Runtime"
    exact = plain = False

    def __init__(self, path, threads):
        import onnxruntime
        self.version = onnxruntime.__version__
        options = onnxruntime.SessionOptions()
        if self.exact:
            options.add_session_config_entry("session.x64quantprecision", "1")
        if self.plain:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        entry = self.session.get_inputs()[0]
        shape = [d if isinstance(d, int) and d > 0 else 1 for d in entry.shape]
        self.feed = {entry.name: values(shape)}

    def infer(self):
        return self.session.run(None, self.feed)[0]


class ExactOnnxRuntime(OnnxRuntime):
    name = "ONNX Runtime, exact int8"
    exact = True


class PlainOnnxRuntime(OnnxRuntime):
    plain = True



class OpenVino:
    name = "OpenVINO"

    def __init__(self, path, threads):
        import openvino
        self.version = openvino.__version__.split("-")[0]
        core = openvino.Core()
        model = core.read_model(path)
        shape = [d.get_length() if d.is_static else 1 for d in model.inputs[0].partial_shape]
        model.reshape(shape)
        # Without the precision hint it may use bfloat16 where the CPU has it, and no longer compute the same.
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        self.request = core.compile_model(model, "CPU", settings).create_infer_request()
        self.feed = {0: values(shape)}

    def infer(self):
        return next(iter(self.request.infer(self.feed).values()))


class Ours:
    name = "ours"
    version = ""

    def __init__(self, command, threads):
        self.command, self.threads = command, threads

    def measure(self, runs):
        command = self.command.replace("{threads}", str(self.threads)).replace("{runs}", str(runs))
        done = subprocess.run(command, shell=True, stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"`{command}` exited with {done.returncode}")
        try:
            return float(json.loads(done.stdout.strip().splitlines()[-1])["min_ms"])
        except (IndexError, KeyError, TypeError, ValueError):
            sys.exit(f"the last line of `{command}` is not a JSON object with min_ms:\n{done.stdout}")


def measure(runtime, runs):
    """Milliseconds, the best of `runs`."""
    if isinstance(runtime, Ours):
        return runtime.measure(runs)
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        runtime.infer()
        best = min(best, time.perf_counter() - start)
    return best * 1e3


def compare(path, ours, threads, rounds, runs):
    peers = [OnnxRuntime(path, threads), OpenVino(path, threads)]
    off = {}
    with open(path, "rb") as f:
        quantized = b"QuantizeLinear" in f.read()
    if quantized:
        peers.insert(1, ExactOnnxRuntime(path, threads))
        wanted = PlainOnnxRuntime(path, threads).infer()
        off = {p.name: 100 * float(np.abs(p.infer() - wanted).max() / np.abs(wanted).max()) for p in peers}
    for peer in peers:
        for _ in range(3):
            peer.infer()
    contestants = peers + ([Ours(ours, threads)] if ours else [])
    times = {c.name: [] for c in contestants}
    for i in range(rounds):
        turn = i % len(contestants)
        for c in contestants[turn:] + contestants[:turn]:
            times[c.name].append(measure(c, runs))
    row = {"threads": threads,
           "runtimes": [{"name": c.name, "version": c.version, "min_ms": min(times[c.name]),
                         "median_ms": statistics.median(times[c.name]), "off": off.get(c.name)} for c in contestants]}
    if ours:
        ratios = [mine / min(times[p.name][i] for p in peers) for i, mine in enumerate(times["ours"])]
        row["ratio"] = statistics.median(ratios)
        row["ratio_range"] = [min(ratios), max(ratios)]
        if quantized:
            ratios = [mine / times[ExactOnnxRuntime.name][i] for i, mine in enumerate(times["ours"])]
            row["ratio_exact"] = statistics.median(ratios)
    return row


def table(rows):
    lines = ["| threads | runtime | min, ms | median, ms | off | ours / best peer (lowest to highest round) |",
             "|---:|---|---:|---:|---:|---|"]
    for row in rows:
        for r in row["runtimes"]:
            ratio = ""
            if r["name"] == "ours":
                ratio = f"{row['ratio']:.2f} ({row['ratio_range'][0]:.2f} to {row['ratio_range'][1]:.2f})"
                if "ratio_exact" in row:
                    ratio += f"; to the exact one {row['ratio_exact']:.2f}"
            label = " ".join(filter(None, (r["name"], r["version"])))
            off = "" if r["off"] is None else f"{r['off']:.0f} %"
            lines.append(f"| {row['threads']} | {label} | {r['min_ms']:.2f} | {r['median_ms']:.2f} | {off} | {ratio} |")
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("onnx", help="the file that the peers run")
    p.add_argument("--ours", metavar="COMMAND")
    p.add_argument("--threads", default="1", help="thread counts, separated by commas")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--runs", type=int, default=5, help="inferences per runtime and round")
    p.add_argument("--json", action="store_true")
    a = p.parse_args()
    rows = [compare(a.onnx, a.ours, int(t), a.rounds, a.runs) for t in a.threads.split(",")]
    if a.json:
        print(json.dumps({"model": a.onnx, "machine": platform.machine(), "rounds": a.rounds, "runs": a.runs, "results": rows}))
    else:
        print(table(rows))


if __name__ == "__main__":
    main()
