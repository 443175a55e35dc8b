/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/memory.h"
#include "train/link_internal.h"

/* What comes in from the coordinator, on the link's thread. */

static ShoalReplica *replica_of(ShoalLink *link) {
    pthread_mutex_lock(&link->lock);
    ShoalReplica *replica = link->replica;
    pthread_mutex_unlock(&link->lock);
    return replica;
}

/* ---- job and seed ---- */

static ShoalStatus append(ShoalBuffer *buffer, const Shoal__Chunk *chunk, const char *what,
                          ShoalError *err) {
    size_t n = chunk->content.len;
    if (chunk->offset != buffer->used || chunk->total < buffer->used + n || n == 0)
        return shoal_link_malformed(err);
    return shoal_buffer_append(buffer, chunk->content.data, n, what, err);
}

static ShoalStatus append_job(ShoalLink *link, const Shoal__Chunk *chunk, ShoalError *err) {
    ShoalStatus status = append(&link->job, chunk, "the job", err);
    if (status || link->job.used < chunk->total)
        return status;
    const ShoalOrder order = {
        .kind = SHOAL_ORDER_JOB, .bytes = link->job.bytes, .size = link->job.used};
    return shoal_link_order(link, &order, -1, NULL, NULL, err);
}

static ShoalStatus append_seed(ShoalLink *link, const Shoal__Chunk *chunk, ShoalError *err) {
    if (chunk->offset == 0)
        shoal_buffer_close(&link->seed);
    link->seed_generation = chunk->id;
    return append(&link->seed, chunk, "the state to begin with", err);
}

static ShoalStatus take_chunk(ShoalLink *link, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Chunk *chunk = (Shoal__Chunk *)shoal_message_unpack(&shoal__chunk__descriptor, frame);
    ShoalStatus status = SHOAL_OK;
    if (chunk && chunk->kind == SHOAL__CHUNK_KIND__CHUNK_JOB)
        status = append_job(link, chunk, err);
    else if (chunk && chunk->kind == SHOAL__CHUNK_KIND__CHUNK_SEED)
        status = append_seed(link, chunk, err);
    else
        status = shoal_link_malformed(err);
    if (chunk)
        shoal__chunk__free_unpacked(chunk, NULL);
    return status;
}

/* ---- generations ---- */

/* The secret is of this generation, but every connection carries the same: with the token's key in
 * it, to have got hold of one is not enough to join the ring. */
static void make_ring_key(const ShoalLink *link, const Shoal__Generation *message,
                          ShoalAuthKey *key) {
    static const unsigned char NOTHING[SHOAL_AUTH_BYTES];
    ShoalAuthKey mixed;
    shoal_auth_session_key(&link->key, SHOAL_AUTH_COORDINATOR, message->ring_secret.data, NOTHING,
                           NULL, &mixed);
    shoal_auth_ring_key(mixed.bytes, message->generation, key);
    shoal_auth_forget(&mixed, sizeof mixed);
}

static ShoalStatus read_members(const Shoal__Generation *message, ShoalAddress **out,
                                ShoalError *err) {
    ShoalAddress *members = shoal_calloc(message->n_members, sizeof *members);
    if (!members)
        return shoal_error_memory(err, "the members", message->n_members * sizeof *members);
    for (size_t i = 0; i < message->n_members; i++) {
        const Shoal__Member *member = message->members[i];
        if (member->ring_port < 1 || member->ring_port > UINT16_MAX ||
            shoal_address_from_host(member->address, (uint16_t)member->ring_port, &members[i],
                                    NULL)) {
            shoal_free(members);
            return shoal_link_malformed(err);
        }
    }
    *out = members;
    return SHOAL_OK;
}

/* What was to be done for the generation before is void, and what is being done is interrupted. */
static void end_generation(ShoalLink *link, uint64_t next) {
    for (int i = 0; i < link->n_open; i++)
        shoal_link_free_slot(link, link->open[i]);
    for (int i = 0; i < link->n_staged; i++)
        shoal_link_free_slot(link, link->staged[i]);
    link->n_open = link->n_staged = 0;
    pthread_mutex_lock(&link->lock);
    link->generation = next;
    if (link->replica)
        shoal_replica_cancel(link->replica, true);
    pthread_mutex_unlock(&link->lock);
    shoal_collective_abort(link->ring, next);
}

static ShoalStatus order_connect(ShoalLink *link, const Shoal__Generation *message,
                                 ShoalError *err) {
    ShoalAddress *members = NULL;
    ShoalStatus status = read_members(message, &members, err);
    if (status)
        return status;
    ShoalOrder order = {.kind = SHOAL_ORDER_CONNECT,
                        .generation = message->generation,
                        .config = {.generation = message->generation,
                                   .rank = message->rank,
                                   .size = (unsigned)message->n_members,
                                   .members = members,
                                   .format = link->format,
                                   .encrypt = link->encrypt}};
    make_ring_key(link, message, &order.config.key);
    status = shoal_link_order(link, &order, -1, members, NULL, err);
    shoal_auth_forget(&order.config.key, sizeof order.config.key);
    return status;
}

static ShoalStatus take_generation(ShoalLink *link, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Generation *message =
        (Shoal__Generation *)shoal_message_unpack(&shoal__generation__descriptor, frame);
    if (!message)
        return shoal_link_malformed(err);
    ShoalStatus status = SHOAL_OK;
    if (message->n_members < 1 || message->n_members > SHOAL_RING_MAX_SIZE ||
        message->ring_secret.len != SHOAL_AUTH_BYTES || !replica_of(link))
        status = shoal_link_malformed(err);
    if (!status)
        status = shoal_worker_generation(&link->core, message->generation, message->rank,
                                         (unsigned)message->n_members, err);
    if (!status) {
        end_generation(link, message->generation);
        status = order_connect(link, message, err);
    }
    shoal__generation__free_unpacked(message, NULL);
    return status;
}

static ShoalStatus order_start(ShoalLink *link, const Shoal__Start *message, ShoalError *err) {
    unsigned char *needy = shoal_calloc(link->core.size, 1), *seed = NULL;
    ShoalOrder order = {.kind = SHOAL_ORDER_START,
                        .generation = message->generation,
                        .round = message->round,
                        .needy = needy,
                        .version = {.held = message->version->held,
                                    .updates = message->version->updates,
                                    .generation = message->version->generation},
                        .current_step = (int)message->current_step};
    if (!needy)
        return shoal_error_memory(err, "the members", link->core.size);
    size_t n_needy = 0;
    for (size_t i = 0; i < message->n_needy; i++) {
        if (message->needy[i] < link->core.size && !needy[message->needy[i]]) {
            needy[message->needy[i]] = 1;
            n_needy++;
        }
    }
    if (n_needy != message->n_needy || n_needy >= link->core.size) {
        shoal_free(needy);
        return shoal_link_malformed(err);
    }
    bool seeded = message->seeded && link->core.rank == 0;
    if (seeded && (!link->seed.used || link->seed_generation != message->generation)) {
        shoal_free(needy);
        return shoal_link_malformed(err);
    }
    if (seeded) {
        order.bytes = seed = link->seed.bytes;
        order.size = link->seed.used;
        link->seed = (ShoalBuffer){0};
    }
    return shoal_link_order(link, &order, -1, needy, seed, err);
}

static ShoalStatus take_start(ShoalLink *link, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Start *message = (Shoal__Start *)shoal_message_unpack(&shoal__start__descriptor, frame);
    if (!message || !message->version || message->version->updates > INT32_MAX ||
        message->current_step > INT32_MAX) {
        if (message)
            shoal__start__free_unpacked(message, NULL);
        return shoal_link_malformed(err);
    }
    bool accepted = false;
    ShoalStatus status =
        shoal_worker_start(&link->core, message->generation, message->round, &accepted, err);
    if (!status && accepted)
        status = order_start(link, message, err);
    shoal__start__free_unpacked(message, NULL);
    return status;
}

/* ---- rounds and their samples ---- */

static bool fill_round(const Shoal__Round *message, ShoalSlot *slot) {
    if (message->iteration > INT32_MAX || message->current_step > INT32_MAX ||
        message->count > message->batch || message->batch > INT32_MAX || message->net > INT32_MAX ||
        message->kind > SHOAL__ROUND_KIND__ROUND_LOSS || message->n_places != message->count)
        return false;
    *shoal_slot_round(slot) = (ShoalRound){.kind = (ShoalStepKind)message->kind,
                                           .number = message->number,
                                           .iter = (int)message->iteration,
                                           .rate = message->rate,
                                           .current_step = (int)message->current_step,
                                           .net = (int)message->net,
                                           .first_sample = message->first_sample,
                                           .count = (int)message->count,
                                           .batch = (int)message->batch,
                                           .places = shoal_slot_places(slot),
                                           .clear = message->clear,
                                           .update = message->update};
    if (!shoal_slot_fits(slot, message->n_batches))
        return false;
    for (size_t i = 0; i < message->n_places; i++) {
        if (message->places[i] >= message->batch)
            return false;
        shoal_slot_places(slot)[i] = message->places[i];
    }
    return true;
}

/* A batch names its records, whether they are here, and whether they are to be kept. */
static bool is_sound(const ShoalLink *link, const ShoalSlot *slot, const Shoal__Batch *batch,
                     size_t source) {
    size_t n = shoal_slot_records(slot, (int)source);
    return batch->n_numbers == n && batch->held.len == n && batch->keep.len == n &&
           (n == 0 || batch->dataset < (uint32_t)link->job_of_replica->n_datasets);
}

static ShoalStatus stage(ShoalLink *link, const ShoalLinkSlot *item, size_t b, size_t i,
                         const void *bytes, size_t size, ShoalError *err) {
    (void)link;
    const ShoalRecord record = {bytes, size};
    return shoal_slot_stage(item->slot, (int)b, (int)i, &record,
                            item->message->batches[b]->numbers[i], err);
}

static const ShoalFingerprint *dataset_of(const ShoalLink *link, const Shoal__Batch *batch) {
    return &link->job_of_replica->datasets[batch->dataset].fingerprint;
}

/* Asks for what the coordinator believes to be here. indices are those of one batch. */
static ShoalStatus fetch(ShoalLink *link, const Shoal__Round *round, size_t b, uint32_t *indices,
                         size_t n, ShoalError *err) {
    Shoal__Fetch message = SHOAL__FETCH__INIT;
    message.generation = round->generation;
    message.round = round->number;
    message.batch = (uint32_t)b;
    message.indices = indices;
    message.n_indices = n;
    return shoal_message_queue(link->channel, SHOAL_MESSAGE_FETCH, &message.base, err);
}

/* Stages what the cache holds, counts what is to come. */
static ShoalStatus stage_held(ShoalLink *link, ShoalLinkSlot *item, size_t b, ShoalError *err) {
    Shoal__Batch *batch = item->message->batches[b];
    uint32_t *lost = shoal_calloc(batch->n_numbers, sizeof *lost);
    size_t n_lost = 0;
    ShoalStatus status =
        lost ? SHOAL_OK : shoal_error_memory(err, "a batch", batch->n_numbers * sizeof *lost);
    for (size_t i = 0; i < batch->n_numbers && !status; i++) {
        const void *bytes;
        size_t size;
        if (!batch->held.data[i]) {
            item->missing++;
        } else if (link->cache && shoal_cache_get(link->cache, dataset_of(link, batch),
                                                  batch->numbers[i], &bytes, &size)) {
            status = stage(link, item, b, i, bytes, size, err);
        } else {
            batch->held.data[i] = 0;
            item->missing++;
            lost[n_lost++] = (uint32_t)i;
        }
    }
    if (!status && n_lost)
        status = fetch(link, item->message, b, lost, n_lost, err);
    shoal_free(lost);
    return status;
}

/* Rounds go on in their order, as soon as all samples are here. */
static ShoalStatus pass_on(ShoalLink *link, ShoalError *err) {
    ShoalStatus status = SHOAL_OK;
    while (!status && link->n_open && link->slots[link->open[0]].missing == 0) {
        int slot = link->open[0];
        ShoalLinkSlot *item = &link->slots[slot];
        memmove(link->open, link->open + 1, (size_t)--link->n_open * sizeof *link->open);
        bool accepted = false;
        status = shoal_worker_round(&link->core, item->message->generation, item->message->number,
                                    &accepted, err);
        shoal__round__free_unpacked(item->message, NULL);
        item->message = NULL;
        if (!status && accepted)
            link->staged[link->n_staged++] = slot;
        else
            shoal_link_free_slot(link, slot);
    }
    return status;
}

static ShoalStatus open_round(ShoalLink *link, Shoal__Round *message, ShoalError *err) {
    int slot = shoal_link_take_slot(link);
    if (slot < 0) {
        shoal__round__free_unpacked(message, NULL);
        return shoal_link_malformed(err);
    }
    ShoalLinkSlot *item = &link->slots[slot];
    item->message = message;
    item->missing = 0;
    link->open[link->n_open++] = slot;
    if (!fill_round(message, item->slot))
        return shoal_link_malformed(err);
    ShoalStatus status = SHOAL_OK;
    for (size_t b = 0; b < message->n_batches && !status; b++)
        status = is_sound(link, item->slot, message->batches[b], b) ? stage_held(link, item, b, err)
                                                                    : shoal_link_malformed(err);
    return status ? status : pass_on(link, err);
}

static ShoalStatus take_round(ShoalLink *link, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Round *message = (Shoal__Round *)shoal_message_unpack(&shoal__round__descriptor, frame);
    if (!message)
        return shoal_link_malformed(err);
    if (message->generation != link->core.generation || !replica_of(link)) {
        bool stale = message->generation < link->core.generation;
        shoal__round__free_unpacked(message, NULL);
        return stale ? SHOAL_OK : shoal_link_malformed(err);
    }
    return open_round(link, message, err);
}

static ShoalLinkSlot *find_open(ShoalLink *link, uint64_t round) {
    for (int i = 0; i < link->n_open; i++)
        if (link->slots[link->open[i]].message->number == round)
            return &link->slots[link->open[i]];
    return NULL;
}

static ShoalStatus take_records(ShoalLink *link, ShoalLinkSlot *item, const Shoal__Samples *samples,
                                ShoalError *err) {
    Shoal__Batch *batch = item->message->batches[samples->batch];
    for (size_t k = 0; k < samples->n_indices; k++) {
        uint32_t i = samples->indices[k];
        if (i >= batch->n_numbers || batch->held.data[i])
            return shoal_link_malformed(err);
        const ProtobufCBinaryData *record = &samples->records[k];
        ShoalStatus status = stage(link, item, samples->batch, i, record->data, record->len, err);
        if (status)
            return status;
        if (batch->keep.data[i] && link->cache)
            (void)shoal_cache_put(link->cache, dataset_of(link, batch), batch->numbers[i],
                                  record->data, record->len);
        batch->held.data[i] = 1;
        item->missing--;
    }
    return pass_on(link, err);
}

static ShoalStatus take_samples(ShoalLink *link, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Samples *samples =
        (Shoal__Samples *)shoal_message_unpack(&shoal__samples__descriptor, frame);
    if (!samples)
        return shoal_link_malformed(err);
    ShoalStatus status = SHOAL_OK;
    if (samples->generation >= link->core.generation) {
        ShoalLinkSlot *item =
            samples->generation == link->core.generation ? find_open(link, samples->round) : NULL;
        if (!item || samples->batch >= item->message->n_batches ||
            samples->n_indices != samples->n_records)
            status = shoal_link_malformed(err);
        else
            status = take_records(link, item, samples, err);
    }
    shoal__samples__free_unpacked(samples, NULL);
    return status;
}

/* ---- the end ---- */

static ShoalStatus take_stop(ShoalLink *link, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Stop *message = (Shoal__Stop *)shoal_message_unpack(&shoal__stop__descriptor, frame);
    ShoalStatus status = SHOAL_OK;
    link->final = true;
    if (message && message->reason[0])
        status = shoal_error_set(err, SHOAL_ERR_LOST, "the coordinator ended the run: %s",
                                 message->reason);
    if (message)
        shoal__stop__free_unpacked(message, NULL);
    shoal_worker_stop(&link->core);
    return status;
}

static ShoalStatus take_refuse(ShoalLink *link, const ShoalFrame *frame, ShoalError *err) {
    Shoal__Refuse *message =
        (Shoal__Refuse *)shoal_message_unpack(&shoal__refuse__descriptor, frame);
    ShoalStatus status = shoal_error_set(err, SHOAL_ERR_LOST, "the coordinator refuses: %s",
                                         message ? message->reason : "no reason given");
    if (message) {
        link->final = message->for_good;
        link->forget = message->forget;
        shoal__refuse__free_unpacked(message, NULL);
    }
    return status;
}

ShoalStatus shoal_link_take(ShoalLink *link, const ShoalFrame *frame, ShoalError *err) {
    switch (frame->type) {
    case SHOAL_MESSAGE_CHUNK:
        return take_chunk(link, frame, err);
    case SHOAL_MESSAGE_GENERATION:
        return take_generation(link, frame, err);
    case SHOAL_MESSAGE_START:
        return take_start(link, frame, err);
    case SHOAL_MESSAGE_ROUND:
        return take_round(link, frame, err);
    case SHOAL_MESSAGE_SAMPLES:
        return take_samples(link, frame, err);
    case SHOAL_MESSAGE_STOP:
        return take_stop(link, frame, err);
    case SHOAL_MESSAGE_REFUSE:
        return take_refuse(link, frame, err);
    case SHOAL_MESSAGE_HEARTBEAT:
        return SHOAL_OK;
    default:
        return shoal_link_malformed(err);
    }
}
