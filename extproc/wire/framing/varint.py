"""Numbers in protobuf's encoding. Source: protobuf.dev/programming-guides/encoding, "Base 128 Varints"."""

from __future__ import annotations


def varint(value: int) -> bytes:
    """`value`, which is not negative: seven bits a byte, the lowest first."""
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    made.append(value)
    return bytes(made)
