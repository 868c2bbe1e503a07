#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| apiban_fuzz::rpc_command::run(data));
