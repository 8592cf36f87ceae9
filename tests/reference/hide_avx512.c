// Runs a program as if its processor ended at AVX2: what CPUID says is changed on its way, so that every runtime chooses as it
// would on such a machine, whether or not it has a switch for that.
//
//     cc -O2 -shared -fPIC hide_avx512.c -o hide_avx512.so
//     LD_PRELOAD=./hide_avx512.so python peers.py …
//
// Linux lets a thread ask that CPUID faults (arch_prctl, ARCH_SET_CPUID); threads that it starts inherit that. It needs an Intel
// processor, or a virtual machine that offers it: "cpuid_fault" in /proc/cpuinfo. Elsewhere replace_cpuid.py takes CPUID out of the
// libraries, and CPUID_REPLACED=1 says that it did.
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <cpuid.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define BIT(n) (1u << (n))

// Whether CPUID faults, or has been replaced by ud2.
static int faults;

static void on_fault(int signal_number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *at = (const unsigned char *)registers[REG_RIP];
    (void)info;
    if (at[0] != 0x0f || at[1] != (faults ? 0xa2 : 0x0b)) {
        // A fault of the program's own: it happens again, and ends it.
        signal(signal_number, SIG_DFL);
        return;
    }
    unsigned leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
    if (faults)
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, 1);
    __cpuid_count(leaf, part, a, b, c, d);
    if (faults)
        syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0);
    if (leaf == 7 && part == 0) {
        // AVX-512 F, DQ, IFMA, PF, ER, CD, BW, VL
        b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
        // AVX-512 VBMI, VBMI2, VNNI, BITALG, VPOPCNTDQ
        c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
        // AVX-512 4VNNIW, 4FMAPS, VP2INTERSECT, FP16; AMX bf16, tile, int8
        d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
    }
    if (leaf == 7 && part == 1) {
        // AVX-VNNI, AVX-512 BF16; AVX-VNNI-INT8
        a &= ~(BIT(4) | BIT(5));
        d &= ~BIT(4);
    }
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void hide(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_NODEFER};
    faults = getenv("CPUID_REPLACED") == NULL;
    if (sigaction(faults ? SIGSEGV : SIGILL, &action, NULL) || (faults && syscall(SYS_arch_prctl, ARCH_SET_CPUID, 0))) {
        perror("this machine does not let CPUID fault");
        exit(1);
    }
}
