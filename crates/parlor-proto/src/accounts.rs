//! Accounts: sign-up, profiles, privacy; and the rules that a name, an address and a password obey.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;
use unicode_script::{Script, UnicodeScript};

use crate::{
    devices::Session,
    error::Invalid,
    ids::UserId,
    limits::{DISPLAY_NAME_CHARS, EMAIL_CHARS, Limits, PASSWORD_CHARS},
    time::Time,
};

/// Body of `POST /api/v1/users`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignUp {
    /// 1–50 characters: letters and digits of one script and `_ - .`.
    pub username: String,
    /// Shown to its owner only.
    pub email: String,
    /// 8–256 characters, not easy to guess.
    pub password: String,
    /// Defaults to the username.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The code printed at start, where the first account needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invite: Option<String>,
    /// Name of the device that signs up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_name: Option<String>,
}

/// Answer of sign-up and sign-in.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct SignedIn {
    /// The account.
    pub user: User,
    /// The session of this device.
    pub session: Session,
}

/// A person as others see them; `email`, `privacy` and `admin` are there for the owner only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// Never used again, also after deletion.
    pub user_id: UserId,
    /// As it was typed.
    pub username: String,
    /// For display.
    pub display_name: String,
    /// When the account was made.
    pub created_at: Time,
    /// The account was deleted; its messages may remain.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// Own account only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Own account only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<Privacy>,
    /// Own account only: administers the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<bool>,
}

/// Body of `PATCH /api/v1/users/me`; what is absent stays.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserPatch {
    /// New display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// New address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// New privacy rules; an absent rule stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privacy: Option<PrivacyPatch>,
    /// New password; ends all other sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordChange>,
}

/// A change of password, proven by the old one.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PasswordChange {
    /// The password in force.
    pub current: String,
    /// The new one.
    pub new: String,
}

/// Body of `DELETE /api/v1/users/me`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountDeletion {
    /// The password in force.
    pub password: String,
}

/// Body of `POST /api/v1/admin/users`: an account without a password.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ManagedUser {
    /// As in sign-up.
    pub username: String,
    /// Defaults to the username.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// Query of `GET /api/v1/users`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserQuery {
    /// The exact username; case and look-alike letters do not matter.
    pub username: String,
}

/// Answer of `GET /api/v1/users?username=`: one item or none.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct UserList {
    /// The people found.
    pub items: Vec<User>,
    /// Cursor of the next page.
    pub next: Option<String>,
}

/// Who may see what of a person.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Privacy {
    /// Who sees that the person is online.
    pub online: PrivacyRule,
    /// Who sees when the person was last here.
    pub last_seen: PrivacyRule,
    /// Who is told what the person received and read.
    pub receipts: PrivacyRule,
}

/// Rules to replace; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PrivacyPatch {
    /// See [`Privacy::online`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub online: Option<PrivacyRule>,
    /// See [`Privacy::last_seen`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<PrivacyRule>,
    /// See [`Privacy::receipts`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipts: Option<PrivacyRule>,
}

/// One rule of privacy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PrivacyRule {
    /// The audience.
    #[serde(default)]
    pub who: Audience,
    /// People who are never in the audience.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub except: Vec<UserId>,
}

/// The audience of a privacy rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Everyone who shares a chat.
    #[default]
    Everyone,
    /// Contacts and one-to-one partners.
    Contacts,
    /// Nobody.
    Nobody,
}

/// Checks a username; it is stored as typed or refused, never trimmed.
pub fn check_username(text: &str, limits: &Limits) -> Result<(), Invalid> {
    let refuse = |detail: String| Err(Invalid::new("username", detail));
    let count = text.chars().count();
    if count == 0 || count > limits.username_chars as usize {
        return refuse(format!("a username has 1 to {} characters", limits.username_chars));
    }
    if text.nfkc().collect::<String>() != text {
        return refuse("a username is written in Unicode normal form NFKC".to_owned());
    }
    let mut script = None;
    for letter in text.chars() {
        if matches!(letter, '_' | '-' | '.') {
            continue;
        }
        if !letter.is_alphanumeric() {
            return refuse("a username holds letters, digits and _ - . only".to_owned());
        }
        match letter.script() {
            Script::Common | Script::Inherited => {}
            found if *script.get_or_insert(found) != found => {
                return refuse("a username holds letters of one script only".to_owned());
            }
            _ => {}
        }
    }
    if !text.chars().any(char::is_alphanumeric) {
        return refuse("a username holds at least one letter or digit".to_owned());
    }
    Ok(())
}

/// Returns the form by which usernames are unique: NFKC, lower case, look-alike skeleton (UTS 39).
pub fn username_skeleton(text: &str) -> String {
    let folded: String = text.nfkc().collect::<String>().to_lowercase();
    let skeleton: String = unicode_security::skeleton(&folded).collect();
    // Some skeletons are upper case (0 looks like O), so fold again.
    skeleton.to_lowercase().nfkc().collect()
}

/// Checks the shape of an email address: one `@`, a domain with a dot or `localhost`, no spaces.
pub fn check_email(text: &str) -> Result<(), Invalid> {
    let refuse = |detail: &str| Err(Invalid::new("email", detail));
    if text.chars().count() > EMAIL_CHARS {
        return refuse("an email address has at most 255 characters");
    }
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return refuse("an email address holds no spaces or control characters");
    }
    let Some((local, domain)) = text.rsplit_once('@') else {
        return refuse("an email address holds an @");
    };
    let domain_ok = !domain.is_empty()
        && (domain.contains('.') || domain == "localhost")
        && domain.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        });
    let local_ok = !local.is_empty()
        && local.len() <= 64
        && !local.contains('@')
        && !local.starts_with('.')
        && !local.ends_with('.')
        && !local.contains("..");
    if domain_ok && local_ok { Ok(()) } else { refuse("this is not an email address") }
}

/// Returns the form by which addresses are unique: NFKC and lower case.
pub fn email_normal_form(text: &str) -> String {
    text.nfkc().collect::<String>().to_lowercase()
}

/// Checks a display name: 1–100 characters, no control or direction characters.
pub fn check_display_name(text: &str) -> Result<(), Invalid> {
    check_line("display_name", text, DISPLAY_NAME_CHARS)
}

/// Checks the length of a password; its strength is judged by the core.
pub fn check_password_length(field: &str, text: &str) -> Result<(), Invalid> {
    if PASSWORD_CHARS.contains(&text.chars().count()) {
        Ok(())
    } else {
        Err(Invalid::new(field, "a password has 8 to 256 characters"))
    }
}

/// Checks one line of text for display: not blank, no control, no direction override.
pub fn check_line(field: &str, text: &str, max_chars: usize) -> Result<(), Invalid> {
    let count = text.chars().count();
    if text.trim().is_empty() || count > max_chars {
        return Err(Invalid::new(field, format!("{field} has 1 to {max_chars} characters")));
    }
    if text.chars().any(is_unfit_for_a_line) {
        let detail = format!("{field} holds no control or direction characters");
        return Err(Invalid::new(field, detail));
    }
    Ok(())
}

fn is_unfit_for_a_line(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_of_one_script_up_to_fifty_characters_are_taken() {
        let limits = Limits::default();
        for good in ["a", "ann", "Ann-Marie.2", "анна", "李雷", "_x_", &"n".repeat(50)] {
            assert!(check_username(good, &limits).is_ok(), "{good}");
        }
        let long = "n".repeat(51);
        for bad in [
            "",
            &long,
            " ann",
            "ann ",
            "a b",
            "annа",
            "a\u{200b}b",
            "a@b",
            "ﬁ",
            "._-",
            "a\u{202e}b",
        ] {
            assert!(check_username(bad, &limits).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_that_look_alike_have_one_skeleton() {
        for (one, other) in [("Ann", "ann"), ("аnnа", "anna"), ("b0b", "bob"), ("paypal", "раураl")]
        {
            assert_eq!(username_skeleton(one), username_skeleton(other), "{one} {other}");
        }
        assert_ne!(username_skeleton("ann"), username_skeleton("ben"));
    }

    #[test]
    fn addresses_have_a_shape_and_a_length() {
        for good in ["a@b.c", "Ann.Other+x@Example.org", "x@localhost", "jörg@bücher.example"] {
            assert!(check_email(good).is_ok(), "{good}");
        }
        let long = format!("{}@example.org", "a".repeat(250));
        for bad in ["", "a", "@b.c", "a@", "a b@c.d", "a@b", "a@b..c", ".a@b.c", "a@-b.c", &long] {
            assert!(check_email(bad).is_err(), "{bad}");
        }
        assert_eq!(email_normal_form("Ann@Example.ORG"), "ann@example.org");
    }
}
