//! Why a runpack does not hold: one stable code for every way of tampering with it.

use std::fmt;

macro_rules! reasons {
    ($( $name:ident = $code:literal, $text:literal; )*) => {
        /// Why a runpack does not hold.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Reason { $( #[doc = $text] $name, )* }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[ $( Self::$name, )* ];

            /// Returns the stable code.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $( Self::$name => $code, )* }
            }

            /// Returns what the code means, one sentence.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $( Self::$name => $text, )* }
            }
        }
    };
}

reasons! {
    TruncatedArchive = "truncated_archive", "The archive ends early: its directory is not at its end.";
    MalformedArchive = "malformed_archive", "The structure of the archive is not one that every reader sees alike.";
    TooManyEntries = "too_many_entries", "The archive has more entries than a runpack may have.";
    UnsafeEntryName = "unsafe_entry_name", "The name of an entry could lead outside the directory it is unpacked to.";
    DuplicateEntry = "duplicate_entry", "Two entries have one name.";
    EntriesOutOfOrder = "entries_out_of_order", "The entries are not sorted by name.";
    EntryTooLarge = "entry_too_large", "An entry, or all together, exceed the limits of size.";
    CompressionRatio = "compression_ratio", "An entry unpacks to suspiciously much.";
    EntryCorrupt = "entry_corrupt", "An entry cannot be unpacked or has not the size it claims.";
    MissingFile = "missing_file", "A file that the manifest declares, or that every runpack has, is not there.";
    UndeclaredEntry = "undeclared_entry", "An entry is not declared in the manifest.";
    HashMismatch = "hash_mismatch", "The contents of a file are not those that the manifest declares.";
    ManifestInvalid = "manifest_invalid", "The manifest is not a canonical manifest of this generation.";
    ManifestDigestMismatch = "manifest_digest_mismatch", "The manifest's digest of itself is wrong.";
    DocumentInvalid = "document_invalid", "A document is not strict JSON, or not one of this generation.";
    SignatureMissing = "signature_missing", "A signature is required and there is none.";
    SignatureInvalid = "signature_invalid", "A signature of the manifest does not hold.";
    KeyMismatch = "key_mismatch", "The evidence is signed by another key than the trusted one, or by several.";
    RunMismatch = "run_mismatch", "Parts of the evidence belong to different runs.";
    PolicyMismatch = "policy_mismatch", "Parts of the evidence name different policies.";
    TraceInvalid = "trace_invalid", "A line of the traces is not a canonical trace record.";
    TraceIdMismatch = "trace_id_mismatch", "The id of a trace record does not belong to its policy, intent and verdict.";
    TraceSignatureInvalid = "trace_signature_invalid", "The signature of a trace record does not hold.";
    TraceUnknown = "trace_unknown", "The journal names a decision that the traces do not have.";
    TraceUnrecorded = "trace_unrecorded", "The traces have a decision that the journal never tells of.";
    DerivedMismatch = "derived_mismatch", "Intents or results are not those that follow from the traces.";
    JournalInvalid = "journal_invalid", "A line of the journal is malformed.";
    ChainBroken = "chain_broken", "A line of the journal does not hold the digest of the line before it.";
    SequenceGap = "sequence_gap", "The lines of the journal are not numbered without gaps.";
    JournalHeadMismatch = "journal_head_mismatch", "The sealed head of the journal is not that of its last line.";
    SessionNotStarted = "session_not_started", "The journal does not begin with the start of a session.";
    SessionUnfinished = "session_unfinished", "The journal does not end with the end of the session.";
    AfterSessionEnd = "after_session_end", "The journal goes on after the end of the session.";
    TotalsMismatch = "totals_mismatch", "The totals at the end of the session are not those of its events.";
    UnaccountedLoss = "unaccounted_loss", "Lost events are not accounted for at the end of the session.";
    CoverageMismatch = "coverage_mismatch", "The coverage is not the one that the session began with.";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// One thing that is wrong with a runpack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub reason: Reason,
    /// Where, such as a file or a line.
    pub place: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.place)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_snake_case() {
        let codes: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(codes.iter().all(|code| code.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())));
        assert!(Reason::ALL.iter().all(|reason| reason.meaning().ends_with('.')));
    }
}
