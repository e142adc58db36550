//! What a run did, reduced to what another run of the same command must do too: classes, normalised targets and
//! verdicts. How often, in which order and by which of the operations of a class is left out.

use std::collections::{BTreeMap, BTreeSet};

use super::normalise::{Places, normalise};
use super::recorded::{Recorded, Session};
use crate::endpoint::EndpointClass;
use crate::gate::Verdict;
use crate::policy::{Glob, GlobError, Separator};

/// One thing that was reached.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The class; its spelling, which sorts as people expect.
    pub class: &'static str,
    /// The normalised target.
    pub target: String,
}

/// The set of endpoints of a run with the verdicts on each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behaviour {
    endpoints: BTreeMap<Endpoint, BTreeSet<Verdict>>,
}

/// How two runs of one command differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// Only the new run reached it.
    New(Endpoint, BTreeSet<Verdict>),
    /// Only the recorded run reached it.
    Vanished(Endpoint, BTreeSet<Verdict>),
    /// Both did, and were told other things.
    Verdict(Endpoint, BTreeSet<Verdict>, BTreeSet<Verdict>),
}

impl Difference {
    /// Returns the reason code.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::New(..) => "new_endpoint",
            Self::Vanished(..) => "vanished_endpoint",
            Self::Verdict(..) => "changed_verdict",
        }
    }

    /// Returns the endpoint.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        let (Self::New(endpoint, _) | Self::Vanished(endpoint, _) | Self::Verdict(endpoint, ..)) = self;
        endpoint
    }

    /// Returns the verdicts then and now.
    #[must_use]
    pub fn verdicts(&self) -> (String, String) {
        let words =
            |set: &BTreeSet<Verdict>| set.iter().map(|one| one.as_str()).collect::<Vec<_>>().join("+");
        match self {
            Self::New(_, now) => (String::new(), words(now)),
            Self::Vanished(_, then) => (words(then), String::new()),
            Self::Verdict(_, then, now) => (words(then), words(now)),
        }
    }
}

/// Endpoints that may differ: `CLASS TARGET`, both globs over the normalised form.
#[derive(Debug, Clone, Default)]
pub struct Ignored(Vec<(Vec<Glob>, Vec<Glob>)>);

impl Ignored {
    /// Parses patterns such as `fs.* ${workspace}/.cache/**`.
    ///
    /// # Errors
    ///
    /// Fails with the pattern that has no target or is no glob.
    pub fn parse(patterns: &[String]) -> Result<Self, (String, Option<GlobError>)> {
        let one = |pattern: &String| {
            let (class, target) = pattern.split_once(' ').ok_or_else(|| (pattern.clone(), None))?;
            let target = literal_variables(target.trim());
            let glob = |text: &str, separator| {
                Glob::parse(text, separator).map_err(|error| (pattern.clone(), Some(error)))
            };
            Ok((glob(class, Separator::None)?, glob(&target, Separator::Slash)?))
        };
        patterns.iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    fn has(&self, endpoint: &Endpoint) -> bool {
        let hit = |globs: &[Glob], text: &str| globs.iter().any(|glob| glob.is_match(text.as_bytes()));
        self.0.iter().any(|(class, target)| hit(class, endpoint.class) && hit(target, &endpoint.target))
    }
}

/// Escapes the braces of `${…}`, which are no alternatives.
fn literal_variables(pattern: &str) -> String {
    let mut parts = pattern.split("${");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str("$\\{");
        match part.split_once('}') {
            Some((name, rest)) => out.extend([name, "\\}", rest]),
            None => out.push_str(part),
        }
    }
    out
}

impl Behaviour {
    /// Adds a recorded decision of a session.
    pub fn add(&mut self, session: &Session, recorded: &Recorded, verdict: Verdict) {
        let about = &session.circumstances;
        let places = Places {
            workspace: &about.workspace,
            home: &about.home,
            tmp: &about.tmp,
            run_dir: &about.run_dir,
        };
        self.insert(recorded.class(), normalise(&places, &recorded.kind, &recorded.value), verdict);
    }

    fn insert(&mut self, class: EndpointClass, target: String, verdict: Verdict) {
        self.endpoints.entry(Endpoint { class: class.as_str(), target }).or_default().insert(verdict);
    }

    /// Returns the number of endpoints.
    #[must_use]
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Returns whether nothing was reached.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Compares a new run with the recorded one: first what is new, then what vanished, then changed verdicts, each
    /// by class and target.
    #[must_use]
    pub fn differences(&self, now: &Self, ignored: &Ignored) -> Vec<Difference> {
        let mut all = Vec::new();
        for (endpoint, verdicts) in &now.endpoints {
            match self.endpoints.get(endpoint) {
                None => all.push(Difference::New(endpoint.clone(), verdicts.clone())),
                Some(then) if then != verdicts => {
                    all.push(Difference::Verdict(endpoint.clone(), then.clone(), verdicts.clone()));
                }
                Some(_same) => {}
            }
        }
        let gone = self.endpoints.iter().filter(|(endpoint, _)| !now.endpoints.contains_key(endpoint));
        all.extend(gone.map(|(endpoint, then)| Difference::Vanished(endpoint.clone(), then.clone())));
        all.retain(|difference| !ignored.has(difference.endpoint()));
        all.sort();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behaviour(list: &[(EndpointClass, &str, Verdict)]) -> Behaviour {
        let mut all = Behaviour::default();
        for (class, target, verdict) in list {
            all.insert(*class, (*target).to_owned(), *verdict);
        }
        all
    }

    #[test]
    fn what_is_new_what_vanished_and_what_was_told_otherwise() {
        use EndpointClass::{FsRead, FsWrite, NetHttp};
        use Verdict::{Allow, Block};
        let then = behaviour(&[
            (FsRead, "${workspace}/a", Allow),
            (FsRead, "${workspace}/b", Allow),
            (NetHttp, "example.com:443", Block),
            (FsWrite, "${workspace}/.cache/x", Allow),
        ]);
        let now = behaviour(&[
            (NetHttp, "evil.example:443", Allow),
            (NetHttp, "example.com:443", Allow),
            (FsRead, "${workspace}/a", Allow),
        ]);
        let told = |ignored: &Ignored| -> Vec<String> {
            let differences = then.differences(&now, ignored);
            differences
                .iter()
                .map(|one| {
                    let (was, is) = one.verdicts();
                    let Endpoint { class, target } = one.endpoint();
                    format!("{} {class} {target} {was}>{is}", one.reason())
                })
                .collect()
        };
        let all = [
            "new_endpoint net.http evil.example:443 >allow",
            "vanished_endpoint fs.read ${workspace}/b allow>",
            "vanished_endpoint fs.write ${workspace}/.cache/x allow>",
            "changed_verdict net.http example.com:443 block>allow",
        ];
        assert_eq!(told(&Ignored::default()), all);
        let ignored = Ignored::parse(&["fs.* ${workspace}/{.cache,x}/**".to_owned()]).unwrap();
        assert_eq!(told(&ignored), [all[0], all[1], all[3]]);
        assert!(then.differences(&then, &Ignored::default()).is_empty());
    }

    #[test]
    fn patterns_that_mean_nothing_are_named() {
        for pattern in ["fs.read", "fs.read [", ""] {
            assert_eq!(Ignored::parse(&[pattern.to_owned()]).unwrap_err().0, pattern);
        }
    }
}
