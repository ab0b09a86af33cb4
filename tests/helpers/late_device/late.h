// A stand-in for NVIDIA's driver library whose device runs late: see __init__.py.

#pragma once

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

typedef int Status;  // a CUresult
enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_FAILED = 719,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
};

// What is counted; the Python class `Counts` has the same fields in the same order.
typedef struct {
    uint64_t uploads, downloads, device_copies;  // carried out, also as part of a graph
    uint64_t upload_bytes, download_bytes, device_copy_bytes;
    uint64_t runs;      // engine runs carried out, also as part of a graph
    uint64_t enqueues;  // engine runs queued by the host itself
    uint64_t launches;  // graphs launched by the host
    uint64_t waits;     // synchronizations of a stream, an event or the device
    uint64_t captures;  // successful ones
    uint64_t unpinned;  // copies from or to memory that is not page-locked
    uint64_t device_blocks, device_bytes, most_device_bytes;  // in use now, and at most
    uint64_t host_blocks, host_bytes;
    uint64_t streams, events, graphs, executables;  // that exist now
} Counts;

// What the device claims to be; the Python class `Settings` has the same fields.
typedef struct {
    uint64_t memory_bytes;
    int32_t devices, init_status, driver_version, major, minor, integrated;
    char name[64];
} Settings;

typedef int (*Run)(void *data);    // nonzero fails the device for good
typedef void (*Done)(void *data);  // nothing refers to the run any more

extern Counts counts;
extern Settings settings;

// Starts a call: takes the lock, and returns an injected fault or the device's lasting error.
Status enter(const char *function, int needs_context);
Status leave(Status status);
void lasting_error(Status status);
void misuse(const char *format, ...);

// 1 for an address in device memory, 2 in page-locked memory, 0 in neither or across an end.
int place_of(const void *address, size_t size);

// Marks captures that a call such as an allocation makes invalid; returns whether there are any.
int spoil_captures(void);

#define CALL(function)                             \
    do {                                           \
        Status status = enter(#function, 1);       \
        if (status != SUCCESS) return leave(status); \
    } while (0)
