//! `gait guard pack`, `gait guard verify` and `gait incident pack`.

use gait_agent::sign::SigningKey;

use super::evidence::{described, flip, session, write_keys};
use super::sandbox::Sandbox;

const TRACE: &str = r#"{"schema_id": "gait.gate.trace", "trace_id": "t1", "tool_name": "tool.x", "verdict": "block",
    "created_at": "CREATED", "policy_digest": "aa"}"#;
const APPROVAL: &str = r#"{"schema_id": "gait.gate.approval_audit_record", "trace_id": "TRACE", "created_at": "2023-11-14T22:13:21Z"}"#;

/// A sandbox whose person has a key, so that packs are the same each time.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    let own = SigningKey::from_seed([5; 32]);
    let keys = "home/.local/share/gait/keys/";
    sandbox.write(&format!("{keys}gait_private.key"), &own.to_file_text());
    sandbox.write(&format!("{keys}gait_public.key"), &own.verify_key().to_file_text());
    let private = sandbox.path(&format!("{keys}gait_private.key"));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(private, mode).unwrap();
    session(&sandbox, "run_s");
    write_keys(&sandbox);
    sandbox
}

#[test]
fn packs_are_made_twice_alike_and_verify() {
    let mut sandbox = sandbox();
    described(&sandbox, None);
    sandbox.write("t.json", &TRACE.replace("CREATED", "x")).write("a.json", APPROVAL);
    let line = "guard pack --run run_s --trace t.json --approval-audit a.json --case-id C-1 --out p.zip";
    assert_eq!(sandbox.gait(line).exit, 0);
    let first = std::fs::read(sandbox.path("p.zip")).unwrap();
    assert_eq!(sandbox.gait(&format!("{line} --json")).exit, 0);
    assert_eq!(std::fs::read(sandbox.path("p.zip")).unwrap(), first);
    for line in [
        "guard verify p.zip",
        "guard verify --path p.zip --require-signature --json",
        "guard pack --run run_told --template pci --out q.zip --key-mode prod --private-key private.key",
        "guard verify q.zip",
        "guard verify q.zip --profile strict --public-key public.key",
    ] {
        assert_eq!(sandbox.gait(line).exit, 0, "{line}");
    }
    for line in ["guard verify q.zip --require-signature", "guard verify q.zip --public-key other.key"] {
        assert_eq!(sandbox.gait(line).exit, 2, "{line}");
    }
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn an_incident_takes_what_lies_beside_the_run() {
    let mut sandbox = sandbox();
    for (name, created) in [("trace_in", "2023-11-14T23:00:00Z"), ("trace_out", "2023-11-20T00:00:00Z")] {
        sandbox.write(&format!("gait-out/{name}.json"), &TRACE.replace("CREATED", created));
    }
    sandbox.write("gait-out/approval_audit_1.json", &APPROVAL.replace("TRACE", "t1"));
    sandbox.write("gait-out/approval_audit_2.json", &APPROVAL.replace("TRACE", "t2"));
    sandbox.write("gait-out/regress_junk.json", "{").write("gait-out/other.json", "{}");
    let answer = sandbox.gait("incident pack --from run_s --window 2h --json");
    assert_eq!(answer.exit, 0);
    let answer = answer.json();
    assert_eq!((&answer["trace_count"], &answer["approval_audit_count"]), (&1.into(), &1.into()));
    assert_eq!(answer["policy_digests"].as_array().unwrap().len(), 2, "the trace's and the session's");
    let path = answer["pack_path"].as_str().unwrap();
    assert!(path.starts_with("gait-out/evidence_pack_pack_"), "{path}");
    assert_eq!(sandbox.gait(&format!("guard verify {path}")).exit, 0);
    assert_eq!(sandbox.gait("incident pack --from run_s --window 1s").exit, 0);
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn bad_inputs_of_packs_are_named_and_leave_nothing_behind() {
    let mut sandbox = sandbox();
    session(&sandbox, "run_t");
    flip(&sandbox.path("gait-out/runpack_run_t.zip"), b"run.jsonPK");
    sandbox.write("t.json", "{}").write("bad.json", "{").write("text.zip", "text");
    let before = sandbox.files();
    for (line, exit) in [
        ("guard pack", 6),
        ("guard pack --run run_nothing", 6),
        ("guard pack --run run_t", 2),
        ("guard pack --run run_s --trace t.json", 6),
        ("guard pack --run run_s --regress bad.json", 6),
        ("guard pack --run run_s --inventory nothing.json", 6),
        ("guard pack --run run_s --private-key private.key", 6),
        ("guard pack --run run_s --out t.json/p.zip", 1),
        ("incident pack --from run_s --window soon", 6),
        ("incident pack --from run_t", 2),
        ("guard verify", 6),
        ("guard verify nothing.zip", 6),
        ("guard verify text.zip", 6),
        ("guard verify gait-out/runpack_run_s.zip", 2),
        ("guard verify gait-out/runpack_run_s.zip --profile strict", 6),
    ] {
        assert_eq!(sandbox.gait(line).exit, exit, "{line}");
    }
    assert_eq!(sandbox.files(), before);
    insta::assert_snapshot!(sandbox.story());
}

#[test]
fn a_changed_pack_does_not_hold() {
    let mut sandbox = sandbox();
    assert_eq!(sandbox.gait("guard pack --run run_s --out p.zip").exit, 0);
    let whole = std::fs::read(sandbox.path("p.zip")).unwrap();
    std::fs::write(sandbox.path("short.zip"), &whole[..whole.len() - 30]).unwrap();
    assert_eq!(sandbox.gait("guard verify short.zip").exit, 2);
    let contents = |bytes: Vec<u8>| -> Vec<Vec<u8>> {
        let mut archive = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
        (0..archive.len())
            .map(|at| {
                let mut entry = archive.by_index(at).unwrap();
                let mut bytes = entry.name_raw().to_vec();
                std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
                bytes
            })
            .collect()
    };
    let mut found = 0;
    for at in (0..whole.len()).step_by(97) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(sandbox.path("p.zip"), &changed).unwrap();
        let exit = sandbox.gait("guard verify p.zip").exit;
        // Times and modes in the container's headers say nothing and are not looked at.
        let harmless = exit == 0 && contents(changed) == contents(whole.clone());
        // Without its first bytes it is no archive at all.
        assert!(exit == 2 || harmless || (exit == 6 && at < 4), "byte {at}: {exit}");
        found += usize::from(exit == 2);
    }
    assert!(found > 20, "{found}");
}
