//! Plays the scenario files of `conformance/`: one per row of the mapping table at least.
//!
//! A scenario is a set of files, a policy, and steps; for each step it says the errno that the caller sees and the
//! records that the runpack must hold. Each scenario runs three times: as it is, to show that its blocked steps would
//! have worked; under gait; and under gait again, to show that equal runs leave equal evidence. Which backend plays them
//! is up to the harness.

use std::collections::BTreeMap;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use gait_agent::endpoint::{CATALOG, Treatment};
use serde::Deserialize;
use serde_json::Value;

use crate::evidence::Evidence;
use crate::harness::{GAIT, Outcome, STANDARD, World, is_root, probe};
use crate::scripted::Kernel;

/// A scenario file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What the scenario is about, for the reader.
    #[serde(rename = "about")]
    _about: String,
    /// The row of the mapping table.
    row: String,
    /// Content by path below the workspace; `->x` makes a symlink to x, a name that ends in `/` a directory.
    #[serde(default)]
    setup: BTreeMap<String, String>,
    /// Octal mode by path.
    #[serde(default)]
    modes: BTreeMap<String, String>,
    /// Unix sockets that somebody outside listens on.
    #[serde(default)]
    sockets: Vec<String>,
    /// A policy of its own instead of `standard.yaml`.
    policy: Option<Value>,
    steps: Vec<Step>,
    /// Content by path after the run; null for a path that must not exist.
    #[serde(default)]
    after: BTreeMap<String, Option<String>>,
}

/// One step, performed by the probe `steps`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(rename = "do")]
    words: Vec<String>,
    /// What the caller sees; `0` where nothing is said.
    errno: Option<String>,
    /// Several that are as good.
    #[serde(default)]
    errno_any: Vec<String>,
    /// The value that the call returns.
    ret: Option<String>,
    /// What the caller sees without gait: an errno, `other` than under gait, or `any`. `0` where nothing is said.
    native: Option<String>,
    /// Records that must be in the runpack, as `verdict class operation target`.
    #[serde(default)]
    seen: Vec<String>,
    /// Records of which one must be there.
    #[serde(default)]
    seen_any: Vec<String>,
}

impl Step {
    fn accepts(&self, errno: &str) -> bool {
        if self.errno_any.is_empty() {
            errno == self.errno.as_deref().unwrap_or("0")
        } else {
            self.errno_any.iter().any(|one| one == errno)
        }
    }

    fn accepts_natively(&self, errno: &str) -> bool {
        match self.native.as_deref() {
            // What a plain user may not do anyway shows nothing.
            Some("other") => !self.accepts(errno) || !is_root(),
            Some("any") => true,
            Some(wanted) => errno == wanted,
            None => errno == "0",
        }
    }
}

/// What scenarios need from outside: peers to reach, a process to aim at.
struct Outside {
    names: Vec<(&'static str, String)>,
    outsider: std::process::Child,
    port: u16,
    _held: (Vec<TcpListener>, Vec<UdpSocket>),
}

impl Outside {
    fn new() -> Self {
        let mut names = Vec::new();
        let mut held = (Vec::new(), Vec::new());
        let mut first = 0;
        for name in ["${port}", "${port2}"] {
            let (tcp, udp) = both_kinds();
            let port = tcp.local_addr().expect("a bound socket").port();
            if first == 0 {
                first = port;
            }
            names.push((name, port.to_string()));
            held.0.push(tcp);
            held.1.push(udp);
        }
        for name in ["${free}", "${granted}"] {
            let port = both_kinds().0.local_addr().expect("a bound socket").port();
            names.push((name, port.to_string()));
        }
        let outsider = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("sleep");
        names.push(("${outsider}", outsider.id().to_string()));
        for (name, program) in [("${true}", "/bin/true"), ("${false}", "/bin/false"), ("${sh}", "/bin/sh")] {
            names.push((name, fs::canonicalize(program).expect(program).to_str().expect("UTF-8").to_owned()));
        }
        Self { names, outsider, port: first, _held: held }
    }

    fn fill(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        drop(self.outsider.kill());
        drop(self.outsider.wait());
    }
}

/// Opens a TCP listener and a UDP socket on the same loopback port.
fn both_kinds() -> (TcpListener, UdpSocket) {
    loop {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = tcp.local_addr().expect("a bound socket").port();
        if let Ok(udp) = UdpSocket::bind(("127.0.0.1", port)) {
            return (tcp, udp);
        }
    }
}

/// Lays out the workspace as the scenario wants it, and opens its sockets.
fn prepare(world: &World, scenario: &Scenario) -> Vec<Box<dyn std::any::Any>> {
    let ws = world.ws();
    for dir in ["open", "keep", "secret"] {
        drop(fs::remove_dir_all(ws.join(dir)));
        fs::create_dir(ws.join(dir)).expect("a directory");
    }
    world.write("ws/secret/file", "secret");
    for (name, content) in &scenario.setup {
        let path = ws.join(name);
        if name.ends_with('/') {
            fs::create_dir(&path).expect(name);
        } else if let Some(to) = content.strip_prefix("->") {
            symlink(to, &path).expect(name);
        } else {
            fs::write(&path, content).expect(name);
        }
    }
    for (name, mode) in &scenario.modes {
        let mode = u32::from_str_radix(mode, 8).expect("an octal mode");
        fs::set_permissions(ws.join(name), fs::Permissions::from_mode(mode)).expect(name);
    }
    scenario.sockets.iter().map(|name| open_socket(&ws, name)).collect()
}

fn open_socket(ws: &Path, name: &str) -> Box<dyn std::any::Any> {
    if let Some(abstract_name) = name.strip_prefix('@') {
        let address = SocketAddr::from_abstract_name(abstract_name).expect("a name");
        return Box::new(UnixListener::bind_addr(&address).expect(name));
    }
    let path = ws.join(name);
    if name.ends_with("dgram") {
        Box::new(UnixDatagram::bind(path).expect(name))
    } else {
        Box::new(UnixListener::bind(path).expect(name))
    }
}

/// Returns (verb, ret, errno) of each step.
fn results(outcome: &Outcome) -> Vec<(String, String, String)> {
    outcome
        .stdout
        .lines()
        .map(|line| {
            let mut words = line.split(' ');
            let verb = words.next().unwrap_or_default().to_owned();
            let rest: Vec<_> = words.collect();
            let get = |key: &str| {
                rest.iter().find_map(|word| word.strip_prefix(key)).unwrap_or_default().to_owned()
            };
            (verb, get("ret="), get("errno="))
        })
        .collect()
}

/// Compares what the steps gave with what they should have; one line per difference.
fn differences(scenario: &Scenario, outcome: &Outcome, native: bool) -> Vec<String> {
    let results = results(outcome);
    let mut wrong = Vec::new();
    if results.len() != scenario.steps.len() {
        wrong.push(format!(
            "{} of {} steps were performed\n{}",
            results.len(),
            scenario.steps.len(),
            outcome.stderr
        ));
    }
    for (step, (_, ret, errno)) in scenario.steps.iter().zip(&results) {
        let accepted = if native { step.accepts_natively(errno) } else { step.accepts(errno) };
        if !accepted {
            let wanted = if native { &step.native } else { &step.errno };
            wrong.push(format!(
                "{:?}: errno {errno}, expected {}",
                step.words,
                wanted.as_deref().unwrap_or("0")
            ));
        } else if !native && step.ret.as_ref().is_some_and(|wanted| wanted != ret) {
            wrong.push(format!("{:?}: returned {ret}, expected {:?}", step.words, step.ret));
        }
    }
    wrong
}

fn missing_records(scenario: &Scenario, evidence: &Evidence) -> Vec<String> {
    let mut wrong = Vec::new();
    for step in &scenario.steps {
        for wanted in step.seen.iter().filter(|wanted| !evidence.has(wanted)) {
            wrong.push(format!("{:?}: no record `{wanted}`", step.words));
        }
        if !step.seen_any.is_empty() && !step.seen_any.iter().any(|wanted| evidence.has(wanted)) {
            wrong.push(format!("{:?}: no record of {:?}", step.words, step.seen_any));
        }
    }
    let expected: Vec<_> =
        scenario.steps.iter().flat_map(|step| step.seen.iter().chain(&step.seen_any)).collect();
    for blocked in evidence.blocked() {
        let known = expected.iter().any(|wanted| {
            **wanted == blocked || wanted.strip_suffix('*').is_some_and(|prefix| blocked.starts_with(prefix))
        });
        if !known {
            wrong.push(format!("a record that no step explains: `{blocked}`"));
        }
    }
    if !wrong.is_empty() {
        let all: Vec<_> = evidence.records.iter().map(ToString::to_string).collect();
        wrong.push(format!("records:\n    {}", all.join("\n    ")));
    }
    wrong
}

/// Checks the files that the steps left behind.
fn traces_on_disk(world: &World, scenario: &Scenario) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, content) in &scenario.after {
        let path = world.ws().join(name);
        let found = match path.symlink_metadata() {
            Err(_) => None,
            Ok(metadata) if metadata.is_dir() => Some(String::new()),
            // A FIFO must not be opened here: nobody would open its other end.
            Ok(metadata) if !metadata.is_file() && !metadata.is_symlink() => Some("<node>".to_owned()),
            Ok(_) => Some(String::from_utf8_lossy(&fs::read(&path).unwrap_or_default()).into_owned()),
        };
        if found != *content {
            wrong.push(format!("{name} is {found:?}, expected {content:?}"));
        }
    }
    for (name, mode) in &scenario.modes {
        let found =
            world.ws().join(name).symlink_metadata().map(|metadata| metadata.permissions().mode() & 0o7777);
        if !found.as_ref().is_ok_and(|found| format!("{found:04o}") == *mode) {
            wrong.push(format!("mode of {name} is {:o}, expected {mode}", found.unwrap_or(0)));
        }
    }
    wrong
}

fn play(text: &str) -> Vec<String> {
    let world = Arc::new(World::new());
    let outside = Outside::new();
    let scenario: Scenario =
        serde_json::from_str(&outside.fill(&world.fill(text, outside.port))).expect("a scenario");
    let policy = scenario.policy.as_ref().map_or_else(|| STANDARD.to_owned(), ToString::to_string);
    world.set_policy(&policy, outside.port);
    let steps: String = scenario.steps.iter().map(|step| step.words.join("\t") + "\n").collect();
    let program = probe("steps");

    let sockets = prepare(&world, &scenario);
    let native = world.native_with(&[&program], steps.as_bytes());
    let mut wrong = label("without gait", differences(&scenario, &native, true));
    drop(sockets);

    let mut first = None;
    for _ in 0..2 {
        let sockets = prepare(&world, &scenario);
        world.forget_runs();
        let run = world.gait_with(&[&program], steps.as_bytes());
        drop(sockets);
        wrong.extend(label("under gait", differences(&scenario, &run, false)));
        wrong.extend(label("on disk", traces_on_disk(&world, &scenario)));
        if world.runpacks().len() != 1 {
            wrong.push(format!("no runpack\n{}", run.stderr));
            break;
        }
        let evidence = Evidence::read(&world.runpack());
        wrong.extend(label("evidence", missing_records(&scenario, &evidence)));
        let first = first.get_or_insert_with(|| evidence.decisions());
        if *first != evidence.decisions() {
            wrong.push("two runs left different evidence".to_owned());
        }
        if !wrong.is_empty() {
            wrong.push(run.stderr);
            break;
        }
    }
    if wrong.is_empty() {
        let held = Evidence::read(&world.runpack());
        wrong.extend(label("on the scripted kernel", play_scripted(&world, &scenario, &program, &held)));
    }
    wrong
}

/// Plays the scenario on the scripted kernel: the same records, and the same decisions as under the held calls.
fn play_scripted(world: &Arc<World>, scenario: &Scenario, program: &str, held: &Evidence) -> Vec<String> {
    let sockets = prepare(world, scenario);
    world.forget_runs();
    let steps = scenario.steps.iter().map(|step| step.words.clone()).collect();
    let (runpack, errnos) = match Kernel::new(Arc::clone(world), program).play(steps) {
        Ok(played) => played,
        Err(error) => return vec![error],
    };
    drop(sockets);
    let mut wrong = traces_on_disk(world, scenario);
    if errnos.len() != scenario.steps.len() {
        wrong.push(format!("{} of {} steps were played", errnos.len(), scenario.steps.len()));
    }
    for (step, errno) in scenario.steps.iter().zip(errnos) {
        if let Some(errno) = errno.filter(|errno| !step.accepts(errno)) {
            wrong.push(format!("{:?}: errno {errno}", step.words));
        }
    }
    let evidence = Evidence::read(&runpack);
    wrong.extend(missing_records(scenario, &evidence));
    for (more, less, whose) in [(&evidence, held, "scripted kernel"), (held, &evidence, "held calls")] {
        let known = less.decisions();
        let alone = more.records.iter().filter(|record| !known.contains(&record.decision()));
        wrong
            .extend(alone.map(|record| format!("only the {whose} gave `{record}` {}", record.intent_digest)));
    }
    let verified = Command::new(GAIT.as_str()).arg("verify").arg(&runpack).output().expect("gait");
    if !verified.status.success() {
        wrong.push(String::from_utf8_lossy(&verified.stdout).into_owned());
    }
    wrong
}

fn label(label: &str, lines: Vec<String>) -> Vec<String> {
    lines.into_iter().map(|line| format!("{label}: {line}")).collect()
}

fn scenarios() -> Vec<(String, String)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exec/conformance");
    let mut found: Vec<_> = fs::read_dir(dir)
        .expect("the scenarios")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, fs::read_to_string(path).expect("a scenario"))
        })
        .collect();
    found.sort();
    found
}

/// Set to part of a scenario's name, plays those alone.
const ONLY: &str = "GAIT_SCENARIO";

#[test]
fn every_scenario_holds() {
    let only = std::env::var(ONLY).unwrap_or_default();
    let scenarios: Vec<_> = scenarios().into_iter().filter(|(name, _)| name.contains(&only)).collect();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some((name, text)) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let wrong = play(text);
                    if !wrong.is_empty() {
                        let told = format!("{name}\n  {}", wrong.join("\n  "));
                        failures.lock().expect("no player panicked").push(told);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no player panicked");
    assert!(failures.is_empty(), "{} scenarios fail\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_row_of_the_mapping_table_has_a_scenario() {
    let scenarios: Vec<Scenario> = scenarios()
        .iter()
        .map(|(name, text)| serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}")))
        .collect();
    for row in CATALOG {
        let of_row: Vec<_> = scenarios.iter().filter(|scenario| scenario.row == row.id).collect();
        assert!(!of_row.is_empty(), "no scenario for row {}", row.id);
        if row.treatment == Treatment::Refused {
            for call in row.syscalls {
                let played = of_row
                    .iter()
                    .flat_map(|scenario| &scenario.steps)
                    .any(|step| step.words.get(1).is_some_and(|word| word == call));
                assert!(played, "no step for {call} of row {}", row.id);
            }
        }
    }
    for scenario in &scenarios {
        assert!(CATALOG.iter().any(|row| row.id == scenario.row), "row {} is not in the table", scenario.row);
    }
}
