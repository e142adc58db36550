//! The policies that come with gait. Their text is part of the binary, so that `gait exec` needs no installation.

use std::sync::OnceLock;

use super::decode;
use super::decode_exec::ExecDocument;
use super::pattern::Bindings;
use super::source::{Reporter, Source};
use super::syntax;

/// Every shipped policy: its name and its text.
pub const SHIPPED: [(&str, &str); 10] = [
    ("coding-agent", include_str!("../../../policies/coding-agent.yaml")),
    ("observe", include_str!("../../../policies/observe.yaml")),
    ("ci", include_str!("../../../policies/ci.yaml")),
    ("locked-down", include_str!("../../../policies/locked-down.yaml")),
    ("baseline-lowrisk", include_str!("../../../policies/baseline-lowrisk.yaml")),
    ("baseline-mediumrisk", include_str!("../../../policies/baseline-mediumrisk.yaml")),
    ("baseline-highrisk", include_str!("../../../policies/baseline-highrisk.yaml")),
    ("secrets", include_str!("../../../policies/secrets.yaml")),
    ("persistence", include_str!("../../../policies/persistence.yaml")),
    ("sockets", include_str!("../../../policies/sockets.yaml")),
];

/// The policy of `gait exec` where none is named.
pub const DEFAULT: &str = "coding-agent";

/// Returns the text of a shipped policy.
#[must_use]
pub fn shipped(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// What holds in `exec` where no policy of the chain says otherwise: the secret names of `secrets` and the protected
/// files of `persistence`.
pub(super) fn exec_defaults() -> &'static ExecDocument {
    static DEFAULTS: OnceLock<ExecDocument> = OnceLock::new();
    DEFAULTS.get_or_init(|| {
        let mut defaults = ExecDocument::default();
        for name in ["secrets", "persistence"] {
            let source = Source { name: name.to_owned(), text: shipped(name).unwrap_or_default().to_owned() };
            let mut reporter = Reporter::new(&source);
            let Ok(root) = syntax::parse(&source.text) else { continue };
            let bindings = Bindings::placeholders();
            let document = decode::document(&root, &bindings, &mut reporter);
            defaults.overlay(&document.exec);
        }
        defaults
    })
}
