//! The parsers of this crate that read what the workload, the network or another process says, as the fuzzer and its
//! stand-in see them.
//!
//! Compiled for tests and under `--cfg fuzzing` only. The bodies run under libFuzzer (`agent/fuzz/fuzz_targets/`) and over
//! seeds and deterministic mutations of them in the tests below.

use std::path::Path;

use crate::daemon::protocol::{Reply, Request};
use crate::exec::event::Event;
use crate::net::message::fuzz;
use crate::net::resolv_conf;

/// A DNS message of the workload.
pub fn dns_query(data: &[u8]) {
    fuzz::query(data);
}

/// A DNS message of a name server.
pub fn dns_reply(data: &[u8]) {
    fuzz::reply(data);
}

/// The host's `resolv.conf`.
pub fn resolv_conf(data: &[u8]) {
    let servers = resolv_conf::name_servers(&String::from_utf8_lossy(data));
    assert!((1..=3).contains(&servers.len()));
}

/// A message of the supervisor: what is read is written the same.
pub fn event(data: &[u8]) {
    let Some(event) = Event::decode(data) else { return };
    let mut form = Vec::new();
    event.encode(&mut form);
    assert_eq!(Event::decode(&form), Some(event));
}

/// The first bytes of a script: an interpreter is a word of them.
pub fn shebang(data: &[u8]) {
    if let Some((interpreter, _)) = crate::backend::seccomp::shebang(data) {
        assert!(!interpreter.is_empty() && !interpreter.iter().any(|byte| b" \t\n\0".contains(byte)));
    }
}

/// An approval token.
pub fn approval_token(data: &[u8]) {
    let _token = crate::toolgate::approval_token::parse(data, Path::new("token.json"));
}

/// A request of a guard to the daemon: what is read is written the same.
pub fn agent_request(data: &[u8]) {
    if let Ok(request) = Request::decode(data) {
        assert_eq!(request.encode(), data);
    }
}

/// A reply of the daemon.
pub fn agent_reply(data: &[u8]) {
    if let Ok(reply) = Reply::decode(data) {
        assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
    }
}

#[cfg(test)]
#[path = "../../agent/fuzz/mutate.rs"]
mod mutate;

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::mutate::{Dice, mutate};
    use super::*;

    const MUTATIONS: u64 = 6000;

    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let place = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../agent/fuzz/seeds")).join(name);
        let mut paths: Vec<_> =
            std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths.into_iter().map(|path| std::fs::read(path).unwrap()).collect()
    }

    fn exercise(name: &str, body: fn(&[u8]), mutations: u64) {
        let wrapper = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../agent/fuzz/fuzz_targets"));
        let wrapper = std::fs::read_to_string(wrapper.join(format!("{name}.rs"))).unwrap();
        assert!(wrapper.contains(&format!("gait::untrusted::{name}(data)")));
        let seeds = seeds(name);
        seeds.iter().for_each(|seed| body(seed));
        let times = std::env::var("GAIT_MUTATIONS").map_or(1, |text| text.parse().unwrap());
        for at in 0..mutations * times {
            let mut dice = Dice::new(at);
            let (seed, other) = (dice.below(seeds.len()), dice.below(seeds.len()));
            let data = mutate(&seeds[seed], &seeds[other], &mut dice);
            let failed = std::panic::catch_unwind(|| body(&data)).is_err();
            assert!(!failed, "{name} fails on mutation {at}: {:?}", data.escape_ascii().to_string());
        }
    }

    #[test]
    fn dns_queries() {
        exercise("dns_query", dns_query, MUTATIONS);
    }

    #[test]
    fn dns_replies() {
        exercise("dns_reply", dns_reply, MUTATIONS);
    }

    #[test]
    fn name_servers() {
        exercise("resolv_conf", resolv_conf, MUTATIONS);
    }

    #[test]
    fn events() {
        exercise("event", event, MUTATIONS);
    }

    #[test]
    fn scripts() {
        exercise("shebang", shebang, MUTATIONS);
    }

    #[test]
    fn approval_tokens() {
        exercise("approval_token", approval_token, MUTATIONS / 3);
    }

    #[test]
    fn agent_requests() {
        exercise("agent_request", agent_request, MUTATIONS);
    }

    #[test]
    fn agent_replies() {
        exercise("agent_reply", agent_reply, MUTATIONS);
    }

    /// The seeds are what they are taken for, or the mutations would start from nothing.
    #[test]
    fn seeds_are_read() {
        assert!(seeds("event").iter().all(|seed| Event::decode(seed).is_some()));
        assert!(seeds("agent_request").iter().all(|seed| Request::decode(seed).is_ok()));
        assert!(seeds("agent_reply").iter().all(|seed| Reply::decode(seed).is_ok()));
        assert!(seeds("shebang").iter().any(|seed| crate::backend::seccomp::shebang(seed).is_some()));
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent/fuzz/seeds/approval_token");
        let paths = std::fs::read_dir(place).unwrap().map(|entry| entry.unwrap().path());
        assert!(paths.into_iter().all(|path| crate::toolgate::approval_token::read(&path).is_ok()));
    }
}
