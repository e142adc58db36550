//! What a policy costs before and in a session, by its size: reading it, compiling it for a session, making the kernel's
//! tables of it, and one decision.
//!
//! The default policy is what most sessions have. The others are lists that a program would write, each rule with
//! paths of its own: what a decision costs may not follow their number.

use std::hint::black_box;
use std::time::Instant;

use gait_agent::action::{Action, Object};
use gait_agent::endpoint::Operation;
use gait_agent::intent::SessionFacts;
use gait_agent::policy::{CompiledPolicy, DEFAULT, LowerOptions, Policy, Vars};

use crate::args::PolicyArgs;
use crate::budget;
use crate::error::BenchError;
use crate::report::{Host, Report, Table, number};
use crate::stats::Spread;

/// The names of the numbers that have budgets.
#[cfg(test)]
pub(crate) const NUMBERS: [&str; 3] =
    ["policy.default.lower_ms", "policy.rules_10000.ready_ms", "policy.rules_10000.decision_ns"];

const WORKSPACE: &str = "/home/dev/project";
/// Decisions per timing.
const DECISIONS: usize = 20_000;

/// A policy and the name that its numbers have.
struct Subject {
    id: String,
    load: Box<dyn Fn() -> Result<Policy, String>>,
    /// A path that one of its rules blocks.
    path: String,
}

/// What one round found.
#[derive(Default)]
struct Times {
    load: Vec<f64>,
    compile: Vec<f64>,
    lower: Vec<f64>,
    decision: Vec<f64>,
}

pub(crate) fn measure(args: &PolicyArgs) -> Result<Report, BenchError> {
    let quick = args.report.quick;
    let rounds = if quick { 1 } else { args.rounds.max(1) };
    let mut report = Report::new("policy", Host::here(), quick);
    let head = ["policy", "rules", "read ms", "compile ms", "lower ms", "tables KiB", "decision ns"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for subject in subjects().into_iter().filter(|subject| args.rows.wants(&subject.id)) {
        rows.push(row(&subject, rounds, &mut report)?);
    }
    if rows.len() < 2 {
        return Err(BenchError::Missing("no row of that name".to_owned()));
    }
    report.tables.push(Table { title: "policies by size, medians".to_owned(), rows });
    report.judge(&budget::load()?);
    Ok(report)
}

fn subjects() -> Vec<Subject> {
    let default = Subject {
        id: "default".to_owned(),
        load: Box::new(|| Policy::load(DEFAULT).map_err(|e| e.to_string())),
        path: "/home/dev/.ssh/id_ed25519".to_owned(),
    };
    let many = [100, 1_000, 10_000].map(|rules| Subject {
        id: format!("rules_{rules}"),
        load: Box::new(move || Policy::parse("many", &text(rules)).map_err(|e| e.to_string())),
        path: format!("/srv/customer-{}/project-{}/src/lib.rs", (rules - 1) % 50, rules - 1),
    });
    std::iter::once(default).chain(many).collect()
}

/// A policy of so many rules, each of which blocks a directory.
fn text(rules: usize) -> String {
    let mut text = "default_verdict: allow\nrules:\n".to_owned();
    for at in 0..rules {
        let customer = at % 50;
        text.push_str(&format!(
            "  - {{name: project-{at}, effect: block, match: {{paths: [\"/srv/customer-{customer}/project-{at}/**\"]}}}}\n"
        ));
    }
    text
}

fn row(subject: &Subject, rounds: usize, report: &mut Report) -> Result<Vec<String>, BenchError> {
    let failed = |what: &dyn std::fmt::Display| BenchError::Missing(format!("{}: {what}", subject.id));
    let facts =
        SessionFacts { identity: "uid:1000".into(), workspace: WORKSPACE.into(), run_id: "run_bench".into() };
    let mut times = Times::default();
    let (mut rules, mut cells) = (0, 0);
    for _ in 0..rounds {
        let policy = timed(&mut times.load, || (subject.load)()).map_err(|e| failed(&e))?;
        let vars = Vars { home: "/home/dev".to_owned(), ..Vars::default() };
        let compiled = timed(&mut times.compile, || CompiledPolicy::compile(&policy, &facts, &vars))
            .map_err(|e| failed(&e))?;
        let lowered = timed(&mut times.lower, || compiled.lower(&[], LowerOptions::default()))
            .map_err(|e| failed(&e))?;
        (rules, cells) = (policy.rules().len(), lowered.cells.len());
        let action = Action {
            operation: Operation::Read,
            object: Object::Path(subject.path.as_bytes()),
            image: b"/usr/bin/python3.11",
            argv: None,
        };
        timed(&mut times.decision, || {
            for _ in 0..DECISIONS {
                black_box(compiled.decide(black_box(&action)));
            }
        });
    }
    let median = |times: &[f64]| Spread::of(times).map_or(0.0, |spread| spread.median);
    let (load, compile, lower) = (median(&times.load), median(&times.compile), median(&times.lower));
    let decision = median(&times.decision) * 1e6 / DECISIONS as f64;
    let id = &subject.id;
    for (name, value) in [
        ("read_ms", load),
        ("compile_ms", compile),
        ("lower_ms", lower),
        ("ready_ms", load + compile + lower),
        ("decision_ns", decision),
    ] {
        report.numbers.insert(format!("policy.{id}.{name}"), value);
    }
    let kib = cells as f64 * 8.0 / 1024.0;
    let mut cells = vec![id.clone(), rules.to_string()];
    cells.extend([load, compile, lower, kib, decision].map(number));
    Ok(cells)
}

/// Runs something and adds its time in milliseconds.
fn timed<T>(times: &mut Vec<f64>, what: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let out = what();
    times.push(start.elapsed().as_secs_f64() * 1e3);
    out
}
