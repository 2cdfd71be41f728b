//! The checker checked: one bad history for each rule, flagged by exactly that rule.

#![allow(clippy::unwrap_used, reason = "tests")]

use parlor_proto::{ChatId, MessageId, Seq, UserId, members::LeaveReason, receipts::ReceiptKind};

use super::*;
use crate::record::{FaultArgs, MemberArgs, Needs};

const CHAT: ChatId = ChatId::from_raw(9);
const ANN: UserId = UserId::from_raw(1);
const BOB: UserId = UserId::from_raw(2);
const CAT: UserId = UserId::from_raw(3);

/// Builds a history by hand: the log that the server has, and what clients did and saw.
struct Tale {
    lines: Vec<Line>,
    log: Vec<Seen>,
    next_op: u64,
}

impl Tale {
    /// A chat of Ann and Bob whose founding is at seq 1.
    fn new() -> Self {
        Self::needing(Needs { n_acks: 1, n_faults: 0, final_reads: true })
    }

    fn needing(needs: Needs) -> Self {
        let mut tale = Self { lines: Vec::new(), log: Vec::new(), next_op: 1 };
        let (scenario, replay) = ("by hand".to_owned(), "none".to_owned());
        tale.note(
            None,
            Op::Run {
                args: RunArgs { scenario, seed: 1, replay, binary_sha256: String::new(), needs },
            },
        );
        tale.note(None, Op::Chat { args: ChatArgs { chat_id: CHAT, history_all: false } });
        tale.append(SeenBody::Created { members: vec![ANN, BOB] });
        tale
    }

    fn push(&mut self, client: Option<UserId>, op_id: u64, phase: Phase, op: Op) {
        let t_mono_us = self.lines.len() as u64;
        let device = client.map_or(String::new(), |_| "phone".to_owned());
        self.lines.push(Line { t_mono_us, client, device, op_id, op, phase });
    }

    fn note(&mut self, client: Option<UserId>, op: Op) {
        let op_id = self.op_id();
        self.push(client, op_id, Phase::Ok, op);
    }

    fn op_id(&mut self) -> u64 {
        self.next_op += 1;
        self.next_op
    }

    /// The server appends an event that nobody needs to have sent.
    fn append(&mut self, body: SeenBody) -> Seen {
        let seq = Seq::new(self.log.len() as u64 + 1);
        let seen = Seen { seq, event_id: MessageId::from_raw(100 + seq.get()), body };
        self.log.push(seen.clone());
        seen
    }

    fn message(sender: UserId, key: &str, seq: u64) -> SeenBody {
        SeenBody::Message {
            sender,
            key: Some(key.to_owned()),
            text: format!("text of {key}"),
            state_seq: Seq::new(seq),
            deleted: false,
        }
    }

    fn invoke(&mut self, sender: UserId, key: &str, lane: Option<&str>) -> u64 {
        let args = SendArgs {
            chat_id: CHAT,
            key: key.to_owned(),
            text: format!("text of {key}"),
            lane: lane.map(str::to_owned),
            conflicts: false,
        };
        let op_id = self.op_id();
        let op = Op::Send { args: Some(args), result: None, error: None };
        self.push(Some(sender), op_id, Phase::Invoke, op);
        op_id
    }

    fn end(&mut self, sender: UserId, op_id: u64, phase: Phase) {
        let error = Some("no answer".to_owned());
        self.push(Some(sender), op_id, phase, Op::Send { args: None, result: None, error });
    }

    fn ack(&mut self, sender: UserId, op_id: u64, seq: u64, id: u64) {
        let result = SendResult { message_id: MessageId::from_raw(id), seq: Seq::new(seq) };
        let op = Op::Send { args: None, result: Some(result), error: None };
        self.push(Some(sender), op_id, Phase::Ok, op);
    }

    /// A whole send: stored and acknowledged at the next position.
    fn send(&mut self, sender: UserId, key: &str) -> Seen {
        let op_id = self.invoke(sender, key, None);
        let seen = self.append(Self::message(sender, key, self.log.len() as u64 + 1));
        self.ack(sender, op_id, seen.seq.get(), seen.event_id.raw());
        seen
    }

    fn deliver(&mut self, client: UserId, path: Way, seen: &Seen) {
        let args = DeliverArgs { connection: 1, chat_id: CHAT, path };
        self.note(Some(client), Op::Deliver { args, result: seen.clone() });
    }

    fn live(&mut self, client: UserId, seqs: &[u64]) {
        for seq in seqs {
            let seen = self.log[usize::try_from(*seq).unwrap() - 1].clone();
            self.deliver(client, Way::Live, &seen);
        }
    }

    fn read(&mut self, client: UserId, path: Way, after: u64, head: u64) {
        let args = ReadArgs { chat_id: CHAT, path, after_seq: Seq::new(after) };
        let op_id = self.op_id();
        self.push(Some(client), op_id, Phase::Invoke, Op::Read { args, result: None });
        let result = Some(ReadResult { head_seq: Seq::new(head) });
        self.push(Some(client), op_id, Phase::Ok, Op::Read { args, result });
    }

    /// All three final reads of a member; `log` is what the member gets to see.
    fn reads(&mut self, client: UserId, log: &[Seen]) {
        let head = self.log.last().unwrap().seq.get();
        for way in Way::FINAL {
            let args = ReadArgs { chat_id: CHAT, path: way, after_seq: Seq::ZERO };
            let op_id = self.op_id();
            self.push(Some(client), op_id, Phase::Invoke, Op::Read { args, result: None });
            for seen in log {
                let is_message = matches!(seen.body, SeenBody::Message { .. });
                if way != Way::FinalHistory || is_message {
                    self.deliver(client, way, seen);
                }
            }
            let result = Some(ReadResult { head_seq: Seq::new(head) });
            self.push(Some(client), op_id, Phase::Ok, Op::Read { args, result });
        }
    }

    /// Ann and Bob read everything; the recording ends.
    fn close(mut self) -> Judgement {
        let log = self.log.clone();
        self.reads(ANN, &log);
        self.reads(BOB, &log);
        self.finish()
    }

    fn finish(mut self) -> Judgement {
        self.note(None, Op::End);
        check_lines(self.lines).unwrap()
    }

    fn receipt(&mut self, observer: UserId, user_id: UserId, status: ReceiptKind, seq: u64) {
        let seq = Seq::new(seq);
        let args = ReceiptArgs { chat_id: CHAT, user_id, status, seq, connection: 1 };
        self.note(Some(observer), Op::Receipt { args });
    }

    fn report(&mut self, user_id: UserId, status: ReceiptKind, seq: u64) {
        let seq = Seq::new(seq);
        let args = ReceiptArgs { chat_id: CHAT, user_id, status, seq, connection: 1 };
        self.note(Some(user_id), Op::Report { args });
    }
}

#[track_caller]
fn is_flagged_by(judgement: &Judgement, rule: Rule) {
    let rules: Vec<_> = judgement.broken.keys().copied().collect();
    assert_eq!(rules, [rule], "{judgement}");
    assert_eq!(judgement.verdict, Verdict::Broken);
    assert_eq!(judgement.exit_code(), 1);
}

#[track_caller]
fn holds(judgement: &Judgement) {
    assert_eq!(judgement.verdict, Verdict::Holds, "{judgement}");
    assert_eq!(judgement.exit_code(), 0);
}

#[test]
fn a_good_history_with_many_unknown_outcomes_holds() {
    let mut tale = Tale::needing(Needs { n_acks: 10, n_faults: 2, final_reads: true });
    tale.live(BOB, &[1]);
    for round in 0..20 {
        let seen = tale.send(ANN, &format!("ok {round}"));
        tale.deliver(BOB, Way::Live, &seen);
        let cut = tale.invoke(BOB, &format!("cut, never stored {round}"), None);
        tale.end(BOB, cut, Phase::Info);
        let refused = tale.invoke(BOB, &format!("refused {round}"), None);
        tale.end(BOB, refused, Phase::Fail);
        // Repeated after a cut: the second attempt learns the position of the first.
        let key = format!("repeated {round}");
        let first = tale.invoke(BOB, &key, Some("outbox"));
        let seen = tale.append(Tale::message(BOB, &key, tale.log.len() as u64 + 1));
        tale.end(BOB, first, Phase::Info);
        tale.deliver(BOB, Way::Live, &seen);
        let second = tale.invoke(BOB, &key, Some("outbox"));
        tale.ack(BOB, second, seen.seq.get(), seen.event_id.raw());
        tale.deliver(BOB, Way::Live, &seen);
    }
    let fault = FaultArgs { fault: "kill9".to_owned(), target: "server".to_owned() };
    tale.note(None, Op::Fault { args: fault.clone() });
    tale.note(None, Op::Fault { args: fault });
    // Told of a gap, which a page fills later.
    tale.live(ANN, &[1, 2]);
    let (after_seq, head_seq) = (Seq::new(2), Seq::new(5));
    let args = GapArgs { connection: 1, chat_id: CHAT, after_seq, head_seq };
    tale.note(Some(ANN), Op::Gap { args });
    tale.live(ANN, &[6]);
    for seq in 3..=5 {
        let seen = tale.log[seq - 1].clone();
        tale.deliver(ANN, Way::Page, &seen);
    }
    let (from_seq, to_seq) = (Seq::new(1), Seq::new(6));
    tale.note(Some(ANN), Op::Apply { args: ApplyArgs { chat_id: CHAT, from_seq, to_seq } });
    tale.report(BOB, ReceiptKind::Read, 6);
    tale.receipt(ANN, BOB, ReceiptKind::Delivered, 4);
    tale.receipt(ANN, BOB, ReceiptKind::Read, 6);
    let judgement = tale.close();
    holds(&judgement);
    let counts = judgement.counts;
    assert_eq!((counts.ok, counts.info, counts.fail), (40, 20, 20));
    assert_eq!((counts.repeats_before_dedup, counts.info_stored), (20, 0));
    assert_eq!((counts.acks_verified, counts.faults), (40, 2));
}

#[test]
fn an_unknown_outcome_that_turns_up_later_is_right() {
    let mut tale = Tale::new();
    let cut = tale.invoke(ANN, "cut", None);
    tale.end(ANN, cut, Phase::Info);
    tale.send(BOB, "ok");
    tale.append(Tale::message(ANN, "cut", 3));
    let judgement = tale.close();
    holds(&judgement);
    assert_eq!((judgement.counts.info, judgement.counts.info_stored), (1, 1));
}

#[test]
fn lost_is_an_acknowledged_send_that_a_member_does_not_find() {
    // Gone from the end of the log for everybody.
    let mut tale = Tale::new();
    tale.send(ANN, "kept");
    let op_id = tale.invoke(ANN, "lost", None);
    tale.ack(ANN, op_id, 3, 103);
    is_flagged_by(&tale.close(), Rule::Lost);
    // Gone from the middle, for one member on one way.
    let mut tale = Tale::new();
    tale.send(ANN, "one");
    tale.send(ANN, "two");
    tale.send(ANN, "three");
    let log = tale.log.clone();
    tale.reads(ANN, &log);
    for way in Way::FINAL {
        let holey: Vec<_> = log.iter().filter(|seen| seen.seq != Seq::new(3)).collect();
        for seen in if way == Way::FinalEvents { holey } else { log.iter().collect() } {
            tale.deliver(BOB, way, seen);
        }
        tale.read(BOB, way, 0, 4);
    }
    let judgement = tale.finish();
    is_flagged_by(&judgement, Rule::Lost);
    assert_eq!(judgement.broken[&Rule::Lost].count, 1);
}

#[test]
fn phantom_is_an_event_that_nobody_sent_or_whose_send_was_refused() {
    let mut tale = Tale::new();
    tale.send(ANN, "ok");
    tale.append(Tale::message(BOB, "never sent", 3));
    is_flagged_by(&tale.close(), Rule::Phantom);

    let mut tale = Tale::new();
    tale.send(ANN, "ok");
    let refused = tale.invoke(BOB, "refused", None);
    tale.end(BOB, refused, Phase::Fail);
    tale.append(Tale::message(BOB, "refused", 3));
    is_flagged_by(&tale.close(), Rule::Phantom);

    let mut tale = Tale::new();
    tale.send(ANN, "ok");
    let op_id = tale.invoke(BOB, "changed", None);
    let mut body = Tale::message(BOB, "changed", 3);
    if let SeenBody::Message { text, .. } = &mut body {
        *text = "something else".to_owned();
    }
    tale.append(body);
    tale.ack(BOB, op_id, 3, 103);
    is_flagged_by(&tale.close(), Rule::Phantom);
}

#[test]
fn dup_is_a_key_stored_twice_or_acknowledged_as_two_messages() {
    let mut tale = Tale::new();
    tale.send(ANN, "twice");
    tale.append(Tale::message(ANN, "twice", 3));
    is_flagged_by(&tale.close(), Rule::Dup);

    let mut tale = Tale::new();
    tale.send(ANN, "answered twice");
    let again = tale.invoke(ANN, "answered twice", None);
    tale.ack(ANN, again, 2, 999);
    is_flagged_by(&tale.close(), Rule::Dup);

    let mut tale = Tale::new();
    tale.send(ANN, "key");
    let args = SendArgs {
        chat_id: CHAT,
        key: "key".to_owned(),
        text: "another text".to_owned(),
        lane: None,
        conflicts: true,
    };
    let op_id = tale.op_id();
    let op = Op::Send { args: Some(args), result: None, error: None };
    tale.push(Some(ANN), op_id, Phase::Invoke, op);
    tale.ack(ANN, op_id, 2, 102);
    is_flagged_by(&tale.close(), Rule::Dup);
}

#[test]
fn fork_is_two_events_at_one_position() {
    let mut tale = Tale::new();
    tale.send(ANN, "ok");
    let one = tale.invoke(ANN, "one", None);
    let other = tale.invoke(BOB, "other", None);
    tale.end(ANN, one, Phase::Info);
    tale.end(BOB, other, Phase::Info);
    let seen = tale.append(Tale::message(ANN, "one", 3));
    let log = tale.log.clone();
    tale.reads(ANN, &log);
    let body = Tale::message(BOB, "other", 3);
    let forked = Seen { seq: seen.seq, event_id: MessageId::from_raw(777), body };
    tale.reads(BOB, &[log[0].clone(), log[1].clone(), forked]);
    is_flagged_by(&tale.finish(), Rule::Fork);

    // The acknowledgement names another message than the log.
    let mut tale = Tale::new();
    let op_id = tale.invoke(ANN, "one", None);
    tale.append(Tale::message(ANN, "one", 2));
    tale.ack(ANN, op_id, 2, 888);
    is_flagged_by(&tale.close(), Rule::Fork);

    // Two texts of one state; an edit or a deletion is another state.
    let mut tale = Tale::new();
    let seen = tale.send(ANN, "one");
    let mut other = seen.clone();
    let edit = |seen: &mut Seen, to: &str, at: u64| {
        if let SeenBody::Message { text, state_seq, .. } = &mut seen.body {
            (*text, *state_seq) = (to.to_owned(), Seq::new(at));
        }
    };
    tale.append(SeenBody::Other);
    edit(&mut other, "edited", 3);
    tale.deliver(BOB, Way::Live, &other);
    edit(&mut other, "edited otherwise", 3);
    tale.deliver(ANN, Way::Live, &other);
    is_flagged_by(&tale.close(), Rule::Fork);
}

#[test]
fn a_message_and_its_tombstone_are_one_event() {
    let mut tale = Tale::new();
    let mut seen = tale.send(ANN, "one");
    tale.live(BOB, &[1, 2]);
    tale.append(SeenBody::Other);
    if let SeenBody::Message { text, state_seq, deleted, .. } = &mut seen.body {
        (*text, *state_seq, *deleted) = (String::new(), Seq::new(3), true);
    }
    tale.log[1] = seen;
    holds(&tale.close());
}

#[test]
fn gap_is_a_hole_in_a_final_history_or_a_skip_that_nothing_filled() {
    // Nobody was told that 3 is stored, so it is a hole and not a loss.
    let mut tale = Tale::new();
    tale.send(ANN, "one");
    let cut = tale.invoke(ANN, "cut", None);
    tale.end(ANN, cut, Phase::Info);
    tale.append(Tale::message(ANN, "cut", 3));
    tale.send(ANN, "three");
    let log = tale.log.clone();
    tale.reads(ANN, &log);
    let holey: Vec<_> = log.iter().filter(|seen| seen.seq != Seq::new(3)).cloned().collect();
    tale.reads(BOB, &holey);
    is_flagged_by(&tale.finish(), Rule::Gap);

    // Skipped live, not told, not read.
    let mut tale = Tale::new();
    for key in ["one", "two", "three"] {
        tale.send(ANN, key);
    }
    tale.live(BOB, &[1, 2, 4]);
    is_flagged_by(&tale.close(), Rule::Gap);

    // The application never got 3.
    let mut tale = Tale::new();
    for key in ["one", "two", "three"] {
        tale.send(ANN, key);
    }
    for (from, to) in [(1, 2), (4, 4)] {
        let (from_seq, to_seq) = (Seq::new(from), Seq::new(to));
        tale.note(Some(BOB), Op::Apply { args: ApplyArgs { chat_id: CHAT, from_seq, to_seq } });
    }
    is_flagged_by(&tale.close(), Rule::Gap);
}

#[test]
fn a_skip_that_a_read_fills_is_counted_and_right() {
    let mut tale = Tale::new();
    for key in ["one", "two", "three"] {
        tale.send(ANN, key);
    }
    tale.live(BOB, &[1, 2, 4]);
    let seen = tale.log[2].clone();
    tale.deliver(BOB, Way::Page, &seen);
    let judgement = tale.close();
    holds(&judgement);
    assert_eq!(judgement.counts.skips_filled, 1);
}

#[test]
fn reorder_is_a_stream_that_steps_back_or_own_sends_out_of_order() {
    let mut tale = Tale::new();
    for key in ["one", "two", "three"] {
        tale.send(ANN, key);
    }
    tale.live(BOB, &[1, 2, 4, 3]);
    is_flagged_by(&tale.close(), Rule::Reorder);

    // Handed to the application twice.
    let mut tale = Tale::new();
    tale.send(ANN, "one");
    for _ in 0..2 {
        let (from_seq, to_seq) = (Seq::new(1), Seq::new(2));
        tale.note(Some(BOB), Op::Apply { args: ApplyArgs { chat_id: CHAT, from_seq, to_seq } });
    }
    let judgement = tale.close();
    is_flagged_by(&judgement, Rule::Reorder);
    assert_eq!(judgement.counts.repeats_after_dedup, 2);

    // Sent after seeing 3, stored at 2.
    let mut tale = Tale::new();
    let early = tale.append(Tale::message(BOB, "late", 2));
    tale.send(ANN, "one");
    tale.live(BOB, &[3]);
    let op_id = tale.invoke(BOB, "late", None);
    tale.ack(BOB, op_id, 2, early.event_id.raw());
    is_flagged_by(&tale.close(), Rule::Reorder);

    // Two of one lane, both under way at once.
    let mut tale = Tale::new();
    let first = tale.invoke(ANN, "first", Some("outbox"));
    let second = tale.invoke(ANN, "second", Some("outbox"));
    tale.append(Tale::message(ANN, "second", 2));
    tale.append(Tale::message(ANN, "first", 3));
    tale.ack(ANN, second, 2, 102);
    tale.ack(ANN, first, 3, 103);
    is_flagged_by(&tale.close(), Rule::Reorder);
}

#[test]
fn stale_is_a_read_below_what_was_known() {
    let mut tale = Tale::new();
    tale.send(ANN, "one");
    tale.send(ANN, "two");
    tale.read(ANN, Way::Events, 0, 2);
    is_flagged_by(&tale.close(), Rule::Stale);
}

#[test]
fn leak_is_an_event_outside_a_membership() {
    // Cat comes at 3 and goes at 5.
    let tale = || {
        let mut tale = Tale::new();
        tale.send(ANN, "before");
        tale.append(SeenBody::Join { user_id: CAT });
        tale.send(ANN, "with cat");
        tale.append(SeenBody::Leave { user_id: CAT, reason: LeaveReason::Removed });
        let member = |added| MemberArgs { chat_id: CHAT, user_id: CAT, added };
        tale.note(Some(ANN), Op::Member { args: member(true) });
        tale.note(Some(ANN), Op::Member { args: member(false) });
        tale.send(ANN, "after");
        tale
    };
    let mut fair = tale();
    fair.live(CAT, &[3, 4]);
    holds(&fair.close());
    for seq in [2, 5, 6] {
        let mut leaky = tale();
        let seen = leaky.log[seq - 1].clone();
        leaky.deliver(CAT, Way::History, &seen);
        is_flagged_by(&leaky.close(), Rule::Leak);
    }
    let mut writer = tale();
    let op_id = writer.invoke(CAT, "written after", None);
    writer.append(Tale::message(CAT, "written after", 7));
    writer.ack(CAT, op_id, 7, 107);
    is_flagged_by(&writer.close(), Rule::Leak);
}

#[test]
fn receipt_is_a_position_that_goes_back_passes_the_head_or_is_read_above_delivered() {
    let mut tale = Tale::new();
    tale.send(ANN, "one");
    tale.report(BOB, ReceiptKind::Delivered, 2);
    tale.receipt(ANN, BOB, ReceiptKind::Delivered, 2);
    tale.receipt(ANN, BOB, ReceiptKind::Delivered, 1);
    is_flagged_by(&tale.close(), Rule::Receipt);

    let mut tale = Tale::new();
    tale.send(ANN, "one");
    tale.report(BOB, ReceiptKind::Delivered, 7);
    tale.receipt(ANN, BOB, ReceiptKind::Delivered, 7);
    is_flagged_by(&tale.close(), Rule::Receipt);

    let mut tale = Tale::new();
    tale.send(ANN, "one");
    let args = CursorsArgs {
        chat_id: CHAT,
        user_id: BOB,
        delivered_seq: Seq::new(1),
        read_seq: Seq::new(2),
        head_seq: Seq::new(2),
    };
    tale.note(Some(ANN), Op::Cursors { args });
    is_flagged_by(&tale.close(), Rule::Receipt);
}

#[test]
fn status_is_a_receipt_without_its_cause() {
    let mut tale = Tale::new();
    tale.send(ANN, "one");
    tale.report(BOB, ReceiptKind::Delivered, 2);
    tale.receipt(ANN, BOB, ReceiptKind::Read, 2);
    is_flagged_by(&tale.close(), Rule::Status);
}

#[test]
fn stuck_is_an_operation_without_an_end_or_a_client_below_the_head() {
    let mut tale = Tale::new();
    tale.send(ANN, "one");
    tale.invoke(BOB, "open", None);
    is_flagged_by(&tale.close(), Rule::Stuck);

    let mut tale = Tale::new();
    tale.send(ANN, "one");
    let (have_seq, head_seq) = (Seq::new(1), Seq::new(1));
    tale.note(Some(BOB), Op::Position { args: PositionArgs { chat_id: CHAT, have_seq, head_seq } });
    is_flagged_by(&tale.close(), Rule::Stuck);
}

#[track_caller]
fn is_no_evidence(judgement: &Judgement, why: &str) {
    assert_eq!(judgement.verdict, Verdict::NoEvidence, "{judgement}");
    assert_eq!(judgement.exit_code(), 2);
    assert!(judgement.missing.iter().any(|missing| missing.contains(why)), "{judgement}");
}

#[test]
fn a_recording_that_could_not_have_shown_a_fault_is_no_evidence() {
    is_no_evidence(&check_lines([]).unwrap(), "empty");
    is_no_evidence(&Tale::new().close(), "0 acknowledgements");

    let mut tale = Tale::needing(Needs { n_acks: 3, n_faults: 0, final_reads: true });
    tale.send(ANN, "one");
    is_no_evidence(&tale.close(), "1 acknowledgements of at least 3");

    let mut tale = Tale::needing(Needs { n_acks: 1, n_faults: 1, final_reads: true });
    tale.send(ANN, "one");
    is_no_evidence(&tale.close(), "0 faults fired");

    let mut tale = Tale::new();
    tale.send(ANN, "one");
    is_no_evidence(&tale.finish(), "not known from its first event");

    let mut tale = Tale::new();
    tale.send(ANN, "one");
    let log = tale.log.clone();
    tale.reads(ANN, &log);
    is_no_evidence(&tale.finish(), "no FinalResume read by user 2");

    let mut tale = Tale::new();
    tale.send(ANN, "one");
    let log = tale.log.clone();
    tale.reads(ANN, &log);
    tale.reads(BOB, &log);
    is_no_evidence(&check_lines(tale.lines).unwrap(), "no end");
}

#[test]
fn a_torn_last_line_is_no_evidence_and_a_damaged_one_is_an_error() {
    let mut tale = Tale::new();
    tale.send(ANN, "one");
    let mut text = Vec::new();
    for line in &tale.lines {
        serde_json::to_writer(&mut text, line).unwrap();
        text.push(b'\n');
    }
    let torn = &text[..text.len() - 5];
    is_no_evidence(&check(torn).unwrap(), "no end");
    text.extend_from_slice(b"nonsense\n");
    assert!(check(text.as_slice()).is_err());
    assert!(check(b"{}\n".as_slice()).is_err());
}
