"""Cores of a process, from the files of its cgroup and its affinity."""

from __future__ import annotations

import os

import pytest

from freshet.stream import cores
from freshet.stream.cores import (
    quota_cores,
    sleep_where_threads_wait,
    threads_of,
    usable_threads,
)

V1_PATH = "4:cpu,cpuacct:/docker/0a"
HYBRID = "3:cpuset:/\n2:cpuacct:/\n1:cpu:/box\n0::/box\n"


def quota(cgroup: str, **files: str) -> float | None:
    """The quota where these files are below /sys/fs/cgroup; `__` in a name stands for a slash."""
    there = {f"/sys/fs/cgroup/{name}": text for name, text in files.items()}
    there["/proc/self/cgroup"] = cgroup
    return quota_cores(there.get)


def v2(**places: str) -> float | None:
    """The same for a process in /shop/worker; each place's `cpu.max` by its name."""
    paths = {"own": "shop/worker/cpu.max", "above": "shop/cpu.max", "root": "cpu.max"}
    return quota("0::/shop/worker\n", **{paths[name]: text for name, text in places.items()})


def v1(quota_us: str, period_us: str = "100000\n", *, place: str = "cpu/") -> float | None:
    names = {f"{place}cpu.cfs_quota_us": quota_us, f"{place}cpu.cfs_period_us": period_us}
    return quota(V1_PATH, **names)


def test_version_2_says_quota_and_period_in_one_line() -> None:
    assert v2(own="150000 100000\n") == 1.5
    assert v2(own="max 100000\n") is None
    assert v2() is None


def test_the_smallest_quota_of_all_cgroups_above_counts() -> None:
    assert v2(own="400000 100000\n", above="25000 50000\n", root="max 100000\n") == 0.5
    assert v2(own="max 100000\n", root="300000 100000\n") == 3.0


def test_version_1_says_them_in_two_files_also_where_the_mount_is_the_container_itself() -> None:
    assert v1("200000\n", place="cpu/docker/0a/") == 2.0
    assert v1("250000\n", "50000\n") == 5.0
    assert v1("-1\n") is None


def test_both_versions_side_by_side() -> None:
    names = {"cpu/box/cpu.cfs_quota_us": "100000\n", "cpu/box/cpu.cfs_period_us": "100000\n"}
    assert quota(HYBRID, **names) == 1.0
    assert quota(HYBRID) is None
    # The quota of a controller that only begins like ours is no quota.
    assert (
        quota("1:cpuset:/\n", **{"cpu/cpu.cfs_quota_us": "1", "cpu/cpu.cfs_period_us": "1"}) is None
    )


def test_a_path_with_a_colon_is_read_whole() -> None:
    assert quota("0::/a:b\n", **{"a:b/cpu.max": "100000 100000"}) == 1.0


@pytest.mark.parametrize("text", ["", "100000", "100000 0", "what is this", "-5 100000"])
def test_what_cannot_be_read_is_no_limit(text: str) -> None:
    assert v2(own=text) is None


def test_without_cgroups_nothing_limits() -> None:
    assert quota_cores(lambda _: None) is None


def test_threads_are_whole_cores_and_at_least_one() -> None:
    assert [threads_of(8, quota) for quota in (None, 0.1, 1.0, 1.99, 2.0, 12.0)] == [
        *(8, 1, 1, 1, 2, 8)
    ]


def test_affinity_and_quota_are_those_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert 1 <= usable_threads() <= (bound or 1)
    monkeypatch.setattr(cores, "_read", {}.get)
    assert usable_threads() == bound
    monkeypatch.setattr(cores, "_affinity", lambda: 64)
    files = {"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "300000 100000\n"}
    monkeypatch.setattr(cores, "_read", files.get)
    assert usable_threads() == 3


def test_a_file_that_is_not_there_is_none(tmp_path: object) -> None:
    assert cores._read(f"{tmp_path}/nothing") is None
    assert cores._read("/proc/self/cgroup") is None or cores._read("/proc/self/cgroup")


def test_threads_that_wait_sleep_unless_a_person_said_otherwise() -> None:
    environ = {"KMP_BLOCKTIME": "7"}
    sleep_where_threads_wait(environ)
    assert environ == {
        "KMP_BLOCKTIME": "7",
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": "0",
    }
