/* SPDX-License-Identifier: Apache-2.0 */
#include "scratch.h"

#include "data/sampler.h"

static void order_is_that_of_the_records_again_and_again(void **state) {
    (void)state;
    ShoalSampler sampler;
    shoal_sampler_init(&sampler, 7);
    for (uint64_t n = 0; n < 50; n++) {
        assert_int_equal(shoal_sampler_record(&sampler, n), n % 7);
        assert_int_equal(shoal_sampler_epoch(&sampler, n), n / 7);
    }
}

static void far_samples_do_not_overflow(void **state) {
    (void)state;
    ShoalSampler sampler;
    shoal_sampler_init(&sampler, 60000);
    assert_int_equal(shoal_sampler_record(&sampler, UINT64_MAX), UINT64_MAX % 60000);
    shoal_sampler_init(&sampler, 0);
    assert_int_equal(shoal_sampler_record(&sampler, 5), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_that_of_the_records_again_and_again),
        cmocka_unit_test(far_samples_do_not_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
