//! Strangers' messages of all kinds, connections that are lost, answers that are refused:
//! what must hold is in `daemon/tests/hostile/node.rs`.

#![no_main]

#[path = "../../daemon/tests/hostile/node.rs"]
#[allow(dead_code)]
mod node;
#[path = "../../daemon/tests/hostile/script.rs"]
mod script;

libfuzzer_sys::fuzz_target!(|script: script::Script| {
    node::run(script);
});
