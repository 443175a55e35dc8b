/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TESTS_FUZZ_REPLAY_H
#define SHOAL_TESTS_FUZZ_REPLAY_H

/* Files of tests/fuzz/corpus through a fuzzer's own function. Include after cmocka.h. */

#include <glob.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/memory.h"

static inline void fuzz_replay(const char *folder,
                               int (*target)(const uint8_t *data, size_t size)) {
    char pattern[512];
    glob_t found;
    snprintf(pattern, sizeof pattern, "%s/tests/fuzz/corpus/%s/*", SHOAL_SOURCE, folder);
    assert_int_equal(glob(pattern, 0, NULL, &found), 0);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        ShoalError err = {0};
        unsigned char *bytes;
        size_t size;
        if (shoal_file_read(found.gl_pathv[i], &bytes, &size, &err))
            fail_msg("%s", err.text);
        /* In storage of exactly that size, for the sanitizer. */
        uint8_t *exact = malloc(size ? size : 1);
        memcpy(exact, bytes, size);
        assert_int_equal(target(exact, size), 0);
        free(exact);
        shoal_free(bytes);
    }
    print_message("%zu files\n", found.gl_pathc);
    globfree(&found);
}

#endif
