//! `gait why`: what the policy says of one action, by the code that judges held calls.

use std::ffi::OsStr;
use std::io;
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use gait_agent::action::{Action, Host, Object};
use gait_agent::endpoint::{EndpointClass, Operation, TargetKind};
use gait_agent::intent::{SessionFacts, path_text};
use serde::Serialize;

use super::args::Why;
use super::output::one_line;
use super::{Answer, CliError, exec};
use crate::run_id::OUTPUT_DIRECTORY;
use crate::session_config::{self, PolicyChoice};

/// How many links lead to nothing before it is a loop; the kernel's number.
const LINKS: u32 = 40;
/// Where name servers listen.
const DNS_PORT: u16 = 53;

#[derive(Serialize)]
struct Report {
    class: &'static str,
    operation: &'static str,
    object: String,
    verdict: &'static str,
    matched_rule: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    reason_codes: Vec<String>,
    violations: Vec<String>,
    justification: Option<String>,
    policy: String,
    policy_digest: String,
}

/// The object of the question, owned.
enum Asked {
    Path(Vec<u8>),
    Host { name: Option<String>, address: Option<IpAddr>, port: u16 },
    Other(String),
}

impl Asked {
    fn object(&self) -> Object<'_> {
        match self {
            Self::Path(path) => Object::Path(path),
            Self::Host { name, address, port } => {
                Object::Host(Host { name: name.as_deref(), address: *address, port: *port })
            }
            Self::Other(text) => Object::Other(text),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Path(path) => path_text(path).into_owned(),
            Self::Host { name, address, port } => {
                let host = match (name, address) {
                    (Some(name), _) => name.clone(),
                    (None, Some(IpAddr::V6(address))) => format!("[{address}]"),
                    (None, Some(address)) => address.to_string(),
                    (None, None) => String::new(),
                };
                if *port == 0 { host } else { format!("{host}:{port}") }
            }
            Self::Other(text) => text.clone(),
        }
    }
}

/// Answers the question.
///
/// # Errors
///
/// A class the kernel never produces, an object that is none of the class, a bad policy or workspace.
pub(super) fn why(args: &Why) -> Result<Answer, CliError> {
    let operation = operation(args)?;
    let asked = asked(args, operation)?;
    let workspace = exec::workspace(args.workspace.as_deref())?;
    let facts = SessionFacts {
        identity: format!("uid:{}", nix::unistd::getuid()),
        workspace: workspace.to_string_lossy().into_owned(),
        run_id: String::new(),
    };
    let out_dir = Path::new(OUTPUT_DIRECTORY);
    let policy = session_config::load(&PolicyChoice { name: &args.policy, facts: &facts, out_dir })?;
    let image = match &args.image {
        None => Vec::new(),
        Some(path) => resolved(path, true)?.into_os_string().into_vec(),
    };
    let argv = argv(args, operation, &asked);
    let action = Action { operation, object: asked.object(), image: &image, argv: argv.as_deref() };
    let decision = session_config::decide(&policy, &session_config::hidden(), &action);
    let explanation = policy.explain(decision);
    let report = Report {
        class: operation.class().as_str(),
        operation: operation.as_str(),
        object: asked.text(),
        verdict: decision.verdict().as_str(),
        matched_rule: explanation.matched_rule,
        file: explanation.origin.as_ref().map(|origin| origin.file.to_string()),
        line: explanation.origin.as_ref().map(|origin| origin.line),
        reason_codes: explanation.reason_codes,
        violations: explanation.violations,
        justification: explanation.justification,
        policy: args.policy.clone(),
        policy_digest: policy.policy().digest().to_string(),
    };
    Answer::ok(&report, text(&report))
}

fn text(report: &Report) -> String {
    let mut lines = vec![format!("{} {} {}", report.verdict, report.class, one_line(&report.object))];
    lines.push(match (&report.matched_rule, &report.file, report.line) {
        (Some(rule), Some(file), Some(line)) => format!("rule: {rule} at {file}:{line}"),
        _ => format!("rule: none of {}", report.policy),
    });
    lines.push(format!("reasons: {}", report.reason_codes.join(",")));
    if !report.violations.is_empty() {
        lines.push(format!("violations: {}", report.violations.join(",")));
    }
    if let Some(justification) = &report.justification {
        lines.push(format!("why: {justification}"));
    }
    lines.join("\n")
}

fn operation(args: &Why) -> Result<Operation, CliError> {
    let usual = match args.class {
        EndpointClass::FsRead => Operation::Read,
        EndpointClass::FsWrite => Operation::Write,
        EndpointClass::FsDelete => Operation::Unlink,
        EndpointClass::ProcExec => Operation::Exec,
        EndpointClass::NetHttp => Operation::Connect,
        EndpointClass::NetDns => Operation::Resolve,
        EndpointClass::Other if args.object.as_bytes().starts_with(b"unix:@") => Operation::AbstractConnect,
        EndpointClass::Other => Operation::Ground,
        EndpointClass::UiClick | EndpointClass::UiType | EndpointClass::UiNavigate => {
            return Err(CliError::input(format!("no program's action is of class {}", args.class)));
        }
    };
    let Some(name) = &args.operation else { return Ok(usual) };
    let mut of_class = Operation::ALL.iter().filter(|operation| operation.class() == args.class);
    of_class.clone().find(|operation| operation.as_str() == name).copied().ok_or_else(|| {
        let names: Vec<_> = of_class.by_ref().map(|operation| operation.as_str()).collect();
        CliError::input(format!("class {} has no operation {name:?}", args.class))
            .hint(format!("choose one of {}", names.join(", ")))
    })
}

fn asked(args: &Why, operation: Operation) -> Result<Asked, CliError> {
    let text =
        || args.object.to_str().map(str::to_owned).ok_or_else(|| CliError::input("the object is not UTF-8"));
    match operation.target_kind() {
        TargetKind::Other => Ok(Asked::Other(text()?)),
        TargetKind::Path => {
            let path = match operation {
                Operation::Exec => program(&args.object)?,
                _ => PathBuf::from(&args.object),
            };
            Ok(Asked::Path(resolved(&path, follows(operation))?.into_os_string().into_vec()))
        }
        TargetKind::Host => host(&text()?, operation),
    }
}

/// Whether the operation acts on what a symbolic link points to; the others act on the name.
const fn follows(operation: Operation) -> bool {
    !matches!(
        operation,
        Operation::Unlink
            | Operation::Rmdir
            | Operation::RenameOld
            | Operation::RenameNew
            | Operation::RenameOver
            | Operation::Symlink
            | Operation::LinkOld
            | Operation::LinkNew
            | Operation::Mkdir
            | Operation::Mknod
    )
}

/// A program without a slash is looked for as the shell does.
fn program(object: &OsStr) -> Result<PathBuf, CliError> {
    if object.as_bytes().contains(&b'/') {
        return Ok(PathBuf::from(object));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(object))
        .find(|candidate| {
            candidate.metadata().is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
        })
        .ok_or_else(|| {
            CliError::input(format!("program {} is not in PATH", object.display())).hint("give its path")
        })
}

/// Resolves a path as the kernel would: through the links of what exists, and by name from there on.
fn resolved(path: &Path, follow_last: bool) -> Result<PathBuf, CliError> {
    let absolute = std::env::current_dir().map(|current| current.join(path));
    absolute
        .and_then(|absolute| resolve(&absolute, follow_last, LINKS))
        .map_err(|error| CliError::input(format!("resolve {}", path.display())).because(error))
}

fn resolve(absolute: &Path, follow_last: bool, links: u32) -> io::Result<PathBuf> {
    if follow_last {
        match absolute.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => return done,
        }
        // A link that leads nowhere yet: a new file would be made where it leads.
        if let Ok(target) = absolute.read_link() {
            let links = links.checked_sub(1).ok_or(io::ErrorKind::TooManyLinks)?;
            let directory = absolute.parent().unwrap_or_else(|| Path::new("/"));
            return resolve(&directory.join(target), true, links);
        }
    }
    let (Some(parent), Some(Component::Normal(name))) =
        (absolute.parent(), absolute.components().next_back())
    else {
        // `..` after something that does not exist leads nowhere; the root is itself.
        return absolute.canonicalize();
    };
    Ok(resolve(parent, true, links)?.join(name))
}

/// Reads `name:port`, `address:port`, `[address]:port`, a URL; for queries also a name or address alone.
fn host(text: &str, operation: Operation) -> Result<Asked, CliError> {
    let query = operation == Operation::Resolve;
    let wrong = || {
        let hint = if query {
            "name what is looked up, such as api.github.com"
        } else {
            "such as api.github.com:443"
        };
        CliError::input(format!("{text:?} is not a host and port")).hint(hint)
    };
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let authority = if scheme.is_empty() { rest } else { rest.split(['/', '?', '#']).next().unwrap_or(rest) };
    let bare: Option<IpAddr> = authority.trim_matches(['[', ']']).parse().ok();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if bare.is_none() => (host, Some(port.parse::<u16>().ok().ok_or_else(wrong)?)),
        _ => (authority, None),
    };
    let implied = match scheme {
        "https" | "wss" => Some(443),
        "http" | "ws" => Some(80),
        _ => None,
    };
    let host = host.trim_matches(['[', ']']);
    let address: Option<IpAddr> = host.parse().ok();
    if host.is_empty() || (address.is_none() && host.contains([':', '/', '@', ' '])) {
        return Err(wrong());
    }
    let name = address.is_none().then(|| host.trim_end_matches('.').to_ascii_lowercase());
    let port = match (port.or(implied), query) {
        (Some(port), _) => port,
        (None, true) if address.is_some() => DNS_PORT,
        (None, true) => 0,
        (None, false) => return Err(wrong()),
    };
    Ok(Asked::Host { name, address, port })
}

/// The arguments of the new program, each ended by NUL; the program's name is added where it is not given.
fn argv(args: &Why, operation: Operation, asked: &Asked) -> Option<Vec<u8>> {
    let Asked::Path(path) = asked else { return None };
    if operation != Operation::Exec {
        return None;
    }
    let base = |name: &OsStr| Path::new(name).file_name().map(OsStr::to_owned);
    let named = args.argv.first().is_some_and(|first| {
        *first == args.object || first.as_bytes() == path || Some(first) == base(&args.object).as_ref()
    });
    let own = (!named).then_some(&args.object);
    let mut bytes = Vec::new();
    for word in own.into_iter().chain(&args.argv) {
        bytes.extend_from_slice(word.as_bytes());
        bytes.push(0);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_host(text: &str, operation: Operation) -> Option<String> {
        host(text, operation).ok().map(|asked| asked.text())
    }

    #[test]
    fn hosts_are_names_or_addresses_with_a_port() {
        for (text, read) in [
            ("API.example.com:443", "api.example.com:443"),
            ("https://example.com/a:b", "example.com:443"),
            ("http://example.com:8080/", "example.com:8080"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(asked_host(text, Operation::Connect).as_deref(), Some(read), "{text}");
        }
        for text in ["example.com", "::1", "", ":80", "a:b:80", "user@example.com:80", "example.com:99999"] {
            assert_eq!(asked_host(text, Operation::Connect), None, "{text}");
        }
        assert_eq!(asked_host("example.com.", Operation::Resolve).as_deref(), Some("example.com"));
        assert_eq!(asked_host("9.9.9.9", Operation::Resolve).as_deref(), Some("9.9.9.9:53"));
    }

    #[test]
    fn paths_resolve_as_far_as_they_exist() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::fs::write(root.join("real/file"), "").unwrap();
        std::os::unix::fs::symlink(root.join("real"), root.join("link")).unwrap();
        std::os::unix::fs::symlink("file", root.join("real/alias")).unwrap();
        let resolve = |name: &str, follow| resolved(&root.join(name), follow).unwrap();
        assert_eq!(resolve("link/new/deep", true), root.join("real/new/deep"));
        assert_eq!(resolve("link/alias", true), root.join("real/file"));
        assert_eq!(resolve("link/alias", false), root.join("real/alias"));
        assert_eq!(resolve("link/../real/file", true), root.join("real/file"));
        assert!(resolved(&root.join("missing/../file"), true).is_err());
        std::os::unix::fs::symlink("real/new", root.join("dangling")).unwrap();
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        assert_eq!(resolve("dangling", true), root.join("real/new"));
        assert!(resolved(&root.join("loop"), true).is_err());
    }
}
