import random

import pytest

from ffaa.vqa.teachers.limits import Budget, RateLimit, back_off


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def test_requests_are_spaced_evenly():
    clock = Clock()
    rate = RateLimit(120, None, clock)
    assert [rate.delay(999) for _ in range(4)] == pytest.approx([0, 0.5, 1.0, 1.5])
    clock.now += 60
    assert rate.delay(999) == 0  # an idle minute is not saved up
    assert rate.delay(999) == pytest.approx(0.5)


def test_tokens_count_where_they_are_the_tighter_limit():
    rate = RateLimit(60, 6000, Clock())
    assert [rate.delay(t) for t in (600, 10, 50)] == pytest.approx([0, 6.0, 7.0])


def test_without_limits_there_is_no_delay_but_a_pause_holds():
    rate = RateLimit(None, None, Clock())
    assert [rate.delay(10**6) for _ in range(3)] == [0, 0, 0]
    rate.pause(9)
    rate.pause(2)
    assert rate.delay(1) == pytest.approx(9)


def test_back_off_doubles_up_to_a_minute_with_jitter():
    rng = random.Random(1)
    for attempt, whole in enumerate((1, 2, 4, 8, 16, 32, 60, 60)):
        waits = [back_off(attempt, rng) for _ in range(50)]
        assert whole / 2 <= min(waits) < max(waits) <= whole


def test_a_budget_holds_settles_and_learns():
    budget = Budget(price_in=1e6, price_out=2e6, cap=100)
    assert budget.hold(30, 10) == 50
    assert budget.hold(30, 20) is None
    assert budget.hold(30, 20, force=True) == 70
    assert budget.hold_again(50, 30, 10) == 50
    budget.settle(70, 5)
    budget.settle(50, 10)
    assert (budget.spent, budget.held) == (15, 0)
    budget.learn(30, 60)
    budget.learn(30, 10)
    assert budget.hold(30, 10) == 80
    assert budget.hold_again(80, 30, 13) is None  # 15 spent, 86 wanted
    assert budget.held == 0
    assert budget.hold(5, 5) == 20
    assert budget.hold_again(20, 30, 12) == 84
    assert budget.held == 84
