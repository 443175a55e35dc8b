/* SPDX-License-Identifier: Apache-2.0 */
#include "data/convert_mnist.h"
#include "shoal/shoal.h"

ShoalStatus shoal_convert_mnist(const char *images, const char *labels, const char *lmdb,
                                ShoalError *error) {
    return shoal_data_convert_mnist(images, labels, lmdb, NULL, NULL, error);
}
