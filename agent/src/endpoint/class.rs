//! Endpoint classes of the contract (`reference_contract.md` section 3.2).

use std::fmt;
use std::str::FromStr;

/// The class of endpoint that an action reaches.
///
/// `Ui*` are reserved by the taxonomy: tool-call intents may declare them, the kernel never produces them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum EndpointClass {
    /// Reading a file or listing a directory.
    FsRead,
    /// Creating or changing a file, a directory or metadata.
    FsWrite,
    /// Removing, replacing or emptying a file.
    FsDelete,
    /// Running a program.
    ProcExec,
    /// Every outgoing connection or datagram that is not DNS, and listening sockets.
    NetHttp,
    /// Resolving a name.
    NetDns,
    /// Reserved: a click in a user interface.
    UiClick,
    /// Reserved: typing in a user interface.
    UiType,
    /// Reserved: navigation in a user interface.
    UiNavigate,
    /// Anything else. Never allowed by silence.
    Other,
}

impl EndpointClass {
    /// Every class, in the order of the taxonomy.
    pub const ALL: [Self; 10] = [
        Self::FsRead,
        Self::FsWrite,
        Self::FsDelete,
        Self::ProcExec,
        Self::NetHttp,
        Self::NetDns,
        Self::UiClick,
        Self::UiType,
        Self::UiNavigate,
        Self::Other,
    ];

    /// The classes that `gait exec` can see: all but the reserved ones.
    pub const KERNEL: [Self; 7] = [
        Self::FsRead,
        Self::FsWrite,
        Self::FsDelete,
        Self::ProcExec,
        Self::NetHttp,
        Self::NetDns,
        Self::Other,
    ];

    /// Returns the contract's spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FsRead => "fs.read",
            Self::FsWrite => "fs.write",
            Self::FsDelete => "fs.delete",
            Self::ProcExec => "proc.exec",
            Self::NetHttp => "net.http",
            Self::NetDns => "net.dns",
            Self::UiClick => "ui.click",
            Self::UiType => "ui.type",
            Self::UiNavigate => "ui.navigate",
            Self::Other => "other",
        }
    }

    /// Returns the `risk_class` that `gait exec` gives to the class: low, medium or high.
    #[must_use]
    pub const fn risk_class(self) -> &'static str {
        match self {
            Self::FsRead | Self::NetDns => "low",
            Self::FsWrite | Self::ProcExec | Self::NetHttp => "medium",
            Self::FsDelete | Self::UiClick | Self::UiType | Self::UiNavigate | Self::Other => "high",
        }
    }
}

impl fmt::Display for EndpointClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not the name of an endpoint class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown endpoint class {0:?}")]
pub struct UnknownClass(pub String);

impl FromStr for EndpointClass {
    type Err = UnknownClass;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or_else(|| UnknownClass(text.to_owned()))
    }
}
