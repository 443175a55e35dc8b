/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_BASE_THREAD_H
#define SHOAL_BASE_THREAD_H

#include <pthread.h>

/* As pthread_create, for a thread that takes no signals: they are for whoever starts it. Returns 0
 * or an errno. */
int shoal_thread_start(pthread_t *thread, void *(*run)(void *), void *context);

#endif
