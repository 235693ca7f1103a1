// The part of NVML's binary interface that Tradewind calls: names, numbers and layouts as nvidia-ml-py has them.
// Layouts are compared with nvidia-ml-py's by a test (fake_size_of).
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef void *handle_t;

enum {
    OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMED_OUT = 10, GPU_IS_LOST = 15, RESET_REQUIRED = 16,
    IN_USE = 19, NO_DATA = 21, INSUFFICIENT_RESOURCES = 23, VERSION_MISMATCH = 25,
};

typedef struct { unsigned start, size; } placement_t;
typedef struct {
    unsigned id, p2p, slices, instances, sms, copy, dec, enc, jpeg, ofa;
    unsigned long long memory_mb;
} gi_profile_v1_t;
typedef struct {
    unsigned version, id, p2p, slices, instances, sms, copy, dec, enc, jpeg, ofa;
    unsigned long long memory_mb;
    char name[96];
} gi_profile_v2_t;
typedef struct { handle_t device; unsigned id, profile_id; placement_t placement; } gi_info_t;
typedef struct { unsigned id, slices, instances, sms, copy, dec, enc, jpeg, ofa; } ci_profile_v1_t;
typedef struct { unsigned version, id, slices, instances, sms, copy, dec, enc, jpeg, ofa; char name[96]; } ci_profile_v2_t;
typedef struct { handle_t device, gpu_instance; unsigned id, profile_id; placement_t placement; } ci_info_t;
typedef struct {
    unsigned sms, copy, dec, enc, jpeg, ofa, gi_slices, ci_slices;
    unsigned long long memory_mb;
} attributes_t;
typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} pci_t;
typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned gpu, memory; } utilization_t;
typedef struct { unsigned pid; unsigned long long used; unsigned gi, ci; } process_t;
typedef struct {
    uint32_t field, scope;
    int64_t timestamp, latency;
    uint32_t type, code;
    union { double d; unsigned u; unsigned long ul; unsigned long long ull; long long s; } value;
} field_t;
typedef struct { handle_t device; unsigned long long type, data; unsigned gi, ci; } event_t;
typedef struct { unsigned version, supported; } gpm_support_t;
typedef struct { unsigned id, code; double value; const char *short_name, *long_name, *unit; } gpm_metric_t;
typedef struct { unsigned version, count; handle_t first, second; gpm_metric_t metrics[]; } gpm_get_t;
