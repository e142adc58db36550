//! The network as the supervisor sees it: names, and the addresses they were answered with.
//!
//! [`resolver`] answers the workload's DNS. The other modules are its parts: [`message`] reads and makes messages,
//! [`upstream`] asks the real name servers, [`addresses`] remembers what they answered.

mod addresses;
pub(crate) mod message;
pub(crate) mod resolv_conf;
pub(crate) mod resolver;
mod upstream;
