//! The ids of the API.

use thiserror::Error;
use uuid::Uuid;

/// The number of digits of an id: as many as the largest number of 128 bits has in base 62.
const DIGITS: usize = 22;

/// The kind of a thing with an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IdKind {
    /// An application, `app_…`.
    Application,
    /// An endpoint, `ep_…`.
    Endpoint,
    /// An event, `msg_…`.
    Event,
    /// An attempt, `atmpt_…`.
    Attempt,
    /// An API key, `key_…`.
    ApiKey,
    /// A background task, `qtask_…`.
    Task,
    /// A row of the audit log, `audit_…`.
    Audit,
    /// A poller, `poll_…`.
    Poller,
}

/// The reason why a text is not the id of a thing of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("it is not an id like {prefix}_ and {DIGITS} digits and letters")]
pub struct PublicIdError {
    prefix: &'static str,
}

impl IdKind {
    /// All kinds.
    pub(crate) const ALL: [Self; 8] = [
        Self::Application,
        Self::Endpoint,
        Self::Event,
        Self::Attempt,
        Self::ApiKey,
        Self::Task,
        Self::Audit,
        Self::Poller,
    ];

    /// Returns whether a text is the id of a thing of any kind.
    pub fn is_any(id: &str) -> bool {
        Self::ALL.into_iter().any(|kind| kind.number(id).is_ok())
    }

    /// Returns the text before the `_`.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Application => "app",
            Self::Endpoint => "ep",
            Self::Event => "msg",
            Self::Attempt => "atmpt",
            Self::ApiKey => "key",
            Self::Task => "qtask",
            Self::Audit => "audit",
            Self::Poller => "poll",
        }
    }

    /// Returns the id of a number, such as the 16 bytes of a UUID. The ids of one kind have the order of
    /// their numbers.
    pub fn id(self, number: u128) -> String {
        format!("{}_{:0>DIGITS$}", self.prefix(), base62::encode(number))
    }

    /// Returns a new id. Those of a kind sort in the order in which a process makes them.
    pub fn generate(self) -> String {
        self.id(Uuid::now_v7().as_u128())
    }

    /// Reads the number of an id of this kind.
    ///
    /// # Errors
    /// [`PublicIdError`] when the text is anything else. It is not repeated, since it may be a secret that
    /// was pasted in the wrong place.
    pub fn number(self, id: &str) -> Result<u128, PublicIdError> {
        let error = PublicIdError { prefix: self.prefix() };
        let digits = id.strip_prefix(self.prefix()).and_then(|rest| rest.strip_prefix('_'));
        let digits = digits.filter(|digits| digits.len() == DIGITS);
        digits.and_then(|digits| base62::decode(digits).ok()).ok_or(error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_leads_back_to_its_number_and_to_no_other_kind(number: u128) {
            for kind in IdKind::ALL {
                let id = kind.id(number);
                prop_assert_eq!(kind.number(&id), Ok(number));
                for other in IdKind::ALL.into_iter().filter(|other| *other != kind) {
                    prop_assert!(other.number(&id).is_err());
                }
            }
        }

        #[test]
        fn ids_have_the_order_of_their_numbers(a: u128, b: u128) {
            prop_assert_eq!(IdKind::Event.id(a).cmp(&IdKind::Event.id(b)), a.cmp(&b));
        }

        #[test]
        fn no_text_is_read_as_an_id_that_it_is_not(text in ".*", digits in "[0-9A-Za-z]{21,23}") {
            for id in [text, format!("msg_{digits}")] {
                if let Ok(number) = IdKind::Event.number(&id) {
                    prop_assert_eq!(IdKind::Event.id(number), id);
                }
            }
        }
    }

    #[test]
    fn the_smallest_and_the_largest_number_have_ids_of_one_length() {
        assert_eq!(IdKind::Event.id(0), "msg_0000000000000000000000");
        assert_eq!(IdKind::Event.id(u128::MAX).len(), "msg_".len() + DIGITS);
        assert!(IdKind::Event.number("msg_zzzzzzzzzzzzzzzzzzzzzz").is_err(), "more than 128 bits");
    }
}
