//! A small session with every kind of journal line, and tools to take its runpack apart and put it together again.

use std::io::{Cursor, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use gait_agent::action::{Action, Host, Object};
use gait_agent::endpoint::Operation;
use gait_agent::gate::Verdict;
use gait_agent::intent::{Capture, SessionFacts};
use gait_agent::runpack::{
    ArchiveLimits, Env, Sealed, SessionFiles, SessionRun, VerifyOptions, VerifyReport, seal, verify,
};
use gait_agent::sign::{Digest, SigningKey, canonical, digest_of};
use gait_agent::timestamp::Timestamp;
use gait_agent::trace::{
    Answer, Approval, Ending, JournalSummary, Observation, Reasons, Recorder, RecorderOptions, Scope,
    SessionStart,
};
use serde_json::Value;
use tempfile::TempDir;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipArchive, ZipWriter};

/// 2026-01-02T03:04:05Z.
pub(crate) const START_NS: u64 = 1_767_323_045_000_000_000;

pub(crate) fn key() -> SigningKey {
    SigningKey::from_seed([1; 32])
}

pub(crate) fn facts() -> SessionFacts {
    SessionFacts { identity: "uid:1000".into(), workspace: "/w".into(), run_id: "run_test".into() }
}

pub(crate) fn seen<'a>(at: u64, action: Action<'a>, verdict: Verdict) -> Observation<'a> {
    Observation {
        at_ns: START_NS + at,
        pid: 100,
        tid: 101,
        action,
        verdict,
        enforced: true,
        simulated_verdict: None,
        approval: None,
        decision_key: 7,
    }
}

pub(crate) fn path_action(operation: Operation, path: &str) -> Action<'_> {
    Action { operation, object: Object::Path(path.as_bytes()), image: b"/usr/bin/python3", argv: None }
}

pub(crate) fn reasons() -> Reasons {
    Reasons {
        codes: vec!["matched_rule_x".into(), "a_code".into(), "a_code".into()],
        violations: vec![],
        matched_rule: Some("x".into()),
    }
}

pub(crate) type TestRecorder = Recorder<Vec<u8>, Vec<u8>>;

/// The files of a session in a directory of their own.
pub(crate) struct Session {
    pub(crate) dir: TempDir,
    pub(crate) summary: JournalSummary,
    pub(crate) sealed: Sealed,
}

impl Session {
    pub(crate) fn runpack(&self) -> PathBuf {
        self.dir.path().join("runpack.zip")
    }

    pub(crate) fn verify(&self) -> VerifyReport {
        verify(&self.runpack(), &VerifyOptions::default()).unwrap()
    }
}

fn append(path: &Path) -> std::fs::File {
    std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap()
}

/// Records a session by `work`, then seals it.
pub(crate) fn session(
    key: &SigningKey,
    options: RecorderOptions,
    work: impl FnOnce(&mut Recorder<std::fs::File, std::fs::File>),
) -> Session {
    let dir = TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name);
    let coverage = canonical(&serde_json::json!({"backend": "fake", "rows": []})).unwrap();
    std::fs::write(path("coverage.json"), &coverage).unwrap();
    let start = SessionStart {
        at_ns: START_NS,
        backend: "fake".into(),
        coverage_digest: Digest::sha256(&coverage),
        program: b"/usr/bin/python3".to_vec(),
        command_digest: Digest::sha256(b"python3\0agent.py\0"),
        circumstances: None,
    };
    let (journal, traces) = (append(&path("journal.jsonl")), append(&path("traces.jsonl")));
    let policy = Digest::sha256(b"policy");
    let mut recorder = Recorder::new(facts(), policy, key.clone(), journal, traces, &start, options).unwrap();
    work(&mut recorder);
    let summary = recorder.finish(START_NS + 9_000_000_000, Ending::Exited(3)).unwrap();
    let sealed = reseal_directory(dir.path(), key);
    Session { dir, summary, sealed }
}

pub(crate) fn reseal_directory(dir: &Path, key: &SigningKey) -> Sealed {
    let files = SessionFiles {
        coverage: &dir.join("coverage.json"),
        journal: &dir.join("journal.jsonl"),
        traces: &dir.join("traces.jsonl"),
    };
    let run = SessionRun {
        run_id: "run_test".into(),
        started_at: Timestamp::from_unix_nanos(START_NS),
        ended_at: Timestamp::from_unix_nanos(START_NS + 9_000_000_000),
        ending: Some(Ending::Exited(3)),
        env: Env { os: "linux".into(), arch: "x86_64".into(), runtime: "gait".into() },
        capture: Capture::Reference,
    };
    let out = std::fs::File::create(dir.join("runpack.zip")).unwrap();
    seal(&files, &run, key, out).unwrap()
}

/// What the ordinary session does: reads, a repeat, a block, a peer, an answered question, a loss, a note.
pub(crate) fn work<J: Write, T: Write>(recorder: &mut Recorder<J, T>) {
    let read = path_action(Operation::Read, "/etc/hosts");
    for at in [1, 2, 3] {
        recorder.observe(&seen(at, read, Verdict::Allow), reasons).unwrap();
    }
    let unlink = path_action(Operation::Unlink, "/etc/passwd");
    recorder.observe(&seen(4, unlink, Verdict::Block), reasons).unwrap();
    let host = Host { name: Some("example.com"), address: Some(IpAddr::from([1, 2, 3, 4])), port: 443 };
    let connect = Action {
        operation: Operation::Connect,
        object: Object::Host(host),
        image: b"/usr/bin/curl",
        argv: None,
    };
    let asked = Approval { answer: Answer::Allow, scope: Scope::Session, asked: true };
    let once = Observation { approval: Some(asked), ..seen(5, connect, Verdict::Allow) };
    recorder.observe(&once, reasons).unwrap();
    let later = Approval { asked: false, ..asked };
    recorder.observe(&Observation { approval: Some(later), ..once }, reasons).unwrap();
    let argv = b"git\0status\0";
    let exec = Action { argv: Some(argv), ..path_action(Operation::Exec, "/usr/bin/git") };
    recorder.observe(&seen(6, exec, Verdict::Allow), reasons).unwrap();
    recorder.flush(START_NS + 7).unwrap();
    recorder.observe(&seen(8, read, Verdict::Allow), reasons).unwrap();
    recorder.loss(START_NS + 8, 2, "ring buffer full").unwrap();
    recorder.note(START_NS + 8, "stopped and continued").unwrap();
}

pub(crate) fn plain_session() -> Session {
    session(&key(), RecorderOptions::default(), work)
}

/// The entries of a runpack, in order.
pub(crate) type Entries = Vec<(String, Vec<u8>)>;

pub(crate) fn unpack(path: &Path) -> Entries {
    let mut archive = ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    (0..archive.len())
        .map(|at| {
            let mut entry = archive.by_index(at).unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (String::from_utf8(entry.name_raw().to_vec()).unwrap(), bytes)
        })
        .collect()
}

pub(crate) fn repack(entries: &Entries) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Deflated)
        .compression_level(Some(2))
        .last_modified_time(DateTime::default())
        .unix_permissions(0o644);
    for (name, bytes) in entries {
        zip.start_file(name.as_str(), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

pub(crate) fn body<'a>(entries: &'a mut Entries, name: &str) -> &'a mut Vec<u8> {
    &mut entries.iter_mut().find(|entry| entry.0 == name).unwrap().1
}

/// Makes the manifest fit the entries again and signs it: what somebody with a key can do.
pub(crate) fn remanifest(entries: &mut Entries, key: &SigningKey) {
    let files: Vec<Value> = entries
        .iter()
        .filter(|(name, _)| name != "manifest.json")
        .map(|(name, bytes)| serde_json::json!({"path": name, "sha256": Digest::sha256(bytes)}))
        .collect();
    let mut manifest: Value = serde_json::from_slice(body(entries, "manifest.json")).unwrap();
    manifest["files"] = files.into();
    resign(&mut manifest, key);
    *body(entries, "manifest.json") = canonical(&manifest).unwrap();
}

pub(crate) fn resign(manifest: &mut Value, key: &SigningKey) {
    manifest.as_object_mut().unwrap().remove("signatures");
    manifest["public_key"] = key.verify_key().to_base64().into();
    manifest["manifest_digest"] = "".into();
    manifest["manifest_digest"] = digest_of(manifest).unwrap().to_string().into();
    manifest["signatures"] = serde_json::json!([key.sign_digest(&digest_of(manifest).unwrap())]);
}

pub(crate) fn check(bytes: &[u8], options: &VerifyOptions) -> VerifyReport {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("runpack.zip");
    std::fs::write(&path, bytes).unwrap();
    verify(&path, options).unwrap()
}

pub(crate) fn small_limits() -> ArchiveLimits {
    ArchiveLimits { stream: 3 << 20, ..ArchiveLimits::default() }
}

/// Lines without newlines.
pub(crate) fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.strip_suffix(b"\n").unwrap().split(|&byte| byte == b'\n').map(<[u8]>::to_vec).collect()
}

pub(crate) fn unlines(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect()
}

/// Numbers and chains the lines of a journal anew, and seals its head.
pub(crate) fn rechain(entries: &mut Entries, edit: impl FnOnce(&mut Vec<Value>)) {
    let mut values: Vec<Value> = lines(body(entries, "journal.jsonl"))
        .iter()
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    edit(&mut values);
    let mut head = Digest::ZERO;
    let mut out = Vec::new();
    for (seq, value) in values.iter_mut().enumerate() {
        value["seq"] = seq.to_string().into();
        value["prev"] = head.to_string().into();
        out.push(canonical(value).unwrap());
        head = Digest::sha256(&out[seq]);
    }
    *body(entries, "journal.jsonl") = unlines(&out);
    rehead(entries);
}

/// Seals the head of the journal as it is.
pub(crate) fn rehead(entries: &mut Entries) {
    let all = lines(body(entries, "journal.jsonl"));
    let mut sealed: Value = serde_json::from_slice(body(entries, "journal.digest")).unwrap();
    sealed["head"] = Digest::sha256(all.last().unwrap()).to_string().into();
    sealed["lines"] = all.len().to_string().into();
    *body(entries, "journal.digest") = canonical(&sealed).unwrap();
}
