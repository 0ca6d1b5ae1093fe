//! On a disk.

use std::os::unix::fs::symlink;

use super::*;

/// A model store with a link to the model that is wanted.
struct Store(tempfile::TempDir);

impl Store {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// `a` came up, and now `b` is wanted.
    fn with_a_new_model() -> Self {
        let store = Self::new();
        store.add("a");
        store.add("b");
        store.choose("a");
        store.good_start();
        store.choose("b");
        store
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().canonicalize().unwrap().join(name)
    }

    fn add(&self, name: &str) {
        fs::create_dir(self.path(name)).unwrap();
        fs::write(self.path(name).join(MANIFEST), name).unwrap();
    }

    fn choose(&self, name: &str) {
        let _ = fs::remove_file(self.path("current"));
        symlink(name, self.path("current")).unwrap();
    }

    /// What a start of the daemon has to do with.
    fn start(&self) -> LastGood {
        LastGood::take_up(&self.path("last-good"), &self.path("current"))
    }

    /// A start at which the model comes up.
    fn good_start(&self) {
        let mut start = self.start();
        start.next().unwrap();
        start.starting();
        start.came_up();
    }
}

#[test]
fn a_new_model_that_fails_is_left_for_the_last_good_one() {
    let store = Store::with_a_new_model();
    for _ in 0..3 {
        let mut last_good = store.start();
        assert_eq!(last_good.next(), Some(store.path("b")));
        assert!(last_good.is_new());
        last_good.starting();
        last_good.failed("torn");
        assert_eq!(last_good.next(), Some(store.path("a")));
        assert!(!last_good.is_new());
        last_good.came_up();
        let instead_of = last_good.instead_of(&store.path("current"));
        let expected = InsteadOf {
            folder: store.path("b"),
            reason: "torn".to_owned(),
        };
        assert_eq!(instead_of, Some(expected));
        assert_eq!(last_good.next(), None);
    }
    // Mended.
    fs::write(store.path("b").join(MANIFEST), "again").unwrap();
    let mut last_good = store.start();
    assert_eq!(last_good.next(), Some(store.path("b")));
    last_good.came_up();
    assert_eq!(last_good.instead_of(&store.path("current")), None);
}

#[test]
fn a_new_model_that_ends_the_process_is_left_too() {
    let store = Store::with_a_new_model();
    for _ in 0..2 {
        let mut last_good = store.start();
        assert_eq!(last_good.next(), Some(store.path("b")));
        last_good.starting();
    }
    assert_eq!(store.start().next(), Some(store.path("a")));
    // The same link made once more asks for another try.
    std::thread::sleep(std::time::Duration::from_millis(20));
    store.choose("b");
    let mut last_good = store.start();
    assert_eq!(last_good.next(), Some(store.path("b")));
    last_good.starting();
    last_good.stopped();
    assert_eq!(store.start().next(), Some(store.path("b")));
}

#[test]
fn a_link_that_leads_nowhere() {
    let store = Store::new();
    store.add("a");
    store.choose("a");
    store.good_start();
    store.choose("gone");
    let mut last_good = store.start();
    assert_eq!(last_good.next(), Some(store.path("a")));
    let instead_of = last_good.instead_of(&store.path("current")).unwrap();
    assert_eq!(instead_of.folder, store.path("current"));
    assert!(instead_of.reason.contains("No such file"), "{instead_of:?}");
    // And there is nothing at all where no model ever came up.
    fs::remove_file(store.path("last-good")).unwrap();
    assert_eq!(store.start().next(), None);
}

#[test]
fn a_record_that_is_none_begins_anew() {
    let store = Store::new();
    store.add("a");
    store.choose("a");
    fs::write(store.path("last-good"), "{\"good\": 3}").unwrap();
    let mut last_good = store.start();
    assert_eq!(last_good.next(), Some(store.path("a")));
    last_good.starting();
    assert!(read(&store.path("last-good")).is_ok());
}

#[test]
fn a_long_complaint_is_cut() {
    let store = Store::new();
    store.add("a");
    store.choose("a");
    let mut last_good = store.start();
    last_good.next().unwrap();
    last_good.failed(&"é".repeat(MOST_PROBLEM_BYTES));
    assert!(fs::metadata(store.path("last-good")).unwrap().len() < 2000);
}
