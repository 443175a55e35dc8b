/* SPDX-License-Identifier: Apache-2.0 */
#include "discovery/mdns.h"

#include <string.h>

enum { NAME_BYTES = 255, LABEL_BYTES = 63, PLACES = 16 };

/* Types and classes (RFC 1035, RFC 2782). */
enum { TYPE_A = 1, TYPE_PTR = 12, TYPE_TXT = 16, TYPE_SRV = 33, TYPE_ANY = 255 };
enum { CLASS_IN = 1, CLASS_ANY = 255, CLASS_TOP = 0x8000 }; /* CLASS_TOP: RFC 6762, section 18.12 */
enum { FLAG_RESPONSE = 0x8000, FLAG_AUTHORITY = 0x0400, FLAGS_OPCODE = 0x7800, FLAGS_ERROR = 0xf };

/* Names of a service. */
enum { NAME_SERVICE, NAME_TYPES, NAME_INSTANCE, NAME_HOST, NAMES };

/* Records of a service, in the order in which they are written. */
enum { WANT_TYPES = 1, WANT_PTR = 2, WANT_SRV = 4, WANT_TXT = 8, WANT_A = 16, WANTS = 32 };

/* A name as it is on the wire without compression: labels with their lengths, then 0. */
typedef struct Name {
    unsigned char bytes[NAME_BYTES];
    size_t size;
} Name;

static unsigned char lower(unsigned char c) {
    return c >= 'A' && c <= 'Z' ? (unsigned char)(c + 'a' - 'A') : c;
}

/* Lengths are below 64, so they are no letters. */
static bool is_same(const unsigned char *a, const unsigned char *b, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (lower(a[i]) != lower(b[i]))
            return false;
    return true;
}

static bool is_name(const Name *a, const Name *b) {
    return a->size == b->size && is_same(a->bytes, b->bytes, a->size);
}

static bool ends_with(const Name *name, const Name *end) {
    return name->size > end->size &&
           is_same(name->bytes + name->size - end->size, end->bytes, end->size);
}

/* ---- names of a service ---- */

static void add_label(Name *name, const char *label) {
    size_t length = strnlen(label, LABEL_BYTES);
    name->bytes[name->size++] = (unsigned char)length;
    memcpy(name->bytes + name->size, label, length);
    name->size += length;
}

static Name make_name(const char *const *labels, int n) {
    Name name = {.size = 0};
    for (int i = 0; i < n; i++)
        add_label(&name, labels[i]);
    name.bytes[name.size++] = 0;
    return name;
}

static Name name_of(const ShoalMdnsService *service, int which) {
    switch (which) {
    case NAME_TYPES: /* RFC 6763, section 9 */
        return make_name((const char *[]){"_services", "_dns-sd", "_udp", "local"}, 4);
    case NAME_INSTANCE:
        return make_name((const char *[]){service->instance, "_shoal", "_tcp", "local"}, 4);
    case NAME_HOST:
        return make_name((const char *[]){service->host, "local"}, 2);
    default:
        return make_name((const char *[]){"_shoal", "_tcp", "local"}, 3);
    }
}

/* ---- reading ---- */

/* Once something was out of bounds, all that is read is 0, and `bad` stays. */
typedef struct Reader {
    const unsigned char *packet;
    size_t size, at;
    bool bad;
} Reader;

static unsigned read_u16(Reader *reader) {
    if (reader->bad || reader->size - reader->at < 2) {
        reader->bad = true;
        return 0;
    }
    const unsigned char *p = reader->packet + reader->at;
    reader->at += 2;
    return (unsigned)p[0] << 8 | p[1];
}

static unsigned long read_u32(Reader *reader) {
    unsigned long high = read_u16(reader);
    return high << 16 | read_u16(reader);
}

static void skip(Reader *reader, size_t bytes) {
    if (reader->bad || reader->size - reader->at < bytes)
        reader->bad = true;
    else
        reader->at += bytes;
}

/* A pointer of a compressed name leads to before the labels it was read with, so it leads nowhere
 * twice. */
static void read_name(Reader *reader, Name *name) {
    size_t at = reader->at, begin = at;
    bool jumped = false;
    name->size = 0;
    while (!reader->bad) {
        if (at >= reader->size)
            break;
        size_t length = reader->packet[at++];
        if (length >= 0xc0 && at < reader->size) {
            size_t target = (length & 0x3f) << 8 | reader->packet[at++];
            if (!jumped)
                reader->at = at;
            jumped = true;
            if (target >= begin)
                break;
            at = begin = target;
            continue;
        }
        if (length > LABEL_BYTES || length > reader->size - at ||
            name->size + length + 1 > NAME_BYTES)
            break;
        name->bytes[name->size++] = (unsigned char)length;
        memcpy(name->bytes + name->size, reader->packet + at, length);
        name->size += length;
        at += length;
        if (length == 0) {
            if (!jumped)
                reader->at = at;
            return;
        }
    }
    reader->bad = true;
    name->size = 0;
}

typedef struct Header {
    unsigned id, flags, questions, records;
} Header;

static bool read_header(Reader *reader, Header *header) {
    header->id = read_u16(reader);
    header->flags = read_u16(reader);
    header->questions = read_u16(reader);
    header->records = 0;
    for (int section = 0; section < 3; section++)
        header->records += read_u16(reader);
    return !reader->bad && reader->size <= SHOAL_MDNS_MOST && !(header->flags & FLAGS_OPCODE);
}

typedef struct Record {
    Name name;
    unsigned type;
    bool internet;
    unsigned long ttl;
    size_t end;
} Record;

/* Leaves the reader at the record's data, which is whole. */
static bool read_record(Reader *reader, Record *record) {
    read_name(reader, &record->name);
    record->type = read_u16(reader);
    record->internet = (read_u16(reader) & ~(unsigned)CLASS_TOP) == CLASS_IN;
    record->ttl = read_u32(reader);
    size_t length = read_u16(reader);
    Reader rest = *reader;
    skip(&rest, length);
    reader->bad = rest.bad;
    record->end = rest.at;
    return !reader->bad;
}

/* Which records a question is for; 0: it is not for this service. */
static unsigned wanted_by(int name, unsigned type) {
    static const struct {
        int name;
        unsigned type, wants;
    } answers[] = {{NAME_TYPES, TYPE_PTR, WANT_TYPES},
                   {NAME_SERVICE, TYPE_PTR, WANT_PTR},
                   {NAME_INSTANCE, TYPE_SRV, WANT_SRV},
                   {NAME_INSTANCE, TYPE_TXT, WANT_TXT},
                   {NAME_HOST, TYPE_A, WANT_A}};
    unsigned wants = 0;
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++)
        if (answers[i].name == name && (type == answers[i].type || type == TYPE_ANY))
            wants |= answers[i].wants;
    return wants;
}

static void read_question(Reader *reader, const ShoalMdnsService *service, ShoalMdnsQuery *query) {
    Name asked;
    read_name(reader, &asked);
    unsigned type = read_u16(reader), class = read_u16(reader);
    unsigned kind = class & ~(unsigned)CLASS_TOP;
    if (reader->bad || (kind != CLASS_IN && kind != CLASS_ANY))
        return;
    for (int name = 0; name < NAMES; name++) {
        Name own = name_of(service, name);
        unsigned wants = wanted_by(name, type);
        if (!wants || !is_name(&asked, &own) || query->n_questions == SHOAL_MDNS_QUESTIONS)
            continue;
        query->wanted |= wants;
        query->unicast = query->unicast && (class & CLASS_TOP);
        query->questions[query->n_questions++] =
            (ShoalMdnsQuestion){.name = name, .type = (uint16_t)type};
    }
}

/* The asker knows our instance, and will for at least half of its time. */
static void drop_known(Reader *reader, const Header *header, const ShoalMdnsService *service,
                       ShoalMdnsQuery *query) {
    Name type = name_of(service, NAME_SERVICE), own = name_of(service, NAME_INSTANCE), known;
    Record record;
    for (unsigned i = 0; i < header->records && i < SHOAL_MDNS_RECORDS; i++) {
        if (!read_record(reader, &record))
            return;
        if (record.type == TYPE_PTR && record.internet && is_name(&record.name, &type) &&
            record.ttl >= SHOAL_MDNS_TTL / 2) {
            read_name(reader, &known);
            if (!reader->bad && is_name(&known, &own))
                query->wanted &= ~(unsigned)WANT_PTR;
        }
        reader->at = record.end;
    }
}

bool shoal_mdns_read_query(const unsigned char *packet, size_t size,
                           const ShoalMdnsService *service, ShoalMdnsQuery *query) {
    Reader reader = {.packet = packet, .size = size};
    Header header;
    memset(query, 0, sizeof *query);
    query->unicast = true;
    if (!read_header(&reader, &header) || header.flags & FLAG_RESPONSE)
        return false;
    query->id = (uint16_t)header.id;
    if (header.questions > SHOAL_MDNS_RECORDS)
        return false;
    for (unsigned i = 0; i < header.questions; i++)
        read_question(&reader, service, query);
    if (reader.bad)
        return false;
    drop_known(&reader, &header, service, query);
    return query->wanted != 0;
}

/* ---- writing ---- */

typedef struct Writer {
    unsigned char *packet;
    size_t at;
    size_t places[PLACES]; /* where names, or ends of names, have been written */
    int n_places;
} Writer;

/* The longest packet: four questions and five records with names of two labels of 63 bytes, each
 * at most once without compression, is far below SHOAL_MDNS_PACKET; the test has them all. */
static void put_bytes(Writer *writer, const void *bytes, size_t size) {
    if (writer->at + size <= SHOAL_MDNS_PACKET)
        memcpy(writer->packet + writer->at, bytes, size);
    writer->at += size;
}

static void put_u16(Writer *writer, unsigned value) {
    put_bytes(writer, (unsigned char[]){(unsigned char)(value >> 8), (unsigned char)value}, 2);
}

static void put_u32(Writer *writer, unsigned value) {
    put_u16(writer, value >> 16);
    put_u16(writer, value & 0xffff);
}

/* Where the packet holds this end of a name already; 0: nowhere. */
static size_t place_of(const Writer *writer, const unsigned char *end, size_t size) {
    for (int i = 0; i < writer->n_places; i++) {
        Reader reader = {.packet = writer->packet, .size = writer->at, .at = writer->places[i]};
        Name written;
        read_name(&reader, &written);
        if (!reader.bad && written.size == size && !memcmp(written.bytes, end, size))
            return writer->places[i];
    }
    return 0;
}

static void put_name(Writer *writer, const Name *name, bool compress) {
    size_t at = 0;
    while (name->bytes[at]) {
        size_t place = compress ? place_of(writer, name->bytes + at, name->size - at) : 0;
        if (place) {
            put_u16(writer, 0xc000 | (unsigned)place);
            return;
        }
        if (compress && writer->n_places < PLACES)
            writer->places[writer->n_places++] = writer->at;
        put_bytes(writer, name->bytes + at, (size_t)name->bytes[at] + 1);
        at += (size_t)name->bytes[at] + 1;
    }
    put_bytes(writer, "", 1);
}

static void put_header(Writer *writer, unsigned id, unsigned flags, int questions, int answers,
                       int additional) {
    put_u16(writer, id);
    put_u16(writer, flags);
    put_u16(writer, (unsigned)questions);
    put_u16(writer, (unsigned)answers);
    put_u16(writer, 0);
    put_u16(writer, (unsigned)additional);
}

/* What goes into an answer. */
typedef struct Answer {
    const ShoalMdnsService *service;
    const unsigned char *address;
    unsigned ttl;
    bool legacy;
} Answer;

static void put_data(Writer *writer, const Answer *answer, unsigned want) {
    static const char text[] = "\x09txtvers=1"; /* RFC 6763, section 6.7 */
    Name name;
    switch (want) {
    case WANT_TYPES:
        name = name_of(answer->service, NAME_SERVICE);
        put_name(writer, &name, true);
        break;
    case WANT_PTR:
        name = name_of(answer->service, NAME_INSTANCE);
        put_name(writer, &name, true);
        break;
    case WANT_SRV: /* priority, weight, port, host */
        put_u32(writer, 0);
        put_u16(writer, answer->service->port);
        name = name_of(answer->service, NAME_HOST);
        put_name(writer, &name, !answer->legacy); /* RFC 6762, section 18.14 */
        break;
    case WANT_TXT:
        put_bytes(writer, text, sizeof text - 1);
        break;
    default:
        put_bytes(writer, answer->address, 4);
    }
}

static void put_record(Writer *writer, const Answer *answer, unsigned want) {
    int which = want == WANT_TYPES ? NAME_TYPES
                : want == WANT_PTR ? NAME_SERVICE
                : want == WANT_A   ? NAME_HOST
                                   : NAME_INSTANCE;
    unsigned type = want == WANT_SRV   ? TYPE_SRV
                    : want == WANT_TXT ? TYPE_TXT
                    : want == WANT_A   ? TYPE_A
                                       : TYPE_PTR;
    Name name = name_of(answer->service, which);
    put_name(writer, &name, true);
    put_u16(writer, type);
    /* Nobody else has these names: caches may forget what they knew of them (section 10.2). */
    put_u16(writer, CLASS_IN | (type != TYPE_PTR && !answer->legacy ? CLASS_TOP : 0));
    put_u32(writer, answer->ttl);
    size_t length_at = writer->at;
    put_u16(writer, 0);
    put_data(writer, answer, want);
    Writer back = *writer;
    back.at = length_at;
    put_u16(&back, (unsigned)(writer->at - length_at - 2));
}

static int count(unsigned wants) {
    int n = 0;
    for (; wants; wants &= wants - 1)
        n++;
    return n;
}

static void put_records(Writer *writer, const Answer *answer, unsigned wants) {
    for (unsigned want = 1; want < WANTS; want <<= 1)
        if (wants & want)
            put_record(writer, answer, want);
}

static size_t write_answer(const ShoalMdnsQuery *query, const Answer *answer,
                           unsigned char *packet) {
    Writer writer = {.packet = packet};
    unsigned more = query->wanted & WANT_PTR   ? WANT_SRV | WANT_TXT | WANT_A
                    : query->wanted & WANT_SRV ? WANT_A
                                               : 0; /* RFC 6763, section 12 */
    more &= ~query->wanted;
    int questions = answer->legacy ? query->n_questions : 0;
    put_header(&writer, answer->legacy ? query->id : 0, FLAG_RESPONSE | FLAG_AUTHORITY, questions,
               count(query->wanted), count(more));
    for (int i = 0; i < questions; i++) {
        Name name = name_of(answer->service, query->questions[i].name);
        put_name(&writer, &name, true);
        put_u16(&writer, query->questions[i].type);
        put_u16(&writer, CLASS_IN);
    }
    put_records(&writer, answer, query->wanted);
    put_records(&writer, answer, more);
    return writer.at <= SHOAL_MDNS_PACKET ? writer.at : 0;
}

size_t shoal_mdns_write_answer(const ShoalMdnsQuery *query, const ShoalMdnsService *service,
                               const unsigned char address[4], bool legacy, unsigned char *packet) {
    const Answer answer = {.service = service,
                           .address = address,
                           .ttl = legacy ? SHOAL_MDNS_TTL_LEGACY : SHOAL_MDNS_TTL,
                           .legacy = legacy};
    return write_answer(query, &answer, packet);
}

size_t shoal_mdns_write_announcement(const ShoalMdnsService *service,
                                     const unsigned char address[4], unsigned ttl,
                                     unsigned char *packet) {
    const ShoalMdnsQuery all = {.wanted = WANT_PTR | WANT_SRV | WANT_TXT | WANT_A};
    const Answer answer = {.service = service, .address = address, .ttl = ttl};
    return write_answer(&all, &answer, packet);
}

size_t shoal_mdns_write_query(uint16_t id, unsigned char *packet) {
    Writer writer = {.packet = packet};
    Name name = name_of(NULL, NAME_SERVICE);
    put_header(&writer, id, 0, 1, 0, 0);
    put_name(&writer, &name, true);
    put_u16(&writer, TYPE_PTR);
    put_u16(&writer, CLASS_IN);
    return writer.at;
}

/* ---- what was found ---- */

typedef void OnRecord(void *context, Reader *reader, const Record *record);

/* Every record of a packet whose header has been read. */
static void each_record(Reader reader, const Header *header, OnRecord *on_record, void *context) {
    Record record;
    Name name;
    for (unsigned i = 0; i < header->questions; i++) {
        read_name(&reader, &name);
        skip(&reader, 4);
    }
    for (unsigned i = 0; i < header->records && i < SHOAL_MDNS_RECORDS; i++) {
        if (!read_record(&reader, &record))
            return;
        Reader data = reader;
        data.size = record.end; /* names may point back, but not further on */
        if (record.internet && record.ttl)
            on_record(context, &data, &record);
        reader.at = record.end;
    }
}

typedef struct Finds {
    ShoalMdnsFound *found;
    Name *hosts;
    int n, max;
} Finds;

static void take_srv(void *context, Reader *reader, const Record *record) {
    Finds *finds = context;
    Name service = name_of(NULL, NAME_SERVICE);
    if (record->type != TYPE_SRV || !ends_with(&record->name, &service) || finds->n == finds->max)
        return;
    skip(reader, 4);
    unsigned port = read_u16(reader);
    read_name(reader, &finds->hosts[finds->n]);
    if (!reader->bad && port)
        finds->found[finds->n++] = (ShoalMdnsFound){.port = (uint16_t)port};
}

static bool is_of_one_host(const unsigned char *address) {
    return address[0] > 0 && address[0] < 224;
}

static void take_a(void *context, Reader *reader, const Record *record) {
    Finds *finds = context;
    const unsigned char *address = reader->packet + reader->at;
    if (record->type != TYPE_A || record->end - reader->at != 4 || !is_of_one_host(address))
        return;
    for (int i = 0; i < finds->n; i++) {
        if (finds->found[i].has_address || !is_name(&record->name, &finds->hosts[i]))
            continue;
        finds->found[i].has_address = true;
        memcpy(finds->found[i].address, address, 4);
    }
}

int shoal_mdns_read_answer(const unsigned char *packet, size_t size, uint16_t id,
                           ShoalMdnsFound *found, int max) {
    Reader reader = {.packet = packet, .size = size};
    Header header;
    Name hosts[8];
    Finds finds = {.found = found, .hosts = hosts, .max = max < 8 ? max : 8};
    if (!read_header(&reader, &header) || !(header.flags & FLAG_RESPONSE) ||
        header.flags & FLAGS_ERROR || header.id != id || header.questions > SHOAL_MDNS_RECORDS)
        return 0;
    each_record(reader, &header, take_srv, &finds);
    each_record(reader, &header, take_a, &finds);
    return finds.n;
}
