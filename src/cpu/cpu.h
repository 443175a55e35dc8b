/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CPU_CPU_H
#define SHOAL_CPU_CPU_H

#include "shoal/status.h"

/* What this machine's processor can do. */

typedef enum ShoalCpuLevel {
    SHOAL_CPU_C = 0,  /* the reference: portable C */
    SHOAL_CPU_AVX2,   /* x86-64 with AVX2 and FMA */
    SHOAL_CPU_AVX512, /* x86-64 with AVX-512 F, VL, BW and DQ */
    SHOAL_CPU_NEON    /* AArch64, Armv8.0-A on */
} ShoalCpuLevel;

enum { SHOAL_CPU_LEVELS = 4 };

/* "c", "avx2", "avx512", "neon"; static storage. */
const char *shoal_cpu_level_name(ShoalCpuLevel level);

/* Whether this CPU (and its operating system: saved registers) runs a level. */
int shoal_cpu_level_usable(ShoalCpuLevel level);

/* The level to use: the one named (NULL: the environment variable SHOAL_CPU; that unset: the best
 * usable one). SHOAL_ERR_ARGUMENT for an unknown name or one that this CPU cannot run; the message
 * lists those it can. */
ShoalStatus shoal_cpu_level_choose(const char *name, ShoalCpuLevel *level, ShoalError *err);

/* Cores that this process may run on (its affinity mask; cgroup quotas are not looked at); >= 1. */
int shoal_cpu_cores(void);

/* The processor's model name as the system gives it, into name[0..size); "unknown" if it does not.
 */
void shoal_cpu_model(char *name, int size);

#endif
