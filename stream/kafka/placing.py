"""Which partition a key goes to, by Kafka's own rule: what is one key lies on one partition.

The Java client places a key by murmur2 of its bytes; librdkafka does so where it is asked to
(`partitioner=murmur2_random`) and by CRC-32 where it is not.
"""

from __future__ import annotations

from typing import Final

_SEED: Final = 0x9747B28C
_FACTOR: Final = 0x5BD1E995
_BITS: Final = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """MurmurHash2 by Austin Appleby, as Kafka's producers seed it; 32 bits without a sign.

    >>> murmur2(b"foobar") - 2**32
    -790332482
    """
    whole = len(key) & ~3
    found = _SEED ^ len(key)
    for start in range(0, whole, 4):
        found = _mixed(found * _FACTOR, int.from_bytes(key[start : start + 4], "little"))
    rest = int.from_bytes(key[whole:], "little")
    if len(key) > whole:
        found = (found ^ rest) * _FACTOR & _BITS
    found ^= found >> 13
    found = found * _FACTOR & _BITS
    return found ^ found >> 15


def _mixed(found: int, word: int) -> int:
    word = word * _FACTOR & _BITS
    word = (word ^ word >> 24) * _FACTOR
    return (found ^ word) & _BITS


def partition_of_key(key: bytes, num_partitions: int) -> int:
    """Where Kafka's own producer sends a key."""
    return (murmur2(key) & 0x7FFFFFFF) % num_partitions
