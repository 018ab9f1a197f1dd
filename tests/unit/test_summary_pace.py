"""How often agents tell how they are: by their number, and by how far behind the scheduler is."""

import pytest

from festina.runtime.protocol.summary_pace import MERGED_MIN, STRETCH_MAX, SummaryPace


def test_few_agents_tell_as_often_as_they_like():
    assert SummaryPace(20.0).wanted_ms(500) == 0.0


def test_many_agents_share_what_a_scheduler_takes():
    assert SummaryPace(20.0).wanted_ms(1000) == 100.0
    assert SummaryPace(20.0).wanted_ms(4000) == 400.0
    assert SummaryPace(50.0).wanted_ms(400) == 40.0


def test_while_summaries_are_merged_they_are_asked_for_less_often():
    pace = SummaryPace(20.0)
    pace.look(merged=101, agents=100)
    assert pace.wanted_ms(100) == 100.0
    pace.look(merged=101, agents=100)
    assert pace.wanted_ms(100) == 200.0
    for _ in range(10):
        pace.look(merged=101, agents=100)
    assert pace.wanted_ms(100) == STRETCH_MAX * 50.0


def test_who_is_no_longer_behind_hears_more_step_by_step():
    pace = SummaryPace(20.0)
    pace.look(merged=3000, agents=1000)
    pace.look(merged=1000, agents=1000)
    assert pace.wanted_ms(1000) == pytest.approx(180.0)
    for _ in range(10):
        pace.look(merged=0, agents=1000)
    assert pace.wanted_ms(1000) == 100.0


def test_a_stall_of_a_small_cluster_changes_nothing():
    pace = SummaryPace(20.0)
    pace.look(merged=MERGED_MIN, agents=2)
    assert pace.wanted_ms(2) == 0.0
