#!/usr/bin/env python3
"""Copies installed packages and replaces the instruction CPUID in their libraries by one that is not defined (ud2, as long).

    python replace_cpuid.py --out folder onnxruntime openvino
    cc -O2 -shared -fPIC hide_avx512.c -o hide_avx512.so
    CPUID_REPLACED=1 LD_PRELOAD=./hide_avx512.so PYTHONPATH=folder python peers.py …

hide_avx512.c answers in its place. That is for processors that do not let CPUID fault, such as AMD's: with it a runtime chooses there,
too, as it would on a machine that ends at AVX2. Which bytes are instructions is objdump's word, so binutils have to be there. A
library that makes CPUID at run time is not seen.
"""
import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

CPUID, UD2 = b"\x0f\xa2", b"\x0f\x0b"


def executable(path):
    """The parts of a library that are executed: offset in the file, address, length."""
    listed = subprocess.run(["readelf", "-lW", path], check=True, capture_output=True, text=True).stdout
    parts = re.findall(r"LOAD\s+(0x\w+) (0x\w+) 0x\w+ (0x\w+) 0x\w+ (\S*(?: \S+)*?)\s+0x", listed)
    return [[int(value, 16) for value in part[:3]] for part in parts if "E" in part[3]]


def replace(path):
    """How many there were."""
    parts, data, found = executable(path), bytearray(path.read_bytes()), 0
    if not any(CPUID in data[offset:offset + length] for offset, _, length in parts):
        return 0
    listed = subprocess.Popen(["objdump", "-d", "--no-show-raw-insn", path], stdout=subprocess.PIPE, text=True, errors="replace")
    for line in listed.stdout:
        if line.rstrip().endswith("\tcpuid"):
            address = int(line.split(":")[0], 16)
            at = next(offset + address - start for offset, start, length in parts if start <= address < start + length)
            if data[at:at + 2] != CPUID:
                sys.exit(f"{path}: no CPUID at {address:#x}")
            data[at:at + 2] = UD2
            found += 1
    if listed.wait():
        sys.exit(f"{path}: objdump failed")
    path.write_bytes(data)
    return found


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--out", type=Path, required=True)
    p.add_argument("packages", nargs="+")
    a = p.parse_args()
    partial = a.out.with_name(a.out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for package in a.packages:
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            sys.exit(f"there is no package {package}; install it first")
        folder = partial / package
        shutil.copytree(found.submodule_search_locations[0], folder)
        count = sum(replace(path) for path in folder.rglob("*.so*") if path.is_file() and not path.is_symlink())
        if count == 0:
            sys.exit(f"{package} does not ask what the processor can; nothing would be hidden from it")
        print(f"{package}: {count} replaced", file=sys.stderr)
    shutil.rmtree(a.out, ignore_errors=True)
    partial.rename(a.out)


if __name__ == "__main__":
    main()
