#!/usr/bin/env python3
"""Writes datagrams.txt: sealed datagrams made from docs/protocol.md alone, with another AEAD implementation.

    pip install cryptography && core/tests/golden/make.py > core/tests/golden/datagrams.txt

It shares no code with the server. A difference between the file and what the server seals (core/tests/golden.rs)
is a change of the wire format, or a mistake in one of the two.
"""

import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

TO_NODE, FROM_NODE = 0, 1
TYPES = {"Media": 0, "Bind": 8, "BindAck": 9, "Ping": 10, "Pong": 11, "Report": 12}
CIPHERS = {
    "aes-128-gcm": (AESGCM, bytes(range(16))),
    "chacha20-poly1305": (ChaCha20Poly1305, bytes(range(32))),
}


def frame(stream, sequence, timestamp, kind_flags, level, opus):
    return struct.pack(">IHIBBH", stream, sequence, timestamp, kind_flags, level, len(opus)) + opus


def clocks(first, second):
    return struct.pack(">QQ", first, second)


SPEECH = bytes([0x48, 0x07, 0xC9, 0x79, 0xC8, 0xC9, 0x57, 0xC0, 0xA2, 0x12])
NOISE = bytes([0x08, 0x0B])

# what it is, packet type, direction, key id, session or group id, counter, plaintext
DATAGRAMS = [
    ("a client says where it is", "Bind", TO_NODE, 0, 0x0A0B0C0D, 0, clocks(1_000_000, 0)),
    ("the node answers, to 192.0.2.7:40000", "BindAck", FROM_NODE, 0, 0x0A0B0C0D, 0,
     clocks(1_000_000, 77_000_000) + b"\x04" + bytes([192, 0, 2, 7]) + struct.pack(">H", 40_000)),
    ("the client proves that it heard that", "Ping", TO_NODE, 0, 0x0A0B0C0D, 1, clocks(1_020_000, 77_000_000)),
    ("the node answers, to [2001:db8::7]:40000", "Pong", FROM_NODE, 0, 0x0A0B0C0D, 1,
     clocks(1_020_000, 77_020_000) + b"\x06" + bytes.fromhex("20010db8000000000000000000000007")
     + struct.pack(">H", 40_000)),
    ("a client speaks: the first frame of a talk spurt", "Media", TO_NODE, 0, 0x0A0B0C0D, 2,
     frame(5, 65_535, 4_294_966_336, 0x01, 30, SPEECH)),
    ("the node forwards three members' frames in one datagram", "Media", FROM_NODE, 1, 0x00000102, 258,
     frame(5, 0, 0, 0x00, 30, SPEECH)
     + frame(6, 700, 96_000, 0x92, 12, SPEECH[:6])
     + frame(7, 41, 1_920_000, 0x03, 127, NOISE)),
    ("a client reports on two streams", "Report", TO_NODE, 0, 0x0A0B0C0D, 3,
     struct.pack(">IHHII", 5, 655, 42, 3_100, 99) + struct.pack(">IHHII", 6, 0, 42, 900, 100)),
]


def main():
    print("# Sealed datagrams, byte by byte: one of each type, with each cipher. Numbers are hexadecimal.")
    print("# Made by make.py in this folder with Python's `cryptography` (OpenSSL's AEADs), from the document alone.")
    for cipher, (aead, key) in CIPHERS.items():
        for what, name, direction, key_id, identifier, counter, plaintext in DATAGRAMS:
            header = struct.pack(">BBBBIQ", 0xC0 | TYPES[name], 0, 0, key_id, identifier, counter)
            nonce = struct.pack(">B3xQ", direction, counter)
            sealed = aead(key).encrypt(nonce, plaintext, header)
            print(f"\n# {name}: {what}")
            print(f"cipher     {cipher}")
            print(f"key        {key.hex()}")
            print(f"direction  {direction:02x}")
            print(f"plaintext  {plaintext.hex()}")
            print(f"datagram   {(header + sealed).hex()}")


main()
