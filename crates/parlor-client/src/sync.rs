//! Keeping the logs of all chats gap-free by `seq`, whatever is lost, repeated or reordered.
//!
//! Frames go in; what is new comes out as one [`Step`] for the store, in order and without a hole,
//! together with the pages and look-ups that are needed to fill what is missing. `delivered` is
//! reported only after the step was kept (promise P10). Nothing is read from a clock or a socket
//! here; `session.rs` drives it.

use std::collections::{BTreeMap, BTreeSet};

use parlor_proto::{
    ChatId, ErrorCode, Event, EventBody, Seq, UserId,
    chats::Head,
    frame::{
        AccountEventBody, ErrorFrame, EventsFrame, Gap, ReceiptFrame, ServerFrame, SyncFrame, Tag,
        Welcome,
    },
    receipts::ReceiptKind,
};

use crate::store::{Kept, Position, Step};

/// Events of one chat that wait for the ones before them.
const EARLY_EVENTS: usize = 500;
/// Pages under way at once.
const PAGES_AT_ONCE: usize = 8;
/// Events of one page.
const PAGE_EVENTS: u32 = 200;
/// A chat that is behind and hears nothing for so long is paged: the replay was lost or never came.
const REPLAY_LIMIT_MS: u64 = 2_000;
/// A page without an answer is asked for again.
const PAGE_LIMIT_MS: u64 = 30_000;
/// A receipt has no answer: one that was said so shortly before a loss is said again.
const RECEIPT_DOUBT_MS: u64 = 30_000;
const RETRY_MS: u64 = 1_000;

/// What has to be done outside.
#[derive(Debug, Clone)]
pub enum Action {
    /// Ask for a page.
    Page(SyncFrame),
    /// Report what was stored.
    Report(ReceiptFrame),
    /// Ask over HTTP where a chat stands, then call `on_head` or `on_absent`.
    Look(ChatId),
    /// The log of the server is another one: connect again without a cursor.
    StartOver,
}

/// What one client saw, for its owner and for tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events taken into a log.
    pub applied: u64,
    /// Events that were there already.
    pub repeats: u64,
    /// Events that came before the ones before them.
    pub early: u64,
    /// Pages asked for.
    pub pages: u64,
    /// Times that a page continued above a hole: what lies in it is not for this user to see.
    pub jumps: u64,
}

/// A page that was asked for.
#[derive(Debug)]
struct Asked {
    id: String,
    after_seq: Seq,
    at_ms: u64,
}

/// The replica of one chat's log.
#[derive(Debug)]
struct Log {
    /// Everything up to here is applied; unknown until the first event or page of a new chat.
    have: Option<Seq>,
    /// Where a new chat begins if nothing older comes first.
    floor: Seq,
    /// The chat is known to reach to here.
    head: Seq,
    /// Events above a hole.
    early: BTreeMap<Seq, Event>,
    asked: Option<Asked>,
    /// No page before this time: the replay may still come, or the server asked to wait.
    page_at_ms: u64,
    /// The last event of somebody else: what `delivered` is about.
    others: Seq,
    reported: Seq,
    reported_at_ms: u64,
    /// A head of this chat was asked for over HTTP.
    looking: bool,
    /// The user is no longer a member; the position stays, so that nothing is handed out twice.
    gone: bool,
}

impl Log {
    const fn new() -> Self {
        Self {
            have: None,
            floor: Seq::ZERO,
            head: Seq::ZERO,
            early: BTreeMap::new(),
            asked: None,
            page_at_ms: 0,
            others: Seq::ZERO,
            reported: Seq::ZERO,
            reported_at_ms: 0,
            looking: false,
            gone: false,
        }
    }

    fn reached(&self) -> Seq {
        self.have.unwrap_or(self.floor)
    }

    fn is_behind(&self) -> bool {
        !self.gone && !self.looking && (self.reached() < self.head || !self.early.is_empty())
    }
}

/// The logs of one user on one device.
#[derive(Debug, Default)]
pub struct Sync {
    me: Option<UserId>,
    cursor: Option<String>,
    logs: BTreeMap<ChatId, Log>,
    /// Chats that are behind: only they are looked at when time passes.
    behind: BTreeSet<ChatId>,
    step: Step,
    actions: Vec<Action>,
    n_asked: usize,
    next_page: u64,
    counts: Counts,
}

impl Sync {
    /// Takes up what a store has kept.
    pub fn new(kept: &Kept) -> Self {
        let mut sync = Self { cursor: kept.cursor.clone(), ..Self::default() };
        for (chat_id, position) in &kept.positions {
            let log = Log { have: Some(position.have), head: position.head, ..Log::new() };
            sync.logs.insert(*chat_id, log);
        }
        sync
    }

    /// Returns the cursor to resume from.
    pub fn cursor(&self) -> Option<&str> {
        self.cursor.as_deref()
    }

    /// Returns what was seen so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Returns how far a chat is applied, and how far it is known to reach.
    pub fn position(&self, chat_id: ChatId) -> Option<Position> {
        let log = self.logs.get(&chat_id)?;
        Some(Position { have: log.reached(), head: log.head.max(log.reached()) })
    }

    /// Tells whether every known chat is applied up to its known head.
    pub fn is_caught_up(&self) -> bool {
        !self.logs.values().any(Log::is_behind)
    }

    /// Takes a frame; what follows from it is in `take_step` and `take_actions`.
    pub fn on_frame(&mut self, now_ms: u64, frame: &ServerFrame) {
        match frame {
            ServerFrame::Welcome(welcome) => self.on_welcome(now_ms, welcome),
            ServerFrame::Event(event) => self.on_event(now_ms, event),
            ServerFrame::Events(page) => self.on_page(now_ms, page),
            ServerFrame::Head(head) => self.on_head(now_ms, head),
            ServerFrame::Gap(gap) => self.on_gap(now_ms, gap),
            ServerFrame::Cursor(frame) => {
                self.cursor = Some(frame.cursor.clone());
                self.step.cursor.clone_from(&self.cursor);
            }
            ServerFrame::Error(error) => self.on_error(now_ms, error),
            ServerFrame::Account(event) => {
                if let AccountEventBody::ChatRemoved { chat_id, .. } = event.body {
                    self.on_absent(chat_id);
                }
            }
            _ => {}
        }
    }

    /// A chat stands there: told by a frame, or found by a look-up.
    pub fn on_head(&mut self, now_ms: u64, head: &Head) {
        self.take_head(now_ms, head, now_ms);
    }

    fn take_head(&mut self, now_ms: u64, head: &Head, page_at_ms: u64) {
        let log = self.logs.entry(head.chat_id).or_insert_with(Log::new);
        let was_looking = std::mem::take(&mut log.looking);
        if log.have.is_none() {
            log.floor = head.delivered_seq;
        }
        log.gone = false;
        log.head = log.head.max(head.seq);
        log.page_at_ms = page_at_ms;
        if was_looking {
            self.settle_early(head.chat_id);
        }
        self.page_from(head.chat_id, now_ms);
    }

    /// A chat is not for this user any more.
    pub fn on_absent(&mut self, chat_id: ChatId) {
        let Some(log) = self.logs.get_mut(&chat_id) else { return };
        log.gone = true;
        log.looking = false;
        log.early.clear();
        log.head = log.reached();
        if log.asked.take().is_some() {
            self.n_asked = self.n_asked.saturating_sub(1);
        }
        self.behind.remove(&chat_id);
    }

    /// A look-up failed for now; it is tried again when the chat moves or time passes.
    pub fn on_look_failed(&mut self, now_ms: u64, chat_id: ChatId) {
        if let Some(log) = self.logs.get_mut(&chat_id) {
            log.looking = false;
            log.page_at_ms = now_ms.saturating_add(RETRY_MS);
            self.behind.insert(chat_id);
        }
    }

    /// The connection is gone, and with it every page under way.
    pub fn on_lost(&mut self, now_ms: u64) {
        self.n_asked = 0;
        for log in self.logs.values_mut() {
            log.asked = None;
            if log.reported_at_ms.saturating_add(RECEIPT_DOUBT_MS) > now_ms {
                log.reported = Seq::ZERO;
            }
        }
    }

    /// Asks for the pages that are due on a live connection.
    pub fn on_tick(&mut self, now_ms: u64) {
        let mut done = Vec::new();
        for chat_id in &self.behind {
            let Some(log) = self.logs.get_mut(chat_id) else {
                done.push(*chat_id);
                continue;
            };
            if !log.is_behind() {
                done.push(*chat_id);
                continue;
            }
            if let Some(asked) = &log.asked {
                if now_ms < asked.at_ms.saturating_add(PAGE_LIMIT_MS) {
                    continue;
                }
                self.n_asked = self.n_asked.saturating_sub(1);
                log.asked = None;
            }
            if now_ms < log.page_at_ms || self.n_asked >= PAGES_AT_ONCE {
                continue;
            }
            if log.have.is_none() && log.head == Seq::ZERO {
                // Only events of the middle are known: ask first where to begin.
                log.looking = true;
                self.actions.push(Action::Look(*chat_id));
                continue;
            }
            self.next_page += 1;
            self.n_asked += 1;
            self.counts.pages += 1;
            let id = format!("p{}", self.next_page);
            let after_seq = log.reached();
            log.asked = Some(Asked { id: id.clone(), after_seq, at_ms: now_ms });
            self.actions.push(Action::Page(SyncFrame {
                tag: Tag,
                id: Some(id),
                chat_id: *chat_id,
                after_seq,
                limit: Some(PAGE_EVENTS),
            }));
        }
        for chat_id in done {
            self.behind.remove(&chat_id);
        }
    }

    /// Returns when `on_tick` may have something to do.
    pub fn deadline_ms(&self) -> Option<u64> {
        let logs = self.behind.iter().filter_map(|chat_id| self.logs.get(chat_id));
        let due = logs.filter_map(|log| match &log.asked {
            Some(asked) => Some(asked.at_ms.saturating_add(PAGE_LIMIT_MS)),
            None if self.n_asked < PAGES_AT_ONCE => Some(log.page_at_ms),
            // The answer to a page makes room, and asks for the next.
            None => None,
        });
        due.min()
    }

    /// Returns what changed since the last call; the caller keeps it, then calls `on_kept`.
    pub fn take_step(&mut self) -> Step {
        std::mem::take(&mut self.step)
    }

    /// The step was kept: what it stored may be reported as delivered.
    pub fn on_kept(&mut self, now_ms: u64, step: &Step) {
        let chats: BTreeSet<ChatId> = step.events.iter().map(|event| event.chat_id).collect();
        for chat_id in chats {
            self.report(now_ms, chat_id);
        }
    }

    /// Returns what has to be done.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    fn on_welcome(&mut self, now_ms: u64, welcome: &Welcome) {
        self.me = Some(welcome.user_id);
        if welcome.reset {
            self.forget_all();
        }
        self.cursor = Some(welcome.cursor.clone());
        self.step.cursor.clone_from(&self.cursor);
        self.n_asked = 0;
        for log in self.logs.values_mut() {
            // Nothing that was asked for before this welcome can be answered any more.
            log.asked = None;
        }
        let told: BTreeSet<ChatId> = welcome.heads.iter().map(|head| head.chat_id).collect();
        for (chat_id, log) in &mut self.logs {
            // Open gaps that the cursor has passed: nobody will replay them.
            if !told.contains(chat_id) && log.is_behind() {
                log.page_at_ms = now_ms;
                self.behind.insert(*chat_id);
            }
        }
        for head in &welcome.heads {
            // Its replay comes by itself; only if it does not, it is paged.
            self.take_head(now_ms, head, now_ms.saturating_add(REPLAY_LIMIT_MS));
            if let Some(log) = self.logs.get_mut(&head.chat_id) {
                log.reported = head.delivered_seq;
                if log.have.is_some_and(|have| have > head.delivered_seq) {
                    // Kept before the process ended, and not reported any more.
                    log.others = log.others.max(log.reached());
                }
            }
        }
        let doubtful: Vec<ChatId> = self
            .logs
            .iter()
            .filter(|(_, log)| !log.gone && log.others > log.reported)
            .map(|(chat_id, _)| *chat_id)
            .collect();
        for chat_id in doubtful {
            self.report(now_ms, chat_id);
        }
    }

    fn on_event(&mut self, now_ms: u64, event: &Event) {
        let chat_id = event.chat_id;
        let begins = self.begins_here(event);
        let log = self.logs.entry(chat_id).or_insert_with(Log::new);
        // After a removal the hole below the next join is known to hold nothing for this user.
        if begins && (log.have.is_none() || (log.gone && log.have < Some(event.seq))) {
            log.have = Some(event.seq.prev());
        }
        log.gone = false;
        match log.have {
            None if log.head > Seq::ZERO && event.seq <= log.floor.next() => {
                // The replay of a chat that is new here begins with its first event.
                log.have = Some(event.seq.prev());
                self.apply(event);
            }
            Some(have) if event.seq <= have => self.counts.repeats += 1,
            Some(have) if event.seq == have.next() => self.apply(event),
            _ => {
                self.counts.early += 1;
                log.head = if log.have.is_some() || log.head > Seq::ZERO {
                    log.head.max(event.seq)
                } else {
                    log.head
                };
                if log.early.insert(event.seq, event.clone()).is_some() {
                    self.counts.repeats += 1;
                }
                if log.early.len() > EARLY_EVENTS {
                    // A page brings it again; the head remembers that it exists.
                    log.early.pop_last();
                }
                log.page_at_ms = now_ms;
                self.page_from(chat_id, now_ms);
                return;
            }
        }
        if let Some(log) = self.logs.get_mut(&chat_id) {
            // The replay moves: wait for the rest of it.
            log.page_at_ms = now_ms.saturating_add(REPLAY_LIMIT_MS);
        }
        self.settle_early(chat_id);
    }

    fn on_page(&mut self, now_ms: u64, page: &EventsFrame) {
        let Some(log) = self.logs.get_mut(&page.chat_id) else { return };
        if log.asked.as_ref().map(|asked| &asked.id) != page.id.as_ref() {
            return;
        }
        let after_seq = log.asked.take().map_or(Seq::ZERO, |asked| asked.after_seq);
        self.n_asked = self.n_asked.saturating_sub(1);
        log.head = log.head.max(page.head_seq);
        log.page_at_ms = now_ms;
        let before = log.reached();
        log.have = Some(before);
        for event in &page.events {
            let Some(log) = self.logs.get_mut(&page.chat_id) else { return };
            let have = log.reached();
            if event.seq <= have {
                self.counts.repeats += 1;
                continue;
            }
            if event.seq > have.next() {
                // A page has no holes from the first visible event on: what lies between is not
                // for this user, who was no member then.
                self.counts.jumps += 1;
                log.have = Some(event.seq.prev());
            }
            self.apply(event);
        }
        self.settle_early(page.chat_id);
        let Some(log) = self.logs.get_mut(&page.chat_id) else { return };
        if log.reached() == before && log.is_behind() {
            if !page.events.is_empty() || after_seq != before {
                // The chat has moved past this page while it was under way: ask for the next.
            } else if page.head_seq >= log.head && page.head_seq > before {
                // Nothing up to the head is for this user to see (a cleared chat).
                log.have = Some(page.head_seq);
                self.counts.jumps += 1;
            } else {
                // The log knows less than what was seen already: ask it again later.
                log.page_at_ms = now_ms.saturating_add(RETRY_MS);
            }
            self.settle_early(page.chat_id);
            self.note_position(page.chat_id);
        }
        let Some(log) = self.logs.get_mut(&page.chat_id) else { return };
        if log.is_behind() {
            self.behind.insert(page.chat_id);
        } else {
            self.behind.remove(&page.chat_id);
        }
        self.on_tick(now_ms);
    }

    fn on_gap(&mut self, now_ms: u64, gap: &Gap) {
        let log = self.logs.entry(gap.chat_id).or_insert_with(Log::new);
        if log.have.is_none() && log.head == Seq::ZERO {
            log.floor = gap.after_seq;
        }
        log.gone = false;
        log.head = log.head.max(gap.head_seq);
        log.page_at_ms = now_ms;
        self.page_from(gap.chat_id, now_ms);
    }

    fn on_error(&mut self, now_ms: u64, error: &ErrorFrame) {
        let Some(id) = error.id.as_deref() else { return };
        let asked_by = |log: &Log| log.asked.as_ref().is_some_and(|asked| asked.id == id);
        let Some((chat_id, log)) = self.logs.iter_mut().find(|(_, log)| asked_by(log)) else {
            return;
        };
        let chat_id = *chat_id;
        log.asked = None;
        self.n_asked = self.n_asked.saturating_sub(1);
        if error.code == ErrorCode::Reset {
            self.forget_all();
            self.actions.push(Action::StartOver);
        } else if error.code.may_retry() {
            let wait_ms = error.retry_after_ms.unwrap_or(RETRY_MS);
            log.page_at_ms = now_ms.saturating_add(wait_ms);
        } else {
            self.on_absent(chat_id);
        }
    }

    fn begins_here(&self, event: &Event) -> bool {
        match &event.body {
            EventBody::Created { .. } => true,
            EventBody::Join { user_id, .. } => Some(*user_id) == self.me,
            _ => false,
        }
    }

    /// Takes the next event of a chat in; the caller has checked that it is the next.
    fn apply(&mut self, event: &Event) {
        let Some(log) = self.logs.get_mut(&event.chat_id) else { return };
        log.have = Some(event.seq);
        log.head = log.head.max(event.seq);
        if !self.is_own(event)
            && let Some(log) = self.logs.get_mut(&event.chat_id)
        {
            log.others = event.seq;
        }
        self.counts.applied += 1;
        self.step.events.push(event.clone());
        self.note_position(event.chat_id);
    }

    fn is_own(&self, event: &Event) -> bool {
        matches!(&event.body, EventBody::Message { message } if Some(message.sender_id) == self.me)
    }

    /// Applies what waited above a hole that is now filled.
    fn settle_early(&mut self, chat_id: ChatId) {
        while let Some(log) = self.logs.get_mut(&chat_id)
            && let Some(first) = log.early.first_entry()
        {
            if log.have.is_none() && *first.key() <= log.floor.next() {
                log.have = Some(first.key().prev());
            }
            let Some(have) = log.have else { return };
            if *first.key() > have.next() {
                return;
            }
            let event = first.remove();
            if event.seq > have {
                self.apply(&event);
            }
        }
    }

    /// Notes that a chat may be behind, and pages it when that is due.
    fn page_from(&mut self, chat_id: ChatId, now_ms: u64) {
        self.note_position(chat_id);
        if self.logs.get(&chat_id).is_some_and(Log::is_behind) {
            self.behind.insert(chat_id);
            self.on_tick(now_ms);
        }
    }

    fn note_position(&mut self, chat_id: ChatId) {
        if let Some(position) = self.position(chat_id) {
            self.step.positions.insert(chat_id, position);
        }
    }

    fn report(&mut self, now_ms: u64, chat_id: ChatId) {
        let Some(log) = self.logs.get_mut(&chat_id) else { return };
        let have = log.reached();
        if log.gone || log.others <= log.reported {
            return;
        }
        log.reported = have;
        log.reported_at_ms = now_ms;
        self.actions.push(Action::Report(ReceiptFrame {
            tag: Tag,
            id: None,
            chat_id,
            status: ReceiptKind::Delivered,
            seq: Some(have),
            message_id: None,
        }));
    }

    fn forget_all(&mut self) {
        self.logs.clear();
        self.behind.clear();
        self.n_asked = 0;
        self.cursor = None;
        self.step = Step { reset: true, ..Step::default() };
    }
}
