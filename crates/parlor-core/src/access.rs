//! Who may do and see what in a chat: one function for every path (invariant I9).
//!
//! Pure, over the state of the chat. Absent and not allowed to know give the same answer: a chat of
//! which the caller is not a present member does not exist for them.

use parlor_proto::{
    ErrorCode, UserId,
    chats::ChatType,
    members::{LeaveReason, Role},
};

use crate::{
    error::{Error, Result},
    ports::chats::{ChatState, MemberState},
};

/// Something that a person wants to do in a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// See its name, members and messages.
    See,
    /// Post a message.
    Post,
    /// React to a message.
    React,
    /// Replace the text of a message by this author.
    Edit {
        /// Who wrote it.
        author: UserId,
    },
    /// Delete a message by this author.
    Delete {
        /// Who wrote it.
        author: UserId,
    },
    /// Add people.
    AddMembers {
        /// Who is added.
        user_ids: Vec<UserId>,
        /// How many members the chat may have.
        max_members: u32,
    },
    /// Remove somebody else, or leave.
    EndMembership {
        /// Who goes.
        user_id: UserId,
    },
    /// Change a role.
    SetRole {
        /// Whose.
        user_id: UserId,
        /// To what.
        role: Role,
    },
    /// Change title, topic or settings.
    Set,
    /// Close the chat for all.
    Close,
}

/// Tells whether the person may do it, and returns them as a member.
pub fn check(chat: &ChatState, user_id: UserId, act: &Act) -> Result<MemberState> {
    let member = *chat.members.get(&user_id).ok_or(Error::NotFound)?;
    let is_group = chat.kind == ChatType::Group;
    let is_admin = member.role >= Role::Admin;
    let verdict = match act {
        Act::See | Act::Post | Act::React => Ok(()),
        Act::Edit { author } if *author == user_id => Ok(()),
        Act::Edit { .. } => Err(Error::forbidden("only its author may edit a message")),
        Act::Delete { author } if *author == user_id || (is_group && is_admin) => Ok(()),
        Act::Delete { .. } => {
            Err(Error::forbidden("only its author or an admin may delete a message"))
        }
        _ if !is_group => Err(Error::forbidden("a one-to-one chat has no members to manage")),
        Act::AddMembers { user_ids, max_members } => {
            check_add(chat, is_admin, user_ids, *max_members)
        }
        Act::EndMembership { user_id: who } if *who == user_id => check_leave(chat, user_id),
        Act::EndMembership { user_id: who } => check_remove(chat, member.role, *who),
        Act::SetRole { user_id: who, role } => check_role(chat, member.role, *who, *role),
        Act::Set if is_admin => Ok(()),
        Act::Set => Err(Error::forbidden("only owners and admins may change a group")),
        Act::Close if member.role == Role::Owner => Ok(()),
        Act::Close => Err(Error::forbidden("only an owner may close a group")),
    };
    verdict.map(|()| member)
}

/// Why somebody who ends a membership does so.
pub fn leave_reason(by: UserId, user_id: UserId) -> LeaveReason {
    if by == user_id { LeaveReason::Left } else { LeaveReason::Removed }
}

fn check_add(chat: &ChatState, is_admin: bool, user_ids: &[UserId], max: u32) -> Result<()> {
    if !is_admin && !chat.settings.members_may_add {
        return Err(Error::forbidden("only owners and admins may add people to this group"));
    }
    let new = user_ids.iter().filter(|user_id| !chat.members.contains_key(user_id)).count();
    if chat.members.len() + new > max as usize {
        return Err(Error::conflict("the group has as many members as it may have"));
    }
    Ok(())
}

fn check_leave(chat: &ChatState, user_id: UserId) -> Result<()> {
    let owners = chat.members.values().filter(|member| member.role == Role::Owner).count();
    let is_owner = chat.members.get(&user_id).is_some_and(|member| member.role == Role::Owner);
    if is_owner && owners == 1 && chat.members.len() > 1 {
        return Err(Error::Conflict {
            code: ErrorCode::LastOwner,
            detail: "name another owner before the last one leaves",
        });
    }
    Ok(())
}

fn check_remove(chat: &ChatState, own: Role, who: UserId) -> Result<()> {
    if own < Role::Admin {
        return Err(Error::forbidden("only owners and admins may remove people"));
    }
    let target = chat.members.get(&who).ok_or(Error::NotFound)?;
    if target.role > own || (target.role == Role::Owner && own != Role::Owner) {
        return Err(Error::forbidden("an admin may not remove an owner"));
    }
    Ok(())
}

fn check_role(chat: &ChatState, own: Role, who: UserId, role: Role) -> Result<()> {
    if own < Role::Admin {
        return Err(Error::forbidden("only owners and admins may change roles"));
    }
    let target = chat.members.get(&who).ok_or(Error::NotFound)?;
    if own != Role::Owner && (target.role == Role::Owner || role == Role::Owner) {
        return Err(Error::forbidden("only an owner may name or unmake an owner"));
    }
    let owners = chat.members.values().filter(|member| member.role == Role::Owner).count();
    if target.role == Role::Owner && role != Role::Owner && owners == 1 {
        return Err(Error::Conflict {
            code: ErrorCode::LastOwner,
            detail: "a group keeps at least one owner",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use parlor_proto::{ChatId, Seq, Time, chats::ChatSettings};

    use super::*;

    const OWNER: UserId = UserId::from_raw(1);
    const ADMIN: UserId = UserId::from_raw(2);
    const MEMBER: UserId = UserId::from_raw(3);
    const OTHER: UserId = UserId::from_raw(4);
    const STRANGER: UserId = UserId::from_raw(9);

    fn chat(kind: ChatType) -> ChatState {
        let member = |role| MemberState {
            role,
            joined_at: Time::default(),
            joined_seq: Seq::new(1),
            visible_seq: Seq::new(1),
        };
        ChatState {
            chat_id: ChatId::from_raw(1),
            kind,
            title: None,
            topic: None,
            created_at: Time::default(),
            settings: ChatSettings::default(),
            closed: false,
            membership_epoch: 1,
            members: BTreeMap::from([
                (OWNER, member(Role::Owner)),
                (ADMIN, member(Role::Admin)),
                (MEMBER, member(Role::Member)),
                (OTHER, member(Role::Member)),
            ]),
        }
    }

    /// Rows: act; columns: owner, admin, member. `y` allowed, `n` forbidden.
    #[test]
    fn the_table_of_a_group_holds() {
        let group = chat(ChatType::Group);
        let table = [
            (Act::See, "yyy"),
            (Act::Post, "yyy"),
            (Act::React, "yyy"),
            (Act::Edit { author: OTHER }, "nnn"),
            (Act::Delete { author: OTHER }, "yyn"),
            (Act::AddMembers { user_ids: vec![STRANGER], max_members: 10 }, "yyn"),
            (Act::EndMembership { user_id: OTHER }, "yyn"),
            (Act::SetRole { user_id: OTHER, role: Role::Admin }, "yyn"),
            (Act::SetRole { user_id: OTHER, role: Role::Owner }, "ynn"),
            (Act::Set, "yyn"),
            (Act::Close, "ynn"),
        ];
        for (act, expected) in table {
            for (user_id, mark) in [OWNER, ADMIN, MEMBER].into_iter().zip(expected.chars()) {
                let verdict = check(&group, user_id, &act);
                let allowed = mark == 'y';
                assert_eq!(verdict.is_ok(), allowed, "{act:?} by {user_id:?}: {verdict:?}");
            }
            assert_eq!(check(&group, STRANGER, &act), Err(Error::NotFound), "{act:?}");
        }
    }

    #[test]
    fn owners_are_kept() {
        let group = chat(ChatType::Group);
        let last_owner = |verdict: Result<MemberState>| {
            matches!(verdict, Err(Error::Conflict { code: ErrorCode::LastOwner, .. }))
        };
        assert!(last_owner(check(&group, OWNER, &Act::EndMembership { user_id: OWNER })));
        let demote = Act::SetRole { user_id: OWNER, role: Role::Member };
        assert!(last_owner(check(&group, OWNER, &demote)));
        assert!(check(&group, ADMIN, &Act::EndMembership { user_id: OWNER }).is_err());
        assert!(check(&group, MEMBER, &Act::EndMembership { user_id: MEMBER }).is_ok());
    }

    #[test]
    fn a_full_group_takes_nobody_but_known_members() {
        let group = chat(ChatType::Group);
        let add = |user_ids| Act::AddMembers { user_ids, max_members: 4 };
        assert!(check(&group, OWNER, &add(vec![STRANGER])).is_err());
        assert!(check(&group, OWNER, &add(vec![OTHER])).is_ok());
    }

    #[test]
    fn a_one_to_one_has_authors_and_nothing_to_manage() {
        let direct = chat(ChatType::OneOnOne);
        assert!(check(&direct, OWNER, &Act::Post).is_ok());
        assert!(check(&direct, OWNER, &Act::Delete { author: OTHER }).is_err());
        assert!(check(&direct, OTHER, &Act::Delete { author: OTHER }).is_ok());
        assert!(check(&direct, OWNER, &Act::EndMembership { user_id: OTHER }).is_err());
        assert!(check(&direct, OWNER, &Act::Set).is_err());
        assert_eq!(check(&direct, STRANGER, &Act::Post), Err(Error::NotFound));
    }
}
