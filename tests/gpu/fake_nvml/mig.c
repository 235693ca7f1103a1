// MIG: mode, profiles, placements, instances.
#include <stdio.h>
#include <string.h>
#include "machine.h"

#define WITH(handle, kind, body) \
    CALL(handle_board(handle), ({ int code_; board_t *board = board_of(handle, kind, &code_); board ? (body) : code_; }))
// As WITH, for calls that want root or the MIG capability files.
#define WITH_RIGHT(handle, kind, body) WITH(handle, kind, machine->unprivileged ? NO_PERMISSION : (body))

enum { PROFILE_V2 = 0x02000098, CI_PROFILE_V2 = 0x02000088, CI_PROFILES = 9, CI_ID_BASE = 100 };

// Mode ---------------------------------------------------------------------------------------------------------------

int nvmlDeviceGetMigMode(handle_t device, unsigned *current, unsigned *pending) {
    WITH(device, BOARD, board->mig_capable ? (*current = board->current, *pending = board->pending, OK) : NOT_SUPPORTED);
}

static int in_use(board_t *board) {
    int held = slice_count(board) > 0; // assumed: slices hold the mode, too
    for (int i = 0; i < MAX_PROCESSES; i++) held |= board->held[i].used != 0;
    return held;
}

// The call succeeds; only the activation says whether the mode is in force.
static int set_mode(board_t *board, unsigned mode, int forced, int *activation) {
    if (!board->mig_capable) return NOT_SUPPORTED;
    if (machine->unprivileged) return NO_PERMISSION;
    *activation = forced >= 0 ? forced : OK;
    if (*activation == NOT_SUPPORTED) return OK;
    board->pending = mode;
    if (*activation != OK || board->current == mode) return OK;
    if (in_use(board)) *activation = IN_USE;
    else if (!board->resetless && !board->resettable) *activation = RESET_REQUIRED;
    else {
        board->current = mode;
        board->generation++; // the driver detached the board: handles from before are stale
        if (machine->shuffle) {
            int first = machine->order[0];
            memmove(machine->order, machine->order + 1, (machine->board_count - 1) * sizeof(int));
            machine->order[machine->board_count - 1] = first;
        }
    }
    return OK;
}
int nvmlDeviceSetMigMode(handle_t device, unsigned mode, int *activation) {
    WITH(device, BOARD, set_mode(board, mode, call.activation, activation));
}

// Profiles -----------------------------------------------------------------------------------------------------------

static int profile_v1(board_t *board, unsigned index, gi_profile_v1_t *to) {
    if (index >= MAX_PROFILES) return INVALID_ARGUMENT;
    profile_t *profile = &board->profiles[index];
    if (!profile->present || !board->mig_capable) return NOT_SUPPORTED;
    *to = (gi_profile_v1_t){.id = profile->id, .slices = profile->slices, .instances = profile->limit, .sms = profile->sms,
        .copy = profile->slices, .ofa = profile->ofa, .memory_mb = profile->memory_mb};
    return OK;
}
int nvmlDeviceGetGpuInstanceProfileInfo(handle_t device, unsigned index, gi_profile_v1_t *to) {
    WITH(device, BOARD, profile_v1(board, index, to));
}

// The versioned call answers only while MIG is on, unless the board can be asked while it is off.
static int profile_v2(board_t *board, unsigned index, gi_profile_v2_t *to) {
    gi_profile_v1_t found;
    if (to->version != PROFILE_V2) return VERSION_MISMATCH;
    int code = profile_v1(board, index, &found);
    if (code == OK && !board->current && !board->query_off) code = NOT_SUPPORTED;
    if (code != OK) return code;
    *to = (gi_profile_v2_t){.version = to->version, .id = found.id, .slices = found.slices, .instances = found.instances,
        .sms = found.sms, .copy = found.copy, .ofa = found.ofa, .memory_mb = found.memory_mb};
    snprintf(to->name, sizeof to->name, "%s", board->profiles[index].name);
    return OK;
}
int nvmlDeviceGetGpuInstanceProfileInfoV(handle_t device, unsigned index, gi_profile_v2_t *to) {
    WITH(device, BOARD, profile_v2(board, index, to));
}

static int placements_of(board_t *board, unsigned id, placement_t *to, unsigned *count) {
    profile_t *profile = profile_by_id(board, id);
    if (!profile) return INVALID_ARGUMENT;
    if (to && *count < profile->start_count) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; to && i < profile->start_count; i++) to[i] = (placement_t){profile->starts[i], profile->size};
    *count = profile->start_count;
    return OK;
}
int nvmlDeviceGetGpuInstancePossiblePlacements_v2(handle_t device, unsigned id, placement_t *to, unsigned *count) {
    WITH_RIGHT(device, BOARD, placements_of(board, id, to, count));
}

// GPU instances ------------------------------------------------------------------------------------------------------

int nvmlDeviceCreateGpuInstanceWithPlacement(handle_t device, unsigned id, const placement_t *at, handle_t *to) {
    WITH_RIGHT(device, BOARD, ({
        unsigned gi;
        int made = slice_create(board, id, at->start, at->size, &gi);
        if (made == OK) *to = handle_of(INSTANCE, handle_board(device), gi);
        made;
    }));
}

static int instances_of(board_t *board, handle_t device, unsigned id, handle_t *to, unsigned *count) {
    if (!board->current) return NOT_SUPPORTED;
    if (!profile_by_id(board, id)) return INVALID_ARGUMENT;
    *count = 0;
    for (int i = 0; i < MAX_SLICES; i++)
        if (board->slices[i].used && board->slices[i].profile == id)
            to[(*count)++] = handle_of(INSTANCE, handle_board(device), board->slices[i].id);
    return OK;
}
int nvmlDeviceGetGpuInstances(handle_t device, unsigned id, handle_t *to, unsigned *count) {
    WITH_RIGHT(device, BOARD, instances_of(board, device, id, to, count));
}
int nvmlDeviceGetGpuInstanceById(handle_t device, unsigned gi, handle_t *to) {
    WITH_RIGHT(device, BOARD, slice_by_id(board, gi) ? (*to = handle_of(INSTANCE, handle_board(device), gi), OK) : NOT_FOUND);
}

// Runs `body` with `slice` of an instance's handle.
#define WITH_SLICE(handle, kind, body) \
    WITH_RIGHT(handle, kind, ({ slice_t *slice = slice_by_id(board, handle_gi(handle)); slice ? (body) : NOT_FOUND; }))

int nvmlGpuInstanceGetInfo(handle_t instance, gi_info_t *to) {
    WITH_SLICE(instance, INSTANCE, ({
        placement_t place = {slice->start, profile_by_id(board, slice->profile)->size};
        *to = (gi_info_t){handle_of(BOARD, handle_board(instance), 0), slice->id, slice->profile, place};
        OK;
    }));
}
int nvmlGpuInstanceDestroy(handle_t instance) { WITH_SLICE(instance, INSTANCE, slice_destroy(board, slice)); }

// Compute instances --------------------------------------------------------------------------------------------------

// The profile that takes all compute slices of the instance is the only one offered.
static unsigned whole_index(unsigned slices) { return slices <= 4 ? slices - 1 : slices == 7 ? 4 : 5; }

static int ci_profile(board_t *board, slice_t *slice, unsigned index, unsigned engine, ci_profile_v1_t *to) {
    profile_t *profile = profile_by_id(board, slice->profile);
    if (index >= CI_PROFILES || engine) return INVALID_ARGUMENT;
    if (index != whole_index(profile->slices)) return NOT_SUPPORTED;
    *to = (ci_profile_v1_t){.id = CI_ID_BASE + index, .slices = profile->slices, .instances = 1, .sms = profile->sms};
    return OK;
}
int nvmlGpuInstanceGetComputeInstanceProfileInfo(handle_t instance, unsigned index, unsigned engine, ci_profile_v1_t *to) {
    WITH_SLICE(instance, INSTANCE, ci_profile(board, slice, index, engine, to));
}
int nvmlGpuInstanceGetComputeInstanceProfileInfoV(handle_t instance, unsigned index, unsigned engine, ci_profile_v2_t *to) {
    WITH_SLICE(instance, INSTANCE, ({
        ci_profile_v1_t found;
        int got = to->version == CI_PROFILE_V2 ? ci_profile(board, slice, index, engine, &found) : VERSION_MISMATCH;
        if (got == OK)
            *to = (ci_profile_v2_t){.version = to->version, .id = found.id, .slices = found.slices, .instances = 1, .sms = found.sms};
        got;
    }));
}
int nvmlGpuInstanceCreateComputeInstance(handle_t instance, unsigned id, handle_t *to) {
    WITH_SLICE(instance, INSTANCE, ({
        unsigned whole = CI_ID_BASE + whole_index(profile_by_id(board, slice->profile)->slices);
        int made = id == whole ? slice_add_compute(board, slice) : INVALID_ARGUMENT;
        if (made == OK) *to = handle_of(COMPUTE, handle_board(instance), slice->id);
        made;
    }));
}
int nvmlGpuInstanceGetComputeInstances(handle_t instance, unsigned id, handle_t *to, unsigned *count) {
    WITH_SLICE(instance, INSTANCE, ({
        unsigned whole = CI_ID_BASE + whole_index(profile_by_id(board, slice->profile)->slices);
        *count = 0;
        if (slice->has_compute && id == whole) to[(*count)++] = handle_of(COMPUTE, handle_board(instance), slice->id);
        OK;
    }));
}
int nvmlGpuInstanceGetComputeInstanceById(handle_t instance, unsigned ci, handle_t *to) {
    WITH_SLICE(instance, INSTANCE,
        slice->has_compute && ci == 0 ? (*to = handle_of(COMPUTE, handle_board(instance), slice->id), OK) : NOT_FOUND);
}
int nvmlComputeInstanceGetInfo_v2(handle_t compute, ci_info_t *to) {
    WITH_SLICE(compute, COMPUTE, ({
        int at = handle_board(compute);
        profile_t *profile = profile_by_id(board, slice->profile);
        *to = (ci_info_t){handle_of(MIG, at, slice->id), handle_of(INSTANCE, at, slice->id), 0,
            CI_ID_BASE + whole_index(profile->slices), {0, profile->slices}};
        slice->has_compute ? OK : NOT_FOUND;
    }));
}
int nvmlComputeInstanceDestroy(handle_t compute) { WITH_SLICE(compute, COMPUTE, slice_drop_compute(board, slice)); }

// MIG devices: readable without any right ------------------------------------------------------------------------------

int nvmlDeviceGetMaxMigDeviceCount(handle_t device, unsigned *to) {
    WITH(device, BOARD, (*to = board->current ? 7 : 0, OK));
}
int nvmlDeviceGetMigDeviceHandleByIndex(handle_t device, unsigned index, handle_t *to) {
    WITH(device, BOARD, index < MAX_SLICES && board->slices[index].used && board->slices[index].has_compute
        ? (*to = handle_of(MIG, handle_board(device), board->slices[index].id), OK) : NOT_FOUND);
}
int nvmlDeviceIsMigDeviceHandle(handle_t device, unsigned *to) { CALL(-1, (*to = handle_kind(device) == MIG, OK)); }
int nvmlDeviceGetGpuInstanceId(handle_t device, unsigned *to) { WITH(device, MIG, (*to = handle_gi(device), OK)); }
int nvmlDeviceGetComputeInstanceId(handle_t device, unsigned *to) { WITH(device, MIG, (*to = 0, OK)); }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle_t device, handle_t *to) {
    WITH(device, MIG, (*to = handle_of(BOARD, handle_board(device), 0), OK));
}
int nvmlDeviceGetAttributes_v2(handle_t device, attributes_t *to) {
    WITH(device, MIG, ({
        profile_t *profile = profile_by_id(board, slice_by_id(board, handle_gi(device))->profile);
        *to = (attributes_t){.sms = profile->sms, .gi_slices = profile->slices, .ci_slices = profile->slices,
            .memory_mb = profile->memory_mb};
        OK;
    }));
}
