/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "cpu/cpu.h"

static void names_are_those_of_the_manual(void **state) {
    (void)state;
    assert_string_equal(shoal_cpu_level_name(SHOAL_CPU_C), "c");
    assert_string_equal(shoal_cpu_level_name(SHOAL_CPU_AVX2), "avx2");
    assert_string_equal(shoal_cpu_level_name(SHOAL_CPU_AVX512), "avx512");
    assert_string_equal(shoal_cpu_level_name(SHOAL_CPU_NEON), "neon");
    assert_string_equal(shoal_cpu_level_name((ShoalCpuLevel)SHOAL_CPU_LEVELS), "unknown");
    assert_string_equal(shoal_cpu_level_name((ShoalCpuLevel)-1), "unknown");
}

static void reference_runs_everywhere(void **state) {
    (void)state;
    assert_true(shoal_cpu_level_usable(SHOAL_CPU_C));
    assert_false(shoal_cpu_level_usable((ShoalCpuLevel)SHOAL_CPU_LEVELS));
    assert_false(shoal_cpu_level_usable((ShoalCpuLevel)-1));
    if (shoal_cpu_level_usable(SHOAL_CPU_AVX512))
        assert_true(shoal_cpu_level_usable(SHOAL_CPU_AVX2));
}

static ShoalCpuLevel best(void) {
    int level = SHOAL_CPU_LEVELS - 1;
    while (!shoal_cpu_level_usable((ShoalCpuLevel)level))
        level--;
    return (ShoalCpuLevel)level;
}

static void best_is_chosen_unless_told(void **state) {
    (void)state;
    ShoalError err = {0};
    ShoalCpuLevel level = SHOAL_CPU_C;
    unsetenv("SHOAL_CPU");
    assert_int_equal(shoal_cpu_level_choose(NULL, &level, &err), SHOAL_OK);
    assert_int_equal(level, best());
    setenv("SHOAL_CPU", "", 1); /* set but empty is as good as unset */
    assert_int_equal(shoal_cpu_level_choose(NULL, &level, &err), SHOAL_OK);
    assert_int_equal(level, best());
    setenv("SHOAL_CPU", "c", 1);
    assert_int_equal(shoal_cpu_level_choose(NULL, &level, &err), SHOAL_OK);
    assert_int_equal(level, SHOAL_CPU_C);
    /* The argument goes before the environment. */
    assert_int_equal(shoal_cpu_level_choose(shoal_cpu_level_name(best()), &level, &err), SHOAL_OK);
    assert_int_equal(level, best());
    unsetenv("SHOAL_CPU");
}

static void unknown_names_are_refused(void **state) {
    (void)state;
    static const char *const wrong[] = {"", "C", "avx", "avx2 ", "sse", "avx5120", "%s%n"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ShoalError err = {0};
        ShoalCpuLevel level = (ShoalCpuLevel)77;
        assert_int_equal(shoal_cpu_level_choose(wrong[i], &level, &err), SHOAL_ERR_ARGUMENT);
        assert_int_equal(level, 77);
        assert_non_null(strstr(err.text, wrong[i]));
        assert_non_null(strstr(err.text, "runs: c"));
    }
    char huge[5000];
    memset(huge, 'x', sizeof huge - 1);
    huge[sizeof huge - 1] = '\0';
    ShoalError err = {0};
    ShoalCpuLevel level;
    assert_int_equal(shoal_cpu_level_choose(huge, &level, &err), SHOAL_ERR_ARGUMENT);
    assert_non_null(strstr(err.text, "runs: c"));
    setenv("SHOAL_CPU", "mmx", 1);
    ShoalError from_env = {0};
    assert_int_equal(shoal_cpu_level_choose(NULL, &level, &from_env), SHOAL_ERR_ARGUMENT);
    assert_non_null(strstr(from_env.text, "SHOAL_CPU"));
    assert_non_null(strstr(from_env.text, "mmx"));
    unsetenv("SHOAL_CPU");
}

static void cores_follow_the_affinity_mask(void **state) {
    (void)state;
    cpu_set_t old, one;
    assert_int_equal(sched_getaffinity(0, sizeof old, &old), 0);
    assert_int_equal(shoal_cpu_cores(), CPU_COUNT(&old));
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && CPU_COUNT(&one) == 0; i++)
        if (CPU_ISSET(i, &old))
            CPU_SET(i, &one);
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
    assert_int_equal(shoal_cpu_cores(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof old, &old), 0);
}

static void model_fits_any_buffer(void **state) {
    (void)state;
    char name[128] = "", small[5];
    shoal_cpu_model(name, sizeof name);
    assert_true(strlen(name) > 0);
    memset(small, '#', sizeof small);
    shoal_cpu_model(small, 4);
    assert_int_equal(small[4], '#');
    assert_int_equal(small[3], '\0');
    assert_memory_equal(small, name, strlen(small));
    shoal_cpu_model(small, 0);
    assert_int_equal(small[4], '#');
}

static void memory_is_plausible(void **state) {
    (void)state;
    unsigned long long total = 1, available = 1;
    shoal_memory_system(&total, &available);
    assert_true(available <= total);
    assert_true(total == 0 || total > 16ULL << 20);
    assert_int_equal(total % 1024, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_those_of_the_manual),
        cmocka_unit_test(reference_runs_everywhere),
        cmocka_unit_test(best_is_chosen_unless_told),
        cmocka_unit_test(unknown_names_are_refused),
        cmocka_unit_test(cores_follow_the_affinity_mask),
        cmocka_unit_test(model_fits_any_buffer),
        cmocka_unit_test(memory_is_plausible),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
