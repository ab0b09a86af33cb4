// Devices, contexts, memory, faults and counters.

#include "late.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { ALIGNMENT = 256, POISON = 0xFF, GUARD = 0xA5, PAGE = 4096, LARGE = 1 << 20, MAX_FAULTS = 16 };

Counts counts;
Settings settings = {(uint64_t)8 << 30, 1, 0, 13000, 8, 6, 0, "Late Device"};

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static Status error;         // the device's lasting error, as after a failed kernel
static char misuses[8192];   // one line each
static int initialized, retained;
static __thread void *current;  // the calling thread's context

typedef struct {
    char function[48];
    int after, times;
    Status status;
} Fault;

static Fault faults[MAX_FAULTS];

typedef struct Block {
    struct Block *next;
    unsigned char *start;
    size_t size;
    int place;  // as in place_of; 0 once freed
} Block;

static Block *blocks;  // also freed ones: late use of them must not reach memory of others

// Addresses ascend and never come again, so that a test's frames are the same every time.
static const size_t RESERVED = (size_t)64 << 30;  // of addresses, not of memory
static unsigned char *next_address, *last_address;

static Status fault_of(const char *function) {
    for (int i = 0; i < MAX_FAULTS; i++) {
        Fault *fault = &faults[i];
        if (fault->times == 0 || strcmp(fault->function, function) != 0) continue;
        if (fault->after > 0) {
            fault->after--;
            continue;
        }
        fault->times--;
        return fault->status;
    }
    return SUCCESS;
}

Status enter(const char *function, int needs_context) {
    pthread_mutex_lock(&lock);
    Status status = fault_of(function);
    if (status != SUCCESS) return status;
    if (!needs_context) return SUCCESS;
    if (!initialized) return NOT_INITIALIZED;
    if (current == NULL) return INVALID_CONTEXT;
    return error;
}

Status leave(Status status) {
    pthread_mutex_unlock(&lock);
    return status;
}

void lasting_error(Status status) {
    if (error == SUCCESS) error = status;
}

void misuse(const char *format, ...) {
    size_t used = strlen(misuses);
    va_list values;
    va_start(values, format);
    vsnprintf(misuses + used, sizeof misuses - used - 1, format, values);
    va_end(values);
    strcat(misuses, "\n");
}

// --- For tests -------------------------------------------------------------------------------

void late_fail(const char *function, int after, int times, Status status) {
    enter("", 0);
    for (int i = 0; i < MAX_FAULTS; i++) {
        if (faults[i].times != 0) continue;
        snprintf(faults[i].function, sizeof faults[i].function, "%s", function);
        faults[i].after = after;
        faults[i].times = times;
        faults[i].status = status;
        break;
    }
    leave(SUCCESS);
}

Counts *late_counts(void) { return &counts; }

Settings *late_settings(void) { return &settings; }

const char *late_misuses(void) { return misuses; }

void late_misuse(const char *message) {
    enter("", 0);
    misuse("%s", message);
    leave(SUCCESS);
}

// Forgets misuses and the lasting error.
void late_forgive(void) {
    enter("", 0);
    misuses[0] = 0;
    error = SUCCESS;
    leave(SUCCESS);
}

int late_place(const void *address, size_t size) {
    enter("", 0);
    int place = place_of(address, size);
    leave(SUCCESS);
    return place;
}

// --- Devices and contexts --------------------------------------------------------------------

Status cuInit(unsigned flags) {
    Status status = enter("cuInit", 0);
    if (status == SUCCESS) status = flags != 0 ? INVALID_VALUE : settings.init_status;
    if (status == SUCCESS && settings.devices == 0) status = NO_DEVICE;
    if (status == SUCCESS) initialized = 1;
    return leave(status);
}

Status cuDriverGetVersion(int *version) {
    Status status = enter("cuDriverGetVersion", 0);
    *version = settings.driver_version;
    return leave(status);
}

static Status enter_for(const char *function, int device) {
    Status status = enter(function, 0);
    if (status != SUCCESS) return status;
    if (!initialized) return NOT_INITIALIZED;
    return device < 0 || device >= settings.devices ? INVALID_DEVICE : SUCCESS;
}

Status cuDeviceGetCount(int *count) {
    Status status = enter("cuDeviceGetCount", 0);
    if (status == SUCCESS && !initialized) status = NOT_INITIALIZED;
    *count = settings.devices;
    return leave(status);
}

Status cuDeviceGet(int *device, int ordinal) {
    Status status = enter_for("cuDeviceGet", ordinal);
    *device = ordinal;
    return leave(status);
}

Status cuDeviceGetName(char *name, int size, int device) {
    Status status = enter_for("cuDeviceGetName", device);
    if (status == SUCCESS) snprintf(name, (size_t)size, "%s", settings.name);
    return leave(status);
}

Status cuDeviceTotalMem_v2(size_t *bytes, int device) {
    Status status = enter_for("cuDeviceTotalMem_v2", device);
    *bytes = settings.memory_bytes;
    return leave(status);
}

Status cuDeviceGetAttribute(int *value, int attribute, int device) {
    Status status = enter_for("cuDeviceGetAttribute", device);
    if (status != SUCCESS) return leave(status);
    switch (attribute) {
        case 16: *value = 28; break;  // multiprocessors
        case 18: *value = settings.integrated; break;
        case 19: *value = 1; break;  // can map host memory
        case 75: *value = settings.major; break;
        case 76: *value = settings.minor; break;
        default: return leave(INVALID_VALUE);
    }
    return leave(SUCCESS);
}

static char the_context;
static unsigned context_flags;

Status cuDevicePrimaryCtxRetain(void **context, int device) {
    Status status = enter_for("cuDevicePrimaryCtxRetain", device);
    if (status == SUCCESS) {
        retained++;
        *context = &the_context;
    }
    return leave(status);
}

Status cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags) {
    Status status = enter_for("cuDevicePrimaryCtxSetFlags_v2", device);
    if (status == SUCCESS) context_flags = flags;
    return leave(status);
}

Status cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    Status status = enter_for("cuDevicePrimaryCtxGetState", device);
    *flags = context_flags;
    *active = retained > 0;
    return leave(status);
}

Status cuCtxSetCurrent(void *context) {
    Status status = enter("cuCtxSetCurrent", 0);
    if (status == SUCCESS && context != NULL && context != &the_context) status = INVALID_CONTEXT;
    if (status == SUCCESS) current = context;
    return leave(status);
}

// --- Memory ----------------------------------------------------------------------------------

static Block *block_at(const void *address, size_t size) {
    const unsigned char *first = address;
    for (Block *block = blocks; block != NULL; block = block->next) {
        if (first >= block->start && first + size <= block->start + block->size) return block;
    }
    return NULL;
}

int place_of(const void *address, size_t size) {
    Block *block = block_at(address, size);
    return block == NULL ? 0 : block->place;
}

static Status take(void **address, size_t size, int place) {
    if (size == 0) return INVALID_VALUE;
    if (spoil_captures()) return CAPTURE_UNSUPPORTED;
    if (place == 1 && counts.device_bytes + size > settings.memory_bytes) return OUT_OF_MEMORY;
    size_t room = (size + 2 * ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;  // and at least one byte more
    if (next_address == NULL) {
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
        void *reserved = mmap(NULL, RESERVED, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (reserved == MAP_FAILED) return OUT_OF_MEMORY;
        next_address = reserved;
        last_address = next_address + RESERVED;
    }
    if (room > (size_t)(last_address - next_address)) return OUT_OF_MEMORY;
    Block *block = malloc(sizeof *block);
    *block = (Block){blocks, next_address, size, place};
    next_address += room;
    memset(block->start, POISON, size);
    memset(block->start + size, GUARD, room - size);
    blocks = block;
    *address = block->start;
    if (place == 2) {
        counts.host_blocks++;
        counts.host_bytes += size;
        return SUCCESS;
    }
    counts.device_blocks++;
    counts.device_bytes += size;
    if (counts.device_bytes > counts.most_device_bytes) {
        counts.most_device_bytes = counts.device_bytes;
    }
    return SUCCESS;
}

static Status give_back(void *address, int place) {
    if (spoil_captures()) return CAPTURE_UNSUPPORTED;
    Block *block = block_at(address, 1);
    if (block == NULL || block->start != address || block->place != place) {
        misuse("%p is freed, but it is no block in use", address);
        return INVALID_VALUE;
    }
    size_t room = (block->size + 2 * ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    for (size_t i = block->size; i < room; i++) {
        if (block->start[i] != GUARD) {
            misuse("something wrote past the end of a block of %zu bytes", block->size);
            break;
        }
    }
    memset(block->start, POISON, block->size);
    block->place = 0;
    if (block->size >= LARGE) {  // its pages go back to the system; the rest is small
        size_t skipped = (PAGE - (uintptr_t)block->start % PAGE) % PAGE;
        size_t pages = (block->size - skipped) / PAGE;
        madvise(block->start + skipped, pages * PAGE, MADV_DONTNEED);
    }
    if (place == 2) {
        counts.host_blocks--;
        counts.host_bytes -= block->size;
    } else {
        counts.device_blocks--;
        counts.device_bytes -= block->size;
    }
    return SUCCESS;
}

Status cuMemGetInfo_v2(size_t *available, size_t *total) {
    CALL(cuMemGetInfo_v2);
    *total = settings.memory_bytes;
    *available = settings.memory_bytes - counts.device_bytes;
    return leave(SUCCESS);
}

Status cuMemAlloc_v2(void **address, size_t size) {
    CALL(cuMemAlloc_v2);
    return leave(take(address, size, 1));
}

Status cuMemFree_v2(void *address) {
    CALL(cuMemFree_v2);
    return leave(address == NULL ? SUCCESS : give_back(address, 1));
}

Status cuMemHostAlloc(void **address, size_t size, unsigned flags) {
    (void)flags;
    CALL(cuMemHostAlloc);
    return leave(take(address, size, 2));
}

Status cuMemFreeHost(void *address) {
    CALL(cuMemFreeHost);
    return leave(give_back(address, 2));
}

// --- Names of errors -------------------------------------------------------------------------

Status cuGetErrorName(Status status, const char **name) {
    static const struct {
        Status status;
        const char *name;
    } names[] = {
        {SUCCESS, "CUDA_SUCCESS"},
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
        {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
        {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
        {NOT_READY, "CUDA_ERROR_NOT_READY"},
        {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
        {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
        {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
        {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"},
        {999, "CUDA_ERROR_UNKNOWN"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].status == status) {
            *name = names[i].name;
            return SUCCESS;
        }
    }
    *name = NULL;
    return INVALID_VALUE;
}
