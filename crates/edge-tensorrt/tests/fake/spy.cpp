// The real CUDA driver, with a look at what is asked of it: this library needs the real one, in which the dynamic loader finds
// whatever is not here. The line `integrated 1` in `faults` lets any GPU pass for one that reads this process's memory in
// place, which all of them can with memory that was allocated for it.

#include "common.h"

namespace {

std::atomic<int> live{0};
std::atomic<int> buffers{0};
std::atomic<int> uploads{0};

template <typename F> F real(const char* name) {
    static void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    return reinterpret_cast<F>(dlsym(library, name));
}
// The real function of this one's name and type.
#define REAL(function) real<decltype(&function)>(#function)

int made(int code) {
    if (!code) live++;
    return code;
}
int gone(int code) {
    if (!code) live--;
    return code;
}

struct AtEnd {
    ~AtEnd() {
        fake::report("cuda unloaded: " + std::to_string(live) + " live, " + std::to_string(uploads) + " uploads");
    }
} at_end;

}  // namespace

extern "C" {

int cuDeviceGetAttribute(int* value, int attribute, int device) {
    int code = REAL(cuDeviceGetAttribute)(value, attribute, device);
    if (attribute == 18) *value = fake::number("integrated", *value);
    return code;
}

int cuDevicePrimaryCtxRetain(void** context, int device) { return made(REAL(cuDevicePrimaryCtxRetain)(context, device)); }
int cuDevicePrimaryCtxRelease_v2(int device) { return gone(REAL(cuDevicePrimaryCtxRelease_v2)(device)); }
int cuStreamCreate(void** stream, unsigned flags) { return made(REAL(cuStreamCreate)(stream, flags)); }
int cuStreamDestroy_v2(void* stream) { return gone(REAL(cuStreamDestroy_v2)(stream)); }
int cuMemHostAlloc(void** memory, size_t bytes, unsigned flags) { return made(REAL(cuMemHostAlloc)(memory, bytes, flags)); }
int cuMemFreeHost(void* memory) { return gone(REAL(cuMemFreeHost)(memory)); }

int cuMemAlloc_v2(unsigned long long* address, size_t bytes) {
    int code = made(REAL(cuMemAlloc_v2)(address, bytes));
    if (!code) buffers++;
    return code;
}

int cuMemGetInfo_v2(size_t* free, size_t* total);

// With the last one the GPU's free memory is taken down.
int cuMemFree_v2(unsigned long long address) {
    int code = gone(REAL(cuMemFree_v2)(address));
    size_t free = 0, total = 0;
    if (!code && --buffers == 0 && !REAL(cuMemGetInfo_v2)(&free, &total)) fake::report("MiB free: " + std::to_string(free >> 20));
    return code;
}

int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, void* stream) {
    uploads++;
    return REAL(cuMemcpyHtoDAsync_v2)(to, from, bytes, stream);
}

}  // extern "C"
