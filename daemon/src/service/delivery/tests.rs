//! One test for each row of the table, over its columns.

use super::*;
use crate::config::Config;

const KEY: u64 = 1;

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Unknown,
    Pending,
    Sent,
    SentError,
    Answered,
}

use State::*;

const ALL: [State; 5] = [Unknown, Pending, Sent, SentError, Answered];

fn request() -> Request {
    Request {
        receipt: Some(Receipt::new(1, 1)),
        correlation: Some("c".into()),
        ..Request::default()
    }
}

fn route() -> Route {
    let config = Config::for_model("m");
    Route::for_ask(&request(), &config.topics(), &config.limits).unwrap()
}

fn sent(error: bool) -> super::Sent {
    let route = route();
    super::Sent {
        replay: (!error).then(|| route.done("hello", "stop")),
        route,
    }
}

/// A request of this name in this state, with the receipt of packet 1.
fn in_state(state: State, named: bool) -> Deliveries {
    let mut deliveries = Deliveries::new(&Delivery::default());
    if state != Unknown {
        let request = request();
        deliveries.open(KEY, Identity::of(&request), named, request.receipt);
    }
    match state {
        Unknown | Pending => {}
        Sent => deliveries.sent(KEY, sent(false)),
        SentError => deliveries.sent(KEY, sent(true)),
        Answered => {
            deliveries.sent(KEY, sent(false));
            assert_eq!(deliveries.taken(KEY, Instant::now()), [Receipt::new(1, 1)]);
        }
    }
    deliveries
}

/// The state it is in, and how many receipts it has.
fn state(deliveries: &Deliveries) -> (State, usize) {
    let cached = deliveries.cache.routes().count();
    match &deliveries.live[..] {
        [] if cached == 1 => (Answered, 0),
        [] => (Unknown, 0),
        [live] => {
            let state = match &live.sent {
                None => Pending,
                Some(sent) if sent.replay.is_some() => Sent,
                Some(_) => SentError,
            };
            (state, live.receipts.len())
        }
        more => panic!("{more:?}"),
    }
}

fn arrives(deliveries: &mut Deliveries, redelivered: bool) -> Known {
    let request = Request {
        redelivered,
        receipt: Some(Receipt::new(2, 1)),
        ..request()
    };
    deliveries.arrived(&Identity::of(&request), &request, Instant::now())
}

#[test]
fn it_comes() {
    for (before, expected) in [
        (Unknown, (Unknown, 0)),
        (Pending, (Pending, 2)),
        (Sent, (Sent, 2)),
        (SentError, (SentError, 2)),
        // The answer is handed out, to be opened and sent under a key of its own.
        (Answered, (Unknown, 0)),
    ] {
        let mut deliveries = in_state(before, true);
        let known = arrives(&mut deliveries, false);
        match before {
            Unknown => assert_eq!(known, Known::New),
            Pending | Sent | SentError => assert_eq!(known, Known::UnderWay),
            Answered => match known {
                Known::Answered(a) => assert_eq!(a.message, sent(false).replay.unwrap()),
                other => panic!("{other:?}"),
            },
        }
        assert_eq!(state(&deliveries), expected, "{before:?}");
    }
}

#[test]
fn it_comes_without_a_name() {
    for before in ALL {
        // Another request with the same text.
        let mut deliveries = in_state(before, false);
        let unchanged = state(&deliveries);
        assert_eq!(arrives(&mut deliveries, false), Known::New, "{before:?}");
        assert_eq!(state(&deliveries), unchanged);
        // Sent again by the broker, while the first one's receipt is good still: another.
        if before != Answered {
            assert_eq!(arrives(&mut deliveries, true), Known::New, "{before:?}");
        }
        // Sent again by the broker for the one that lost its receipt.
        deliveries.connection_lost();
        let known = arrives(&mut deliveries, true);
        match before {
            Unknown => assert_eq!(known, Known::New),
            Pending | Sent | SentError => {
                assert_eq!(known, Known::UnderWay);
                assert_eq!(state(&deliveries), (before, 1));
                assert_eq!(arrives(&mut deliveries, true), Known::New, "one for one");
            }
            Answered => {
                assert!(matches!(known, Known::Answered(_)));
                assert_eq!(arrives(&mut deliveries, true), Known::New, "one for one");
            }
        }
    }
}

#[test]
fn its_last_message_is_made() {
    for (before, expected) in [(Unknown, Unknown), (Pending, Sent), (Answered, Answered)] {
        let mut deliveries = in_state(before, true);
        deliveries.sent(KEY, sent(false));
        assert_eq!(state(&deliveries).0, expected, "{before:?}");
    }
    let mut deliveries = in_state(Pending, true);
    deliveries.sent(KEY, sent(true));
    assert_eq!(state(&deliveries), (SentError, 1));
}

#[test]
fn the_broker_has_it() {
    for (before, expected, acknowledged) in [
        (Unknown, Unknown, 0),
        (Pending, Pending, 0),
        (Sent, Answered, 1),
        (SentError, Unknown, 1),
        (Answered, Answered, 0),
    ] {
        let mut deliveries = in_state(before, true);
        let receipts = deliveries.taken(KEY, Instant::now());
        assert_eq!(receipts.len(), acknowledged, "{before:?}");
        assert_eq!(state(&deliveries).0, expected, "{before:?}");
    }
}

#[test]
fn the_broker_does_not_want_it() {
    for (before, expected, acknowledged) in [
        (Unknown, Unknown, 0),
        (Pending, Pending, 0),
        (Sent, Unknown, 1),
        (SentError, Unknown, 1),
        (Answered, Answered, 0),
    ] {
        let mut deliveries = in_state(before, true);
        assert_eq!(deliveries.refused(KEY).len(), acknowledged, "{before:?}");
        assert_eq!(state(&deliveries).0, expected, "{before:?}");
    }
}

#[test]
fn it_is_too_large() {
    for (before, expected) in [
        (Unknown, (Unknown, 0)),
        (Pending, (Pending, 1)),
        (Sent, (SentError, 1)),
        (SentError, (Unknown, 0)),
        (Answered, (Answered, 0)),
    ] {
        let mut deliveries = in_state(before, true);
        match (before, deliveries.too_large(KEY)) {
            (Sent, TooLarge::Replace(to)) => assert_eq!(to, route()),
            (SentError, TooLarge::GiveUp(receipts)) => {
                assert_eq!(receipts, [Receipt::new(1, 1)]);
            }
            (Unknown | Pending | Answered, TooLarge::GiveUp(receipts)) => {
                assert_eq!(receipts, []);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(state(&deliveries), expected, "{before:?}");
    }
}

#[test]
fn the_connection_is_lost() {
    for before in ALL {
        let mut deliveries = in_state(before, true);
        deliveries.connection_lost();
        assert_eq!(state(&deliveries), (before, 0));
        let kept = matches!(before, Pending | Sent | SentError);
        assert_eq!(deliveries.at_least_once(KEY), kept);
    }
}

#[test]
fn the_node_goes_down() {
    let mut deliveries = in_state(Pending, true);
    deliveries.close(KEY);
    assert_eq!(state(&deliveries), (Unknown, 0));
}

#[test]
fn an_answer_that_nobody_can_ask_for_again_is_not_kept() {
    let mut deliveries = Deliveries::new(&Delivery::default());
    deliveries.open(KEY, Identity::of(&request()), false, None);
    deliveries.sent(KEY, sent(false));
    assert_eq!(deliveries.taken(KEY, Instant::now()), []);
    assert_eq!(state(&deliveries), (Unknown, 0));
}

#[test]
fn a_second_try_with_a_receipt_makes_it_at_least_once() {
    let mut deliveries = Deliveries::new(&Delivery::default());
    deliveries.open(KEY, Identity::of(&request()), true, None);
    assert!(!deliveries.at_least_once(KEY));
    assert_eq!(arrives(&mut deliveries, false), Known::UnderWay);
    assert!(deliveries.at_least_once(KEY));
}
