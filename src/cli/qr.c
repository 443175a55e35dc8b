/* SPDX-License-Identifier: Apache-2.0 */
#include <qrencode.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/cli.h"

enum { QUIET = 4 }; /* light modules around the code, as ISO/IEC 18004 wants it */

static bool is_dark(const QRcode *code, int row, int column) {
    bool inside = row >= 0 && row < code->width && column >= 0 && column < code->width;
    return inside && code->data[row * code->width + column] & 1;
}

static bool fits_terminal(int columns) {
    struct winsize window;
    return isatty(STDOUT_FILENO) && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) &&
           window.ws_col >= columns;
}

/* A character is two modules, one above the other. With colour it is black on white whatever the
 * terminal's own colours are; without, the light modules are those in the text's colour, since most
 * terminals are dark. */
static void print_code(const QRcode *code, bool colour) {
    static const char *const blocks[] = {" ", "\u2580", "\u2584", "\u2588"}; /* upper 1, lower 2 */
    for (int row = -QUIET; row < code->width + QUIET; row += 2) {
        fputs(colour ? "\033[30;107m" : "", stdout);
        for (int column = -QUIET; column < code->width + QUIET; column++) {
            int dark = is_dark(code, row, column) | is_dark(code, row + 1, column) << 1;
            fputs(blocks[colour ? dark : 3 ^ dark], stdout);
        }
        fputs(colour ? "\033[0m\n" : "\n", stdout);
    }
}

bool shoal_qr_print(const char *text, bool colour) {
    QRcode *code = QRcode_encodeString8bit(text, 0, QR_ECLEVEL_L);
    bool fits = code && fits_terminal(code->width + 2 * QUIET);
    if (fits)
        print_code(code, colour);
    QRcode_free(code);
    return fits;
}
