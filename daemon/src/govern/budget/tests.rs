use chaski_engine::FileEntry;

use super::*;

fn mib(mib: u64) -> u64 {
    mib * MIB
}

/// In the shape of Llama 3.2 1B.
fn manifest() -> Manifest {
    let file = |bytes: u64| serde_json::json!({"bytes": bytes, "sha256": "00"});
    let manifest = serde_json::json!({
        "format": "chaski-model", "format_version": 1, "created_by": "test",
        "architecture": {
            "family": "llama", "hidden_size": 2048, "intermediate_size": 8192, "layers": 16,
            "heads": 32, "kv_heads": 8, "head_dim": 64, "vocab_size": 128_256,
            "context_length": 131_072, "rms_norm_eps": 1e-5, "rope_theta": 5e5,
            "rope_scaling": null, "tied_embeddings": true,
            "attention_bias": false, "mlp_bias": false
        },
        "quantisation": {"bits": 4, "embedding_bits": 4, "block_size": 32, "scheme": "auto"},
        "files": {"model.onnx.data": file(mib(700) + 131_072 * 32 * 8)},
        "source": {"kind": "gguf", "files": {}}
    });
    serde_json::from_value(manifest).unwrap()
}

fn options(context_length: Option<usize>) -> LoadOptions {
    LoadOptions {
        threads: Some(4),
        context_length,
        ..LoadOptions::default()
    }
}

#[test]
fn the_default_budget_leaves_something_to_others() {
    let of = |total, available, own| {
        let there = MemoryThere {
            total: Some(mib(total)),
            available,
            own: mib(own),
            cgroup: None,
        };
        budget(&config::Memory::default(), &there).unwrap() / MIB
    };
    // A sixteenth, but at least 48 and at most 512 MiB.
    assert_eq!(of(512, None, 0), 464);
    assert_eq!(of(1024, None, 0), 960);
    assert_eq!(of(16_384, None, 0), 15_872);
    // Others have some of it already; what is ours comes back.
    assert_eq!(of(1024, Some(mib(500)), 100), 600 - 64);
    assert_eq!(of(1024, Some(mib(1000)), 100), 960);
    assert_eq!(of(512, Some(mib(20)), 0), 0);
    assert_eq!(
        budget(&config::Memory::default(), &MemoryThere::default()),
        None
    );
}

#[test]
fn the_budget_that_is_given_and_that_of_the_cgroup() {
    let there = MemoryThere {
        total: Some(mib(1024)),
        available: Some(mib(900)),
        own: 0,
        cgroup: Some(mib(300)),
    };
    let config = |budget_mib, reserve_mib| config::Memory {
        budget_mib,
        reserve_mib,
        ..config::Memory::default()
    };
    let of = |config, there: &MemoryThere| budget(&config, there).map(|bytes| bytes / MIB);
    assert_eq!(of(config(None, None), &there), Some(300));
    assert_eq!(of(config(Some(200), None), &there), Some(200));
    assert_eq!(of(config(Some(2000), None), &there), Some(300));
    let free = MemoryThere {
        cgroup: None,
        ..there
    };
    assert_eq!(of(config(None, Some(100)), &free), Some(800));
    assert_eq!(of(config(Some(2000), Some(100)), &free), Some(2000));
    let nothing_known = MemoryThere::default();
    assert_eq!(of(config(Some(200), None), &nothing_known), Some(200));
}

#[test]
fn what_fits_is_left_as_it_is() {
    for context in [None, Some(2048)] {
        let fit = fit(&manifest(), options(context), None, mib(2000)).unwrap();
        assert_eq!(fit.options, options(context));
        assert_eq!(fit.instead_of, None);
        assert_eq!(
            fit.needed.weights / MIB,
            if context.is_some() { 700 } else { 701 }
        );
    }
}

#[test]
fn without_a_context_length_the_longest_that_fits_is_taken() {
    // 32 KiB of KV cache a token: 100 MiB less are 3200 tokens less, and something.
    let whole = Model::memory_needed(&manifest(), &options(None)).total();
    let fit = fit(&manifest(), options(None), None, whole - mib(50)).unwrap();
    let context = fit.options.context_length.unwrap();
    assert_eq!(fit.instead_of, Some(4096));
    assert!(
        (2432..=2688).contains(&context) && context.is_multiple_of(CONTEXT_STEP),
        "{context}"
    );
    assert!(fit.needed.total() <= whole - mib(50));
    let next = LoadOptions {
        context_length: Some(context + CONTEXT_STEP),
        ..fit.options
    };
    assert!(Model::memory_needed(&manifest(), &next).total() > whole - mib(50));
}

#[test]
fn what_does_not_fit_says_what_would() {
    let needed = Model::memory_needed(&manifest(), &options(Some(4096)));
    let refused = |context, budget| fit(&manifest(), options(context), None, budget).unwrap_err();
    let error = refused(Some(4096), needed.total() - mib(20));
    for part in [
        "context-length = 4096 needs ",
        "(weights 701 MiB, KV cache 128 MiB, all else ",
        "the memory budget is ",
        "context-length = 3",
        "kv-cache = \"int8\" would fit",
        "a model of at most 681 MiB would fit",
    ] {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
    // Not even the shortest context.
    let error = refused(None, mib(400));
    assert!(!error.contains("would fit, or"), "{error}");
    assert!(error.contains("context-length = 256 needs"), "{error}");
    assert!(error.contains("a model of at most "), "{error}");
    assert!(!error.contains("int8"), "{error}");
    // With the context that is wanted there is no room for any model.
    let error = refused(Some(100_000), mib(400));
    assert!(
        error.contains(" with context-length = 256 would fit"),
        "{error}"
    );
    let error = refused(None, mib(20));
    assert!(
        error.contains("no model fits") && error.contains("[memory]"),
        "{error}"
    );
}

#[test]
fn a_small_model_needs_no_less_than_its_own_context() {
    let mut manifest = manifest();
    manifest.architecture.context_length = 64;
    manifest.files.insert(
        "model.onnx.data".into(),
        FileEntry {
            bytes: mib(700),
            sha256: String::new(),
        },
    );
    assert!(fit(&manifest, options(None), None, mib(800)).is_ok());
    let error = fit(&manifest, options(None), None, mib(300)).unwrap_err();
    assert!(error.contains("context-length = 64 needs"), "{error}");
}

#[test]
fn the_longest_context_is_found() {
    for fits in [0, 255, 256, 300, 384, 1000, 4000, 4095] {
        let expected = fits / 128 * 128;
        let found = longest(4096, |context| context <= fits);
        assert_eq!(found, (expected >= 256).then_some(expected), "{fits}");
    }
    assert_eq!(longest(4096, |_| true), Some(3968));
    for short in [1, 128, 256] {
        assert_eq!(longest(short, |_| true), None, "{short}");
    }
}

#[test]
fn bytes_for_people() {
    assert_eq!(human(mib(9) + MIB / 2), "9.5 MiB");
    assert_eq!(human(mib(112)), "112 MiB");
    assert_eq!(human(mib(1946)), "1.9 GiB");
}

#[test]
fn a_wish_of_the_board_is_taken_as_far_as_it_fits() {
    let with_wish = |context, wish, budget| {
        let fit = fit(&manifest(), options(context), Some(wish), budget).unwrap();
        (fit.options.context_length, fit.instead_of)
    };
    assert_eq!(with_wish(None, 8192, mib(2000)), (Some(8192), None));
    // The user's word is above it.
    assert_eq!(with_wish(Some(1024), 8192, mib(2000)), (Some(1024), None));
    let (context, instead_of) = with_wish(None, 8192, mib(900));
    assert!(
        context.unwrap() < 8192 && instead_of == Some(8192),
        "{context:?}"
    );
    // No more than the model takes.
    assert_eq!(
        with_wish(None, 1 << 20, mib(1 << 20)),
        (Some(131_072), None)
    );
}
