//! What the fuzz targets of this module do with their bytes.

use super::{Query, is_failure, is_truncated};

/// A message of the workload: what is forwarded is what was read, and what is not gets a reply that is one.
pub(crate) fn query(data: &[u8]) {
    match Query::read(data) {
        Ok(query) => {
            let sent = query.with_id(7);
            assert_eq!(sent.get(2..), data.get(2..));
            assert!(!query.name().is_empty() && query.name().len() < super::NAME_MAX * 4);
            assert_eq!(Query::read(&sent).as_ref().map(Query::name), Ok(query.name()));
        }
        Err(super::Unfit::Silent) => {}
        Err(super::Unfit::Reply(reply)) => {
            assert_eq!(reply.get(..2), data.get(..2));
            assert_eq!(Query::read(&reply), Err(super::Unfit::Silent), "a reply is never answered");
        }
    }
}

/// A message of a name server, as the reply to each of some queries.
pub(crate) fn reply(data: &[u8]) {
    for kind in [1_u8, 28, 255] {
        let mut asked = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03com\0\0".to_vec();
        asked.extend([kind, 0, 1]);
        let Ok(query) = Query::read(&asked) else { panic!("a query that is plain") };
        let _flags = (is_truncated(data), is_failure(data), query.is_answered_by(data, 0x1234));
        let addresses = query.addresses(data);
        // An address takes at least its four bytes and its record's head, once per alias on the way.
        assert!(addresses.len() <= data.len() * super::ALIASES_MAX);
        let limit = usize::from(super::PAYLOAD_MIN);
        assert!(query.datagram_reply(data).len() <= limit.max(super::HEADER + asked.len()));
        assert_eq!(query.stream_reply(data).len(), data.len());
    }
}
