# SPDX-License-Identifier: Apache-2.0
"""A peer that knows the token and misbehaves (tests/tools/peer.c), as a guest that has only joined,
and as a member: that connection ends, the run never does, and what comes out is as if nothing had
been."""
import os
import sys
import unittest

import common  # finds harness
import harness

AT_ONCE = 8
SLOW = ("--pace=1000",)  # some wait for a time-out: no more iterations than needed are made

# The numbers of messages.h.
CHUNK, READY, REPORT, HEARTBEAT, PREPARED, HOLDINGS = 6, 8, 10, 12, 15, 19

MESSAGES = [
    "Report generation: 0 round: 0 loss: 1",
    "Report generation: 1 round: 0 loss: 1",
    "Report generation: 1 round: 18446744073709551615 loss: nan",
    "Report generation: 18446744073709551615 round: 5 loss: 1",
    "Ready generation: 0",
    "Ready generation: 1",
    "Ready generation: 1 version { held: true updates: 1000000 generation: 1 }",
    "Ready generation: 9 version { held: true updates: 1000000 generation: 7 }",
    "Prepared",
    "Prepared capacity: 4294967295",
    "Aborted generation: 1 suspect_rank: 0 text: 'x'",
    "Aborted generation: 7 suspect_rank: -2147483648 text: 'x'",
    "Fetch generation: 1 round: 3 batch: 0 indices: 0",
    "Fetch generation: 1 round: 0 batch: 4294967295 indices: 4294967295",
    "Chunk kind: CHUNK_WEIGHTS id: 3 offset: 0 total: 10 content: '0123456789'",
    "Chunk kind: CHUNK_STATE id: 0 offset: 18446744073709551615 total: 1 content: 'x'",
    "Chunk kind: CHUNK_JOB id: 0 offset: 0 total: 10 content: '0123456789'",
    "Holdings fingerprint: '0123456789abcdef' ranges: 1",
    "Heartbeat stage: STAGE_COMPUTING progress: 18446744073709551615 temperature: nan clock: -1 battery: -7",
    "Leave reason: 'a screen\\033[2J'",
    "Leave stopped: true",
    "Heartbeat duty: nan battery_temperature: inf remark: 'a\\nb'",
    "Stop reason: 'because I say so'",
    "Refuse reason: 'no' for_good: true forget: true",
    "Welcome worker_id: 0 session: 0",
    "Generation generation: 2",
    "Start generation: 1",
    "Round generation: 1 number: 5",
    "Samples generation: 1 round: 5",
]
FAILURES = ["Failure status: %d text: 'all is lost'" % n for n in range(-16, 3)]
FRAMES = ["garbage", "oversized", "plain", "replay", "reorder", "gap", "flip", "cut", "half", "drip"]


def peer_program():
    return os.path.join(os.path.dirname(harness.binary), "tests", "tools", "test_peer")


class Hostile(common.Cluster):
    timeout = "--heartbeat_timeout=5000"

    def peer(self, address, *flags):
        return self.start(
            "--token=" + common.TOKEN, "--name=hostile", *flags, address, program=peer_program()
        )

    def misbehave(self, address, deeds, seconds):
        """Runs peers to their end, several at a time; deed -> whether the coordinator has ended the
        connection."""
        closed, running = {}, []
        for deed in deeds:
            running.append((deed, self.peer(address, "--seconds=%g" % seconds, *deed)))
            if len(running) == AT_ONCE or deed is deeds[-1]:
                for one, peer in running:
                    code = peer.wait()
                    self.assertIn(code, (0, 3), (one, peer.text()))
                    closed[one] = code == 0
                running = []
        return closed

    def check_run(self, coordinator, workers, lost=()):
        self.wait_more(coordinator, 10)
        self.assertEqual(sorted(self.ranks(coordinator)), sorted(w.pid for w in workers))
        self.stop(coordinator, workers)
        self.check_lost(coordinator, list(lost))
        self.check_same(coordinator)


class Guests(Hostile):
    """They have joined, and are no members."""

    def attack(self, *deeds, seconds=3):
        coordinator, address, workers = self.begin_listening(
            self.timeout, workers=2, worker_flags=SLOW
        )
        closed = self.misbehave(address, deeds, seconds)
        self.assertEqual(len(coordinator.events("generation")), 1, coordinator.out()[-2000:])
        self.check_run(coordinator, workers)
        return closed

    def test_messages(self):
        deeds = [("--do=send", "--message=" + m) for m in MESSAGES + FAILURES]
        deeds.append(("--do=raw", "--type=%d" % HEARTBEAT, "--payload=0807"))  # stage: 7
        closed = self.attack(*deeds, seconds=0.3)
        for (deed, *what), ended in closed.items():
            # These may be said: late, or without a meaning for the run.
            harmless = ("Heartbeat", "Ready generation: 0", "Report generation: 0", "Aborted")
            if not what[0].partition("=")[2].startswith(harmless):
                self.assertTrue(ended, what)

    def test_payloads(self):
        """Random bytes as every kind of message, in messages of all sizes."""
        deeds = []
        for kind in list(range(0, 25)) + [255, 65535]:
            for length in (0, 1, 40, 5000):
                deeds.append(
                    ("--do=random", "--type=%d" % kind, "--length=%d" % length, "--seed=%d" % kind)
                )
        self.attack(*deeds, seconds=0.05)

    def test_frames(self):
        closed = self.attack(*[("--do=" + deed,) for deed in FRAMES], seconds=12)
        for deed in ("garbage", "oversized", "plain", "replay", "reorder", "gap", "flip", "half"):
            self.assertTrue(closed[("--do=" + deed,)], deed)

    def test_bombs(self):
        """Large messages of as many tiny fields as fit, and one after the other without a pause."""
        deeds = [("--do=bomb", "--type=%d" % kind, "--length=4000000") for kind in (CHUNK, READY, REPORT)]
        deeds += [("--do=flood", "--type=%d" % kind) for kind in (CHUNK, HEARTBEAT, HOLDINGS)]
        deeds += [("--do=deaf",), ("--do=silence",), ("--do=close",), ("--do=nothing",)]
        self.attack(*deeds, seconds=10)


class Members(Hostile):
    """They have got a rank."""

    def test_who_never_takes_part(self):
        """In the ring of a generation it does nothing, while its heartbeats go on."""
        for flags in ((), ("--ready",)):
            with self.subTest(flags=flags), self.inside("m%d" % len(flags)):
                self.empty = self.make("empty")
                self.write("net.prototxt", self.net())
                self.write("solver.prototxt", harness.solver(common.ENDLESS))
                coordinator, address, workers = self.begin_listening(
                    self.timeout, workers=3, worker_flags=SLOW
                )
                deed = ("--prepared=8",) + flags
                self.assertTrue(self.misbehave(address, [deed], 100)[deed], flags)
                self.wait_crew(coordinator, 3)
                self.wait_more(coordinator)
                self.stop(coordinator, workers)
                self.check_same(coordinator)


if __name__ == "__main__":
    if not os.path.exists(os.path.join(os.path.dirname(sys.argv[1]), "tests/tools/test_peer")):
        print("skipped: there is no test_peer beside the binary")
        sys.exit(harness.SKIPPED)
    harness.main()
