"""Keys are placed as Kafka's own producer places them."""

from __future__ import annotations

import pytest

from freshet.stream.kafka.placing import murmur2, partition_of_key


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        # From the tests of Kafka's own clients (UtilsTest), as integers with a sign.
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_keys_hash_as_kafka_s_own_tests_say(key: bytes, hashed: int) -> None:
    assert murmur2(key) == hashed % 2**32


def test_a_key_s_partition_leaves_the_sign_out() -> None:
    # -973932308 without its sign bit is 1173551340, and 1173551340 = 391183780 x 3 + 0.
    assert partition_of_key(b"21", 3) == 0
    assert partition_of_key(b"21", 7) == 1173551340 % 7
