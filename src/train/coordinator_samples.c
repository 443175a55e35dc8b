/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "train/coordinator_internal.h"

/* Rounds on their way to a worker, and of their samples those that it does not hold. */

enum { SAMPLES_BYTES = 1 << 20 }; /* of records, in one message, about */

/* ---- caches ---- */

static bool grow_stores(ShoalCoordinator *c) {
    int size = c->stores_size ? 2 * c->stores_size : 64;
    unsigned char(*ids)[SHOAL_HANDSHAKE_ID_BYTES] = shoal_calloc((size_t)size, sizeof *ids);
    unsigned char *alive = shoal_calloc((size_t)size, 1);
    if (!ids || !alive) {
        shoal_free(ids);
        shoal_free(alive);
        return false;
    }
    for (int i = 0; i < c->n_stores; i++) {
        memcpy(ids[i], c->store_ids[i], sizeof *ids);
        alive[i] = c->store_alive[i];
    }
    shoal_free(c->store_ids);
    shoal_free(c->store_alive);
    c->store_ids = ids;
    c->store_alive = alive;
    c->stores_size = size;
    return true;
}

int shoal_coordinator_store(ShoalCoordinator *c, const ShoalJoinInfo *info) {
    if (!info->has_cache || !c->holdings)
        return -1;
    int i = 0;
    while (i < c->n_stores && memcmp(c->store_ids[i], info->cache_id, sizeof c->store_ids[i]))
        i++;
    if (i == c->n_stores) {
        if (i == SHOAL_HOLDINGS_MAX_STORES || (i == c->stores_size && !grow_stores(c)))
            return -1;
        memcpy(c->store_ids[i], info->cache_id, sizeof c->store_ids[i]);
        c->n_stores++;
    }
    /* What it holds it says itself (Holdings). */
    shoal_holdings_forget_all(c->holdings, i);
    if (shoal_holdings_budget(c->holdings, i, info->cache_bytes, NULL))
        return -1;
    c->store_alive[i] = 1;
    return i;
}

static int find_dataset(const ShoalCoordinator *c, const ProtobufCBinaryData *fingerprint) {
    for (int i = 0; i < c->job->n_datasets; i++)
        if (fingerprint->len == sizeof c->job->datasets[i].fingerprint.bytes &&
            !memcmp(fingerprint->data, c->job->datasets[i].fingerprint.bytes, fingerprint->len))
            return i;
    return -1;
}

void shoal_coordinator_take_holdings(ShoalCoordinator *c, ShoalPeer *peer,
                                     const ShoalFrame *frame) {
    Shoal__Holdings *message =
        (Shoal__Holdings *)shoal_message_unpack(&shoal__holdings__descriptor, frame);
    if (!message || message->n_ranges % 2) {
        shoal_coordinator_lose(c, peer, "sent something that is no message");
    } else {
        int dataset = find_dataset(c, &message->fingerprint); /* others' are of no interest */
        uint64_t end = 0; /* ranges ascend: each record is named once at most */
        for (size_t i = 0; dataset >= 0 && peer->store >= 0 && i < message->n_ranges; i += 2) {
            uint64_t first = message->ranges[i], n = message->ranges[i + 1];
            uint64_t records = c->job->datasets[dataset].records;
            if (first < end || first > records || n > records - first) {
                shoal_coordinator_lose(c, peer, "holds records that there are not");
                break;
            }
            shoal_holdings_add(c->holdings, peer->store, dataset, first, n);
            end = first + n;
        }
    }
    if (message)
        shoal__holdings__free_unpacked(message, NULL);
}

/* ---- samples ---- */

/* One rank's part of one data layer. */
typedef struct Part {
    ShoalCoordinator *c;
    ShoalPeer *peer;
    const ShoalFlight *flight;
    uint64_t number; /* of the round */
    int rank, source, dataset;
    uint64_t *numbers;
    unsigned char *held, *keep;
} Part;

static uint64_t sample_of(const Part *part, int i) {
    const ShoalPlan *plan = &part->flight->plan;
    return plan->base[part->rank] + plan->places[plan->first[part->rank] + i];
}

static ShoalStatus record_of(const Part *part, int i, ShoalRecord *record) {
    ShoalStreams *streams = shoal_director_streams(part->c->director, part->flight->plan.round.net);
    return shoal_streams_record(streams, part->source, sample_of(part, i), record, part->c->err);
}

/* Which of them the worker holds, and which it is to keep. Tests are read once in a while and in
 * another order of workers each time: they are cached as well. */
static ShoalStatus look_up(Part *part) {
    ShoalCoordinator *c = part->c;
    ShoalStreams *streams = shoal_director_streams(c->director, part->flight->plan.round.net);
    int n = part->flight->plan.count[part->rank], store = part->peer->store;
    for (int i = 0; i < n; i++) {
        part->numbers[i] = shoal_streams_number(streams, part->source, sample_of(part, i));
        if (store < 0)
            continue;
        part->held[i] = shoal_holdings_has(c->holdings, store, part->dataset, part->numbers[i]);
        if (part->held[i])
            continue;
        ShoalRecord record;
        ShoalStatus status = record_of(part, i, &record);
        if (status)
            return status;
        part->keep[i] = shoal_holdings_keep(c->holdings, store, part->dataset, part->numbers[i],
                                            record.size, c->store_alive);
    }
    return SHOAL_OK;
}

static ShoalStatus flush_samples(const Part *part, Shoal__Samples *message) {
    if (!message->n_indices)
        return SHOAL_OK;
    ShoalStatus status = SHOAL_OK;
    if (shoal_coordinator_queue(part->peer, SHOAL_MESSAGE_SAMPLES, &message->base))
        shoal_coordinator_lose(part->c, part->peer, "no memory for its samples");
    message->n_indices = message->n_records = 0;
    return status;
}

/* Those of indices[n] (NULL: all) that are not held, in messages of a handy size. */
static ShoalStatus send_records(Part *part, const uint32_t *indices, size_t n) {
    Shoal__Samples message = SHOAL__SAMPLES__INIT;
    message.generation = part->flight->generation;
    message.round = part->number;
    message.batch = (uint32_t)part->source;
    message.indices = shoal_calloc(n, sizeof *message.indices);
    message.records = shoal_calloc(n, sizeof *message.records);
    ShoalStatus status = message.indices && message.records
                             ? SHOAL_OK
                             : shoal_error_memory(part->c->err, "samples", n);
    size_t bytes = 0;
    const ShoalStream *stream =
        &shoal_director_streams(part->c->director, part->flight->plan.round.net)
             ->items[part->source];
    bool keeps = !stream->dataset || shoal_dataset_keeps(stream->dataset);
    for (size_t k = 0; k < n && !status; k++) {
        int i = indices ? (int)indices[k] : (int)k;
        if (part->held[i])
            continue;
        ShoalRecord record;
        status = record_of(part, i, &record);
        if (status)
            break;
        message.indices[message.n_indices++] = (uint32_t)i;
        message.records[message.n_records++] =
            (ProtobufCBinaryData){.data = (unsigned char *)record.bytes, .len = record.size};
        part->peer->tally.sent_bytes += (double)record.size;
        part->peer->tally.sent_records++;
        bytes += record.size;
        if (bytes >= SAMPLES_BYTES || !keeps) {
            status = flush_samples(part, &message);
            bytes = 0;
        }
    }
    if (!status)
        status = flush_samples(part, &message);
    shoal_free(message.indices);
    shoal_free(message.records);
    return status;
}

static void close_part(Part *part) {
    shoal_free(part->numbers);
    shoal_free(part->held);
    shoal_free(part->keep);
    *part = (Part){0};
}

static ShoalStatus open_part(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFlight *flight,
                             uint64_t number, int rank, int source, Part *out) {
    ShoalStreams *streams = shoal_director_streams(c->director, flight->plan.round.net);
    const ShoalStream *stream = &streams->items[source];
    size_t n = stream->dataset ? (size_t)flight->plan.count[rank] : 0;
    Part part = {.c = c,
                 .peer = peer,
                 .flight = flight,
                 .number = number,
                 .rank = rank,
                 .source = source,
                 .dataset = shoal_job_dataset_number(
                     c->job, stream->dataset ? shoal_dataset_name(stream->dataset) : NULL),
                 .numbers = shoal_calloc(n, sizeof *part.numbers),
                 .held = shoal_calloc(n, 1),
                 .keep = shoal_calloc(n, 1)};
    *out = part;
    if (!part.numbers || !part.held || !part.keep)
        return shoal_error_memory(c->err, "a round", n * sizeof *part.numbers);
    return n ? look_up(out) : SHOAL_OK;
}

/* ---- rounds ---- */

static void fill_batch(const Part *part, Shoal__Batch *batch) {
    shoal__batch__init(batch);
    size_t n =
        part->dataset < part->c->job->n_datasets ? (size_t)part->flight->plan.count[part->rank] : 0;
    batch->dataset = (uint32_t)part->dataset;
    batch->numbers = part->numbers;
    batch->n_numbers = n;
    batch->held = (ProtobufCBinaryData){.data = part->held, .len = n};
    batch->keep = (ProtobufCBinaryData){.data = part->keep, .len = n};
    for (size_t i = 0; i < n; i++)
        part->peer->tally.held_records += part->held[i];
}

static void fill_round(const ShoalFlight *flight, uint64_t number, int rank,
                       Shoal__Round *message) {
    const ShoalPlan *plan = &flight->plan;
    shoal__round__init(message);
    message->generation = flight->generation;
    message->number = number;
    message->kind = (Shoal__RoundKind)plan->round.kind;
    message->iteration = (uint32_t)plan->round.iter;
    message->rate = plan->round.rate;
    message->current_step = (uint32_t)plan->round.current_step;
    message->net = (uint32_t)plan->round.net;
    message->first_sample = plan->base[rank];
    message->count = (uint32_t)plan->count[rank];
    message->batch = (uint32_t)plan->round.batch;
    message->clear = plan->round.clear;
    message->update = plan->round.update;
    message->places = plan->places + plan->first[rank];
    message->n_places = (size_t)plan->count[rank];
}

ShoalStatus shoal_coordinator_send_round(ShoalCoordinator *c, ShoalPeer *peer,
                                         const ShoalFlight *flight, uint64_t number, int rank) {
    Shoal__Round message;
    fill_round(flight, number, rank, &message);
    int n = flight->plan.count[rank]
                ? shoal_director_streams(c->director, flight->plan.round.net)->count
                : 0;
    Part *parts = shoal_calloc((size_t)n, sizeof *parts);
    Shoal__Batch *batches = shoal_calloc((size_t)n, sizeof *batches);
    Shoal__Batch **pointers = shoal_calloc((size_t)n, sizeof *pointers);
    ShoalStatus status = parts && batches && pointers
                             ? SHOAL_OK
                             : shoal_error_memory(c->err, "a round", (size_t)n * sizeof *parts);
    for (int s = 0; s < n && !status; s++) {
        status = open_part(c, peer, flight, number, rank, s, &parts[s]);
        if (status)
            break;
        fill_batch(&parts[s], &batches[s]);
        pointers[s] = &batches[s];
    }
    message.n_batches = (size_t)n;
    message.batches = pointers;
    if (!status && shoal_coordinator_queue(peer, SHOAL_MESSAGE_ROUND, &message.base))
        status = shoal_error_memory(c->err, "a round", (size_t)n);
    for (int s = 0; s < n && !status; s++)
        if (batches[s].n_numbers)
            status = send_records(&parts[s], NULL, batches[s].n_numbers);
    for (int s = 0; parts && s < n; s++)
        close_part(&parts[s]);
    shoal_free(parts);
    shoal_free(batches);
    shoal_free(pointers);
    return status;
}

/* The worker cannot read what it should hold: it gets it again, and holds it no more. */
static ShoalStatus send_again(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFlight *flight,
                              int rank, const Shoal__Fetch *message) {
    ShoalStreams *streams = shoal_director_streams(c->director, flight->plan.round.net);
    if (message->batch >= (uint32_t)streams->count || peer->store < 0 ||
        !streams->items[message->batch].dataset)
        return SHOAL_ERR_PROTOCOL;
    for (size_t k = 0; k < message->n_indices; k++)
        if (message->indices[k] >= (uint32_t)flight->plan.count[rank])
            return SHOAL_ERR_PROTOCOL;
    Part part = {0};
    ShoalStatus status =
        open_part(c, peer, flight, message->round, rank, (int)message->batch, &part);
    for (size_t k = 0; k < message->n_indices && !status; k++) {
        uint32_t i = message->indices[k];
        shoal_holdings_forget(c->holdings, peer->store, part.dataset, part.numbers[i]);
        part.held[i] = 0;
    }
    if (!status)
        (void)send_records(&part, message->indices, message->n_indices); /* c->err has it */
    close_part(&part);
    return SHOAL_OK;
}

void shoal_coordinator_take_fetch(ShoalCoordinator *c, ShoalPeer *peer, const ShoalFrame *frame) {
    Shoal__Fetch *message = (Shoal__Fetch *)shoal_message_unpack(&shoal__fetch__descriptor, frame);
    bool stale = message && message->generation < shoal_cluster_generation(c->cluster);
    ShoalFlight *flight = message ? shoal_coordinator_flight(c, message->round) : NULL;
    int rank = flight ? shoal_coordinator_flight_rank(flight, peer->id) : -1;
    bool sound = rank >= 0 && flight->generation == message->generation;
    if (!stale && (!sound || send_again(c, peer, flight, rank, message)))
        shoal_coordinator_lose(c, peer, "asked for samples that are not its own");
    if (message)
        shoal__fetch__free_unpacked(message, NULL);
}
