// What a board lets be created and destroyed. Written from the rules, shares nothing with planner or simulator.
#include <stdio.h>
#include <string.h>
#include "machine.h"

enum { FIRST_ID = 1, MIG_CHANGED = 0x100 };

profile_t *profile_by_id(board_t *board, unsigned id) {
    for (int i = 0; i < MAX_PROFILES; i++)
        if (board->profiles[i].present && board->profiles[i].id == id) return &board->profiles[i];
    return NULL;
}

slice_t *slice_by_id(board_t *board, unsigned gi) {
    for (int i = 0; i < MAX_SLICES; i++)
        if (board->slices[i].used && board->slices[i].id == gi) return &board->slices[i];
    return NULL;
}

int slice_count(board_t *board) {
    int count = 0;
    for (int i = 0; i < MAX_SLICES; i++) count += board->slices[i].used != 0;
    return count;
}

static int index_of(board_t *board) { return (int)(board - machine->boards); }

static int has_room(board_t *board, profile_t *wanted, unsigned start) {
    unsigned compute = wanted->slices, same = 1, ofa = wanted->ofa, most_compute = 0, most_ofa = 0;
    for (int i = 0; i < MAX_PROFILES; i++) {
        profile_t *profile = &board->profiles[i];
        if (profile->present && profile->slices > most_compute) most_compute = profile->slices;
        if (profile->present && profile->ofa > most_ofa) most_ofa = profile->ofa;
    }
    for (int i = 0; i < MAX_SLICES; i++) {
        slice_t *slice = &board->slices[i];
        if (!slice->used) continue;
        profile_t *profile = profile_by_id(board, slice->profile);
        if (slice->start < start + wanted->size && start < slice->start + profile->size) return 0;
        compute += profile->slices;
        ofa += profile->ofa;
        same += profile == wanted;
    }
    return compute <= most_compute && ofa <= most_ofa && same <= wanted->limit;
}

static int held(board_t *board, unsigned gi) {
    for (int i = 0; i < MAX_PROCESSES; i++)
        if (board->held[i].used && board->held[i].gi == gi) return 1;
    return 0;
}

int slice_create(board_t *board, unsigned id, unsigned start, unsigned size, unsigned *gi) {
    profile_t *profile = profile_by_id(board, id);
    if (!board->current) return NOT_SUPPORTED;
    if (!profile || size != profile->size) return INVALID_ARGUMENT;
    unsigned allowed = 0;
    for (unsigned i = 0; i < profile->start_count; i++) allowed |= profile->starts[i] == start;
    if (!allowed) return INVALID_ARGUMENT;
    if (!has_room(board, profile, start)) return INSUFFICIENT_RESOURCES;
    unsigned free_id = FIRST_ID;
    while (slice_by_id(board, free_id)) free_id++; // ids come back
    for (int i = 0; i < MAX_SLICES; i++) {
        if (board->slices[i].used) continue;
        board->slices[i] = (slice_t){.used = 1, .id = free_id, .profile = id, .start = start};
        *gi = free_id;
        tell(index_of(board), MIG_CHANGED, 0, NONE);
        return OK;
    }
    return INSUFFICIENT_RESOURCES;
}

int slice_add_compute(board_t *board, slice_t *slice) {
    if (slice->has_compute) return INSUFFICIENT_RESOURCES;
    slice->has_compute = 1;
    snprintf(slice->uuid, sizeof slice->uuid, "MIG-%08x-0000-5000-8000-%012x", machine->seed, ++machine->uuids);
    tell(index_of(board), MIG_CHANGED, 0, NONE);
    return OK;
}

int slice_drop_compute(board_t *board, slice_t *slice) {
    if (!slice->has_compute) return NOT_FOUND;
    if (held(board, slice->id)) return IN_USE;
    slice->has_compute = 0;
    tell(index_of(board), MIG_CHANGED, 0, NONE);
    return OK;
}

int slice_destroy(board_t *board, slice_t *slice) {
    if (slice->has_compute || held(board, slice->id)) return IN_USE;
    slice->used = 0;
    power_refresh_load(board);
    tell(index_of(board), MIG_CHANGED, 0, NONE);
    return OK;
}
