/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_IMAGE_RECORD_H
#define SHOAL_DATA_IMAGE_RECORD_H

#include "data/dataset.h"

/* Makes records of image files: packed Datum messages with the file's bytes. The memory is reused.
 */
typedef struct ShoalImageRecorder {
    unsigned char *file, *packed;
    size_t file_size, packed_size;
    char *path;
    size_t path_size;
} ShoalImageRecorder;

/* A file ROOT + NAME, a label, and numbers that go along. *out is valid until the next call.
 * Errors: SHOAL_ERR_IO (names the file), SHOAL_ERR_DATA (empty, too large), SHOAL_ERR_MEMORY. */
ShoalStatus shoal_image_record_make(ShoalImageRecorder *recorder, const char *root,
                                    const char *name, int label, const float *numbers, size_t n,
                                    ShoalRecord *out, ShoalError *err);

void shoal_image_record_close(ShoalImageRecorder *recorder);

#endif
