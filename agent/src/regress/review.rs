//! What a change of policy would have done to recorded runs: every decision that would be another, added up by rule and
//! target.
//!
//! *Stopped* is what was allowed and no longer would be; asking counts as stopping, because unattended runs have
//! nobody to answer. *Loosened* is what would be judged less strictly. *Tightened* is the rest: stopped before, and more
//! strictly now. *Open* is what depends on something that was not recorded.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::judge::{Judge, Judgement};
use super::junit::{Case, Suite};
use super::normalise::{Places, normalise};
use super::recorded::{Recorded, Session};
use crate::gate::Verdict;

/// Longer targets are cut where people read them.
const TARGET_CHARS: usize = 100;

/// A change of policy before recorded runs.
#[derive(Debug, Clone, Default)]
pub struct Review {
    runs: Vec<RunReview>,
    groups: BTreeMap<Key, Counts>,
    /// The number of the run that is being added, to count runs per group.
    run: u64,
}

/// What it would have done to one run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RunReview {
    /// The run.
    pub run_id: String,
    /// Its runpack.
    pub path: String,
    /// The recorded decisions.
    pub decisions: u64,
    /// Of these, those that were allowed and would be stopped.
    pub stopped: u64,
    /// Those that would be judged less strictly.
    pub loosened: u64,
    /// Those that were stopped before and would be judged more strictly.
    pub tightened: u64,
    /// Those that depend on what was not recorded.
    pub open: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    effect: Effect,
    from: Verdict,
    to: Verdict,
    by: String,
    class: &'static str,
    target: String,
    was_by: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
enum Effect {
    Stopped,
    Loosened,
    Tightened,
    Open,
}

impl Effect {
    fn of(from: Verdict, to: Verdict) -> Self {
        match (from, to) {
            _ if to < from => Self::Loosened,
            (Verdict::Allow, _) => Self::Stopped,
            _ => Self::Tightened,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    decisions: u64,
    events: u64,
    runs: u64,
    last_run: u64,
}

/// Decisions of one rule on one target that would change alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    effect: Effect,
    from: Verdict,
    to: Verdict,
    /// The rule that would decide, or the reason codes where no rule does.
    rule: String,
    /// The one that did.
    was_rule: String,
    endpoint_class: &'static str,
    /// Normalised.
    target: String,
    decisions: u64,
    events: u64,
    runs: u64,
}

impl Review {
    /// Begins a run.
    pub fn begin(&mut self, session: &Session, path: &str) {
        self.run += 1;
        self.runs.push(RunReview {
            run_id: session.run_id.clone(),
            path: path.to_owned(),
            ..RunReview::default()
        });
    }

    /// Adds a decision of the run that was begun last.
    pub fn add(&mut self, session: &Session, judge: &Judge, recorded: &Recorded, judgement: Judgement) {
        let Some(run) = self.runs.last_mut() else { return };
        run.decisions += 1;
        let from = judge.held(recorded);
        let (effect, to, by) = match judgement {
            Judgement::Same => return,
            Judgement::Changed { now, by } => (Effect::of(from, now), now, by),
            Judgement::Open(possible) => {
                let other = possible.into_iter().rfind(|(verdict, _)| *verdict != from);
                let (to, by) = other.unwrap_or((from, String::new()));
                (Effect::Open, to, by)
            }
        };
        let count = match effect {
            Effect::Stopped => &mut run.stopped,
            Effect::Loosened => &mut run.loosened,
            Effect::Tightened => &mut run.tightened,
            Effect::Open => &mut run.open,
        };
        *count += 1;
        let about = &session.circumstances;
        let places = Places {
            workspace: &about.workspace,
            home: &about.home,
            tmp: &about.tmp,
            run_dir: &about.run_dir,
        };
        let target = normalise(&places, &recorded.kind, &recorded.value);
        let key = Key {
            effect,
            from,
            to,
            by,
            class: recorded.class().as_str(),
            target,
            was_by: recorded.by.clone(),
        };
        let counts = self.groups.entry(key).or_default();
        counts.decisions += 1;
        counts.events = counts.events.saturating_add(recorded.count);
        counts.runs += u64::from(counts.last_run != self.run);
        counts.last_run = self.run;
    }

    /// Returns the runs, in the order of their ids.
    #[must_use]
    pub fn runs(&self) -> Vec<RunReview> {
        let mut runs = self.runs.clone();
        runs.sort_by(|a, b| (&a.run_id, &a.path).cmp(&(&b.run_id, &b.path)));
        runs
    }

    /// Returns all runs together; names are empty.
    #[must_use]
    pub fn total(&self) -> RunReview {
        let mut total = RunReview::default();
        for run in &self.runs {
            total.decisions += run.decisions;
            total.stopped += run.stopped;
            total.loosened += run.loosened;
            total.tightened += run.tightened;
            total.open += run.open;
        }
        total
    }

    /// Returns the groups: what is stopped first, then by verdicts, rule and target.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let group = |(key, counts): (&Key, &Counts)| Group {
            effect: key.effect,
            from: key.from,
            to: key.to,
            rule: key.by.clone(),
            was_rule: key.was_by.clone(),
            endpoint_class: key.class,
            target: key.target.clone(),
            decisions: counts.decisions,
            events: counts.events,
            runs: counts.runs,
        };
        self.groups.iter().map(group).collect()
    }

    /// Renders the groups for a terminal, at most `most` of them.
    #[must_use]
    pub fn text(&self, most: usize) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        for group in self.groups().iter().take(most) {
            let Group { from, to, rule, endpoint_class, events, runs, .. } = group;
            let open = if group.effect == Effect::Open { "perhaps " } else { "" };
            let (change, target) = (format!("{open}{from} -> {to}"), cut(&group.target));
            let (event, run) = (plural(*events, "event"), plural(*runs, "run"));
            _ = writeln!(out, "  {change:<26} {endpoint_class:<9} {target}  rule={rule}  {event} in {run}");
        }
        if self.groups.len() > most {
            _ = writeln!(out, "  and {} more", self.groups.len() - most);
        }
        for run in self.runs() {
            let RunReview { run_id, decisions, stopped, loosened, tightened, open, .. } = run;
            _ = writeln!(
                out,
                "  {run_id}: decisions={decisions} stopped={stopped} loosened={loosened} tightened={tightened} open={open}"
            );
        }
        out
    }

    /// Renders the review for a comment on a change, at most `most` groups of it.
    #[must_use]
    pub fn markdown(&self, policy: &str, most: usize) -> String {
        let total = self.total();
        let mut out =
            format!("### What {} would have done to {}\n\n", code(policy), plural(self.run, "recorded run"));
        let same = total.decisions - total.stopped - total.loosened - total.tightened - total.open;
        // Writing to a String cannot fail.
        _ = writeln!(
            out,
            "| decisions | same | **stopped** | **loosened** | tightened | open |\n|--:|--:|--:|--:|--:|--:|"
        );
        let RunReview { decisions, stopped, loosened, tightened, open, .. } = total;
        _ = writeln!(out, "| {decisions} | {same} | {stopped} | {loosened} | {tightened} | {open} |");
        if !self.groups.is_empty() {
            _ = writeln!(
                out,
                "\n| | was | would be | class | target | rule | events | runs |\n|---|---|---|---|---|---|--:|--:|"
            );
        }
        for group in self.groups().iter().take(most) {
            let word = match group.effect {
                Effect::Stopped => "stopped",
                Effect::Loosened => "loosened",
                Effect::Tightened => "tightened",
                Effect::Open => "open",
            };
            let Group { from, to, endpoint_class, events, runs, .. } = group;
            let (target, rule) = (code(&cut(&group.target)), code(&group.rule));
            _ = writeln!(
                out,
                "| {word} | {from} | {to} | {endpoint_class} | {target} | {rule} | {events} | {runs} |"
            );
        }
        if self.groups.len() > most {
            _ = writeln!(out, "\n… and {} more groups.", self.groups.len() - most);
        }
        if total.open > 0 {
            out.push_str(
                "\n*Open*: a rule looks at arguments, and only their digest was recorded. `gait exec --capture raw` keeps \
                 them.\n",
            );
        }
        if self.run > 1 {
            out.push_str("\n<details><summary>Runs</summary>\n\n| run | decisions | stopped | loosened | tightened | open |\n|---|--:|--:|--:|--:|--:|\n");
            for run in self.runs().iter().take(most) {
                let RunReview { decisions, stopped, loosened, tightened, open, .. } = run;
                let name = code(&run.run_id);
                _ = writeln!(out, "| {name} | {decisions} | {stopped} | {loosened} | {tightened} | {open} |");
            }
            if self.runs.len() > most {
                _ = writeln!(out, "\n… and {} more runs.", self.runs.len() - most);
            }
            out.push_str("\n</details>\n");
        }
        out
    }

    /// Returns the review as a suite of test cases, one per run; one that something would be stopped in fails.
    #[must_use]
    pub fn suite(&self, fails: impl Fn(&RunReview) -> bool) -> Suite {
        let case = |run: RunReview| {
            let RunReview { stopped, loosened, tightened, open, .. } = run;
            let why = format!("stopped={stopped} loosened={loosened} tightened={tightened} open={open}");
            Case {
                name: "policy_change".to_owned(),
                failure: fails(&run).then_some(why),
                classname: run.run_id,
                more: String::new(),
            }
        };
        Suite { name: "gait.regress.policy".to_owned(), cases: self.runs().into_iter().map(case).collect() }
    }
}

fn plural(count: u64, word: &str) -> String {
    if count == 1 { format!("{count} {word}") } else { format!("{count} {word}s") }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(TARGET_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// Puts text of a workload into a table of Markdown, where it cannot be anything but text.
fn code(text: &str) -> String {
    let mut out = String::from("`");
    for c in text.chars() {
        match c {
            '`' => out.push('\''),
            '|' => out.push_str("\\|"),
            c if c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                out.extend(c.escape_default());
            }
            c => out.push(c),
        }
    }
    out.push('`');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_for_what_was_allowed_stops_it_and_less_is_loosened() {
        use Verdict::{Allow, Block, RequireApproval};
        assert_eq!(Effect::of(Allow, RequireApproval), Effect::Stopped);
        assert_eq!(Effect::of(Allow, Block), Effect::Stopped);
        assert_eq!(Effect::of(Block, RequireApproval), Effect::Loosened);
        assert_eq!(Effect::of(RequireApproval, Allow), Effect::Loosened);
        assert_eq!(Effect::of(RequireApproval, Block), Effect::Tightened);
    }

    #[test]
    fn a_target_cannot_leave_its_cell() {
        assert_eq!(code("/a|b`c\n<img>@x\u{202e}"), "`/a\\|b'c\\n<img>@x\\u{202e}`");
        assert_eq!(cut(&"x".repeat(200)).chars().count(), TARGET_CHARS + 1);
    }
}
