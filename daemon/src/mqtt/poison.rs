//! A session whose first message ends every connection.
//!
//! What `rumqttc` cannot read ends the connection, and a broker that keeps a session
//! sends it again on the next one, for ever. Only without the session it is gone.

use std::time::Duration;

/// So many connections in a row are no accident.
const CONNECTIONS: u32 = 3;
/// What the broker held back comes at once after a connection is made.
const SOON: Duration = Duration::from_secs(2);

/// Counts connections that ended at once by what came in.
#[derive(Debug, Default)]
pub(super) struct Poison {
    in_a_row: u32,
}

impl Poison {
    /// A connection ended that had been up for so long; `unreadable`: by something
    /// that could not be read.
    pub(super) fn ended(&mut self, unreadable: bool, up: Duration) {
        if unreadable && up <= SOON {
            self.in_a_row += 1;
        } else {
            self.in_a_row = 0;
        }
    }

    /// Whether the next connection should leave the session behind. Says so once.
    pub(super) fn takes_effect(&mut self) -> bool {
        let found = self.in_a_row >= CONNECTIONS;
        if found {
            self.in_a_row = 0;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_in_a_row_only_at_once_and_only_the_unreadable() {
        let mut poison = Poison::default();
        let mut after = |ends: &[(bool, u64)]| {
            for &(unreadable, seconds) in ends {
                poison.ended(unreadable, Duration::from_secs(seconds));
            }
            poison.takes_effect()
        };
        assert!(!after(&[(true, 0), (true, 1)]));
        assert!(!after(&[(true, 3), (true, 0), (true, 0)]));
        assert!(!after(&[(false, 0), (true, 0), (true, 0)]));
        assert!(after(&[(true, 0)]));
        assert!(!after(&[(true, 0)]));
    }
}
