"""What a verification found, as JSON and as one page that holds all it shows."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from sam2_edge.evaluation.charts import ceiling, line_chart
from sam2_edge.evaluation.verify.compare import Compared, Shown, Verification
from sam2_edge.evaluation.verify.tolerances import Budget
from sam2_edge.runtime.sinks.jsonl import finite
from sam2_edge.runtime.sinks.overlay import draw_mask

SHOWN_WIDTH = 480
"""Pixels of a picture on the page."""

_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,sans-serif;max-width:1040px;margin:2rem auto;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}
td,th{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #8884}
td:first-child,th:first-child,th:nth-child(2),td.text{text-align:left}
figure{margin:1rem 0}figure img{max-width:49%}svg{max-width:100%}
.good{color:#2b8a3e}.bad{color:#b3261e}
"""


@dataclass(frozen=True, slots=True)
class About:
    """What was compared. same_weights: on both sides, None where nothing tells. facts: names and
    values for the head of the page.
    """

    bundle: str
    reference: str
    source: str
    swapped: tuple[str, ...]
    same_weights: bool | None
    facts: Mapping[str, str]


def as_json(found: Verification, about: About, budget: Budget) -> dict[str, Any]:
    """Everything but the pictures; figures that are not finite are null."""
    parting = found.first_parting
    return {
        "bundle": about.bundle,
        "reference": about.reference,
        "source": about.source,
        "swapped": list(about.swapped),
        "same_weights": about.same_weights,
        "facts": dict(about.facts),
        "budget": {**asdict(budget), "graph": {g.value: v for g, v in budget.graph.items()}},
        "problems": found.problems(budget),
        "j_and_f": finite(found.j_and_f, 6),
        "presence": finite(found.presence, 6),
        "memory_drift": _number(found.drift("memory")),
        "pointer_drift": _number(found.drift("pointer")),
        "first_parting": None
        if parting is None
        else {"frame": parting.frame, "object": parting.object_id},
        "graphs": [
            {"graph": graph.value, "output": name, **_finite(asdict(worst))}
            for (graph, name), worst in found.graphs.items()
        ],
        "frames": [_finite(asdict(compared)) for compared in found.compared],
    }


def as_page(found: Verification, about: About, budget: Budget) -> str:
    """One HTML page without anything from elsewhere."""
    problems = found.problems(budget)
    verdict = (
        "<ul class=bad>" + "".join(f"<li>{escape(p)}</li>" for p in problems) + "</ul>"
        if problems
        else "<p class=good>Every budget holds.</p>"
    )
    parting = found.first_parting
    where = "never" if parting is None else f"at frame {parting.frame}, object {parting.object_id}"
    facts = {
        "bundle": about.bundle,
        "reference": about.reference,
        "source": about.source,
        "graphs taken from the reference": ", ".join(about.swapped) or "none",
        "same weights": {True: "yes", False: "no", None: "not known"}[about.same_weights],
        **about.facts,
        "J&F against the reference": f"{found.j_and_f:.4f}",
        "agreement on presence": f"{found.presence:.4f}",
        "the loops part": where,
    }
    parts = [
        f"<h1>{escape(about.bundle)} against {escape(about.reference)}</h1>",
        verdict,
        _table(("", ""), list(facts.items()), text=2),
        "<h2>Graph by graph, on the inputs of the loop</h2>",
        _table(GRAPH_COLUMNS, graph_rows(found), text=2),
        "<h2>Over the clip</h2>",
        *charts(found),
        "<h2>The frames that differ most</h2><p>Left this bundle, right the reference.</p>",
        *(_figure(shown) for shown in found.worst),
    ]
    title = escape(f"{about.bundle} against {about.reference}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


GRAPH_COLUMNS = ("graph", "output", "largest", "mean", "cosine", "relative L2")


def graph_rows(found: Verification) -> list[tuple[str, ...]]:
    """The graphs' differences as text."""
    return [
        (
            graph.value,
            name,
            f"{worst.largest:.2e}",
            f"{worst.mean:.2e}",
            f"{worst.cosine:.7f}",
            f"{worst.relative:.2e}",
        )
        for (graph, name), worst in found.graphs.items()
    ]


def charts(found: Verification) -> list[str]:
    """J of the masks, and the drift of logits, memories and pointers, over the frames."""
    objects = found.objects()
    lowest = min(c.j for c in found.compared)
    made = [
        line_chart(
            "J against the reference",
            {f"object {i}": [(c.frame, c.j) for c in seen] for i, seen in objects.items()},
            x_label="frame",
            low=math.floor(lowest * 10) / 10 if lowest < 1 else 0.9,
            high=1.0,
        )
    ]
    for title, name in (
        ("Largest difference of a mask logit", "logits"),
        ("Relative difference of the memory", "memory"),
        ("Relative difference of the object pointer", "pointer"),
    ):
        lines = {f"object {i}": _points(seen, name) for i, seen in objects.items()}
        high = ceiling([y for points in lines.values() for _, y in points])
        made.append(line_chart(title, lines, x_label="frame", low=0.0, high=high))
    return made


def _points(seen: Sequence[Compared], name: str) -> list[tuple[float, float]]:
    values = [(c.frame, getattr(c, name)) for c in seen]
    return [(frame, value) for frame, value in values if value is not None]


def _figure(shown: Shown) -> str:
    c = shown.compared
    images = "".join(
        f'<img alt="" src="data:image/jpeg;base64,{_jpeg(shown.picture, mask)}"> '
        for mask in (shown.mask, shown.reference_mask)
    )
    caption = f"frame {c.frame}, object {c.object_id}: J {c.j:.4f}, F {c.f:.4f}"
    return f"<figure>{images}<figcaption>{caption}</figcaption></figure>"


def _jpeg(picture: NDArray[np.uint8], mask: NDArray[np.bool_]) -> str:
    canvas = picture.copy()
    draw_mask(canvas, mask, (40, 120, 255))
    height = max(1, round(canvas.shape[0] * SHOWN_WIDTH / canvas.shape[1]))
    smaller = cv2.resize(canvas, (SHOWN_WIDTH, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, 88])
    return base64.b64encode(data.tobytes()).decode()


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, text: int) -> str:
    """The first `text` columns are words, the others numbers."""
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


def _number(value: float | None) -> float | None:
    return None if value is None else finite(value, 9)


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    return {k: finite(v, 9) if isinstance(v, float) else v for k, v in record.items()}
