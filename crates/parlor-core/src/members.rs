//! Members: listing, adding, roles, removing, leaving. Each change is an event of the chat's log.

use parlor_proto::{
    ChatId, Invalid, UserId,
    chats::ListQuery,
    members::{AddParticipants, Participant, ParticipantList, ParticipantPatch, Role},
};

use crate::{
    Caller, Core, Fresh,
    access::{self, Act},
    chats::direct_key,
    error::{Error, Result},
    ports::{
        chats::ChatState,
        messages::{Append, Appended, Expects, NewEvent},
        rates::Rate,
    },
    privacy::Relation,
};

/// People that one call may add.
const ADD_AT_ONCE: usize = 100;

/// The actions on members.
pub struct Members<'a>(pub(crate) &'a Core);

impl Members<'_> {
    /// Pages the present members in the order of their ids.
    pub async fn list(
        &self,
        caller: &Caller,
        chat_id: ChatId,
        query: ListQuery,
    ) -> Result<ParticipantList> {
        let core = self.0;
        let chat = core.chats.load(chat_id).await?;
        access::check(&chat, caller.user_id, &Act::See)?;
        let limit = core.page_limit(query.limit)? as usize;
        let after = query.cursor.map(|cursor| core.open_page(&cursor)).transpose()?.unwrap_or(0);
        let mut page: Vec<UserId> =
            chat.members.keys().copied().filter(|id| id.raw() > after).take(limit + 1).collect();
        let has_more = page.len() > limit;
        page.truncate(limit);
        let next = page.last().filter(|_| has_more).map(|last| core.seal_page(last.raw()));
        Ok(ParticipantList { items: self.views(caller, &chat, &page).await?, next })
    }

    /// Adds people to a group; those already in are left as they are.
    pub async fn add(
        &self,
        caller: &Caller,
        chat_id: ChatId,
        request: AddParticipants,
    ) -> Result<(ParticipantList, Fresh)> {
        let core = self.0;
        if request.user_ids.is_empty() || request.user_ids.len() > ADD_AT_ONCE {
            let detail = format!("a call adds 1 to {ADD_AT_ONCE} people");
            return Err(Invalid::new("user_ids", detail).into());
        }
        let chat = core.chats.load(chat_id).await?;
        let act = Act::AddMembers {
            user_ids: request.user_ids.clone(),
            max_members: core.settings.limits.group_members,
        };
        access::check(&chat, caller.user_id, &act)?;
        core.rate(Rate::Sends, &caller.user_id.to_string(), 1)?;
        let mut wanted = request.user_ids.clone();
        wanted.sort_unstable();
        wanted.dedup();
        let known = core.ports.accounts.load_many(&wanted).await?;
        if known.iter().filter(|account| account.deleted_at.is_none()).count() != wanted.len() {
            let detail = "one of these people does not exist";
            return Err(Invalid::new("user_ids", detail).into());
        }
        let history = chat.settings.history;
        let role = Role::Member;
        let events: Vec<NewEvent> = wanted
            .iter()
            .filter(|user_id| !chat.members.contains_key(user_id))
            .map(|user_id| NewEvent::Join { user_id: *user_id, role, history })
            .collect();
        let key = request.client_id.map(|id| core.append_key(id, &("add", chat_id, &wanted)));
        let fresh = if events.is_empty() {
            Fresh::Repeated
        } else {
            let append = Append {
                chat_id,
                sender_id: caller.user_id,
                key,
                expects: Expects::Epoch(chat.membership_epoch),
                events,
            };
            match core.appender.append(append, act).await? {
                Appended::Stored(_) => Fresh::New,
                Appended::Repeated(_) | Appended::Unchanged => Fresh::Repeated,
                Appended::KeyConflict => return Err(Error::key_conflict()),
                _ => return Err(Error::unavailable()),
            }
        };
        let chat = core.chats.load(chat_id).await?;
        wanted.retain(|user_id| chat.members.contains_key(user_id));
        let items = self.views(caller, &chat, &wanted).await?;
        Ok((ParticipantList { items, next: None }, fresh))
    }

    /// Changes a member's role.
    pub async fn set_role(
        &self,
        caller: &Caller,
        chat_id: ChatId,
        user_id: UserId,
        patch: ParticipantPatch,
    ) -> Result<Participant> {
        let core = self.0;
        let chat = core.chats.load(chat_id).await?;
        let act = Act::SetRole { user_id, role: patch.role };
        access::check(&chat, caller.user_id, &act)?;
        if chat.members.get(&user_id).is_some_and(|member| member.role != patch.role) {
            let event = NewEvent::Role { user_id, role: patch.role };
            core.append_plain(caller, &chat, vec![event], act).await?;
        }
        let chat = core.chats.load(chat_id).await?;
        let views = self.views(caller, &chat, &[user_id]).await?;
        views.into_iter().next().ok_or(Error::NotFound)
    }

    /// Removes a member, or leaves when it is the caller.
    pub async fn remove(&self, caller: &Caller, chat_id: ChatId, user_id: UserId) -> Result<()> {
        let core = self.0;
        let chat = core.chats.load(chat_id).await?;
        let act = Act::EndMembership { user_id };
        access::check(&chat, caller.user_id, &act)?;
        let reason = access::leave_reason(caller.user_id, user_id);
        let event = NewEvent::Leave { user_id, reason };
        core.append_plain(caller, &chat, vec![event], act).await?;
        Ok(())
    }

    async fn views(
        &self,
        caller: &Caller,
        chat: &ChatState,
        user_ids: &[UserId],
    ) -> Result<Vec<Participant>> {
        let core = self.0;
        let cursors = core.ports.receipts.cursors_of_chat(chat.chat_id).await?;
        let mut views = Vec::with_capacity(user_ids.len());
        for user_id in user_ids {
            let Some(member) = chat.members.get(user_id) else { continue };
            let account = core.account(*user_id).await?;
            let shown = core.shows_receipts(chat, *user_id, caller.user_id).await?;
            let cursors = cursors.iter().find(|(id, _)| id == user_id).map(|(_, cursors)| *cursors);
            let cursors = cursors.filter(|_| shown);
            views.push(Participant {
                user_id: *user_id,
                user: crate::accounts::public_user(&account),
                role: member.role,
                joined_at: member.joined_at,
                joined_seq: member.joined_seq,
                delivered_seq: cursors.map(|cursors| cursors.delivered_seq),
                read_seq: cursors.map(|cursors| cursors.read_seq),
            });
        }
        Ok(views)
    }
}

impl Core {
    /// Returns how two people stand to each other.
    pub(crate) async fn relation(&self, one: UserId, other: UserId) -> Result<Relation> {
        let direct = self.ports.chats.find_direct(&direct_key(one, other)).await?;
        let is_contact = direct.is_some();
        let shares_chat = is_contact || self.ports.chats.share_chat(one, other).await?;
        Ok(Relation { shares_chat, is_contact })
    }

    /// Returns the profile of the other person of a one-to-one.
    pub(crate) async fn peer_of(
        &self,
        chat: &ChatState,
        user_id: UserId,
    ) -> Result<Option<parlor_proto::accounts::User>> {
        if chat.kind != parlor_proto::chats::ChatType::OneOnOne {
            return Ok(None);
        }
        match chat.members.keys().find(|member| **member != user_id) {
            Some(other) => Ok(Some(crate::accounts::public_user(&*self.account(*other).await?))),
            None => Ok(None),
        }
    }
}
