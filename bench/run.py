#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training speed, ours beside others', measured in turn on this machine.

One round runs each program once for each net: A B C, then the next round, so that what disturbs
the machine disturbs all of them. Printed are medians and bests over the rounds, in images per
second of forward + backward + update in float32, and the ratio of ours to each other program.

    shoal       `shoal time --dummy-data`
    torch       PyTorch, NCHW                                  (scripts/install_deps.sh bench)
    torch_cl    PyTorch, channels_last
    caffe       `caffe time`, forward and backward only, where CAFFE names a binary; with a smaller
                batch where memory is short
    caffe_skx   the same with OPENBLAS_CORETYPE=SkylakeX: OpenBLAS picks slow kernels on new CPUs

With --batches it times our engine alone over several batch sizes; --kernels times single
convolutions, beside oneDNN's where the build found it.
"""
import argparse
import datetime
import functools
import json
import math
import os
import platform
import re
import shlex
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.relpath(os.path.dirname(os.path.abspath(__file__)))
NETS = ("resnet50", "resnet50_v1", "mobilenet_v1", "alexnet", "lenet")
PROGRAMS = ("shoal", "torch", "torch_cl", "caffe", "caffe_skx")
SHAPES = {"alexnet": (3, 227, 227), "lenet": (1, 28, 28)}
BATCHES = {"lenet": 64}  # as its prototxt has it; the others 32
CAFFE_IMAGE_MB = {"resnet50": 350, "resnet50_v1": 350, "mobilenet_v1": 140}  # as measured


class Failed(Exception):
    pass


def shape_of(net):
    return SHAPES.get(net, (3, 224, 224))


def run_child(command, env):
    """Standard output of a command and its peak resident memory in bytes."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                     env={**os.environ, **env})
        except OSError as error:
            raise Failed(error) from error
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
    if child.returncode:
        last = (texts[1].strip() or "no message").splitlines()[-1]
        raise Failed("exit code %d: %s" % (child.returncode, last))
    return texts[0] + texts[1], usage.ru_maxrss * 1024


class Bench:
    def __init__(self, arguments, folder):
        self.arguments, self.folder = arguments, folder
        self.commands = {}    # of each (program, net, batch), as it was run last
        self.iterations = {}  # that fill the time, of each (program, net, batch)

    def model(self, net):
        folder = os.path.join(self.folder, net)
        if not os.path.isdir(folder):
            run_child([self.arguments.shoal, "init", net, folder], {})
        return os.path.join(folder, "train_val.prototxt")

    def caffe_model(self, net, batch):
        """The same net for `caffe time`: constant numbers in place of data."""
        path = os.path.join(self.folder, net, "caffe_%d.prototxt" % batch)
        with open(self.model(net), encoding="utf-8") as file:
            text = file.read()
        text = re.sub(r'^layer \{\n  name: "data"\n.*?^\}\n', "", text, flags=re.M | re.S)
        dims = " ".join("dim: %d" % dim for dim in (batch,) + shape_of(net))
        data = ('layer {\n  name: "data"\n  type: "DummyData"\n  top: "data"\n  top: "label"\n'
                "  dummy_data_param {\n    shape { %s }\n    shape { dim: %d }\n"
                '    data_filler { type: "constant" value: 0.5 }\n'
                '    data_filler { type: "constant" value: 0 }\n  }\n}\n' % (dims, batch))
        text = text.replace("layer {", data + "layer {", 1)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def command(self, program, net, batch, iterations):
        threads = self.arguments.threads
        env = {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        if program == "shoal":
            return [self.arguments.shoal, "time", "--model=" + self.model(net), "--dummy-data",
                    "--shape=%dx%dx%d" % shape_of(net), "--batch=%d" % batch,
                    "--threads=%d" % threads, "--iterations=%d" % iterations, "--json"], {}
        if program.startswith("torch"):
            layout = ["--channels-last"] if program == "torch_cl" else []
            return [torch_python()[0], os.path.join(HERE, "torch_nets.py"), net, "--batch=%d" % batch,
                    "--threads=%d" % threads, "--seconds=%g" % self.arguments.seconds] + layout, env
        if program == "caffe_skx":
            env["OPENBLAS_CORETYPE"] = "SkylakeX"
        return [self.arguments.caffe, "time", "--model=" + self.caffe_model(net, batch),
                "--iterations=%d" % iterations], env

    def one(self, program, net, batch, iterations):
        """One run: {"images_per_s", "bytes"} and what the program tells besides."""
        command, env = self.command(program, net, batch, iterations)
        words = ["python3"] + command[1:] if program.startswith("torch") else command
        shown = ["%s=%s" % item for item in env.items()] + [shlex.quote(word) for word in words]
        self.commands[program, net, batch] = " ".join(shown).replace(self.folder, "nets")
        out, peak = run_child(command, env)
        if program.startswith("caffe"):
            match = re.search(r"Average Forward-Backward: ([\d.]+) ms", out)
            if not match:
                raise Failed("no time in Caffe's output")
            return {"images_per_s": batch / float(match.group(1)) * 1e3, "bytes": peak}
        told = json.loads(out)
        told.pop("layers", None)
        return dict(told, bytes=peak)

    def run(self, program, net, batch):
        """One turn of a program: as many iterations as fill --seconds. All programs do one before
        those that they time."""
        key = program, net, batch
        if program.startswith("torch"):
            return self.one(program, net, batch, 0)
        if key not in self.iterations:
            first = self.one(program, net, batch, 1)
            self.iterations[key] = math.ceil(self.arguments.seconds * first["images_per_s"] / batch)
            if self.iterations[key] == 1:
                return first
        return self.one(program, net, batch, self.iterations[key])


def summary(runs):
    speeds = [run["images_per_s"] for run in runs]
    result = {"median": statistics.median(speeds), "best": max(speeds), "all": speeds,
              "bytes": max(run["bytes"] for run in runs)}
    peaks = [run["peak_gflops"] for run in runs if "peak_gflops" in run]
    if peaks:
        result["gflops"] = max(run["gflops"] for run in runs)
        result["peak_gflops"] = max(peaks)
    return result


def caffe_batch(net, batch):
    """The batch, or half of it as often as Caffe's tensors do not fit into what memory is left."""
    with open("/proc/meminfo", encoding="ascii") as file:
        left = int(re.search(r"^MemAvailable: +(\d+) kB$", file.read(), re.M).group(1))
    while batch > 1 and batch * CAFFE_IMAGE_MB.get(net, 0) > left / 1024:
        batch //= 2
    return batch


def measure(bench, programs, nets, batch_of, rounds):
    """{(program, net, batch): summary}; what fails once is left out from then on."""
    keys = [(program, net, caffe_batch(net, batch) if program.startswith("caffe") else batch)
            for net in nets for batch in batch_of(net) for program in programs]
    runs = {key: [] for key in keys}
    for number in range(rounds):
        for key in keys:
            if runs[key] is None:
                continue
            try:
                run = bench.run(*key)
            except Failed as failure:
                print("%s, %s, batch %d: %s" % (key + (failure,)), file=sys.stderr)
                runs[key] = None
                continue
            runs[key].append(run)
            print("round %d/%d  %-13s batch %-4d %-10s %10.2f images/s" % (
                number + 1, rounds, key[1], key[2], key[0], run["images_per_s"]),
                file=sys.stderr, flush=True)
    return {key: summary(value) for key, value in runs.items() if value}


# ---- what is printed ----

def print_nets(results):
    print("%-13s %5s  %-10s %10s %10s %14s %14s %9s" % (
        "net", "batch", "program", "median", "best", "ours / medians", "ours / bests", "peak MB"))
    shoal = {net: result for (program, net, _), result in results.items() if program == "shoal"}
    for (program, net, batch), result in results.items():
        ours = shoal.get(net)
        ratios = ["", ""]
        if ours and program != "shoal":
            ratios = ["%.2fx" % (ours[which] / result[which]) for which in ("median", "best")]
        print("%-13s %5d  %-10s %10.2f %10.2f %14s %14s %9.0f" % (
            net, batch, program, result["median"], result["best"], *ratios,
            result["bytes"] / 2 ** 20))


def print_batches(results):
    print("%-13s %5s %10s %10s %12s %12s %9s" % ("net", "batch", "median", "best", "of largest",
                                                 "of peak", "peak MB"))
    largest = {}
    for _, net, batch in results:
        largest[net] = max(batch, largest.get(net, 0))
    for (program, net, batch), result in results.items():
        whole = results["shoal", net, largest[net]]["best"]
        print("%-13s %5d %10.2f %10.2f %11.1f%% %11.1f%% %9.0f" % (
            net, batch, result["median"], result["best"], 100 * result["best"] / whole,
            100 * result["gflops"] / result["peak_gflops"], result["bytes"] / 2 ** 20))


def first_line(command):
    try:
        out = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             check=False, text=True).stdout
    except OSError:
        return ""
    return out.strip().splitlines()[0] if out.strip() else ""


def caffe_version(caffe):
    """Caffe's version and which kernels OpenBLAS picks when it is not told."""
    try:
        out, _ = run_child([caffe, "--version"], {"OPENBLAS_VERBOSE": "2"}) if caffe else ("", 0)
    except Failed:  # its turns will say why
        return ""
    return ", ".join(out.replace("Core:", "OpenBLAS core").splitlines())


def machine(arguments):
    query = subprocess.run([arguments.shoal, "device_query"], stdout=subprocess.PIPE, check=True,
                           text=True).stdout
    facts = {"date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
             "device_query": query.strip().splitlines(),
             "system": "%s %s, Python %s" % (platform.system(), platform.release(),
                                            platform.python_version()),
             "load": "%.2f %.2f %.2f before the first run" % os.getloadavg(),
             "shoal": first_line([arguments.shoal, "version"]),
             "commit": first_line(["git", "-C", HERE, "describe", "--always", "--dirty"])}
    facts["torch"] = torch_python()[1]
    facts["caffe"] = caffe_version(arguments.caffe)
    return facts


def print_machine(facts):
    for key, value in facts.items():
        if isinstance(value, list):
            print("\n".join(value))
        elif value:
            print("%-14s %s" % (key + ":", value))
    print()


# ---- kernels ----

PASSES = ("forward", "backward data", "backward weights")


def kernel_rows(text):
    """{shape: [GFLOP/s or None of each pass]} of what a kernel bench prints: a name in 24 columns,
    then "GF/s" three times; spaces stand for a pass that there is none of."""
    rows = {}
    for line in text.splitlines():
        cells = re.findall(r"([\d.]+) GF/s", line[24:])
        speeds = [float(cell) for cell in cells]
        if len(speeds) == 2:  # an image gets no gradient
            speeds.insert(1, None)
        name = line[:24].strip()
        if len(speeds) == 3 and name and name != "all":
            rows[name] = speeds
    return rows


def run_kernels(arguments):
    """Single convolutions, ours and oneDNN's in turn; the best of the rounds."""
    build = os.path.dirname(os.path.abspath(arguments.shoal))
    batch, threads = arguments.batch or 32, arguments.threads
    programs = {"shoal": ["bench_nchwc_conv", "--bare", "--winograd", "--threads=%d" % threads],
                "oneDNN": ["bench_dnnl", "--winograd"]}
    best = {}
    for _ in range(arguments.rounds):
        for program, (name, *flags) in programs.items():
            path = os.path.join(build, name)
            if not os.path.exists(path):
                print("%s: %s was not built%s" % (program, name, "" if program == "shoal" else
                      "; scripts/install_deps.sh bench brings oneDNN"), file=sys.stderr)
                continue
            out, _ = run_child([path, "--batch=%d" % batch] + flags,
                               {"OMP_NUM_THREADS": str(threads)})
            for shape, speeds in kernel_rows(out).items():
                for number, speed in enumerate(speeds):
                    key = shape, PASSES[number]
                    cell = best.setdefault(key, {})
                    if speed is not None:
                        cell[program] = max(speed, cell.get(program, 0))
    return [dict(shape=shape, **{"pass": which}, **cell)
            for (shape, which), cell in best.items() if cell]


def print_kernels(rows):
    print("%-24s %-17s %12s %14s %8s" % ("shape", "pass", "ours GFLOP/s", "oneDNN GFLOP/s", "ratio"))
    for row in rows:
        ours, theirs = row.get("shoal"), row.get("oneDNN")
        print("%-24s %-17s %12s %14s %8s" % (
            row["shape"], row["pass"], "%.1f" % ours if ours else "-",
            "%.1f" % theirs if theirs else "-", "%.2fx" % (ours / theirs) if ours and theirs else "-"))


# ---- command line ----

@functools.lru_cache(maxsize=None)
def torch_python():
    """(interpreter that has torch, torch's version), or (None, ""). Debian's package is for
    Debian's Python, which need not be the first in PATH."""
    for python in (sys.executable, "/usr/bin/python3"):
        version = first_line([python, "-c", "import torch; print(torch.__version__)"])
        if version:
            return python, version
    return None, ""


def usable(programs, arguments):
    """Those of the programs that can run here; says why others cannot."""
    left = []
    for program in programs:
        if program.startswith("torch") and not torch_python()[0]:
            print("%s: PyTorch is not installed; scripts/install_deps.sh bench brings it" % program,
                  file=sys.stderr)
        elif program.startswith("caffe") and not arguments.caffe:
            print("%s: set CAFFE to the path of a caffe binary" % program, file=sys.stderr)
        else:
            left.append(program)
    return left


def numbers(text):
    return [int(word) for word in text.split(",")]


def one_of(names):
    def parse(text):
        words = text.split(",")
        wrong = [word for word in words if word not in names]
        if wrong:
            raise argparse.ArgumentTypeError("unknown: %s; there are: %s" % (
                ", ".join(wrong), ", ".join(names)))
        return words
    return parse


def parse_arguments(words):
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shoal", default=os.path.normpath(os.path.join(HERE, "../build/shoal")),
                        help="our binary (default: build/shoal)")
    parser.add_argument("--caffe", default=os.environ.get("CAFFE"), help="default: CAFFE")
    parser.add_argument("--nets", type=one_of(NETS), default=list(NETS), metavar="NET,...",
                        help="default: " + ",".join(NETS))
    parser.add_argument("--programs", type=one_of(PROGRAMS), default=list(PROGRAMS),
                        metavar="PROGRAM,...", help="default: all that are here")
    parser.add_argument("--batch", type=int, help="default: 32; 64 for lenet")
    parser.add_argument("--batches", type=numbers, metavar="N,...",
                        help="our engine alone, with these batches")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)),
                        help="default: all cores")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--seconds", type=float, default=5, help="of a turn, about; default: 5")
    parser.add_argument("--kernels", action="store_true", help="single convolutions instead of nets")
    parser.add_argument("--json", metavar="FILE", help="write all that was measured")
    return parser.parse_args(words)


def net_results(bench, arguments):
    if arguments.batches:
        return measure(bench, ["shoal"], arguments.nets, lambda net: arguments.batches,
                       arguments.rounds)
    return measure(bench, usable(arguments.programs, arguments), arguments.nets,
                   lambda net: [arguments.batch or BATCHES.get(net, 32)], arguments.rounds)


def main(words):
    arguments = parse_arguments(words)
    facts = machine(arguments)
    report = {"machine": facts, "threads": arguments.threads, "rounds": arguments.rounds,
              "seconds": arguments.seconds}
    print_machine(facts)
    if os.getloadavg()[0] > 0.5:
        print("The machine is busy with other things: do not quote these figures.\n")
    if arguments.kernels:
        report["kernels"] = run_kernels(arguments)
        print_kernels(report["kernels"])
    else:
        with tempfile.TemporaryDirectory(prefix="shoal-bench-") as folder:
            bench = Bench(arguments, folder)
            results = net_results(bench, arguments)
        print("images/s, %d thread%s, %d rounds of about %g s" % (
            arguments.threads, "s" if arguments.threads > 1 else "", arguments.rounds,
            arguments.seconds))
        (print_batches if arguments.batches else print_nets)(results)
        print("\nCommands, after `shoal init NET nets/NET` for each net:")
        for key in results:
            print("  " + bench.commands[key])
        report["nets"] = [dict(program=key[0], net=key[1], batch=key[2],
                               command=bench.commands[key], **result)
                          for key, result in results.items()]
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(report, file, indent=1)
            file.write("\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as failure:
        sys.exit("bench: %s" % failure)
