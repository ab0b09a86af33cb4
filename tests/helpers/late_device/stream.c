// Streams, events and graphs.

#include "queue.h"

#include <stdlib.h>

// --- Streams ---------------------------------------------------------------------------------

Status cuStreamCreate(Stream **stream, unsigned flags) {
    CALL(cuStreamCreate);
    *stream = calloc(1, sizeof **stream);
    **stream = (Stream){.tag = STREAM, .next = streams, .blocking = !(flags & 1)};
    streams = *stream;
    counts.streams++;
    return leave(SUCCESS);
}

Status cuStreamDestroy_v2(Stream *stream) {
    CALL(cuStreamDestroy_v2);
    if (!is(stream, STREAM, "cuStreamDestroy")) return leave(INVALID_HANDLE);
    if (stream->capturing) misuse("a stream is destroyed during a capture");
    Status status = carry_out_until(stream, NULL);
    clear(&stream->captured);
    stream->capturing = 0;
    stream->tag = DESTROYED;
    counts.streams--;
    return leave(status);
}

Status cuStreamSynchronize(Stream *stream) {
    CALL(cuStreamSynchronize);
    if (!is(stream, STREAM, "cuStreamSynchronize")) return leave(INVALID_HANDLE);
    if (stream->capturing || spoil_captures()) {
        stream->spoiled = 1;
        return leave(CAPTURE_UNSUPPORTED);
    }
    counts.waits++;
    return leave(carry_out_until(stream, NULL));
}

Status cuStreamQuery(Stream *stream) {
    CALL(cuStreamQuery);
    if (!is(stream, STREAM, "cuStreamQuery")) return leave(INVALID_HANDLE);
    return leave(stream->queue.count > stream->position ? NOT_READY : SUCCESS);
}

Status cuStreamWaitEvent(Stream *stream, Event *event, unsigned flags) {
    (void)flags;
    CALL(cuStreamWaitEvent);
    if (!is(event, EVENT, "cuStreamWaitEvent")) return leave(INVALID_HANDLE);
    return leave(queue(stream, (Op){.kind = WAIT, .event = event}));
}

Status cuCtxSynchronize(void) {
    CALL(cuCtxSynchronize);
    if (spoil_captures()) return leave(CAPTURE_UNSUPPORTED);
    counts.waits++;
    Status status = SUCCESS;
    for (Stream *stream = streams; stream != NULL && status == SUCCESS; stream = stream->next) {
        if (stream->tag == STREAM) status = carry_out_until(stream, NULL);
    }
    return leave(status);
}

// --- Events ----------------------------------------------------------------------------------

Status cuEventCreate(Event **event, unsigned flags) {
    (void)flags;
    CALL(cuEventCreate);
    *event = calloc(1, sizeof **event);
    (*event)->tag = EVENT;
    counts.events++;
    return leave(SUCCESS);
}

Status cuEventDestroy_v2(Event *event) {
    CALL(cuEventDestroy_v2);
    if (!is(event, EVENT, "cuEventDestroy")) return leave(INVALID_HANDLE);
    event->tag = DESTROYED;
    counts.events--;
    return leave(SUCCESS);
}

Status cuEventRecord(Event *event, Stream *stream) {
    CALL(cuEventRecord);
    if (!is(event, EVENT, "cuEventRecord")) return leave(INVALID_HANDLE);
    Status status = queue(stream, (Op){.kind = RECORD, .event = event});
    if (status == SUCCESS) {
        event->stream = stream;
        event->pending = 1;
    }
    return leave(status);
}

Status cuEventQuery(Event *event) {
    CALL(cuEventQuery);
    if (!is(event, EVENT, "cuEventQuery")) return leave(INVALID_HANDLE);
    return leave(event->pending ? NOT_READY : SUCCESS);
}

Status cuEventSynchronize(Event *event) {
    CALL(cuEventSynchronize);
    if (!is(event, EVENT, "cuEventSynchronize")) return leave(INVALID_HANDLE);
    if (spoil_captures()) return leave(CAPTURE_UNSUPPORTED);
    counts.waits++;
    return leave(event->pending ? carry_out_until(event->stream, event) : SUCCESS);
}

Status cuEventElapsedTime(float *milliseconds, Event *from, Event *to) {
    CALL(cuEventElapsedTime);
    if (!is(from, EVENT, "cuEventElapsedTime") || !is(to, EVENT, "cuEventElapsedTime")) {
        return leave(INVALID_HANDLE);
    }
    if (from->stream == NULL || to->stream == NULL) return leave(INVALID_HANDLE);
    if (from->pending || to->pending) return leave(NOT_READY);
    *milliseconds = (float)(to->time - from->time);
    return leave(SUCCESS);
}

// --- Graphs ----------------------------------------------------------------------------------

Status cuStreamBeginCapture_v2(Stream *stream, int mode) {
    CALL(cuStreamBeginCapture_v2);
    if (!is(stream, STREAM, "cuStreamBeginCapture")) return leave(INVALID_HANDLE);
    if (stream->capturing) return leave(CAPTURE_UNSUPPORTED);
    if (stream->blocking) misuse("a capture on a blocking stream breaks other threads' work");
    stream->capturing = 1;
    stream->mode = mode;
    stream->spoiled = 0;
    stream->owner = pthread_self();
    return leave(SUCCESS);
}

Status cuStreamEndCapture(Stream *stream, Graph **graph) {
    Status status = enter("cuStreamEndCapture", 1);
    *graph = NULL;
    if (!is(stream, STREAM, "cuStreamEndCapture")) return leave(INVALID_HANDLE);
    if (!stream->capturing) return leave(INVALID_VALUE);
    if (status == SUCCESS && stream->spoiled) status = CAPTURE_INVALIDATED;
    stream->capturing = 0;
    if (status != SUCCESS) {  // an injected fault, too, ends the capture
        clear(&stream->captured);
        return leave(status);
    }
    *graph = calloc(1, sizeof **graph);
    **graph = (Graph){GRAPH, stream->captured};
    stream->captured = (List){0};
    counts.graphs++;
    counts.captures++;
    return leave(SUCCESS);
}

Status cuStreamIsCapturing(const Stream *stream, int *state) {
    CALL(cuStreamIsCapturing);
    if (!is(stream, STREAM, "cuStreamIsCapturing")) return leave(INVALID_HANDLE);
    *state = !stream->capturing ? 0 : stream->spoiled ? 2 : 1;
    return leave(SUCCESS);
}

Status cuGraphInstantiateWithFlags(Exec **exec, const Graph *graph, unsigned long long flags) {
    (void)flags;
    CALL(cuGraphInstantiateWithFlags);
    if (!is(graph, GRAPH, "cuGraphInstantiate")) return leave(INVALID_HANDLE);
    *exec = calloc(1, sizeof **exec);
    **exec = (Exec){EXEC, 1, {0}};
    for (size_t i = 0; i < graph->nodes.count; i++) append(&(*exec)->nodes, graph->nodes.ops[i]);
    counts.executables++;
    return leave(SUCCESS);
}

Status cuGraphDestroy(Graph *graph) {
    CALL(cuGraphDestroy);
    if (!is(graph, GRAPH, "cuGraphDestroy")) return leave(INVALID_HANDLE);
    graph->tag = DESTROYED;
    clear(&graph->nodes);
    counts.graphs--;
    return leave(SUCCESS);
}

Status cuGraphExecDestroy(Exec *exec) {
    CALL(cuGraphExecDestroy);
    if (!is(exec, EXEC, "cuGraphExecDestroy")) return leave(INVALID_HANDLE);
    exec->tag = DESTROYED;
    drop_exec(exec);  // launches in the queue still refer to it, as with CUDA
    counts.executables--;
    return leave(SUCCESS);
}

Status cuGraphUpload(Exec *exec, Stream *stream) {
    CALL(cuGraphUpload);
    int fine = is(exec, EXEC, "cuGraphUpload") && is(stream, STREAM, "cuGraphUpload");
    return leave(fine ? SUCCESS : INVALID_HANDLE);
}

Status cuGraphLaunch(Exec *exec, Stream *stream) {
    CALL(cuGraphLaunch);
    if (!is(exec, EXEC, "cuGraphLaunch")) return leave(INVALID_HANDLE);
    exec->references++;
    Status status = queue(stream, (Op){.kind = LAUNCH, .exec = exec});
    if (status != SUCCESS) {
        drop_exec(exec);
        return leave(status);
    }
    counts.launches++;
    for (size_t i = 0; i < exec->nodes.count; i++) poison(exec->nodes.ops[i]);
    return leave(SUCCESS);
}
