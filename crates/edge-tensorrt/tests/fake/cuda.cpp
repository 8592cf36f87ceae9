// A CUDA driver without a GPU: memory is the process's own. The line `NAME CODE` in `faults` lets a function fail.

#include "common.h"

namespace {

std::atomic<int> live{0};
std::atomic<int> uploads{0};
int device_context, device_stream;

// The code that a function fails with, 0 for none.
int fails(const char* name) { return fake::number(name, 0); }

struct AtEnd {
    ~AtEnd() {
        fake::report("cuda unloaded: " + std::to_string(live) + " live, " + std::to_string(uploads) + " uploads");
    }
} at_end;

}  // namespace

extern "C" {

int cuInit(unsigned flags) { return flags ? 1 : fails("cuInit"); }

int cuDeviceGetCount(int* count) {
    *count = fake::number("devices", 1);
    return fails("cuDeviceGetCount");
}

int cuDeviceGet(int* device, int ordinal) {
    *device = 40 + ordinal;
    return fails("cuDeviceGet");
}

int cuDeviceGetName(char* name, int length, int device) {
    if (device != 40) return 101;
    std::string text = fake::fault("gpu");
    std::snprintf(name, length, "%s", text.empty() ? "False-Orin" : text.c_str());
    return fails("cuDeviceGetName");
}

int cuDeviceGetAttribute(int* value, int attribute, int device) {
    if (device != 40) return 101;
    switch (attribute) {
    case 16: *value = 8; break;
    case 18: *value = fake::number("integrated", 0); break;
    case 75: *value = 8; break;
    case 76: *value = 7; break;
    default: return 1;
    }
    return fails("cuDeviceGetAttribute");
}

int cuGetErrorName(int code, const char** name) {
    switch (code) {
    case 2: *name = "CUDA_ERROR_OUT_OF_MEMORY"; return 0;
    case 100: *name = "CUDA_ERROR_NO_DEVICE"; return 0;
    case 999: *name = "CUDA_ERROR_UNKNOWN"; return 0;
    default: *name = nullptr; return 1;
    }
}

int cuDevicePrimaryCtxRetain(void** context, int device) {
    if (device != 40) return 101;
    if (int code = fails("cuDevicePrimaryCtxRetain")) return code;
    *context = &device_context;
    live++;
    return 0;
}

int cuDevicePrimaryCtxRelease_v2(int) {
    live--;
    return 0;
}

int cuCtxSetCurrent(void* context) { return context == &device_context ? fails("cuCtxSetCurrent") : 201; }

int cuStreamCreate(void** stream, unsigned) {
    if (int code = fails("cuStreamCreate")) return code;
    *stream = &device_stream;
    live++;
    return 0;
}

int cuStreamSynchronize(void* stream) { return stream == &device_stream ? fails("cuStreamSynchronize") : 400; }

int cuStreamDestroy_v2(void*) {
    live--;
    return 0;
}

int cuMemAlloc_v2(unsigned long long* address, size_t bytes) {
    if (int code = fails("cuMemAlloc_v2")) return code;
    *address = reinterpret_cast<unsigned long long>(std::malloc(bytes));
    live++;
    return 0;
}

int cuMemFree_v2(unsigned long long address) {
    std::free(reinterpret_cast<void*>(address));
    live--;
    return 0;
}

int cuMemHostAlloc(void** memory, size_t bytes, unsigned flags) {
    if (int code = fails("cuMemHostAlloc")) return code;
    if (flags != 3) return 1;
    *memory = fake::fault("pinned") == "null" ? nullptr : std::malloc(bytes);
    if (*memory) live++;
    return 0;
}

int cuMemFreeHost(void* memory) {
    std::free(memory);
    live--;
    return 0;
}

int cuMemHostGetDevicePointer_v2(unsigned long long* address, void* memory, unsigned) {
    *address = reinterpret_cast<unsigned long long>(memory);
    return fails("cuMemHostGetDevicePointer_v2");
}

int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, void*) {
    std::memcpy(reinterpret_cast<void*>(to), from, bytes);
    uploads++;
    return fails("cuMemcpyHtoDAsync_v2");
}

int cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t bytes, void*) {
    std::memcpy(to, reinterpret_cast<void*>(from), bytes);
    return fails("cuMemcpyDtoHAsync_v2");
}

}  // extern "C"
