//! Names: the built-in resolver judges each query, and a connect is judged by the name that was asked for.
//!
//! Needs root for a network namespace of its own, `ip` and Python; nothing leaves that namespace.

use std::process::Command;

use crate::harness::{World, skipped};

/// Runs `words` under gait in a network namespace where every name is a public test address with a web server.
const STAGE: &str = r#"
ip link set lo up && ip addr add 203.0.113.9/32 dev lo || exit 77
echo 'nameserver 127.0.0.9' >"$ROOT/resolv.conf" && mount --bind "$ROOT/resolv.conf" /etc/resolv.conf || exit 77
cd "$ROOT"; python3 "$SERVERS" >"$ROOT/ready" & servers=$!
for _ in $(seq 100); do grep -q ready "$ROOT/ready" && break; sleep 0.05; done
cd "$ROOT/ws"; "$@"; status=$?
kill $servers; exit $status
"#;

const POLICY: &str = "
extends: [coding-agent]
rules:
  - name: good-names
    priority: 30
    effect: allow
    match: {endpoint_classes: [net.http], domains: ['*.good.test'], ports: ['8443']}
  - name: no-evil
    priority: 30
    effect: block
    match: {endpoint_classes: [net.dns], domains: ['*.evil.test']}
  - name: nothing-else
    priority: 31
    effect: block
    match: {endpoint_classes: [net.http]}
";

const FETCH: &str = "
import sys, urllib.request
try: print(urllib.request.urlopen(sys.argv[1], timeout=10).status)
except Exception as error: print('refused', error)
";

fn can_stage() -> bool {
    let able = nix::unistd::geteuid().is_root()
        && Command::new("unshare")
            .args(["-mn", "ip", "link", "set", "lo", "up"])
            .status()
            .is_ok_and(|s| s.success());
    if !able {
        skipped("names", "a network namespace needs root, unshare and ip");
    }
    able
}

fn fetch(world: &mut World, url: &str) -> String {
    world.set_policy(POLICY, 0);
    let root = world.root().display().to_string();
    world.env("ROOT", &root);
    world.env("SERVERS", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/exec/dns/names.py"));
    world.wrapper(["unshare", "-mn", "sh", "-c", STAGE, "sh"]);
    world.gait(&["python3", "-c", FETCH, url]).stdout
}

#[test]
fn a_connect_is_judged_by_the_name_that_was_asked_for() {
    if !can_stage() {
        return;
    }
    assert_eq!(fetch(&mut World::new(), "http://www.good.test:8443/"), "204\n");
    let by_address = fetch(&mut World::new(), "http://203.0.113.9:8443/");
    assert!(by_address.contains("Permission denied"), "{by_address}");
    let other = fetch(&mut World::new(), "http://www.other.test:8443/");
    assert!(other.contains("Permission denied"), "{other}");
}

#[test]
fn a_blocked_name_never_leaves_the_machine() {
    if !can_stage() {
        return;
    }
    let mut world = World::new();
    let answer = fetch(&mut world, "http://secret-data.evil.test:8443/");
    assert!(answer.contains("refused"), "{answer}");
    let asked = std::fs::read_to_string(world.root().join("queries")).unwrap_or_default();
    assert_eq!(asked, "", "the name server saw a query");
}
