/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_DATA_CONVERT_MNIST_H
#define SHOAL_DATA_CONVERT_MNIST_H

#include <stdint.h>

#include "shoal/status.h"

/* Called now and then with the number of records written so far and their total. */
typedef void ShoalConvertProgress(void *context, uint64_t done, uint64_t total);

/* Makes the LMDB db_path from an idx file of images (big endian: 2051, count, rows, columns, then a
 * byte per pixel) and one of labels (2049, count, a byte each), record for record as BVLC Caffe's
 * examples/mnist/convert_mnist_data.cpp: key "%08d", Datum { channels: 1 height width data label }.
 * (A label of 128 or more stays so; Caffe, built where char is signed, makes it negative.)
 * progress may be NULL. Errors: SHOAL_ERR_IO (a file that cannot be read or written, db_path that
 * exists already), SHOAL_ERR_DATA (not an idx file, counts that differ, a size that is not what its
 * head says, no images), SHOAL_ERR_MEMORY. On error there is no db_path. */
ShoalStatus shoal_data_convert_mnist(const char *images_path, const char *labels_path,
                                     const char *db_path, ShoalConvertProgress *progress,
                                     void *context, ShoalError *err);

#endif
