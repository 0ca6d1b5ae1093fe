//! The bytes of a chat request: each has one reply, and nothing panics.

#![no_main]

#[path = "../../daemon/tests/hostile/node.rs"]
#[allow(dead_code)]
mod node;
#[path = "../../daemon/tests/hostile/script.rs"]
#[allow(dead_code)]
mod script;

libfuzzer_sys::fuzz_target!(|payload: &[u8]| {
    node::run_chat(payload);
});
