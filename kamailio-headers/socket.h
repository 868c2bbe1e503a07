/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The sockets that Kamailio listens on. */
#ifndef APIBAN_KAMAILIO_SOCKET_H
#define APIBAN_KAMAILIO_SOCKET_H

#include "msg.h"

/* A further address of a socket: SCTP can have several. */
typedef struct addr_info {
    str reserved_name;
    struct ip_addr address;
    str reserved_address_str;
    int flags;
    ksr_u32 reserved_su[33];
    struct addr_info *next;
    struct addr_info *reserved_prev;
} addr_info_t;

/* One listen line, or one address of it. `socket` is below 0 while it is not open: before the stage
 * PROC_INIT, and for TCP and TLS in every process but the main one and the TCP main one. Zeros in
 * `address` (af) mean a name that is not resolved yet. `useinfo_name` is the name or the address text of
 * "advertise", empty without it. Ends there: what follows differs. */
struct socket_info {
    int socket;
    int reserved_gindex;
    str name;
    struct ip_addr address;
    str reserved_address_str;
    str reserved_port_no_str;
    int flags;
    ksr_u32 reserved_su[33];
    struct socket_info *next;
    struct socket_info *reserved_prev;
    ksr_u16 port_no;
    signed char proto;
    signed char reserved_pad0;
    ksr_u32 reserved_pad1;
    str reserved_sock_str;
    addr_info_t *addr_info_lst;
    int reserved_workers[2];
    str reserved_sockname;
    str useinfo_name;
};

/* Bits of flags. */
static const int SI_IS_MCAST = 4;

/* The list of one protocol (PROTO_UDP, PROTO_TCP, PROTO_TLS, PROTO_SCTP); NULL for one that the build
 * does not have. */
struct socket_info **get_sock_info_list(ksr_u16 proto);

/* The core parameter advertised_address; empty without it. */
extern str default_global_address;

#endif
