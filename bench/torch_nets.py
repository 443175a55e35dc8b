# SPDX-License-Identifier: Apache-2.0
"""Times training in PyTorch, for bench/run.py: the nets of `shoal init`, defined with torch alone.

    torch_nets.py NET --batch=N --threads=N --seconds=S [--channels-last]

Forward, backward and an SGD update with momentum in float32 on random images; prints one JSON
object. At least two iterations are timed, after one that is not.
"""
import argparse
import json
import time

import torch
from torch import nn


def conv_norm(inputs, outputs, kernel, stride=1, groups=1, relu=True, bias=False):
    layers = [nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias),
              nn.BatchNorm2d(outputs)]
    return layers + [nn.ReLU(inplace=True)] if relu else layers


class Block(nn.Module):
    """A bottleneck (He et al. 2015, figure 5); the stride is in the 1x1 (v1) or the 3x3 (v1.5)."""

    def __init__(self, inputs, width, stride, modern):
        super().__init__()
        first, second = (1, stride) if modern else (stride, 1)
        self.branch = nn.Sequential(*conv_norm(inputs, width, 1, first),
                                    *conv_norm(width, width, 3, second),
                                    *conv_norm(width, 4 * width, 1, relu=False))
        self.side = None
        if stride != 1 or inputs != 4 * width:
            self.side = nn.Sequential(*conv_norm(inputs, 4 * width, 1, stride, relu=False))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.relu(self.branch(x) + (self.side(x) if self.side else x))


def resnet(modern):
    pool = nn.MaxPool2d(3, 2, 1) if modern else nn.MaxPool2d(3, 2, ceil_mode=True)
    layers = conv_norm(3, 64, 7, 2, bias=not modern) + [pool]
    channels = 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        for block in range(blocks):
            width = 64 << stage
            layers.append(Block(channels, width, 2 if stage and not block else 1, modern))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000))


def mobilenet():
    layers = conv_norm(3, 32, 3, 2)
    channels = 32
    pairs = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + 5 * [(512, 1)]
    for outputs, stride in pairs + [(1024, 2), (1024, 1)]:
        layers += conv_norm(channels, channels, 3, stride, channels)
        layers += conv_norm(channels, outputs, 1)
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 1000, 1),
                         nn.Flatten())


def alexnet():
    def relu():
        return nn.ReLU(inplace=True)

    def pool():
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    def norm():
        return nn.LocalResponseNorm(5, 1e-4, 0.75, 1)

    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4), relu(), norm(), pool(),
        nn.Conv2d(96, 256, 5, 1, 2, groups=2), relu(), norm(), pool(),
        nn.Conv2d(256, 384, 3, 1, 1), relu(),
        nn.Conv2d(384, 384, 3, 1, 1, groups=2), relu(),
        nn.Conv2d(384, 256, 3, 1, 1, groups=2), relu(), pool(), nn.Flatten(),
        nn.Linear(9216, 4096), relu(), nn.Dropout(0.5),
        nn.Linear(4096, 4096), relu(), nn.Dropout(0.5), nn.Linear(4096, 1000))


def lenet():
    return nn.Sequential(nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(800, 500),
                         nn.ReLU(inplace=True), nn.Linear(500, 10))


# Name: net, shape of an image, classes, weights.
NETS = {
    "resnet50": (lambda: resnet(True), (3, 224, 224), 1000, 25557032),
    "resnet50_v1": (lambda: resnet(False), (3, 224, 224), 1000, 25557096),
    "mobilenet_v1": (mobilenet, (3, 224, 224), 1000, 4231976),
    "alexnet": (alexnet, (3, 227, 227), 1000, 60965224),
    "lenet": (lenet, (1, 28, 28), 10, 431080),
}


def build(name, batch, channels_last):
    make, shape, classes, weights = NETS[name]
    net = make().train()
    if sum(p.numel() for p in net.parameters()) != weights:
        raise SystemExit("%s is not the same net as Shoal's" % name)
    images = torch.randn(batch, *shape)
    if channels_last:
        net = net.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    return net, images, torch.randint(0, classes, (batch,))


def measure(net, images, labels, seconds):
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    loss = nn.CrossEntropyLoss()

    def iterate():
        optimizer.zero_grad(set_to_none=True)
        loss(net(images), labels).backward()
        optimizer.step()

    iterate()
    start, iterations = time.perf_counter(), 0
    while iterations < 2 or time.perf_counter() - start < seconds:
        iterate()
        iterations += 1
    return (time.perf_counter() - start) / iterations, iterations


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("net", choices=sorted(NETS))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--channels-last", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    net, images, labels = build(arguments.net, arguments.batch, arguments.channels_last)
    seconds, iterations = measure(net, images, labels, arguments.seconds)
    print(json.dumps({"images_per_s": arguments.batch / seconds, "iterations": iterations,
                      "version": torch.__version__}))


if __name__ == "__main__":
    main()
