#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a cluster does: its allreduce beside other libraries', how soon it goes on without a lost
worker, how it scales, and whether it stands an hour of failures. The machines are network
namespaces on this one (tests/netns.py), their links shaped; it needs root.

    cluster.py allreduce   Shoal's ring, Gloo, Open MPI and MPICH in turn, in the same lab
    cluster.py rates       what a plain TCP stream reaches over the shaped links
    cluster.py recovery    kill -9 of a worker to the first complete allreduce of the others
    cluster.py scaling     images/s and exposed communication of 1 to 16 workers
    cluster.py soak        kill -9, SIGSTOP and pulled cables for an hour"""
import argparse
import json
import os
import socket
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "tests"))
import netns

import cluster_allreduce
import cluster_training


def numbers(text):
    return [int(float(word)) for word in text.split(",")]


def words(text):
    return text.split(",")


def rates(arguments, open_lab):
    """TCP's own share of a link is at most 1448 / 1514: the headers are counted in its rate."""
    results = []
    for mbit in arguments.mbit:
        with open_lab(2, mbit) as lab:
            for seconds in (0.5, arguments.seconds):  # the first for the window to open
                reached = stream(lab, seconds)
        results.append({"mbit": mbit, "reached_mbit": reached, "congestion": lab.congestion})
        print(
            "%6g Mbit/s: a TCP stream (%s) carries %.1f Mbit/s, %.1f %%; headers leave 95.6 %%"
            % (mbit, lab.congestion, reached, 100 * reached / mbit),
            flush=True,
        )
    return results


def stream(lab, seconds):
    with lab.inside(1), socket.create_server((lab.address(1), 0)) as server, lab.inside(0):
        client = socket.create_connection(server.getsockname())
        server = server.accept()[0]
    stop = threading.Event()

    def send():
        block = bytes(1 << 20)
        while not stop.is_set():
            client.sendall(block)
        client.close()

    sender = threading.Thread(target=send)
    sender.start()
    got, begin = 0, time.monotonic()
    while time.monotonic() < begin + seconds:
        got += len(server.recv(1 << 20))
    took = time.monotonic() - begin
    stop.set()
    while server.recv(1 << 20):
        pass
    sender.join()
    server.close()
    return got * 8 / took / 1e6


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name, function, **defaults):
        added = commands.add_parser(name)
        added.set_defaults(function=function)
        added.add_argument(
            "--build", default=os.path.join(HERE, "..", "build"), help="build folder"
        )
        added.add_argument("--json", metavar="FILE", help="also write the results there")
        if "nodes" in defaults:
            added.add_argument("--nodes", type=numbers, default=defaults["nodes"])
        if "mbit" in defaults:
            added.add_argument(
                "--mbit", type=numbers, default=defaults["mbit"], help="rates of a node's link"
            )
        return added

    added = command("allreduce", cluster_allreduce.allreduce, nodes=[4, 8], mbit=[1000])
    added.add_argument("--bytes", type=float, default=100e6)
    added.add_argument("--buckets", type=numbers, default=[1, 25])
    added.add_argument(
        "--engines",
        type=words,
        default=["shoal", "gloo", "openmpi-ring", "mpich-ring"],
        help="of shoal[-fp16|-bf16][-encrypt], gloo, openmpi, mpich, each also with -serial "
        "(one bucket at a time), the MPIs with -ring (default: %(default)s)",
    )
    added.add_argument("--repeat", type=int, default=5, help="rounds, in which all have their turn")
    added = command("rates", rates, mbit=[100, 1000])
    added.add_argument("--seconds", type=float, default=3)

    added = command("recovery", cluster_training.recovery, nodes=[8, 16, 64, 138], mbit=[1000])
    added.add_argument("--times", type=int, default=10, help="losses of each kind")
    added.add_argument(
        "--faults", type=words, default=["kill"], help="of kill,stop,link,half (%(default)s)"
    )
    training(added)
    added = command("scaling", cluster_training.scaling, nodes=[1, 2, 4, 8, 16], mbit=[100, 1000])
    added.add_argument("--gradients", type=words, default=["resnet50", "mobilenet"])
    added.add_argument("--batch", type=int, default=8, help="images of a worker's iteration")
    added.add_argument(
        "--pace", type=int, default=0, help="images/s of a worker (default: a phone's)"
    )
    added.add_argument("--iterations", type=int, default=6, help="that are measured, after two")
    added.add_argument("--wire", default="fp32", help="fp32, fp16 or bf16")
    training(added)
    added = command("soak", cluster_training.soak, nodes=[8], mbit=[1000])
    added.add_argument("--minutes", type=float, default=60)
    added.add_argument("--every", type=float, default=5, help="seconds between two faults")
    added.add_argument("--faults", type=words, default=["kill", "stop", "link", "half"])
    added.add_argument("--pace", type=int, default=100, help="images/s of a worker")
    added.add_argument("--accuracy", type=float, default=0.95, help="that the model must reach")
    added.add_argument(
        "--coordinator", type=words, default=[], metavar="FLAG,...", help="more flags for it"
    )
    training(added)
    return parser.parse_args()


def training(parser):
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="leave the files of the runs")


def main():
    arguments = parse()
    usable, reason = netns.available()
    if not usable:
        sys.exit("cluster.py: " + reason)
    try:
        results = arguments.function(arguments, lambda nodes, mbit: netns.Lab(nodes, mbit=mbit))
    except cluster_training.Failed as failure:
        sys.exit("cluster.py: %s" % failure)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as f:
            json.dump({arguments.command: results}, f, indent=1)
            f.write("\n")
    # A soak tells what went wrong in the end.
    sys.exit(any(result.get("complaints") for result in results))


if __name__ == "__main__":
    main()
