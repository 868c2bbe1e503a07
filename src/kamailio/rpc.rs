//! Commands between Kamailio's RPC transports and [`crate::rpc`].

use std::ffi::{c_char, c_void};
use std::ptr;

use super::bindings as k;
use super::guard::guard;
use super::module::module;
use super::tables::{leak_table, trampolines, TRAMPOLINES};
use super::{arguments, load, text};
use crate::rpc::{Arguments, Command, Fault, Fields, Reply, Service, Shape, Value, COMMANDS};

const _: () = assert!(COMMANDS.len() <= TRAMPOLINES);

/// The table for the core.
pub fn table() -> *mut k::rpc_export_t {
    let handlers = trampolines!(handle as Handler);
    leak_table(
        COMMANDS
            .iter()
            .zip(handlers)
            .map(|(command, handler)| k::rpc_export_t {
                name: text::leak(command.name),
                function: Some(handler),
                // The core reads two pointers.
                doc_str: Vec::leak(vec![text::leak(command.help), ptr::null()]).as_mut_ptr(),
                // Without it JSON-RPC keeps only the last of several structures.
                flags: if command.returns == Shape::List {
                    k::RPC_RET_ARRAY
                } else {
                    0
                },
            }),
    )
}

type Handler = unsafe extern "C" fn(*mut k::rpc_t, *mut c_void);

unsafe extern "C" fn handle<const INDEX: usize>(rpc: *mut k::rpc_t, context: *mut c_void) {
    // SAFETY: both come from the transport and are valid during the call.
    guard((), "an RPC command", || unsafe {
        serve(INDEX, rpc, context)
    });
}

/// # Safety
/// `rpc` must be NULL or valid during the call, and `context` what belongs to it.
unsafe fn serve(index: usize, rpc: *mut k::rpc_t, context: *mut c_void) {
    // SAFETY: the caller's.
    let Some(transport) = (unsafe { rpc.as_ref() }).map(|rpc| Transport { rpc, context }) else {
        return;
    };
    match run(&transport, index) {
        Ok(reply) => transport.reply(&reply),
        Err(fault) => transport.fault(&fault),
    }
}

fn run(transport: &Transport<'_>, index: usize) -> Result<Reply, Fault> {
    let (Some(module), Some(command)) = (module(), COMMANDS.get(index)) else {
        return Err(Fault {
            code: 503,
            text: "the module is not running".into(),
        });
    };
    let arguments = transport.arguments(command)?;
    let service = Service {
        bans: module.bans(),
        config: &module.config,
        kamailio: &load::release(),
    };
    (command.run)(&service, &arguments)
}

/// One command in progress.
struct Transport<'a> {
    rpc: &'a k::rpc_t,
    context: *mut c_void,
}

impl Transport<'_> {
    /// The arguments of `command`, not more than it takes.
    fn arguments(&self, command: &Command) -> Result<Arguments, Fault> {
        let most = command.arguments.len();
        // SAFETY: transport and context belong together.
        let read = unsafe { arguments::read(self.rpc, self.context) };
        let too_many = || Fault {
            code: 400,
            text: format!("too many arguments: {} takes {most}", command.name),
        };
        match read {
            Ok(arguments) if arguments.len() <= most => Ok(Arguments(arguments)),
            Err(index) if index < most => Err(Fault::argument(
                command.arguments[index],
                "neither text nor a whole number",
            )),
            _ => Err(too_many()),
        }
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
