//! Which models came up, and which did not: what is remembered from one run to the next.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Starts of a model that end without a word (it was killed, or the power went) before
/// another is taken.
const MOST_STARTS: u32 = 2;
/// Models that are remembered of each kind.
const MOST_GOOD: usize = 4;
const MOST_TRIALS: usize = 8;

/// A model as it lay there: another version of it is another candidate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Candidate {
    pub(super) folder: PathBuf,
    /// Differs when the manifest does, or when the model was chosen anew.
    pub(super) version: String,
}

/// A model that was started and has not come up since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Trial {
    candidate: Candidate,
    /// Those that ended without a word.
    starts: u32,
    /// What it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

impl Trial {
    /// One that says why is tried again with each start of the daemon, as there may be
    /// memory for it then, say. One that ends the daemon is not.
    fn is_over(&self) -> bool {
        self.starts >= MOST_STARTS
    }
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Those that came up, the last one first.
    #[serde(default)]
    good: Vec<Candidate>,
    #[serde(default)]
    trials: Vec<Trial>,
}

impl Record {
    /// What to try, one after the other: what is wanted, then what came up before. What did
    /// not come up is left out, unless there is nothing else.
    pub(super) fn plan(&self, wanted: Option<&Candidate>) -> Vec<Candidate> {
        let good = self.good.iter().filter(|good| {
            // An older version of the wanted one is gone.
            wanted.is_none_or(|wanted| wanted.folder != good.folder)
        });
        let mut plan: Vec<Candidate> = wanted.into_iter().chain(good).cloned().collect();
        plan.retain(|candidate| !self.is_given_up(candidate));
        if plan.is_empty() {
            plan.extend(wanted.cloned());
        }
        plan
    }

    /// Whether it came up in this version.
    pub(super) fn is_good(&self, candidate: &Candidate) -> bool {
        self.good.contains(candidate)
    }

    /// It is about to be loaded.
    pub(super) fn starting(&mut self, candidate: &Candidate) {
        let trial = self.trial_of(candidate);
        trial.starts = trial.starts.saturating_add(1);
    }

    /// It says why it cannot be loaded.
    pub(super) fn failed(&mut self, candidate: &Candidate, problem: String) {
        let trial = self.trial_of(candidate);
        trial.starts = 0;
        trial.problem = Some(problem);
    }

    /// It answers.
    pub(super) fn came_up(&mut self, candidate: &Candidate) {
        self.forget_trial(candidate);
        self.good.retain(|good| good.folder != candidate.folder);
        self.good.insert(0, candidate.clone());
        self.good.truncate(MOST_GOOD);
    }

    /// The daemon was told to stop before it could come up.
    pub(super) fn forget_trial(&mut self, candidate: &Candidate) {
        self.trials.retain(|trial| trial.candidate != *candidate);
    }

    /// Why it did not come up.
    pub(super) fn reason(&self, candidate: &Candidate) -> Option<String> {
        let trial = self.trials.iter().find(|t| t.candidate == *candidate)?;
        match trial.is_over() {
            true => Some(format!(
                "it was started {} times and did not come up",
                trial.starts
            )),
            false => trial.problem.clone(),
        }
    }

    fn is_given_up(&self, candidate: &Candidate) -> bool {
        let of_it = |trial: &&Trial| trial.candidate == *candidate;
        self.trials.iter().find(of_it).is_some_and(Trial::is_over)
    }

    fn trial_of(&mut self, candidate: &Candidate) -> &mut Trial {
        let before = self.trials.iter().position(|t| t.candidate == *candidate);
        let trial = match before {
            Some(index) => self.trials.remove(index),
            None => Trial {
                candidate: candidate.clone(),
                starts: 0,
                problem: None,
            },
        };
        self.trials.truncate(MOST_TRIALS - 1);
        self.trials.insert(0, trial);
        &mut self.trials[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(name: &str) -> Candidate {
        Candidate {
            folder: PathBuf::from(name),
            version: "1".to_owned(),
        }
    }

    /// The names in the plan.
    fn plan(record: &Record, wanted: &str) -> Vec<String> {
        let plan = record.plan(Some(&candidate(wanted))).into_iter();
        plan.map(|c| c.folder.display().to_string()).collect()
    }

    #[test]
    fn the_first_model_is_tried_for_ever() {
        let mut record = Record::default();
        for _ in 0..5 {
            assert_eq!(plan(&record, "a"), ["a"]);
            record.starting(&candidate("a"));
        }
        record.failed(&candidate("a"), "no memory".to_owned());
        assert_eq!(plan(&record, "a"), ["a"]);
        assert_eq!(record.reason(&candidate("a")).as_deref(), Some("no memory"));
        record.came_up(&candidate("a"));
        assert_eq!(record.reason(&candidate("a")), None);
        assert!(record.is_good(&candidate("a")));
    }

    #[test]
    fn one_that_says_why_is_tried_with_each_start() {
        let mut record = Record::default();
        record.came_up(&candidate("a"));
        for _ in 0..5 {
            assert_eq!(plan(&record, "b"), ["b", "a"]);
            record.starting(&candidate("b"));
            record.failed(&candidate("b"), "torn".to_owned());
        }
        assert_eq!(record.reason(&candidate("b")).as_deref(), Some("torn"));
        let again = Candidate {
            version: "2".to_owned(),
            ..candidate("b")
        };
        record.came_up(&again);
        assert_eq!(plan(&record, "c"), ["c", "b", "a"]);
    }

    #[test]
    fn one_that_dies_is_tried_twice() {
        let mut record = Record::default();
        record.came_up(&candidate("a"));
        record.starting(&candidate("b"));
        assert_eq!(plan(&record, "b"), ["b", "a"]);
        record.starting(&candidate("b"));
        assert_eq!(plan(&record, "b"), ["a"]);
        // Chosen anew, or mended: it is tried again.
        let again = Candidate {
            version: "2".to_owned(),
            ..candidate("b")
        };
        assert_eq!(record.plan(Some(&again)), [again.clone(), candidate("a")]);
        let reason = record.reason(&candidate("b")).unwrap();
        assert!(reason.contains("2 times"), "{reason}");
    }

    #[test]
    fn a_stop_in_good_order_does_not_count() {
        let mut record = Record::default();
        record.came_up(&candidate("a"));
        for _ in 0..5 {
            record.starting(&candidate("b"));
            record.forget_trial(&candidate("b"));
        }
        assert_eq!(plan(&record, "b"), ["b", "a"]);
    }

    #[test]
    fn a_good_one_that_dies_makes_room_for_the_one_before() {
        let mut record = Record::default();
        record.came_up(&candidate("a"));
        record.came_up(&candidate("b"));
        for _ in 0..MOST_STARTS {
            record.starting(&candidate("b"));
        }
        assert_eq!(plan(&record, "b"), ["a"]);
        for _ in 0..MOST_STARTS {
            record.starting(&candidate("a"));
        }
        // Nothing else is left.
        assert_eq!(plan(&record, "b"), ["b"]);
    }

    #[test]
    fn without_a_wanted_one_the_good_ones_are_left() {
        let mut record = Record::default();
        assert_eq!(record.plan(None), []);
        record.came_up(&candidate("a"));
        assert_eq!(record.plan(None), [candidate("a")]);
    }

    #[test]
    fn it_does_not_grow() {
        let mut record = Record::default();
        for name in 0..100 {
            record.starting(&candidate(&name.to_string()));
            record.came_up(&candidate(&(name + 1000).to_string()));
        }
        assert_eq!(record.good.len(), MOST_GOOD);
        assert_eq!(record.trials.len(), MOST_TRIALS);
    }
}
