//! What presence and receipts of one person may be shown to another: the only place that decides.
//!
//! Pure; who is related how is looked up by the callers.

use parlor_proto::{
    UserId,
    accounts::{Audience, PrivacyRule},
};

/// How a viewer stands to the owner of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relation {
    /// Both are present members of one chat.
    pub shares_chat: bool,
    /// A contact, which one-to-one partners are too.
    pub is_contact: bool,
}

/// Tells whether the viewer is in the audience of the rule.
///
/// Whoever shares neither a chat nor a contact sees nothing; exceptions outrank the audience; a
/// person always sees their own.
pub fn may_see(rule: &PrivacyRule, owner: UserId, viewer: UserId, relation: Relation) -> bool {
    if owner == viewer {
        return true;
    }
    if rule.except.contains(&viewer) {
        return false;
    }
    match rule.who {
        Audience::Everyone => relation.shares_chat || relation.is_contact,
        Audience::Contacts => relation.is_contact,
        Audience::Nobody => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audience_is_a_table() {
        let (owner, viewer) = (UserId::from_raw(1), UserId::from_raw(2));
        let stranger = Relation { shares_chat: false, is_contact: false };
        let member = Relation { shares_chat: true, is_contact: false };
        let contact = Relation { shares_chat: true, is_contact: true };
        let rule = |who, except: &[UserId]| PrivacyRule { who, except: except.to_vec() };
        for (who, relation, seen) in [
            (Audience::Everyone, stranger, false),
            (Audience::Everyone, member, true),
            (Audience::Everyone, contact, true),
            (Audience::Contacts, stranger, false),
            (Audience::Contacts, member, false),
            (Audience::Contacts, contact, true),
            (Audience::Nobody, stranger, false),
            (Audience::Nobody, member, false),
            (Audience::Nobody, contact, false),
        ] {
            assert_eq!(may_see(&rule(who, &[]), owner, viewer, relation), seen, "{who:?}");
            assert!(!may_see(&rule(who, &[viewer]), owner, viewer, relation));
            assert!(may_see(&rule(who, &[owner]), owner, owner, relation));
        }
    }
}
