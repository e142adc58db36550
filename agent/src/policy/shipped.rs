//! The policies that come with gait. Their text is part of the binary, so that `gait exec` needs no installation.
//!
//! Reading YAML takes longer than a short program runs, so each policy is also there as the document that its text
//! decodes to, in `decoded/`. That form is used only while it was made from exactly this text, which is settled at
//! compile time; otherwise the text is read. A test holds the two equal and writes new forms.

use std::sync::OnceLock;

use super::decode::{self, Document};
use super::decode_exec::ExecDocument;
use super::pattern::Bindings;
use super::source::{Reporter, Source};
use super::syntax;

macro_rules! policies {
    ($($name:literal,)*) => {
        /// Every shipped policy: its name and its text.
        pub const SHIPPED: [(&str, &str); [$($name),*].len()] =
            [$(($name, include_str!(concat!("../../../policies/", $name, ".yaml")))),*];

        /// What the texts decode to, in the same order.
        static DECODED: [Decoded; SHIPPED.len()] = [$({
            const FORM: Decoded = Decoded::new(
                include_str!(concat!("../../../policies/", $name, ".yaml")),
                include_str!(concat!("decoded/", $name, ".json")),
            );
            FORM
        }),*];
    };
}

policies! {
    "coding-agent",
    "observe",
    "ci",
    "locked-down",
    "baseline-lowrisk",
    "baseline-mediumrisk",
    "baseline-highrisk",
    "secrets",
    "persistence",
    "sockets",
}

/// The policy of `gait exec` where none is named.
pub const DEFAULT: &str = "coding-agent";

/// Returns the text of a shipped policy.
#[must_use]
pub fn shipped(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// How many digits begin a decoded form: the hash of the text that it was made from.
const HASH_DIGITS: usize = 16;

/// The decoded form of a shipped policy.
struct Decoded {
    form: &'static str,
    /// Whether it was made from the text that is shipped.
    fresh: bool,
}

impl Decoded {
    const fn new(text: &str, form: &'static str) -> Self {
        Self { form, fresh: begins_with(form.as_bytes(), hash(text.as_bytes())) }
    }
}

/// FNV-1a. It tells an edited text from the one before; nobody has to be kept from forging either.
const fn hash(text: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        hash = (hash ^ *byte as u64).wrapping_mul(0x100_0000_01b3);
        rest = tail;
    }
    hash
}

const fn begins_with(form: &[u8], hash: u64) -> bool {
    let mut given = 0_u64;
    let (mut rest, mut left) = (form, HASH_DIGITS);
    while left > 0 {
        let [digit, tail @ ..] = rest else { return false };
        given = given << 4
            | match *digit {
                b'0'..=b'9' => *digit - b'0',
                b'a'..=b'f' => *digit - b'a' + 10,
                _ => return false,
            } as u64;
        rest = tail;
        left -= 1;
    }
    given == hash
}

/// Returns the document of a shipped policy without reading its text, if its decoded form is of that text.
pub(super) fn decoded(name: &str) -> Option<Document> {
    let index = SHIPPED.iter().position(|(known, _)| *known == name)?;
    let Decoded { form, fresh } = DECODED.get(index)?;
    if !fresh {
        return None;
    }
    let mut document: Document = serde_json::from_str(form.get(HASH_DIGITS..)?).ok()?;
    let file: std::sync::Arc<str> = format!("builtin:{name}").into();
    for decoded in &mut document.rules {
        decoded.rule.origin.file = file.clone();
    }
    Some(document)
}

/// Reads the text of a shipped policy.
fn read(name: &str) -> Option<Document> {
    let source = Source { name: format!("builtin:{name}"), text: shipped(name)?.to_owned() };
    let root = syntax::parse(&source.text).ok()?;
    let mut reporter = Reporter::new(&source);
    let document = decode::document(&root, &Bindings::placeholders(), &mut reporter);
    reporter.errors.is_empty().then_some(document)
}

/// What holds in `exec` where no policy of the chain says otherwise: the secret names of `secrets` and the protected
/// files of `persistence`.
pub(super) fn exec_defaults() -> &'static ExecDocument {
    static DEFAULTS: OnceLock<ExecDocument> = OnceLock::new();
    DEFAULTS.get_or_init(|| {
        let mut defaults = ExecDocument::default();
        for name in ["secrets", "persistence"] {
            let document = decoded(name).or_else(|| read(name));
            defaults.overlay(&document.unwrap_or_default().exec);
        }
        defaults
    })
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::policy::Policy;

    /// Drops what reading fills in. Elsewhere an empty list is not the same as none.
    fn prune(document: &mut Value) {
        let empty = |value: &Value| {
            value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(serde_json::Map::is_empty)
        };
        drop_nulls(document);
        for rule in document.get_mut("rules").and_then(Value::as_array_mut).into_iter().flatten() {
            for inner in ["base", "examples"] {
                if let Some(map) = rule.get_mut(inner).and_then(Value::as_object_mut) {
                    map.retain(|_, value| !empty(value));
                }
            }
            rule.as_object_mut().unwrap().retain(|_, value| !empty(value));
        }
    }

    fn drop_nulls(value: &mut Value) {
        match value {
            Value::Array(list) => list.iter_mut().for_each(drop_nulls),
            Value::Object(map) => {
                map.retain(|_, value| !value.is_null());
                map.values_mut().for_each(drop_nulls);
            }
            _ => {}
        }
    }

    /// The document as its text has it, without the places that only messages about mistakes need.
    fn placeless(name: &str) -> Document {
        let mut document = read(name).unwrap_or_else(|| panic!("{name} has mistakes"));
        for decoded in &mut document.rules {
            decoded.example_places.clear();
        }
        document
    }

    /// With `GAIT_ACCEPT` in its environment, this test writes the forms that it wants; build again after that.
    #[test]
    fn decoded_forms_are_what_the_texts_decode_to() {
        for ((name, text), Decoded { fresh, .. }) in SHIPPED.iter().zip(&DECODED) {
            let want = placeless(name);
            if std::env::var_os("GAIT_ACCEPT").is_some() {
                let mut value = serde_json::to_value(&want).unwrap();
                prune(&mut value);
                let form = format!("{:016x}\n{value}\n", hash(text.as_bytes()));
                let file = format!("{}/src/policy/decoded/{name}.json", env!("CARGO_MANIFEST_DIR"));
                std::fs::write(file, form).unwrap();
                continue;
            }
            assert!(fresh, "{name}: the decoded form is of another text; run this test with GAIT_ACCEPT=1");
            let found = decoded(name).unwrap_or_else(|| panic!("{name}: the decoded form is damaged"));
            assert!(
                format!("{found:?}") == format!("{want:?}"),
                "{name}: the decoded form says something else; run this test with GAIT_ACCEPT=1"
            );
        }
    }

    /// Loading by name checks no examples and takes the decoded form; reading the text must come to the same.
    #[test]
    fn texts_load_to_the_same_policies() {
        for (name, text) in SHIPPED {
            let by_text = Policy::parse(name, text).unwrap_or_else(|errors| panic!("{errors}"));
            assert_eq!(Policy::load(name).unwrap().digest(), by_text.digest(), "{name}");
        }
    }

    #[test]
    fn forms_of_other_texts_are_told() {
        let form = format!("{:016x}\n{{}}", hash(b"a text"));
        assert!(begins_with(form.as_bytes(), hash(b"a text")));
        assert!(!begins_with(form.as_bytes(), hash(b"a test")));
        assert!(!begins_with(b"", hash(b"a text")));
    }
}
