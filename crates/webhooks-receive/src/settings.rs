//! The settings of a receiver, which its webhooks and guards share.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use webhooks_sign::KeyRing;

use crate::explanation::Explanation;
use crate::keys::{Keys, MAX_KEYS};
use crate::rejection::Rejection;
use crate::verification::Rules;

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) rules: Rules,
    /// A mark that a receiver shares with those that setters made of it, and with no other.
    pub(crate) origin: Arc<()>,
    pub(crate) keys: Keys,
    pub(crate) decoy: Arc<KeyRing<MAX_KEYS>>,
    pub(crate) max_body: usize,
    pub(crate) read_deadline: Duration,
    pub(crate) methods: Arc<[Method]>,
    pub(crate) takes_any_type: bool,
    pub(crate) on_rejection: Arc<dyn Fn(&Explanation<'_>) + Send + Sync>,
}

impl Settings {
    /// Reports a refusal to the callback of the receiver.
    pub(crate) fn report(&self, explanation: &Explanation<'_>) {
        (self.on_rejection)(explanation);
    }

    /// Reports a refusal for which no request is at hand.
    pub(crate) fn report_rejection(&self, rejection: &Rejection) {
        let (head, keys, body) = (None, None, None);
        self.report(&Explanation { rejection, rules: &self.rules, head, keys, body });
    }

    /// Returns whether both are settings of one receiver, even if a setter was called since.
    pub(crate) fn is_same_receiver(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.origin, &other.origin)
    }
}
