//! Commands between Kamailio's RPC transports and [`crate::rpc`].

use std::ffi::{c_char, c_void};
use std::ptr;

use super::bindings as k;
use super::guard::guard;
use super::lifecycle::module;
use super::{load, text};
use crate::rpc::{Arguments, Fault, Fields, Reply, Service, Value, COMMANDS};

/// The core tells a handler nothing of the command, so each has a handler of its own.
const HANDLERS: usize = 12;
const _: () = assert!(COMMANDS.len() <= HANDLERS);

/// The table for the core.
pub fn table() -> Vec<k::rpc_export_t> {
    let handlers: [Handler; HANDLERS] = handlers();
    let mut table: Vec<k::rpc_export_t> = COMMANDS
        .iter()
        .zip(handlers)
        .map(|(command, handler)| k::rpc_export_t {
            name: text::leak(command.name),
            function: Some(handler),
            // The core reads two pointers.
            doc_str: Vec::leak(vec![text::leak(command.help), ptr::null()]).as_mut_ptr(),
            // Without it JSON-RPC keeps only the last of several structures.
            flags: if command.name == "apiban.list" || command.name == "apiban.top" {
                k::RPC_RET_ARRAY
            } else {
                0
            },
        })
        .collect();
    table.push(k::rpc_export_t {
        name: ptr::null(),
        function: None,
        doc_str: ptr::null_mut(),
        flags: 0,
    });
    table
}

type Handler = unsafe extern "C" fn(*mut k::rpc_t, *mut c_void);

macro_rules! each {
    ($($index:literal)*) => { [$(handle::<$index> as Handler),*] };
}

fn handlers() -> [Handler; HANDLERS] {
    each![0 1 2 3 4 5 6 7 8 9 10 11]
}

unsafe extern "C" fn handle<const INDEX: usize>(rpc: *mut k::rpc_t, context: *mut c_void) {
    guard((), "an RPC command", || {
        // SAFETY: both come from the transport and are valid during the call.
        let Some(transport) = (unsafe { rpc.as_ref() }).map(|rpc| Transport { rpc, context })
        else {
            return;
        };
        match run(&transport, INDEX) {
            Ok(reply) => transport.reply(&reply),
            Err(fault) => transport.fault(&fault),
        }
    });
}

fn run(transport: &Transport<'_>, index: usize) -> Result<Reply, Fault> {
    let (Some(module), Some(command)) = (module(), COMMANDS.get(index)) else {
        return Err(Fault {
            code: 503,
            text: "the module is not running".into(),
        });
    };
    let arguments = transport.arguments(command.arguments.len() + 1);
    if arguments.0.len() > command.arguments.len() {
        let text = format!(
            "too many arguments: {} takes {}",
            command.name,
            command.arguments.len()
        );
        return Err(Fault { code: 400, text });
    }
    let service = Service {
        shared: &module.shared,
        config: &module.config,
        kamailio: &load::release(),
        counters: module.counters(),
        wake: &|| module.wake(),
    };
    (command.run)(&service, &arguments)
}

/// One command in progress.
struct Transport<'a> {
    rpc: &'a k::rpc_t,
    context: *mut c_void,
}

impl Transport<'_> {
    /// At most `most` arguments, each as text: `.` has the transport convert numbers, `*` makes a missing
    /// one no fault.
    fn arguments(&self, most: usize) -> Arguments {
        let mut arguments = Vec::new();
        let Some(scan) = self.rpc.scan else {
            return Arguments(arguments);
        };
        while arguments.len() < most {
            let mut value = k::str_ {
                s: ptr::null_mut(),
                len: 0,
            };
            // SAFETY: the format asks for one `str`; its text is valid until the handler returns. After a
            // failed scan it may point to a filler, so it is used only when one was read.
            let bytes = unsafe {
                if scan(self.context, c"*.S".as_ptr(), &raw mut value) < 1 {
                    break;
                }
                text::bytes(&value)
            };
            arguments.push(String::from_utf8_lossy(bytes).into_owned());
        }
        Arguments(arguments)
    }

    fn fault(&self, fault: &Fault) {
        let message = text::to_c(&fault.text);
        if let Some(send) = self.rpc.fault {
            // SAFETY: the format takes one string, which lives until the call returns.
            unsafe { send(self.context, fault.code, c"%s".as_ptr(), message.as_ptr()) };
        }
    }

    fn reply(&self, reply: &Reply) {
        let Some(add) = self.rpc.add else {
            return;
        };
        match reply {
            Reply::Text(line) => {
                let line = text::to_c(line);
                // SAFETY: one string, as the format says.
                unsafe { add(self.context, c"s".as_ptr(), line.as_ptr()) };
            }
            Reply::Struct(fields) => self.add_struct(fields),
            Reply::List(structs) => structs.iter().for_each(|fields| self.add_struct(fields)),
        }
    }

    fn add_struct(&self, fields: &Fields) {
        let mut handle: *mut c_void = ptr::null_mut();
        let Some(add) = self.rpc.add else {
            return;
        };
        // SAFETY: the format asks for a place for one handle.
        if unsafe { add(self.context, c"{".as_ptr(), &raw mut handle) } < 0 || handle.is_null() {
            return;
        }
        self.fill(handle, fields);
    }

    fn fill(&self, handle: *mut c_void, fields: &Fields) {
        let Some(add) = self.rpc.struct_add else {
            return;
        };
        for (name, value) in fields {
            let name = text::to_c(name);
            let name: *const c_char = name.as_ptr();
            // SAFETY: each format is followed by a name and one value of its kind; all live until the
            // call returns, and a nested structure belongs to the transport.
            unsafe {
                match value {
                    Value::Number(number) => match i32::try_from(*number) {
                        Ok(number) => add(handle, c"d".as_ptr(), name, number),
                        Err(_) => add(
                            handle,
                            c"s".as_ptr(),
                            name,
                            text::to_c(&number.to_string()).as_ptr(),
                        ),
                    },
                    Value::Text(value) => {
                        add(handle, c"s".as_ptr(), name, text::to_c(value).as_ptr())
                    }
                    Value::Struct(fields) => {
                        let mut inner: *mut c_void = ptr::null_mut();
                        let added = add(handle, c"{".as_ptr(), name, &raw mut inner);
                        if added >= 0 && !inner.is_null() {
                            self.fill(inner, fields);
                        }
                        added
                    }
                }
            };
        }
    }
}
