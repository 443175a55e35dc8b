# SPDX-License-Identifier: Apache-2.0
"""Machines and cables that fail: real processes in network namespaces. Each run goes on, and ends
with what an undisturbed run comes to."""
import os
import signal
import sys
import time

import common  # finds harness and netns
import harness
import netns

PORT = 4710


class Lab(common.Cluster):
    """The coordinator is node 0, worker i is node i + 1."""

    def make_lab(self, workers, **how):
        lab = netns.Lab(workers + 1, **how)
        self.addCleanup(lab.close)
        return lab

    def listen_on(self, lab, *flags, workers):
        return self.listen(
            *flags,
            workers=workers,
            address="%s:%d" % (lab.address(0), PORT),
            prefix=lab.command(0),
        )

    def join_on(self, lab, node, *flags):
        return self.join(
            "%s:%d" % (lab.address(0), PORT),
            "--name=node%d" % node,
            *flags,
            prefix=lab.command(node)
        )

    def begin_on(self, lab, *flags, workers, pace=600):
        """Node by node, so the ranks are known; slow enough for what is silent to be found after
        not too many iterations."""
        coordinator = self.listen_on(lab, *flags, workers=workers)
        self.address(coordinator)
        joined = []
        for i in range(workers):
            joined.append(self.join_on(lab, i + 1, "--pace=%d" % pace))
            self.wait_joined(coordinator, i + 1)
        coordinator.wait_iteration(5)
        return coordinator, joined

    def tearDown(self):
        for process in self.running:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)
        super().tearDown()


class Cables(Lab):
    timeout = "--heartbeat_timeout=2000"

    def check_loss(self, break_link, mend, reason="no sign of life"):
        """Worker 1 of 4 is cut off: it is lost, the others go on; then it comes back by itself."""
        lab = self.make_lab(4)
        coordinator, workers = self.begin_on(lab, self.timeout, workers=4)
        break_link(lab)
        self.wait_lost(coordinator, [workers[1].pid], reason)
        self.wait_more(coordinator)
        self.assertEqual(
            self.ranks(coordinator), [w.pid for w in workers if w is not workers[1]]
        )
        mend(lab)
        self.wait_crew(coordinator, 4)
        self.assertEqual(sorted(self.ranks(coordinator)), sorted(w.pid for w in workers))
        self.wait_more(coordinator)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_cable_pulled(self):
        self.check_loss(lambda lab: lab.link_down(2), lambda lab: lab.link_up(2))

    def test_half_open(self):
        """Nobody hears it, but it hears all."""
        self.check_loss(lambda lab: lab.half_open(2), lambda lab: lab.mend(2))

    def test_deaf(self):
        """All hear it, but it hears nobody. Its heartbeats go on."""
        lab = self.make_lab(4)
        coordinator, workers = self.begin_on(lab, self.timeout, workers=4)
        for node in (0, 1, 3, 4):
            lab.drop(node, 2)
        self.wait_lost(coordinator, [workers[1].pid], "")
        self.wait_more(coordinator)
        lab.mend(2)
        self.wait_crew(coordinator, 4)
        self.wait_more(coordinator)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_link_between_two_neighbours(self):
        """Both reach all others: they are put apart in the ring, and nobody is lost."""
        lab = self.make_lab(4)
        coordinator, workers = self.begin_on(lab, self.timeout, workers=4)
        lab.cut(2, 3)
        seen = len(coordinator.events("generation"))
        harness.wait_for(
            "another ring", lambda: len(coordinator.events("generation")) > seen, coordinator
        )
        self.wait_more(coordinator)
        ranks = self.ranks(coordinator)
        self.check_lost(coordinator, [])
        self.assertEqual(sorted(ranks), sorted(w.pid for w in workers))
        places = [ranks.index(workers[i].pid) for i in (1, 2)]
        self.assertEqual(abs(places[0] - places[1]), 2)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_link_between_the_only_two(self):
        """One of them has to go; it is tried again and again, and training goes on between."""
        lab = self.make_lab(2)
        coordinator, workers = self.begin_on(lab, self.timeout, workers=2)
        lab.cut(1, 2)
        self.wait_crew(coordinator, 1)
        self.wait_more(coordinator)
        lab.heal(1, 2)
        self.wait_crew(coordinator, 2)
        self.wait_more(coordinator)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_cable_pulled_for_a_moment(self):
        """Shorter than any time-out: TCP repeats what was lost, and nobody notices."""
        lab = self.make_lab(3)
        coordinator, workers = self.begin_on(lab, "--heartbeat_timeout=20000", workers=3)
        lab.link_down(2)
        time.sleep(0.4)
        lab.link_up(2)
        self.wait_more(coordinator, 20)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_half_of_the_cluster(self):
        """Two of four cables at once."""
        lab = self.make_lab(4)
        coordinator, workers = self.begin_on(lab, self.timeout, workers=4)
        lab.link_down(1)
        lab.link_down(3)
        self.wait_lost(coordinator, [workers[0].pid, workers[2].pid])
        self.wait_more(coordinator)
        lab.link_up(1)
        lab.link_up(3)
        self.wait_crew(coordinator, 4)
        self.wait_more(coordinator)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_coordinator_s_cable(self):
        """Nobody reaches it for a while, longer than the time-out: all are lost, keep their state,
        and come back."""
        lab = self.make_lab(3)
        coordinator, workers = self.begin_on(lab, self.timeout, workers=3)
        lab.link_down(0)
        harness.wait_for("a pause", lambda: coordinator.events("paused"), coordinator)
        lab.link_up(0)
        self.wait_crew(coordinator, 3)
        self.wait_more(coordinator)
        self.assertEqual(sorted(self.ranks(coordinator)), sorted(w.pid for w in workers))
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_coordinator_s_cable_for_a_moment(self):
        lab = self.make_lab(3)
        coordinator, workers = self.begin_on(lab, "--heartbeat_timeout=20000", workers=3)
        lab.link_down(0)
        time.sleep(0.5)
        lab.link_up(0)
        self.wait_more(coordinator, 20)
        self.stop(coordinator, workers)
        self.check_lost(coordinator, [])
        self.check_same(coordinator)


class Processes(Lab):
    def test_killed_and_stopped(self):
        lab = self.make_lab(5)
        coordinator, workers = self.begin_on(lab, "--heartbeat_timeout=2000", workers=4)
        workers[3].kill(signal.SIGKILL)
        workers[3].wait()
        self.wait_crew(coordinator, 3)
        workers[0].kill(signal.SIGSTOP)
        self.wait_crew(coordinator, 2)
        workers[3] = self.join_on(lab, 5, "--pace=600")
        self.wait_crew(coordinator, 3)
        workers[0].kill(signal.SIGCONT)
        self.wait_crew(coordinator, 4)
        self.wait_more(coordinator)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_frozen_main_thread(self):
        """Its heartbeats go on, but it does not get on: while it computes, in the ring, anywhere."""
        lab = self.make_lab(3)
        coordinator, workers = self.begin_on(
            lab, "--stall-timeout=2000", "--heartbeat_timeout=3000", workers=3
        )
        victim = workers[1]
        frozen = netns.freeze_thread(victim.pid, victim.pid)
        self.wait_lost(coordinator, [victim.pid])  # for one of several reasons
        self.wait_more(coordinator)
        frozen.thaw()
        self.wait_crew(coordinator, 3)
        self.wait_more(coordinator)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_frozen_link_thread(self):
        """Nothing is heard of it, though it would compute."""
        lab = self.make_lab(3)
        coordinator, workers = self.begin_on(lab, "--heartbeat_timeout=2000", workers=3)
        victim = workers[1]
        others = [t for t in netns.threads(victim.pid) if t != victim.pid]
        frozen = [netns.freeze_thread(victim.pid, t) for t in others]
        self.wait_lost(coordinator, [victim.pid], "no sign of life")
        self.wait_more(coordinator)
        for one in frozen:
            one.thaw()
        self.wait_crew(coordinator, 3)
        self.wait_more(coordinator)
        self.stop(coordinator, workers)
        self.check_same(coordinator)

    def test_killed_coordinator(self):
        lab = self.make_lab(3)
        coordinator, workers = self.begin_on(lab, common.PATIENT, workers=3)
        coordinator.kill(signal.SIGKILL)
        coordinator.wait()
        again = self.listen_on(lab, "--resume", workers=3)
        self.wait_crew(again, 3)
        self.wait_more(again)
        self.stop(again, workers)
        self.check_same(coordinator, again)

    def test_coordinator_moved_off_the_network_and_killed(self):
        """Its connections never end with a FIN; workers find the new one all the same."""
        lab = self.make_lab(3)
        coordinator, workers = self.begin_on(lab, "--heartbeat_timeout=2000", workers=3)
        lab.link_down(0)
        coordinator.kill(signal.SIGKILL)
        coordinator.wait()
        lab.link_up(0)
        again = self.listen_on(lab, "--resume", workers=3)
        self.wait_crew(again, 3)
        self.wait_more(again)
        self.stop(again, workers)
        self.check_same(coordinator, again)


class Many(Lab):
    """As many workers as there may be phones in a school."""

    batch = 144
    many = 138

    def net(self):
        return (
            'name: "tiny"\n'
            + harness.data_layer(self.batch)
            + harness.inner_product("ip", "data", 10)
            + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" '
            'top: "loss" }\n'
        )

    def start_workers(self, lab, nodes):
        return {
            node: self.join_on(lab, node, "--cache-size=0", "--cpu=c") for node in nodes
        }

    def test_lose_many_and_regain_them(self):
        if os.environ.get("SHOAL_TEST_BRIEF") == "1" or harness.is_sanitized():
            self.skipTest("too slow under sanitizers")
        lab = self.make_lab(self.many)
        coordinator = self.listen_on(
            lab, "--heartbeat_timeout=20000", "--cpu=c", workers=self.many
        )
        self.address(coordinator)
        workers = self.start_workers(lab, range(1, self.many + 1))
        coordinator.wait_iteration(5)
        self.assertEqual(coordinator.iterations()[-1]["workers"], self.many)
        gone = list(range(7, 137, 7))[:18] + [1, self.many]
        for node in gone:
            workers[node].kill(signal.SIGKILL)
        for node in gone:
            workers[node].wait()
        self.wait_crew(coordinator, self.many - 20)
        self.wait_more(coordinator, 5)
        workers.update(self.start_workers(lab, gone))
        self.wait_crew(coordinator, self.many)
        self.wait_more(coordinator, 5)
        self.stop(coordinator, workers.values())
        self.assertEqual(len(self.lost(coordinator)), 20)
        self.check_same(coordinator)


if __name__ == "__main__":
    usable, reason = netns.available()
    if not usable:
        print("skipped: no network namespaces: " + reason)
        sys.exit(harness.SKIPPED)
    harness.main()
