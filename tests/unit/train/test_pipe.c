/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>

#include "base/error.h"
#include "train/pipe.h"

enum { ITEMS = 3, VALUES = 20000 };

typedef struct Run {
    ShoalPipe *pipe;
    int stop_after;     /* values that the producer gives before it closes */
    ShoalError error;   /* that it closes with */
    int in_item[ITEMS]; /* the value that an item carries */
    int made;           /* by the producer, until it was told to end */
} Run;

static void *produce(void *argument) {
    Run *run = argument;
    for (run->made = 0; run->made < run->stop_after; run->made++) {
        int item = shoal_pipe_take(run->pipe, true);
        if (item < 0)
            return NULL;
        run->in_item[item] = run->made;
        shoal_pipe_push(run->pipe, item);
    }
    shoal_pipe_close(run->pipe, &run->error);
    return NULL;
}

/* Reads until there is no more, or `most` values; how many there were, in order. */
static int consume(Run *run, int most) {
    int n = 0;
    while (n < most) {
        int item = shoal_pipe_pop(run->pipe);
        if (item < 0)
            break;
        assert_in_range(item, 0, ITEMS - 1);
        assert_int_equal(run->in_item[item], n);
        n++;
        shoal_pipe_recycle(run->pipe, item);
    }
    return n;
}

static pthread_t start(Run *run) {
    run->pipe = shoal_pipe_create(ITEMS);
    assert_non_null(run->pipe);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, produce, run), 0);
    return thread;
}

static void values_come_in_order(void **state) {
    (void)state;
    Run run = {.stop_after = VALUES};
    pthread_t thread = start(&run);
    assert_int_equal(consume(&run, VALUES + 1), VALUES);
    pthread_join(thread, NULL);
    ShoalError err = {0};
    assert_int_equal(shoal_pipe_error(run.pipe, &err), SHOAL_OK);
    assert_int_equal(err.status, SHOAL_OK);
    shoal_pipe_destroy(run.pipe);
}

static void reader_ends_the_writer(void **state) {
    (void)state;
    Run run = {.stop_after = VALUES};
    pthread_t thread = start(&run);
    assert_int_equal(consume(&run, 100), 100);
    shoal_pipe_close(run.pipe, NULL); /* the producer may wait for a free item: it must wake */
    pthread_join(thread, NULL);
    assert_in_range(run.made, 100, 100 + ITEMS);
    assert_int_equal(shoal_pipe_take(run.pipe, true), -1);
    shoal_pipe_destroy(run.pipe);
}

static void error_ends_the_reader(void **state) {
    (void)state;
    Run run = {.stop_after = 50};
    shoal_error_set(&run.error, SHOAL_ERR_DATA, "record 50 is broken");
    pthread_t thread = start(&run);
    assert_in_range(consume(&run, VALUES), 0, 50);
    pthread_join(thread, NULL);
    ShoalError err = {0};
    assert_int_equal(shoal_pipe_error(run.pipe, &err), SHOAL_ERR_DATA);
    assert_string_equal(err.text, "record 50 is broken");
    shoal_pipe_destroy(run.pipe);
}

static void close_gives_out_what_is_ready(void **state) {
    (void)state;
    ShoalError none = {0};
    const ShoalError *const ends[] = {NULL, &none};
    for (int e = 0; e < 2; e++) {
        ShoalPipe *pipe = shoal_pipe_create(2);
        int first = shoal_pipe_take(pipe, true), second = shoal_pipe_take(pipe, true);
        assert_int_not_equal(first, second);
        assert_int_equal(shoal_pipe_take(pipe, false), -1); /* none is free */
        shoal_pipe_push(pipe, second);
        shoal_pipe_push(pipe, first);
        shoal_pipe_close(pipe, ends[e]);
        assert_int_equal(shoal_pipe_pop(pipe), second);
        assert_int_equal(shoal_pipe_pop(pipe), first);
        assert_int_equal(shoal_pipe_pop(pipe), -1);
        shoal_pipe_recycle(pipe, first);
        assert_int_equal(shoal_pipe_take(pipe, true), -1); /* closed: nothing to fill */
        shoal_pipe_destroy(pipe);
    }
}

static void error_drops_what_is_ready_and_the_first_wins(void **state) {
    (void)state;
    ShoalPipe *pipe = shoal_pipe_create(2);
    shoal_pipe_push(pipe, shoal_pipe_take(pipe, true));
    ShoalError first = {0}, second = {0}, err = {0};
    shoal_error_set(&first, SHOAL_ERR_IO, "first");
    shoal_error_set(&second, SHOAL_ERR_DATA, "second");
    shoal_pipe_close(pipe, &first);
    shoal_pipe_close(pipe, &second);
    shoal_pipe_close(pipe, NULL);
    assert_int_equal(shoal_pipe_pop(pipe), -1);
    assert_int_equal(shoal_pipe_error(pipe, &err), SHOAL_ERR_IO);
    assert_string_equal(err.text, "first");
    shoal_pipe_destroy(pipe);
    shoal_pipe_destroy(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_come_in_order),
        cmocka_unit_test(reader_ends_the_writer),
        cmocka_unit_test(error_ends_the_reader),
        cmocka_unit_test(close_gives_out_what_is_ready),
        cmocka_unit_test(error_drops_what_is_ready_and_the_first_wins),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
