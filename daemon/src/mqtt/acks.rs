//! Acknowledgements of requests, in the order in which the requests came in.
//!
//! MQTT 5 demands that order of a client [MQTT-4.6.0-2], and rumqttd ends the
//! connection of one that keeps another. So an acknowledgement waits here until all
//! earlier requests of its connection have theirs: the error for a later request is
//! sent at once, but acknowledged only after the request that is being computed.

use std::collections::VecDeque;

use super::Receipt;

/// The requests of the present connection that the broker holds a copy of.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    generation: u64,
    order: VecDeque<Outstanding>,
}

#[derive(Debug)]
struct Outstanding {
    packet_id: u16,
    done: bool,
}

impl Ledger {
    /// A new connection, whose packet ids have nothing to do with those before.
    pub(super) fn connected(&mut self, generation: u64) {
        self.generation = generation;
        self.order.clear();
    }

    /// A request came in. Whether it is a new one: some brokers send on the same
    /// connection again what is not acknowledged for long.
    pub(super) fn received(&mut self, receipt: Receipt) -> bool {
        if receipt.generation != self.generation {
            return true;
        }
        let packet_id = receipt.packet_id;
        if self.order.iter().any(|o| o.packet_id == packet_id) {
            return false;
        }
        self.order.push_back(Outstanding {
            packet_id,
            done: false,
        });
        true
    }

    /// A request is dealt with. A receipt of an earlier connection says nothing about
    /// the request that has its packet id now.
    pub(super) fn done(&mut self, receipt: Receipt) {
        if receipt.generation != self.generation {
            return;
        }
        let mut order = self.order.iter_mut();
        if let Some(outstanding) = order.find(|o| o.packet_id == receipt.packet_id) {
            outstanding.done = true;
        }
    }

    /// The packet id to acknowledge next, if its turn has come.
    pub(super) fn next(&self) -> Option<u16> {
        let first = self.order.front().filter(|o| o.done)?;
        Some(first.packet_id)
    }

    /// The one that [`Self::next`] named is acknowledged.
    pub(super) fn sent(&mut self) {
        self.order.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(generation: u64, packet_id: u16) -> Receipt {
        Receipt {
            generation,
            packet_id,
        }
    }

    fn ledger(generation: u64, packet_ids: &[u16]) -> Ledger {
        let mut ledger = Ledger::default();
        ledger.connected(generation);
        for &id in packet_ids {
            assert!(ledger.received(receipt(generation, id)));
        }
        ledger
    }

    fn take(ledger: &mut Ledger) -> Vec<u16> {
        std::iter::from_fn(|| {
            let id = ledger.next()?;
            ledger.sent();
            Some(id)
        })
        .collect()
    }

    #[test]
    fn the_order_is_that_of_arrival() {
        let mut ledger = ledger(1, &[7, 3, 5]);
        ledger.done(receipt(1, 5));
        ledger.done(receipt(1, 3));
        assert_eq!(take(&mut ledger), [0_u16; 0]);
        ledger.done(receipt(1, 7));
        assert_eq!(take(&mut ledger), [7, 3, 5]);
        ledger.done(receipt(1, 7));
        assert_eq!(take(&mut ledger), [0_u16; 0]);
    }

    #[test]
    fn a_packet_id_is_free_again_once_it_is_acknowledged() {
        let mut ledger = ledger(1, &[7]);
        assert!(!ledger.received(receipt(1, 7)));
        ledger.done(receipt(1, 7));
        assert!(!ledger.received(receipt(1, 7)));
        assert_eq!(take(&mut ledger), [7]);
        assert!(ledger.received(receipt(1, 7)));
        assert_eq!(take(&mut ledger), [0_u16; 0]);
    }

    #[test]
    fn a_receipt_of_an_earlier_connection_acknowledges_nothing() {
        let mut ledger = ledger(1, &[7]);
        ledger.connected(2);
        assert!(ledger.received(receipt(2, 7)));
        ledger.done(receipt(1, 7));
        assert_eq!(take(&mut ledger), [0_u16; 0]);
        ledger.done(receipt(2, 7));
        assert_eq!(take(&mut ledger), [7]);
    }
}
