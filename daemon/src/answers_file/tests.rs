use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::Config;
use crate::inference::{Completed, Finished};
use crate::mqtt::Request;
use crate::service::Output;
use chaski_engine::{FinishReason, Generated, Timings};

fn config(path: &Path) -> Config {
    let mut config = Config::for_model("m");
    config.delivery.answers_file = Some(path.to_owned());
    config.delivery.dedup_bytes = 10_000;
    config.limits.rate_per_minute = 0;
    config
}

fn chat(id: &str) -> Request {
    let payload = format!(r#"{{"id": "{id}", "messages": [{{"role": "user", "content": "hi"}}]}}"#);
    Request {
        topic: "chaski/board/chat".into(),
        payload: payload.into(),
        ..Request::default()
    }
}

/// Answers a request with this text; its answer is written down.
fn answer(service: &mut Service, file: &mut AnswersFile, id: &str, text: &str) {
    let (now, mut out) = (Instant::now(), Vec::new());
    service.on_request(&chat(id), now, &mut out);
    let key = service.next_job(now, &mut out).expect("a job").key;
    let generated = Generated {
        text: text.to_owned(),
        tokens: vec![1],
        finish_reason: FinishReason::Stop,
        timings: Timings::default(),
    };
    let result = Ok(Completed {
        prompt_tokens: 1,
        generated,
    });
    service.on_finished(Finished { key, result }, now, &mut out);
    for output in out {
        match output {
            Output::Keep(kept) => file.append(&kept, service),
            Output::Final { key, .. } => {
                service.on_delivered(key, crate::service::Outcome::Taken, now, &mut Vec::new());
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A service that went on with the file.
fn run(path: &Path) -> (Service, AnswersFile) {
    let config = config(path);
    let mut service = Service::new(&config, "m".into());
    let file = AnswersFile::take_up(&config.delivery, &mut service).unwrap();
    (service, file.unwrap())
}

fn is_known(service: &mut Service, id: &str) -> bool {
    let mut out = Vec::new();
    service.on_request(&chat(id), Instant::now(), &mut out);
    matches!(out.first(), Some(Output::Final { .. }))
}

#[test]
fn the_next_run_knows_what_was_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answers");
    let (mut service, mut file) = run(&path);
    answer(&mut service, &mut file, "a", "hello\nwörld");
    answer(&mut service, &mut file, "b", "hello");
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, MODE);
    drop((service, file));
    for _ in 0..2 {
        let (mut service, _) = run(&path);
        assert!(is_known(&mut service, "a") && is_known(&mut service, "b"));
        assert!(!is_known(&mut service, "c"));
    }
}

#[test]
fn a_line_that_is_cut_short_costs_only_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answers");
    let (mut service, mut file) = run(&path);
    answer(&mut service, &mut file, "a", "hello");
    answer(&mut service, &mut file, "b", "hello");
    let mut text = fs::read(&path).unwrap();
    text.truncate(text.len() - 10);
    text.splice(0..0, *b"\xff{}\n");
    fs::write(&path, text).unwrap();
    let (mut service, _) = run(&path);
    assert!(is_known(&mut service, "a") && !is_known(&mut service, "b"));
    let (mut service, mut file) = run(&path);
    // The rest of the line is gone: what is written now stands by itself.
    answer(&mut service, &mut file, "c", "hello");
    let (mut service, _) = run(&path);
    assert!(is_known(&mut service, "a") && is_known(&mut service, "c"));
}

#[test]
fn bounded_whatever_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answers");
    let (mut service, mut file) = run(&path);
    let most = file.most_bytes + 5000;
    let mut written = 0;
    for n in 0..400 {
        answer(&mut service, &mut file, &format!("q{n}"), &"x".repeat(2000));
        written += 2000;
        assert!(fs::metadata(&path).unwrap().len() < most);
    }
    assert!(written > 2 * most);
    let (mut service, _) = run(&path);
    assert!(is_known(&mut service, "q399") && !is_known(&mut service, "q300"));
}

#[test]
fn a_file_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("no/answers");
    let config = config(&path);
    let mut service = Service::new(&config, "m".into());
    let error = AnswersFile::take_up(&config.delivery, &mut service).unwrap_err();
    assert!(error.to_string().contains("no/answers"), "{error}");
    assert!(error.to_string().contains("delivery.answers-file"));
    fs::create_dir(folder.path().join("no")).unwrap();
    let (mut service, mut file) = run(&path);
    // Then the disk is taken away: answers go on.
    fs::remove_dir_all(folder.path().join("no")).unwrap();
    file.bytes = u64::MAX;
    answer(&mut service, &mut file, "a", "hello");
    assert!(file.failing && is_known(&mut service, "a"));
    fs::create_dir(folder.path().join("no")).unwrap();
    answer(&mut service, &mut file, "b", "hello");
    assert!(!file.failing);
    let (mut service, _) = run(&path);
    assert!(is_known(&mut service, "a") && is_known(&mut service, "b"));
}
