/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A SIP message, where it came from, and the few parser functions used. */
#ifndef APIBAN_KAMAILIO_MSG_H
#define APIBAN_KAMAILIO_MSG_H

#include "core.h"

union ip_addr_bytes {
    ksr_u32 reserved_align[4];
    ksr_u8 addr[16];
};

/* af is the AF_INET (2) or AF_INET6 (10) of Linux, len 4 or 16, u in network byte order. */
typedef struct ip_addr {
    unsigned int af;
    unsigned int len;
    union ip_addr_bytes u;
} ip_addr_t;

/* Ports are in host byte order. proto_reserved1 is the connection's id for TCP, TLS and WebSocket. */
typedef struct receive_info {
    struct ip_addr src_ip;
    struct ip_addr dst_ip;
    ksr_u16 src_port;
    ksr_u16 dst_port;
    int proto_reserved1;
    int proto_reserved2;
    ksr_u64 src_su[16];
    void *bind_address;
    ksr_u32 rflags;
    signed char proto;
} receive_info_t;

static const int PROTO_NONE = 0;
static const int PROTO_UDP = 1;
static const int PROTO_TCP = 2;
static const int PROTO_TLS = 3;
static const int PROTO_SCTP = 4;
static const int PROTO_WS = 5;
static const int PROTO_WSS = 6;

/* First line. type tells which member of u is valid; in a message that failed to parse it can be
 * SIP_INVALID with anything in u. */
struct msg_start_request {
    str method;
    str uri;
    str reserved_version;
    int method_value;
};

struct msg_start_reply {
    str reserved_version;
    str status;
    str reserved_reason;
    unsigned int statuscode;
};

union msg_start_line {
    struct msg_start_request request;
    struct msg_start_reply reply;
};

struct msg_start {
    short type;
    short flags;
    int len;
    union msg_start_line u;
};

static const int SIP_INVALID = 0;
static const int SIP_REQUEST = 1;
static const int SIP_REPLY = 2;

static const int METHOD_INVITE = 1;
static const int METHOD_REGISTER = 32;
static const int METHOD_OPTIONS = 512;
static const int METHOD_KDMQ = 16384;

/* parsed belongs to the parser of that header; for Content-Length it is the number itself. */
typedef struct hdr_field {
    int type;
    str name;
    str body;
    int len;
    void *parsed;
    struct hdr_field *next;
} hdr_field_t;

/* Ends before parsed_uri: from its successor on, offsets differ per release, and the size is 2008,
 * 2016 or 2024 bytes. Never make, copy or size one. */
typedef struct sip_msg {
    unsigned int id;
    int pid;
    ksr_i64 tval[2];
    ksr_u64 reserved_send_flags;
    struct msg_start first_line;
    void *via1;
    void *reserved_via2;
    hdr_field_t *headers;
    hdr_field_t *reserved_last_header;
    ksr_u64 parsed_flag;
    hdr_field_t *reserved_via[2];
    hdr_field_t *callid;
    hdr_field_t *to;
    hdr_field_t *cseq;
    hdr_field_t *from;
    hdr_field_t *contact;
    hdr_field_t *reserved_routing[3];
    hdr_field_t *content_type;
    hdr_field_t *content_length;
    hdr_field_t *authorization;
    hdr_field_t *reserved_expires;
    hdr_field_t *proxy_auth;
    hdr_field_t *reserved_a[11];
    hdr_field_t *user_agent;
    hdr_field_t *reserved_b[17];
    void *body;
    char *eoh;
    char *unparsed;
    struct receive_info rcv;
    char *buf;
    unsigned int len;
    str new_uri;
    str dst_uri;
    int reserved_parsed_uri_ok;
} sip_msg_t;

/* Header types as bits for parse_headers(). */
static const ksr_u64 HDR_FROM_F = 0x10;
static const ksr_u64 HDR_CONTENTLENGTH_F = 0x1000;
static const ksr_u64 HDR_USERAGENT_F = 0x10000000;
static const ksr_u64 HDR_EOH_F = 0xffffffffffffffff;

/* What hdr_field.parsed of From and To points to. Ends before parsed_uri, which moved in 6.1. */
typedef struct to_body {
    int error;
    str body;
    str uri;
    str display;
    str tag_value;
} to_body_t;

/* 0, or -1 on a header that does not parse. */
int parse_headers(struct sip_msg *msg, ksr_u64 flags, int next);
int parse_from_header(struct sip_msg *msg);
/* Fills a struct sip_uri of 384 bytes; 0, or below 0. The text must live as long as that. */
int parse_uri(char *buf, int len, void *uri);
/* Start of the body, NULL without one; bounded by buf + len. */
char *get_body(struct sip_msg *msg);

/* 1 when host (canonical text, IPv6 with or without brackets) is one of our addresses or aliases;
 * port 0 and proto 0 match any. */
int check_self(str *host, ksr_u16 port, ksr_u16 proto);

/* The datagram or frame for which core:msg-received runs. 6.1.1 appended a member. */
typedef struct sr_net_info {
    str data;
    unsigned int bufsize;
    struct receive_info *rcv;
    void *dst;
} sr_net_info_t;

/* Not NULL only while that event route runs; its message is a faked one without an address. */
sr_net_info_t *ksr_evrt_rcvnetinfo_get(void);
/* 1 when msg is the core's faked message, which carries no peer address. */
int faked_msg_match(struct sip_msg *msg);
struct sip_msg *faked_msg_get_next(void);

#endif
