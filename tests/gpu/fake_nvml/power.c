// What a board draws: by load, cap and clock; its counter shows a new value every 100 ms of the machine's clock.
#include "machine.h"

enum { REFRESH_US = 100000 };

unsigned power_limit_mw(board_t *board) {
    unsigned other = board->other_limit_mw ? board->other_limit_mw : board->cap_mw;
    return other < board->cap_mw ? other : board->cap_mw;
}

unsigned power_mw(board_t *board) {
    double slowed = board->locked_mhz ? (double)board->locked_mhz / board->clock_most : 1.0;
    double wanted = board->idle_mw + (board->most_mw - board->idle_mw) * board->load * slowed;
    return wanted < power_limit_mw(board) ? (unsigned)wanted : power_limit_mw(board);
}

void power_advance(board_t *board) {
    long long now_us = machine_now_us();
    double passed_us = (double)(now_us - board->counted_us);
    board->energy_mj += power_mw(board) * passed_us / 1e6;
    for (int i = 0; i < MAX_SLICES; i++) {
        board->slices[i].sm_us += board->slices[i].sm * passed_us;
        board->slices[i].dram_us += board->slices[i].dram * passed_us;
    }
    board->counted_us = now_us;
    if (!board->counter_frozen && now_us / REFRESH_US > board->shown_at) {
        board->shown_mj = board->energy_mj;
        board->shown_at = now_us / REFRESH_US;
    }
}

void power_refresh_load(board_t *board) {
    power_advance(board);
    if (!board->current) return; // the load of the whole board stands as it was set
    double busy = 0;
    for (int i = 0; i < MAX_SLICES; i++) {
        slice_t *slice = &board->slices[i];
        profile_t *profile = slice->used ? profile_by_id(board, slice->profile) : NULL;
        if (profile) busy += slice->sm * profile->sms;
    }
    board->load = busy / board->sms > 1 ? 1 : busy / board->sms;
}
