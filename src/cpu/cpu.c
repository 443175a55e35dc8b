/* SPDX-License-Identifier: Apache-2.0 */
#include "cpu/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

static const char *const level_names[SHOAL_CPU_LEVELS] = {"c", "avx2", "avx512", "neon"};

const char *shoal_cpu_level_name(ShoalCpuLevel level) {
    if ((int)level < 0 || (int)level >= SHOAL_CPU_LEVELS)
        return "unknown";
    return level_names[level];
}

int shoal_cpu_level_usable(ShoalCpuLevel level) {
    switch (level) {
    case SHOAL_CPU_C:
        return 1;
#if defined(__x86_64__)
    /* The builtin asks CPUID and, through XGETBV, whether the system saves the registers. */
    case SHOAL_CPU_AVX2:
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    case SHOAL_CPU_AVX512:
        return shoal_cpu_level_usable(SHOAL_CPU_AVX2) && __builtin_cpu_supports("avx512f") &&
               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512dq");
#endif
#if defined(__aarch64__)
    case SHOAL_CPU_NEON: /* part of the base architecture */
        return 1;
#endif
    default:
        return 0;
    }
}

/* "c, avx2": what this CPU runs. */
static void list_usable(char *text, size_t size) {
    size_t used = 0;
    text[0] = '\0';
    for (int level = 0; level < SHOAL_CPU_LEVELS; level++) {
        if (!shoal_cpu_level_usable((ShoalCpuLevel)level))
            continue;
        int wrote =
            snprintf(text + used, size - used, "%s%s", used ? ", " : "", level_names[level]);
        if (wrote < 0 || (size_t)wrote >= size - used)
            return;
        used += (size_t)wrote;
    }
}

static ShoalCpuLevel best_usable(void) {
    int level = SHOAL_CPU_LEVELS - 1;
    while (!shoal_cpu_level_usable((ShoalCpuLevel)level))
        level--;
    return (ShoalCpuLevel)level;
}

static ShoalStatus level_by_name(const char *where, const char *name, ShoalCpuLevel *level,
                                 ShoalError *err) {
    char usable[64];
    list_usable(usable, sizeof usable);
    for (int i = 0; i < SHOAL_CPU_LEVELS; i++) {
        if (strcmp(name, level_names[i]) != 0)
            continue;
        if (!shoal_cpu_level_usable((ShoalCpuLevel)i))
            return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                                   "%s: this CPU does not run level '%s'; it runs: %s", where, name,
                                   usable);
        *level = (ShoalCpuLevel)i;
        return SHOAL_OK;
    }
    return shoal_error_set(err, SHOAL_ERR_ARGUMENT,
                           "%s: unknown CPU level '%.40s'; this CPU runs: %s", where, name, usable);
}

ShoalStatus shoal_cpu_level_choose(const char *name, ShoalCpuLevel *level, ShoalError *err) {
    if (name)
        return level_by_name("CPU level", name, level, err);
    const char *env = getenv("SHOAL_CPU");
    if (env && env[0])
        return level_by_name("environment variable SHOAL_CPU", env, level, err);
    *level = best_usable();
    return SHOAL_OK;
}

int shoal_cpu_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* more cores than cpu_set_t has bits */
    return online > 0 ? (int)online : 1;
}

/* The text after "KEY   : " of a line, into out without the newline; 0 when the key differs. */
static int value_of(const char *line, const char *key, char *out, size_t size) {
    size_t length = strlen(key);
    if (strncmp(line, key, length) != 0)
        return 0;
    const char *value = line + length;
    value += strspn(value, " \t");
    if (*value != ':')
        return 0;
    value++;
    value += strspn(value, " \t");
    size_t end = strcspn(value, "\n");
    if (end == 0)
        return 0;
    snprintf(out, size, "%.*s", (int)end, value);
    return 1;
}

void shoal_cpu_model(char *name, int size) {
    if (size <= 0)
        return;
    snprintf(name, (size_t)size, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "re");
    if (!file)
        return;
    char line[512];
    while (fgets(line, sizeof line, file)) {
        /* x86 has "model name"; ARM kernels name the board under "Hardware", if anything. */
        if (value_of(line, "model name", name, (size_t)size))
            break;
        if (value_of(line, "Hardware", name, (size_t)size))
            break;
    }
    fclose(file);
}
