#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| apiban_fuzz::api_answer::run(data));
