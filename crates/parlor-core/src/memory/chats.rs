//! The twin of `ports::chats`, and the shape of a chat in memory.

use std::{cmp::Reverse, collections::BTreeMap};

use async_trait::async_trait;
use parlor_proto::{
    ChatId, MessageId, Seq, Time, UserId,
    chats::{ChatSettings, ChatType},
    frame::{AccountEvent, AccountEventBody},
    members::{MemberRole, Role},
};

use super::{Memory, State, messages::Entry};
use crate::ports::{
    EngineResult,
    chats::{ChatEntry, ChatState, Chats, MemberState},
    messages::NewChat,
    receipts::{Cursors, Moved},
};

#[derive(Clone)]
pub(super) struct Chat {
    pub(super) kind: ChatType,
    pub(super) title: Option<String>,
    pub(super) topic: Option<String>,
    pub(super) settings: ChatSettings,
    pub(super) closed: bool,
    pub(super) direct_key: Option<String>,
    pub(super) founders: Vec<MemberRole>,
    pub(super) created_at: Time,
    pub(super) membership_epoch: u64,
    /// The entry of `seq` n stands at n - 1.
    pub(super) log: Vec<Entry>,
    /// Former members too.
    pub(super) members: BTreeMap<UserId, Member>,
    pub(super) moves: Vec<Moved>,
}

#[derive(Clone)]
pub(super) struct Member {
    pub(super) present: bool,
    pub(super) role: Role,
    pub(super) joined_at: Time,
    pub(super) joined_seq: Seq,
    pub(super) visible_seq: Seq,
    pub(super) cleared_seq: Seq,
    pub(super) cursors: Cursors,
}

impl Chat {
    pub(super) fn new(new: NewChat) -> Self {
        Self {
            kind: new.kind,
            title: new.title,
            topic: None,
            settings: new.settings,
            closed: false,
            direct_key: new.direct_key,
            founders: new.members,
            created_at: Time::default(),
            membership_epoch: 0,
            log: Vec::new(),
            members: BTreeMap::new(),
            moves: Vec::new(),
        }
    }

    pub(super) fn member(&self, user_id: UserId) -> Option<&Member> {
        self.members.get(&user_id).filter(|member| member.present)
    }

    pub(super) fn member_mut(&mut self, user_id: UserId) -> Option<&mut Member> {
        self.members.get_mut(&user_id).filter(|member| member.present)
    }

    pub(super) fn present(&self) -> impl Iterator<Item = (UserId, &Member)> {
        self.members.iter().filter(|(_, member)| member.present).map(|(id, member)| (*id, member))
    }

    fn entry(&self, chat_id: ChatId, user_id: UserId) -> Option<ChatEntry> {
        let Member { cleared_seq, visible_seq, .. } = *self.member(user_id)?;
        let head = self.log.last()?;
        Some(ChatEntry {
            chat_id,
            head_seq: Seq::new(self.log.len() as u64),
            head_id: head.event_id,
            head_n: head.n,
            updated_at: head.created_at(),
            cleared_seq,
            visible_seq,
        })
    }
}

impl State {
    /// All that the user may list, the most recent first.
    fn entries(&self, user_id: UserId) -> Vec<ChatEntry> {
        let mut entries: Vec<_> =
            self.chats.iter().filter_map(|(id, chat)| chat.entry(*id, user_id)).collect();
        entries.sort_by_key(|entry| Reverse(entry.head_id));
        entries
    }
}

#[async_trait]
impl Chats for Memory {
    async fn load(&self, chat_id: ChatId) -> EngineResult<Option<ChatState>> {
        let state = self.state.lock();
        let Some(chat) = state.chats.get(&chat_id) else { return Ok(None) };
        let members = chat.present().map(|(user_id, m)| {
            let (role, joined_at) = (m.role, m.joined_at);
            let (joined_seq, visible_seq) = (m.joined_seq, m.visible_seq);
            (user_id, MemberState { role, joined_at, joined_seq, visible_seq })
        });
        Ok(Some(ChatState {
            chat_id,
            kind: chat.kind,
            title: chat.title.clone(),
            topic: chat.topic.clone(),
            created_at: chat.created_at,
            settings: chat.settings,
            closed: chat.closed,
            membership_epoch: chat.membership_epoch,
            members: members.collect(),
        }))
    }

    async fn find_direct(&self, direct_key: &str) -> EngineResult<Option<ChatId>> {
        Ok(self.state.lock().find_direct(direct_key))
    }

    async fn list(
        &self,
        user_id: UserId,
        before: Option<MessageId>,
        limit: u32,
    ) -> EngineResult<Vec<ChatEntry>> {
        let mut entries = self.state.lock().entries(user_id);
        entries.retain(|entry| {
            entry.head_seq > entry.cleared_seq && before.is_none_or(|id| entry.head_id < id)
        });
        entries.truncate(limit as usize);
        Ok(entries)
    }

    async fn changed_since(
        &self,
        user_id: UserId,
        since: MessageId,
        limit: u32,
    ) -> EngineResult<Vec<ChatEntry>> {
        let mut entries = self.state.lock().entries(user_id);
        entries.retain(|entry| entry.head_id >= since);
        entries.truncate(limit as usize);
        Ok(entries)
    }

    async fn entry(&self, chat_id: ChatId, user_id: UserId) -> EngineResult<Option<ChatEntry>> {
        let state = self.state.lock();
        Ok(state.chats.get(&chat_id).and_then(|chat| chat.entry(chat_id, user_id)))
    }

    async fn share_chat(&self, one: UserId, other: UserId) -> EngineResult<bool> {
        let state = self.state.lock();
        let mut chats = state.chats.values();
        Ok(chats.any(|chat| chat.member(one).is_some() && chat.member(other).is_some()))
    }

    async fn clear(
        &self,
        chat_id: ChatId,
        user_id: UserId,
        seq: Seq,
        at: Time,
    ) -> EngineResult<AccountEvent> {
        self.write(|state| {
            let member = state.chats.get_mut(&chat_id).and_then(|chat| chat.member_mut(user_id));
            let seq = member.map_or(seq, |member| {
                member.cleared_seq = member.cleared_seq.max(seq);
                member.cleared_seq
            });
            state.append_own(user_id, AccountEventBody::Cleared { chat_id, seq }, at)
        })
        .await
    }
}

impl State {
    pub(super) fn find_direct(&self, direct_key: &str) -> Option<ChatId> {
        let mut chats = self.chats.iter();
        chats.find(|(_, chat)| chat.direct_key.as_deref() == Some(direct_key)).map(|(id, _)| *id)
    }
}
