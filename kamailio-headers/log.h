/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the logging macros of Kamailio expand to. */
#ifndef APIBAN_KAMAILIO_LOG_H
#define APIBAN_KAMAILIO_LOG_H

#include "core.h"

/* Levels, -5 to 3; -2 exists for continuing a line and has an empty name. */
static const int L_ALERT = -5;
static const int L_BUG = -4;
static const int L_CRIT2 = -3;
static const int L_ERR = -1;
static const int L_WARN = 0;
static const int L_NOTICE = 1;
static const int L_INFO = 2;
static const int L_DBG = 3;

/* Indexed by level - L_ALERT: nine rows. */
struct log_level_info {
    const char *name;
    int syslog_level;
};
extern struct log_level_info log_level_info[];

/* Level in force for a module: its own, or the server's. */
int get_debug_level(const char *mname, int len);
/* Already shifted, to be joined with a priority. */
int get_debug_facility(const char *mname, int len);

extern int log_stderr;
extern int log_color;
void dprint_color(int level);
void dprint_color_reset(void);

/* Above 0 while a message is being written: the signal handlers then stay silent. */
extern volatile int dprint_crit;

/* NULL without a log_prefix. */
extern str *log_prefix_val;

/* syslog() unless a module replaced it. */
extern void (*_km_log_func)(int priority, const char *fmt, ...);

/* One message for a structured log engine. */
typedef struct ksr_logdata {
    int v_facility;
    int v_level;
    const char *v_lname;
    const char *v_fname;
    int v_fline;
    const char *v_mname;
    const char *v_func;
    const char *v_locinfo;
    int v_pid;
    int v_pidx;
} ksr_logdata_t;

/* NULL without --log-engine. It gets the bare message and adds prefix and escapes itself. */
extern void (*_ksr_slog_func)(ksr_logdata_t *data, const char *fmt, ...);

#endif
