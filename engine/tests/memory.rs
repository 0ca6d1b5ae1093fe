//! What `Model::memory_needed` says against what a load and a full context take.
//!
//! Its file of tests alone: the memory is that of the process.

mod support;

use std::fs;

use chaski_engine::{KvFormat, LoadOptions, Model};
use support::{CONTEXT, Folder};

/// Bytes of a field of `/proc/self/status`.
fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("the system tells");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let figure = line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next());
    figure.expect(field).parse::<u64>().expect(field) * 1024
}

/// The margin that the documentation of `MemoryNeeded` states.
fn within(estimate: u64, truth: u64) -> bool {
    estimate.abs_diff(truth) <= truth / 10 + (8 << 20)
}

#[test]
fn the_estimate_is_close_to_what_is_taken() {
    for large in [false, true] {
        // Of some size, so that it is not all a matter of what there is before.
        let folder = if large {
            Folder::large()
        } else {
            Folder::random(0)
        };
        let context = if large { 1024 } else { CONTEXT };
        for kv_cache in [KvFormat::F16, KvFormat::Int8, KvFormat::F32] {
            let options = LoadOptions {
                threads: Some(2),
                context_length: Some(context),
                kv_cache,
                ..LoadOptions::default()
            };
            let manifest = Model::look(&folder.path()).unwrap();
            let needed = Model::memory_needed(&manifest, &options);
            let model = Model::load(&folder.path(), &options).unwrap();
            assert_eq!(
                needed.kv_cache,
                (model.kv_bytes_per_token() * context) as u64
            );
            // Norms, tables of angles and the padding of the file are in it as well.
            let exact = model.weight_bytes_per_token();
            assert!(needed.weights >= exact, "{needed:?} {exact}");
            assert!(within(needed.weights, exact), "{needed:?} {exact}");

            let mut session = model.session().unwrap();
            let prompt: Vec<u32> = (0..context as u32 - 1).map(|i| 2 + i * 37 % 256).collect();
            session.prefill(&prompt).unwrap();
            session.decode(3).unwrap();
            let own = status("RssAnon");
            let estimate = needed.kv_cache + needed.scratch;
            assert!(
                within(estimate, own),
                "{kv_cache:?}, context {context}: {estimate} where {own} are taken"
            );
        }
    }
}
