"""The schedule against its formula and torch's own schedulers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diet_lightning.training.optimizer import lr_factor, scaled_lr, warmup_cosine, warmup_steps
from diet_lightning.utilities.seeding import derive_seed


def test_learning_rate_scales_with_the_total_batch():
    assert scaled_lr(1e-3, 256) == 1e-3
    assert scaled_lr(1e-3, 64 * 2 * 4) == pytest.approx(2e-3)


def test_warm_up_is_ten_epochs_or_a_tenth_of_a_shorter_run():
    assert warmup_steps(10, max_epochs=1000, total_steps=5000) == 50
    assert warmup_steps(10, max_epochs=100, total_steps=500) == 50
    assert warmup_steps(10, max_epochs=30, total_steps=300) == 30
    assert warmup_steps(0, max_epochs=30, total_steps=300) == 0


@given(st.integers(0, 30), st.integers(31, 300), st.sampled_from([0.0, 0.1, 1.0]))
def test_factor_rises_to_one_and_falls_to_its_end(warmup, total, lowest):
    factors = [lr_factor(step, warmup, total, lowest) for step in range(total + 1)]
    assert all(0 < factor <= 1 for factor in factors[:-1])
    assert factors[warmup] == 1.0
    assert factors[total] == pytest.approx(lowest, abs=1e-12)
    assert factors[:warmup] == sorted(factors[:warmup])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)


@pytest.mark.parametrize("least", [0.0, 0.05])
def test_schedule_equals_torchs_cosine_after_warm_up(least):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    ours = warmup_cosine(optimizer, warmup=4, total_steps=24, lowest=least / 0.5)
    reference = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(reference, T_max=20, eta_min=least)
    seen = []
    for _ in range(24):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        ours.step()
    expected = []
    for _ in range(20):
        expected.append(reference.param_groups[0]["lr"])
        reference.step()
        cosine.step()
    assert seen[:4] == pytest.approx([0.125, 0.25, 0.375, 0.5])
    assert seen[4:] == pytest.approx(expected, abs=1e-9)


def test_schedule_state_is_plain():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    state = warmup_cosine(optimizer, 4, 24).state_dict()

    def plain(value):
        if isinstance(value, dict):
            return all(plain(v) for v in value.values())
        if isinstance(value, list):
            return all(plain(v) for v in value)
        return value is None or isinstance(value, int | float | str | bool)

    assert plain(state)


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=4), st.lists(st.integers(0, 2**40), min_size=1, max_size=4))
def test_seeds_are_distinct_functions_of_their_entropy(a, b):
    assert derive_seed(*a) == derive_seed(*a)
    assert 0 <= derive_seed(*a) < 2**63
    if a != b and len(a) == len(b):
        assert derive_seed(*a) != derive_seed(*b)


def test_neighbouring_steps_are_unrelated():
    draws = [torch.rand(2000, generator=torch.Generator().manual_seed(derive_seed(0, 0, step))) for step in range(2)]
    correlation = torch.corrcoef(torch.stack(draws))[0, 1]
    assert abs(correlation) < 4 / math.sqrt(2000)
