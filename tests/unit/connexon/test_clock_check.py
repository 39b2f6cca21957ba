"""Whether a clock may be relied on: beside other clocks and a counter that nobody sets."""

from __future__ import annotations

from connexon.clock import DAY, MINUTE, SECOND
from connexon.clock_check import ClockCheck


class Times:
    """A wall clock that can be set, and a counter that only goes on."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_000 * DAY, 5_000

    def pass_by(self, ms: int) -> None:
        self.wall += ms
        self.steady += ms

    def check(self) -> ClockCheck:
        return ClockCheck(wall=lambda: self.wall, steady=lambda: self.steady)


def test_a_clock_that_was_compared_with_nobody_is_sure_of_nothing() -> None:
    times = Times()
    clock = times.check()
    assert clock.sure_ms() is None
    assert "not compared" in clock.doubt
    assert clock.probable_ms() == times.wall
    times.wall += DAY
    assert clock.probable_ms() is None


def test_clocks_that_agree_are_believed_and_the_earlier_counts() -> None:
    times = Times()
    clock = times.check()
    clock.compare("hub", times.wall - 10 * SECOND)
    times.pass_by(30 * DAY)
    assert clock.doubt == ""
    assert clock.sure_ms() == times.wall - 10 * SECOND


def test_a_jump_forward_and_back_is_doubted_at_once_and_over_again() -> None:
    times = Times()
    clock = times.check()
    clock.compare("hub", times.wall)
    times.pass_by(MINUTE)
    times.wall += 400 * DAY
    assert clock.sure_ms() is None
    assert "it is this one that is wrong" in clock.doubt
    times.wall -= 400 * DAY
    assert clock.sure_ms() == times.wall


def test_a_clock_that_was_wrong_when_the_process_began_is_doubted() -> None:
    times = Times()
    times.wall += 400 * DAY
    clock = times.check()
    clock.compare("hub", times.wall - 400 * DAY)
    assert clock.sure_ms() is None
    assert "ahead of the other side's" in clock.doubt
    assert clock.latest_ms() == times.wall


def test_a_clock_that_is_behind_knows_what_may_have_ended() -> None:
    times = Times()
    clock = times.check()
    clock.compare("hub", times.wall + 3 * DAY)
    assert clock.sure_ms() is None
    assert clock.latest_ms() == times.wall + 3 * DAY


def test_one_center_of_many_does_not_make_the_hub_doubt_its_clock() -> None:
    times = Times()
    clock = times.check()
    for center, offset in (("lyon", 0), ("kyoto", 2 * SECOND), ("boston", -400 * DAY)):
        clock.compare(center, times.wall - offset)
    assert clock.doubt == ""
    assert clock.offset_ms("boston") == -400 * DAY
    clock.forget("lyon")
    clock.forget("boston")
    clock.forget("kyoto")
    assert clock.sure_ms() is not None
