"""The bound on repair holds whatever the pieces and the pauses between them, and nothing waits that need not."""

from hypothesis import given, strategies as st

from node.blobs.pace import BURST_SECONDS, Pace


class Clock:
    """Virtual time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


@given(
    st.lists(st.tuples(st.integers(1, 2000), st.floats(0, 5)), min_size=1, max_size=60),
    st.floats(1, 5000),
)
async def test_in_no_time_does_more_than_the_rate_pass(pieces: list[tuple[int, float]], rate: float) -> None:
    clock = Clock()
    pace = Pace(rate, clock, clock.sleep)
    passed: list[tuple[float, int]] = []
    for size, pause in pieces:
        clock.now += pause
        await pace.take(size)
        passed.append((clock.now, size))
    for first, (begin, _) in enumerate(passed):
        total = 0
        for at, size in passed[first:]:
            total += size
            # The first piece was paid for before the window begins.
            assert total <= passed[first][1] + rate * (at - begin + BURST_SECONDS) * (1 + 1e-9) + 1e-6


async def test_the_rate_is_used() -> None:
    clock = Clock()
    pace = Pace(1000.0, clock, clock.sleep)
    for _ in range(100):
        await pace.take(100)
    assert 10.0 - BURST_SECONDS <= clock.now <= 10.0


async def test_two_at_once_share_the_rate() -> None:
    clock = Clock()
    waits: list[float] = []

    async def note(seconds: float) -> None:
        waits.append(seconds)

    pace = Pace(1000.0, clock, note)
    for _ in range(4):  # nobody's wait has ended when the next one asks
        await pace.take(1000)
    assert waits == [1.0, 2.0, 3.0, 4.0]


async def test_no_bound_never_waits() -> None:
    clock = Clock()
    await Pace(0.0, clock, clock.sleep).take(1 << 40)
    assert clock.now == 0.0
