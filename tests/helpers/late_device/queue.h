// What a stream holds until it is waited for.

#pragma once

#include "late.h"

typedef enum { COPY, FILL, RUN, RECORD, WAIT, LAUNCH } Kind;
typedef struct Event Event;
typedef struct Exec Exec;

typedef struct {
    Kind kind;
    int references;
    char *target;
    const char *source;
    size_t size;
    int value;
    Run run;
    Done done;
    void *data;
    Event *event;
    Exec *exec;
} Op;

typedef struct {
    Op **ops;
    size_t count;
} List;

// Handles are never given back to the heap, so that late use of one is seen.
typedef enum { STREAM = 0x57, EVENT, GRAPH, EXEC, DESTROYED } Tag;

typedef struct Stream {
    Tag tag;
    struct Stream *next;
    List queue;
    size_t position;
    int blocking, capturing, mode, spoiled;
    pthread_t owner;
    List captured;
} Stream;

struct Event {
    Tag tag;
    Stream *stream;
    int pending;
    double time;
};

typedef struct {
    Tag tag;
    List nodes;
} Graph;

struct Exec {
    Tag tag;
    int references;
    List nodes;
};

extern Stream *streams;

// Whether a handle is alive; otherwise it is noted as misuse of `what`.
int is(const void *handle, Tag tag, const char *what);

void append(List *list, Op *op);
void clear(List *list);
void drop_exec(Exec *exec);

// Queues work, or records it into the graph that is captured.
Status queue(Stream *stream, Op op);

// Overwrites the target of a download that is queued: the host must not see an earlier result where
// it should have waited for this one.
void poison(const Op *op);

// Carries out a stream's queue up to the record of an event, or all of it.
Status carry_out_until(Stream *stream, const Event *event);
