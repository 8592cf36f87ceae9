// The linear network on a real GPU: a kernel that the driver compiles from PTX, the text that NVIDIA documents for that
// (<https://docs.nvidia.com/cuda/parallel-thread-execution>), so that nothing of NVIDIA's is needed to build this.

#pragma once
#include "common.h"
#include <cstdint>

// One thread computes one value, in the order and with the roundings of the loop on the processor. It waits before it reads
// anything, so that whoever looks or writes too early is found out.
static const char* const PTX = R"(
.version 6.3
.target TARGET
.address_size 64
.visible .entry linear(.param .u64 input, .param .u64 output, .param .u64 inputs, .param .u64 outputs, .param .u64 seed,
                       .param .f64 offset, .param .u64 delay)
{
    .reg .pred %p<3>;
    .reg .b32 %r<3>;
    .reg .f32 %f<2>;
    .reg .f64 %d<3>;
    .reg .b64 %l<11>;
    mov.u32 %r0, %ctaid.x;
    mov.u32 %r1, %ntid.x;
    mov.u32 %r2, %tid.x;
    cvt.u64.u32 %l0, %r2;
    mad.wide.u32 %l0, %r0, %r1, %l0;
    ld.param.u64 %l1, [outputs];
    setp.ge.u64 %p0, %l0, %l1;
    @%p0 bra END;
    mov.u64 %l2, %globaltimer;
    ld.param.u64 %l3, [delay];
    add.u64 %l2, %l2, %l3;
WAIT:
    mov.u64 %l3, %globaltimer;
    setp.lt.u64 %p1, %l3, %l2;
    @%p1 bra WAIT;
    ld.param.u64 %l4, [input];
    ld.param.u64 %l5, [inputs];
    ld.param.u64 %l6, [seed];
    mad.lo.u64 %l6, %l0, 31, %l6;
    ld.param.f64 %d0, [offset];
    mov.u64 %l7, 0;
LOOP:
    setp.ge.u64 %p2, %l7, %l5;
    @%p2 bra DONE;
    // (k * 31 + i * 17 + seed) % 13 - 6, over 64
    rem.u64 %l8, %l6, 13;
    cvt.rn.f64.u64 %d1, %l8;
    sub.rn.f64 %d1, %d1, 0d4018000000000000;
    mul.rn.f64 %d1, %d1, 0d3F90000000000000;
    ld.f32 %f0, [%l4];
    cvt.f64.f32 %d2, %f0;
    mul.rn.f64 %d1, %d1, %d2;
    add.rn.f64 %d0, %d0, %d1;
    add.u64 %l4, %l4, 4;
    add.u64 %l6, %l6, 17;
    add.u64 %l7, %l7, 1;
    bra LOOP;
DONE:
    cvt.rn.f32.f64 %f1, %d0;
    ld.param.u64 %l9, [output];
    shl.b64 %l10, %l0, 2;
    add.u64 %l9, %l9, %l10;
    st.f32 [%l9], %f1;
END:
    ret;
}
)";

// A function of the real driver, which is loaded already.
template <typename F> static F driver(const char* name) {
    static void* library = dlopen("libcuda.so.1", RTLD_NOW);
    void* found = library ? dlsym(library, name) : nullptr;
    if (!found) {
        fake::report(std::string("no way to fail: the driver has no ") + name);
        std::abort();
    }
    return reinterpret_cast<F>(found);
}

// The kernel in the context of this thread.
class Kernel {
    void *module = nullptr, *function = nullptr;

    // An old target suits every GPU there was since, until drivers leave it out.
    int load() {
        int code = 0;
        for (const char* target : {"sm_53", "sm_75"}) {
            std::string text = PTX;
            text.replace(text.find("TARGET"), 6, target);
            code = driver<int (*)(void**, const void*)>("cuModuleLoadData")(&module, text.c_str());
            if (!code) break;
            module = nullptr;
        }
        return code ? code : driver<int (*)(void**, void*, const char*)>("cuModuleGetFunction")(&function, module, "linear");
    }

public:
    struct Work {
        void *input, *output;
        int64_t inputs, outputs, seed;
        double offset;
        int64_t delay;
    };

    Kernel() = default;
    Kernel(const Kernel&) = delete;
    ~Kernel() {
        if (module) driver<int (*)(void*)>("cuModuleUnload")(module);
    }

    // Begins to compute; what is wrong, or nothing.
    std::string begin(Work work, void* stream) {
        if (!function)
            if (int code = load()) return "the kernel cannot be loaded (" + std::to_string(code) + ")";
        void* arguments[] = {&work.input, &work.output, &work.inputs, &work.outputs, &work.seed, &work.offset, &work.delay};
        using Launch = int (*)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*, void**, void**);
        const unsigned threads = 32, blocks = unsigned((work.outputs + threads - 1) / threads);
        int code = driver<Launch>("cuLaunchKernel")(function, blocks, 1, 1, threads, 1, 1, 0, stream, arguments, nullptr);
        return code ? "the kernel cannot be launched (" + std::to_string(code) + ")" : "";
    }
};
