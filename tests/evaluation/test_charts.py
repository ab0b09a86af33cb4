"""Charts as SVG."""

from __future__ import annotations

import math
import re

from sam2_edge.evaluation.charts import ceiling, line_chart


def test_charts_skip_values_that_are_not_finite_and_round_up() -> None:
    drawn = line_chart("a & b", {"x": [(0, 1.0), (1, math.inf)]}, x_label="n", low=0, high=2)
    assert "a &amp; b" in drawn
    assert re.search(r'points="[\d.]+,[\d.]+"', drawn)
    assert [ceiling(v) for v in ([0.3], [1.0], [math.inf], [], [7.0])] == [0.5, 1.0, 1.0, 1.0, 10.0]
