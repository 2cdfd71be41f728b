//! Whatever is lost, repeated, reordered, cut or restarted: the client ends with the log.

use parlor_client::Settled;
use parlor_proto::{ChatId, Event, EventBody, Seq};

use crate::fake::{Faults, ME, World};

/// A longer run: `PARLOR_SEEDS=5000 cargo test -p parlor-client --test it faults`.
const SEEDS: u64 = 120;
const STEPS: u64 = 600;

/// Runs one seed; the panic names it.
fn run(seed: u64, faults: Faults) -> World {
    let mut world = World::new(seed, faults);
    let mut n_orders = 0;
    for step in 0..STEPS {
        world.perform();
        let chat_id = ChatId::from_raw(1 + world.random.below(3));
        match world.random.below(20) {
            0..=4 => world.serve_one(),
            5..=9 => world.deliver_some(),
            10 | 11 => world.post(chat_id, &format!("other {step}")),
            12 | 13 if chat_id != ChatId::from_raw(3) => {
                n_orders += 1;
                let text = if world.random.chance(0.05) { "bad" } else { "good" };
                world.order(&format!("k{n_orders}"), chat_id, &format!("{text} {n_orders}"));
            }
            14 => {
                let three = ChatId::from_raw(3);
                match world.chats[&three].is_member() {
                    false => world.add_me(three),
                    true if world.random.chance(0.3) => world.remove_me(three),
                    true => {}
                }
            }
            15 => world.hand_out_cursor(),
            16 if world.random.chance(faults.cut) => {
                world.n_faults += 1;
                world.cut();
            }
            17 if world.random.chance(faults.restart) => world.restart(),
            18 if world.random.chance(faults.restore) => world.restore(),
            _ => {
                let by_ms = world.random.below(400);
                world.advance(by_ms);
            }
        }
    }
    heal(&mut world);
    check(&world, n_orders);
    world
}

/// No more faults: one last cut, and everything must come to rest by itself.
fn heal(world: &mut World) {
    world.faults = Faults::NONE;
    world.perform();
    world.cut();
    let limit_ms = world.now_ms + 600_000;
    loop {
        world.perform();
        while !world.is_idle() {
            world.serve_one();
            world.deliver_some();
            world.perform();
        }
        if world.is_live() && world.session.is_quiet() {
            return;
        }
        assert!(
            world.now_ms < limit_ms,
            "not quiet after ten minutes: {:?}",
            world.session.state()
        );
        world.advance(100);
    }
}

fn check(world: &World, n_orders: u64) {
    for (chat_id, log) in &world.chats {
        let kept = world.store.log(*chat_id);
        let mut visible: Vec<&Event> =
            log.events.iter().filter(|event| log.sees(event.seq)).collect();
        if !log.is_member() {
            // What came last before a removal may or may not have been handed over.
            visible.retain(|event| kept.last().is_some_and(|last| event.seq <= last.seq));
        }
        // A first sync begins at what was reported as delivered, and so does one after a reset.
        let began = world.began.get(chat_id).copied().unwrap_or_default();
        visible.retain(|event| event.seq > began);
        let seqs = |events: &[&Event]| events.iter().map(|event| event.seq).collect::<Vec<_>>();
        let mut kept: Vec<&Event> = kept.iter().collect();
        // Cursors of a newcomer start at the own join, so a first sync begins behind it; and what
        // passed while the client was away between two memberships is gone for it.
        let is_newcomer = *chat_id == ChatId::from_raw(3);
        if is_newcomer {
            visible.retain(|event| kept.iter().any(|kept| kept.seq == event.seq));
            let from = log.visible.last().map_or(Seq::ZERO, |(from, _)| *from).max(began);
            let last: Vec<_> = log.events.iter().filter(|event| event.seq > from).collect();
            if log.is_member() {
                let tail: Vec<_> = kept.iter().copied().filter(|event| event.seq > from).collect();
                assert_eq!(seqs(&tail), seqs(&last), "chat 3 since the last join");
            }
        }
        kept.dedup_by_key(|event| event.seq);
        assert_eq!(seqs(&kept), seqs(&visible), "chat {chat_id}");
        assert_eq!(kept, visible, "chat {chat_id}");
        let own: Vec<u64> = log.events.iter().filter_map(own_number).collect();
        assert!(own.is_sorted(), "own order is kept in chat {chat_id}: {own:?}");
        let mut once = own.clone();
        once.dedup();
        assert_eq!(once, own, "each order is stored once");
    }
    // An acknowledged order may be gone only where the server itself went back.
    for number in 1..=n_orders {
        let stored = world.chats.values().flat_map(|log| &log.events).filter_map(own_number);
        let n_stored = stored.filter(|stored| *stored == number).count();
        match world.settled.get(&format!("k{number}")) {
            Some(Settled::Acked { .. }) => assert!(n_stored == 1 || world.n_resets > 0),
            Some(Settled::Refused { .. }) => assert_eq!(n_stored, 0, "k{number} was refused"),
            // Settled and kept as such, but the process ended before the application heard of it.
            None => assert!(n_stored <= 1, "k{number} is stored {n_stored} times"),
        }
    }
}

fn own_number(event: &Event) -> Option<u64> {
    let EventBody::Message { message } = &event.body else { return None };
    (message.sender_id == ME).then(|| message.message.rsplit(' ').next().unwrap().parse().unwrap())
}

fn n_seeds() -> u64 {
    std::env::var("PARLOR_SEEDS").map_or(SEEDS, |text| text.parse().unwrap())
}

fn run_seeds(what: &str, faults: Faults) -> (u64, u64) {
    let (mut n_faults, mut n_resets) = (0, 0);
    for seed in 0..n_seeds() {
        let world = std::panic::catch_unwind(|| {
            let world = run(seed, faults);
            (world.n_faults, world.n_resets)
        });
        let (n_new_faults, n_new_resets) =
            world.unwrap_or_else(|_| panic!("{what}: seed {seed} failed, see above; {faults:?}"));
        n_faults += n_new_faults;
        n_resets += n_new_resets;
    }
    (n_faults, n_resets)
}

#[test]
fn a_quiet_wire_needs_no_repair() {
    let world = run(1, Faults { replay: usize::MAX, ..Faults::NONE });
    assert_eq!(world.n_faults, 0);
    assert!(world.n_joins > 1);
    assert_eq!(world.session.counts().early, 0);
}

#[test]
fn a_wire_that_loses_repeats_and_reorders_loses_nothing() {
    let faults = Faults { loss: 0.2, repeat: 0.2, swap: 0.3, ..Faults::NONE };
    let (n_faults, _) = run_seeds("lossy", faults);
    assert!(n_faults > 20 * n_seeds(), "enough went wrong: {n_faults}");
}

#[test]
fn cuts_and_refusals_lose_nothing() {
    let faults = Faults { loss: 0.1, cut: 0.4, refuse: 0.2, ..Faults::NONE };
    let (n_faults, _) = run_seeds("cuts", faults);
    assert!(n_faults > 10 * n_seeds(), "enough went wrong: {n_faults}");
}

#[test]
fn restarts_of_the_client_lose_nothing() {
    let faults = Faults { loss: 0.1, repeat: 0.1, cut: 0.2, restart: 0.3, ..Faults::NONE };
    let (n_faults, _) = run_seeds("restarts", faults);
    assert!(n_faults > 5 * n_seeds(), "enough went wrong: {n_faults}");
}

#[test]
fn a_server_that_went_back_is_followed() {
    let faults = Faults { loss: 0.1, cut: 0.2, restart: 0.1, restore: 0.1, ..Faults::NONE };
    let (_, n_resets) = run_seeds("restore", faults);
    assert!(n_resets > n_seeds() / 4, "enough resets: {n_resets}");
}
