//! The backend that decides in the kernel.

mod error;
mod host;
mod load;
mod pins;
mod selftest;
mod session;

pub use error::LoadError;
pub use load::{LoadOptions, Programs};
pub use pins::remove_pins;
pub use session::{NamedPath, SessionHandle, Tables, identity_of};

#[doc(hidden)]
pub use crate::sys::bpf_ring::BpfRing;
