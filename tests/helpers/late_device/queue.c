// Queued work, copies and engine runs: carried out at a wait.

#include "queue.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { POISON = 0xFF };

Stream *streams;

int is(const void *handle, Tag tag, const char *what) {
    if (handle != NULL && *(const Tag *)handle == tag) return 1;
    misuse("%s is given a handle that does not exist", what);
    return 0;
}

void append(List *list, Op *op) {
    list->ops = realloc(list->ops, (list->count + 1) * sizeof *list->ops);
    list->ops[list->count++] = op;
    op->references++;
}

void drop_exec(Exec *exec) {
    if (--exec->references == 0) clear(&exec->nodes);
}

static void drop(Op *op) {
    if (--op->references > 0) return;
    if (op->kind == LAUNCH) drop_exec(op->exec);
    if (op->done != NULL) op->done(op->data);
    free(op);
}

void clear(List *list) {
    for (size_t i = 0; i < list->count; i++) drop(list->ops[i]);
    free(list->ops);
    *list = (List){0};
}

int spoil_captures(void) {
    int spoiled = 0;
    for (Stream *stream = streams; stream != NULL; stream = stream->next) {
        int mine = pthread_equal(stream->owner, pthread_self());
        if (stream->capturing && (stream->mode == 0 || (stream->mode == 1 && mine))) {
            stream->spoiled = spoiled = 1;
        }
    }
    return spoiled;
}

// --- Carrying out ----------------------------------------------------------------------------

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec * 1e-6;
}

static Status copy(const Op *op) {
    int target = place_of(op->target, op->size), source = place_of(op->source, op->size);
    if ((op->value != 1 && source != 1) || (op->value != 2 && target != 1)) {
        misuse("a copy of %zu bytes reaches outside the memory in use", op->size);
        return ILLEGAL_ADDRESS;
    }
    memmove(op->target, op->source, op->size);
    uint64_t *number[] = {&counts.device_copies, &counts.uploads, &counts.downloads};
    uint64_t *bytes[] = {
        &counts.device_copy_bytes, &counts.upload_bytes, &counts.download_bytes};
    ++*number[op->value];
    *bytes[op->value] += op->size;
    return SUCCESS;
}

static Status carry_out(Op *op) {
    switch (op->kind) {
        case COPY: return copy(op);
        case FILL:
            if (place_of(op->target, op->size) != 1) return ILLEGAL_ADDRESS;
            memset(op->target, op->value, op->size);
            return SUCCESS;
        case RUN:
            counts.runs++;
            return op->run(op->data) == 0 ? SUCCESS : LAUNCH_FAILED;
        case RECORD:
            op->event->time = now();
            op->event->pending = 0;
            return SUCCESS;
        case WAIT:
            return op->event->pending ? carry_out_until(op->event->stream, op->event) : SUCCESS;
        case LAUNCH:
            for (size_t i = 0; i < op->exec->nodes.count; i++) {
                Status status = carry_out(op->exec->nodes.ops[i]);
                if (status != SUCCESS) return status;
            }
    }
    return SUCCESS;
}

Status carry_out_until(Stream *stream, const Event *event) {
    Status status = SUCCESS;
    while (stream->position < stream->queue.count && status == SUCCESS) {
        if (event != NULL && !event->pending) return SUCCESS;
        status = carry_out(stream->queue.ops[stream->position++]);
    }
    if (status != SUCCESS) lasting_error(status);
    if (stream->position == stream->queue.count || status != SUCCESS) {
        List done = stream->queue;
        stream->queue = (List){0};
        stream->position = 0;
        clear(&done);
    }
    return status;
}

// --- Queuing ---------------------------------------------------------------------------------

Status queue(Stream *stream, Op op) {
    if (!is(stream, STREAM, "a stream's queue")) {
        if (op.done != NULL) op.done(op.data);
        return INVALID_HANDLE;
    }
    Op *kept = malloc(sizeof op);
    *kept = op;
    append(stream->capturing ? &stream->captured : &stream->queue, kept);
    return SUCCESS;
}

void poison(const Op *op) {
    if (op->kind == COPY && op->value == 2) memset(op->target, POISON, op->size);
}

static Status queue_copy(void *target, const void *source, size_t size, int direction, void *to) {
    Op op = {.kind = COPY, .target = target, .source = source, .size = size, .value = direction};
    const void *host = direction == 1 ? source : target;
    if (direction != 0 && place_of(host, size) != 2) counts.unpinned++;
    Status status = queue(to, op);
    if (status == SUCCESS && !((Stream *)to)->capturing) poison(&op);
    return status;
}

Status cuMemcpyHtoDAsync_v2(void *target, const void *source, size_t size, void *stream) {
    CALL(cuMemcpyHtoDAsync_v2);
    return leave(queue_copy(target, source, size, 1, stream));
}

Status cuMemcpyDtoHAsync_v2(void *target, const void *source, size_t size, void *stream) {
    CALL(cuMemcpyDtoHAsync_v2);
    return leave(queue_copy(target, source, size, 2, stream));
}

Status cuMemcpyDtoDAsync_v2(void *target, const void *source, size_t size, void *stream) {
    CALL(cuMemcpyDtoDAsync_v2);
    return leave(queue_copy(target, source, size, 0, stream));
}

Status cuMemcpyAsync(void *target, const void *source, size_t size, void *stream) {
    CALL(cuMemcpyAsync);
    int direction = place_of(source, size) != 1 ? 1 : place_of(target, size) != 1 ? 2 : 0;
    return leave(queue_copy(target, source, size, direction, stream));
}

Status cuMemsetD8Async(void *target, unsigned char value, size_t size, void *stream) {
    CALL(cuMemsetD8Async);
    return leave(queue(stream, (Op){.kind = FILL, .target = target, .size = size, .value = value}));
}

// For tests: queues an engine's run. `done` is called once nothing refers to `data` any more.
Status late_enqueue(void *stream, Run run, Done done, void *data) {
    Status status = enter("late_enqueue", 1);
    if (status != SUCCESS) {
        done(data);
        return leave(status);
    }
    status = queue(stream, (Op){.kind = RUN, .run = run, .done = done, .data = data});
    if (status == SUCCESS && !((Stream *)stream)->capturing) counts.enqueues++;
    return leave(status);
}

int late_stream_exists(const void *stream) {
    return stream != NULL && ((const Stream *)stream)->tag == STREAM;
}

int late_is_capturing(const void *stream) {
    return late_stream_exists(stream) && ((const Stream *)stream)->capturing;
}

size_t late_pending(const Stream *stream) { return stream->queue.count - stream->position; }
