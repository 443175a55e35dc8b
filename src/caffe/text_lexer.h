/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHOAL_CAFFE_TEXT_LEXER_H
#define SHOAL_CAFFE_TEXT_LEXER_H

#include <stdbool.h>
#include <stddef.h>

#include "shoal/status.h"

/* Words of protobuf's text format. The rules are those of protobuf's own tokenizer: `#` comments,
 * no blank needed around symbols, strings do not cross lines, a number must not touch a name. */

typedef enum ShoalTextKind {
    SHOAL_TEXT_END,
    SHOAL_TEXT_NAME,    /* [A-Za-z_][A-Za-z0-9_]* */
    SHOAL_TEXT_INTEGER, /* 12, 0x1F, 017; the sign is a symbol of its own */
    SHOAL_TEXT_FLOAT,   /* 1.5, .5, 5., 1e-3, 1f */
    SHOAL_TEXT_STRING,  /* with its quotes, escapes not yet resolved */
    SHOAL_TEXT_SYMBOL   /* one byte: { } < > [ ] : ; , - . / */
} ShoalTextKind;

typedef struct ShoalTextToken {
    ShoalTextKind kind;
    const char *start; /* into the text */
    size_t size;
    int line, column; /* 1-based; columns count bytes */
} ShoalTextToken;

typedef struct ShoalTextLexer {
    const char *at, *end; /* what is not read yet */
    const char *line_start;
    int line;
    const char *file; /* for messages */
    ShoalError *err;
    ShoalTextToken token; /* the current word */
} ShoalTextLexer;

/* Starts at the first word of text[0..size). Errors as shoal_text_lexer_next. */
ShoalStatus shoal_text_lexer_init(ShoalTextLexer *lexer, const char *text, size_t size,
                                  const char *file, ShoalError *err);

/* Goes to the next word. SHOAL_ERR_PARSE: a byte that begins no word, a malformed number, a string
 * that does not end. */
ShoalStatus shoal_text_lexer_next(ShoalTextLexer *lexer);

/* Whether the current word is this symbol. */
bool shoal_text_lexer_is(const ShoalTextLexer *lexer, char symbol);

/* Resolves the escapes of the current string and of those that follow it directly, joined, and
 * goes past them. *bytes is malloc storage (the caller frees), with a '\0' after the last byte that
 * is not counted. SHOAL_ERR_PARSE names the bad escape; SHOAL_ERR_MEMORY. */
ShoalStatus shoal_text_lexer_string(ShoalTextLexer *lexer, char **bytes, size_t *size);

/* SHOAL_ERR_PARSE with "FILE:LINE:COLUMN: " of a word in front. */
__attribute__((format(printf, 3, 4))) ShoalStatus
shoal_text_lexer_fail(ShoalTextLexer *lexer, const ShoalTextToken *token, const char *format, ...);

/* "found X, expected WHAT" at the current word. */
ShoalStatus shoal_text_lexer_expected(ShoalTextLexer *lexer, const char *what);

/* A word for a message: quoted, cut to some 40 bytes, control bytes shown as '?'. */
typedef struct ShoalTextQuote {
    char text[64];
} ShoalTextQuote;
ShoalTextQuote shoal_text_quote(const ShoalTextToken *token);

#endif
