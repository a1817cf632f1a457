"""The loss is smallest at the quantiles and blind to what was not observed."""

from __future__ import annotations

import math

import torch

from freshet.model.training.loss import pinball_loss

LEVELS = torch.tensor([0.1, 0.5, 0.9])


def test_gradient_descent_on_it_finds_the_empirical_quantiles() -> None:
    target = torch.linspace(0.0, 100.0, 1001)[:, None]
    quantiles = torch.tensor([10.0, 50.0, 90.0])
    losses = [
        pinball_loss((quantiles + shift).expand(1001, 1, 3), target, LEVELS).item()
        for shift in (-5.0, 0.0, 5.0)
    ]
    assert losses[1] < min(losses[0], losses[2])


def test_missing_targets_have_no_loss_and_no_gradient() -> None:
    quantiles = torch.ones(1, 2, 3, requires_grad=True)
    loss = pinball_loss(quantiles, torch.tensor([[2.0, math.nan]]), LEVELS)
    loss.backward()
    assert loss.item() > 0
    assert bool((quantiles.grad[0, 1] == 0).all())
    assert torch.isfinite(quantiles.grad).all()
    assert pinball_loss(quantiles, torch.full((1, 2), math.nan), LEVELS).item() == 0.0
