#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern_fuzz::run("proxy_header", bytes));
