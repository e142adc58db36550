//! Actions: what the kernel saw. Facts, no judgement.

use std::net::IpAddr;

use crate::endpoint::{EndpointClass, Operation};

/// One thing that the workload is about to do, borrowed from the backend that caught it.
///
/// The hot path builds it on the stack; nothing here allocates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Action<'a> {
    /// What is done.
    pub operation: Operation,
    /// What it is done to.
    pub object: Object<'a>,
    /// The resolved path of the acting process's image; empty where it is not known.
    pub image: &'a [u8],
    /// The arguments of the new program, each ended by NUL as in `/proc/PID/cmdline`; only for `Operation::Exec`.
    pub argv: Option<&'a [u8]>,
}

impl Action<'_> {
    /// Returns the endpoint class.
    #[must_use]
    pub const fn class(&self) -> EndpointClass {
        self.operation.class()
    }
}

/// The object of an action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Object<'a> {
    /// An absolute, resolved path. Bytes, because the kernel's paths are.
    Path(&'a [u8]),
    /// An internet peer.
    Host(Host<'a>),
    /// Free text, such as `unix:@name`, a family or the name of a call.
    Other(&'a str),
}

/// An internet peer: the address, and the name the resolver answered it for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Host<'a> {
    /// The lower-case name, if the built-in resolver gave the address out for one (or the queried name itself).
    pub name: Option<&'a str>,
    /// The address; `None` only for a query, which has a name and no address.
    pub address: Option<IpAddr>,
    /// The port; 0 for a query.
    pub port: u16,
}
