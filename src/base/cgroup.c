/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cgroup.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 4096 };

/* Names of the files of a version. */
typedef struct Version {
    const char *folder; /* below the root */
    const char *limit, *used, *droppable;
} Version;

static const Version VERSIONS[] = {
    {"/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"},
    {"", "memory.max", "memory.current", "inactive_file"},
};

typedef struct Search {
    const char *root;
    unsigned long long limit, left; /* ULLONG_MAX: none yet */
} Search;

static FILE *open_in(const Search *search, const Version *version, const char *group,
                     const char *name) {
    char path[PATH_BYTES + 64];
    int n = snprintf(path, sizeof path, "%s%s%s/%s", search->root, version->folder, group, name);
    return n < (int)sizeof path ? fopen(path, "re") : NULL;
}

/* False when there is no such file or it holds no number ("max"). */
static bool read_number(FILE *file, unsigned long long *number) {
    if (!file)
        return false;
    bool found = fscanf(file, "%llu", number) == 1;
    fclose(file);
    return found;
}

static unsigned long long droppable(FILE *stat, const char *name) {
    char line[256], key[64];
    unsigned long long value, found = 0;
    while (stat && fgets(line, sizeof line, stat))
        if (sscanf(line, "%63s %llu", key, &value) == 2 && !strcmp(key, name))
            found = value;
    if (stat)
        fclose(stat);
    return found;
}

static void look_at(Search *search, const Version *version, const char *group) {
    unsigned long long limit, used;
    /* Version 1 says "none" with a number next to 2^63. */
    if (!read_number(open_in(search, version, group, version->limit), &limit) ||
        limit > LLONG_MAX / 2 ||
        !read_number(open_in(search, version, group, version->used), &used))
        return;
    unsigned long long drop =
        droppable(open_in(search, version, group, "memory.stat"), version->droppable);
    used -= drop < used ? drop : used;
    unsigned long long left = used < limit ? limit - used : 0;
    search->limit = limit < search->limit ? limit : search->limit;
    search->left = left < search->left ? left : search->left;
}

/* A group and all above it: each has its limit. Inside of a container the path may be one that only
 * the outside knows; then the root still tells. */
static void look_upward(Search *search, const Version *version, char *group) {
    for (;;) {
        if (!strcmp(group, "/"))
            group[0] = '\0';
        look_at(search, version, group);
        char *slash = strrchr(group, '/');
        if (!slash)
            return;
        *slash = '\0';
    }
}

/* A line is "NUMBER:CONTROLLERS:PATH"; version 2 has number 0 and no controllers. */
static void look_at_line(Search *search, char *line) {
    line[strcspn(line, "\n")] = '\0';
    char *controllers = strchr(line, ':');
    char *path = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!path)
        return;
    *path++ = '\0';
    if (!strcmp(line, "0:"))
        look_upward(search, &VERSIONS[1], path);
    else if (strstr(controllers + 1, "memory"))
        look_upward(search, &VERSIONS[0], path);
}

bool shoal_cgroup_memory(const char *membership, const char *root, unsigned long long *limit,
                         unsigned long long *left) {
    Search search = {root, ULLONG_MAX, ULLONG_MAX};
    FILE *file = fopen(membership, "re");
    if (!file)
        return false;
    char line[PATH_BYTES];
    while (fgets(line, sizeof line, file))
        look_at_line(&search, line);
    fclose(file);
    if (search.limit == ULLONG_MAX)
        return false;
    *limit = search.limit;
    *left = search.left;
    return true;
}
