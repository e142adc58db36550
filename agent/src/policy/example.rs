//! Actions as people write them: `fs.write /etc/passwd`, `proc.exec /usr/bin/git push --force`,
//! `net.http api.github.com:443`.
//!
//! Used by the `examples` of rules and by `gait why`. The forms:
//!
//! - `CLASS[:OPERATION] OBJECT [by PROGRAM]`, where the operation is that of an opened file, a removed file, a
//!   connection and so on if it is not given; for `proc.exec` the arguments follow the object.
//! - A host is `name:port`, `address:port`, `[address]:port` or `name@address:port`; for `net.dns` the name alone.
//! - `tool NAME CLASS OBJECT [key=value …]` is a tool call, with the keys risk, source, identity, publisher,
//!   `skill_source`, sensitivity, operation, kind and workspace.

use std::net::IpAddr;

use super::pattern::{Bindings, PatternError, substitute};
use crate::action::{Action, Host, Object};
use crate::endpoint::{EndpointClass, Operation, TargetKind};
use crate::intent::{
    Capture, ContextRequest, Intent, IntentError, IntentRequest, ProvenanceRequest, SessionFacts,
    SkillRequest, TargetRequest,
};

/// An action or a tool call in words.
#[derive(Debug, Clone)]
pub enum Example {
    /// What the kernel would see.
    Action(ExampleAction),
    /// What a tool would ask for.
    Tool(Box<Intent>),
}

/// An action that owns its parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExampleAction {
    operation: Operation,
    text: String,
    name: Option<String>,
    address: Option<IpAddr>,
    port: u16,
    image: String,
    argv: Option<Vec<u8>>,
}

/// The text is not an action.
#[derive(Debug, thiserror::Error)]
pub enum ExampleError {
    /// Too short.
    #[error("expected a class and an object, such as `fs.write /etc/passwd`")]
    Shape,
    /// The first word is no class.
    #[error("unknown endpoint class `{0}`")]
    Class(String),
    /// The class has no such operation.
    #[error("the class `{0}` has no operation `{1}`")]
    Operation(EndpointClass, String),
    /// Not an absolute path.
    #[error("`{0}` is not an absolute path")]
    Path(String),
    /// Not a host with its port.
    #[error("`{0}` is not a host such as example.com:443, 10.0.0.1:80 or [::1]:80")]
    Host(String),
    /// Not a key of tool calls.
    #[error("`{0}` is not one of the keys of a tool call")]
    Key(String),
    /// A variable is unknown.
    #[error(transparent)]
    Variable(#[from] PatternError),
    /// Not an intent.
    #[error(transparent)]
    Intent(#[from] IntentError),
}

impl Example {
    /// Parses an example; `${…}` stand for the values of the bindings.
    pub(crate) fn parse(text: &str, bindings: &Bindings) -> Result<Self, ExampleError> {
        let text = substitute(text.trim(), &|name| bindings.value(name))?;
        if let Some(rest) = text.strip_prefix("tool ") {
            let workspace = bindings.value("workspace").unwrap_or_default();
            return tool(rest, &workspace).map(|intent| Self::Tool(Box::new(intent)));
        }
        let (class, object) = text.split_once(' ').ok_or(ExampleError::Shape)?;
        ExampleAction::parse(class, object).map(Self::Action)
    }

    /// Returns the intent, and the action that it is made of.
    pub(crate) fn intent(&self, bindings: &Bindings) -> (Intent, Option<Action<'_>>) {
        match self {
            Self::Tool(intent) => ((**intent).clone(), None),
            Self::Action(action) => {
                let facts = SessionFacts {
                    identity: "uid:1000".to_owned(),
                    workspace: bindings.value("workspace").unwrap_or_default(),
                    run_id: String::new(),
                };
                let action = action.action();
                (Intent::from_action(&facts, &action, Capture::Reference), Some(action))
            }
        }
    }
}

impl ExampleAction {
    /// Parses an action from its class, with or without an operation, and the rest.
    ///
    /// # Errors
    ///
    /// Fails if the class, the operation or the object is not one.
    pub fn parse(class: &str, object: &str) -> Result<Self, ExampleError> {
        let (class_name, operation) = class.split_once(':').unwrap_or((class, ""));
        let class: EndpointClass = class_name
            .parse()
            .map_err(|error: crate::endpoint::UnknownClass| ExampleError::Class(error.0))?;
        let operation = operation_of(class, operation)?;
        let object = object.trim();
        let (object, image) = object.rsplit_once(" by ").unwrap_or((object, "/usr/bin/example"));
        let mut action = Self {
            operation,
            text: object.trim().to_owned(),
            name: None,
            address: None,
            port: 0,
            image: image.trim().to_owned(),
            argv: None,
        };
        match operation.target_kind() {
            TargetKind::Path => {
                if operation == Operation::Exec {
                    let mut words = object.split_whitespace();
                    let program = words.next().ok_or(ExampleError::Shape)?;
                    let mut argv = Vec::new();
                    for word in std::iter::once(program).chain(words) {
                        argv.extend_from_slice(word.as_bytes());
                        argv.push(0);
                    }
                    action.text = program.to_owned();
                    action.argv = Some(argv);
                }
                if !action.text.starts_with('/') {
                    return Err(ExampleError::Path(action.text));
                }
                action.text = super::clean_path(&action.text).into_owned();
            }
            TargetKind::Host => action.host(object.trim())?,
            TargetKind::Other => {}
        }
        Ok(action)
    }

    fn host(&mut self, text: &str) -> Result<(), ExampleError> {
        let wrong = || ExampleError::Host(text.to_owned());
        let (name, peer) = match text.split_once('@') {
            Some((name, peer)) => (Some(name), peer),
            None => (None, text),
        };
        if let Ok(address) = peer.parse::<std::net::SocketAddr>() {
            self.address = Some(address.ip());
            self.port = address.port();
        } else if name.is_some() {
            return Err(wrong());
        } else if let Some((name, port)) = peer.rsplit_once(':') {
            self.name = Some(name.to_lowercase());
            self.port = port.parse().or(Err(wrong()))?;
        } else if self.operation == Operation::Resolve {
            self.name = Some(peer.to_lowercase());
        } else {
            return Err(wrong());
        }
        if let Some(name) = name {
            self.name = Some(name.to_lowercase());
        }
        if self.name.as_deref().is_some_and(|name| name.is_empty() || name.contains(['/', ':', ' '])) {
            return Err(wrong());
        }
        Ok(())
    }

    /// Returns the action.
    #[must_use]
    pub fn action(&self) -> Action<'_> {
        let object = match self.operation.target_kind() {
            TargetKind::Path => Object::Path(self.text.as_bytes()),
            TargetKind::Host => {
                Object::Host(Host { name: self.name.as_deref(), address: self.address, port: self.port })
            }
            TargetKind::Other => Object::Other(&self.text),
        };
        Action { operation: self.operation, object, image: self.image.as_bytes(), argv: self.argv.as_deref() }
    }
}

fn operation_of(class: EndpointClass, name: &str) -> Result<Operation, ExampleError> {
    let default = match class {
        EndpointClass::FsRead => Operation::Read,
        EndpointClass::FsWrite => Operation::Write,
        EndpointClass::FsDelete => Operation::Unlink,
        EndpointClass::ProcExec => Operation::Exec,
        EndpointClass::NetHttp => Operation::Connect,
        EndpointClass::NetDns => Operation::Resolve,
        EndpointClass::Other => Operation::Ground,
        EndpointClass::UiClick | EndpointClass::UiType | EndpointClass::UiNavigate => {
            return Err(ExampleError::Operation(class, name.to_owned()));
        }
    };
    if name.is_empty() {
        return Ok(default);
    }
    let found = Operation::ALL.iter().find(|known| known.class() == class && known.as_str() == name);
    found.copied().ok_or_else(|| ExampleError::Operation(class, name.to_owned()))
}

fn tool(text: &str, workspace: &str) -> Result<Intent, ExampleError> {
    let mut words = text.split_whitespace();
    let (Some(name), Some(class), Some(object)) = (words.next(), words.next(), words.next()) else {
        return Err(ExampleError::Shape);
    };
    let parsed: EndpointClass =
        class.parse().map_err(|error: crate::endpoint::UnknownClass| ExampleError::Class(error.0))?;
    let kind = match parsed {
        EndpointClass::FsRead | EndpointClass::FsWrite | EndpointClass::FsDelete => "path",
        EndpointClass::NetHttp | EndpointClass::NetDns if object.contains("://") => "url",
        EndpointClass::NetHttp | EndpointClass::NetDns => "host",
        _ => "other",
    };
    let mut request = IntentRequest {
        tool_name: name.to_owned(),
        targets: vec![TargetRequest {
            kind: kind.to_owned(),
            value: object.to_owned(),
            endpoint_class: class.to_owned(),
            ..TargetRequest::default()
        }],
        context: ContextRequest {
            identity: "someone".to_owned(),
            workspace: workspace.to_owned(),
            risk_class: "low".to_owned(),
            ..ContextRequest::default()
        },
        ..IntentRequest::default()
    };
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| ExampleError::Key(word.to_owned()))?;
        set(&mut request, key, value.to_owned())?;
    }
    Ok(request.normalise()?)
}

fn set(request: &mut IntentRequest, key: &str, value: String) -> Result<(), ExampleError> {
    let skill = |request: &mut IntentRequest| {
        request.skill_provenance.take().unwrap_or_else(|| SkillRequest {
            skill_name: "skill".to_owned(),
            source: "registry".to_owned(),
            publisher: "acme".to_owned(),
            ..SkillRequest::default()
        })
    };
    match (key, request.targets.first_mut()) {
        ("risk", _) => request.context.risk_class = value,
        ("identity", _) => request.context.identity = value,
        ("workspace", _) => request.context.workspace = value,
        ("source", _) => request.arg_provenance.push(ProvenanceRequest {
            arg_path: "$".to_owned(),
            source: value,
            ..ProvenanceRequest::default()
        }),
        ("publisher", _) => {
            request.skill_provenance = Some(SkillRequest { publisher: value, ..skill(request) });
        }
        ("skill_source", _) => {
            request.skill_provenance = Some(SkillRequest { source: value, ..skill(request) });
        }
        ("kind", Some(target)) => target.kind = value,
        ("operation", Some(target)) => target.operation = value,
        ("sensitivity", Some(target)) => target.sensitivity = value,
        _ => return Err(ExampleError::Key(key.to_owned())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(text: &str) -> Result<ExampleAction, String> {
        match Example::parse(text, &Bindings::placeholders()) {
            Ok(Example::Action(action)) => Ok(action),
            Ok(Example::Tool(_)) => Err("a tool".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn actions() {
        let example = action("fs.delete:rename ${home}/a b by /usr/bin/mv").unwrap();
        assert_eq!(example.action().operation, Operation::RenameOld);
        assert_eq!(example.action().object, Object::Path(b"/home/user/a b"));
        assert_eq!(example.action().image, b"/usr/bin/mv");
        let example = action("proc.exec /usr/bin/git push --force").unwrap();
        assert_eq!(example.action().argv, Some(&b"/usr/bin/git\0push\0--force\0"[..]));
        let example = action("net.http a.b@10.0.0.1:80").unwrap();
        let host = Host { name: Some("a.b"), address: Some(IpAddr::from([10, 0, 0, 1])), port: 80 };
        assert_eq!(example.action().object, Object::Host(host));
        let example = action("net.dns A.b").unwrap();
        assert_eq!(example.action().object, Object::Host(Host { name: Some("a.b"), address: None, port: 0 }));
    }

    #[test]
    fn what_is_no_action_says_why() {
        for (text, want) in [
            ("fs.write", "expected a class"),
            ("fs.eat /x", "unknown endpoint class"),
            ("fs.read:unlink /x", "has no operation"),
            ("fs.read x", "not an absolute path"),
            ("net.http a.b", "not a host"),
            ("net.http a.b@c:1", "not a host"),
            ("fs.read ${x}", "unknown variable"),
            ("tool t fs.read /x colour=red", "not one of the keys"),
        ] {
            let error = action(text).unwrap_err();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
