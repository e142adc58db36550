//! A policy whose variables have values: what the reference evaluation works on, and what compilation starts from.

use std::borrow::Cow;
use std::net::IpAddr;

use super::glob::{Glob, Separator};
use super::model::{Dataflow, EndpointRule, Policy, Rule};
use super::pattern::{ArgvPattern, Bindings, PatternError, Vars, all_path_globs, domain_globs, path_globs};
use crate::endpoint::EndpointClass;
use crate::gate::Verdict;
use crate::gate::reason::Hits;
use crate::intent::{Intent, SessionFacts};

/// A policy and the patterns of its rules, bound to a session.
#[derive(Debug, Clone)]
pub struct BoundPolicy<'p> {
    pub(crate) policy: &'p Policy,
    pub(crate) rules: Vec<BoundRule>,
    pub(crate) protect: Vec<Vec<Glob>>,
}

/// A pattern does not fit the session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {source}")]
pub struct BindError {
    /// The rule, by file and line, or `exec.protect`.
    pub place: String,
    /// What is wrong.
    #[source]
    pub source: PatternError,
}

impl<'p> BoundPolicy<'p> {
    /// Binds a policy to a session.
    ///
    /// # Errors
    ///
    /// Fails if a variable's value makes a pattern useless, such as a workspace that is not absolute.
    pub fn new(policy: &'p Policy, facts: &SessionFacts, vars: &Vars) -> Result<Self, BindError> {
        Self::bind(policy, &Bindings::new(facts, vars))
    }

    /// Binds a policy to the workspace of an intent.
    ///
    /// # Errors
    ///
    /// As [`Self::new`].
    pub fn of_intent(policy: &'p Policy, intent: &Intent, vars: &Vars) -> Result<Self, BindError> {
        let facts = SessionFacts {
            identity: intent.context().identity.clone(),
            workspace: intent.context().workspace.clone(),
            run_id: String::new(),
        };
        Self::new(policy, &facts, vars)
    }

    fn bind(policy: &'p Policy, bindings: &Bindings) -> Result<Self, BindError> {
        let mut rules = Vec::with_capacity(policy.rules.len());
        for rule in policy.rules() {
            let place = || format!("{}: rule `{}`", rule.origin, rule.name);
            rules.push(
                BoundRule::bind(rule, bindings).map_err(|source| BindError { place: place(), source })?,
            );
        }
        let mut protect = Vec::with_capacity(policy.exec.protect.len());
        for pattern in &policy.exec.protect {
            let failed = |source| BindError { place: "exec.protect".to_owned(), source };
            protect.push(path_globs(pattern, bindings).map_err(failed)?);
        }
        for path in bindings.protected() {
            let trimmed = path.trim_end_matches('/');
            let mut globs = vec![Glob::literal(trimmed.as_bytes(), Separator::Slash)];
            let below = format!("{}/**", super::glob::escape(trimmed));
            let failed =
                |source: super::glob::GlobError| BindError { place: path.clone(), source: source.into() };
            globs.extend(Glob::parse(&below, Separator::Slash).map_err(failed)?);
            protect.push(globs);
        }
        Ok(Self { policy, rules, protect })
    }
}

/// The patterns of one rule, bound to a session.
#[derive(Debug, Clone)]
pub(crate) struct BoundRule {
    pub(crate) paths: Option<Vec<Glob>>,
    pub(crate) not_paths: Vec<Glob>,
    pub(crate) executables: Option<Vec<Glob>>,
    pub(crate) argv: Option<ArgvPattern>,
    pub(crate) domains: Option<Vec<Glob>>,
    pub(crate) endpoint: Option<EndpointGlobs>,
}

impl BoundRule {
    pub(crate) fn bind(rule: &Rule, bindings: &Bindings) -> Result<Self, PatternError> {
        let globs = |patterns: &Option<Vec<String>>| {
            patterns.as_ref().map(|patterns| all_path_globs(patterns, bindings)).transpose()
        };
        Ok(Self {
            paths: globs(&rule.facts.paths)?,
            not_paths: globs(&rule.facts.not_paths)?.unwrap_or_default(),
            executables: globs(&rule.facts.executables)?,
            argv: rule.facts.argv.as_ref().map(|tokens| ArgvPattern::bind(tokens, bindings)).transpose()?,
            domains: rule.facts.domains.as_ref().map(|patterns| domain_globs(patterns)).transpose()?,
            endpoint: rule.endpoint.as_ref().map(EndpointGlobs::new),
        })
    }
}

impl Dataflow {
    /// Returns whether a target is one of the destinations.
    pub(crate) fn reaches<'v>(
        &self,
        kind: &str,
        operation: &str,
        value: impl FnOnce() -> Cow<'v, str>,
    ) -> bool {
        let lists = [&self.destination_kinds, &self.destination_values, &self.destination_operations];
        if lists.iter().all(|list| list.is_empty()) {
            return matches!(kind, "host" | "url" | "bucket" | "queue" | "topic");
        }
        let holds = |list: &[String], text: &str| list.is_empty() || list.iter().any(|item| item == text);
        holds(&self.destination_kinds, kind)
            && holds(&self.destination_operations, operation)
            && (self.destination_values.is_empty() || holds(&self.destination_values, &value()))
    }
}

impl EndpointRule {
    /// Returns what the violations lead to.
    pub(crate) fn effect(&self, hits: Hits) -> Verdict {
        match self.destructive_action.filter(|_| hits.has(Hits::DESTRUCTIVE)) {
            Some(destructive) => self.action.max(destructive),
            None => self.action,
        }
    }
}

/// The patterns of the contract's endpoint constraints.
#[derive(Debug, Clone)]
pub(crate) struct EndpointGlobs {
    path_allow: Vec<BasePattern>,
    path_deny: Vec<BasePattern>,
    domain_allow: Vec<BasePattern>,
    domain_deny: Vec<BasePattern>,
}

impl EndpointGlobs {
    fn new(rule: &EndpointRule) -> Self {
        let paths = |list: &[String]| list.iter().map(|text| BasePattern::path(text)).collect();
        let domains = |list: &[String]| list.iter().map(|text| BasePattern::domain(text)).collect();
        Self {
            path_allow: paths(&rule.path_allowlist),
            path_deny: paths(&rule.path_denylist),
            domain_allow: domains(&rule.domain_allowlist),
            domain_deny: domains(&rule.domain_denylist),
        }
    }

    /// Adds the violations of one target. `path` is its value if it is a path.
    pub(crate) fn check(
        &self,
        rule: &EndpointRule,
        path: Option<&str>,
        domain: &str,
        class: EndpointClass,
        destructive: bool,
        hits: &mut Hits,
    ) {
        if let Some(path) = path
            && !(self.path_allow.is_empty() && self.path_deny.is_empty())
        {
            let slashed = path.replace('\\', "/");
            let path = clean_path(&slashed);
            let hit = |list: &[BasePattern]| list.iter().any(|pattern| pattern.is_match(&path));
            if hit(&self.path_deny) {
                hits.add(Hits::PATH_DENIED);
            }
            if !self.path_allow.is_empty() && !hit(&self.path_allow) {
                hits.add(Hits::PATH_NOT_ALLOWLISTED);
            }
        }
        if !domain.is_empty() {
            let hit = |list: &[BasePattern]| list.iter().any(|pattern| pattern.is_match(domain));
            if hit(&self.domain_deny) {
                hits.add(Hits::DOMAIN_DENIED);
            }
            if !self.domain_allow.is_empty() && !hit(&self.domain_allow) {
                hits.add(Hits::DOMAIN_NOT_ALLOWLISTED);
            }
        }
        let egress = matches!(class, EndpointClass::NetHttp | EndpointClass::NetDns);
        if egress
            && !rule.egress_classes.is_empty()
            && !rule.egress_classes.iter().any(|name| name == class.as_str())
        {
            hits.add(Hits::EGRESS);
        }
        if destructive && rule.destructive_action.is_some() {
            hits.add(Hits::DESTRUCTIVE);
        }
    }
}

/// One pattern of the contract's endpoint constraints.
#[derive(Debug, Clone)]
enum BasePattern {
    Exact(String),
    /// The prefix itself and anything below.
    Below(String),
    Suffix(String),
    Glob {
        exact: String,
        glob: Vec<Glob>,
    },
}

impl BasePattern {
    fn path(text: &str) -> Self {
        match text.strip_suffix("/**") {
            Some(prefix) => Self::Below(prefix.to_owned()),
            None => Self::glob(text),
        }
    }

    fn domain(text: &str) -> Self {
        match text.strip_prefix('*') {
            Some(suffix) if suffix.starts_with('.') => Self::Suffix(suffix.to_owned()),
            _ => Self::glob(text),
        }
    }

    /// The reference's globs know neither braces nor `**`, and negate with `^` alone.
    fn glob(text: &str) -> Self {
        let mut rewritten = String::with_capacity(text.len());
        for c in text.chars() {
            match c {
                '*' if rewritten.ends_with('*') && !rewritten.ends_with("\\*") => {}
                '{' | '}' => rewritten.extend(['\\', c]),
                '!' if rewritten.ends_with('[') && !rewritten.ends_with("\\[") => rewritten.push_str("\\!"),
                _ => rewritten.push(c),
            }
        }
        match Glob::parse(&rewritten, Separator::Slash) {
            Ok(glob) => Self::Glob { exact: text.to_owned(), glob },
            // A pattern that the reference cannot read matches its own text alone.
            Err(_) => Self::Exact(text.to_owned()),
        }
    }

    fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == text,
            Self::Below(prefix) => text
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Self::Glob { exact, glob } => {
                exact == text || glob.iter().any(|glob| glob.is_match(text.as_bytes()))
            }
        }
    }
}

/// Removes `.`, `..` and doubled slashes from a path, without asking any file system.
#[must_use]
pub(crate) fn clean_path(path: &str) -> Cow<'_, str> {
    let absolute = path.starts_with('/');
    let body = path.strip_prefix('/').unwrap_or(path);
    if path == "/" || !body.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Cow::Borrowed(path);
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in body.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            _ => parts.push(part),
        }
    }
    let joined = parts.join("/");
    Cow::Owned(match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    })
}

/// Brings a host's name into the form that patterns are compared with.
pub(crate) fn plain_name(name: &str) -> String {
    name.trim_end_matches('.').to_lowercase()
}

/// Returns whether an address is one that only a rule with `addresses` may allow: this host, the local network, the
/// metadata services of clouds, multicast, and whatever else is not a plain address of the internet.
#[must_use]
pub fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            match (a, b) {
                (0 | 10 | 127, _) | (169, 254) | (192, 168) => true,
                (172, 16..=31) | (100, 64..=127) | (198, 18 | 19) => true,
                (192, 0) => c == 0,
                (224.., _) => true,
                _ => false,
            }
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            // ::/16 holds the unspecified and the loopback address and the old embeddings of IPv4.
            first == 0
                || (first & 0xfe00) == 0xfc00
                || (first & 0xff80) == 0xfe80
                || first >= 0xff00
                // Ways to write an IPv4 address: NAT64, 6to4, Teredo.
                || (first == 0x64 && second == 0xff9b)
                || first == 0x2002
                || (first == 0x2001 && second == 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleaning() {
        let cases = [
            ("/a/b", "/a/b"),
            ("/w/ok/../../etc/passwd", "/etc/passwd"),
            ("/../..", "/"),
            ("/a//b/./c/", "/a/b/c"),
            ("a/../../b", "../b"),
            ("a/..", "."),
            ("/", "/"),
        ];
        for (path, want) in cases {
            assert_eq!(clean_path(path), want, "{path}");
        }
    }

    #[test]
    fn private_addresses() {
        for private in [
            "10.0.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.100.100.200",
            "0.0.0.0",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
        ] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in
            ["1.1.1.1", "172.32.0.1", "192.0.2.1", "100.128.0.1", "2606:4700::1111", "::ffff:1.1.1.1"]
        {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn base_patterns_are_the_reference_s() {
        let path = |pattern: &str, text: &str| BasePattern::path(pattern).is_match(text);
        assert!(path("/w/**", "/w") && path("/w/**", "/w/a/b") && !path("/w/**", "/wx"));
        assert!(path("/t/*.txt", "/t/a.txt") && !path("/t/*.txt", "/t/a/b.txt"));
        assert!(path("/t/{a}", "/t/{a}") && !path("/t/{a,b}", "/t/a"));
        assert!(path("/t/**x", "/t/ax") && !path("/t/**x", "/t/a/x"));
        assert!(path("/[!a]", "/!") && !path("/[!a]", "/b") && path("/[^a]", "/b"));
        assert!(path("/[a", "/[a"));
        let domain = |pattern: &str, text: &str| BasePattern::domain(pattern).is_match(text);
        assert!(domain("*.example.com", "a.b.example.com") && !domain("*.example.com", "example.com"));
        assert!(domain("api-*", "api-1.x") && !domain("x", "y"));
    }
}
