#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bounds the inner loops of the NEON kernels with llvm-mca, which has models of ARM cores.

    scripts/bound_neon.py [--cc=COMMAND] [--mca=COMMAND] [--cores=A,B,...]

The kernels are compiled to assembly (default: aarch64-linux-gnu-gcc; for clang give
--cc='clang --target=aarch64-linux-gnu'). In each function the innermost loops that are made of
multiply-adds for the most part are cut out and run on the model of each core; all data are in the
first-level cache there. The limit is what the same model makes of multiply-adds without anything
else. Prints per loop and core the cycles of an iteration and the part of the limit.

Exit code 1 when a loop that must is below 85 % on one of the first two cores, 77 when a tool is
missing.
"""
import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CORES = ("exynos-m4", "cortex-a76", "cortex-a55")
JUDGED_CORES = 2
GOAL_PERCENT = 85
# As cmake/Rooms.cmake compiles the neon folder in a release.
FLAGS = ("-std=c11 -O3 -fPIC -ffp-contract=off -fno-trapping-math -D_GNU_SOURCE -Isrc -Iinclude"
         .split())
# Source, functions, the least part of multiply-adds among a loop's instructions that makes it one
# to look at, and whether it must reach the goal. Smaller tiles have too few sums for the widest
# core; a depthwise convolution loads and stores too much per multiply-add.
KERNELS = (
    ("src/kernels/neon/nchwc_tile.c", ("tile_8_2", "tile_7_2", "wtile_4_4"), 0.5, True),
    ("src/kernels/neon/blocked.c", ("tile_14_2",), 0.5, True),
    ("src/kernels/neon/nchwc_tile.c", ("tile_8_1", "tile_4_2", "wtile_4_2"), 0.5, False),
    ("src/kernels/neon/nchwc_depthwise.c", ("depthwise_gather",), 0.3, False),
)
LABEL = re.compile(r"^(\.L\w+):")
BRANCH = re.compile(r"^\s+(?:b\.?[a-z]{2}|cbn?z|tbn?z)\s+(?:.*,\s*)?(\.L\w+)")
INSTRUCTION = re.compile(r"^\s+[a-z]")
MULTIPLY_ADD = re.compile(r"^\s+fml[as]\s+v")


class ToolMissing(Exception):
    pass


def run(command, **options):
    if not shutil.which(command[0]):
        raise ToolMissing("%s is not installed" % command[0])
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, **options).stdout


def assembly_of(compiler, source):
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "kernel.s")
        run(shlex.split(compiler) + FLAGS + ["-S", source, "-o", out], cwd=ROOT)
        with open(out, encoding="utf-8") as file:
            return file.read().split("\n")


def body_of(lines, function):
    begin = next((i for i, line in enumerate(lines) if line.startswith(function + ":")), None)
    if begin is None:
        raise SystemExit("bound_neon.py: no function %s in the assembly" % function)
    size = re.compile(r"\s*\.size\s+%s\b" % re.escape(function))
    return lines[begin:next(i for i in range(begin, len(lines)) if size.match(lines[i]))]


def inner_loops(body):
    """Instructions of the loops that hold no other loop."""
    labels, loops = {}, []
    for i, line in enumerate(body):
        label, branch = LABEL.match(line), BRANCH.match(line)
        if label:
            labels[label.group(1)] = i
        elif branch and branch.group(1) in labels:
            loops.append((labels[branch.group(1)], i))
    inner = [(a, b) for a, b in loops
             if not any((c, d) != (a, b) and a <= c and d <= b for c, d in loops)]
    return [[line for line in body[a:b + 1] if INSTRUCTION.match(line)] for a, b in inner]


def count(pattern, instructions):
    return sum(bool(pattern.search(line)) for line in instructions)


def main_loops(body, part):
    return [loop for loop in inner_loops(body) if count(MULTIPLY_ADD, loop) >= part * len(loop)]


class Core:
    def __init__(self, mca, name):
        self.command = [mca, "-mtriple=aarch64-linux-gnu", "-mcpu=" + name, "-instruction-info=0"]
        self.name = name
        # More chains than any core has latency times units; three operands as in a kernel.
        alone = ["\tfmla v%d.4s, v30.4s, v31.s[0]" % i for i in range(30)]
        self.limit = len(alone) / self.cycles(alone)
        # "M4PipeF0", "A57UnitX", "CortexA55UnitLd": the model's name is in front.
        self.model = re.search(r"^\[0(?:\.0)?\]\s+- (\w+?)(?:Unit|Pipe)",
                               self.analyse(alone, 1), re.M).group(1)
        if not name.replace("-", "").endswith(self.model.lower()):
            self.model += ", as it has none of this core"

    def analyse(self, instructions, iterations):
        return run(self.command + ["-iterations=%d" % iterations], input="\n".join(instructions),
                   stderr=subprocess.DEVNULL)

    def cycles(self, instructions):
        """Per iteration, once the pipeline is full."""
        first, second = (int(re.search(r"Total Cycles:\s+(\d+)",
                                       self.analyse(instructions, iterations)).group(1))
                         for iterations in (100, 300))
        return (second - first) / 200


def print_heads(cores):
    for core in cores:
        print("%-12s %4.2f multiply-adds of 4 lanes a cycle; llvm's model: %s" %
              (core.name, core.limit, core.model))
    print("\n%-12s %4s %6s %6s" % ("loop of", "FMAs", "instr.", "spills") +
          "".join("%18s" % core.name for core in cores))


def bound(function, loop, cores):
    """Prints a line; the smallest part of the limit on the cores that are judged."""
    fmas = count(MULTIPLY_ADD, loop)
    line = "%-16s %4d %6d %6d" % (function, fmas, len(loop), count(re.compile(r"\bsp\b"), loop))
    percents = []
    for core in cores:
        cycles = core.cycles(loop)
        percents.append(100 * fmas / cycles / core.limit)
        line += "%9.1f cy %4.0f %%" % (cycles, percents[-1])
    print(line)
    return min(percents[:JUDGED_CORES])


def bound_all(options):
    cores = [Core(options.mca, name) for name in options.cores.split(",")]
    assembly, low = {}, []
    for source, *_ in KERNELS:
        assembly[source] = assembly.get(source) or assembly_of(options.cc, source)
    print_heads(cores)
    for source, functions, part, required in KERNELS:
        for function in functions:
            loops = main_loops(body_of(assembly[source], function), part)
            if required and not loops:
                low.append("%s: no loop that is made of multiply-adds" % function)
            for loop in loops:
                percent = bound(function, loop, cores)
                if required and percent < GOAL_PERCENT:
                    low.append("%s: %.0f %% is below %d %%" % (function, percent, GOAL_PERCENT))
    return low


def main():
    parser = argparse.ArgumentParser(description="Bounds the NEON kernels with llvm-mca.")
    parser.add_argument("--cc", default="aarch64-linux-gnu-gcc", help="the compiler's command")
    parser.add_argument("--mca", default="llvm-mca", help="the analyser's command")
    parser.add_argument("--cores", default=",".join(CORES))
    try:
        low = bound_all(parser.parse_args())
    except ToolMissing as missing:
        print("skipped: %s" % missing)
        return 77
    for line in low:
        print("bound_neon.py: " + line, file=sys.stderr)
    return 1 if low else 0


if __name__ == "__main__":
    sys.exit(main())
