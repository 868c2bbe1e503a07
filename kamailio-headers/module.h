/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a module exports, script parameters, other modules, statistics. */
#ifndef APIBAN_KAMAILIO_MODULE_H
#define APIBAN_KAMAILIO_MODULE_H

#include "msg.h"
#include "pv.h"
#include "rpc.h"

/* A script function. The core always passes two parameters here (NULL where the script has fewer)
 * and passes three to six to functions of that many, which therefore need a cast. Above 0 is true,
 * below 0 is false, 0 ends the script. */
typedef int (*cmd_function)(struct sip_msg *msg, void *p1, void *p2);
typedef int (*fixup_function)(void **param, int param_no);
typedef int (*free_fixup_function)(void **param, int param_no);

/* A row with a NULL name ends the table. The core copies it right after mod_register. */
typedef struct cmd_export {
    const char *name;
    cmd_function function;
    int param_no;
    fixup_function fixup;
    free_fixup_function free_fixup;
    unsigned int flags;
} cmd_export_t;

/* cmd_export.flags: where the function may be called. */
static const unsigned int REQUEST_ROUTE = 1;
static const unsigned int CORE_ONREPLY_ROUTE = 0x80;
static const unsigned int ONEVENT_ROUTE = 0x200;
static const unsigned int EVENT_ROUTE = 0x201;
static const unsigned int ANY_ROUTE = 0xffffffff;

typedef struct param_export {
    const char *name;
    unsigned int type;
    void *param_pointer;
} param_export_t;

/* param_export.type. PARAM_VAR is missing on purpose: its value changed in 6.1. */
static const unsigned int PARAM_STRING = 1;
static const unsigned int PARAM_INT = 2;
static const unsigned int PARAM_STR = 4;
/* Joined with one of the above: param_pointer is a param_func. */
static const unsigned int PARAM_USE_FUNC = 0x80000000;

/* val is a char *, a str *, or the integer itself. Below 0 refuses the value. Shared memory does
 * not exist yet when it runs, and the text must be copied. */
typedef int (*param_func)(unsigned int type, void *val);

/* The loader finds it by the symbol `exports`. */
typedef struct module_exports {
    const char *name;
    unsigned int dlflags;
    cmd_export_t *cmds;
    param_export_t *params;
    rpc_export_t *rpc_methods;
    pv_export_t *pv_items;
    int (*response_f)(struct sip_msg *msg);
    int (*init_mod_f)(void);
    int (*init_child_f)(int rank);
    void (*destroy_mod_f)(void);
} module_exports_t;

typedef struct sr_module {
    char *path;
    void *handle;
    module_exports_t exports;
    unsigned int modflags;
    struct sr_module *next;
} sr_module_t;

/* First of the list, NULL while the first module is being loaded. */
sr_module_t *get_loaded_modules(void);
sr_module_t *find_module_by_name(const char *name);
/* NULL when nothing loaded exports such a function with that many parameters. */
cmd_function find_export(const char *name, int param_no, int flags);
cmd_function find_mod_export(const char *module, const char *name, int param_no, int flags);

union fparam_value {
    int i;
    str str;
    pv_elem_t *pve;
    ksr_u64 reserved_room[4];
};

/* A fixed parameter. spve fixups make FPARAM_STR of plain text and FPARAM_PVE of text with
 * pseudo-variables. One made by hand needs only type and v. */
typedef struct fparam {
    char *orig;
    int type;
    union fparam_value v;
    void *fixed;
} fparam_t;

static const int FPARAM_INT = 1;
static const int FPARAM_PVS = 4;
static const int FPARAM_STR = 32;
static const int FPARAM_PVE = 256;

/* 0 on success. The text may lie in the message or in a rotating buffer: copy it before the next
 * pseudo-variable is evaluated. */
int get_str_fparam(str *out, struct sip_msg *msg, fparam_t *param);
int get_int_fparam(int *out, struct sip_msg *msg, fparam_t *param);

/* A function with a fixup needs the freeing one too, or expressions as parameters are refused. */
int fixup_spve_null(void **param, int param_no);
int fixup_free_spve_null(void **param, int param_no);
int fixup_spve_all(void **param, int param_no);
int fixup_free_spve_all(void **param, int param_no);
int fixup_spve_spve(void **param, int param_no);
int fixup_free_spve_spve(void **param, int param_no);
int fixup_spve_igp(void **param, int param_no);
int fixup_free_spve_igp(void **param, int param_no);
int fixup_spve_spve_igp(void **param, int param_no);
int fixup_free_spve_spve_igp(void **param, int param_no);
int fixup_igp_null(void **param, int param_no);
int fixup_free_igp_null(void **param, int param_no);
int fixup_igp_all(void **param, int param_no);
int fixup_free_igp_all(void **param, int param_no);

/* Passed by value to the callback, so it must be this structure and not a bare integer. */
typedef struct counter_handle_s {
    ksr_u16 id;
} counter_handle_t;

typedef long (*counter_cbk_f)(counter_handle_t handle, void *param);

static const int CNT_F_NO_RESET = 1;

/* In mod_init only. 0, -1 on error, -2 when the name exists; handle may be NULL, texts are copied.
 * The callback runs in whichever process asks for the value. */
int counter_register(counter_handle_t *handle, const char *group, const char *name, int flags,
                     counter_cbk_f callback, void *param, const char *doc, int reg_flags);

#endif
