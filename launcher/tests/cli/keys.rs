//! `gait keys init`.

use std::os::unix::fs::PermissionsExt;

use gait_agent::sign::{SigningKey, VerifyKey};

use super::sandbox::Sandbox;

/// Key ids are random; everything else is compared.
macro_rules! assert_story {
    ($sandbox:expr) => {
        insta::with_settings!({filters => vec![("[0-9a-f]{64}", "<key id>")]}, {
            insta::assert_snapshot!($sandbox.story());
        });
    };
}

#[test]
fn init_writes_a_pair_that_fits() {
    let mut sandbox = Sandbox::new();
    let report = sandbox.gait("keys init --json").json();
    let private = SigningKey::from_file_text(&sandbox.read("gait-out/keys/gait_private.key")).unwrap();
    let public = VerifyKey::from_file_text(&sandbox.read("gait-out/keys/gait_public.key")).unwrap();
    assert_eq!(private.key_id(), public.key_id());
    assert_eq!(report["key_id"], public.key_id().to_string());
    assert!(sandbox.read("gait-out/keys/gait_private.key").ends_with("=\n"));
    let mode = |name: &str| sandbox.path(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("gait-out/keys/gait_private.key"), 0o600);
    assert_eq!(sandbox.files(), ["gait-out/keys/gait_private.key", "gait-out/keys/gait_public.key"]);
}

#[test]
fn init_answers_in_text_and_json_and_never_overwrites_by_accident() {
    let mut sandbox = Sandbox::new();
    sandbox.gait("keys init -out-dir k -prefix ci");
    let first = sandbox.read("k/ci_private.key");
    assert_eq!(sandbox.gait("keys init --out-dir k --prefix ci").exit, 6);
    assert_eq!(sandbox.gait("keys init --out-dir k --prefix ci --json").exit, 6);
    assert_eq!(sandbox.read("k/ci_private.key"), first);
    sandbox.gait("keys init --out-dir k --prefix ci --force --json");
    assert_ne!(sandbox.read("k/ci_private.key"), first);
    assert_story!(sandbox);
}

#[test]
fn init_writes_both_files_or_none() {
    let mut sandbox = Sandbox::new();
    sandbox.write("k/gait_public.key", "mine");
    sandbox.gait("keys init --out-dir k");
    sandbox.gait("keys init --prefix ../x");
    sandbox.write("file", "");
    assert_eq!(sandbox.gait("keys init --out-dir file/k").exit, 1);
    assert_eq!(sandbox.files(), ["file", "k/gait_public.key"]);
    assert_story!(sandbox);
}
