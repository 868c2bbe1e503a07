#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| apiban_fuzz::cluster_message::run(data));
