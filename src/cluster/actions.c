/* SPDX-License-Identifier: Apache-2.0 */
#include "cluster/state.h"

#include <string.h>

#include "base/memory.h"

static ShoalClusterAction *action_at(ShoalCluster *cluster, size_t i) {
    return &cluster->queue[(cluster->head + i) % cluster->queue_capacity];
}

static bool is_plan(ShoalClusterActionKind kind) {
    return kind == SHOAL_CLUSTER_FORM || kind == SHOAL_CLUSTER_START || kind == SHOAL_CLUSTER_ISSUE;
}

bool shoal_cluster_forget_plans(ShoalCluster *cluster) {
    size_t kept = 0;
    bool start = false;
    for (size_t i = 0; i < cluster->count; i++) {
        ShoalClusterAction *from = action_at(cluster, i);
        start |= from->kind == SHOAL_CLUSTER_START;
        if (is_plan(from->kind))
            continue;
        ShoalClusterAction *to = action_at(cluster, kept++);
        if (to != from)
            *to = *from;
    }
    cluster->count = kept;
    return start;
}

static void set_last(ShoalCluster *cluster, ShoalClusterActionKind kind, ShoalStatus status,
                     const char *text) {
    cluster->has_last = true;
    memset(&cluster->last, 0, sizeof(cluster->last));
    cluster->last.kind = kind;
    cluster->last.generation = cluster->generation;
    cluster->last.status = status;
    shoal_cluster_copy_text(cluster->last.text, sizeof(cluster->last.text), text);
}

void shoal_cluster_fail(ShoalCluster *cluster, ShoalStatus status, const char *text) {
    if (shoal_cluster_is_over(cluster))
        return;
    shoal_cluster_forget_plans(cluster);
    cluster->phase = SHOAL_CLUSTER_FAILED;
    set_last(cluster, SHOAL_CLUSTER_FAIL, status, text);
}

void shoal_cluster_end(ShoalCluster *cluster) {
    cluster->phase = SHOAL_CLUSTER_DONE;
    set_last(cluster, SHOAL_CLUSTER_FINISHED, SHOAL_OK, "");
}

static bool grow(ShoalCluster *cluster) {
    if (cluster->count == cluster->queue_limit) {
        shoal_cluster_fail(cluster, SHOAL_ERR_ARGUMENT,
                           "the actions of the cluster were not read after each input (an error in "
                           "Shoal: please report it)");
        return false;
    }
    size_t capacity = cluster->queue_capacity * 2;
    if (capacity > cluster->queue_limit)
        capacity = cluster->queue_limit;
    ShoalClusterAction *queue = shoal_calloc(capacity, sizeof(*queue));
    if (!queue) {
        shoal_cluster_fail(cluster, SHOAL_ERR_MEMORY,
                           "out of memory for what the cluster has to do next");
        return false;
    }
    for (size_t i = 0; i < cluster->count; i++)
        queue[i] = *action_at(cluster, i);
    shoal_free(cluster->queue);
    cluster->queue = queue;
    cluster->queue_capacity = capacity;
    cluster->head = 0;
    return true;
}

ShoalClusterAction *shoal_cluster_push(ShoalCluster *cluster, ShoalClusterActionKind kind) {
    if (cluster->count == cluster->queue_capacity && !grow(cluster))
        return NULL;
    ShoalClusterAction *action = action_at(cluster, cluster->count++);
    memset(action, 0, sizeof(*action));
    action->kind = kind;
    action->generation = cluster->generation;
    return action;
}

void shoal_cluster_push_text(ShoalCluster *cluster, ShoalClusterActionKind kind, const char *text) {
    ShoalClusterAction *action = shoal_cluster_push(cluster, kind);
    if (action)
        shoal_cluster_copy_text(action->text, sizeof(action->text), text);
}

void shoal_cluster_push_drop(ShoalCluster *cluster, uint64_t connection, ShoalStatus status,
                             bool for_good, bool forget, const char *text) {
    ShoalClusterAction *action = shoal_cluster_push(cluster, SHOAL_CLUSTER_DROP);
    if (!action)
        return;
    action->connection = connection;
    action->status = status;
    action->for_good = for_good;
    action->forget = forget;
    shoal_cluster_copy_text(action->text, sizeof(action->text), text);
}

bool shoal_cluster_next_action(ShoalCluster *cluster, ShoalClusterAction *action) {
    if (cluster->count > 0) {
        *action = *action_at(cluster, 0);
        cluster->head = (cluster->head + 1) % cluster->queue_capacity;
        cluster->count--;
        return true;
    }
    if (!cluster->has_last)
        return false;
    *action = cluster->last;
    cluster->has_last = false;
    return true;
}

bool shoal_cluster_has_action(const ShoalCluster *cluster) {
    return cluster->count > 0 || cluster->has_last;
}
