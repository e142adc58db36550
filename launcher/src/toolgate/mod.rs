//! What `gait gate eval` does around the pure gate: approval tokens, rate limits and credential brokers.
//!
//! Held calls of `gait exec` do not come here: they are approved on the terminal and counted by the session.

pub mod approval_token;
pub mod credential;
pub mod rate_limit;
