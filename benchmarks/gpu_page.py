"""The page of `benchmarks/gpu.py`: tables of what was measured, and why the rest was not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]

STAGES = ("preprocess", "image_encoder", "memory_attention", "mask_decoder", "mask_prompt",
          "memory_encoder", "mask_bits", "rest", "postprocess", "whole frame")  # fmt: skip

BASE = "PyTorch eager bf16"
"""The way whose time is divided by the others'."""

PARITY = (
    ("J&F", "j_and_f", "{:.4f}"),
    ("limit", "limit", "{:.3f}"),
    ("agrees", "agrees", "{}"),
    ("lowest IoU of a mask", "lowest_iou", "{:.4f}"),
    ("presence", "presence", "{:.3f}"),
    ("logits, relative", "logit_error", "{:.1e}"),
    ("logits, largest difference", "largest_difference", "{:.1e}"),
    ("masks", "masks", "{}"),
)

NANO = (
    ("J&F", "j_and_f", "{:.4f}"),
    ("J", "j", "{:.4f}"),
    ("F", "f", "{:.4f}"),
    ("presence", "presence", "{:.3f}"),
    ("IoU with PyTorch's masks", "iou_with_pytorch", "{:.4f}"),
    ("lowest", "lowest_iou", "{:.4f}"),
    ("objects", "objects", "{:.0f}"),
)


ENGINES = (("seconds to build", "build_s", "{:.0f}"), ("MiB", "engines_mib", "{:.0f}"))

PARITY_NOTE = (
    "Two groups of objects, one removed, one prompted again; masks at the size of the frame. The "
    "limit holds for trained weights; PyTorch in bfloat16 is the yardstick."
)
NANO_NOTE = "One click per object; J&F against the true masks."
MS_NOTE = (
    "Median; from a frame in memory to masks of its size on the host, one frame after the other. "
    "All memories are full."
)
FPS_NOTE = "The next frames are prepared in a second thread."
MEMORY_NOTE = (
    "Above what was in use before, by all processes; one process for all numbers of objects, in "
    "this order."
)
STAGES_NOTE = "Medians, with a clock after each graph: a frame is then not one CUDA graph."


def page(run: Mapping[str, Any]) -> str:
    """Return the record of a run as Markdown."""
    return "\n".join((*_head(run), *_body(run), *_unmeasured(run["steps"]))) + "\n"


def _head(run: Mapping[str, Any]) -> Iterator[str]:
    settings = run["settings"]
    width, height = settings["frame"]
    yield "# GPU benchmark"
    yield ""
    for name, value in run["machine"].items():
        yield f"- {name}: {value or 'none'}"
    yield "- " + ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    yield f"- {run['date']}, commit {run['commit'] or 'unknown'}, tree {run['tree']}"
    yield (
        f"- model {settings['model']}"
        + ("" if settings["seed"] is None else f", random weights (seed {settings['seed']})")
        + f"; frames of {width} x {height} from "
        + (settings["video"] or "a synthetic clip")
    )
    yield ""
    yield "Only figures that were measured are here; the last section has the reasons for the rest."


def _body(run: Mapping[str, Any]) -> Iterator[str]:
    steps, counts = run["steps"], [str(count) for count in run["settings"]["objects"]]
    parity, nano, speed = (_of(steps, kind) for kind in ("parity", "nano", "speed"))
    yield from _tests(steps)
    yield from _figures("Agreement with PyTorch in float32", parity, PARITY, PARITY_NOTE)
    yield from _figures("nano on held-out clips", nano, NANO, NANO_NOTE)
    yield from _by_objects("Milliseconds per frame", speed, counts, _entry("ms", "{:.2f}"), MS_NOTE)
    yield from _by_objects(f"Times as fast as {BASE}", speed, counts, _ratio(steps), "")
    yield from _by_objects("Frames per second", speed, counts, _entry("fps", "{:.1f}"), FPS_NOTE)
    memory = _entry("peak_mib", "{:.0f}")
    yield from _by_objects("Peak device memory, MiB", speed, counts, memory, MEMORY_NOTE)
    yield from _stages(_of(steps, "stages"), list(dict.fromkeys((counts[0], counts[-1]))))
    yield from _figures("Engines", _of(steps, "engines"), ENGINES, "")


def _tests(steps: Mapping[str, Record]) -> Iterator[str]:
    yield from _title("GPU tests")
    for record in _of(steps, "tests"):
        figures = record["figures"]
        if not figures:
            yield f"{record['way']}: {record['status']}"
            continue
        counts = ", ".join(f"{figures[name]} {name}" for name in ("passed", "failed", "skipped"))
        yield f"{record['way']}: {counts}"
        yield from _list([f"failed: {name}" for name in figures["failures"]])
        reasons = figures["skip_reasons"].items()
        yield from _list([f"skipped, {count}: {reason}" for reason, count in reasons])


def _figures(
    title: str, records: Sequence[Record], columns: Sequence[tuple[str, str, str]], note: str
) -> Iterator[str]:
    """Yield a table with a row per way and a column per figure."""
    rows = [
        [r["way"], *(_cell(r, r["figures"].get(key), how) for _, key, how in columns)]
        for r in records
    ]
    yield from _title(title, note)
    yield from _table(["", *(heading for heading, _, _ in columns)], rows, records)


def _by_objects(
    title: str,
    records: Sequence[Record],
    counts: Sequence[str],
    cell: Callable[[Record, str], str],
    note: str,
) -> Iterator[str]:
    """Yield a table with a row per way and a column per number of objects."""
    yield from _title(title, note)
    headings = [f"{count} object{'s' * (count != '1')}" for count in counts]
    rows = [[r["way"], *(cell(r, count) for count in counts)] for r in records]
    yield from _table(["", *headings], rows, records)


def _stages(records: Sequence[Record], counts: Sequence[str]) -> Iterator[str]:
    """Yield a table with a row per way and number of objects, and a column per stage."""
    found = [(r, count, r["figures"].get(count, {})) for r in records for count in counts]
    stages = [stage for stage in STAGES if any(stage in figures for _, _, figures in found)]
    rows = [
        [f"{record['way']}, {count}", *(_cell(record, f.get(s), "{:.2f}") for s in stages)]
        for record, count, f in found
    ]
    yield from _title("Milliseconds per stage", STAGES_NOTE)
    yield from _table(["", *stages], rows, records)


def _unmeasured(steps: Mapping[str, Record]) -> Iterator[str]:
    reasons: dict[str, list[str]] = {}
    for name, record in steps.items():
        if record["reason"]:
            reasons.setdefault(f"{record['status']}: {record['reason']}", []).append(name)
    yield from _title("Not measured, and remarks")
    for reason, names in reasons.items():
        yield f"- {' '.join(reason.split())}"
        yield from (f"    - {name}" for name in names)
    yield ""
    total = sum(record["seconds"] or 0 for record in steps.values())
    yield f"{len(steps)} steps took {total:.0f} s."


def _of(steps: Mapping[str, Record], kind: str) -> list[Record]:
    return [record for record in steps.values() if record["kind"] == kind]


def _entry(key: str, how: str) -> Callable[[Record, str], str]:
    return lambda record, count: _cell(record, record["figures"].get(count, {}).get(key), how)


def _ratio(steps: Mapping[str, Record]) -> Callable[[Record, str], str]:
    """Return what compares a way with `BASE`, which must have been measured too."""
    base = steps.get(f"speed: {BASE}", {"figures": {}})["figures"]

    def cell(record: Record, count: str) -> str:
        theirs = base.get(count, {}).get("ms")
        ours = record["figures"].get(count, {}).get("ms")
        if theirs is None and ours is not None:
            return f"no {BASE}"
        return _cell(record, theirs / ours if ours else None, "{:.2f}")

    return cell


def _cell(record: Record, value: Any, how: str) -> str:
    """Return a figure, or the state of its step."""
    if value is None:
        return "-" if record["status"] == "done" else str(record["status"])
    return how.format("yes" if value is True else "no" if value is False else value)


def _title(title: str, note: str = "") -> tuple[str, ...]:
    return ("", f"## {title}", "", *((note, "") if note else ()))


def _table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], records: Sequence[Record]
) -> Iterator[str]:
    """Yield a table, or one line if its steps found nothing at all."""
    if not any(record["figures"] for record in records):
        states = sorted({record["status"] for record in records})
        yield f"Nothing was measured ({', '.join(states) or 'no such step'})."
        return
    for row in (headings, ["---"] * len(headings), *rows):
        yield "| " + " | ".join(row) + " |"


def _list(lines: Sequence[str]) -> Iterator[str]:
    if lines:
        yield ""
        yield from (f"- {' '.join(line.split())}" for line in lines)
        yield ""
