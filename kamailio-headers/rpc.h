/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Commands of kamcmd and JSON-RPC. */
#ifndef APIBAN_KAMAILIO_RPC_H
#define APIBAN_KAMAILIO_RPC_H

/* Filled by the transport that received the command. Format letters: d and u int, f double, s text,
 * S str, { structure, [ list (both as void **); a dot converts, a star makes the rest optional.
 * The last three are NULL under ctl. */
typedef struct rpc {
    void (*fault)(void *ctx, int code, const char *fmt, ...);
    int (*send)(void *ctx);
    int (*add)(void *ctx, const char *fmt, ...);
    /* How many parameters were read; on an error 0 or less. */
    int (*scan)(void *ctx, const char *fmt, ...);
    int (*rpl_printf)(void *ctx, const char *fmt, ...);
    /* Pairs of name and value; { or [ only as the last letter of a call. */
    int (*struct_add)(void *handle, const char *fmt, ...);
    int (*array_add)(void *handle, const char *fmt, ...);
    int (*struct_scan)(void *handle, const char *fmt, ...);
    int (*struct_printf)(void *handle, const char *name, const char *fmt, ...);
    unsigned int (*capabilities)(void *ctx);
    void *(*delayed_ctx_new)(void *ctx);
    void (*delayed_ctx_close)(void *delayed_ctx);
} rpc_t;

typedef void (*rpc_function_t)(rpc_t *rpc, void *ctx);

/* doc_str must point to at least two pointers: the core reads both, the second may be NULL. */
typedef struct rpc_export {
    const char *name;
    rpc_function_t function;
    const char **doc_str;
    unsigned int flags;
} rpc_export_t;

/* rpc_export.flags: without it jsonrpcs keeps only the last of several replies. 5.6 calls it
 * RET_ARRAY. */
static const unsigned int RPC_RET_ARRAY = 1;

/* NULL when no such command is registered. */
rpc_export_t *find_rpc_export(const char *name, int flags);

#endif
