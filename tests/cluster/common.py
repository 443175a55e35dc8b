# SPDX-License-Identifier: Apache-2.0
"""Nets and checks of the cluster's tests."""
import math
import os
import re
import shutil
import signal
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import harness

WORKERS = (1, 2, 3, 4, 7)
ENDLESS = 100000000  # iterations of a run that a test ends

# Two sums of one gradient in different orders differ by 2 * 2^-24 * sqrt(n) of its size, n the
# longest reduction (see tests/golden/golden.py): batch 32 x 24 x 24 output pixels. The nets that
# are compared have no MAX and no ReLU, so nothing can switch and grow beyond that.
BOUND = 2 * 2.0**-24 * math.sqrt(32 * 24 * 24)


def smooth_net(batch, dropout=0.3, test_batch=16):
    """Convolution, mean pooling, dropout and inner products: smooth in all its weights."""
    text = harness.lenet(batch, dropout=True).replace("pool: MAX", "pool: AVE")
    text = text.replace("dropout_ratio: 0.4", "dropout_ratio: %g" % dropout)
    text = text.replace(
        'layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }\n', ""
    )
    return text.replace("batch_size: 16", "batch_size: %d" % test_batch)


def order_net(batch):
    """Tells which samples it got: `sum` is the sum of a sample's pixels, one output a sample."""
    return (
        'name: "order"\n'
        + harness.data_layer(batch, scale=1)
        + 'layer { name: "sum" type: "InnerProduct" bottom: "data" top: "sum" '
        "param { lr_mult: 0 } inner_product_param { num_output: 1 bias_term: false "
        'weight_filler { type: "constant" value: 1 } } }\n'
        + harness.inner_product("ip", "data", 10)
        + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" '
        'top: "loss" }\n'
    )


def sums_of(process):
    """What order_net printed: one list an iteration; None: nobody knows."""
    found, current = [], None
    for line in process.out().splitlines():
        if "] Iteration " in line and "loss" in line:
            current = []
            found.append(current)
        elif "]     Train net output" in line and ": sum = " in line:
            value = float(line.rpartition("= ")[2])
            current.append(None if math.isnan(value) else int(value))
    for event in process.events("final_loss"):  # only there
        found[-1] = [None if value is None else int(value) for value in event["outputs"]["sum"]]
    return found


def losses_of(process):
    return [e["loss"] for e in process.iterations()]


def check_close(case, want, got, bound=BOUND):
    """Two lists of losses."""
    case.assertEqual(len(want), len(got))
    for i, (a, b) in enumerate(zip(want, got)):
        error = abs(a - b) / max(1, abs(a))
        case.assertLessEqual(error, bound, "%d: %.9g, %.9g in one process" % (i, b, a))


def tests_of(process):
    return [(e["iter"], e["outputs"]) for e in process.events("test")]


def check_tests_close(case, want, got, bound=BOUND):
    case.assertEqual([i for i, _ in want], [i for i, _ in got])
    for (i, a), (_, b) in zip(want, got):
        case.assertEqual(sorted(a), sorted(b))
        for name in a:
            error = abs(a[name] - b[name]) / max(1, abs(a[name]))
            case.assertLessEqual(error, bound, "test %d: %s is %r, not %r" % (i, name, b, a))


def check_saved_close(case, want, got, floor, bound=BOUND):
    a, b = harness.Saved(want), harness.Saved(got)
    case.assertEqual(list(a.blobs), list(b.blobs))
    case.assertEqual(a.size, b.size)
    for name in a.blobs:
        error = harness.blob_error(a.blobs[name].data, b.blobs[name].data, floor)
        case.assertLessEqual(error, bound, name)


# ---- runs that are disturbed ----

TOKEN = "a-secret-of-the-tests-0123456789"
# Sanitizers on busy cores are slow: where it is not the subject, silence is no reason to be lost.
PATIENT = "--heartbeat_timeout=20000"
AHEAD = 4  # rounds that workers may be ahead of what the coordinator has written (its window)


def pid_of(member):
    """Of a worker in the log's `members`: its name ends with it."""
    return int(member["name"].rpartition("#")[2])


def poke(pid, pattern, new):
    """Writes `new` over the start of every `pattern` in the private memory of a process."""
    found = 0
    maps = harness.read_text("/proc/%d/maps" % pid)
    with open("/proc/%d/mem" % pid, "r+b", buffering=0) as memory:
        for line in maps.splitlines():
            words = line.split()
            if words[1] != "rw-p" or (len(words) > 5 and words[5].startswith("[v")):
                continue
            begin, end = (int(word, 16) for word in words[0].split("-"))
            if end - begin > 1 << 28:  # a sanitizer's shadow, not a small net
                continue
            try:
                memory.seek(begin)
                data = memory.read(end - begin)
            except (OSError, OverflowError):
                continue
            at = data.find(pattern)
            while at >= 0:
                memory.seek(begin + at)
                memory.write(new)
                found += 1
                at = data.find(pattern, at + 1)
    return found


class Cluster(harness.Case):
    """Runs without end of a small net, which a test disturbs, then stops, and compares with one that
    nobody disturbed."""

    batch = 28

    def net(self):
        return smooth_net(self.batch)

    def rates(self):
        """More of the solver."""
        return {}

    def setUp(self):
        super().setUp()
        self.sums = harness.make_digits(self)
        self.write("net.prototxt", self.net())
        self.write("solver.prototxt", harness.solver(ENDLESS, **self.rates()))
        self.empty = self.make("empty")  # a worker has no file

    # ---- beginning ----

    def begin(self, *flags, workers=3, solver="solver.prototxt"):
        """With workers of its own; returns the process and their pids by rank."""
        process = self.start_train(
            "--solver=" + solver,
            "--workers=%d" % workers,
            "--check_interval=1",
            *([] if any("heartbeat" in flag for flag in flags) else [PATIENT]),
            *flags
        )
        process.wait_iteration(7)
        return process, self.ranks(process)

    def listen(self, *flags, workers=2, solver="solver.prototxt", address="127.0.0.1:0", **how):
        return self.start_train(
            "--solver=" + solver,
            "--workers=%d" % workers,
            "--listen=" + address,
            "--check_interval=1",
            *([] if any("heartbeat" in flag for flag in flags) else [PATIENT]),
            *flags,
            environment={"SHOAL_TOKEN": how.pop("token", TOKEN)},
            **how
        )

    def address(self, coordinator):
        pattern = re.compile(r"Waiting for \d+ workers? at (\S+:\d+)\. ")
        return harness.wait_for(
            "the address", lambda: pattern.search(coordinator.out()), coordinator
        ).group(1)

    def join(self, address, *flags, token=TOKEN, **how):
        if not any(flag.startswith("--name") for flag in flags):
            flags += ("--name=w%d" % self.count,)
        return self.start(
            "worker",
            "--join=" + address,
            "--threads=1",
            *flags,
            folder=how.pop("folder", self.empty),
            environment=dict({"SHOAL_TOKEN": token}, **how.pop("environment", {})),
            **how
        )

    def begin_listening(self, *flags, workers=3, worker_flags=(), **how):
        """Returns the coordinator, its address, and the workers by rank."""
        coordinator = self.listen(*flags, workers=workers, **how)
        address = self.address(coordinator)
        joined = []
        for i in range(workers):  # one after the other: so the ranks are known
            joined.append(self.join(address, *worker_flags))
            self.wait_joined(coordinator, i + 1)
        coordinator.wait_iteration(7)
        return coordinator, address, joined

    def wait_joined(self, coordinator, number):
        """Until so many workers have joined, ever."""
        harness.wait_for(
            "worker %d" % number,
            lambda: len(coordinator.events("joined")) >= number,
            coordinator,
        )

    # ---- what is known of a run ----

    def ranks(self, process):
        """Pids of the workers of the last iteration, by rank."""
        return [pid_of(m) for m in process.iterations()[-1]["members"]]

    def wait_more(self, process, number=10):
        """So many further iterations."""
        done = process.iterations()
        process.wait_iteration(number + (done[-1]["iter"] if done else 0))

    def wait_crew(self, process, count):
        """An iteration that was done by so many workers, of those that are told from now on."""
        seen = len(process.iterations())

        def found():
            return [e for e in process.iterations()[seen:] if e["workers"] == count]

        return harness.wait_for("an iteration of %d workers" % count, found, process)

    def lost(self, process):
        return [e["text"] for e in process.events("lost")]

    def wait_lost(self, process, pids, reason=""):
        """Until exactly these are told to be lost, for this reason."""
        harness.wait_for(
            "loss of %s" % pids, lambda: len(self.lost(process)) >= len(pids), process
        )
        self.check_lost(process, pids, reason)

    def check_lost(self, process, pids, reason=""):
        texts = self.lost(process)
        named = [int(re.search(r"pid (\d+)\)", text).group(1)) for text in texts]
        self.assertEqual(sorted(named), sorted(pids), texts)
        for text in texts:
            self.assertIn(reason, text)

    # ---- the end ----

    def stop(self, coordinator, workers=()):
        """Asks it to end; how many updates were done."""
        coordinator.kill(signal.SIGINT)
        self.assertEqual(coordinator.wait(), 0, coordinator.text())
        self.assertIn("stopped on request", coordinator.err())
        for worker in workers:
            self.assertEqual(worker.wait(), 0, worker.text())
        return coordinator.iterations()[-1]["iter"] + 1

    def check_unbroken(self, *coordinators, first=0):
        """Each iteration once and in its turn. A coordinator that was killed may not have written
        the last few that its workers did."""
        expected = first
        for i, coordinator in enumerate(coordinators):
            told = [e["iter"] for e in coordinator.iterations()]
            if i > 0:
                self.assertGreaterEqual(told[0], expected)
                self.assertLessEqual(told[0], expected + AHEAD)
            else:
                self.assertEqual(told[0], expected)
            self.assertEqual(told, list(range(told[0], told[-1] + 1)))
            expected = told[-1] + 1
        return expected

    def undisturbed(self, updates, *flags):
        """One process that does so many updates, in a folder of its own."""
        name = "calm%d" % self.count
        where = self.make(name)
        os.symlink(self.path("digits"), os.path.join(where, "digits"))
        shutil.copy(self.path("net.prototxt"), where)
        self.write(
            os.path.join(name, "solver.prototxt"), harness.solver(updates, **self.rates())
        )
        return where, self.train("--solver=solver.prototxt", "--threads=1", *flags, folder=where)

    def partial(self, *coordinators):
        """Iterations whose loss is a mean over a part of the samples, as the log says: a worker was
        lost before it could say what came out, and that they are done is known from those that are
        left. That can only be while the others recover."""
        found = set()
        for coordinator in coordinators:
            recovering, told = False, 0
            for event in coordinator.events():
                recovering = (recovering or event["event"] == "lost") and (
                    event["event"] != "recovered"
                )
                if event["event"] == "iteration" and "samples" in event:
                    self.assertTrue(recovering, event)
                    self.assertLess(event["samples"], coordinator.events("start")[0]["batch"])
                    found.add(event["iter"])
                    told += 1
            self.assertLessEqual(told, AHEAD * len(self.lost(coordinator)))
        return found

    def check_losses(self, calm, *coordinators, bound=BOUND):
        want = {e["iter"]: e["loss"] for e in calm.iterations()}
        partial = self.partial(*coordinators)
        told = [e for c in coordinators for e in c.iterations() if e["iter"] not in partial]
        check_close(self, [want[e["iter"]] for e in told], [e["loss"] for e in told], bound)

    def check_same(self, *coordinators, bound=BOUND, floor=1e-2, flags=()):
        """What an undisturbed run of one process comes to, in all iterations and in the end: no
        update was lost, none was made twice."""
        updates = self.check_unbroken(*coordinators)
        where, calm = self.undisturbed(updates, *flags)
        self.check_losses(calm, *coordinators, bound=bound)
        for ending in (".caffemodel", ".solverstate"):
            file = "snap_iter_%d%s" % (updates, ending)
            check_saved_close(
                self, os.path.join(where, file), self.path(file), floor, bound
            )
        return updates

    def check_sums(self, *coordinators):
        """Of order_net: every iteration had its samples, each at its place."""
        n = len(self.sums)
        for coordinator in coordinators:
            # The forward pass after the last update is not of a run that was stopped. One that was
            # killed may have printed an iteration that is not in the log.
            told, partial = [e["iter"] for e in coordinator.iterations()], self.partial(coordinator)
            found = sums_of(coordinator)
            self.assertIn(len(found) - len(told), (0, 1) if coordinator.returncode else (0,))
            for at, sums in zip(told, found):
                want = [self.sums[(at * self.batch + k) % n] for k in range(self.batch)]
                if at in partial:
                    want = [s and w for w, s in zip(want, sums)]
                self.assertEqual(sums, want, "iteration %d" % at)
