//! The dmq module as the bus of the cluster.
//!
//! Nothing here touches dmq's list of nodes or its lock: a message goes to a node structure of our own, and what
//! came is only copied into a queue in shared memory.

use std::ffi::{c_char, c_int, c_void};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;
use std::sync::OnceLock;

use super::bindings as k;
use super::guard::guard;
use super::module::module;
use super::{other_modules, own, text};
use crate::bans::Wake;
use crate::cluster::message::addressed_to;
use crate::member::Bus;
use crate::shared::cluster::Number;
use crate::shared::Shared;

/// The name of the module on the bus: the user part of the request URI.
const PEER: &str = "apiban";
/// Room for a node of dmq, with 576 bytes to spare.
const NODE_WORDS: usize = 128;
const CONTENT_TYPE: &str = "application/octet-stream";

/// What dmq gave us.
struct Bound {
    api: k::dmq_api_t,
    peer: *mut k::dmq_peer_t,
}

// SAFETY: made before any fork and never changed; the pointer is only handed back to dmq, from one thread.
unsafe impl Send for Bound {}
// SAFETY: as above.
unsafe impl Sync for Bound {}

static BOUND: OnceLock<Bound> = OnceLock::new();

/// True if the dmq module is loaded. In `mod_init` every module is.
pub fn is_loaded() -> bool {
    // SAFETY: the list of modules is complete; the name ends in NUL.
    unsafe { k::find_export(c"bind_dmq".as_ptr(), 0, 0) }.is_some()
}

/// Registers the module on the bus. To be called in `child_init` with rank `PROC_INIT`: by then dmq has made its
/// lists, whichever module was loaded first.
///
/// # Errors
/// dmq is not loaded or does not take us.
pub fn register() -> Result<(), String> {
    // SAFETY: the export has the type of `bind_dmq_f`, as tests/abi verifies; dmq copies the peer and its texts.
    unsafe {
        let bind =
            k::find_export(c"bind_dmq".as_ptr(), 0, 0).ok_or("the module dmq is not loaded")?;
        let bind: unsafe extern "C" fn(*mut k::dmq_api_t) -> c_int =
            std::mem::transmute::<_, unsafe extern "C" fn(*mut k::dmq_api_t) -> c_int>(bind);
        let mut api: k::dmq_api_t = std::mem::zeroed();
        if bind(&mut api) < 0 {
            return Err("the module dmq refused to be used".into());
        }
        let register = api
            .register_dmq_peer
            .ok_or("the module dmq has no register_dmq_peer")?;
        let mut peer: k::dmq_peer_t = std::mem::zeroed();
        peer.peer_id = text::leak_str(PEER);
        peer.description = text::leak_str(PEER);
        peer.callback = Some(receive);
        peer.init_callback = Some(begin);
        let peer = register(&mut peer);
        if peer.is_null() {
            return Err("the module dmq did not take this module as a peer".into());
        }
        BOUND
            .set(Bound { api, peer })
            .map_err(|_| "registered twice".to_owned())
    }
}

/// dmq found the first other node: our HELLO goes to it at once.
unsafe extern "C" fn begin() -> c_int {
    guard(0, "the start of dmq", || {
        if let Some(module) = module() {
            module.wake_cluster();
        }
        0
    })
}

/// A message came, in a process of dmq or in a SIP worker: it is copied into the queue, and nothing else happens.
unsafe extern "C" fn receive(
    msg: *mut k::sip_msg_t,
    response: *mut k::peer_reponse_t,
    _: *mut k::dmq_node_t,
) -> c_int {
    guard(0, "a message of the cluster", || {
        // SAFETY: dmq passes a parsed message and a zeroed answer, both valid during the call.
        let (Some(body), Some(response)) = (unsafe { body(msg) }, unsafe { response.as_mut() })
        else {
            refuse();
            return 0;
        };
        let Some(module) = module() else {
            return 0;
        };
        // SAFETY: as above.
        let from = unsafe { source(msg) };
        let (code, reason) = match take(&module.shared, from, body) {
            Taken::Queued => {
                module.wake_cluster();
                (200, "OK")
            }
            Taken::Full => (500, "Busy"),
            // Without an answer dmq would write a line for each, and a node with an old token would send it again.
            Taken::Foreign => (403, "Forbidden"),
        };
        response.resp_code = code;
        response.reason = text_of(reason);
        0
    })
}

enum Taken {
    Queued,
    Full,
    Foreign,
}

fn take(shared: &Shared, from: IpAddr, body: &[u8]) -> Taken {
    let Some(cluster) = &shared.cluster else {
        return Taken::Foreign;
    };
    let prefix = cluster.number(Number::TokenPrefix);
    let session = match addressed_to(body) {
        Some(0) => false,
        Some(to) if to >> 32 == prefix => true,
        _ => {
            refuse();
            return Taken::Foreign;
        }
    };
    if cluster.put_message(session, from, body) {
        Taken::Queued
    } else {
        refuse();
        Taken::Full
    }
}

fn refuse() {
    if let Some(cluster) = module().and_then(|module| module.shared.cluster.as_ref()) {
        cluster.count(Number::Dropped, 1);
    }
}

/// A `str` over static text.
fn text_of(text: &'static str) -> k::str_ {
    k::str_ {
        s: text.as_ptr().cast_mut().cast::<c_char>(),
        len: text.len() as c_int,
    }
}

/// The body of a message, at most as long as the datagram.
///
/// # Safety
/// `msg` must be NULL or a message that stays valid for `'a`.
unsafe fn body<'a>(msg: *mut k::sip_msg_t) -> Option<&'a [u8]> {
    // SAFETY: the caller's; the body lies within the buffer, as both ends are compared.
    unsafe {
        let message = msg.as_ref()?;
        if k::parse_headers(msg, k::HDR_CONTENTLENGTH_F, 0) != 0 {
            return None;
        }
        let start = k::get_body(msg).cast::<u8>().cast_const();
        let buffer = message.buf.cast::<u8>().cast_const();
        if start.is_null() || buffer.is_null() {
            return None;
        }
        let offset = (start as usize).checked_sub(buffer as usize)?;
        let there = (message.len as usize).checked_sub(offset)?;
        let said = (*msg)
            .content_length
            .as_ref()
            .map(|header| header.parsed as usize)?;
        (said <= there).then(|| std::slice::from_raw_parts(start, said))
    }
}

/// Where a message came from.
///
/// # Safety
/// `msg` must be NULL or a valid message.
unsafe fn source(msg: *mut k::sip_msg_t) -> IpAddr {
    // SAFETY: the caller's; every byte pattern is an address.
    let Some(ip) = (unsafe { msg.as_ref() }).map(|msg| msg.rcv.src_ip) else {
        return IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    };
    // SAFETY: as above.
    let bytes = unsafe { ip.u.addr };
    match ip.len {
        4 => IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3])),
        _ => IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical(),
    }
}

/// The bus for the process of the cluster. The nodes and their buffers are its own.
pub struct DmqBus;

impl Bus for DmqBus {
    fn send(&mut self, uri: &str, message: &[u8]) {
        let Some(bound) = BOUND.get() else {
            return;
        };
        let Some(send) = bound.api.send_message else {
            return;
        };
        // The texts must live until the call returns; dmq copies all of it.
        let mut uri = uri.to_owned().into_bytes();
        let mut node = [0u64; NODE_WORDS];
        let node: *mut k::dmq_node_t = node.as_mut_ptr().cast();
        let mut callback = k::dmq_resp_cback_t {
            f: None,
            param: ptr::null_mut(),
        };
        let mut body = k::str_ {
            s: message.as_ptr().cast_mut().cast(),
            len: message.len() as c_int,
        };
        let mut content_type = text_of(CONTENT_TYPE);
        // SAFETY: the buffer is zeroed, aligned, and larger than dmq's node in every release (tests/abi); dmq reads
        // of it the two fields that are filled here, and copies them, the body and the callback.
        unsafe {
            (*node).orig_uri = k::str_ {
                s: uri.as_mut_ptr().cast(),
                len: uri.len() as c_int,
            };
            let parsed: *mut c_void = (&raw mut (*node).uri).cast();
            if k::parse_uri(uri.as_mut_ptr().cast(), uri.len() as c_int, parsed) < 0 {
                return;
            }
            send(
                bound.peer,
                &mut body,
                node,
                &mut callback,
                1,
                &mut content_type,
            );
        }
    }

    fn nodes(&mut self) -> Option<(String, Vec<String>)> {
        let rows = other_modules::dmq_nodes();
        let own = rows.iter().find(|row| row.is_local)?.uri.clone();
        let others = rows.into_iter().filter(|row| !row.is_local);
        Some((own, others.map(|row| row.uri).collect()))
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        own::is_own(ip)
    }
}
