#!/usr/bin/env python3
"""Prints the golden numbers of core/src/ring.rs, made from the description at its head alone."""

from decimal import Decimal, getcontext
from uuid import UUID

M = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
getcontext().prec = 60


def mix(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & M
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & M
    return x ^ (x >> 31)


def hash64(data):
    h = (len(data) * GOLDEN) & M
    for at in range(0, len(data), 8):
        word = int.from_bytes(data[at : at + 8].ljust(8, b"\0"), "little")
        h = (mix(h ^ word) + GOLDEN) & M
    return mix(h)


# Cut off after 32 bits behind the point.
TABLE = [int((Decimal(256 + i) / 256).ln() / Decimal(2).ln() * 2**32) for i in range(257)]


def distance(pair):
    number = pair + 1
    if number == 1 << 64:
        return 0
    highest = number.bit_length() - 1
    below = (number << (63 - highest)) - (1 << 63)
    index, within = below >> 55, (below & ((1 << 55) - 1)) >> 23
    log = TABLE[index] + (((TABLE[index + 1] - TABLE[index]) * within) >> 32)
    return (64 << 32) - (highest << 32) - log


def channel(number):
    return hash64(UUID(int=(0x01900000000070008000 << 48) | number).bytes)


def owner(nodes, place):
    def score(node):
        name, capacity = node
        key = hash64(name.encode())
        return (Decimal(distance(mix(key ^ place))) / capacity, key)

    return min(range(len(nodes)), key=lambda index: score(nodes[index])) + 1


def main():
    print("hashes", [hex(hash64(text.encode())) for text in ("", "node-1", "n\u00e9ud-longer-than-eight")])
    for pair in (0, 1, 6, 0x0123456789ABCDEF, 0x7FFFFFFFFFFFFFFF, 0xDEADBEEFDEADBEEF, M - 1, M):
        print("distance", hex(pair), hex(distance(pair)))
    nodes = [(f"node-{number}", number * 100) for number in range(1, 8)]
    print("owners", [owner(nodes, channel(number)) for number in range(16)])
    print("workers", [mix((channel(number) + GOLDEN) & M) % 5 for number in range(16)])


main()
