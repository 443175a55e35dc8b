/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "cpu/clusters.h"

static char root[32];
static cpu_set_t eight;

static void put(const char *name, long number) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, name);
    for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(path, 0700);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fprintf(file, "%ld\n", number);
    fclose(file);
}

/* number < 0: none. */
static void put_core(int core, long khz, long capacity) {
    char name[64];
    snprintf(name, sizeof name, "cpu%d/cpufreq/cpuinfo_max_freq", core);
    if (khz >= 0)
        put(name, khz);
    snprintf(name, sizeof name, "cpu%d/cpu_capacity", core);
    if (capacity >= 0)
        put(name, capacity);
}

/* Galaxy S10+ (Exynos 9820): four A55, two A75, two M4. */
static void put_phone(bool capacities) {
    for (int core = 0; core < 8; core++) {
        long khz = core < 4 ? 1950000 : core < 6 ? 2314000 : 2730000;
        long capacity = core < 4 ? 261 : core < 6 ? 637 : 1024;
        put_core(core, khz, capacities ? capacity : -1);
    }
}

static int make_root(void **state) {
    (void)state;
    strcpy(root, "clusters-test-XXXXXX");
    CPU_ZERO(&eight);
    for (int i = 0; i < 8; i++)
        CPU_SET(i, &eight);
    return mkdtemp(root) ? 0 : 1;
}

static int remove_root(void **state) {
    (void)state;
    char command[64];
    snprintf(command, sizeof command, "rm -r '%s'", root);
    return system(command);
}

static void assert_cores(const cpu_set_t *cores, const char *expected) {
    char text[64];
    assert_string_equal(shoal_cpu_list(cores, text, sizeof text), expected);
}

static void assert_choice(const ShoalCpuTopology *topology, int asked, int threads,
                          const char *cores, bool pin) {
    ShoalCpuChoice choice;
    shoal_cpu_choose_cores(topology, asked, &choice);
    assert_int_equal(choice.threads, threads);
    assert_cores(&choice.cores, cores);
    assert_int_equal(choice.pin, pin);
}

static void phone_has_three_clusters(void **state) {
    (void)state;
    ShoalCpuTopology topology;
    put_phone(true);
    shoal_cpu_topology(root, &eight, &topology);
    assert_int_equal(topology.count, 3);
    assert_cores(&topology.clusters[0].cores, "6-7");
    assert_cores(&topology.clusters[1].cores, "4-5");
    assert_cores(&topology.clusters[2].cores, "0-3");
    assert_int_equal(topology.clusters[0].capacity, 1024);
    assert_int_equal(topology.clusters[2].max_khz, 1950000);
}

static void fast_clusters_are_chosen(void **state) {
    (void)state;
    for (int capacities = 0; capacities < 2; capacities++) {
        ShoalCpuTopology topology;
        put_phone(capacities);
        shoal_cpu_topology(root, &eight, &topology);
        assert_choice(&topology, 0, 4, "4-7", true);
        /* Fewer threads still have all fast cores to move between. */
        assert_choice(&topology, 2, 2, "4-7", true);
        assert_choice(&topology, 4, 4, "4-7", true);
        /* More need the slow ones, too. */
        assert_choice(&topology, 5, 5, "0-7", false);
        assert_choice(&topology, 9, 9, "0-7", false);
    }
}

static void a_given_affinity_is_kept(void **state) {
    (void)state;
    ShoalCpuTopology topology;
    cpu_set_t some;
    put_phone(true);
    CPU_ZERO(&some);
    CPU_SET(1, &some);
    CPU_SET(2, &some);
    CPU_SET(7, &some);
    shoal_cpu_topology(root, &some, &topology);
    assert_int_equal(topology.count, 2);
    topology.restricted = true;
    assert_choice(&topology, 0, 3, "1-2,7", false);
    assert_choice(&topology, 1, 1, "1-2,7", false);
}

static void equal_cores_are_one_cluster(void **state) {
    (void)state;
    ShoalCpuTopology topology;
    shoal_cpu_topology(root, &eight, &topology); /* nothing is told */
    assert_int_equal(topology.count, 1);
    assert_choice(&topology, 0, 8, "0-7", false);
    assert_choice(&topology, 3, 3, "0-7", false);
    for (int core = 0; core < 8; core++)
        put_core(core, core < 2 ? 5000000 : 4900000, -1); /* two favoured cores of a desktop */
    shoal_cpu_topology(root, &eight, &topology);
    assert_int_equal(topology.count, 2);
    assert_choice(&topology, 0, 8, "0-7", false);
}

static void more_kinds_than_clusters(void **state) {
    (void)state;
    ShoalCpuTopology topology;
    cpu_set_t twenty;
    CPU_ZERO(&twenty);
    for (int core = 0; core < 20; core++) {
        CPU_SET(core, &twenty);
        put_core(core, 1000000 + 1000 * ((core * 7) % 20), -1);
    }
    shoal_cpu_topology(root, &twenty, &topology);
    assert_int_equal(topology.count, SHOAL_CPU_CLUSTERS);
    int cores = 0;
    for (int i = 0; i < topology.count; i++)
        cores += CPU_COUNT(&topology.clusters[i].cores);
    assert_int_equal(cores, 20);
}

static void lists_fit_any_buffer(void **state) {
    (void)state;
    cpu_set_t cores;
    char text[8];
    CPU_ZERO(&cores);
    assert_string_equal(shoal_cpu_list(&cores, text, sizeof text), "");
    for (int core = 0; core < 40; core += 2)
        CPU_SET(core, &cores);
    shoal_cpu_list(&cores, text, sizeof text);
    assert_true(strlen(text) < sizeof text);
    assert_int_equal(strncmp(text, "0,2,4", 5), 0);
}

static void pinning_and_back(void **state) {
    (void)state;
    cpu_set_t before, one, now;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++)
        if (CPU_ISSET(i, &before))
            CPU_SET(i, &one);
    assert_true(shoal_cpu_pin(&one));
    assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
    assert_true(CPU_EQUAL(&now, &one));
    shoal_cpu_unpin();
    assert_int_equal(sched_getaffinity(0, sizeof now, &now), 0);
    assert_true(CPU_COUNT(&now) >= CPU_COUNT(&before));
    CPU_ZERO(&one);
    assert_false(shoal_cpu_pin(&one));
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_true(shoal_cpu_fast_cores() >= 1);
    assert_true(shoal_cpu_fast_cores() <= CPU_COUNT(&before));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(phone_has_three_clusters, make_root, remove_root),
        cmocka_unit_test_setup_teardown(fast_clusters_are_chosen, make_root, remove_root),
        cmocka_unit_test_setup_teardown(a_given_affinity_is_kept, make_root, remove_root),
        cmocka_unit_test_setup_teardown(equal_cores_are_one_cluster, make_root, remove_root),
        cmocka_unit_test_setup_teardown(more_kinds_than_clusters, make_root, remove_root),
        cmocka_unit_test(lists_fit_any_buffer),
        cmocka_unit_test(pinning_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
