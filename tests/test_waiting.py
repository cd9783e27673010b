"""Places by the rate at which they get free, on a simulated machine: a queue of its own clock."""

import heapq
import random
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.waiting import Waiting

MAX_SECONDS, MIN_PLACES, MOST = 3.0, 8, 64


@dataclass
class Machine:
    """Serves so many at a time, each for so long, first come first served; whoever finds no place is refused."""

    service_seconds: float
    num_servers: int = 2
    now: float = 0.0
    stays: list[tuple[float, float]] = field(default_factory=list)  # when each came, and for how long it was inside
    num_refused: int = 0

    def __post_init__(self) -> None:
        self.waiting = Waiting(max_seconds=MAX_SECONDS, min_places=MIN_PLACES, clock=lambda: self.now)
        self.queue = deque[float]()
        self.served: list[tuple[float, float]] = []  # a heap: when it ends, when it came

    def arrive(self) -> None:
        if len(self.queue) + len(self.served) >= min(MOST, self.waiting.places()):
            self.num_refused += 1
            return
        self.waiting.enter()
        self.queue.append(self.now)
        self._begin()

    def until(self, moment: float) -> None:
        while self.served and self.served[0][0] <= moment:
            self.now, came = heapq.heappop(self.served)
            self.stays.append((came, self.now - came))
            self.waiting.leave()
            self._begin()
        self.now = moment

    def _begin(self) -> None:
        while self.queue and len(self.served) < self.num_servers:
            heapq.heappush(self.served, (self.now + self.service_seconds, self.queue.popleft()))


def load(machine: Machine, *, rate: float, seconds: float, seed: int = 0) -> None:
    """Arrivals at random moments, `rate` a second."""
    draw, end = random.Random(seed), machine.now + seconds
    while machine.now < end:
        machine.until(min(end, machine.now + draw.expovariate(rate)))
        machine.arrive()


@pytest.mark.parametrize("service_seconds", [0.05, 0.1, 0.2, 0.4])
def test_five_times_the_load_waits_for_no_longer_than_is_said_and_nothing_stands_idle(service_seconds: float) -> None:
    machine = Machine(service_seconds)
    capacity = machine.num_servers / service_seconds
    load(machine, rate=5 * capacity, seconds=10)  # the first second knows nothing yet
    machine.stays.clear()
    load(machine, rate=5 * capacity, seconds=60)
    longest = max(stay for _, stay in machine.stays)
    assert longest <= 1.2 * max(MAX_SECONDS, (MIN_PLACES + 1) / capacity)
    assert longest >= 0.5 * min(MAX_SECONDS, MOST / capacity)  # a queue that is there to be used
    assert len(machine.stays) >= 0.98 * 60 * capacity
    assert machine.num_refused > 3 * len(machine.stays)


def test_a_burst_after_a_pause_is_let_in_whole() -> None:
    machine = Machine(0.1)
    load(machine, rate=0.5, seconds=100)
    machine.until(machine.now + 1000)
    for _ in range(40):  # two seconds of work
        machine.arrive()
    assert machine.num_refused == 0


def test_a_slow_hour_is_forgotten() -> None:
    machine = Machine(5.0)
    load(machine, rate=4, seconds=300)
    assert machine.waiting.places() == MIN_PLACES
    assert machine.waiting.seconds_of_one() == pytest.approx(2.5, rel=0.2)  # two at a time, five seconds each
    machine.service_seconds = 0.1
    load(machine, rate=40, seconds=60)
    assert 50 <= machine.waiting.places() <= 70  # three seconds at twenty a second


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=60))
def test_there_are_never_fewer_than_the_least(steps: list[tuple[float, bool]]) -> None:
    now, num_inside = 0.0, 0
    waiting = Waiting(max_seconds=MAX_SECONDS, min_places=MIN_PLACES, clock=lambda: now)
    for seconds, comes in steps:
        now += seconds
        if comes:
            waiting.enter()
        elif num_inside:
            waiting.leave()
        num_inside += 1 if comes else -min(1, num_inside)
        assert waiting.places() >= MIN_PLACES
