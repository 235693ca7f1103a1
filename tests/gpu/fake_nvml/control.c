// What tests do to the machine: build it, load it, break it. Not part of NVML.
#include <stdio.h>
#include <string.h>
#include "machine.h"

void machine_lock(void);
void machine_unlock(void);

static board_t *at(int board) { return &machine->boards[board]; }

// Numbers in the order of the fields named in fake.py.
int fake_add_board(const char *uuid, const char *name, const char *bus_id, const unsigned long long *numbers) {
    int index = (int)machine->board_count++;
    board_t *board = at(index);
    memset(board, 0, sizeof *board);
    snprintf(board->uuid, sizeof board->uuid, "%s", uuid);
    snprintf(board->name, sizeof board->name, "%s", name);
    snprintf(board->bus_id, sizeof board->bus_id, "%s", bus_id);
    board->major = (int)numbers[0]; board->minor = (int)numbers[1];
    board->memory_bytes = numbers[2];
    board->sms = (unsigned)numbers[3]; board->cores = (unsigned)numbers[4];
    board->least_mw = (unsigned)numbers[5]; board->most_mw = (unsigned)numbers[6];
    board->default_mw = board->cap_mw = (unsigned)numbers[7]; board->idle_mw = (unsigned)numbers[8];
    board->clock_least = (unsigned)numbers[9]; board->clock_most = (unsigned)numbers[10];
    board->clock_step = (unsigned)numbers[11];
    board->resetless = (int)numbers[12]; board->query_off = (int)numbers[13]; board->gpm = (int)numbers[14];
    board->mig_capable = (int)numbers[15];
    board->resettable = 1;
    machine->order[index] = index;
    return index;
}

// Numbers: index of the enumeration, id, compute slices, size, limit, multiprocessors, ofa, memory MiB.
void fake_add_profile(int board, const char *name, const unsigned long long *numbers, const unsigned *starts, int count) {
    profile_t *profile = &at(board)->profiles[numbers[0]];
    *profile = (profile_t){.present = 1, .id = (unsigned)numbers[1], .slices = (unsigned)numbers[2],
        .size = (unsigned)numbers[3], .limit = (unsigned)numbers[4], .sms = (unsigned)numbers[5],
        .ofa = (unsigned)numbers[6], .memory_mb = numbers[7], .start_count = (unsigned)count};
    snprintf(profile->name, sizeof profile->name, "MIG %s", name);
    for (int i = 0; i < count; i++) profile->starts[i] = starts[i];
}

void fake_ready(unsigned seed) { machine->seed = seed; machine->ready = 1; }
unsigned long long fake_calls(void) { return machine->calls; }

int fake_inject(const char *symbol, const int *numbers) {
    for (int i = 0; i < MAX_FAULTS; i++) {
        fault_t *fault = &machine->faults[i];
        if (fault->used) continue;
        *fault = (fault_t){.kind = numbers[0], .board = numbers[1], .number = numbers[2], .profile = numbers[3],
            .start = numbers[4], .after = (unsigned)numbers[5], .times = (unsigned)numbers[6], .used = 1};
        snprintf(fault->symbol, sizeof fault->symbol, "%s", symbol);
        return 0;
    }
    return -1;
}

void fake_advance(long long us) {
    machine_lock();
    for (unsigned i = 0; i < machine->board_count; i++) power_advance(at((int)i));
    machine->now_us += us;
    for (unsigned i = 0; i < machine->board_count; i++) power_advance(at((int)i));
    machine_unlock();
}

void fake_load(int board, unsigned gi, double sm, double dram) {
    machine_lock();
    power_advance(at(board));
    slice_t *slice = slice_by_id(at(board), gi);
    if (slice) { slice->sm = sm; slice->dram = dram; power_refresh_load(at(board)); }
    else at(board)->load = sm;
    machine_unlock();
}

int fake_hold(int board, unsigned pid, unsigned gi, unsigned long long bytes, unsigned hidden) {
    for (int i = 0; i < MAX_PROCESSES; i++) {
        held_t *held = &at(board)->held[i];
        if (held->used) continue;
        *held = (held_t){1, pid, gi, hidden, bytes};
        return 0;
    }
    return -1;
}

void fake_release(int board, unsigned pid) {
    for (int i = 0; i < MAX_PROCESSES; i++)
        if (at(board)->held[i].pid == pid) at(board)->held[i].used = 0;
}

void fake_tell(int board, unsigned long long type, unsigned long long data, unsigned gi) {
    machine_lock();
    tell(board, type, data, gi);
    machine_unlock();
}

// One number of a board by name; what tests turn.
void fake_set(int board, const char *what, unsigned value) {
    if (!strcmp(what, "lost")) at(board)->lost = value;
    else if (!strcmp(what, "resettable")) at(board)->resettable = (int)value;
    else if (!strcmp(what, "mig_capable")) at(board)->mig_capable = (int)value;
    else if (!strcmp(what, "compute_mode")) at(board)->compute_mode = (int)value;
    else if (!strcmp(what, "ecc")) at(board)->ecc = value;
    else if (!strcmp(what, "unprivileged")) machine->unprivileged = value;
    else if (!strcmp(what, "driver_gone")) machine->driver_gone = value;
    else if (!strcmp(what, "shuffle")) machine->shuffle = value;
}

// From now on the machine's clock is the system's.
void fake_real_clock(void) {
    machine_lock();
    machine->real_clock = 1;
    for (unsigned i = 0; i < machine->board_count; i++) at((int)i)->counted_us = machine_now_us();
    machine_unlock();
}

static void clear(board_t *board) {
    memset(board->slices, 0, sizeof board->slices);
    memset(board->held, 0, sizeof board->held);
    board->cap_mw = board->default_mw;
    board->locked_mhz = board->other_limit_mw = board->counter_absent = board->counter_frozen = 0;
    board->energy_mj = board->shown_mj = board->load = 0;
    board->ecc = 0;
    board->lost = 0;
    board->generation++;
}

void fake_reset(int board) { clear(at(board)); at(board)->current = at(board)->pending; }

void fake_reboot(void) {
    machine->boots++;
    for (unsigned i = 0; i < machine->board_count; i++) {
        board_t *board = at((int)i);
        if (board->resetless) board->pending = 0; // Hopper keeps the mode in the driver's memory
        clear(board);
        board->current = board->pending;
    }
}

size_t fake_size_of(const char *name) {
    struct { const char *name; size_t size; } sizes[] = {
        {"c_nvmlGpuInstancePlacement_t", sizeof(placement_t)}, {"c_nvmlGpuInstanceProfileInfo_t", sizeof(gi_profile_v1_t)},
        {"c_nvmlGpuInstanceProfileInfo_v2_t", sizeof(gi_profile_v2_t)}, {"c_nvmlGpuInstanceInfo_t", sizeof(gi_info_t)},
        {"c_nvmlComputeInstanceProfileInfo_t", sizeof(ci_profile_v1_t)},
        {"c_nvmlComputeInstanceProfileInfo_v2_t", sizeof(ci_profile_v2_t)}, {"c_nvmlComputeInstanceInfo_t", sizeof(ci_info_t)},
        {"c_nvmlDeviceAttributes", sizeof(attributes_t)}, {"nvmlPciInfo_t", sizeof(pci_t)},
        {"c_nvmlMemory_t", sizeof(memory_t)}, {"c_nvmlUtilization_t", sizeof(utilization_t)},
        {"c_nvmlProcessInfo_v3_t", sizeof(process_t)}, {"c_nvmlFieldValue_t", sizeof(field_t)},
        {"c_nvmlEventData_t", sizeof(event_t)}, {"c_nvmlGpmMetric_t", sizeof(gpm_metric_t)},
        {"c_nvmlGpmSupport_t", sizeof(gpm_support_t)}, {NULL, 0}};
    for (int i = 0; sizes[i].name; i++)
        if (!strcmp(sizes[i].name, name)) return sizes[i].size;
    return 0;
}
