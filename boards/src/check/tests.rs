use super::*;

const PROFILE: &str = r#"
    name = "mine"
    title = "Mine"
    compatible = ["me,mine"]
    [processor]
    count = 4
    cores = [0, 1, 2]
    prefill-threads = 3
    decode-threads = 2
    kernels = "neon"
    [memory]
    reserve-mib = 128
    sizes-mib = [512, 1024]
    visible-percent = 80
    bandwidth = { gb-per-second = 2.0, basis = "estimate", source = "x" }
    [[by-memory]]
    ram-mib = 512
    kv-cache = "int8"
    context-length = 1024
    prefill-chunk = 32
    [[by-memory]]
    ram-mib = 1024
    [heat]
    zones = ["cpu-thermal"]
    ease-off = 70
    refuse = 80
    [[models]]
    model = "smollm2-135m"
    ram-mib = 512
    context-length = 1024
    decode = 22.5
    basis = "estimate"
    source = "x"
"#;

fn keys(from: &str, to: &str) -> Vec<String> {
    assert!(PROFILE.contains(from), "{from}");
    let profile = Profile::parse(&PROFILE.replace(from, to)).unwrap();
    profile.problems().into_iter().map(|p| p.key).collect()
}

#[test]
fn a_good_profile_has_no_problem() {
    assert_eq!(keys("mine", "mine"), [""; 0]);
}

#[test]
fn each_wrong_value_is_named() {
    for (from, to, key) in [
        ("name = \"mine\"", "name = \"My Board\"", "name"),
        ("\"Mine\"", "\" \"", "title"),
        ("\"me,mine\"", "\"mine\"", "compatible[0]"),
        ("\"me,mine\"", "\"me,mine\", \"me,mine\"", "compatible[1]"),
        ("count = 4", "count = 0", "processor.count"),
        ("count = 4", "count = 2", "processor.prefill-threads"),
        (
            "prefill-threads = 3",
            "prefill-threads = 5",
            "processor.prefill-threads",
        ),
        (
            "decode-threads = 2",
            "decode-threads = 0",
            "processor.decode-threads",
        ),
        ("[0, 1, 2]", "[]", "processor.cores"),
        ("[0, 1, 2]", "[0, 1, 4]", "processor.cores"),
        ("[0, 1, 2]", "[0, 1, 1]", "processor.cores"),
        ("[0, 1, 2]", "[0, 1]", "processor.cores"),
        ("\"neon\"", "\"neon2\"", "processor.kernels"),
        (
            "reserve-mib = 128",
            "reserve-mib = 300",
            "memory.reserve-mib",
        ),
        (
            "visible-percent = 80",
            "visible-percent = 101",
            "memory.visible-percent",
        ),
        (
            "gb-per-second = 2.0",
            "gb-per-second = nan",
            "memory.bandwidth.gb-per-second",
        ),
        ("ease-off = 70", "ease-off = 80", "heat.refuse"),
        ("ease-off = 70", "ease-off = 20", "heat.ease-off"),
        ("refuse = 80", "refuse = inf", "heat.refuse"),
        ("refuse = 80", "refuse = nan", "heat.refuse"),
        ("\"cpu-thermal\"", "\"\"", "heat.zones"),
        ("ram-mib = 1024", "ram-mib = 512", "by-memory[1].ram-mib"),
        (
            "prefill-chunk = 32",
            "prefill-chunk = 0",
            "by-memory[0].prefill-chunk",
        ),
        ("smollm2-135m", "smollm3", "models[0].model"),
        ("smollm2-135m", "llama-3.2-1b", "models[0].ram-mib"),
        (
            "sizes-mib = [512, 1024]",
            "sizes-mib = [1024]",
            "models[0].ram-mib",
        ),
        ("decode = 22.5", "decode = 30.0", "models[0].decode"),
    ] {
        assert!(
            keys(from, to).contains(&key.to_owned()),
            "{to}: {:?}",
            keys(from, to)
        );
    }
}
