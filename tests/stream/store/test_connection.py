"""Redis' errors as ours: which of them are worth another try, and what a person can do."""

from __future__ import annotations

import pytest
import redis

from freshet.stream.errors import StoreError, StoreUnavailableError
from freshet.stream.store.connection import translated

CALL = "Error running script (call to f_1): @user_script:97: @user_script: 97: "


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (redis.ConnectionError("gone"), "does not answer: gone"),
        (redis.TimeoutError("late"), "does not answer: late"),
        (redis.exceptions.OutOfMemoryError("not allowed"), "is full: not allowed"),
        (redis.ResponseError(CALL + "-OOM command not allowed"), "is full: Error"),
        (redis.exceptions.ReadOnlyError("no writes"), "is a replica now: no writes"),
        (redis.ResponseError(CALL + "-READONLY no writes"), "is a replica now: Error"),
        (redis.exceptions.ClusterDownError("down"), "moves its keys: down"),
        (redis.exceptions.TryAgainError("again"), "moves its keys: again"),
    ],
)
def test_what_may_pass_is_tried_again_also_where_redis_6_says_it_of_a_script(
    error: redis.RedisError, said: str
) -> None:
    client = redis.Redis(host="shop", port=6_380)
    found = pytest.raises(StoreUnavailableError, match=f"^Redis at shop:6380 {said}")
    with found, translated(client):
        raise error


def test_any_other_refusal_is_an_error_that_stays() -> None:
    found = pytest.raises(StoreError, match="refused a call: WRONGTYPE")
    with found as caught, translated(redis.Redis()):
        raise redis.ResponseError("WRONGTYPE Operation against a key")
    assert not caught.value.retriable
