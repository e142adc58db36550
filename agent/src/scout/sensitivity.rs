//! How much harm an action of a session can do: by its class, and by where its target lies.
//!
//! Facts of the kernel alone, so that the weight of an action does not depend on how a policy names its rules.

use std::net::{IpAddr, SocketAddr};

use crate::endpoint::EndpointClass;
use crate::trace::TraceTarget;

/// Names of files and directories that hold credentials, wherever they lie.
const CREDENTIALS: &[&str] = &[
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".kube",
    ".docker",
    ".netrc",
    ".git-credentials",
    ".pypirc",
    ".npmrc",
    ".pgpass",
    ".vault-token",
    "gcloud",
    "keyrings",
    "shadow",
    "gshadow",
    "sudoers",
    "sudoers.d",
];

/// Programs that give rights the workload does not have, or leave its session.
const RAISES_RIGHTS: &[&str] = &[
    "su",
    "sudo",
    "doas",
    "pkexec",
    "runuser",
    "newgrp",
    "sg",
    "machinectl",
    "systemd-run",
    "at",
    "crontab",
];

/// Directories of the system: changing them changes it.
const SYSTEM: &[&str] = &[
    "/etc", "/boot", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/proc", "/sys", "/dev", "/var/lib",
];

/// What is made anew or thrown away.
const PASSING: &[&str] = &["/tmp", "/var/tmp", "/dev/shm", "/dev/null", "/dev/tty", "/dev/pts"];

/// Returns the weight of a class: what the contract calls privilege, 1 to 4.
pub(super) const fn privilege(class: EndpointClass) -> u32 {
    match class {
        EndpointClass::FsRead | EndpointClass::NetDns => 1,
        EndpointClass::ProcExec
        | EndpointClass::NetHttp
        | EndpointClass::UiClick
        | EndpointClass::UiType
        | EndpointClass::UiNavigate => 2,
        EndpointClass::FsWrite => 3,
        EndpointClass::FsDelete | EndpointClass::Other => 4,
    }
}

/// Returns the weight of a target, 1 to 3.
pub(super) fn sensitivity(target: &TraceTarget) -> u32 {
    let value = target.value.as_str();
    match target.endpoint_class {
        EndpointClass::FsRead if holds_credentials(value) => 3,
        EndpointClass::FsRead if is_below(value, &["/home", "/root"]) => 2,
        EndpointClass::FsRead => 1,
        EndpointClass::FsWrite | EndpointClass::FsDelete => changed(value),
        EndpointClass::ProcExec => program(value),
        EndpointClass::NetHttp | EndpointClass::NetDns => peer(value),
        EndpointClass::Other => 3,
        EndpointClass::UiClick | EndpointClass::UiType | EndpointClass::UiNavigate => 1,
    }
}

fn changed(path: &str) -> u32 {
    if is_below(path, PASSING) {
        1
    } else if path == "/" || holds_credentials(path) || is_below(path, SYSTEM) {
        3
    } else {
        2
    }
}

fn program(path: &str) -> u32 {
    let name = path.rsplit('/').next().unwrap_or_default();
    match name {
        name if RAISES_RIGHTS.contains(&name) => 3,
        _ if is_below(path, PASSING) => 2,
        _ => 1,
    }
}

/// Link-local addresses are where the metadata services of clouds hand out credentials (RFC 3927, RFC 4291).
fn peer(value: &str) -> u32 {
    let host = value.rsplit_once(':').map_or(value, |(host, _)| host);
    if host == "localhost" {
        return 1;
    }
    if host.starts_with("metadata.") || host == "metadata" {
        return 3;
    }
    match value.parse::<SocketAddr>().map(|peer| peer.ip().to_canonical()) {
        Ok(address) if address.is_loopback() => 1,
        Ok(IpAddr::V4(address)) if address.is_link_local() => 3,
        Ok(IpAddr::V6(address)) if address.is_unicast_link_local() => 3,
        _ => 2,
    }
}

fn holds_credentials(path: &str) -> bool {
    path.split('/').any(|name| CREDENTIALS.contains(&name))
}

fn is_below(path: &str, directories: &[&str]) -> bool {
    directories.iter().any(|directory| {
        path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_weigh_what_the_page_says() {
        for (class, value, weight) in [
            (EndpointClass::FsRead, "/home/a/.ssh/id_ed25519", 3),
            (EndpointClass::FsRead, "/etc/shadow", 3),
            (EndpointClass::FsRead, "/etc/hosts", 1),
            (EndpointClass::FsRead, "/home/a/notes", 2),
            (EndpointClass::FsWrite, "/tmp/x", 1),
            (EndpointClass::FsWrite, "/tmpx", 2),
            (EndpointClass::FsDelete, "/etc", 3),
            (EndpointClass::FsDelete, "/", 3),
            (EndpointClass::FsDelete, "/home/a/work/x", 2),
            (EndpointClass::FsWrite, "/home/a/.aws/credentials", 3),
            (EndpointClass::ProcExec, "/usr/bin/sudo", 3),
            (EndpointClass::ProcExec, "/tmp/dropped", 2),
            (EndpointClass::ProcExec, "/usr/bin/git", 1),
            (EndpointClass::NetHttp, "169.254.169.254:80", 3),
            (EndpointClass::NetHttp, "[fe80::1]:80", 3),
            (EndpointClass::NetHttp, "[::ffff:127.0.0.1]:80", 1),
            (EndpointClass::NetHttp, "localhost:80", 1),
            (EndpointClass::NetHttp, "example.com:443", 2),
            (EndpointClass::NetDns, "metadata.google.internal", 3),
            (EndpointClass::Other, "ptrace", 3),
        ] {
            let target = TraceTarget {
                kind: String::new(),
                value: value.into(),
                operation: String::new(),
                endpoint_class: class,
            };
            assert_eq!(sensitivity(&target), weight, "{class} {value}");
        }
    }
}
