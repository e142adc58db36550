//! The pure core of gait.
//!
//! Knows no kernel, no terminal and no clock: contract documents, the endpoint taxonomy, the policy language, the
//! gate, trace records, the journal and runpacks. Everything that touches Linux is in the `gait` crate (`launcher/`).
//!
//! One action on its way through this crate: [`action::Action`] (a fact) → [`endpoint::EndpointClass`] →
//! [`intent::Intent`] (the contract's form) → [`gate::Decision`] → [`trace::TraceRecord`] → [`runpack`].

#![forbid(unsafe_code)]

pub mod action;
pub mod document;
pub mod endpoint;
pub mod gate;
pub mod intent;
pub mod pack;
pub mod policy;
pub mod regress;
pub mod runpack;
pub mod schema;
pub mod scout;
pub mod sign;
pub mod timestamp;
pub mod trace;
