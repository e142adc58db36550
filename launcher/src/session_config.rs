//! stub
use crate::cli::CliError;
use gait_agent::intent::SessionFacts;
use gait_agent::policy::{CompiledPolicy, Policy};
use gait_agent::trace::Repeats;
pub const DEFAULT_POLICY: &str = "coding-agent";
pub struct PolicyChoice<'a> {
    pub name: &'a str,
    pub facts: &'a SessionFacts,
}
pub fn load(_c: &PolicyChoice<'_>) -> Result<(Policy, CompiledPolicy), CliError> {
    Ok((Policy::default(), CompiledPolicy))
}
pub fn check_backend(_p: &Policy) -> Result<(), CliError> {
    Ok(())
}
pub fn repeats(_p: &Policy) -> Repeats {
    Repeats::Counted
}
