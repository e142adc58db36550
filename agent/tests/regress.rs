//! Recorded sessions before a policy: the action that is read back is judged as the one that was held.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot set up its case has to fail")]

use std::collections::BTreeMap;

use gait_agent::action::{Action, Host, Object};
use gait_agent::endpoint::{Operation, TargetKind};
use gait_agent::gate::Verdict;
use gait_agent::intent::{Capture, SessionFacts};
use gait_agent::policy::{CompiledPolicy, DEFAULT, Policy, Unknown, Vars};
use gait_agent::regress::{Behaviour, Ignored, Judge, Judgement, Recorded, Review, Session};
use gait_agent::runpack::{Env, Runpack, SessionFiles, SessionRun, seal};
use gait_agent::sign::{Digest, SigningKey};
use gait_agent::timestamp::Timestamp;
use gait_agent::trace::{
    Circumstances, Ending, Observation, Reasons, Recorder, RecorderOptions, SessionStart,
};

const START_NS: u64 = 1_767_323_045_000_000_000;

fn facts() -> SessionFacts {
    SessionFacts { identity: "uid:1000".into(), workspace: "/home/me/w".into(), run_id: "run_r".into() }
}

fn vars() -> Vars {
    Vars { home: "/home/me".into(), protect: vec!["/home/me/w/gait-out".into()], ..Vars::default() }
}

fn circumstances() -> Circumstances {
    let Vars { home, tmp, run_dir, uid, protect } = vars();
    let SessionFacts { identity, workspace, .. } = facts();
    Circumstances {
        command: None,
        directory: workspace.clone(),
        home,
        identity,
        policy: DEFAULT.into(),
        protect,
        run_dir,
        tmp,
        uid: uid.to_string(),
        workspace,
    }
}

fn shipped(name: &str) -> CompiledPolicy {
    CompiledPolicy::compile(&Policy::load(name).unwrap(), &facts(), &vars()).unwrap()
}

/// A policy of one's own, on top of a shipped one.
fn extended(rules: &str) -> Policy {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.yaml");
    std::fs::write(&path, format!("extends: [{DEFAULT}]\nrules:\n{rules}")).unwrap();
    Policy::load(path.to_str().unwrap()).unwrap_or_else(|error| panic!("{error}"))
}

/// What a session does: actions of every operation, on what policies treat differently.
fn actions() -> Vec<Action<'static>> {
    let paths: [&[u8]; 7] = [
        b"/home/me/w/a.txt",
        b"/home/me/.ssh/id_ed25519",
        b"/home/me/w/gait-out/x",
        b"/etc/passwd",
        b"/usr/bin/git",
        b"/home/me/w/\xff odd ",
        b"/tmp/tmpabcdefgh/x",
    ];
    let host = |name, address: Option<&str>, port| {
        Object::Host(Host { name, address: address.map(|text| text.parse().unwrap()), port })
    };
    let hosts = [
        host(Some("pypi.org"), Some("151.101.0.223"), 443),
        host(Some("pypi.org"), Some("127.0.0.1"), 443),
        host(None, Some("169.254.169.254"), 80),
        host(None, Some("::1"), 4711),
        host(None, None, 9),
    ];
    let queries = [host(Some("pypi.org"), None, 0), host(None, Some("9.9.9.9"), 53)];
    let mut all = Vec::new();
    for &operation in Operation::ALL {
        let objects: Vec<Object<'static>> = match operation.target_kind() {
            TargetKind::Path => paths.iter().map(|path| Object::Path(path)).collect(),
            TargetKind::Host if operation == Operation::Resolve => queries.to_vec(),
            TargetKind::Host => hosts.to_vec(),
            TargetKind::Other => vec![Object::Other("unix:@bus"), Object::Other("io_uring_setup")],
        };
        for object in objects {
            for image in [&b"/usr/bin/python3"[..], b"/usr/bin/git"] {
                let argvs: &[Option<&'static [u8]>] = if operation == Operation::Exec {
                    &[
                        Some(b"git\0push\0--force\0"),
                        Some(b"git\0status\0"),
                        Some(b"x\0\\xff\0\0"),
                        Some(b"\xff \0"),
                    ]
                } else {
                    &[None]
                };
                all.extend(argvs.iter().map(|&argv| Action { operation, object, image, argv }));
            }
        }
    }
    all
}

/// Records the actions as `gait exec` does under a policy, and opens the runpack.
fn record(policy: &CompiledPolicy, capture: Capture, actions: &[Action<'_>]) -> (Session, Runpack) {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("coverage.json"), "{}").unwrap();
    let start = SessionStart {
        at_ns: START_NS,
        backend: "fake".into(),
        coverage_digest: Digest::sha256(b"{}"),
        program: b"/bin/x".to_vec(),
        command_digest: Digest::sha256(b"x\0"),
        circumstances: Some(circumstances()),
    };
    let key = SigningKey::from_seed([1; 32]);
    let file = |name: &str| std::fs::File::create(path(name)).unwrap();
    let options = RecorderOptions { capture, ..RecorderOptions::default() };
    let (digest, journal, traces) = (policy.policy().digest(), file("journal.jsonl"), file("traces.jsonl"));
    let mut recorder = Recorder::new(facts(), digest, key.clone(), journal, traces, &start, options).unwrap();
    for action in actions {
        let decision = policy.decide(action);
        let seen = Observation {
            at_ns: START_NS,
            pid: 1,
            tid: 1,
            action: *action,
            verdict: decision.verdict(),
            enforced: true,
            simulated_verdict: None,
            approval: None,
            decision_key: decision.to_u64(),
        };
        let why = policy.explain(decision);
        let reasons =
            Reasons { codes: why.reason_codes, violations: why.violations, matched_rule: why.matched_rule };
        recorder.observe(&seen, || reasons).unwrap();
    }
    recorder.finish(START_NS, Ending::Exited(0)).unwrap();
    let run = SessionRun {
        run_id: "run_r".into(),
        started_at: Timestamp::from_unix_nanos(START_NS),
        ended_at: Timestamp::from_unix_nanos(START_NS),
        ending: Some(Ending::Exited(0)),
        env: Env::default(),
        capture,
    };
    let files = SessionFiles {
        coverage: &path("coverage.json"),
        journal: &path("journal.jsonl"),
        traces: &path("traces.jsonl"),
    };
    seal(&files, &run, &key, file("runpack.zip")).unwrap();
    let mut runpack = Runpack::open(&path("runpack.zip")).unwrap();
    (Session::read(&mut runpack).unwrap(), runpack)
}

fn decisions(session: &Session, runpack: &mut Runpack) -> Vec<Recorded> {
    let mut all = Vec::new();
    session.decisions(runpack, |recorded| all.push(recorded)).unwrap();
    all
}

#[test]
fn an_action_that_is_read_back_is_judged_as_the_held_one_by_any_policy() {
    let actions = actions();
    let judges = [shipped(DEFAULT), shipped("locked-down"), shipped("observe"), shipped("ci")];
    for action in &actions {
        // Alone, so that no other action of the same name hides it.
        let (session, mut runpack) = record(&judges[0], Capture::Raw, &[*action]);
        let recorded = decisions(&session, &mut runpack).remove(0);
        assert_eq!(recorded.unknown, Unknown::NOTHING, "{action:?}");
        for judge in &judges {
            assert_eq!(judge.decide(&recorded.action()), judge.decide(action), "{action:?}");
        }
        if action.operation == Operation::Exec {
            assert_eq!(recorded.action().argv, action.argv);
        }
    }
}

#[test]
fn under_its_own_policy_nothing_changes_even_where_arguments_were_not_kept() {
    let policy = shipped(DEFAULT);
    for capture in [Capture::Raw, Capture::Reference] {
        let (session, mut runpack) = record(&policy, capture, &actions());
        let held_by = session.policy_digest;
        let judge = Judge::new(policy.policy(), None, &session, held_by, BTreeMap::new()).unwrap();
        let mut seen = 0;
        judge
            .replay(&session, &mut runpack, |recorded, judgement| {
                seen += 1;
                assert_eq!(judgement, Judgement::Same, "{recorded:?}");
            })
            .unwrap();
        assert_eq!(seen, session.len());
        assert!(seen > 100, "{seen}");
    }
}

#[test]
fn a_changed_rule_changes_what_it_names_and_nothing_else() {
    let change = extended(
        "  - name: no-more-hosts\n    priority: 1\n    effect: block\n    match:\n      paths: [/etc/passwd]\n      \
         operations: [read]\n",
    );
    // That the arguments were not kept does not matter: what the old policy said of them is known.
    let was = shipped(DEFAULT);
    let (session, mut runpack) = record(&was, Capture::Reference, &actions());
    let judge =
        Judge::new(&change, Some(was.policy()), &session, session.policy_digest, BTreeMap::new()).unwrap();
    let mut review = Review::default();
    review.begin(&session, "x.zip");
    let mut changed = Vec::new();
    judge
        .replay(&session, &mut runpack, |recorded, judgement| {
            if judgement != Judgement::Same {
                changed.push((recorded.value.clone(), recorded.operation, judgement.clone()));
            }
            review.add(&session, &judge, recorded, judgement);
        })
        .unwrap();
    let now = Judgement::Changed { now: Verdict::Block, by: "no-more-hosts".into() };
    assert_eq!(changed, [("/etc/passwd".to_owned(), Operation::Read, now)]);
    let total = review.total();
    assert_eq!((total.stopped, total.loosened, total.tightened, total.open), (1, 0, 0, 0));
    // One decision, of two programs.
    assert!(
        review.text(10).contains(
            "allow -> block             fs.read   /etc/passwd  rule=no-more-hosts  2 events in 1 run"
        ),
        "{}",
        review.text(10)
    );
}

#[test]
fn without_the_arguments_a_rule_on_arguments_leaves_it_open() {
    let change = extended(
        "  - name: no-status\n    priority: 1\n    effect: block\n    match:\n      argv: [git, status]\n",
    );
    let git = |argv: &'static [u8]| Action {
        operation: Operation::Exec,
        object: Object::Path(b"/usr/bin/git"),
        image: b"/usr/bin/python3",
        argv: Some(argv),
    };
    let actions = [git(b"git\0status\0"), git(b"git\0log\0")];
    let judged = |capture| {
        let was = shipped(DEFAULT);
        let (session, mut runpack) = record(&was, capture, &actions);
        let held_by = session.policy_digest;
        let judge = Judge::new(&change, Some(was.policy()), &session, held_by, BTreeMap::new()).unwrap();
        let mut all = Vec::new();
        judge.replay(&session, &mut runpack, |_, judgement| all.push(judgement)).unwrap();
        all
    };
    let blocked = Judgement::Changed { now: Verdict::Block, by: "no-status".into() };
    assert_eq!(judged(Capture::Raw), [blocked, Judgement::Same]);
    let open = judged(Capture::Reference);
    assert!(matches!(open.as_slice(), [Judgement::Open(_), Judgement::Open(_)]), "{open:?}");
}

#[test]
fn expectations_stand_in_for_what_was_recorded() {
    let policy = shipped(DEFAULT);
    let read = Action {
        operation: Operation::Read,
        object: Object::Path(b"/home/me/w/a.txt"),
        image: b"",
        argv: None,
    };
    let (session, mut runpack) = record(&policy, Capture::Reference, &[read]);
    let expected = BTreeMap::from([(1, Verdict::Block)]);
    let judge = Judge::new(policy.policy(), None, &session, None, expected).unwrap();
    let mut all = Vec::new();
    judge.replay(&session, &mut runpack, |_, judgement| all.push(judgement)).unwrap();
    assert!(matches!(all.as_slice(), [Judgement::Changed { now: Verdict::Allow, .. }]), "{all:?}");
}

/// Two runs that differ in names of temporary files and addresses only behave alike.
#[test]
fn behaviour_is_what_another_run_repeats() {
    let behaviour = |path: &'static [u8], verdict: Verdict| {
        let read =
            Action { operation: Operation::Create, object: Object::Path(path), image: b"", argv: None };
        let (session, mut runpack) = record(&shipped(DEFAULT), Capture::Reference, &[read]);
        let mut behaviour = Behaviour::default();
        session.decisions(&mut runpack, |recorded| behaviour.add(&session, &recorded, verdict)).unwrap();
        behaviour
    };
    let then = behaviour(b"/tmp/tmpabcdefgh/x", Verdict::Allow);
    let differs = |now: &Behaviour| !then.differences(now, &Ignored::default()).is_empty();
    assert!(!differs(&behaviour(b"/tmp/tmp12_4efg8/x", Verdict::Allow)));
    assert!(differs(&behaviour(b"/tmp/tmpabcdefgh/y", Verdict::Allow)));
    assert!(differs(&behaviour(b"/tmp/tmpabcdefgh/x", Verdict::Block)));
}
