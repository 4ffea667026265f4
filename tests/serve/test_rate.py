from ffaa.serve import rate
from ffaa.serve.rate import RateLimit, address_group


def test_a_burst_then_a_rate():
    now = [100.0]
    limit = RateLimit(60, 3, lambda: now[0])
    assert [limit.take("a") for _ in range(3)] == [0, 0, 0]
    assert limit.take("a") == 1.0
    assert limit.take("b") == 0  # others are not held up
    now[0] += 0.5
    assert limit.take("a") == 0.5
    now[0] += 0.5
    assert limit.take("a") == 0
    now[0] += 1000
    assert [limit.take("a") > 0 for _ in range(4)] == [False, False, False, True]


def test_what_a_request_turns_out_to_cost_is_owed():
    now = [0.0]
    limit = RateLimit(60, 3, lambda: now[0])
    limit.take("a")
    limit.charge("a", 9)
    assert limit.take("a") == 8.0


def test_no_limit():
    limit = RateLimit(0, 1)
    limit.charge("a", 5)
    assert not any(limit.take("a") for _ in range(50))


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(rate, "KNOWN", 5)
    limit = RateLimit(1, 1, lambda: 0.0)
    for number in range(50):
        limit.take(str(number))
    assert len(limit._buckets) == 5
    assert limit.take("49") > 0


def test_what_of_an_address_counts():
    assert address_group("192.0.2.7") == "192.0.2.7"
    assert address_group("::ffff:192.0.2.7") == "192.0.2.7"
    assert address_group("2001:db8:1:2:3:4:5:6") == address_group("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert address_group("fe80::1%eth0") == "fe80::/64"
    assert address_group(None) == address_group("x") == "unknown"
