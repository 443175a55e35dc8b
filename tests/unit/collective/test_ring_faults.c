/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <unistd.h>

#include "collective/ring_frame.h"
#include "collective/wire.h"
#include "unit/collective/ring_cluster.h"

/* A ring whose frames are damaged on the way, and one that is stopped again and again. */

/* --- a man in the middle --------------------------------------------------------------------- */

typedef enum Damage { NOTHING, FLIP_HEADER, FLIP_PAYLOAD, DROP, REPEAT, SWAP, INSERT, CUT } Damage;

enum { HELLO = 96, REPLY = 68, TAG = 16, MOST = 64 + (128 << 10) + TAG, KEPT = 4 << 20 };

/* Passes on what goes from one rank to another, frame by frame. */
typedef struct Middle {
    ShoalAddress address, behind; /* listens; the rank that it stands before */
    int listen_fd;
    pthread_t thread;
    Damage damage;
    bool backwards; /* what the acceptor says (credits) is damaged */
    unsigned at;    /* which frame */
    unsigned bit;   /* which of its bits, modulo their number */
    bool sealed;
    atomic_bool done; /* the damage */
    atomic_bool quit;
    unsigned char *record; /* all that passed forwards */
    size_t recorded;
} Middle;

/* One direction. */
typedef struct Flow {
    int from, to;
    bool damaged; /* this is the direction */
    bool forwards;
    size_t opening; /* bytes still to come before the first frame */
    unsigned frames;
    unsigned char bytes[2 * MOST];
    size_t have;
    unsigned char kept[MOST]; /* the frame to be swapped with the next */
    size_t kept_size;
} Flow;

static bool send_all(int fd, const unsigned char *bytes, size_t size) {
    while (size > 0) {
        ssize_t n = send(fd, bytes, size, MSG_NOSIGNAL);
        if (n < 0) {
            struct pollfd poller = {.fd = fd, .events = POLLOUT};
            if (poll(&poller, 1, 5000) <= 0 || poller.revents & (POLLERR | POLLHUP))
                return false;
            continue;
        }
        bytes += n;
        size -= (size_t)n;
    }
    return true;
}

/* False: the connection is to end. */
static bool pass_frame(Middle *middle, Flow *flow, unsigned char *frame, size_t size) {
    bool hit = flow->damaged && flow->frames++ == middle->at;
    Damage damage = hit ? middle->damage : NOTHING;
    unsigned payload_bits = 8 * (unsigned)(size - 64);
    if (damage == FLIP_PAYLOAD && payload_bits == 0)
        damage = FLIP_HEADER;
    if (damage != NOTHING)
        middle->done = true;
    switch (damage) {
    case FLIP_HEADER:
        frame[middle->bit / 8 % 64] ^= (unsigned char)(1 << middle->bit % 8);
        break;
    case FLIP_PAYLOAD:
        frame[64 + middle->bit % payload_bits / 8] ^= (unsigned char)(1 << middle->bit % 8);
        break;
    case DROP:
        return true;
    case REPEAT:
        if (!send_all(flow->to, frame, size))
            return false;
        break;
    case SWAP:
        memcpy(flow->kept, frame, size);
        flow->kept_size = size;
        return true;
    case INSERT:
        if (!send_all(flow->to, frame + 1, 1 + middle->bit % 63))
            return false;
        break;
    case CUT:
        send_all(flow->to, frame, middle->bit % size);
        return false;
    default:
        break;
    }
    bool well = send_all(flow->to, frame, size);
    if (well && flow->kept_size > 0)
        well = send_all(flow->to, flow->kept, flow->kept_size);
    flow->kept_size = 0;
    return well;
}

static void record(Middle *middle, const unsigned char *bytes, size_t size) {
    if (!middle->record || middle->recorded + size > KEPT)
        return;
    memcpy(middle->record + middle->recorded, bytes, size);
    middle->recorded += size;
}

/* How much of what is there goes on together; 0: not enough. */
static size_t next_unit(const Middle *middle, const Flow *flow, size_t used) {
    size_t there = flow->have - used;
    if (flow->opening > 0)
        return there < flow->opening ? there : flow->opening;
    if (there < 64)
        return 0;
    size_t frame =
        64 + shoal_wire_get32(flow->bytes + used + 36) + (size_t)(middle->sealed ? TAG : 0);
    return there < frame ? 0 : frame;
}

static bool pass(Middle *middle, Flow *flow) {
    ssize_t n = recv(flow->from, flow->bytes + flow->have, sizeof(flow->bytes) - flow->have, 0);
    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    if (flow->forwards)
        record(middle, flow->bytes + flow->have, (size_t)n);
    flow->have += (size_t)n;
    size_t used = 0;
    for (size_t size; (size = next_unit(middle, flow, used)) > 0; used += size) {
        unsigned char *at = flow->bytes + used;
        if (flow->opening > 0 ? !send_all(flow->to, at, size) : !pass_frame(middle, flow, at, size))
            return false;
        flow->opening -= flow->opening > 0 ? size : 0;
    }
    memmove(flow->bytes, flow->bytes + used, flow->have - used);
    flow->have -= used;
    return true;
}

/* Until somebody closes, or nothing comes any more after the damage. */
static void serve(Middle *middle, int fd) {
    ShoalError err = {0};
    int behind = -1;
    Flow *flows = calloc(2, sizeof(Flow));
    if (!shoal_socket_connect(&middle->behind, -1, shoal_clock_ms() + 5000, &behind, &err)) {
        flows[0].from = flows[1].to = fd;
        flows[0].to = flows[1].from = behind;
        flows[0].forwards = true;
        flows[0].opening = HELLO;
        flows[1].opening = REPLY;
        flows[middle->backwards].damaged = true;
        for (bool well = true; well && !middle->quit;) {
            struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = behind, .events = POLLIN}};
            int n = poll(fds, 2, 300);
            if (n == 0 && middle->done)
                break;
            for (int i = 0; i < 2; i++)
                if (n > 0 && fds[i].revents)
                    well = well && pass(middle, &flows[i]);
        }
        close(behind);
    }
    close(fd);
    free(flows);
}

static void *stand(void *argument) {
    Middle *middle = argument;
    while (!middle->quit) {
        struct pollfd poller = {.fd = middle->listen_fd, .events = POLLIN};
        int fd = -1;
        if (poll(&poller, 1, 20) > 0 && !shoal_socket_accept(middle->listen_fd, &fd, NULL, NULL) &&
            fd >= 0)
            serve(middle, fd);
    }
    return NULL;
}

/* Stands between the rank before `rank` and it. */
static void stand_before(Middle *middle, Cluster *cluster, unsigned rank) {
    ShoalError err = {0};
    assert_int_equal(shoal_address_parse("127.0.0.1:0", &middle->address, &err), 0);
    assert_int_equal(shoal_socket_listen(&middle->address, &middle->listen_fd, &err), 0);
    assert_int_equal(shoal_socket_local(middle->listen_fd, &middle->address, &err), 0);
    middle->behind = cluster->members[rank];
    middle->sealed = cluster->encrypt;
    cluster->members[rank] = middle->address;
    assert_int_equal(pthread_create(&middle->thread, NULL, stand, middle), 0);
}

static void go_away(Middle *middle) {
    middle->quit = true;
    pthread_join(middle->thread, NULL);
    close(middle->listen_fd);
}

/* --- damage ---------------------------------------------------------------------------------- */

enum { SUMS = 3 };

/* Room for SUMS sums of count values. */
static void give_sums(Cluster *cluster, size_t count) {
    give_values(cluster, SUMS * count, 1);
    for (unsigned r = 0; r < cluster->size; r++)
        cluster->ranks[r].count = count;
}

/* Sums at once; each that is said to be done must be right. */
static void *sum_several(void *argument) {
    Rank *rank = argument;
    uint64_t tickets[SUMS];
    unsigned submitted = 0;
    ShoalStatus status = SHOAL_OK;
    memset(&rank->err, 0, sizeof(rank->err));
    for (size_t k = 0; k < SUMS; k++)
        for (size_t i = 0; i < rank->count; i++)
            rank->values[k * rank->count + i] = whole(rank->rank, i + k);
    while (submitted < SUMS && !status) {
        status =
            shoal_collective_submit(collective_of(rank), rank->values + rank->count * submitted,
                                    rank->count, NULL, &tickets[submitted], &rank->err);
        submitted += !status;
    }
    for (unsigned k = 0; k < submitted; k++) {
        ShoalStatus one = shoal_collective_wait(collective_of(rank), tickets[k], &rank->err);
        if (!one && find_wrong_sum(rank->values + rank->count * k, rank->count, rank->cluster->size,
                                   k) < rank->count)
            one = SHOAL_ERR_DATA;
        if (one && status != SHOAL_ERR_DATA)
            status = one;
    }
    rank->status = status;
    return NULL;
}

/* True: somebody noticed. */
static bool check_damage(Damage damage, bool backwards, bool encrypt, unsigned size, size_t count,
                         unsigned at, unsigned bit) {
    Cluster cluster;
    Middle middle = {.damage = damage, .backwards = backwards, .at = at, .bit = bit};
    open_cluster(&cluster, size);
    cluster.encrypt = encrypt;
    ShoalAddress real = cluster.members[1];
    stand_before(&middle, &cluster, 1);
    connect_all(&cluster);
    give_sums(&cluster, count);
    run_all(&cluster, sum_several);
    unsigned failed = 0;
    for (unsigned r = 0; r < size; r++) {
        ShoalStatus status = cluster.ranks[r].status;
        if (status && status != SHOAL_ERR_PROTOCOL && status != SHOAL_ERR_LOST)
            fail_msg("damage %d at frame %u, bit %u: rank %u: %d: %s", damage, at, bit, r, status,
                     cluster.ranks[r].err.text);
        failed += status != 0;
    }
    bool done = middle.done;
    go_away(&middle);
    if (!done)
        assert_int_equal(failed, 0);
    cluster.members[1] = real;
    cluster.generation++;
    connect_all(&cluster);
    check_whole_sums(&cluster, 100);
    close_cluster(&cluster);
    return failed > 0;
}

static void test_middle_itself_changes_nothing(void **state) {
    (void)state;
    for (int encrypt = 0; encrypt < 2; encrypt++) {
        assert_false(check_damage(NOTHING, false, encrypt, 2, 100000, 0, 0));
        assert_false(check_damage(NOTHING, true, encrypt, 3, 10, 0, 0));
    }
}

static void check_all_damage(bool encrypt, uint64_t seed) {
    ShoalRng rng;
    shoal_rng_init(&rng, seed, SHOAL_RNG_TEST, 0);
    for (Damage damage = FLIP_HEADER; damage <= CUT; damage++) {
        for (int i = 0; i < 6; i++) {
            /* Few frames, or many; so early that there are frames behind. */
            size_t count = i % 2 ? 90 : 200000;
            unsigned at = shoal_rng_u32(&rng) % (i % 2 ? 4 : 6);
            bool noticed = check_damage(damage, false, encrypt, 2 + (unsigned)i % 3, count, at,
                                        shoal_rng_u32(&rng) % (1u << 20));
            /* Frames of two operations may come in any order, if nothing is sealed. */
            assert_true(noticed || (damage == SWAP && !encrypt));
        }
    }
}

static void test_damaged_frames(void **state) {
    (void)state;
    check_all_damage(false, 21);
}

static void test_damaged_frames_encrypted(void **state) {
    (void)state;
    check_all_damage(true, 22);
}

/* Every bit of a header counts. */
static void test_every_header_bit(void **state) {
    (void)state;
    for (unsigned bit = 0; bit < 512; bit += 11)
        assert_true(check_damage(FLIP_HEADER, false, false, 2, 90, 1 + bit % 3, bit));
}

/* Credits that are damaged fail the generation, or are not needed any more. */
static void test_damaged_credits(void **state) {
    (void)state;
    for (int encrypt = 0; encrypt < 2; encrypt++) {
        assert_true(check_damage(FLIP_HEADER, true, encrypt, 2, 200000, 0, 77));
        assert_true(check_damage(CUT, true, encrypt, 3, 200000, 0, 33));
        check_damage(DROP, true, encrypt, 2, 200000, 0, 0);
        check_damage(REPEAT, true, encrypt, 2, 200000, 0, 0);
    }
}

/* --- encryption ------------------------------------------------------------------------------ */

static const char MARKER[] = "this text must not be seen!";

static void *relay_marker(void *argument) {
    Rank *rank = argument;
    static _Thread_local char bytes[60000];
    unsigned char needy[2] = {0, 1};
    uint64_t ticket;
    ShoalPiece piece = {bytes, sizeof(bytes)};
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = rank->rank == 0 ? MARKER[i % sizeof(MARKER)] : 0;
    rank->status =
        shoal_collective_relay(collective_of(rank), &piece, 1, needy, &ticket, &rank->err);
    if (!rank->status)
        rank->status = shoal_collective_wait(collective_of(rank), ticket, &rank->err);
    if (!rank->status && memcmp(bytes + sizeof(MARKER), MARKER, sizeof(MARKER)) != 0)
        rank->status = SHOAL_ERR_DATA;
    return NULL;
}

/* Rank 1's values, which go round by way of rank 0's stream, are one float all over. */
static void *sum_marker(void *argument) {
    Rank *rank = argument;
    for (size_t i = 0; i < rank->count; i++)
        memcpy(rank->values + i, MARKER, sizeof(float));
    return reduce_rank(rank);
}

static bool marker_passes(bool encrypt, bool sum) {
    Cluster cluster;
    Middle middle = {.record = malloc(KEPT)};
    open_cluster(&cluster, 2);
    cluster.encrypt = encrypt;
    stand_before(&middle, &cluster, 1);
    connect_all(&cluster);
    give_values(&cluster, 20000, 1);
    run_all(&cluster, sum ? sum_marker : relay_marker);
    check_all_well(&cluster);
    go_away(&middle);
    close_cluster(&cluster);
    assert_true(middle.recorded > 20000 && middle.recorded < KEPT);
    char text[8];
    memcpy(text, MARKER, 4);
    memcpy(text + 4, MARKER, 4); /* two floats; in the relay four letters have to do */
    bool found = memmem(middle.record, middle.recorded, sum ? text : MARKER, 8) != NULL;
    free(middle.record);
    return found;
}

static void test_encryption_hides(void **state) {
    (void)state;
    for (int sum = 0; sum < 2; sum++) {
        assert_true(marker_passes(false, sum));
        assert_false(marker_passes(true, sum));
    }
}

static void test_encryption_must_agree(void **state) {
    (void)state;
    Cluster cluster;
    open_cluster(&cluster, 2);
    start(&cluster, connect_rank, 1);
    ShoalRingConfig config = config_of(&cluster.ranks[0]);
    config.encrypt = true;
    ShoalError err = {0};
    assert_int_equal(
        shoal_ring_connect(cluster.ranks[0].ring, &config, shoal_clock_ms() + 200, &err),
        SHOAL_ERR_NETWORK);
    connect_rank(&cluster.ranks[0]);
    join(&cluster, 1);
    check_all_well(&cluster);
    close_cluster(&cluster);
}

/* --- stopped at any moment ------------------------------------------------------------------- */

typedef struct Storm {
    uint64_t seed;
    unsigned victim; /* leaves by itself instead of being stopped; size: nobody */
} Storm;

/* Connects, then sums until somebody stops it. */
static void *weather(void *argument) {
    Rank *rank = argument;
    const Storm *storm = rank->context;
    connect_rank(rank);
    if (rank->status)
        return NULL;
    for (unsigned calls = 0; !rank->status; calls++) {
        if (rank->rank == storm->victim && calls == storm->seed % 5) {
            shoal_ring_disconnect(rank->ring);
            return NULL;
        }
        sum_several(rank);
    }
    return NULL;
}

static void check_storm(Cluster *cluster, uint64_t seed) {
    ShoalRng rng;
    shoal_rng_init(&rng, seed, SHOAL_RNG_TEST, 0);
    Storm storm = {seed,
                   shoal_rng_u32(&rng) % 3 ? cluster->size : shoal_rng_u32(&rng) % cluster->size};
    for (unsigned r = 0; r < cluster->size; r++)
        cluster->ranks[r].context = &storm;
    start(cluster, weather, 0);
    uint64_t until_ns = shoal_clock_ns() + shoal_rng_u32(&rng) % 4000000;
    while (shoal_clock_ns() < until_ns)
        ;
    unsigned first = shoal_rng_u32(&rng);
    for (unsigned i = 0; i < cluster->size; i++)
        shoal_collective_abort(collective_of(&cluster->ranks[(first + i) % cluster->size]),
                               cluster->generation + 1);
    join(cluster, 0);
    for (unsigned r = 0; r < cluster->size; r++) {
        ShoalStatus status = cluster->ranks[r].status;
        if (status != SHOAL_ERR_STOPPED && status != SHOAL_ERR_LOST && r != storm.victim)
            fail_msg("seed %llu, rank %u: %d: %s", (unsigned long long)seed, r, status,
                     cluster->ranks[r].err.text);
    }
    cluster->generation++;
}

static unsigned open_descriptors(void) {
    unsigned n = 0;
    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void test_stopped_at_any_moment(void **state) {
    (void)state;
    unsigned before = open_descriptors();
    for (unsigned size = 2; size <= 5; size++) {
        Cluster cluster;
        open_cluster(&cluster, size);
        for (uint64_t seed = 0; seed < 100; seed++) {
            cluster.encrypt = seed % 8 == 7;
            cluster.format = seed % 4 == 3 ? SHOAL_WIRE_FP16 : SHOAL_WIRE_FP32;
            /* Whole sums up to 2048 are exact at fp16, too. */
            give_sums(&cluster, seed % 3 ? 30000 : 100);
            check_storm(&cluster, 1000 * size + seed);
        }
        cluster.encrypt = false;
        cluster.format = SHOAL_WIRE_FP32;
        connect_all(&cluster);
        check_whole_sums(&cluster, 1000);
        close_cluster(&cluster);
    }
    assert_int_equal(open_descriptors(), before);
}

static int set_up(void **state) {
    (void)state;
    return shoal_auth_init(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_middle_itself_changes_nothing),
        cmocka_unit_test(test_damaged_frames),
        cmocka_unit_test(test_damaged_frames_encrypted),
        cmocka_unit_test(test_every_header_bit),
        cmocka_unit_test(test_damaged_credits),
        cmocka_unit_test(test_encryption_hides),
        cmocka_unit_test(test_encryption_must_agree),
        cmocka_unit_test(test_stopped_at_any_moment),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
