// Start, end, and what the driver says of itself.
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include "machine.h"

int fake_open(const char *path, int create);
static int sessions;

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    const char *path = getenv("FAKE_NVML_MACHINE");
    if (!machine && (!path || fake_open(path, 0) != 0)) return DRIVER_NOT_LOADED;
    if (machine->driver_gone) return (int)machine->driver_gone;
    sessions++;
    return OK;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return sessions > 0 ? (sessions--, OK) : UNINITIALIZED; }
const char *nvmlErrorString(int code) { (void)code; return "told by the fake library"; }

static int text(char *to, unsigned size, const char *words) {
    return (unsigned)snprintf(to, size, "%s", words) < size ? OK : INSUFFICIENT_SIZE;
}

int nvmlSystemGetDriverVersion(char *to, unsigned size) { CALL(-1, text(to, size, "580.95.05")); }
int nvmlSystemGetNVMLVersion(char *to, unsigned size) { CALL(-1, text(to, size, "13.580.95.05")); }
int nvmlSystemGetCudaDriverVersion_v2(int *to) { CALL(-1, (*to = 13000, OK)); }
