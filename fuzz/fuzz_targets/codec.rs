#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ctwds_fs::fuzzing::codec(bytes));
