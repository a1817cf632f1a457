"""Who serves whom: at most two versions, whatever is promoted, replaced and given back."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from freshet.online.weights.aliases import CHAMPION, decoded, encoded, read_alias
from freshet.online.weights.assignment import MAX_SEGMENTS, Assignment
from freshet.online.weights.registry import BASE
from freshet.stream.errors import RegistryError

V1, V2, V3 = (f"v000{number}-20260101T000000Z-00000000" for number in (1, 2, 3))
NAMES = ("pets", "toys", "games", "Kräuter, frisch")
TWO = Assignment(V1, V2, ("pets", "toys"))

some = st.frozensets(st.sampled_from(NAMES))
any_version = st.sampled_from([BASE, V1, V2, V3])


@st.composite
def assignments(draw: st.DrawFn) -> Assignment:
    default = draw(any_version)
    other = draw(any_version.filter(lambda version: version != default))
    segments = draw(some)
    return Assignment(default, other, tuple(sorted(segments))) if segments else Assignment(default)


@given(assignments())
def test_what_is_written_is_read_again(assignment: Assignment) -> None:
    assert decoded(encoded(assignment)) == assignment


@given(assignments(), some.filter(bool), any_version)
def test_a_version_serves_the_named_segments_and_the_others_are_served_as_before(
    before: Assignment, segments: frozenset[str], version: str
) -> None:
    wanted = {name: version if name in segments else before.of(name) for name in (*NAMES, "-")}
    try:
        after = before.with_(segments, version)
    except RegistryError:
        assert len(set(wanted.values()) | {before.default}) == 3
    else:
        assert {name: after.of(name) for name in wanted} == wanted
        assert set(after.versions) == set(wanted.values())


@given(assignments(), any_version, any_version)
def test_a_version_takes_the_place_of_another_wherever_that_serves(
    before: Assignment, version: str, by: str
) -> None:
    after = before.replaced(version, by)
    wanted = [by if before.of(name) == version else before.of(name) for name in (*NAMES, "-")]
    assert [after.of(name) for name in (*NAMES, "-")] == wanted


@pytest.mark.parametrize(
    ("before", "parent", "segments", "after"),
    [
        (Assignment(V1), V1, (), Assignment(V3)),
        (Assignment(V1), V1, ("pets",), Assignment(V1, V3, ("pets",))),
        (TWO, V2, (), Assignment(V1, V3, ("pets", "toys"))),
        (TWO, V1, (), Assignment(V3, V2, ("pets", "toys"))),
        # Nobody is promoted for some beside two, nor from what serves no more.
        (TWO, V2, ("pets",), None),
        (TWO, BASE, (), None),
        (Assignment(V1), BASE, ("pets",), None),
        # Who serves already is promoted again, and nothing changes.
        (Assignment(V3), V1, (), Assignment(V3)),
        (Assignment(V1, V3, ("pets",)), V1, ("pets",), Assignment(V1, V3, ("pets",))),
    ],
)
def test_a_promoted_version_serves_beside_its_parent_or_in_its_place(
    before: Assignment, parent: str, segments: tuple[str, ...], after: Assignment | None
) -> None:
    assert before.after(V3, parent, segments) == after


def test_the_newest_is_the_one_that_was_made_last_and_the_shipped_weights_are_the_oldest() -> None:
    assert TWO.newest == V2 and Assignment(V2, V1, ("pets",)).newest == V2
    assert Assignment(BASE, V1, ("pets",)).newest == V1 and Assignment().newest == BASE


@pytest.mark.parametrize(
    ("segments", "version"),
    [(("pets", "toys"), V2), (("pets", "games"), V1), (("games",), V1), ((), V1), (("all",), V1)],
)
def test_a_challenger_descends_from_who_serves_most_of_the_segments(
    segments: tuple[str, ...], version: str
) -> None:
    assert TWO.most_of(segments) == version


def test_it_is_told_in_words() -> None:
    assert str(TWO) == f"{V1}, {V2} for pets, toys" and str(Assignment(V1)) == V1


@pytest.mark.parametrize(
    ("other", "segments"), [(V2, ()), ("", ("pets",)), (V1, ("pets",)), (V2, ("b", "a"))]
)
def test_what_says_not_who_serves_whom_is_no_assignment(
    other: str, segments: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match=r"serves|in order"):
        Assignment(V1, other, segments)


def test_so_many_segments_are_no_exception_any_more() -> None:
    names = [f"s{number:03d}" for number in range(MAX_SEGMENTS + 1)]
    assert Assignment(V1).with_(names[1:], V2).of(names[1]) == V2
    with pytest.raises(RegistryError, match="would serve 257 segments beside"):
        Assignment(V1).with_(names, V2)
    with pytest.raises(ValueError, match="257 segments; the most is 256"):
        Assignment(V1, V2, tuple(names))


def test_an_alias_of_before_there_were_two_serves_everybody(tmp_path: Path) -> None:
    (tmp_path / "aliases").mkdir()
    (tmp_path / "aliases" / "champion").write_text(f"{V1}\n")
    assert read_alias(tmp_path, CHAMPION) == Assignment(V1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names '', which is no version"),
        ("{", "cannot be read"),
        ('{"default": "base", "other": "v1", "segments": []}', "cannot be read"),
        ('{"default": "base", "other": "../v1", "segments": ["a"]}', "'../v1', which is no"),
        ("Kräuter", "cannot be read"),
    ],
)
def test_an_alias_that_does_not_say_who_serves_whom_is_refused(
    tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "aliases").mkdir()
    (tmp_path / "aliases" / "champion").write_text(text, "utf-8")
    with pytest.raises(RegistryError, match=reason):
        read_alias(tmp_path, CHAMPION)
