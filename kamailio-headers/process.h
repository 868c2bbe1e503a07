/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Processes, timers, and running a route of the script. */
#ifndef APIBAN_KAMAILIO_PROCESS_H
#define APIBAN_KAMAILIO_PROCESS_H

#include "msg.h"

/* Ranks given to child_init. */
static const int PROC_MAIN = 0;
static const int PROC_SIPINIT = 1;
static const int PROC_TIMER = -1;
static const int PROC_RPC = -2;
static const int PROC_TCP_MAIN = -4;
static const int PROC_POSTCHILDINIT = -126;
static const int PROC_INIT = -127;
/* For fork_process: no module's child_init runs in the child. */
static const int PROC_NOCHLDINIT = -128;

/* In mod_init, with the exact number of processes forked later. */
int register_procs(int count);
/* Above 0 in the parent, 0 in the child, below 0 on an error. The error can also be seen by the
 * child, when a child_init failed in it: _ksr_is_main tells. The child must never return. */
int fork_process(int rank, const char *description, int make_sock);

/* Not 0 while the configuration is only checked (-c): mod_init is not called then. */
extern int config_check;
/* 1 in the main process. */
extern int _ksr_is_main;
/* Index in the process table. */
extern int process_no;
int my_pid(void);
/* Not 0 once all processes run. */
int sr_instance_ready(void);
int ksr_shutdown_phase(void);

/* Takes over changed core settings (the debug level) in a process that never registered for
 * configuration updates. */
void cfg_main_set_local(void);

/* Seconds since the start, kept by the timer process. */
unsigned int get_ticks(void);
/* Runs in the slow timer process, every interval seconds. */
int register_timer(void (*f)(unsigned int ticks, void *param), void *param, unsigned int interval);
/* Runs in the secondary timer process, every interval seconds. */
int sr_wtimer_add(void (*f)(unsigned int ticks, void *param), void *param, int interval);

struct action;

/* A table of names: `size` rings, each of which begins and ends with its head. Only next of a head is there:
 * it is read as an entry whose key is never touched. */
struct str_hash_entry {
    struct str_hash_entry *next;
    struct str_hash_entry *reserved_prev;
    str key;
    ksr_u64 reserved_value[2];
};

struct str_hash_head {
    struct str_hash_entry *next;
    struct str_hash_entry *reserved_prev;
};

struct str_hash_table {
    struct str_hash_head *table;
    int size;
};

/* The event routes. An index is valid below entries; rlist[index] is NULL for a route that is only
 * mentioned. */
struct route_list {
    struct action **rlist;
    int idx;
    int entries;
    struct str_hash_table names;
};

extern struct route_list event_rt;
/* Index of a route, -1 where the script has none of that name. */
int route_lookup(struct route_list *routes, const char *name);

/* To be zeroed. Behind last_retcode comes a jmp_buf, whose size depends on the architecture: 216
 * bytes in all on x86_64, so this has room to spare. */
typedef struct run_act_ctx {
    int rec_lev;
    int run_flags;
    int last_retcode;
    int reserved_align;
    ksr_u64 reserved_jmp_env[62];
} run_act_ctx_t;

/* run_act_ctx.run_flags after the run: how the script ended. */
static const int EXIT_R_F = 1;
static const int RETURN_R_F = 2;
static const int BREAK_R_F = 4;
static const int DROP_R_F = 8;

/* Kind of the route that runs in this process: save, set to REQUEST_ROUTE, restore. */
extern int route_type;
int run_top_route(struct action *first, struct sip_msg *msg, run_act_ctx_t *ctx);
/* Run before and after each run of the script for a message: other modules prepare themselves, and free what
 * they keep for that message. The first returns 0 if a module wants the script not to run. */
static const int REQUEST_CB_TYPE = 1;
int exec_pre_script_cb(struct sip_msg *msg, int type);
int exec_post_script_cb(struct sip_msg *msg, int type);
/* Frees the AVPs, XAVPs, XAVUs and XAVIs of the message that this process worked on. */
void ksr_msg_env_reset(void);

#endif
