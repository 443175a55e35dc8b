/* SPDX-License-Identifier: Apache-2.0 */
/* libFuzzer target: a packet of multicast DNS, as the coordinator and as a worker read it.
 * Promises: no crash; what is found is a port and an address that can be connected to; an answer to
 * whatever was asked fits into a packet, and says where the service is if that was asked for. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "discovery/mdns.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FUZZ_FOUND = 4 };

static const unsigned char FUZZ_ADDRESS[4] = {192, 168, 1, 10};
static const ShoalMdnsService FUZZ_SERVICE = {.instance = "a", .host = "h", .port = 4710};

static void fuzz_check_found(const ShoalMdnsFound *found, int n) {
    if (n < 0 || n > FUZZ_FOUND)
        abort();
    for (int i = 0; i < n; i++)
        if (!found[i].port ||
            (found[i].has_address && (found[i].address[0] == 0 || found[i].address[0] >= 224)))
            abort();
}

static void fuzz_answer(const ShoalMdnsQuery *query, bool legacy) {
    unsigned char packet[SHOAL_MDNS_PACKET];
    ShoalMdnsFound found[FUZZ_FOUND];
    size_t size = shoal_mdns_write_answer(query, &FUZZ_SERVICE, FUZZ_ADDRESS, legacy, packet);
    if (size < 12 || size > sizeof packet)
        abort();
    int n = shoal_mdns_read_answer(packet, size, legacy ? query->id : 0, found, FUZZ_FOUND);
    fuzz_check_found(found, n);
    if (n && (found[0].port != FUZZ_SERVICE.port || !found[0].has_address ||
              memcmp(found[0].address, FUZZ_ADDRESS, 4) != 0))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    ShoalMdnsFound found[FUZZ_FOUND];
    ShoalMdnsQuery query;
    uint16_t id = (uint16_t)(size >= 2 ? data[0] << 8 | data[1] : 0);
    fuzz_check_found(found, shoal_mdns_read_answer(data, size, id, found, FUZZ_FOUND));
    if (shoal_mdns_read_query(data, size, &FUZZ_SERVICE, &query)) {
        fuzz_answer(&query, true);
        fuzz_answer(&query, false);
    }
    return 0;
}
