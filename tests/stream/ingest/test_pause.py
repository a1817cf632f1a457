"""When too many dead letters pause ingest, and what the alert says."""

from __future__ import annotations

from freshet.stream.ingest.pause import DeadLetterGuard, paused_alert


def test_few_records_never_trip_it_however_bad_they_are() -> None:
    guard = DeadLetterGuard(per_s=5_000, share=0.5)
    assert guard.judge(0.0, read=999, dead=999) is None


def test_a_large_share_trips_it_once_enough_were_read() -> None:
    guard = DeadLetterGuard(per_s=5_000, share=0.5)
    assert guard.judge(0.0, read=600, dead=500) is None
    assert guard.judge(9.9, read=400, dead=0) == "500 of 1000 records were dead letters within 10 s"


def test_what_is_older_than_the_window_does_not_count() -> None:
    guard = DeadLetterGuard(per_s=5_000, share=0.5)
    assert guard.judge(0.0, read=900, dead=900) is None
    assert guard.judge(10.0, read=900, dead=900) is None


def test_a_high_rate_trips_it_even_at_a_small_share() -> None:
    guard = DeadLetterGuard(per_s=100, share=0.5)
    assert guard.judge(0.0, read=100_000, dead=1_000) is None
    reason = guard.judge(1.0, read=100_000, dead=1)
    assert reason == "1001 of 200000 records were dead letters within 10 s"


def test_after_a_person_said_go_on_it_lets_pass_until_the_limits_hold_again() -> None:
    guard = DeadLetterGuard(per_s=5_000, share=0.5)
    assert guard.judge(0.0, read=2_000, dead=2_000)
    guard.lift()
    assert guard.judge(1.0, read=2_000, dead=2_000) is None
    assert guard.judge(2.0, read=9_000, dead=0) is None
    assert guard.judge(3.0, read=2_000, dead=2_000) is None
    assert guard.judge(20.0, read=2_000, dead=2_000)


def test_the_alert_has_one_fingerprint_and_an_id_for_each_state() -> None:
    firing = paused_alert("firing", "shop", "why", starts_at_ms=1_500, at_ms=1_500)
    resolved = paused_alert("resolved", "shop", "why", starts_at_ms=1_500, at_ms=9_000)
    other = paused_alert("firing", "other shop", "why", starts_at_ms=1_500, at_ms=1_500)
    assert firing.subject == resolved.subject != other.subject
    assert len({firing.id, resolved.id, other.id}) == 3
    assert (firing.data.ends_at_ms, resolved.data.ends_at_ms) == (None, 9_000)
    assert resolved.time == "1970-01-01T00:00:09.000Z"
