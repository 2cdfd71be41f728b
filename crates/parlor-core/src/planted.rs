//! Planted bugs: switches that break one thing each, so that the tests are tested (promises, section
//! 8). They are there with the feature `planted` only; without it every question is a constant no.

/// Every switch, and what it breaks.
pub const SWITCHES: [(&str, &str); 14] = [
    ("no_sync", "a commit is answered without a sync"),
    ("ack_early", "a commit is answered before its sync"),
    ("retry_same_handle", "a failed commit is answered as if it had worked"),
    ("no_dedup", "the key of a send is ignored"),
    ("dedup_short", "keys are forgotten after a moment"),
    ("resume_off_by_one", "a resume begins one event too late"),
    ("boot_forgotten", "a cursor of an earlier run of the server is taken as it is"),
    ("epoch_kept", "the store keeps its epoch over a restore"),
    ("doubt_forgotten", "what a batch of unknown outcome stored is told to nobody"),
    ("cursor_back", "receipts overwrite instead of taking the maximum"),
    ("stale_member", "events go to the members of before"),
    ("page_from_start", "a newcomer pages what was before them"),
    ("unread_counts_deleted", "deleted messages count as unread"),
    ("wall_clock_ids", "ids follow the wall clock when it goes back"),
];

#[cfg(feature = "planted")]
thread_local! {
    static ON: std::cell::Cell<Option<&'static str>> = const { std::cell::Cell::new(None) };
}

/// Turns one switch on in this thread, or all off.
#[cfg(feature = "planted")]
pub fn plant(name: Option<&'static str>) {
    ON.set(name);
}

/// Tells whether a switch is on.
#[cfg(feature = "planted")]
pub fn is_planted(name: &str) -> bool {
    debug_assert!(SWITCHES.iter().any(|(known, _)| *known == name), "{name} is in the list");
    ON.get() == Some(name)
}

/// Tells whether a switch is on: there are none in this build.
#[cfg(not(feature = "planted"))]
pub const fn is_planted(_name: &str) -> bool {
    false
}
