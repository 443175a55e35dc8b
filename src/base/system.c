/* SPDX-License-Identifier: Apache-2.0 */
#include "base/system.h"

#include <stdlib.h>

const char *shoal_system_root(void) {
    const char *root = getenv("SHOAL_SYSTEM_ROOT");
    return root && root[0] ? root : "/";
}
