//! The ends of the logs, as the writer remembers them, so that a send reads next to nothing.

use std::collections::HashMap;

use parlor_proto::{ChatId, MessageId};

/// Chats remembered in each of two generations.
const GENERATION: usize = 32_768;

/// The end of a log and the epoch of its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) membership_epoch: u64,
    /// 0 for a chat that is being made.
    pub(super) seq: u64,
    pub(super) event_id: Option<MessageId>,
    pub(super) n: u64,
}

/// A bounded memory: what was not used for a whole generation is forgotten.
#[derive(Default)]
pub(super) struct Heads {
    young: HashMap<ChatId, Head>,
    old: HashMap<ChatId, Head>,
}

impl Heads {
    pub(super) fn get(&mut self, chat_id: ChatId) -> Option<Head> {
        if let Some(head) = self.young.get(&chat_id) {
            return Some(*head);
        }
        let head = self.old.remove(&chat_id)?;
        self.put(chat_id, head);
        Some(head)
    }

    pub(super) fn put(&mut self, chat_id: ChatId, head: Head) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(chat_id, head);
    }

    pub(super) fn forget(&mut self, chat_id: ChatId) {
        self.young.remove(&chat_id);
        self.old.remove(&chat_id);
    }

    /// Forgets everything: what was remembered may not have been stored.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_in_use_is_remembered_while_others_come_and_go() {
        let mut heads = Heads::default();
        let head = |seq| Head { membership_epoch: 1, seq, event_id: None, n: 0 };
        let kept = ChatId::from_raw(u64::MAX >> 1);
        heads.put(kept, head(7));
        for raw in 0..5 * GENERATION as u64 {
            heads.put(ChatId::from_raw(raw), head(raw));
            assert_eq!(heads.get(kept), Some(head(7)));
        }
        assert!(heads.young.len() + heads.old.len() <= 2 * GENERATION);
        assert_eq!(heads.get(ChatId::from_raw(0)), None);
    }

    #[test]
    fn the_newest_value_wins_over_an_older_generation() {
        let mut heads = Heads::default();
        let head = |seq| Head { membership_epoch: 1, seq, event_id: None, n: 0 };
        let chat_id = ChatId::from_raw(u64::MAX >> 1);
        heads.put(chat_id, head(1));
        for raw in 0..GENERATION as u64 {
            heads.put(ChatId::from_raw(raw), head(raw));
        }
        heads.put(chat_id, head(2));
        assert_eq!(heads.get(chat_id), Some(head(2)));
        heads.forget(chat_id);
        assert_eq!(heads.get(chat_id), None);
    }
}
