// Boards: identity, readings, power and clocks.
#include <stdio.h>
#include <string.h>
#include "machine.h"

enum { TOTAL_ENERGY = 83, RESETLESS = 184, QUERY_OFF = 199, TYPE_UINT = 1, TYPE_ULL = 3, REASON_IDLE = 1, REASON_CAP = 4,
       MEMORY_MHZ = 1593, MAX_LINKS = 36 };

int nvmlDeviceGetCount_v2(unsigned *count) { CALL(-1, (*count = machine->board_count, OK)); }

int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle_t *to) {
    CALL(index < machine->board_count ? machine->order[index] : -1, ({
        int code = index < machine->board_count ? OK : INVALID_ARGUMENT;
        if (code == OK && machine->boards[machine->order[index]].lost) code = GPU_IS_LOST;
        if (code == OK) *to = handle_of(BOARD, machine->order[index], 0);
        code;
    }));
}

int nvmlDeviceGetHandleByUUID(const char *uuid, handle_t *to) {
    CALL(-1, ({
        int code = NOT_FOUND;
        for (int b = 0; b < (int)machine->board_count; b++) {
            board_t *board = &machine->boards[b];
            if (!strcmp(board->uuid, uuid)) { *to = handle_of(BOARD, b, 0); code = board->lost ? GPU_IS_LOST : OK; }
            for (int s = 0; s < MAX_SLICES; s++)
                if (board->slices[s].has_compute && !strcmp(board->slices[s].uuid, uuid)) {
                    *to = handle_of(MIG, b, board->slices[s].id);
                    code = OK;
                }
        }
        code;
    }));
}

// Runs `body` with `board` of a handle of this kind.
#define WITH(handle, kind, body) \
    CALL(handle_board(handle), ({ int code_; board_t *board = board_of(handle, kind, &code_); board ? (body) : code_; }))

static int text(char *to, unsigned size, const char *words) {
    return (unsigned)snprintf(to, size, "%s", words) < size ? OK : INSUFFICIENT_SIZE;
}

int nvmlDeviceGetUUID(handle_t device, char *to, unsigned size) {
    WITH(device, 0, text(to, size, handle_kind(device) == MIG ? slice_by_id(board, handle_gi(device))->uuid : board->uuid));
}
int nvmlDeviceGetName(handle_t device, char *to, unsigned size) { WITH(device, 0, text(to, size, board->name)); }

static int pci_of(board_t *board, pci_t *to) {
    memset(to, 0, sizeof *to);
    snprintf(to->bus_id, sizeof to->bus_id, "%s", board->bus_id);
    return OK;
}
int nvmlDeviceGetPciInfo_v3(handle_t device, pci_t *to) { WITH(device, BOARD, pci_of(board, to)); }
int nvmlDeviceGetCudaComputeCapability(handle_t device, int *major, int *minor) {
    WITH(device, 0, (*major = board->major, *minor = board->minor, OK));
}
int nvmlDeviceGetNumGpuCores(handle_t device, unsigned *to) { WITH(device, BOARD, (*to = board->cores, OK)); }
int nvmlDeviceGetComputeMode(handle_t device, int *to) { WITH(device, BOARD, (*to = board->compute_mode, OK)); }

static int memory_of(board_t *board, handle_t device, memory_t *to) {
    slice_t *slice = handle_kind(device) == MIG ? slice_by_id(board, handle_gi(device)) : NULL;
    to->total = slice ? profile_by_id(board, slice->profile)->memory_mb << 20 : board->memory_bytes;
    to->used = 0;
    for (int i = 0; i < MAX_PROCESSES; i++)
        if (board->held[i].used && (!slice || board->held[i].gi == slice->id)) to->used += board->held[i].bytes;
    to->free = to->total - to->used;
    return OK;
}
int nvmlDeviceGetMemoryInfo(handle_t device, memory_t *to) { WITH(device, 0, memory_of(board, device, to)); }

static int processes_of(board_t *board, handle_t device, unsigned *count, process_t *to) {
    int whole = handle_kind(device) == BOARD;
    if (whole && board->current && machine->unprivileged) return NO_PERMISSION;
    unsigned found = 0;
    for (int i = 0; i < MAX_PROCESSES; i++) {
        held_t *held = &board->held[i];
        if (!held->used || held->hidden || (!whole && held->gi != handle_gi(device))) continue;
        if (to && found < *count) to[found] = (process_t){held->pid, held->bytes, held->gi, held->gi == NONE ? NONE : 0};
        found++;
    }
    int code = found > (to ? *count : 0) ? INSUFFICIENT_SIZE : OK;
    *count = found;
    return code;
}
int nvmlDeviceGetComputeRunningProcesses_v3(handle_t device, unsigned *count, process_t *to) {
    WITH(device, 0, processes_of(board, device, count, to));
}

// Readings -----------------------------------------------------------------------------------------------------------

static int energy_of(board_t *board, unsigned long long *to) {
    if (board->counter_absent) return NOT_SUPPORTED;
    power_advance(board);
    *to = (unsigned long long)board->shown_mj;
    return OK;
}
int nvmlDeviceGetTotalEnergyConsumption(handle_t device, unsigned long long *to) { WITH(device, BOARD, energy_of(board, to)); }
int nvmlDeviceGetPowerUsage(handle_t device, unsigned *to) { WITH(device, BOARD, (*to = power_mw(board), OK)); }
int nvmlDeviceGetEnforcedPowerLimit(handle_t device, unsigned *to) { WITH(device, BOARD, (*to = power_limit_mw(board), OK)); }
int nvmlDeviceGetPowerManagementLimitConstraints(handle_t device, unsigned *least, unsigned *most) {
    WITH(device, BOARD, board->most_mw ? (*least = board->least_mw, *most = board->most_mw, OK) : NOT_SUPPORTED);
}
int nvmlDeviceGetPowerManagementDefaultLimit(handle_t device, unsigned *to) {
    WITH(device, BOARD, board->most_mw ? (*to = board->default_mw, OK) : NOT_SUPPORTED);
}
int nvmlDeviceGetTemperature(handle_t device, unsigned sensor, unsigned *to) {
    WITH(device, BOARD, sensor ? INVALID_ARGUMENT : (*to = 35 + (unsigned)(40 * board->load), OK));
}
int nvmlDeviceGetClockInfo(handle_t device, unsigned kind, unsigned *to) {
    WITH(device, BOARD, ({
        unsigned sm = board->locked_mhz ? board->locked_mhz : board->load > 0 ? board->clock_most : board->clock_least;
        *to = kind == 2 ? MEMORY_MHZ : sm;
        OK;
    }));
}
int nvmlDeviceGetCurrentClocksEventReasons(handle_t device, unsigned long long *to) {
    WITH(device, BOARD, ({
        *to = (board->load > 0 ? 0 : REASON_IDLE) | (board->load > 0 && power_mw(board) >= power_limit_mw(board) ? REASON_CAP : 0);
        OK;
    }));
}
int nvmlDeviceGetUtilizationRates(handle_t device, utilization_t *to) {
    WITH(device, 0, board->current ? NOT_SUPPORTED : (to->gpu = (unsigned)(100 * board->load), to->memory = 0, OK));
}
int nvmlDeviceGetTotalEccErrors(handle_t device, unsigned type, unsigned counter, unsigned long long *to) {
    (void)counter;
    WITH(device, BOARD, (*to = type == 1 ? board->ecc : 0, OK));
}

static int fields_of(board_t *board, int count, field_t *fields) {
    for (int i = 0; i < count; i++) {
        fields[i].code = OK;
        fields[i].type = TYPE_UINT;
        fields[i].value.ull = 0;
        if (fields[i].field == RESETLESS) fields[i].value.u = (unsigned)board->resetless;
        else if (fields[i].field == QUERY_OFF) fields[i].value.u = (unsigned)board->query_off;
        else if (fields[i].field == TOTAL_ENERGY) {
            fields[i].type = TYPE_ULL;
            fields[i].code = (uint32_t)energy_of(board, &fields[i].value.ull);
        } else fields[i].code = NOT_SUPPORTED;
    }
    return OK;
}
int nvmlDeviceGetFieldValues(handle_t device, int count, field_t *fields) { WITH(device, BOARD, fields_of(board, count, fields)); }

// Clocks and links ---------------------------------------------------------------------------------------------------

int nvmlDeviceGetSupportedMemoryClocks(handle_t device, unsigned *count, unsigned *to) {
    WITH(device, BOARD, ({
        int code = to && *count >= 1 ? OK : INSUFFICIENT_SIZE;
        if (code == OK) to[0] = MEMORY_MHZ;
        *count = 1;
        code;
    }));
}
int nvmlDeviceGetSupportedGraphicsClocks(handle_t device, unsigned memory_mhz, unsigned *count, unsigned *to) {
    WITH(device, BOARD, ({
        unsigned there = (board->clock_most - board->clock_least) / board->clock_step + 1;
        int code = memory_mhz != MEMORY_MHZ ? NOT_FOUND : to && *count >= there ? OK : INSUFFICIENT_SIZE;
        for (unsigned i = 0; code == OK && i < there; i++) to[i] = board->clock_most - i * board->clock_step; // highest first
        *count = there;
        code;
    }));
}

// Link n of a board goes to the n-th other board of its name.
static board_t *peer_of(board_t *board, unsigned link) {
    for (unsigned b = 0; b < machine->board_count; b++) {
        board_t *other = &machine->boards[b];
        if (other != board && !strcmp(other->name, board->name) && link-- == 0) return other;
    }
    return NULL;
}
int nvmlDeviceGetNvLinkState(handle_t device, unsigned link, unsigned *to) {
    WITH(device, BOARD, link >= MAX_LINKS ? INVALID_ARGUMENT : (*to = peer_of(board, link) != NULL, OK));
}
int nvmlDeviceGetNvLinkRemotePciInfo_v2(handle_t device, unsigned link, pci_t *to) {
    WITH(device, BOARD, peer_of(board, link) ? pci_of(peer_of(board, link), to) : NOT_SUPPORTED);
}

// Power and clocks: changes ------------------------------------------------------------------------------------------

static int set_cap(board_t *board, unsigned mw) {
    if (machine->unprivileged) return NO_PERMISSION;
    if (!board->most_mw) return NOT_SUPPORTED;
    if (mw < board->least_mw || mw > board->most_mw) return INVALID_ARGUMENT;
    power_advance(board);
    board->cap_mw = mw;
    return OK;
}
int nvmlDeviceSetPowerManagementLimit(handle_t device, unsigned mw) { WITH(device, BOARD, set_cap(board, mw)); }

static int lock_clock(board_t *board, unsigned mhz) {
    if (machine->unprivileged) return NO_PERMISSION;
    if (mhz && (mhz < board->clock_least || mhz > board->clock_most)) return INVALID_ARGUMENT;
    power_advance(board);
    board->locked_mhz = mhz;
    return OK;
}
int nvmlDeviceSetGpuLockedClocks(handle_t device, unsigned least, unsigned most) {
    (void)least;
    WITH(device, BOARD, most ? lock_clock(board, most) : INVALID_ARGUMENT);
}
int nvmlDeviceResetGpuLockedClocks(handle_t device) { WITH(device, BOARD, lock_clock(board, 0)); }
