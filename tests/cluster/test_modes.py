# SPDX-License-Identifier: Apache-2.0
"""All that a cluster can do otherwise (16 bits on the wire, encryption, shuffled records, caches,
iterations of several passes, statistics), each with workers that are killed in the middle."""
import glob
import os
import signal

import common
import harness


class Disturbed(common.Cluster):
    def disturbed(self, *flags):
        """A run that loses two of four own workers."""
        process, workers = self.begin(*flags, workers=4)
        for index in (1, 3):
            os.kill(workers[index], signal.SIGKILL)
            self.wait_more(process, 15)
        self.assertEqual(self.ranks(process), [workers[0], workers[2]])
        self.stop(process)
        self.check_lost(process, [workers[1], workers[3]])
        return process


class Modes(Disturbed):
    def test_encrypted(self):
        self.check_same(self.disturbed("--encrypt"))

    def test_16_bits(self):
        """Rounding is given back with the next gradient, so a run stays near the exact one; all
        replicas round alike, or the comparison of each iteration would have dropped some."""
        process, _ = self.begin(workers=4)
        self.stop(process)
        whole = self.reduced(process)
        for wire, bits in (("fp16", 11), ("bf16", 8)):
            for encrypt in ((), ("--encrypt",)):
                with self.subTest(wire=wire, encrypt=encrypt), self.inside(wire + "-".join(encrypt)):
                    self.write("net.prototxt", self.net())
                    self.write("solver.prototxt", harness.solver(common.ENDLESS))
                    process = self.disturbed("--wire=" + wire, *encrypt)
                    self.check_unbroken(process)
                    updates = process.iterations()[-1]["iter"] + 1
                    where, calm = self.undisturbed(updates)
                    self.check_losses(calm, process, bound=4 * 2.0**-bits)
                    self.assertLess(self.reduced(process), 0.6 * whole)

    def reduced(self, process):
        """MB that a worker of four sends an iteration, when no state is sent."""
        return min(e["reduced_mb"] for e in process.iterations() if e["workers"] == 4)

    def test_shuffled(self):
        for order in ("global", "shard"):
            with self.subTest(order=order), self.inside(order):
                self.write("net.prototxt", self.net())
                self.write("solver.prototxt", harness.solver(common.ENDLESS))
                flag = "--shuffle=" + order
                self.check_same(self.disturbed(flag), flags=(flag,))

    def test_iterations_of_several_passes(self):
        """Killed in the middle of an iteration, which is then done anew from its first pass."""
        self.write("solver.prototxt", harness.solver(common.ENDLESS, iter_size=4, clip_gradients=2))
        process = self.disturbed()
        self.write(
            "calm.prototxt",
            harness.solver(
                self.check_unbroken(process), prefix="calm", iter_size=4, clip_gradients=2
            ),
        )
        calm = self.train("--solver=calm.prototxt", "--threads=1")
        self.check_losses(calm, process)

    def test_all_at_once(self):
        process = self.disturbed("--encrypt", "--wire=fp16", "--shuffle=shard")
        updates = self.check_unbroken(process)
        where, calm = self.undisturbed(updates, "--shuffle=shard")
        self.check_losses(calm, process, bound=4 * 2.0**-11)


class Statistics(Disturbed):
    """Batch normalisation: its means are over a worker's share, so a run is another one with other
    shares. But all replicas hold the same, and nothing is lost: it learns."""

    def net(self):
        normalise = (
            'layer { name: "bn" type: "BatchNorm" bottom: "conv1" top: "conv1" }\n'
            'layer { name: "scale" type: "Scale" bottom: "conv1" top: "conv1" '
            "scale_param { bias_term: true } }\n"
        )
        text = harness.lenet(self.batch)
        at = text.index('layer { name: "conv1_pool"')
        return text[:at] + normalise + text[at:]

    def check_same(self, *coordinators, **_):
        self.check_unbroken(*coordinators)
        losses = [e["loss"] for c in coordinators for e in c.iterations()]
        self.assertLess(sum(losses[-5:]), 0.7 * sum(losses[:5]))

    def test_statistics(self):
        self.check_same(self.disturbed())

    def test_statistics_and_16_bits(self):
        self.check_same(self.disturbed("--wire=bf16", "--encrypt"))

    def test_who_comes_back_gets_them(self):
        coordinator, address, workers = self.begin_listening()
        for _ in range(2):
            victim = workers.pop(0)
            victim.kill(signal.SIGKILL)
            victim.wait()
            self.wait_crew(coordinator, 2)
            workers.append(self.join(address))
            self.wait_crew(coordinator, 3)
            self.wait_more(coordinator, 15)
        self.stop(coordinator, workers)
        self.check_same(coordinator)


class Order(common.Cluster):
    """Shuffled, with a net that tells which samples it got."""

    def net(self):
        return common.order_net(self.batch)

    def rates(self):
        return dict(base_lr=0)

    def test_shuffled(self):
        for order in ("global", "shard"):
            with self.subTest(order=order), self.inside(order):
                self.empty = self.make("empty")
                self.write("net.prototxt", self.net())
                self.write("solver.prototxt", harness.solver(common.ENDLESS, **self.rates()))
                flag = "--shuffle=" + order
                coordinator, address, workers = self.begin_listening(flag)
                for _ in range(2):
                    victim = workers.pop(1)
                    victim.kill(signal.SIGKILL)
                    victim.wait()
                    self.wait_more(coordinator, 12)
                    workers.append(self.join(address))
                    self.wait_crew(coordinator, 3)
                    self.wait_more(coordinator, 12)
                updates = self.stop(coordinator, workers)
                self.check_unbroken(coordinator)
                _, calm = self.undisturbed(updates, flag)
                want, partial = common.sums_of(calm), self.partial(coordinator)
                for at, got in enumerate(common.sums_of(coordinator)):
                    if at in partial:
                        self.assertEqual([w for w, g in zip(want[at], got) if g is not None],
                                         [g for g in got if g is not None])
                    else:
                        self.assertEqual(got, want[at], "iteration %d" % at)
                # Another order than the records have, and in every epoch each record once.
                n = len(self.sums)
                flat = [s for sums in want[: updates + 1] for s in sums]
                self.assertNotEqual(flat[:n], self.sums)
                if order == "global":
                    for e in range(len(flat) // n):
                        self.assertEqual(sorted(flat[e * n : (e + 1) * n]), sorted(self.sums))


class Caches(common.Cluster):
    """256 samples; a batch of 28: from the tenth iteration on all have been somewhere."""

    epoch = 10

    def rates(self):
        return {}

    def cached(self, process, first=0, count=None):
        """MB of samples that were sent in so many iterations, and the part that was there already
        where any were needed (what is sent ahead counts when it is sent)."""
        told = process.iterations()[first:]
        told = told[:count] if count else told
        parts = [e["cached"] for e in told if e["samples_mb"] > 0 or e["cached"] > 0]
        return sum(e["samples_mb"] for e in told), sum(parts) / max(1, len(parts))

    def wait_epochs(self, coordinator, count=2):
        self.wait_more(coordinator, count * self.epoch)

    def begin_cached(self, *flags, workers=1, size="1M"):
        # Shares that follow speeds would move samples.
        coordinator = self.listen("--balance=off", *flags, workers=workers)
        self.where = self.address(coordinator)
        joined = []
        for i in range(workers):
            joined.append(self.join_cached(i, size))
            self.wait_joined(coordinator, i + 1)
        coordinator.wait_iteration(7)
        return coordinator, joined

    def join_cached(self, number, size="1M"):
        return self.join(
            self.where,
            "--name=c%d" % number,
            "--cache-dir=" + self.path("cache%d" % number),
            "--cache-size=" + size,
        )

    def test_second_epoch(self):
        """Samples stay with the workers that have got them, as far as the shares allow that."""
        coordinator, workers = self.begin_cached(workers=3)
        self.wait_epochs(coordinator)
        self.stop(coordinator, workers)
        first, last = self.cached(coordinator, 0, 8), self.cached(coordinator, -8)
        self.assertLess(last[0], 0.25 * first[0])
        self.assertGreater(last[1], 0.75)
        self.check_same(coordinator)

    def test_only_worker_restarted(self):
        """Its memory is gone, its folder is not: the run begins anew, and no sample is sent."""
        coordinator, workers = self.begin_cached()
        self.wait_epochs(coordinator)
        workers[0].kill(signal.SIGKILL)
        workers[0].wait()
        done = len(coordinator.iterations())
        worker = self.join_cached(0)
        harness.wait_for(
            "more", lambda: len(coordinator.iterations()) > done + self.epoch, coordinator
        )
        self.stop(coordinator, [worker])
        told = coordinator.iterations()
        self.assertEqual(told[done]["iter"], 0)
        self.assertEqual(self.cached(coordinator, done + 1), (0, 1))
        _, calm = self.undisturbed(len(told))
        self.check_losses(calm, coordinator)

    def test_one_of_three_restarted(self):
        for flags in ((), ("--shuffle=shard",)):
            with self.subTest(flags=flags), self.inside("o%d" % len(flags)):
                self.empty = self.make("empty")
                self.write("net.prototxt", self.net())
                self.write("solver.prototxt", harness.solver(common.ENDLESS))
                coordinator, workers = self.begin_cached(*flags, workers=3)
                self.wait_epochs(coordinator)
                workers[1].kill(signal.SIGKILL)
                workers[1].wait()
                self.wait_crew(coordinator, 2)
                self.wait_epochs(coordinator)
                workers[1] = self.join_cached(1)
                self.wait_crew(coordinator, 3)
                # The others hold all by now; it brings its own part, or gets what it has to do.
                # Shares may still change a little, and what moves is sent.
                self.wait_epochs(coordinator, 3)
                self.assertGreater(self.cached(coordinator, -8)[1], 0.75)
                self.stop(coordinator, workers)
                self.check_same(coordinator, flags=flags)

    def test_too_small(self):
        """Room for some of the samples: the others are sent each time."""
        coordinator, workers = self.begin_cached(workers=2, size="64K")
        self.wait_epochs(coordinator, 3)
        self.stop(coordinator, workers)
        self.check_same(coordinator)
        for folder in glob.glob(self.path("cache*")):
            size = sum(
                os.stat(os.path.join(at, f)).st_blocks * 512
                for at, _, files in os.walk(folder)
                for f in files
            )
            self.assertLess(size, 2 * 65536)
        self.assertLess(self.cached(coordinator, -8)[1], 1)

    def damage(self, how):
        """Changes every file of the caches; how many."""
        count = 0
        for at, _, files in os.walk(self.path("cache0")):
            for name in files:
                path = os.path.join(at, name)
                data = bytearray(harness.read_bytes(path))
                how(data)
                with open(path, "wb") as f:
                    f.write(data)
                count += 1
        return count

    def test_damaged(self):
        """What was changed behind its back is not believed."""

        def flip(data):
            for i in range(0, len(data), 97):
                data[i] ^= 0x10

        def cut(data):
            del data[len(data) * 2 // 3 :]

        def clear(data):
            data.clear()

        def fill(data):
            data[:] = b"\xff" * len(data)

        def tail(data):
            data += b"\x00garbage" * 100

        for how in (flip, cut, clear, fill, tail):
            with self.subTest(how=how.__name__), self.inside(how.__name__):
                self.empty = self.make("empty")
                self.write("net.prototxt", self.net())
                self.write("solver.prototxt", harness.solver(common.ENDLESS))
                coordinator, workers = self.begin_cached()
                self.wait_epochs(coordinator)
                workers[0].kill(signal.SIGKILL)
                workers[0].wait()
                self.assertGreater(self.damage(how), 0)
                done = len(coordinator.iterations())
                worker = self.join_cached(0)
                harness.wait_for(
                    "more", lambda: len(coordinator.iterations()) > done + self.epoch, coordinator
                )
                self.stop(coordinator, [worker])
                _, calm = self.undisturbed(len(coordinator.iterations()))
                self.check_losses(calm, coordinator)

    def test_one_folder_for_two(self):
        """The second one may not use it, and says so, or works without."""
        coordinator, workers = self.begin_cached()
        second = self.join_cached(0)
        harness.wait_for(
            "either",
            lambda: second.poll() is not None or coordinator.iterations()[-1]["workers"] == 2,
            coordinator,
        )
        self.wait_epochs(coordinator)
        self.stop(coordinator, workers)
        if second.wait():
            self.assertIn("cache0", second.err())
        self.check_same(coordinator)


if __name__ == "__main__":
    harness.main()
