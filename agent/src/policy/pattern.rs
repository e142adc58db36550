//! Patterns with variables, and what they become once a session is known.

use std::fmt;

use super::glob::{Glob, GlobError, Separator, escape};
use crate::intent::SessionFacts;

/// The variables that every session binds.
pub const BUILT_IN: [&str; 5] = ["workspace", "home", "tmp", "run_dir", "uid"];

/// What the variables of the session stand for, and what it protects besides.
///
/// Paths are resolved, in the text form of [`crate::intent::path_text`], as the paths of actions are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vars {
    /// The home directory of the user whom the workload acts for.
    pub home: String,
    /// The directory for temporary files.
    pub tmp: String,
    /// The user's run-time directory, such as `/run/user/1000`.
    pub run_dir: String,
    /// The user's number.
    pub uid: u32,
    /// Paths that the workload never changes, nor anything below them: policy, keys, evidence.
    pub protect: Vec<String>,
}

impl Default for Vars {
    /// Makes the variables of nobody in particular, for policies that are judged without a session.
    fn default() -> Self {
        Self {
            home: "/home/user".to_owned(),
            tmp: "/tmp".to_owned(),
            run_dir: "/run/user/1000".to_owned(),
            uid: 1000,
            protect: Vec::new(),
        }
    }
}

/// The variables of one session, looked up by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bindings {
    workspace: String,
    vars: Vars,
}

impl Bindings {
    pub(crate) fn new(facts: &SessionFacts, vars: &Vars) -> Self {
        Self { workspace: facts.workspace.clone(), vars: vars.clone() }
    }

    /// The bindings with which a policy is checked before any session is known.
    pub(crate) fn placeholders() -> Self {
        Self { workspace: "/workspace".to_owned(), vars: Vars::default() }
    }

    /// Returns the value as it stands.
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        let path = |text: &str| text.trim_end_matches('/').to_owned();
        Some(match name {
            "workspace" => path(&self.workspace),
            "home" => path(&self.vars.home),
            "tmp" => path(&self.vars.tmp),
            "run_dir" => path(&self.vars.run_dir),
            "uid" => self.vars.uid.to_string(),
            _ => return None,
        })
    }

    pub(crate) fn protected(&self) -> &[String] {
        &self.vars.protect
    }

    fn bind(&self, pattern: &str) -> Result<String, PatternError> {
        substitute(pattern, &|name| self.value(name).map(|value| escape(&value)))
    }
}

/// A pattern is no good.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A variable that nothing defines.
    #[error("unknown variable `${{{0}}}`")]
    UnknownVariable(String),
    /// `${` without `}`.
    #[error("`${{` is never closed")]
    OpenVariable,
    /// The glob is no glob.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// Could match nothing.
    #[error("a path pattern begins with `/`, `**/` or a variable{0}")]
    Relative(Hint),
    /// Could match nothing.
    #[error("a path has no `//`, `.` or `..` in it once it is resolved")]
    Unclean,
    /// Could match nothing.
    #[error(
        "a resolved path does not end in `/`; write `**` after it for the directory and everything below"
    )]
    TrailingSlash,
}

/// What to write instead, if it is clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hint {
    /// Nothing.
    None,
    /// The home directory.
    Home,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Home => f.write_str("; write `${home}` for `~`"),
        }
    }
}

/// Replaces `${name}` by what `lookup` returns.
///
/// # Errors
///
/// Fails if a variable is unknown or not closed.
pub(crate) fn substitute(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<String, PatternError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        out.push_str(&rest[..at]);
        let tail = &rest[at + 2..];
        let end = tail.find('}').ok_or(PatternError::OpenVariable)?;
        let name = &tail[..end];
        out.push_str(&lookup(name).ok_or_else(|| PatternError::UnknownVariable(name.to_owned()))?);
        rest = &tail[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Binds a path pattern.
///
/// # Errors
///
/// Fails if the pattern is no glob, or could never match a resolved path.
pub(crate) fn path_globs(pattern: &str, bindings: &Bindings) -> Result<Vec<Glob>, PatternError> {
    let bound = bindings.bind(pattern)?;
    let bound = if bound.is_empty() && !pattern.is_empty() { "/" } else { &bound };
    let globs = Glob::parse(bound, Separator::Slash)?;
    if !bound.starts_with(['/', '{']) && !bound.starts_with("**") {
        let hint = if bound.starts_with('~') { Hint::Home } else { Hint::None };
        return Err(PatternError::Relative(hint));
    }
    if bound.len() > 1 && bound.ends_with('/') {
        return Err(PatternError::TrailingSlash);
    }
    if bound != "/" && bound.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
        return Err(PatternError::Unclean);
    }
    Ok(globs)
}

/// Binds path patterns.
///
/// # Errors
///
/// Fails on the first pattern that is no good.
pub(crate) fn all_path_globs(patterns: &[String], bindings: &Bindings) -> Result<Vec<Glob>, PatternError> {
    let mut globs = Vec::new();
    for pattern in patterns {
        globs.extend(path_globs(pattern, bindings)?);
    }
    Ok(globs)
}

/// Patterns over the arguments of a new program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArgvPattern {
    tokens: Vec<Vec<Glob>>,
    /// Whether nothing may follow.
    exact: bool,
}

impl ArgvPattern {
    /// Binds token patterns.
    ///
    /// # Errors
    ///
    /// Fails if a token is no glob.
    pub(crate) fn bind(tokens: &[String], bindings: &Bindings) -> Result<Self, PatternError> {
        let mut bound = Vec::with_capacity(tokens.len());
        let mut exact = false;
        for (at, token) in tokens.iter().enumerate() {
            let mut text = bindings.bind(token)?;
            let last = at + 1 == tokens.len();
            if last && text.ends_with('$') && !text.ends_with("\\$") {
                text.pop();
                exact = true;
                if text.is_empty() {
                    break;
                }
            }
            bound.push(match text.as_str() {
                "" => vec![Glob::literal(b"", Separator::None)],
                text => Glob::parse(text, Separator::None)?,
            });
        }
        Ok(Self { tokens: bound, exact })
    }

    /// Returns whether arguments, each ended by NUL, match.
    ///
    /// The first token is compared with the first argument, its last component and that of the program's path: the
    /// first is what the caller claims, the last is what runs.
    pub(crate) fn is_match(&self, program: &[u8], argv: &[u8]) -> bool {
        let mut arguments = Arguments(argv);
        for (at, token) in self.tokens.iter().enumerate() {
            let Some(argument) = arguments.next() else { return false };
            let hit = |text: &[u8]| token.iter().any(|glob| glob.is_match(text));
            let matched = hit(argument) || (at == 0 && (hit(last_part(argument)) || hit(last_part(program))));
            if !matched {
                return false;
            }
        }
        !self.exact || arguments.next().is_none()
    }
}

fn last_part(path: &[u8]) -> &[u8] {
    path.rsplit(|&byte| byte == b'/').next().unwrap_or(path)
}

struct Arguments<'a>(&'a [u8]);

impl<'a> Iterator for Arguments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.0.is_empty() {
            return None;
        }
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        let (argument, rest) = self.0.split_at(end);
        self.0 = rest.get(1..).unwrap_or_default();
        Some(argument)
    }
}

/// Binds name patterns. `*.example.com` stands for every name below it, not for itself.
///
/// # Errors
///
/// Fails if a pattern is no glob.
pub(crate) fn domain_globs(patterns: &[String]) -> Result<Vec<Glob>, PatternError> {
    let mut globs = Vec::new();
    for pattern in patterns {
        let text = match pattern.strip_prefix("*.") {
            Some(rest) => format!("?**.{rest}"),
            None if pattern == "*" => "**".to_owned(),
            None => pattern.clone(),
        };
        globs.extend(Glob::parse(&text, Separator::Dot)?);
    }
    Ok(globs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(tokens: &[&str], program: &str, argv: &str) -> bool {
        let tokens: Vec<_> = tokens.iter().map(|&token| token.to_owned()).collect();
        let pattern = ArgvPattern::bind(&tokens, &Bindings::placeholders()).unwrap();
        pattern.is_match(program.as_bytes(), argv.as_bytes())
    }

    #[test]
    fn arguments() {
        let git = "/usr/bin/git";
        assert!(hits(&["git", "push"], git, "git\0push\0--force\0"));
        assert!(hits(&["git", "push"], git, "/x/git\0push\0"));
        assert!(hits(&["git", "push"], git, "disguise\0push\0"));
        assert!(hits(&["git", "push"], "/x/y", "git\0push\0"));
        assert!(!hits(&["git", "push"], git, "git\0"));
        assert!(!hits(&["git", "push$"], git, "git\0push\0--force\0"));
        assert!(hits(&["git", "push", "$"], git, "git\0push\0"));
        assert!(hits(&["git", "{push,pull}", "--*"], git, "git\0pull\0--a/b\0"));
        assert!(hits(&["rm", "", "x"], "/bin/rm", "rm\0\0x\0"));
        assert!(!hits(&["rm", "x"], "/bin/rm", "rm\0\0x\0"));
        assert!(hits(&["x", "\\$"], "/x", "x\0$\0y\0"));
    }

    #[test]
    fn names() {
        let hits = |pattern: &str, name: &str| {
            domain_globs(&[pattern.to_owned()]).unwrap().iter().any(|glob| glob.is_match(name.as_bytes()))
        };
        assert!(hits("*.example.com", "a.b.example.com"));
        assert!(!hits("*.example.com", "example.com"));
        assert!(!hits("*.example.com", "evilexample.com"));
        assert!(hits("registry-*.io", "registry-1.io"));
        assert!(!hits("registry-*.io", "registry-1.evil.io"));
        assert!(hits("*", "anything.at.all"));
        assert!(!hits("example.com", "a.example.com"));
    }

    #[test]
    fn variables_are_literal() {
        let vars = Vars { home: "/home/a*b/".to_owned(), ..Vars::default() };
        let facts = SessionFacts { identity: "i".into(), workspace: "/".into(), run_id: "r".into() };
        let bindings = Bindings::new(&facts, &vars);
        let hits = |pattern: &str, path: &str| {
            path_globs(pattern, &bindings).unwrap().iter().any(|glob| glob.is_match(path.as_bytes()))
        };
        assert!(hits("${home}/.ssh/**", "/home/a*b/.ssh/id"));
        assert!(!hits("${home}/.ssh/**", "/home/axb/.ssh/id"));
        assert!(hits("${workspace}/**", "/etc"));
        assert!(hits("${workspace}", "/"));
    }

    #[test]
    fn patterns_that_could_match_nothing_are_refused() {
        let cases = [
            ("etc/x", PatternError::Relative(Hint::None)),
            ("~/x", PatternError::Relative(Hint::Home)),
            ("/etc/", PatternError::TrailingSlash),
            ("/a/../b", PatternError::Unclean),
            ("/a//b", PatternError::Unclean),
            ("${nope}/x", PatternError::UnknownVariable("nope".into())),
            ("${home", PatternError::OpenVariable),
        ];
        for (pattern, want) in cases {
            assert_eq!(path_globs(pattern, &Bindings::placeholders()), Err(want), "{pattern}");
        }
    }
}
