/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Functions for scripts in Lua, Python and other languages (KEMI). */
#ifndef APIBAN_KAMAILIO_KEMI_H
#define APIBAN_KAMAILIO_KEMI_H

#include "process.h"

/* Types with the same value in all releases; those above moved in 6.0. Parameters: only INT and
 * STR. BOOL results: 0 is false, all else is true. */
static const int SR_KEMIP_NONE = 0;
static const int SR_KEMIP_INT = 1;
static const int SR_KEMIP_STR = 2;
static const int SR_KEMIP_BOOL = 4;

/* A row of zeros ends the table. Both names must be NUL-terminated, and all of it must live forever.
 * func takes the message, then an int or a str * per type. */
typedef struct sr_kemi {
    str mname;
    str fname;
    int rtype;
    void *func;
    int ptypes[6];
} sr_kemi_t;

/* From mod_register; 0 on success. */
int sr_kemi_modules_add(sr_kemi_t *functions);

/* The language engine in use, NULL when the native script is. */
struct sr_kemi_eng;
struct sr_kemi_eng *sr_kemi_eng_get(void);
/* Runs the script's function `callback` for the event route `event`; route_type is EVENT_ROUTE. */
int sr_kemi_route(struct sr_kemi_eng *engine, struct sip_msg *msg, int route_type, str *callback,
                  str *event);
run_act_ctx_t *sr_kemi_act_ctx_get(void);
void sr_kemi_act_ctx_set(run_act_ctx_t *ctx);

#endif
