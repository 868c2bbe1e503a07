/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * An RPC transport that only collects texts: with it the module asks other modules what they know, by
 * the commands that they offer operators. It is C because the functions of a transport are variadic,
 * and Rust can call such functions but not define them.
 *
 * One pointer serves as context and as every handle: the collector on the Rust side.
 */
#include "../../kamailio-headers/core.h"

#include <stdarg.h>

/* Takes one named text; name is 0 for an item of a list. Defined in other_modules.rs. */
void apiban_collect_text(void *collector, const char *name, const char *text, int len);
/* Takes one named number. */
void apiban_collect_number(void *collector, const char *name, int number);

static int text_length(const char *text)
{
    int length = 0;

    while (text[length] != '\0' && length < 1024) {
        length++;
    }
    return length;
}

/* Walks the format as every transport does; named tells whether a name stands before each value. */
static void collect(void *collector, const char *fmt, int named, va_list values)
{
    for (; *fmt != '\0'; fmt++) {
        const char *name = 0;

        if (*fmt == '*' || *fmt == '.') {
            continue;
        }
        if (named) {
            name = va_arg(values, const char *);
        }
        switch (*fmt) {
        case 's': {
            const char *text = va_arg(values, const char *);
            if (text != 0) {
                apiban_collect_text(collector, name, text, text_length(text));
            }
            break;
        }
        case 'S': {
            const str *text = va_arg(values, const str *);
            if (text != 0 && text->s != 0 && text->len > 0) {
                apiban_collect_text(collector, name, text->s, text->len);
            }
            break;
        }
        case '{':
        case '[':
            *va_arg(values, void **) = collector;
            break;
        case 'f':
            (void)va_arg(values, double);
            break;
        case 'l':
        case 'j':
            (void)va_arg(values, long);
            break;
        case 'L':
        case 'J':
            (void)va_arg(values, long long);
            break;
        case 'd':
        case 'u':
            apiban_collect_number(collector, name, va_arg(values, int));
            break;
        case 'b':
        case 't':
            (void)va_arg(values, int);
            break;
        default:
            /* A letter of a later release: what follows cannot be read safely. */
            return;
        }
    }
}

int apiban_collect_add(void *context, const char *fmt, ...)
{
    va_list values;

    va_start(values, fmt);
    collect(context, fmt, 0, values);
    va_end(values);
    return 0;
}

int apiban_collect_struct_add(void *handle, const char *fmt, ...)
{
    va_list values;

    va_start(values, fmt);
    collect(handle, fmt, 1, values);
    va_end(values);
    return 0;
}

/* Commands asked here have no required parameter, and none is given. */
int apiban_collect_scan(void *context, const char *fmt, ...)
{
    (void)context;
    (void)fmt;
    return 0;
}

void apiban_collect_fault(void *context, int code, const char *fmt, ...)
{
    (void)context;
    (void)code;
    (void)fmt;
}

int apiban_collect_ignore_printf(void *context, const char *fmt, ...)
{
    (void)context;
    (void)fmt;
    return 0;
}

int apiban_collect_ignore_struct_printf(void *handle, const char *name, const char *fmt, ...)
{
    (void)handle;
    (void)name;
    (void)fmt;
    return 0;
}
