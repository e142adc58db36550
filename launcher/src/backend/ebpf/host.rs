//! What the kernel must have, asked in this order before anything is loaded.

use std::fs;

use super::error::LoadError;

/// The oldest kernel that the programs are made for.
const OLDEST: (u32, u32) = (6, 1);
/// Numbers of capabilities, as in linux/capability.h.
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

/// Looks at the running kernel and at this process.
pub(super) fn check() -> Result<(), LoadError> {
    let lsm = fs::read_to_string("/sys/kernel/security/lsm")
        .map_err(|source| LoadError::NoSecurityFs { source })?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    has_bpf(&lsm)?;
    if let Err(error) = fs::File::open("/sys/kernel/btf/vmlinux") {
        return Err(LoadError::NoBtf { reason: error.to_string() });
    }
    is_new_enough(release.trim())?;
    if lockdown.contains("[confidentiality]") {
        return Err(LoadError::Lockdown);
    }
    is_privileged(&status)
}

fn has_bpf(lsm: &str) -> Result<(), LoadError> {
    if lsm.trim().split(',').any(|name| name == "bpf") {
        return Ok(());
    }
    Err(LoadError::NoBpfLsm { lsm: lsm.trim().to_owned() })
}

fn is_new_enough(release: &str) -> Result<(), LoadError> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= OLDEST => Ok(()),
        _ => Err(LoadError::TooOld { release: release.to_owned() }),
    }
}

fn is_privileged(status: &str) -> Result<(), LoadError> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let has = |capability: u32| effective >> capability & 1 == 1;
    if has(CAP_SYS_ADMIN) && has(CAP_BPF) && has(CAP_PERFMON) { Ok(()) } else { Err(LoadError::NoPrivilege) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bpf_is_looked_for_as_a_whole_word() {
        assert!(has_bpf("lockdown,capability,bpf\n").is_ok());
        assert!(
            matches!(has_bpf("capability,bpfx"), Err(LoadError::NoBpfLsm { lsm }) if lsm == "capability,bpfx")
        );
    }

    #[test]
    fn kernels_before_6_1_are_too_old() {
        for release in ["6.1.0-56-cloud-amd64", "6.12.117+deb12", "10.0"] {
            assert!(is_new_enough(release).is_ok(), "{release}");
        }
        for release in ["6.0.9", "5.15.0-91", "", "six"] {
            assert!(matches!(is_new_enough(release), Err(LoadError::TooOld { .. })), "{release}");
        }
    }

    #[test]
    fn each_capability_is_needed() {
        let status = |mask: u64| format!("Name:\tx\nCapEff:\t{mask:016x}\n");
        let all = 1 << CAP_SYS_ADMIN | 1 << CAP_PERFMON | 1 << CAP_BPF;
        assert!(is_privileged(&status(all)).is_ok());
        for capability in [CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF] {
            assert!(is_privileged(&status(all & !(1 << capability))).is_err());
        }
        assert!(is_privileged("").is_err());
    }
}
