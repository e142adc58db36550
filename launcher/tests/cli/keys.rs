//! `gait keys init`, `rotate` and `verify`.

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

#[test]
fn rotate_adds_a_pair_and_keeps_the_one_before() {
    let mut sandbox = Sandbox::new();
    sandbox.gait("keys init --out-dir k");
    let first = sandbox.read("k/gait_private.key");
    let report = sandbox.gait("keys rotate --out-dir k --json").json();
    let prefix = report["prefix"].as_str().unwrap();
    let time = prefix.strip_prefix("gait_").unwrap();
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert_eq!(shape, "00000000T000000Z", "{prefix}");
    let private =
        SigningKey::from_file_text(&sandbox.read(report["private_key_path"].as_str().unwrap())).unwrap();
    assert_eq!(report["key_id"], private.key_id().to_string());
    assert_eq!(sandbox.read("k/gait_private.key"), first);
    assert_eq!(sandbox.files().len(), 4);
    assert_eq!(sandbox.gait("keys rotate --out-dir k --prefix a/b").exit, 6);
    assert_eq!(sandbox.gait("keys rotate --force").exit, 6);
}

#[test]
fn verify_tells_keys_from_other_texts_and_halves_that_do_not_fit() {
    let mut sandbox = Sandbox::new();
    let (one, two) = (SigningKey::from_seed([1; 32]), SigningKey::from_seed([2; 32]));
    sandbox.write("one.key", &one.to_file_text()).write("one.pub", &one.verify_key().to_file_text());
    sandbox.write("two.pub", &two.verify_key().to_file_text()).write("bad.key", "!!");
    sandbox.env("ONE_PUB", one.verify_key().to_file_text().trim());
    sandbox.env("ONE_KEY", one.to_file_text().trim());
    let private = sandbox.path("one.key");
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600)).unwrap();
    for (line, exit) in [
        ("keys verify --private-key one.key", 0),
        ("keys verify --private-key one.key --public-key one.pub --json", 0),
        ("keys verify --private-key-env ONE_KEY --public-key-env ONE_PUB", 0),
        ("keys verify --private-key one.key --public-key two.pub", 2),
        ("keys verify --private-key one.key --public-key two.pub --json", 2),
        ("keys verify", 6),
        ("keys verify --public-key one.pub", 6),
        ("keys verify --private-key bad.key", 6),
        ("keys verify --private-key one.pub", 6),
        ("keys verify --private-key one.key --public-key one.key", 6),
        ("keys verify --private-key one.key --private-key-env ONE_KEY", 6),
        ("keys verify --private-key one.key --public-key one.pub --public-key-env ONE_PUB", 6),
        ("keys verify --private-key-env NOT_SET", 6),
    ] {
        assert_eq!(sandbox.gait(line).exit, exit, "{line}");
    }
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(sandbox.gait("keys verify --private-key one.key").exit, 0);
    assert!(!sandbox.story().contains(one.to_file_text().trim()), "a private key is never printed");
    insta::assert_snapshot!(sandbox.story());
}
