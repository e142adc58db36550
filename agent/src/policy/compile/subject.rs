//! An action in the forms that rules compare.

use std::borrow::Cow;

use super::Unknown;
use crate::action::{Action, Host};
use crate::intent::{Capture, Intent, SessionFacts, path_text};
use crate::policy::bound::{is_private, plain_name};

/// One action in the forms that rules compare.
pub(super) struct Subject<'a> {
    pub(super) action: &'a Action<'a>,
    pub(super) path: Option<Cow<'a, str>>,
    pub(super) host: Option<Host<'a>>,
    pub(super) name: Option<Cow<'a, str>>,
    /// What of the action is not known; nothing, when a call is held.
    pub(super) unknown: Unknown,
}

impl<'a> Subject<'a> {
    pub(super) const fn new(action: &'a Action<'a>) -> Self {
        Self { action, path: None, host: None, name: None, unknown: Unknown::NOTHING }
    }

    pub(super) fn path(action: &'a Action<'a>, path: &'a [u8]) -> Self {
        Self { path: Some(path_text(path)), ..Self::new(action) }
    }

    pub(super) fn host(action: &'a Action<'a>, host: Host<'a>) -> Self {
        let plain = |name: &'a str| {
            let odd =
                name.ends_with('.') || name.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii());
            if odd { Cow::Owned(plain_name(name)) } else { Cow::Borrowed(name) }
        };
        Self { host: Some(host), name: host.name.map(plain), ..Self::new(action) }
    }

    pub(super) fn is_private(&self) -> bool {
        self.host.and_then(|host| host.address).is_some_and(is_private)
    }

    /// The target of the intent, for what is compared with it whole.
    pub(super) fn target(&self) -> crate::intent::Target {
        let facts =
            SessionFacts { identity: "-".to_owned(), workspace: "/".to_owned(), run_id: String::new() };
        let intent = Intent::from_action(&facts, self.action, Capture::Reference);
        intent.targets().first().cloned().unwrap_or_else(|| crate::intent::Target {
            kind: crate::intent::Kind::Other,
            value: String::new(),
            operation: String::new(),
            sensitivity: String::new(),
            endpoint_class: self.action.class(),
            endpoint_domain: String::new(),
            destructive: true,
        })
    }
}
