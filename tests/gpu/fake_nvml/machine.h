// The machine: one block of shared memory, so that it outlives every process that uses it.
#pragma once
#include <pthread.h>
#include "types.h"

enum { MAX_BOARDS = 16, MAX_PROFILES = 18, MAX_STARTS = 16, MAX_SLICES = 16, MAX_PROCESSES = 32, MAX_FAULTS = 32,
       MAX_EVENTS = 256, NONE = 0xFFFFFFFFu };

typedef struct {
    unsigned present, id, slices, size, limit, sms, ofa, starts[MAX_STARTS], start_count;
    unsigned long long memory_mb;
    char name[64];
} profile_t;

typedef struct {
    unsigned used, id, profile, start, has_compute;
    char uuid[64];
    double sm, dram, sm_us, dram_us; // share at work now, and its integral over microseconds
} slice_t;

typedef struct { unsigned used, pid, gi, hidden; unsigned long long bytes; } held_t;

typedef struct {
    char uuid[64], name[96], bus_id[32];
    int major, minor, resetless, query_off, gpm, mig_capable, compute_mode, resettable;
    unsigned sms, cores, least_mw, most_mw, default_mw, idle_mw, clock_least, clock_most, clock_step;
    unsigned long long memory_bytes, ecc;
    unsigned current, pending, lost, generation;
    unsigned cap_mw, other_limit_mw, locked_mhz, counter_absent, counter_frozen;
    double load, energy_mj, shown_mj;
    long long counted_us, shown_at;
    profile_t profiles[MAX_PROFILES];
    slice_t slices[MAX_SLICES];
    held_t held[MAX_PROCESSES];
} board_t;

enum kind { FAULT_RETURN, FAULT_LOST_REPLY, FAULT_HANG_MS, FAULT_ACTIVATION, FAULT_LOSE, FAULT_CREATE, FAULT_DESTROY,
            FAULT_COUNTER_RESET, FAULT_COUNTER_FROZEN, FAULT_COUNTER_ABSENT, FAULT_CLIP_MW, FAULT_DIE_BEFORE,
            FAULT_DIE_AFTER };

typedef struct {
    char symbol[64];
    int kind, board, number, profile, start;
    unsigned used, seen, after, times;
} fault_t;

typedef struct { int board; unsigned long long type, data; unsigned gi; } told_t;

typedef struct {
    unsigned magic, ready, board_count, uuids, seed, unprivileged, driver_gone, shuffle, boots, real_clock;
    unsigned long long calls, told;
    long long now_us;
    int order[MAX_BOARDS];
    pthread_mutex_t lock;
    board_t boards[MAX_BOARDS];
    fault_t faults[MAX_FAULTS];
    told_t events[MAX_EVENTS];
} machine_t;

typedef struct { int lost_reply, die_after, activation; } call_t;

extern machine_t *machine;

int call_begin(call_t *call, const char *symbol, int board);
int call_end(call_t *call, int code);
// Runs `body`, an expression that gives an NVML code, as one call of this function.
#define CALL(board, body)                                   \
    do {                                                    \
        call_t call;                                        \
        int code = call_begin(&call, __func__, (board));    \
        if (code == OK) code = (body);                      \
        return call_end(&call, code);                       \
    } while (0)

// Handles: kind, board, the board's generation (they go stale when its mode changes), instance.
enum { BOARD = 1, INSTANCE = 2, COMPUTE = 3, MIG = 4 };
handle_t handle_of(int kind, int board, unsigned gi);
int handle_kind(handle_t handle);
int handle_board(handle_t handle);
unsigned handle_gi(handle_t handle);
// The living board of a handle of this kind (0: of a board or a slice); else NULL and the code.
board_t *board_of(handle_t handle, int kind, int *code);

// Rules of slices.
profile_t *profile_by_id(board_t *board, unsigned id);
slice_t *slice_by_id(board_t *board, unsigned gi);
int slice_create(board_t *board, unsigned profile, unsigned start, unsigned size, unsigned *gi);
int slice_add_compute(board_t *board, slice_t *slice);
int slice_drop_compute(board_t *board, slice_t *slice);
int slice_destroy(board_t *board, slice_t *slice);
int slice_count(board_t *board);
void tell(int board, unsigned long long type, unsigned long long data, unsigned gi);

// The machine's clock in microseconds: moved by the test, or that of the system.
long long machine_now_us(void);

// Power, at the machine's clock.
void power_advance(board_t *board);
void power_refresh_load(board_t *board);
unsigned power_mw(board_t *board);
unsigned power_limit_mw(board_t *board);
