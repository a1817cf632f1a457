"""When an alarm is over: after enough quiet buckets, or after a week."""

from __future__ import annotations

from freshet.online.drift.alarms import LONGEST_DRIFT_BUCKETS, Alarm, Held, alarm_id


def alarm(kind: str = "level") -> Alarm:
    return Alarm("id", kind, 0, 2.0, "scan")  # type: ignore[arg-type]


def test_one_alarm_of_a_kind_holds_at_a_time() -> None:
    held = Held()
    assert held.begin(alarm()) and not held.begin(alarm()) and held.begin(alarm("timing"))
    assert set(held.alarms) == {"level", "timing"}


def test_it_is_over_after_quiet_buckets_in_a_row() -> None:
    held = Held()
    calm = [held.over(0.1, objects=False, clear_buckets=3) for _ in range(2)]
    noisy = held.over(0.9, objects=False, clear_buckets=3)
    objecting = held.over(0.1, objects=True, clear_buckets=3)
    again = [held.over(0.1, objects=False, clear_buckets=3) for _ in range(3)]
    assert calm == [False, False] and not noisy and not objecting
    assert again == [False, False, True] and not held.tired


def test_what_holds_on_for_a_week_of_hours_is_the_new_usual() -> None:
    held = Held()
    over = [held.over(0.9, objects=False, clear_buckets=12) for _ in range(LONGEST_DRIFT_BUCKETS)]
    assert over == [False] * (LONGEST_DRIFT_BUCKETS - 1) + [True] and held.tired


def test_an_alarms_id_is_the_same_in_every_process() -> None:
    ids = {alarm_id("a", 1, "level"), alarm_id("a", 1, "level"), alarm_id("a", 2, "level")}
    assert len(ids) == 2 and all(len(each) == 24 for each in ids)
