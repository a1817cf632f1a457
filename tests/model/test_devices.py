"""A device that is not there is one clear line, whatever it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from freshet.model.devices import go_first, pick_device, take_at_most
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


class Cuda:
    """Notes what would be asked of torch.cuda."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def set_per_process_memory_fraction(self, share: float, device: torch.device) -> None:
        self.asked.append(("share", share, str(device)))

    def Stream(self, device: torch.device, priority: int) -> Cuda:
        self.asked.append(("stream", str(device), priority))
        return self

    def current_stream(self, device: torch.device) -> str:
        return f"stream of {device}"

    def wait_stream(self, other: str) -> None:
        self.asked.append(("waits for", other))

    def set_stream(self, stream: Cuda) -> None:
        assert stream is self
        self.asked.append(("set",))


def test_training_leaves_memory_of_a_gpu_and_forecasts_go_first() -> None:
    cuda = Cuda()
    take_at_most("cuda:1", 0.25, cuda)
    go_first("cuda:1", cuda)
    assert cuda.asked == [
        ("share", 0.25, "cuda:1"),
        ("stream", "cuda:1", -1),
        # What loaded the weights is over before they are used.
        ("waits for", "stream of cuda:1"),
        ("set",),
    ]


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_what_is_no_gpu_is_left_alone(device: str) -> None:
    cuda = Cuda()
    take_at_most(device, 0.25, cuda)
    go_first(device, cuda)
    assert not cuda.asked
