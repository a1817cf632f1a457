"""A device that is not there is one clear line, whatever it is."""

from __future__ import annotations

import pytest
import torch

from freshet.model.devices import pick_device
from freshet.stream.errors import ConfigError


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda", "'cuda' was asked for, and PyTorch finds no GPU"),
        ("cuda:1", "'cuda:1' was asked for, and PyTorch finds no GPU"),
        ("gpu", "there is no device 'gpu'"),
    ],
)
def test_what_is_not_there_is_refused(device: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        pick_device(device)
    assert "worker.device" in caught.value.hint


@pytest.mark.usefixtures("no_gpu")
def test_auto_is_the_cpu_where_there_is_no_gpu() -> None:
    assert (pick_device("auto"), pick_device("cpu")) == ("cpu", "cpu")


def test_of_two_gpus_there_is_no_third(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert (pick_device("auto"), pick_device("cuda:1")) == ("cuda", "cuda:1")
    with pytest.raises(ConfigError, match=r"'cuda:2' was asked for; PyTorch finds 2 GPU"):
        pick_device("cuda:2")
