//! Decisions of the compiled policy, warm and single-threaded, on actions of every class.
//!
//! Each class has a few hundred different actions, allowed and stopped ones, so that neither a branch predictor nor a
//! cache of one entry answers the question. Latencies include one reading of the clock, whose own cost is reported
//! beside them; the rate is taken over a loop without clocks.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use gait_agent::action::{Action, Host, Object};
use gait_agent::endpoint::{EndpointClass, Operation};
use gait_agent::intent::SessionFacts;
use gait_agent::policy::{CompiledPolicy, DEFAULT, Policy, Vars};
use hdrhistogram::Histogram;

use crate::args::GateArgs;
use crate::budget;
use crate::error::BenchError;
use crate::report::{Host as Machine, Report, Table, number};

const P50: &str = "gate.p50_ns";
const P99: &str = "gate.p99_ns";
const RATE: &str = "gate.slowest_class_decisions_per_s";

/// The names of the numbers reported here: the slowest class counts.
#[cfg(test)]
pub(crate) const NUMBERS: [&str; 3] = [P50, P99, RATE];

/// Different actions per class.
const VARIETY: usize = 512;
/// Latencies above this are cut to it: the process was preempted.
const LONGEST_NS: u64 = 10_000_000;

const WORKSPACE: &str = "/home/dev/project";
const HOME: &str = "/home/dev";

pub(crate) fn measure(args: &GateArgs) -> Result<Report, BenchError> {
    let policy = coding_agent()?;
    let decisions = if args.report.quick { args.decisions / 20 } else { args.decisions }.max(1);
    let mut report = Report::new("gate", Machine::here(), args.report.quick);
    let head = ["class", "decisions/s", "p50 ns", "p95 ns", "p99 ns", "p99.9 ns", "max ns"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.push(row("(clock alone)", &clock(decisions)?, None));
    for class in EndpointClass::KERNEL {
        let corpus = corpus(class);
        let actions: Vec<Action<'_>> = corpus.iter().map(Owned::action).collect();
        let rate = rate(&policy, &actions, decisions);
        let latencies = latencies(&policy, &actions, decisions)?;
        rows.push(row(class.as_str(), &latencies, Some(rate)));
        note(&mut report, class, &latencies, rate);
    }
    report.tables.push(Table { title: format!("decisions on {DEFAULT}, one thread, warm"), rows });
    report.judge(&budget::load()?);
    Ok(report)
}

/// Compiles the default policy for a session of nobody in particular.
fn coding_agent() -> Result<CompiledPolicy, BenchError> {
    let policy = Policy::load(DEFAULT).map_err(|e| BenchError::Missing(e.to_string()))?;
    let facts =
        SessionFacts { identity: "uid:1000".into(), workspace: WORKSPACE.into(), run_id: "run_bench".into() };
    let vars = Vars { home: HOME.to_owned(), ..Vars::default() };
    CompiledPolicy::compile(&policy, &facts, &vars).map_err(|e| BenchError::Missing(e.to_string()))
}

fn note(report: &mut Report, class: EndpointClass, latencies: &Histogram<u64>, rate: f64) {
    let (p50, p99) = (latencies.value_at_quantile(0.5) as f64, latencies.value_at_quantile(0.99) as f64);
    for (name, value) in [("p50_ns", p50), ("p99_ns", p99), ("decisions_per_s", rate)] {
        report.numbers.insert(format!("gate.{class}.{name}"), value);
    }
    for (id, value) in [(P50, p50), (P99, p99)] {
        let worst = report.numbers.entry(id.to_owned()).or_insert(value);
        *worst = worst.max(value);
    }
    let slowest = report.numbers.entry(RATE.to_owned()).or_insert(rate);
    *slowest = slowest.min(rate);
}

fn row(name: &str, latencies: &Histogram<u64>, rate: Option<f64>) -> Vec<String> {
    let quantiles = [0.5, 0.95, 0.99, 0.999, 1.0].map(|q| latencies.value_at_quantile(q).to_string());
    let mut cells = vec![name.to_owned(), rate.map_or_else(String::new, number)];
    cells.extend(quantiles);
    cells
}

fn histogram() -> Result<Histogram<u64>, BenchError> {
    Histogram::new_with_max(LONGEST_NS, 3).map_err(|e| BenchError::Missing(e.to_string()))
}

fn record(histogram: &mut Histogram<u64>, start: Instant) {
    let ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    histogram.saturating_record(ns.min(LONGEST_NS));
}

fn clock(readings: u64) -> Result<Histogram<u64>, BenchError> {
    let mut histogram = histogram()?;
    for _ in 0..readings {
        record(&mut histogram, Instant::now());
    }
    Ok(histogram)
}

/// Returns decisions per second, over a loop that was run once before.
fn rate(policy: &CompiledPolicy, actions: &[Action<'_>], decisions: u64) -> f64 {
    let turns = (decisions / actions.len().max(1) as u64).max(1);
    let once = || {
        for action in actions {
            black_box(policy.decide(black_box(action)));
        }
    };
    once();
    let start = Instant::now();
    (0..turns).for_each(|_| once());
    (turns * actions.len() as u64) as f64 / start.elapsed().as_secs_f64()
}

fn latencies(
    policy: &CompiledPolicy,
    actions: &[Action<'_>],
    decisions: u64,
) -> Result<Histogram<u64>, BenchError> {
    let mut histogram = histogram()?;
    for (action, _) in actions.iter().cycle().zip(0..decisions) {
        let start = Instant::now();
        black_box(policy.decide(black_box(action)));
        record(&mut histogram, start);
    }
    Ok(histogram)
}

/// An action that owns what it points to.
struct Owned {
    operation: Operation,
    object: OwnedObject,
    argv: Option<Vec<u8>>,
}

enum OwnedObject {
    Path(String),
    Host { name: Option<String>, address: Option<IpAddr>, port: u16 },
    Other(String),
}

impl Owned {
    fn action(&self) -> Action<'_> {
        let object = match &self.object {
            OwnedObject::Path(path) => Object::Path(path.as_bytes()),
            OwnedObject::Host { name, address, port } => {
                Object::Host(Host { name: name.as_deref(), address: *address, port: *port })
            }
            OwnedObject::Other(text) => Object::Other(text),
        };
        Action {
            operation: self.operation,
            object,
            image: b"/usr/bin/python3.11",
            argv: self.argv.as_deref(),
        }
    }

    fn path(operation: Operation, path: String) -> Self {
        Self { operation, object: OwnedObject::Path(path), argv: None }
    }
}

/// Makes the actions of a class: what a coding agent does, with one in eight that a policy would stop.
fn corpus(class: EndpointClass) -> Vec<Owned> {
    (0..VARIETY).map(|i| one(class, i)).collect()
}

fn one(class: EndpointClass, i: usize) -> Owned {
    let odd = i.is_multiple_of(8);
    let inside = format!("{WORKSPACE}/src/module_{}/deep/er/file_{i}.rs", i % 37);
    match class {
        EndpointClass::FsRead => {
            let path = match i % 8 {
                0 => format!("{HOME}/.ssh/id_{i}"),
                1 | 2 => format!("/usr/lib/python3.11/package_{}/module_{i}.py", i % 19),
                3 => format!("/proc/{i}/status"),
                _ => inside,
            };
            Owned::path(if i % 5 == 4 { Operation::List } else { Operation::Read }, path)
        }
        EndpointClass::FsWrite => {
            let path = if odd { format!("/etc/cron.d/job-{i}") } else { inside };
            let operations = [Operation::Create, Operation::Write, Operation::Mkdir, Operation::RenameNew];
            Owned::path(operations.get(i % 4).copied().unwrap_or(Operation::Write), path)
        }
        EndpointClass::FsDelete => {
            let path = if odd { format!("/var/lib/data/{i}") } else { inside };
            let operations = [Operation::Unlink, Operation::RenameOld, Operation::Truncate, Operation::Rmdir];
            Owned::path(operations.get(i % 4).copied().unwrap_or(Operation::Unlink), path)
        }
        EndpointClass::ProcExec => {
            let (path, argv) = match i % 8 {
                0 => ("/usr/bin/sudo", format!("sudo\0-n\0task-{i}\0")),
                1..=3 => ("/usr/bin/git", format!("git\0commit\0-m\0change {i}\0")),
                4 | 5 => {
                    ("/usr/bin/x86_64-linux-gnu-gcc-12", format!("cc\0-c\0unit_{i}.c\0-o\0unit_{i}.o\0"))
                }
                _ => ("/usr/bin/dash", format!("sh\0-c\0echo {i}\0")),
            };
            Owned { argv: Some(argv.into_bytes()), ..Owned::path(Operation::Exec, path.to_owned()) }
        }
        EndpointClass::NetHttp => Owned { operation: Operation::Connect, object: host(i), argv: None },
        EndpointClass::NetDns => {
            let name = Some(format!("host-{i}.example.org"));
            let object = OwnedObject::Host { name, address: None, port: 0 };
            Owned { operation: Operation::Resolve, object, argv: None }
        }
        EndpointClass::UiClick | EndpointClass::UiType | EndpointClass::UiNavigate | EndpointClass::Other => {
            let (operation, text) = if odd {
                (Operation::AbstractConnect, format!("unix:@socket-{i}"))
            } else {
                (Operation::Ground, "unshare".to_owned())
            };
            Owned { operation, object: OwnedObject::Other(text), argv: None }
        }
    }
}

fn host(i: usize) -> OwnedObject {
    let byte = (i % 250) as u8;
    match i % 8 {
        0 => OwnedObject::Host { name: None, address: Some(IpAddr::from([169, 254, 169, 254])), port: 80 },
        1..=3 => OwnedObject::Host {
            name: None,
            address: Some(IpAddr::from([127, 0, 0, 1])),
            port: 8000 + i as u16,
        },
        4 | 5 => OwnedObject::Host {
            name: Some("files.pythonhosted.org".to_owned()),
            address: Some(IpAddr::from([151, 101, 0, byte])),
            port: 443,
        },
        _ => OwnedObject::Host { name: None, address: Some(IpAddr::from([203, 0, 113, byte])), port: 443 },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_class_is_measured_on_its_own_actions_and_on_different_ones() {
        for class in EndpointClass::KERNEL {
            let corpus = corpus(class);
            let actions: Vec<Action<'_>> = corpus.iter().map(Owned::action).collect();
            assert!(actions.iter().all(|action| action.class() == class), "{class}");
            let different: BTreeSet<String> = actions.iter().map(|action| format!("{action:?}")).collect();
            assert!(different.len() > VARIETY / 8, "{class}: {}", different.len());
        }
    }
}
