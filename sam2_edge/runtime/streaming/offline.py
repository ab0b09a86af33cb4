"""Tracks objects through a whole source and writes the results to sinks."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing

from sam2_edge.errors import PromptError
from sam2_edge.runtime.results import FrameResult
from sam2_edge.runtime.sinks import Sink
from sam2_edge.runtime.sources import Source, SourceFrame
from sam2_edge.runtime.sources.prompt_file import PromptsByFrame, check_prompts
from sam2_edge.runtime.sources.read_ahead import read_ahead
from sam2_edge.runtime.tracker import VideoTracker


def track_source(
    source: Source, tracker: VideoTracker, prompts: PromptsByFrame, sinks: Sequence[Sink] = ()
) -> Generator[tuple[SourceFrame, FrameResult], None, None]:
    """Track every frame of a source, write each result to the sinks, then yield it.

    Results before the first prompt contain no objects. The sinks are closed however the iteration
    ends.

    Raises:
        PromptError: If a prompt is invalid, or the source ends before its frame.
        SourceError: If a frame cannot be read.
        SinkError: If a result cannot be written.
    """
    with ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        check_prompts(prompts, source.start, source.limit)
        index = source.start - 1
        prepared = read_ahead(iter(source), lambda frame: (frame, tracker.prepare(frame.picture)))
        # Closed even if the error of a caller keeps this frame of the stack alive.
        for frame, ready in stack.enter_context(closing(prepared)):
            index = frame.index
            result = tracker.track(ready, prompts.get(index, ()))
            for sink in sinks:
                sink.write(frame, result)
            yield frame, result
        late = [f for f in prompts if f > index]
        if late:
            raise PromptError(
                f"a prompt is on frame {min(late)}, but the source ended with frame {index}"
            )
