"""The result of a verification as JSON, and as a self-contained HTML page."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.evaluation.charts import ceiling, line_chart
from sam2_edge.evaluation.verify.compare import ObjectComparison, Verification, WorstFrame
from sam2_edge.evaluation.verify.tolerances import Tolerances
from sam2_edge.runtime.sinks.jsonl import finite
from sam2_edge.runtime.sinks.overlay import draw_mask

PICTURE_WIDTH_PX = 480
"""Width of the pictures on the page."""

_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:1040px;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}
td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #8884}
td:first-child,th:first-child,th:nth-child(2),td.text{text-align:left}
figure{margin:1rem 0}figure img{max-width:49%}svg{max-width:100%}
.good{color:#2b8a3e}.bad{color:#b3261e}
"""


def as_json(
    result: Verification, about: Mapping[str, Any], tolerances: Tolerances
) -> dict[str, Any]:
    """Return everything except the pictures; non-finite numbers become null.

    Args:
        result: The result.
        about: Facts about the comparison, by name.
        tolerances: Limits whose violations are listed as problems.
    """
    first = result.first_divergence
    return {
        **about,
        "tolerances": {
            **asdict(tolerances),
            "graph": {g.value: v for g, v in tolerances.graph.items()},
        },
        "problems": result.problems(tolerances),
        "j_and_f": finite(result.j_and_f, 6),
        "presence": finite(result.presence, 6),
        **_finite({f"{n}_drift": result.drift(n) for n in ("memory", "pointer")}),
        "first_divergence": first and {"frame": first.frame, "object": first.object_id},
        "graphs": [
            {"graph": graph.value, "output": name, **_finite(asdict(worst))}
            for (graph, name), worst in result.graphs.items()
        ],
        "frames": [_finite(asdict(comparison)) for comparison in result.comparisons],
    }


def as_page(result: Verification, about: Mapping[str, Any], tolerances: Tolerances) -> str:
    """Return an HTML page without external resources; arguments as for `as_json`."""
    problems = result.problems(tolerances)
    verdict = (
        "<ul class=bad>" + "".join(f"<li>{escape(p)}</li>" for p in problems) + "</ul>"
        if problems
        else "<p class=good>Within all tolerances.</p>"
    )
    facts = {
        **about,
        "swapped": ", ".join(about["swapped"]) or "none",
        "same_weights": {True: "yes", False: "no", None: "unknown"}[about["same_weights"]],
        "J&F against the reference": f"{result.j_and_f:.4f}",
        "agreement on presence": f"{result.presence:.4f}",
        "loops diverge": result.diverged_at,
    }
    title = escape(f"{about['bundle']} against {about['reference']}")
    parts = [
        f"<h1>{title}</h1>",
        verdict,
        _table(("", ""), [(n.replace("_", " "), str(v)) for n, v in facts.items()], text=2),
        "<h2>Graphs, on the inputs of the loop</h2>",
        _table(GRAPH_COLUMNS, graph_rows(result), text=2),
        "<h2>Over the clip</h2>",
        *charts(result),
        "<h2>Frames that differ most</h2><p>Left: the bundle. Right: the reference.</p>",
        *(_figure(frame) for frame in result.worst),
    ]
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


GRAPH_COLUMNS = ("graph", "output", "max abs", "mean abs", "cosine", "relative L2")


def graph_rows(result: Verification) -> list[tuple[str, ...]]:
    """Format the differences of the graphs as rows of `GRAPH_COLUMNS`."""
    return [
        (
            graph.value,
            name,
            f"{worst.max_abs:.2e}",
            f"{worst.mean_abs:.2e}",
            f"{worst.cosine:.7f}",
            f"{worst.relative_l2:.2e}",
        )
        for (graph, name), worst in result.graphs.items()
    ]


def charts(result: Verification) -> list[str]:
    """Plot J of the masks, and the differences of logits, memories and pointers, by frame."""
    objects = result.by_object()
    lowest = min(c.j for c in result.comparisons)
    plots = [
        line_chart(
            "J against the reference",
            {f"object {i}": [(c.frame, c.j) for c in rows] for i, rows in objects.items()},
            x_label="frame",
            low=math.floor(lowest * 10) / 10 if lowest < 1 else 0.9,
            high=1.0,
        )
    ]
    for title, name in (
        ("Maximum difference of the mask logits", "logits"),
        ("Relative L2 difference of the memory", "memory"),
        ("Relative L2 difference of the object pointer", "pointer"),
    ):
        lines = {f"object {i}": _points(rows, name) for i, rows in objects.items()}
        high = ceiling([y for points in lines.values() for _, y in points])
        plots.append(line_chart(title, lines, x_label="frame", low=0.0, high=high))
    return plots


def _points(rows: Sequence[ObjectComparison], name: str) -> list[tuple[float, float]]:
    values = [(c.frame, getattr(c, name)) for c in rows]
    return [(frame, value) for frame, value in values if value is not None]


def _figure(frame: WorstFrame) -> str:
    c = frame.comparison
    images = "".join(
        f'<img alt="" src="data:image/jpeg;base64,{_jpeg(frame.picture, mask)}"> '
        for mask in (frame.mask, frame.reference_mask)
    )
    caption = f"frame {c.frame}, object {c.object_id}: J {c.j:.4f}, F {c.f:.4f}"
    return f"<figure>{images}<figcaption>{caption}</figcaption></figure>"


def _jpeg(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    canvas = picture.copy()
    draw_mask(canvas, mask, (40, 120, 255))
    height = max(1, round(canvas.shape[0] * PICTURE_WIDTH_PX / canvas.shape[1]))
    smaller = cv2.resize(canvas, (PICTURE_WIDTH_PX, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return base64.b64encode(data.tobytes()).decode()


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, text: int) -> str:
    """Format an HTML table whose first `text` columns are left-aligned."""
    head = "".join(f"<th>{escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=text' if i < text else ''}>{escape(cell)}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    return {k: finite(v, 9) if isinstance(v, float) else v for k, v in record.items()}
