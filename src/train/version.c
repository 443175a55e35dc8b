/* SPDX-License-Identifier: Apache-2.0 */
#include "shoal/shoal.h"

const char *shoal_version(void) {
    return SHOAL_VERSION;
}
