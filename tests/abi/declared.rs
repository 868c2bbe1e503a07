//! What our headers declare, as bindgen reads them.

use std::collections::{BTreeMap, BTreeSet};
use std::mem::{offset_of, size_of, MaybeUninit};

#[allow(
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    unsafe_code
)]
#[allow(clippy::all)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/kamailio.rs"));
}

/// The same as text: it tells when a declaration was added and not listed here.
pub const GENERATED: &str = include_str!(concat!(env!("OUT_DIR"), "/kamailio.rs"));

/// How the size of our declaration relates to the real one.
#[derive(Clone, Copy, PartialEq)]
pub enum Extent {
    Same,
    /// Ours ends earlier; used behind a pointer only. With the reason.
    Shorter(&'static str),
    /// Ours is at least as large as any release's, to be filled by Kamailio. With the reason.
    Room(&'static str),
    /// A union member or a union: part of another structure, which is compared.
    Part,
}

pub struct Structure {
    pub name: &'static str,
    /// The type's name in the tables, and what the members' names begin with there.
    pub table: &'static str,
    pub path: &'static str,
    pub extent: Extent,
    pub size: usize,
    /// Name, offset, size.
    pub members: Vec<(&'static str, usize, usize)>,
}

fn size_behind<T>(_: *const T) -> usize {
    size_of::<T>()
}

macro_rules! structures {
    ($($name:ident = $table:literal $path:literal $extent:expr, [$($member:ident)*];)*) => {
        vec![$(Structure {
            name: stringify!($name),
            table: $table,
            path: $path,
            extent: $extent,
            size: size_of::<bindings::$name>(),
            members: vec![$({
                let place = MaybeUninit::<bindings::$name>::uninit();
                let whole = place.as_ptr();
                // SAFETY: the place is large enough for the member, and only its address is taken.
                #[allow(unsafe_code)]
                let member = unsafe { &raw const (*whole).$member };
                (stringify!($member), offset_of!(bindings::$name, $member), size_behind(member))
            }),*],
        }),*]
    };
}

macro_rules! constants {
    ($($name:ident)*) => {
        // Sign-extended where negative, as the tables print them in hexadecimal.
        BTreeMap::from([$((stringify!($name), bindings::$name as u64)),*])
    };
}

#[rustfmt::skip]
pub fn structures() -> Vec<Structure> {
    use Extent::{Part, Room, Same, Shorter};
    structures! {
        str_ = "str" "" Same, [s len];
        sr_pkg_api = "sr_pkg_api_t" "" Shorter("members behind xfree moved in 6.0"),
            [mname mem_pool mem_block xmalloc xmallocxz xfree];
        sr_shm_api = "sr_shm_api_t" "" Shorter("members behind xfree moved in 6.0"),
            [mname mem_pool mem_block xmalloc xmallocxz xmalloc_unsafe xfree];
        ip_addr = "ip_addr_t" "" Same, [af len u];
        ip_addr_bytes = "ip_addr_t" "u." Part, [addr];
        receive_info = "receive_info_t" "" Same,
            [src_ip dst_ip src_port dst_port proto_reserved1 proto_reserved2 src_su bind_address
             rflags proto];
        msg_start = "struct msg_start" "" Same, [type_ flags len u];
        msg_start_line = "struct msg_start" "u." Part, [request reply];
        msg_start_request = "struct msg_start" "u.request." Part, [method uri method_value];
        msg_start_reply = "struct msg_start" "u.reply." Part, [status statuscode];
        hdr_field = "struct hdr_field" "" Same, [type_ name body len parsed next];
        sip_msg = "struct sip_msg" "" Shorter("members behind parsed_uri moved in 6.0 and in 6.1"),
            [id pid tval first_line via1 headers parsed_flag callid to cseq from contact
             content_type content_length authorization proxy_auth user_agent body eoh unparsed rcv
             buf len new_uri dst_uri];
        addr_info = "struct addr_info" "" Same, [address flags next];
        socket_info = "struct socket_info" "" Shorter("members of useinfo moved in 6.0"),
            [socket name address flags next port_no proto addr_info_lst useinfo_name];
        to_body = "struct to_body" "" Shorter("parsed_uri moved in 6.1"),
            [error body uri display tag_value];
        sr_net_info = "sr_net_info_t" "" Shorter("6.1.1 appended the type of the event"),
            [data bufsize rcv dst];
        pv_value = "pv_value_t" "" Room("the integer behind the text grew in 6.0"), [rs];
        pv_name = "pv_name_t" "" Same, [type_ nfree u];
        pv_name_value = "pv_name_t" "u." Part, [dname];
        pv_param = "pv_param_t" "" Same, [pvn pvi];
        pv_spec = "pv_spec_t" "" Same, [type_ getf setf pvp trans];
        pv_elem = "pv_elem_t" "" Same, [text spec next];
        pv_export = "pv_export_t" "" Same,
            [name type_ getf setf parse_name parse_index init_param iparam];
        rpc = "rpc_t" "" Same,
            [fault send add scan rpl_printf struct_add array_add struct_scan struct_printf
             capabilities delayed_ctx_new delayed_ctx_close];
        rpc_export = "rpc_export_t" "" Same, [name function doc_str flags];
        cmd_export = "cmd_export_t" "" Same, [name function param_no fixup free_fixup flags];
        param_export = "param_export_t" "" Same, [name type_ param_pointer];
        module_exports = "module_exports_t" "" Same,
            [name dlflags cmds params rpc_methods pv_items response_f init_mod_f init_child_f
             destroy_mod_f];
        sr_module = "sr_module_t" "" Same, [path handle exports modflags next];
        fparam = "fparam_t" "" Same, [orig type_ v fixed];
        fparam_value = "fparam_t" "v." Part, [i str_ pve];
        counter_handle_s = "counter_handle_t" "" Same, [id];
        log_level_info = "struct log_level_info" "" Same, [name syslog_level];
        ksr_logdata = "ksr_logdata_t" "" Same,
            [v_facility v_level v_lname v_fname v_fline v_mname v_func v_locinfo v_pid v_pidx];
        route_list = "struct route_list" "" Same, [rlist idx entries names];
        str_hash_table = "struct str_hash_table" "" Same, [table size];
        str_hash_head = "struct str_hash_head" "" Same, [next];
        str_hash_entry = "struct str_hash_entry" "" Same, [next key];
        run_act_ctx = "run_act_ctx_t" "" Room("it ends with a jmp_buf, larger on other machines"),
            [rec_lev run_flags last_retcode];
        sr_kemi = "sr_kemi_t" "" Same, [mname fname rtype func ptypes];
        dmq_node = "dmq_node_t" "" Shorter("6.1 changed the values of status"),
            [orig_uri uri ip_address];
        peer_reponse = "peer_reponse_t" "" Same, [resp_code content_type reason body];
        dmq_peer = "dmq_peer_t" "" Same, [peer_id description callback init_callback next];
        dmq_resp_cback = "dmq_resp_cback_t" "" Same, [f param];
        dmq_api = "dmq_api_t" "" Room("bind_dmq writes 4 or 5 pointers into it"),
            [register_dmq_peer bcast_message send_message find_dmq_node_uri];
        str_list = "str_list_t" "" Same, [s next];
    }
}

pub fn constants() -> BTreeMap<&'static str, u64> {
    constants! {
        PROTO_NONE PROTO_UDP PROTO_TCP PROTO_TLS PROTO_SCTP PROTO_WS PROTO_WSS
        SIP_INVALID SIP_REQUEST SIP_REPLY SI_IS_MCAST REQUEST_CB_TYPE
        METHOD_INVITE METHOD_REGISTER METHOD_OPTIONS METHOD_KDMQ
        HDR_FROM_F HDR_CONTENTLENGTH_F HDR_USERAGENT_F HDR_EOH_F
        PV_NAME_OTHER PVT_OTHER RPC_RET_ARRAY
        REQUEST_ROUTE CORE_ONREPLY_ROUTE ONEVENT_ROUTE EVENT_ROUTE ANY_ROUTE
        PARAM_STRING PARAM_INT PARAM_STR PARAM_USE_FUNC
        FPARAM_INT FPARAM_PVS FPARAM_STR FPARAM_PVE CNT_F_NO_RESET
        L_ALERT L_BUG L_CRIT2 L_ERR L_WARN L_NOTICE L_INFO L_DBG
        PROC_MAIN PROC_SIPINIT PROC_TIMER PROC_RPC PROC_TCP_MAIN PROC_POSTCHILDINIT PROC_INIT
        PROC_NOCHLDINIT
        EXIT_R_F RETURN_R_F BREAK_R_F DROP_R_F
        SR_KEMIP_NONE SR_KEMIP_INT SR_KEMIP_STR SR_KEMIP_BOOL
    }
}

/// The identifiers that follow a keyword in generated code, formatted or not.
pub fn identifiers_after<'a>(text: &'a str, keyword: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(keyword).skip(1).map(|rest| {
        let rest = rest.trim_start();
        let rest = rest.strip_prefix("mut ").unwrap_or(rest);
        rest.split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()
            .unwrap_or("")
    })
}

/// Every structure and union of the generated code with its members, the reserved ones left out.
/// Those without any are opaque.
pub fn generated_structures() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut found = BTreeMap::new();
    for keyword in ["pub struct ", "pub union "] {
        let names = identifiers_after(GENERATED, keyword);
        for (name, body) in names.zip(GENERATED.split(keyword).skip(1)) {
            // No type of a member has braces.
            let body = body.split('}').next().unwrap_or("");
            let members: BTreeSet<_> = identifiers_after(body, "pub ").collect();
            if !members.is_empty() {
                let used = members.into_iter().filter(|m| !m.starts_with("reserved_"));
                assert!(found.insert(name, used.collect()).is_none(), "{name} twice");
            }
        }
    }
    found
}
