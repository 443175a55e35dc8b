# SPDX-License-Identifier: Apache-2.0
"""Whole trainings in the laboratory: recovery, scaling and the soak. See cluster.py."""
import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests"))
import harness
import netns

PORT = 4710
TOKEN = {"SHOAL_TOKEN": "a-secret-of-the-laboratory"}
PATIENCE = 300  # seconds without what is waited for: something hangs
ENDLESS = 100000000

# Nets with as many parameters as the well-known ones, that cost next to nothing to compute: layers,
# their width (width^2 parameters each), and images/s of one phone (see findings of the project).
GRADIENTS = {"resnet50": (24, 1024, 2), "mobilenet": (16, 512, 8)}


class Failed(Exception):
    pass


class Folder:
    """Where a run has its files; what harness.make_digits needs of a test case."""

    def __init__(self, arguments):
        self.shoal = os.path.abspath(os.path.join(arguments.build, "shoal"))
        if not os.path.exists(self.shoal):
            raise SystemExit("there is no %s" % self.shoal)
        self.name = tempfile.mkdtemp(prefix="shoal-bench-")
        self.keep = arguments.keep

    def path(self, *names):
        return os.path.join(self.name, *names)

    def run_shoal(self, *words):
        done = subprocess.run(
            [self.shoal] + list(words), cwd=self.name, capture_output=True, text=True
        )
        if done.returncode:
            raise Failed("shoal %s: %s" % (words[0], done.stderr.strip()))
        return done.stdout

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.keep or (kind and kind is not KeyboardInterrupt):
            print("files: " + self.name)
        else:
            shutil.rmtree(self.name)


class Log:
    """The coordinator's JSON log, with the time at which each event was seen."""

    def __init__(self, path):
        self.path, self.at, self.events = path, 0, []
        self.kinds = {}

    def read(self):
        with contextlib.suppress(FileNotFoundError), open(self.path, "rb") as f:
            f.seek(self.at)
            data = f.read()
            end = data.rfind(b"\n") + 1
            self.at += end
            now = time.monotonic()
            for line in data[:end].splitlines():
                event = dict(json.loads(line), seen=now)
                self.events.append(event)
                self.kinds.setdefault(event["event"], []).append(event)
        return self.events

    def of(self, kind):
        self.read()
        return self.kinds.get(kind, [])

    def last_iteration(self):
        done = self.of("iteration")
        return done[-1]["iter"] if done else -1


class Training:
    """A coordinator on node 0 and a worker on each of the others. Node numbers name the workers."""

    def __init__(self, lab, folder, min_workers=1, pace=0, coordinator=(), worker=()):
        self.lab, self.folder, self.pace, self.worker_words = lab, folder, pace, list(worker)
        self.log = Log(folder.path("log.json"))
        self.count = lab.nodes - 1
        self.words = [
            "train",
            "--solver=solver.prototxt",
            "--workers=%d" % self.count,
            "--min-workers=%d" % min_workers,
            "--listen=%s:%d" % (lab.address(0), PORT),
            "--log-json=" + self.log.path,
        ] + list(coordinator)
        self.starts = 0
        self.coordinator = self.start_coordinator()
        self.workers = {node: self.start_worker(node) for node in range(1, lab.nodes)}

    def start_coordinator(self, *more):
        return self.start(0, "coordinator", self.words + list(more))

    def start_worker(self, node):
        words = [
            "worker",
            "--join=%s:%d" % (self.lab.address(0), PORT),
            "--threads=1",
            "--name=w%d" % node,
        ]
        if self.pace:
            words.append("--pace=%d" % self.pace)
        return self.start(node, "worker%d" % node, words + self.worker_words)

    def start(self, node, name, words):
        self.starts += 1
        with open(self.folder.path(name + ".txt"), "ab") as out:
            return self.lab.start(
                node,
                [self.folder.shoal] + words,
                env=TOKEN,
                stdout=out,
                stderr=out,
                cwd=self.folder.name,
            )

    def told(self, name):
        return harness.read_text(self.folder.path(name + ".txt"))[-2000:]

    def wait_for(self, what, check, patience=PATIENCE):
        deadline = time.monotonic() + patience
        while True:
            found = check()
            if found:
                return found
            if self.coordinator.poll() is not None:
                raise Failed(
                    "the coordinator ended before %s:\n%s" % (what, self.told("coordinator"))
                )
            if time.monotonic() > deadline:
                raise Failed("no %s within %d s:\n%s" % (what, patience, self.told("coordinator")))
            time.sleep(0.005)

    def wait_iterations(self, more):
        goal = self.log.last_iteration() + more
        self.wait_for("iteration %d" % goal, lambda: self.log.last_iteration() >= goal)

    def wait_members(self, since=0):
        """All workers are members, by an event later than the first `since`."""

        def complete():
            found = [e for e in self.log.read()[since:] if e["event"] == "generation"]
            return found and found[-1]["workers"] == self.count

        self.wait_for("%d members" % self.count, complete)

    def stop(self):
        """Ctrl-C: a snapshot, and the end of all."""
        self.coordinator.send_signal(signal.SIGINT)
        try:
            code = self.coordinator.wait(60)
        except subprocess.TimeoutExpired:
            raise Failed("the coordinator does not stop:\n" + self.told("coordinator")) from None
        if code:
            raise Failed("the coordinator ended with %d:\n%s" % (code, self.told("coordinator")))


def solver(**more):
    return harness.solver(ENDLESS, **more)


# ---- recovery ----


class Faults:
    """Ways to lose a worker, and to get it back."""

    def __init__(self, training):
        self.training, self.lab = training, training.lab

    def strike(self, how, node):
        process = self.training.workers[node]
        {
            "kill": process.kill,
            "stop": lambda: process.send_signal(signal.SIGSTOP),
            "link": lambda: self.lab.link_down(node),
            "half": lambda: self.lab.half_open(node),
        }[how]()

    def heal(self, how, node):
        process = self.training.workers[node]
        if how == "stop":
            process.send_signal(signal.SIGCONT)
        elif how != "kill":
            self.lab.mend(node)
        if process.poll() is not None or how == "kill":
            process.wait()
            self.training.workers[node] = self.training.start_worker(node)


def recovery(arguments, open_lab):
    rng = random.Random(arguments.seed)
    results = []
    print("%5s %6s %6s  %10s %8s %8s" % ("nodes", "fault", "times", "median s", "max s", "seen s"))
    for nodes in arguments.nodes:
        with Folder(arguments) as folder, open_lab(nodes + 1, arguments.mbit[0]) as lab:
            harness.make_digits(folder)
            folder.write("net.prototxt", harness.lenet(2 * nodes))
            folder.write("solver.prototxt", solver())
            training = Training(lab, folder)
            training.wait_iterations(6)
            for how in arguments.faults:
                results.append(strike_often(training, how, nodes, rng, arguments.times))
            training.stop()
    return results


def strike_often(training, how, nodes, rng, times):
    told, seen = [], []
    faults = Faults(training)
    for _ in range(times):
        node = rng.randint(1, nodes)
        count, since = len(training.log.of("recovered")), len(training.log.events)
        start = time.monotonic()
        faults.strike(how, node)
        event = training.wait_for("recovery", lambda: training.log.of("recovered")[count:])[0]
        told.append(event["seconds"])
        seen.append(event["seen"] - start)
        faults.heal(how, node)
        training.wait_members(since)
        training.wait_iterations(3)
    result = {
        "nodes": nodes,
        "fault": how,
        "seconds": told,
        "seen_s": seen,
        "median_s": statistics.median(told),
        "max_s": max(told),
    }
    print(
        "%5d %6s %6d  %10.3f %8.3f %8.3f"
        % (nodes, how, times, result["median_s"], result["max_s"], statistics.median(seen)),
        flush=True,
    )
    return result


# ---- scaling ----


def wide_net(layers, width, batch):
    """A chain of inner products: gradients without work, ready one after the other in backward."""
    text, bottom = 'name: "wide"\n' + harness.data_layer(batch), "data"
    for i in range(layers):
        text += harness.inner_product("ip%d" % i, bottom, width)
        text += 'layer { name: "relu%d" type: "ReLU" bottom: "ip%d" top: "ip%d" }\n' % (i, i, i)
        bottom = "ip%d" % i
    text += harness.inner_product("last", bottom, 10)
    text += 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "last" bottom: "label" '
    return text + 'top: "loss" }\n'


def scaling(arguments, open_lab):
    results = []
    for name in arguments.gradients:
        layers, width, pace = GRADIENTS[name]
        pace = arguments.pace or pace
        parameters = 784 * width + width + (layers - 1) * (width * width + width) + 10 * width + 10
        print(
            "\n%s: %.1f MB of gradients, %d images/s and %d images an iteration of each worker"
            % (name, parameters * 4e-6, pace, arguments.batch)
        )
        print(
            "%7s %6s  %9s %10s %12s %11s %13s"
            % (
                "workers",
                "Mbit/s",
                "images/s",
                "of linear",
                "reduces ms",
                "exposed ms",
                "ring bound ms",
            )
        )
        for mbit in arguments.mbit:
            for nodes in arguments.nodes:
                results.append(scale(arguments, open_lab, name, nodes, mbit, pace, parameters * 4))
    return results


def scale(arguments, open_lab, name, nodes, mbit, pace, size):
    layers, width, _ = GRADIENTS[name]
    batch = arguments.batch * nodes
    with Folder(arguments) as folder, open_lab(nodes + 1, mbit) as lab:
        harness.make_digits(folder)
        folder.write("net.prototxt", wide_net(layers, width, batch))
        folder.write("solver.prototxt", solver(base_lr=1e-6))
        training = Training(lab, folder, pace=pace, coordinator=["--wire=" + arguments.wire])
        training.wait_iterations(2)
        first = training.log.of("iteration")[-1]
        training.wait_iterations(arguments.iterations)
        done = training.log.of("iteration")
        # Without a snapshot: it is not what is measured.
        training.coordinator.kill()
    measured = [event for event in done if event["iter"] > first["iter"]]
    speed = batch * len(measured) / (measured[-1]["seen"] - first["seen"])
    bound = 2 * (nodes - 1) / nodes * size * 8 / (mbit * 1e3)
    result = {
        "gradients": name,
        "nodes": nodes,
        "mbit": mbit,
        "pace": pace,
        "batch": batch,
        "bytes": size,
        "images_per_s": speed,
        "efficiency": speed / (nodes * pace),
        "bound_ms": bound,
    }
    shown = []
    for key in ("communication_ms", "exposed_ms"):
        values = [event[key] for event in measured if event.get(key) is not None]
        result[key] = statistics.median(values) if values else None
        shown.append("%.0f" % result[key] if values else "-")
    print(
        "%7d %6g  %9.1f %9.1f%% %12s %11s %13.0f"
        % (nodes, mbit, speed, 100 * result["efficiency"], shown[0], shown[1], bound),
        flush=True,
    )
    return result


# ---- soak ----


def usage_of(pid):
    """RSS in KiB, descriptors and threads, or None when it is gone."""
    try:
        with open("/proc/%d/status" % pid) as f:
            fields = dict(line.split(":", 1) for line in f)
        return {
            "rss_kib": int(fields["VmRSS"].split()[0]),
            "threads": int(fields["Threads"]),
            "fds": len(os.listdir("/proc/%d/fd" % pid)),
        }
    except (OSError, KeyError):
        return None


class Watch:
    """What the coordinator and the steady workers use, over time."""

    def __init__(self, training, steady):
        self.training, self.steady = training, steady
        self.samples = {}

    def sample(self):
        processes = {"worker%d" % n: self.training.workers[n] for n in self.steady}
        for name, process in dict(processes, coordinator=self.training.coordinator).items():
            used = usage_of(process.pid) if process.poll() is None else None
            if used:
                self.samples.setdefault(name, []).append(dict(used, pid=process.pid))

    def growth(self):
        """By process: medians of the second and the last sixth of its samples."""
        found = {}
        for name, samples in self.samples.items():
            part = max(1, len(samples) // 6)
            for key in ("rss_kib", "fds", "threads"):
                early, late = (
                    statistics.median(s[key] for s in some)
                    for some in (samples[part : 2 * part] or samples, samples[-part:])
                )
                found.setdefault(name, {})[key] = [early, late]
        return found

    def complaints(self):
        for name, keys in self.growth().items():
            if len({sample["pid"] for sample in self.samples[name]}) > 1:
                yield "%s was started again by itself" % name
            for key, (early, late) in keys.items():
                # Of memory a tenth and 4 MB are the allocator's; a descriptor may be in between.
                allowed = early * 1.1 + 4096 if key == "rss_kib" else early + 2
                if late > allowed:
                    yield "%s grows: %s %g -> %g" % (name, key, early, late)


class Soak:
    """A fault every few seconds at a random healthy worker, for a random time. Workers 1 and 2 are
    never killed, so that growth has somewhere to show."""

    def __init__(self, arguments, training):
        self.arguments, self.training = arguments, training
        self.faults = Faults(training)
        self.rng = random.Random(arguments.seed)
        self.steady = [1, 2]
        self.watch = Watch(training, self.steady)
        self.ill = {}  # node -> (how, until)
        self.struck = {}
        self.exits = 0
        self.last_progress = (time.monotonic(), -1)
        self.longest_pause = 0

    def strike(self):
        count = self.training.count
        healthy = [n for n in range(1, count + 1) if n not in self.ill]
        how = self.rng.choice(self.arguments.faults)
        if how == "kill":
            healthy = [n for n in healthy if n not in self.steady]
        node, seconds = self.rng.choice(healthy or [0]), self.rng.uniform(0.3, 8)
        if not node or len(self.ill) >= count // 2:
            return
        self.faults.strike(how, node)
        self.ill[node] = how, time.monotonic() + seconds
        self.struck[how] = self.struck.get(how, 0) + 1

    def heal(self, everybody=False):
        for node, (how, until) in list(self.ill.items()):
            if everybody or time.monotonic() >= until:
                self.faults.heal(how, node)
                del self.ill[node]
        for node, process in self.training.workers.items():
            if node not in self.ill and process.poll() is not None:
                self.exits += 1
                self.training.workers[node] = self.training.start_worker(node)

    def check_progress(self):
        now, last = time.monotonic(), self.training.log.last_iteration()
        if last > self.last_progress[1]:
            self.longest_pause = max(self.longest_pause, now - self.last_progress[0])
            self.last_progress = now, last
        if self.training.coordinator.poll() is not None:
            raise Failed("the coordinator ended:\n" + self.training.told("coordinator"))
        if now - self.last_progress[0] > 60:
            raise Failed("no iteration for a minute:\n" + self.training.told("coordinator"))

    def run(self):
        self.last_progress = time.monotonic(), self.training.log.last_iteration()
        begin = strike_at = sample_at = report_at = time.monotonic()
        end = begin + 60 * self.arguments.minutes
        while time.monotonic() < end:
            self.heal()
            self.check_progress()
            now = time.monotonic()
            if now >= strike_at:
                self.strike()
                strike_at += self.arguments.every
            if now >= sample_at:
                self.watch.sample()
                sample_at += min(5, self.arguments.every)
            if now >= report_at:
                self.report(now - begin)
                report_at += 60
            time.sleep(0.05)
        self.heal(everybody=True)

    def report(self, elapsed):
        last = self.watch.samples.get("coordinator", [{}])[-1]
        print(
            "%5.1f min: iteration %d, faults %s, recoveries %d, exits %d, longest pause %.1f s, "
            "coordinator %s"
            % (
                elapsed / 60,
                self.last_progress[1],
                sum(self.struck.values()),
                len(self.training.log.of("recovered")),
                self.exits,
                self.longest_pause,
                " ".join("%s=%s" % (k, v) for k, v in last.items() if k != "pid"),
            ),
            flush=True,
        )


def unbroken(log):
    """None, or what is wrong with the iterations: each one exactly once, in their order."""
    numbers = [event["iter"] for event in log.of("iteration")]
    for i, (a, b) in enumerate(zip(numbers, numbers[1:])):
        if b != a + 1:
            return "iteration %d comes after %d (event %d)" % (b, a, i + 1)
    return None


def soak(arguments, open_lab):
    nodes, batch = arguments.nodes[0], 64
    with Folder(arguments) as folder, open_lab(nodes + 1, arguments.mbit[0]) as lab:
        harness.make_digits(folder, 2048, arguments.seed)
        folder.write("net.prototxt", harness.lenet(batch))
        folder.write(
            "solver.prototxt",
            solver(test_iter=128, test_interval=ENDLESS, test_initialization="false"),
        )
        training = Training(
            lab, folder, min_workers=2, pace=arguments.pace, coordinator=arguments.coordinator
        )
        training.wait_iterations(5)
        run = Soak(arguments, training)
        run.run()
        training.wait_iterations(20)
        training.stop()
        run.report(60 * arguments.minutes)
        complaints = list(run.watch.complaints())
        complaints += [text for text in [unbroken(training.log)] if text]
        accuracy = final_accuracy(folder)
        if accuracy < arguments.accuracy:
            complaints.append(
                "the accuracy is %.4f, not at least %g" % (accuracy, arguments.accuracy)
            )
        losses = [event["loss"] for event in training.log.of("iteration")]
        result = {
            "minutes": arguments.minutes,
            "nodes": nodes,
            "faults": run.struck,
            "exits": run.exits,
            "iterations": len(losses),
            "recovered_s": [e["seconds"] for e in training.log.of("recovered")],
            "longest_pause_s": run.longest_pause,
            "accuracy": accuracy,
            "loss": losses[-1],
            "growth": run.watch.growth(),
            "complaints": complaints,
        }
        for name, keys in result["growth"].items():
            print(
                "%-12s %s"
                % (name, "  ".join("%s %g -> %g" % (k, a, b) for k, (a, b) in keys.items()))
            )
        print("accuracy %.4f, loss %.3g after %d iterations" % (accuracy, losses[-1], len(losses)))
        for text in complaints:
            print("FAILED: " + text)
        if complaints:
            folder.keep = True
    return [result]


def final_accuracy(folder):
    """What `shoal test` says of the newest snapshot."""
    models = [name for name in os.listdir(folder.name) if name.endswith(".caffemodel")]
    if not models:
        raise Failed("there is no snapshot")
    newest = max(models, key=lambda name: os.path.getmtime(folder.path(name)))
    text = folder.run_shoal(
        "test", "--model=net.prototxt", "--weights=" + newest, "--iterations=128"
    )
    lines = [line for line in text.splitlines() if "accuracy = " in line]
    return float(lines[-1].rpartition("= ")[2])
