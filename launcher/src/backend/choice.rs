//! Which backend a session gets, and why not a better one.

use std::sync::Arc;

use gait_agent::policy::{CompiledPolicy, LowerOptions, Lowered};

use super::BackendKind;
use super::ebpf::{self, Kernel, Refused};

/// What a session runs on.
#[derive(Debug)]
pub(crate) enum Choice {
    /// Calls are held; why no better backend was taken, where one was looked for.
    Seccomp(Option<Refused>),
    /// The kernel has the rules.
    Ebpf {
        /// The loaded programs.
        kernel: Arc<dyn Kernel>,
        /// The policy, as tables.
        rules: Box<Lowered>,
    },
}

impl Choice {
    /// Returns the name of the backend.
    pub(crate) const fn kind(&self) -> BackendKind {
        match self {
            Self::Seccomp(_) => BackendKind::Seccomp,
            Self::Ebpf { .. } => BackendKind::Ebpf,
        }
    }

    /// Returns why no better backend was taken.
    pub(crate) const fn instead(&self) -> Option<&Refused> {
        match self {
            Self::Seccomp(why) => why.as_ref(),
            Self::Ebpf { .. } => None,
        }
    }
}

/// Chooses the backend: the one that is asked for, or else the best that this host and the policy admit.
///
/// # Errors
/// The one that is asked for cannot be had.
pub(crate) fn choose(
    asked: Option<BackendKind>,
    policy: &CompiledPolicy,
    hidden: &[Vec<u8>],
    run_id: &str,
) -> Result<Choice, Refused> {
    match asked {
        Some(BackendKind::Seccomp) => Ok(Choice::Seccomp(None)),
        Some(BackendKind::Ebpf) => in_kernel(policy, hidden, run_id),
        Some(other) => Err(Refused {
            what: format!("the backend {other} is not part of this version of gait"),
            remedy: "use --backend auto".to_owned(),
        }),
        None => Ok(in_kernel(policy, hidden, run_id).unwrap_or_else(|why| Choice::Seccomp(Some(why)))),
    }
}

fn in_kernel(policy: &CompiledPolicy, hidden: &[Vec<u8>], run_id: &str) -> Result<Choice, Refused> {
    if policy.exec().limits.actions_per_second.is_some() {
        return Err(Refused {
            what: "the kernel does not count actions per second, which the policy limits".to_owned(),
            remedy: "remove exec.limits.actions_per_second, or use --backend seccomp".to_owned(),
        });
    }
    // What the host says comes first: it costs nothing. The daemon has looked for itself.
    if !ebpf::by_daemon() {
        ebpf::look_around()?;
    }
    let rules = policy.lower(hidden, LowerOptions::default()).map_err(|error| Refused {
        what: format!("the policy cannot be lowered into the kernel: {error}"),
        remedy: "use --backend seccomp, which has no such limits".to_owned(),
    })?;
    ebpf::look_up_names(&rules)?;
    let kernel = ebpf::connect(&rules, run_id)?;
    Ok(Choice::Ebpf { kernel, rules: Box::new(rules) })
}
