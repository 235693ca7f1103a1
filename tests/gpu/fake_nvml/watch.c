// Events, and activity of slices (GPM).
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "machine.h"

#define WITH(handle, kind, body) \
    CALL(handle_board(handle), ({ int code_; board_t *board = board_of(handle, kind, &code_); board ? (body) : code_; }))

// Events -------------------------------------------------------------------------------------------------------------

typedef struct { unsigned long long seen, wanted[MAX_BOARDS]; } event_set_t;
// A real driver wakes its waiter; here the machine is looked at now and then.
enum { STEP_US = 50000 };

int nvmlEventSetCreate(handle_t *to) {
    CALL(-1, ({
        event_set_t *set = calloc(1, sizeof *set);
        set->seen = machine->told;
        *to = set;
        OK;
    }));
}
int nvmlEventSetFree(handle_t set) { free(set); return OK; }
int nvmlDeviceGetSupportedEventTypes(handle_t device, unsigned long long *to) { WITH(device, BOARD, (*to = 0x11A, OK)); }
int nvmlDeviceRegisterEvents(handle_t device, unsigned long long types, handle_t set) {
    WITH(device, 0, handle_kind(device) == MIG ? NOT_SUPPORTED
        : (((event_set_t *)set)->wanted[handle_board(device)] |= types, OK));
}

static int next_event(event_set_t *set, event_t *to) {
    if (machine->told > set->seen + MAX_EVENTS) set->seen = machine->told - MAX_EVENTS;
    while (set->seen < machine->told) {
        told_t *told = &machine->events[set->seen++ % MAX_EVENTS];
        if (!(set->wanted[told->board] & told->type)) continue;
        *to = (event_t){handle_of(BOARD, told->board, 0), told->type, told->data, told->gi, told->gi == NONE ? NONE : 0};
        return OK;
    }
    return TIMED_OUT;
}
static int next_event_call(event_set_t *set, event_t *to, const char *symbol) {
    call_t call;
    int code = call_begin(&call, symbol, -1);
    if (code == OK) code = next_event(set, to);
    return call_end(&call, code);
}
int nvmlEventSetWait_v2(handle_t set, event_t *to, unsigned ms) {
    long left_us = (long)ms * 1000;
    int code = next_event_call(set, to, __func__);
    while (code == TIMED_OUT && left_us > 0) {
        struct timespec step = {0, STEP_US * 1000L};
        nanosleep(&step, NULL);
        left_us -= STEP_US;
        if (*(volatile unsigned long long *)&machine->told != ((event_set_t *)set)->seen)
            code = next_event_call(set, to, __func__);
    }
    return code;
}

// Activity -----------------------------------------------------------------------------------------------------------

typedef struct { int board; unsigned gi, serial; long long at_us; double sm_us, dram_us; } sample_t;
enum { SM_UTIL = 2, DRAM_UTIL = 10, LEAST_US = 100000 };

int nvmlGpmQueryDeviceSupport(handle_t device, gpm_support_t *to) { WITH(device, BOARD, (to->supported = (unsigned)board->gpm, OK)); }
int nvmlGpmSampleAlloc(handle_t *to) { CALL(-1, (*to = calloc(1, sizeof(sample_t)), OK)); }
int nvmlGpmSampleFree(handle_t sample) { free(sample); return OK; }

int nvmlGpmMigSampleGet(handle_t device, unsigned gi, handle_t sample) {
    WITH(device, BOARD, ({
        slice_t *slice = slice_by_id(board, gi);
        int code = !board->gpm ? NOT_SUPPORTED : slice ? OK : NOT_FOUND;
        if (code == OK) {
            power_advance(board);
            *(sample_t *)sample = (sample_t){handle_board(device), gi, 0, machine_now_us(), slice->sm_us, slice->dram_us};
        }
        code;
    }));
}
int nvmlGpmMetricsGet(gpm_get_t *get) {
    CALL(-1, ({
        sample_t *first = get->first, *second = get->second;
        double passed_us = (double)(second->at_us - first->at_us);
        for (unsigned i = 0; i < get->count; i++) {
            gpm_metric_t *metric = &get->metrics[i];
            double grown = metric->id == SM_UTIL ? second->sm_us - first->sm_us : second->dram_us - first->dram_us;
            int known = metric->id == SM_UTIL || metric->id == DRAM_UTIL;
            metric->code = !known ? NOT_SUPPORTED : passed_us < LEAST_US ? NO_DATA : OK;
            metric->value = metric->code == OK ? 100 * grown / passed_us : 0;
        }
        get->version == 1 ? OK : VERSION_MISMATCH;
    }));
}
