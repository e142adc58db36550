//! From an action that the kernel saw to its intent.
//!
//! The recorder calls this once per distinct decision. The digested text is written by hand in canonical order,
//! because a general canonicaliser costs more than the rest together; tests hold both equal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;

use serde_json::{Map, Value};

use super::infer;
use super::normalise::{Context, Intent, Kind, Provenance, Source, Target};
use crate::action::{Action, Host, Object};
use crate::endpoint::Operation;
use crate::sign::{Digest, Field, ObjectWriter};
use crate::timestamp::Timestamp;

/// Longer arguments are kept as a digest even in raw capture: a line of evidence must stay readable in one piece.
pub const RAW_ARGV_BYTES: usize = 128 << 10;

/// What of the arguments of a program goes into the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Capture {
    /// The program and a digest of the arguments.
    #[default]
    Reference,
    /// The arguments themselves besides.
    Raw,
}

impl Capture {
    /// Returns the spelling of the contract's `capture_mode`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reference => "reference",
            Self::Raw => "raw",
        }
    }
}

/// What is the same for all actions of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    /// Whom the workload acts for, such as `uid:1000`. Not blank.
    pub identity: String,
    /// The root of the work. Not blank.
    pub workspace: String,
    /// The run. In no digest, so that two equal runs give equal digests.
    pub run_id: String,
}

impl Intent {
    /// Makes the intent of an action.
    ///
    /// Normalising a request with the same facts gives the same intent. The time is unset: it belongs to the event.
    #[must_use]
    pub fn from_action(facts: &SessionFacts, action: &Action<'_>, capture: Capture) -> Self {
        let class = action.class();
        let (kind, value) = kind_and_value(&action.object);
        let operation = action.operation.as_str();
        let (args, args_text) = args(action, capture, &value);
        let target = Target {
            kind,
            endpoint_domain: infer::domain(kind, &value),
            value,
            operation: operation.to_owned(),
            sensitivity: String::new(),
            endpoint_class: class,
            destructive: action.operation.is_destructive() || infer::destructive(class, operation),
        };
        let context = Context {
            identity: facts.identity.trim().to_owned(),
            workspace: facts.workspace.trim().replace('\\', "/"),
            risk_class: class.risk_class().to_owned(),
            session_id: String::new(),
            request_id: String::new(),
        };
        let tool_name = format!("os.{class}");
        let digested = digested(&tool_name, &args_text, &target, &context);
        Self {
            created_at: Timestamp::UNSET,
            tool_name,
            args,
            targets: vec![target],
            arg_provenance: vec![Provenance {
                arg_path: "$".to_owned(),
                source: Source::System,
                source_ref: String::new(),
                integrity_digest: None,
            }],
            skill_provenance: None,
            context,
            args_digest: Digest::sha256(&args_text),
            intent_digest: Digest::sha256(&digested),
        }
    }
}

fn kind_and_value(object: &Object<'_>) -> (Kind, String) {
    match object {
        Object::Path(path) => (Kind::Path, path_text(path).into_owned()),
        Object::Host(host) => (Kind::Host, host_text(host)),
        Object::Other(text) => (Kind::Other, path_text(text.as_bytes()).into_owned()),
    }
}

/// Writes bytes as text: UTF-8 as it is, every other byte as `\xNN`.
///
/// White space at either end is written as `\xNN` too, because the contract trims values and two files must not
/// become one by that.
#[must_use]
pub fn path_text(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && text.trim().len() == text.len()
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len() + 12);
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        escape(&mut out, chunk.invalid());
    }
    let start = out.len() - out.trim_start().len();
    let end = out.trim_end().len().max(start);
    let mut escaped = String::with_capacity(out.len() + 12);
    escape(&mut escaped, &out.as_bytes()[..start]);
    escaped.push_str(&out[start..end]);
    escape(&mut escaped, &out.as_bytes()[end..]);
    Cow::Owned(escaped)
}

fn escape(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        if write!(out, "\\x{byte:02x}").is_err() {
            return;
        }
    }
}

fn host_text(host: &Host<'_>) -> String {
    let name = host.name.map(|name| path_text(name.as_bytes()));
    match (name, host.address) {
        (Some(name), None) => name.into_owned(),
        (Some(name), Some(_)) => format!("{name}:{}", host.port),
        (None, Some(IpAddr::V4(address))) => format!("{address}:{}", host.port),
        (None, Some(IpAddr::V6(address))) => format!("[{address}]:{}", host.port),
        // A peer that nothing is known of; the target still needs a value.
        (None, None) => format!("unknown:{}", host.port),
    }
}

/// The arguments, and their canonical text.
fn args(action: &Action<'_>, capture: Capture, program: &str) -> (Map<String, Value>, Vec<u8>) {
    let mut map = Map::new();
    let mut text = Vec::with_capacity(192);
    if action.operation != Operation::Exec {
        text.extend_from_slice(b"{}");
        return (map, text);
    }
    let mut object = ObjectWriter::new(&mut text);
    if let Some(argv) = action.argv {
        if capture == Capture::Raw && argv.len() <= RAW_ARGV_BYTES {
            let list: Vec<_> = arguments(argv).map(|one| path_text(one).into_owned()).collect();
            object.field("argv", Field::Texts(&list));
            map.insert("argv".to_owned(), list.into());
        }
        let digest = Digest::sha256(argv);
        object.digest("argv_sha256", &digest);
        map.insert("argv_sha256".to_owned(), digest.to_string().into());
    }
    object.text("program", program);
    object.finish();
    map.insert("program".to_owned(), program.into());
    (map, text)
}

/// Splits arguments that are each ended by NUL; a last one without is taken too.
fn arguments(argv: &[u8]) -> impl Iterator<Item = &[u8]> {
    let body = argv.strip_suffix(b"\0").unwrap_or(argv);
    let count = if argv.is_empty() { 0 } else { usize::MAX };
    body.split(|&byte| byte == 0).take(count)
}

/// The canonical text that the intent digest covers.
fn digested(tool_name: &str, args: &[u8], target: &Target, context: &Context) -> Vec<u8> {
    let mut text = Vec::with_capacity(320 + args.len() + target.value.len() + context.workspace.len());
    let mut object = ObjectWriter::new(&mut text);
    object.field("arg_provenance", Field::Canonical(b"[{\"arg_path\":\"$\",\"source\":\"system\"}]"));
    object.field("args", Field::Canonical(args));
    object.object("context", |object| {
        object.text("identity", &context.identity);
        object.text("risk_class", &context.risk_class);
        object.text("workspace", &context.workspace);
    });
    let mut one = Vec::with_capacity(160 + target.value.len());
    one.push(b'[');
    let mut inner = ObjectWriter::new(&mut one);
    if target.destructive {
        inner.field("destructive", Field::Flag(true));
    }
    inner.text("endpoint_class", target.endpoint_class.as_str());
    if !target.endpoint_domain.is_empty() {
        inner.text("endpoint_domain", &target.endpoint_domain);
    }
    inner.text("kind", target.kind.as_str());
    inner.text("operation", &target.operation);
    inner.text("value", &target.value);
    inner.finish();
    one.push(b']');
    object.field("targets", Field::Canonical(&one));
    object.text("tool_name", tool_name);
    object.finish();
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::endpoint::TargetKind;
    use crate::intent::{ContextRequest, IntentRequest, ProvenanceRequest, TargetRequest};

    fn facts() -> SessionFacts {
        SessionFacts { identity: "uid:1000".into(), workspace: "/w".into(), run_id: "run_x".into() }
    }

    /// The request that a caller would have to make for the same facts, with as little declared as possible.
    fn request(facts: &SessionFacts, action: &Action<'_>, intent: &Intent) -> IntentRequest {
        let target = &intent.targets()[0];
        IntentRequest {
            tool_name: format!("os.{}", action.class()),
            args: intent.args().clone(),
            targets: vec![TargetRequest {
                kind: action.operation.target_kind().as_str().into(),
                value: target.value.clone(),
                operation: action.operation.as_str().into(),
                endpoint_class: action.class().as_str().into(),
                destructive: action.operation.is_destructive(),
                ..TargetRequest::default()
            }],
            arg_provenance: vec![ProvenanceRequest {
                arg_path: "$".into(),
                source: "system".into(),
                ..ProvenanceRequest::default()
            }],
            context: ContextRequest {
                identity: facts.identity.clone(),
                workspace: facts.workspace.clone(),
                risk_class: action.class().risk_class().into(),
                ..ContextRequest::default()
            },
            ..IntentRequest::default()
        }
    }

    fn check(facts: &SessionFacts, action: &Action<'_>) -> Intent {
        for capture in [Capture::Raw, Capture::Reference] {
            let intent = Intent::from_action(facts, action, capture);
            assert_eq!(request(facts, action, &intent).normalise().unwrap(), intent);
        }
        Intent::from_action(facts, action, Capture::Reference)
    }

    #[test]
    fn every_operation_equals_its_normalised_request() {
        let facts = facts();
        for &operation in Operation::ALL {
            let object = match operation.target_kind() {
                TargetKind::Path => Object::Path(b"/w/\xff b\x01\\ "),
                TargetKind::Host => Object::Host(Host {
                    name: Some("example.com"),
                    address: Some(IpAddr::from([1, 2, 3, 4])),
                    port: 443,
                }),
                TargetKind::Other => Object::Other("unix:@x"),
            };
            let argv = (operation == Operation::Exec).then_some(&b"sh\0-c\0 echo \xfe \0"[..]);
            check(&facts, &Action { operation, object, image: b"/bin/sh", argv });
        }
    }

    #[test]
    fn deleting_and_running_are_destructive() {
        let facts = facts();
        for (operation, destructive) in
            [(Operation::RenameOld, true), (Operation::Exec, true), (Operation::Create, false)]
        {
            let action = Action { operation, object: Object::Path(b"/w/x"), image: b"", argv: None };
            assert_eq!(check(&facts, &action).targets()[0].destructive, destructive, "{operation:?}");
        }
    }

    #[test]
    fn hosts_are_written_with_name_or_address() {
        let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
        let v4 = IpAddr::from([1, 2, 3, 4]);
        let cases = [
            (Some("a.b"), Some(v6), 443, "a.b:443", "a.b"),
            (None, Some(v6), 443, "[2001:db8::1]:443", "2001:db8::1"),
            (None, Some(v4), 80, "1.2.3.4:80", "1.2.3.4"),
            (Some("a.b"), None, 0, "a.b", "a.b"),
        ];
        for (name, address, port, value, domain) in cases {
            let object = Object::Host(Host { name, address, port });
            let action = Action { operation: Operation::Connect, object, image: b"", argv: None };
            let intent = check(&facts(), &action);
            assert_eq!((&*intent.targets()[0].value, &*intent.targets()[0].endpoint_domain), (value, domain));
        }
    }

    #[test]
    fn the_run_is_in_no_digest() {
        let action = Action {
            operation: Operation::Read,
            object: Object::Path(b"/etc/hosts"),
            image: b"/a",
            argv: None,
        };
        let other = SessionFacts { run_id: "run_y".into(), ..facts() };
        let (one, two) = (check(&facts(), &action), check(&other, &action));
        assert_eq!(one.intent_digest(), two.intent_digest());
        assert_eq!(one.tool_name(), "os.fs.read");
    }

    #[test]
    fn arguments_are_a_digest_unless_raw() {
        let argv = b"rm\0-rf\0\0";
        let action = Action {
            operation: Operation::Exec,
            object: Object::Path(b"/bin/rm"),
            image: b"/a",
            argv: Some(argv),
        };
        let digest = Digest::sha256(argv).to_string();
        let reference = Intent::from_action(&facts(), &action, Capture::Reference);
        let want = serde_json::json!({"argv_sha256": digest, "program": "/bin/rm"});
        assert_eq!(Value::Object(reference.args().clone()), want);
        let raw = Intent::from_action(&facts(), &action, Capture::Raw);
        let want =
            serde_json::json!({"argv": ["rm", "-rf", ""], "argv_sha256": digest, "program": "/bin/rm"});
        assert_eq!(Value::Object(raw.args().clone()), want);
    }

    #[test]
    fn bytes_become_text() {
        let cases: [(&[u8], &str); 7] = [
            (b"/a/b", "/a/b"),
            ("/é".as_bytes(), "/é"),
            (b"/a\xff\xfeb", "/a\\xff\\xfeb"),
            (b"/a ", "/a\\x20"),
            ("/a\u{a0}".as_bytes(), "/a\\xc2\\xa0"),
            (b"  ", "\\x20\\x20"),
            (b"/a\\b\n.", "/a\\b\n."),
        ];
        for (bytes, text) in cases {
            assert_eq!(path_text(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn any_path_and_argument_equals_its_normalised_request(
            path in prop::collection::vec(any::<u8>(), 1..40),
            argv in prop::collection::vec(any::<u8>(), 0..40),
            identity in "[^\\s]\\PC{0,10}",
        ) {
            let facts = SessionFacts { identity, ..facts() };
            let object = Object::Path(&path);
            check(&facts, &Action { operation: Operation::Exec, object, image: b"", argv: Some(&argv) });
            check(&facts, &Action { operation: Operation::Unlink, object, image: b"", argv: None });
        }

        #[test]
        fn any_name_equals_its_normalised_request(name in "\\PC{1,30}", port in any::<u16>()) {
            let host = Host { name: Some(&name), address: Some(IpAddr::from([9, 9, 9, 9])), port };
            let object = Object::Host(host);
            check(&facts(), &Action { operation: Operation::Connect, object, image: b"", argv: None });
        }
    }
}
