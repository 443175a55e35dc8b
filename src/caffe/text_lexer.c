/* SPDX-License-Identifier: Apache-2.0 */
#include "caffe/text_lexer.h"

#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* ASCII only, whatever the locale says. */
static bool is_letter(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static int hex_value(char c) {
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static int octal_value(char c) {
    return c >= '0' && c <= '7' ? c - '0' : -1;
}

static bool is_symbol(char c) {
    return c != '\0' && strchr("{}<>[]:;,-./", c) != NULL;
}

ShoalTextQuote shoal_text_quote(const ShoalTextToken *token) {
    ShoalTextQuote quote;
    if (token->kind == SHOAL_TEXT_END) {
        snprintf(quote.text, sizeof quote.text, "the end of the file");
        return quote;
    }
    size_t keep = token->size < 40 ? token->size : 40;
    size_t n = 0;
    const bool quoted = token->kind == SHOAL_TEXT_STRING;
    if (!quoted)
        quote.text[n++] = '"';
    for (size_t i = 0; i < keep; i++) {
        unsigned char c = (unsigned char)token->start[i];
        quote.text[n++] = c < 0x20 || c == 0x7f ? '?' : (char)c;
    }
    if (keep < token->size)
        n += (size_t)snprintf(quote.text + n, sizeof quote.text - n, "...");
    if (!quoted)
        quote.text[n++] = '"';
    quote.text[n] = '\0';
    return quote;
}

__attribute__((format(printf, 4, 0))) static ShoalStatus
fail_at(ShoalTextLexer *lexer, int line, int column, const char *format, va_list list) {
    char text[768];
    vsnprintf(text, sizeof text, format, list);
    return shoal_error_set(lexer->err, SHOAL_ERR_PARSE, "%s:%d:%d: %s", lexer->file, line, column,
                           text);
}

ShoalStatus shoal_text_lexer_fail(ShoalTextLexer *lexer, const ShoalTextToken *token,
                                  const char *format, ...) {
    va_list list;
    va_start(list, format);
    ShoalStatus status = fail_at(lexer, token->line, token->column, format, list);
    va_end(list);
    return status;
}

/* At a byte of the current line. */
__attribute__((format(printf, 3, 4))) static ShoalStatus
fail_byte(ShoalTextLexer *lexer, const char *where, const char *format, ...) {
    va_list list;
    va_start(list, format);
    ShoalStatus status =
        fail_at(lexer, lexer->line, (int)(where - lexer->line_start) + 1, format, list);
    va_end(list);
    return status;
}

ShoalStatus shoal_text_lexer_expected(ShoalTextLexer *lexer, const char *what) {
    ShoalTextQuote found = shoal_text_quote(&lexer->token);
    return shoal_text_lexer_fail(lexer, &lexer->token, "found %s, expected %s", found.text, what);
}

bool shoal_text_lexer_is(const ShoalTextLexer *lexer, char symbol) {
    return lexer->token.kind == SHOAL_TEXT_SYMBOL && lexer->token.start[0] == symbol;
}

/* The byte at p, '\0' behind the end. */
static char peek(const ShoalTextLexer *lexer, const char *p) {
    return p < lexer->end ? *p : '\0';
}

static void skip_blanks(ShoalTextLexer *lexer) {
    while (lexer->at < lexer->end) {
        char c = *lexer->at;
        if (c == '#') {
            const char *newline = memchr(lexer->at, '\n', (size_t)(lexer->end - lexer->at));
            lexer->at = newline ? newline : lexer->end;
        } else if (c == '\n') {
            lexer->line++;
            lexer->line_start = ++lexer->at;
        } else if (c == ' ' || (c >= '\t' && c <= '\r')) {
            lexer->at++;
        } else {
            return;
        }
    }
}

static const char *skip_digits(const ShoalTextLexer *lexer, const char *p) {
    while (is_digit(peek(lexer, p)))
        p++;
    return p;
}

/* 0x1F and 017. */
static ShoalStatus scan_based(ShoalTextLexer *lexer, const char **p) {
    const char *start = *p;
    const bool hex = peek(lexer, start + 1) == 'x' || peek(lexer, start + 1) == 'X';
    const char *q = start + (hex ? 2 : 1);
    const char *digits = q;
    while ((hex ? hex_value(peek(lexer, q)) : octal_value(peek(lexer, q))) >= 0)
        q++;
    if (hex && q == digits)
        return fail_byte(lexer, start, "\"0x\" needs hexadecimal digits behind it");
    if (!hex && is_digit(peek(lexer, q)))
        return fail_byte(lexer, start,
                         "a number that begins with 0 is octal: only digits 0 to 7 can follow");
    *p = q;
    return SHOAL_OK;
}

static ShoalStatus scan_decimal(ShoalTextLexer *lexer, const char **p, ShoalTextKind *kind) {
    const char *q = skip_digits(lexer, *p);
    *kind = SHOAL_TEXT_INTEGER;
    if (peek(lexer, q) == '.') {
        *kind = SHOAL_TEXT_FLOAT;
        q = skip_digits(lexer, q + 1);
    }
    if (peek(lexer, q) == 'e' || peek(lexer, q) == 'E') {
        *kind = SHOAL_TEXT_FLOAT;
        const char *exponent = q++;
        if (peek(lexer, q) == '+' || peek(lexer, q) == '-')
            q++;
        if (!is_digit(peek(lexer, q)))
            return fail_byte(lexer, exponent, "\"e\" needs an exponent behind it, as in 1e-3");
        q = skip_digits(lexer, q);
    }
    if (peek(lexer, q) == 'f' || peek(lexer, q) == 'F') {
        *kind = SHOAL_TEXT_FLOAT;
        q++;
    }
    *p = q;
    return SHOAL_OK;
}

static ShoalStatus scan_number(ShoalTextLexer *lexer) {
    const char *p = lexer->at;
    const char second = peek(lexer, p + 1);
    ShoalTextKind kind = SHOAL_TEXT_INTEGER;
    ShoalStatus status;
    if (*p == '0' && (second == 'x' || second == 'X' || is_digit(second)))
        status = scan_based(lexer, &p);
    else
        status = scan_decimal(lexer, &p, &kind);
    if (status)
        return status;
    if (is_letter(peek(lexer, p)))
        return fail_byte(lexer, p, "a blank is needed between a number and a name");
    if (peek(lexer, p) == '.')
        return fail_byte(lexer, p, "a number with a second or misplaced decimal point");
    lexer->token.kind = kind;
    lexer->at = p;
    return SHOAL_OK;
}

static ShoalStatus scan_string(ShoalTextLexer *lexer) {
    const char quote = *lexer->at;
    const char *p = lexer->at + 1;
    for (; p < lexer->end && *p != quote; p++) {
        if (*p == '\n' || *p == '\0')
            break;
        if (*p == '\\' && p + 1 < lexer->end && p[1] != '\n' && p[1] != '\0')
            p++;
    }
    if (p >= lexer->end || *p != quote)
        return fail_byte(lexer, lexer->at,
                         "a string that does not end on its line; add the "
                         "closing %c",
                         quote);
    lexer->token.kind = SHOAL_TEXT_STRING;
    lexer->at = p + 1;
    return SHOAL_OK;
}

static ShoalStatus fail_stray(ShoalTextLexer *lexer) {
    unsigned char c = (unsigned char)*lexer->at;
    if (c > 0x20 && c < 0x7f)
        return fail_byte(lexer, lexer->at, "found \"%c\", expected a field name or a value", c);
    return fail_byte(lexer, lexer->at,
                     "found the byte 0x%02x, expected text; is this a binary file?", c);
}

ShoalStatus shoal_text_lexer_next(ShoalTextLexer *lexer) {
    skip_blanks(lexer);
    ShoalTextToken *token = &lexer->token;
    token->start = lexer->at;
    token->line = lexer->line;
    token->column = (int)(lexer->at - lexer->line_start) + 1;
    ShoalStatus status = SHOAL_OK;
    char c = peek(lexer, lexer->at);
    if (lexer->at >= lexer->end) {
        token->kind = SHOAL_TEXT_END;
    } else if (is_letter(c)) {
        token->kind = SHOAL_TEXT_NAME;
        while (is_letter(peek(lexer, lexer->at)) || is_digit(peek(lexer, lexer->at)))
            lexer->at++;
    } else if (is_digit(c) || (c == '.' && is_digit(peek(lexer, lexer->at + 1)))) {
        status = scan_number(lexer);
    } else if (c == '"' || c == '\'') {
        status = scan_string(lexer);
    } else if (is_symbol(c)) {
        token->kind = SHOAL_TEXT_SYMBOL;
        lexer->at++;
    } else {
        status = fail_stray(lexer);
    }
    token->size = (size_t)(lexer->at - token->start);
    return status;
}

ShoalStatus shoal_text_lexer_init(ShoalTextLexer *lexer, const char *text, size_t size,
                                  const char *file, ShoalError *err) {
    /* Lines and columns are ints. */
    if (size >= INT_MAX)
        return shoal_error_set(err, SHOAL_ERR_PARSE, "%s: a text of %zu bytes; at most 2 GiB", file,
                               size);
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* a byte order mark */
        text += 3;
        size -= 3;
    }
    *lexer = (ShoalTextLexer){
        .at = text, .end = text + size, .line_start = text, .line = 1, .file = file, .err = err};
    return shoal_text_lexer_next(lexer);
}

/* ---- strings ---- */

typedef struct Bytes {
    char *data; /* malloc, or NULL */
    size_t size, capacity;
} Bytes;

static ShoalStatus bytes_reserve(Bytes *bytes, size_t more, ShoalError *err) {
    /* Cannot wrap: no string is longer than the text, which is below INT_MAX. */
    size_t need = bytes->size + more + 1;
    if (need <= bytes->capacity)
        return SHOAL_OK;
    size_t capacity = need > 2 * bytes->capacity ? need : 2 * bytes->capacity;
    char *data = realloc(bytes->data, capacity);
    if (!data)
        return shoal_error_memory(err, "a string", capacity);
    bytes->data = data;
    bytes->capacity = capacity;
    return SHOAL_OK;
}

static void put_utf8(Bytes *bytes, uint32_t code) {
    char *out = bytes->data + bytes->size;
    if (code < 0x80) {
        out[0] = (char)code;
        bytes->size += 1;
    } else if (code < 0x800) {
        out[0] = (char)(0xc0 | code >> 6);
        out[1] = (char)(0x80 | (code & 0x3f));
        bytes->size += 2;
    } else if (code < 0x10000) {
        out[0] = (char)(0xe0 | code >> 12);
        out[1] = (char)(0x80 | (code >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code & 0x3f));
        bytes->size += 3;
    } else {
        out[0] = (char)(0xf0 | code >> 18);
        out[1] = (char)(0x80 | (code >> 12 & 0x3f));
        out[2] = (char)(0x80 | (code >> 6 & 0x3f));
        out[3] = (char)(0x80 | (code & 0x3f));
        bytes->size += 4;
    }
}

/* Up to `most` digits of a base at *p; how many there were. */
static int read_digits(const char **p, const char *end, int most, int base, uint32_t *value) {
    int n = 0;
    *value = 0;
    for (; n < most && *p < end; n++, (*p)++) {
        int digit = hex_value(**p);
        if (digit < 0 || digit >= base)
            break;
        *value = *value * (uint32_t)base + (uint32_t)digit;
    }
    return n;
}

/* \uHHHH (a pair of them for a surrogate pair) and \UHHHHHHHH; *p is behind the letter. */
static bool read_unicode(const char **p, const char *end, char letter, uint32_t *code) {
    const int digits = letter == 'u' ? 4 : 8;
    if (read_digits(p, end, digits, 16, code) != digits)
        return false;
    if (letter == 'u' && *code >= 0xd800 && *code < 0xdc00 && end - *p >= 6 && (*p)[0] == '\\' &&
        (*p)[1] == 'u') {
        const char *second = *p + 2;
        uint32_t low;
        if (read_digits(&second, end, 4, 16, &low) == 4 && low >= 0xdc00 && low < 0xe000) {
            *code = 0x10000 + ((*code - 0xd800) << 10) + (low - 0xdc00);
            *p = second;
        }
    }
    return *code <= 0x10ffff && !(*code >= 0xd800 && *code < 0xe000);
}

static bool read_simple_escape(char letter, char *out) {
    static const char letters[] = "abfnrtv\\?'\"", values[] = "\a\b\f\n\r\t\v\\?'\"";
    const char *at = letter ? strchr(letters, letter) : NULL;
    if (at)
        *out = values[at - letters];
    return at != NULL;
}

/* One escape at *p (its backslash); room for 4 bytes is reserved. */
static bool read_escape(Bytes *bytes, const char **p, const char *end) {
    const char *q = *p + 1;
    const char letter = q < end ? *q : '\0';
    uint32_t code;
    char simple;
    if (read_simple_escape(letter, &simple)) {
        bytes->data[bytes->size++] = simple;
        q++;
    } else if (octal_value(letter) >= 0) {
        read_digits(&q, end, 3, 8, &code);
        if (code > 0xff)
            return false;
        bytes->data[bytes->size++] = (char)code;
    } else if (letter == 'x' || letter == 'X') {
        q++;
        if (read_digits(&q, end, 2, 16, &code) == 0)
            return false;
        bytes->data[bytes->size++] = (char)code;
    } else if (letter == 'u' || letter == 'U') {
        q++;
        if (!read_unicode(&q, end, letter, &code))
            return false;
        put_utf8(bytes, code);
    } else {
        return false;
    }
    *p = q;
    return true;
}

static ShoalStatus append_token(ShoalTextLexer *lexer, Bytes *bytes) {
    const ShoalTextToken *token = &lexer->token;
    const char *p = token->start + 1, *end = token->start + token->size - 1;
    /* What an escape yields is never longer than the escape, but \u may want 4 bytes at once. */
    ShoalStatus status = bytes_reserve(bytes, token->size + 4, lexer->err);
    while (!status && p < end) {
        if (*p != '\\') {
            bytes->data[bytes->size++] = *p++;
        } else if (!read_escape(bytes, &p, end)) {
            ShoalTextToken bad = *token;
            bad.column += (int)(p - token->start);
            status = shoal_text_lexer_fail(
                lexer, &bad, "an escape that means nothing; write a backslash as \\\\");
        }
    }
    return status;
}

ShoalStatus shoal_text_lexer_string(ShoalTextLexer *lexer, char **bytes, size_t *size) {
    Bytes joined = {0};
    ShoalStatus status = SHOAL_OK;
    if (lexer->token.kind != SHOAL_TEXT_STRING)
        return shoal_text_lexer_expected(lexer, "a string in quotes");
    while (!status && lexer->token.kind == SHOAL_TEXT_STRING) {
        status = append_token(lexer, &joined);
        if (!status)
            status = shoal_text_lexer_next(lexer);
    }
    if (status) {
        free(joined.data);
        return status;
    }
    joined.data[joined.size] = '\0';
    *bytes = joined.data;
    *size = joined.size;
    return SHOAL_OK;
}
