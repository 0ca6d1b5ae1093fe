use super::*;
use crate::mqtt::ContentType;

const ROOM: Room = Room {
    window: WINDOW,
    max_packet_size: None,
};

fn message(name: &str) -> Message {
    Message::retained(name.to_owned(), "x", ContentType::Text)
}

fn droppable(name: &str) -> Message {
    Message {
        droppable: true,
        ..message(name)
    }
}

fn take_within(outbox: &mut Outbox, room: Room) -> Vec<String> {
    std::iter::from_fn(|| {
        let topic = outbox.next(room)?.topic.clone();
        outbox.handed_over();
        Some(topic)
    })
    .collect()
}

fn take(outbox: &mut Outbox) -> Vec<String> {
    take_within(outbox, ROOM)
}

fn outcomes(outbox: &mut Outbox) -> Vec<(u64, Delivered)> {
    std::iter::from_fn(|| outbox.outcome()).collect()
}

#[test]
fn acknowledged_messages_are_forgotten_whatever_the_order() {
    let mut outbox = Outbox::default();
    ["a", "b", "c"].iter().for_each(|n| outbox.push(message(n)));
    assert_eq!(take(&mut outbox), ["a", "b", "c"]);
    (1..=3).for_each(|id| outbox.sent(id));
    outbox.acked(2, None);
    outbox.acked(9, None);
    outbox.acked(1, None);
    assert!(!outbox.is_empty());
    outbox.acked(3, None);
    assert!(outbox.is_empty());
}

#[test]
fn a_lost_connection_sends_the_rest_again_in_order() {
    let mut outbox = Outbox::default();
    ["a", "b", "c", "d", "e"]
        .iter()
        .for_each(|n| outbox.push(message(n)));
    let room = Room { window: 4, ..ROOM };
    assert_eq!(take_within(&mut outbox, room), ["a", "b", "c", "d"]);
    (1..=3).for_each(|id| outbox.sent(id));
    outbox.acked(1, None);
    outbox.acked(3, None);
    outbox.lost();
    assert_eq!(take(&mut outbox), ["b", "d", "e"]);
}

#[test]
fn presence_goes_first_and_dies_with_its_connection() {
    let mut outbox = Outbox::default();
    outbox.push(message("reply"));
    outbox.push_presence([message("info"), droppable("status")].into_iter());
    assert_eq!(take(&mut outbox), ["info", "status", "reply"]);
    outbox.push_presence([droppable("status")].into_iter());
    outbox.lost();
    assert_eq!(take(&mut outbox), ["reply"]);
    assert_eq!(outbox.droppable.messages, 0);
}

#[test]
fn the_window_starts_at_the_oldest_without_acknowledgement() {
    let mut outbox = Outbox::default();
    (0..9).for_each(|i| outbox.push(message(&i.to_string())));
    let room = Room { window: 3, ..ROOM };
    assert_eq!(take_within(&mut outbox, room), ["0", "1", "2"]);
    (1..=3).for_each(|id| outbox.sent(id));
    // More would come near the packet id 1, which is still in use.
    outbox.acked(2, None);
    outbox.acked(3, None);
    assert_eq!(take_within(&mut outbox, room), [""; 0]);
    outbox.acked(1, None);
    assert_eq!(take_within(&mut outbox, room), ["3", "4", "5"]);
}

#[test]
fn what_the_broker_would_not_take_is_not_sent() {
    let big = |name| Message {
        payload: vec![b'x'; 2000].into(),
        ..message(name)
    };
    let mut outbox = Outbox::default();
    outbox.push(big("big"));
    outbox.push_final(7, big("final"));
    outbox.push(message("small"));
    let room = Room {
        max_packet_size: Some(1000),
        ..ROOM
    };
    assert_eq!(take_within(&mut outbox, room), ["small"]);
    match &outcomes(&mut outbox)[..] {
        [(7, Delivered::TooLarge { size, max: 1000 })] => assert!((2000..2300).contains(size)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_key_tells_the_outcome_once() {
    let mut outbox = Outbox::default();
    outbox.push_final(7, message("a"));
    outbox.push_final(8, message("b"));
    outbox.push(message("c"));
    take(&mut outbox);
    (1..=3).for_each(|id| outbox.sent(id));
    assert_eq!(outcomes(&mut outbox), []);
    // The broker has it, but this is never heard.
    outbox.lost();
    take(&mut outbox);
    (1..=3).for_each(|id| outbox.sent(id));
    outbox.acked(1, None);
    outbox.acked(1, None);
    outbox.acked(2, Some("NotAuthorized".into()));
    outbox.acked(3, Some("NotAuthorized".into()));
    let told = [
        (7, Delivered::Taken),
        (8, Delivered::Refused("NotAuthorized".into())),
    ];
    assert_eq!(outcomes(&mut outbox), told);
    assert!(outbox.is_empty());
}

#[test]
fn a_full_outbox_asks_for_a_pause() {
    let mut outbox = Outbox::default();
    (1..HIGH_WATER).for_each(|_| outbox.push(message("a")));
    outbox.push(droppable("error"));
    assert!(outbox.has_room());
    outbox.push(message("a"));
    assert!(!outbox.has_room());
    take_within(&mut outbox, Room { window: 1, ..ROOM });
    assert!(outbox.has_room());
}

#[test]
fn droppable_messages_are_done_when_handed_over() {
    let mut outbox = Outbox::default();
    outbox.push(droppable("a"));
    outbox.push_final(7, droppable("b"));
    (0..WINDOW).for_each(|_| outbox.push(droppable("c")));
    assert_eq!(take(&mut outbox).len(), WINDOW);
    assert_eq!(outcomes(&mut outbox), [(7, Delivered::Taken)]);
    outbox.sent(0);
    assert_eq!(take(&mut outbox), ["c"]);
    outbox.lost();
    assert_eq!(take(&mut outbox), ["c"]);
    assert!(outbox.is_empty());
}

#[test]
fn too_many_droppable_messages_lose_the_oldest() {
    let mut outbox = Outbox::default();
    outbox.push(message("answer"));
    outbox.push_final(7, droppable("oldest"));
    (1..MAX_DROPPABLE).for_each(|_| outbox.push(droppable("error")));
    assert_eq!((outbox.dropped(), outcomes(&mut outbox)), (0, vec![]));
    outbox.push(droppable("newest"));
    assert_eq!(outbox.dropped(), 1);
    assert!(matches!(
        outcomes(&mut outbox)[..],
        [(7, Delivered::Refused(_))]
    ));
    assert_eq!(outbox.waiting.len(), 1 + MAX_DROPPABLE);
    outbox.push(Message {
        payload: vec![b'x'; MAX_DROPPABLE_BYTES - 2 * 200].into(),
        ..droppable("long")
    });
    let left: Vec<_> = outbox.waiting.iter().map(|e| &e.message.topic).collect();
    assert_eq!(left, ["answer", "newest", "long"]);
}
