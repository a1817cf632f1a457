"""A few rows take one thread, many no more than the process may use; then it is as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from freshet.model import threads as module
from freshet.model.forecaster import BatchForecaster
from freshet.model.threads import FEW_ROWS, fitting_threads, use_threads


@pytest.fixture(autouse=True)
def four_usable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setattr(module, "usable_threads", lambda: 4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("before", "wanted", "used"), [(64, 0, 4), (2, 0, 2), (2, 3, 3), (2, 1, 1), (2, 9, 4)]
)
def test_a_process_of_ours_takes_what_it_may_use_or_fewer(
    before: int, wanted: int, used: int
) -> None:
    torch.set_num_threads(before)
    assert use_threads(wanted) == used and torch.get_num_threads() == used


@pytest.mark.parametrize(
    ("before", "num_rows", "meanwhile"),
    [(64, FEW_ROWS, 1), (64, FEW_ROWS + 1, 4), (2, FEW_ROWS + 1, 2), (1, 1, 1)],
)
def test_anothers_threads_are_only_undercut_meanwhile(
    before: int, num_rows: int, meanwhile: int
) -> None:
    torch.set_num_threads(before)
    with fitting_threads(num_rows):
        assert torch.get_num_threads() == meanwhile
    assert torch.get_num_threads() == before


def test_they_come_back_after_an_error() -> None:
    torch.set_num_threads(3)
    with pytest.raises(ZeroDivisionError), fitting_threads(1):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 3


def test_a_forecast_of_one_row_starts_no_threads_and_one_of_many_does(tiny_network, drawn) -> None:
    forecaster = BatchForecaster(tiny_network, device="cpu", dtype="float32")
    found: list[int] = []
    forecaster.network.register_forward_pre_hook(
        lambda network, inputs: found.append(torch.get_num_threads())
    )
    torch.set_num_threads(3)
    for num_rows in (1, FEW_ROWS + 1):
        forecaster.forecast(drawn[0].rows(slice(num_rows)))
    assert found == [1, 3] and torch.get_num_threads() == 3
