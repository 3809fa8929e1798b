//! The rights of keys and sessions.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use webhooks_core::TenantId;

/// The part that the holder of a key has in the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// Everything, keys and settings included.
    Admin,
    /// Daily work: applications, endpoints, event types, publishing, replays. Not keys, settings and the
    /// audit log, and no content is deleted.
    Operator,
    /// Reading.
    Viewer,
    /// Publishing, and reading what became of an event.
    Publisher,
    /// The people of one application: its endpoints and what became of its events. They do not publish:
    /// receivers trust that events come from the service's owner.
    Customer,
    /// A program that pulls the events of pollers, and does nothing else.
    Poller,
}

impl Role {
    /// All roles, those that may do the least first.
    const ALL: [Self; 6] =
        [Self::Poller, Self::Publisher, Self::Viewer, Self::Customer, Self::Operator, Self::Admin];

    /// Returns the word of the API for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Operator => "operator",
            Self::Viewer => "viewer",
            Self::Publisher => "publisher",
            Self::Customer => "customer",
            Self::Poller => "poller",
        }
    }
}

/// Something that a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Creates, changes and deletes applications.
    ChangeApplications,
    /// Reads endpoints, without their secrets.
    ReadEndpoints,
    /// Creates, changes and deletes endpoints.
    ChangeEndpoints,
    /// Reads the secrets of endpoints, their secret headers included.
    ReadSecrets,
    /// Reads event types.
    ReadEventTypes,
    /// Creates, changes and archives event types.
    ChangeEventTypes,
    /// Publishes an event.
    Publish,
    /// Reads events, deliveries and attempts, without payloads and responses.
    ReadEvents,
    /// Reads payloads, and the responses of receivers.
    ReadPayloads,
    /// Pulls the events of a poller, and moves its consumers.
    Poll,
    /// Replays, retries and cancels deliveries.
    Operate,
    /// Deletes the content of events.
    Expunge,
    /// Makes and revokes keys and portal sessions.
    ManageKeys,
    /// Reads the audit log.
    ReadAudit,
    /// Changes the settings of the service.
    ChangeSettings,
}

impl fmt::Display for Action {
    /// Writes it behind "may" or "may not".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChangeApplications => "change applications",
            Self::ReadEndpoints => "read applications and endpoints",
            Self::ChangeEndpoints => "change endpoints",
            Self::ReadSecrets => "read secrets",
            Self::ReadEventTypes => "read event types",
            Self::ChangeEventTypes => "change event types",
            Self::Publish => "publish messages",
            Self::ReadEvents => "read messages and attempts",
            Self::ReadPayloads => "read payloads",
            Self::Poll => "poll messages",
            Self::Operate => "replay and cancel messages",
            Self::Expunge => "delete the content of messages",
            Self::ManageKeys => "manage keys and sessions",
            Self::ReadAudit => "read the audit log",
            Self::ChangeSettings => "read and change the settings of the service",
        })
    }
}

/// The reason why an action is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Denial {
    /// The key is for another application. A caller gets the answer for one that does not exist.
    #[error("there is no such application")]
    OtherApplication,
    /// The action is for all applications, and the key is for one.
    #[error(
        "the key is for one application, and this concerns all of them; use a key without an application"
    )]
    AllApplications,
    /// The role does not include the action.
    #[error("the role {} may not {action}; use a key with the role {}", role.as_str(), roles(*action))]
    Role {
        /// The role of the key.
        role: Role,
        /// The action that was asked for.
        action: Action,
    },
    /// The key may not see payloads.
    #[error("the key may not see payloads; use one with `seesPayloads`")]
    Payloads,
    /// The key may not see secrets.
    #[error("the key may not see secrets; use one with `seesSecrets`")]
    Secrets,
}

/// The rights of a key or a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    role: Role,
    application: Option<TenantId>,
    sees_payloads: bool,
    sees_secrets: bool,
    /// The id of the one poller that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    poller: Option<String>,
    /// The feature flags whose event types are seen; `None` if all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    feature_flags: Option<BTreeSet<String>>,
}

impl Grant {
    /// Returns the rights of a role in all applications. All see payloads; only an admin sees secrets.
    pub fn new(role: Role) -> Self {
        let sees_secrets = role == Role::Admin;
        Self {
            role,
            application: None,
            sees_payloads: true,
            sees_secrets,
            poller: None,
            feature_flags: None,
        }
    }

    /// Limits the rights to one application.
    #[must_use]
    pub fn for_application(self, application: TenantId) -> Self {
        Self { application: Some(application), ..self }
    }

    /// Limits the rights to pulling the events of one poller.
    #[must_use]
    pub fn for_poller(self, poller: impl Into<String>) -> Self {
        Self { role: Role::Poller, poller: Some(poller.into()), ..self }
    }

    /// Returns the id of the poller, if the rights are for one.
    pub fn poller(&self) -> Option<&str> {
        self.poller.as_deref()
    }

    /// Takes away the right to see payloads and responses. An admin keeps it.
    ///
    /// It is no bound for somebody who may change endpoints: they can be sent to a receiver of his own.
    #[must_use]
    pub fn without_payloads(self) -> Self {
        Self { sees_payloads: self.role == Role::Admin, ..self }
    }

    /// Adds the right to see the secrets of endpoints.
    #[must_use]
    pub fn with_secrets(self) -> Self {
        Self { sees_secrets: true, ..self }
    }

    /// Limits the event types that are seen to those without a feature flag and those with one of these.
    #[must_use]
    pub fn with_feature_flags(self, flags: impl IntoIterator<Item = String>) -> Self {
        Self { feature_flags: Some(flags.into_iter().collect()), ..self }
    }

    /// Returns whether an event type with this feature flag is seen.
    pub fn sees_feature(&self, flag: Option<&str>) -> bool {
        match (&self.feature_flags, flag) {
            (Some(flags), Some(flag)) => flags.contains(flag),
            _ => true,
        }
    }

    /// Returns the role.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Returns the application, if the rights are for one.
    pub fn application(&self) -> Option<&TenantId> {
        self.application.as_ref()
    }

    /// Returns whether payloads and responses are seen.
    pub fn sees_payloads(&self) -> bool {
        self.sees_payloads
    }

    /// Returns whether secrets of endpoints are seen.
    pub fn sees_secrets(&self) -> bool {
        self.sees_secrets
    }

    /// Checks whether an action is allowed: on something of `application`, or on all if it is `None`.
    ///
    /// # Errors
    /// [`Denial`] with the reason. The application is checked first, so that a key learns nothing about
    /// others.
    pub fn check(&self, action: Action, application: Option<&TenantId>) -> Result<(), Denial> {
        match (&self.application, application) {
            (Some(own), Some(other)) if own != other => return Err(Denial::OtherApplication),
            (Some(_), None) if !is_of_all(action) => return Err(Denial::AllApplications),
            _ => {}
        }
        if !includes(self.role, action) {
            return Err(Denial::Role { role: self.role, action });
        }
        match action {
            // A key for one application manages nothing beyond it.
            _ if is_of_service(action) && self.application.is_some() => {
                Err(Denial::AllApplications)
            }
            Action::ReadPayloads | Action::Poll if !self.sees_payloads => Err(Denial::Payloads),
            Action::ReadSecrets if !self.sees_secrets => Err(Denial::Secrets),
            _ => Ok(()),
        }
    }
}

/// Returns whether an action concerns what all applications share, and everybody may read.
fn is_of_all(action: Action) -> bool {
    action == Action::ReadEventTypes
}

/// Returns whether an action concerns the service as a whole.
fn is_of_service(action: Action) -> bool {
    matches!(
        action,
        Action::ChangeApplications
            | Action::ChangeEventTypes
            | Action::ChangeSettings
            | Action::ManageKeys
            | Action::ReadAudit
    )
}

/// Returns the words for the roles that include an action.
fn roles(action: Action) -> String {
    let roles = Role::ALL.into_iter().filter(|role| includes(*role, action));
    roles.map(Role::as_str).collect::<Vec<_>>().join(" or ")
}

fn includes(role: Role, action: Action) -> bool {
    let reads = matches!(
        action,
        Action::ReadEndpoints
            | Action::ReadEventTypes
            | Action::ReadEvents
            | Action::ReadPayloads
            | Action::ReadSecrets
    );
    match role {
        Role::Admin => true,
        Role::Operator => {
            let is_for_admins = matches!(
                action,
                Action::ManageKeys | Action::ChangeSettings | Action::ReadAudit | Action::Expunge
            );
            !is_for_admins
        }
        Role::Viewer => reads,
        Role::Customer => {
            reads || matches!(action, Action::ChangeEndpoints | Action::Operate | Action::Poll)
        }
        Role::Poller => action == Action::Poll,
        Role::Publisher => {
            matches!(action, Action::Publish | Action::ReadEvents | Action::ReadEventTypes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Action; 15] = [
        Action::ChangeApplications,
        Action::ReadEndpoints,
        Action::ChangeEndpoints,
        Action::ReadSecrets,
        Action::ReadEventTypes,
        Action::ChangeEventTypes,
        Action::Publish,
        Action::ReadEvents,
        Action::ReadPayloads,
        Action::Poll,
        Action::Operate,
        Action::Expunge,
        Action::ManageKeys,
        Action::ReadAudit,
        Action::ChangeSettings,
    ];

    fn shop() -> TenantId {
        TenantId::new("shop").unwrap()
    }

    /// Returns the actions that a grant allows on something of an application.
    fn allowed(grant: &Grant, application: &TenantId) -> Vec<Action> {
        ALL.into_iter().filter(|action| grant.check(*action, Some(application)).is_ok()).collect()
    }

    #[test]
    fn each_role_may_do_what_it_is_for() {
        let of = |role| allowed(&Grant::new(role), &shop());
        assert_eq!(of(Role::Admin), ALL);
        let service =
            [Action::ManageKeys, Action::ReadAudit, Action::ChangeSettings, Action::Expunge];
        // Secrets are a right of their own.
        let operator: Vec<_> = (ALL.into_iter())
            .filter(|action| !service.contains(action) && *action != Action::ReadSecrets)
            .collect();
        assert_eq!(of(Role::Operator), operator);
        let reads = [
            Action::ReadEndpoints,
            Action::ReadEventTypes,
            Action::ReadEvents,
            Action::ReadPayloads,
        ];
        assert_eq!(of(Role::Viewer), reads);
        assert_eq!(of(Role::Poller), [Action::Poll]);
        assert_eq!(
            of(Role::Publisher),
            [Action::ReadEventTypes, Action::Publish, Action::ReadEvents]
        );
    }

    #[test]
    fn a_key_for_one_application_reaches_no_other_one() {
        let other = TenantId::new("bank").unwrap();
        for role in [Role::Admin, Role::Operator, Role::Viewer, Role::Publisher] {
            let grant = Grant::new(role).for_application(shop()).with_secrets();
            for action in ALL {
                assert_eq!(grant.check(action, Some(&other)), Err(Denial::OtherApplication));
                let of_all = grant.check(action, None);
                assert_eq!(of_all.is_ok(), action == Action::ReadEventTypes, "{role:?} {action:?}");
            }
            assert!(allowed(&grant, &shop()).iter().all(|action| !is_of_service(*action)));
        }
    }

    #[test]
    fn a_store_restores_the_rights_that_it_was_given() {
        for grant in [
            Grant::new(Role::Admin),
            Grant::new(Role::Viewer).without_payloads().for_application(shop()),
            Grant::new(Role::Operator).with_secrets(),
            Grant::new(Role::Viewer).for_application(shop()).for_poller("poll_1"),
            Grant::new(Role::Customer).with_feature_flags(["beta".to_owned()]),
        ] {
            let stored = serde_json::to_string(&grant).unwrap();
            assert_eq!(serde_json::from_str::<Grant>(&stored).unwrap(), grant);
        }
    }

    #[test]
    fn a_feature_is_seen_with_its_flag() {
        let sees = |grant: &Grant| [None, Some("beta")].map(|flag| grant.sees_feature(flag));
        let customer = Grant::new(Role::Customer);
        assert_eq!(sees(&customer), [true, true]);
        assert_eq!(sees(&customer.clone().with_feature_flags([])), [true, false]);
        let flags = ["beta".to_owned()];
        assert_eq!(sees(&customer.clone().with_feature_flags(flags)), [true, true]);
        assert_eq!(sees(&customer.with_feature_flags(["gamma".to_owned()])), [true, false]);
        let stored =
            r#"{"role":"viewer","application":null,"sees_payloads":true,"sees_secrets":false}"#;
        assert_eq!(sees(&serde_json::from_str(stored).unwrap()), [true, true]);
    }

    #[test]
    fn payloads_and_secrets_are_rights_of_their_own() {
        let check = |grant: Grant, action| grant.check(action, Some(&shop()));
        let viewer = Grant::new(Role::Viewer);
        assert_eq!(check(viewer.clone(), Action::ReadSecrets), Err(Denial::Secrets));
        assert_eq!(check(viewer.clone().with_secrets(), Action::ReadSecrets), Ok(()));
        let blind = viewer.without_payloads();
        assert_eq!(check(blind.clone(), Action::ReadPayloads), Err(Denial::Payloads));
        assert_eq!(check(blind, Action::ReadEvents), Ok(()));
        let poller = Grant::new(Role::Poller).without_payloads();
        assert_eq!(check(poller, Action::Poll), Err(Denial::Payloads));
        let admin = Grant::new(Role::Admin).without_payloads();
        assert_eq!(check(admin, Action::ReadPayloads), Ok(()));
        let publisher = Grant::new(Role::Publisher).with_secrets();
        assert_eq!(
            check(publisher, Action::ReadSecrets),
            Err(Denial::Role { role: Role::Publisher, action: Action::ReadSecrets })
        );
    }
}
