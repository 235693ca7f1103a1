// Shared memory, handles, faults: what every call passes through.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "machine.h"

enum { MAGIC = 0x74776e76 };
machine_t *machine;

// Maps the machine's file; makes it when told to.
int fake_open(const char *path, int create) {
    int file = open(path, O_RDWR | (create ? O_CREAT | O_TRUNC : 0) | O_CLOEXEC, 0600);
    if (file < 0) return -errno;
    if (create && ftruncate(file, sizeof *machine) != 0) return -errno;
    void *at = mmap(NULL, sizeof *machine, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (at == MAP_FAILED) return -errno;
    if (machine) munmap(machine, sizeof *machine);
    machine = at;
    if (create) {
        pthread_mutexattr_t shared;
        pthread_mutexattr_init(&shared);
        pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
        pthread_mutexattr_setrobust(&shared, PTHREAD_MUTEX_ROBUST); // a process may be killed inside a call
        pthread_mutex_init(&machine->lock, &shared);
        machine->magic = MAGIC;
    }
    return machine->magic == MAGIC ? 0 : -EINVAL;
}

long long machine_now_us(void) {
    struct timespec now;
    if (!machine->real_clock) return machine->now_us;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

void machine_lock(void) {
    if (pthread_mutex_lock(&machine->lock) == EOWNERDEAD) pthread_mutex_consistent(&machine->lock);
}

void machine_unlock(void) { pthread_mutex_unlock(&machine->lock); }

handle_t handle_of(int kind, int board, unsigned gi) {
    uintptr_t generation = machine->boards[board].generation & 0xFFFF;
    return (handle_t)(((uintptr_t)kind << 40) | ((uintptr_t)(board + 1) << 32) | (generation << 16) | (gi & 0xFFFF));
}
int handle_kind(handle_t handle) { return (int)(((uintptr_t)handle >> 40) & 0xFF); }
int handle_board(handle_t handle) { return (int)(((uintptr_t)handle >> 32) & 0xFF) - 1; }
unsigned handle_gi(handle_t handle) { return (unsigned)((uintptr_t)handle & 0xFFFF); }

board_t *board_of(handle_t handle, int kind, int *code) {
    int at = handle_board(handle), is = handle_kind(handle);
    *code = INVALID_ARGUMENT;
    if (at < 0 || at >= (int)machine->board_count || (kind ? is != kind : is != BOARD && is != MIG)) return NULL;
    board_t *board = &machine->boards[at];
    if ((((uintptr_t)handle >> 16) & 0xFFFF) != (board->generation & 0xFFFF)) return NULL;
    if (board->lost) { *code = GPU_IS_LOST; return NULL; }
    if (is == MIG && !slice_by_id(board, handle_gi(handle))) { *code = NOT_FOUND; return NULL; }
    *code = OK;
    return board;
}

static void wait_ms(int ms) {
    struct timespec left = {ms / 1000, (ms % 1000) * 1000000L};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

static int foreign_destroy(board_t *board, unsigned start) {
    for (int i = 0; i < MAX_SLICES; i++) {
        slice_t *slice = &board->slices[i];
        if (!slice->used || slice->start != start) continue;
        if (slice->has_compute && slice_drop_compute(board, slice) != OK) return IN_USE;
        return slice_destroy(board, slice);
    }
    return NOT_FOUND;
}

// Does what one fault says; the code that the call answers with, or OK to let it go on.
static int strike(call_t *call, fault_t *fault, int at) {
    board_t *board = at >= 0 ? &machine->boards[at] : NULL;
    if (board) power_advance(board);
    unsigned gi;
    switch (fault->kind) {
    case FAULT_RETURN: return fault->number;
    case FAULT_LOST_REPLY: call->lost_reply = 1; break;
    case FAULT_ACTIVATION: call->activation = fault->number; break;
    case FAULT_DIE_BEFORE: raise(SIGKILL); break;
    case FAULT_DIE_AFTER: call->die_after = 1; break;
    case FAULT_LOSE: if (board) board->lost = 1; break;
    case FAULT_COUNTER_RESET: if (board) board->energy_mj = board->shown_mj = 0; break;
    case FAULT_COUNTER_FROZEN: if (board) board->counter_frozen = 1; break;
    case FAULT_COUNTER_ABSENT: if (board) board->counter_absent = 1; break;
    case FAULT_CLIP_MW: if (board) board->other_limit_mw = (unsigned)fault->number; break;
    case FAULT_DESTROY: if (board) foreign_destroy(board, (unsigned)fault->start); break;
    case FAULT_CREATE:
        if (board) {
            profile_t *profile = profile_by_id(board, (unsigned)fault->profile);
            if (profile && slice_create(board, profile->id, (unsigned)fault->start, profile->size, &gi) == OK)
                slice_add_compute(board, slice_by_id(board, gi));
        }
        break;
    }
    return OK;
}

int call_begin(call_t *call, const char *symbol, int at) {
    memset(call, 0, sizeof *call);
    call->activation = -1;
    if (!machine || !machine->ready) { call->activation = -2; return UNINITIALIZED; }
    machine_lock();
    machine->calls++;
    int code = OK, hang_ms = 0;
    for (int i = 0; i < MAX_FAULTS; i++) {
        fault_t *fault = &machine->faults[i];
        if (!fault->used || (fault->symbol[0] && strcmp(fault->symbol, symbol) != 0)) continue;
        if (fault->board >= 0 && fault->board != at) continue;
        unsigned seen = fault->seen++;
        if (seen < fault->after) continue;
        if (fault->seen >= fault->after + fault->times) fault->used = 0;
        if (fault->kind == FAULT_HANG_MS) { hang_ms += fault->number; continue; }
        int answer = strike(call, fault, at);
        if (answer != OK && code == OK) code = answer;
    }
    if (hang_ms) {
        machine_unlock(); // a call that hangs does not hold up others
        wait_ms(hang_ms);
        machine_lock();
    }
    return code;
}

int call_end(call_t *call, int code) {
    if (call->activation == -2) return code;
    machine_unlock();
    if (call->die_after) raise(SIGKILL);
    return code == OK && call->lost_reply ? TIMED_OUT : code;
}

void tell(int board, unsigned long long type, unsigned long long data, unsigned gi) {
    machine->events[machine->told++ % MAX_EVENTS] = (told_t){board, type, data, gi};
}
