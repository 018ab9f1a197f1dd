"""The paper's local score, by hand."""

import math

from festina.control.local_paper import paper_score


def test_the_papers_score_is_the_share_of_the_remaining_slack():
    assert paper_score(10.0, 100.0, 20.0, 0.0) == 0.1
    assert paper_score(10.0, 100.0, 50.0, 1.0) == 0.2


def test_no_slack_left_is_most_urgent():
    assert paper_score(10.0, 100.0, 100.0, 1.0) == math.inf
    assert paper_score(10.0, -5.0, 0.0, 0.0) == math.inf
