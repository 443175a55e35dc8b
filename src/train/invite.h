/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_TRAIN_INVITE_H
#define SHOAL_TRAIN_INVITE_H

#include <stdbool.h>
#include <stddef.h>

#include "collective/socket.h"

/* How others are told to join: the command that starts a worker. */

enum { SHOAL_INVITE_ADDRESSES = 8 };

/* The addresses at which other machines reach a listener: its own, or for the any-address those of
 * the interfaces that are up, this machine's own network last. Returns how many, 1 at least where
 * there is any; all with the listener's port. */
int shoal_invite_addresses(const ShoalAddress *listen,
                           ShoalAddress addresses[SHOAL_INVITE_ADDRESSES]);

/* "SHOAL_TOKEN=secret shoal worker --join=192.0.2.1:4710" */
void shoal_invite_command(const ShoalAddress *address, const char *token, char *text, size_t size);

/* Does this address name this machine only (127.0.0.0/8, ::1)? */
bool shoal_invite_is_local(const ShoalAddress *address);

#endif
