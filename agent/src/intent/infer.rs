//! What the contract infers about a target that does not say it: class, domain, destructiveness.
//!
//! Only requests need the class inferred; the kernel's operations carry theirs.

use super::Kind;
use crate::endpoint::EndpointClass;

/// Infers the endpoint class from kind, operation and, failing these, hints in the tool's name. All are lower-case.
pub(super) fn class(kind: Kind, operation: &str, tool_name: &str) -> EndpointClass {
    let hint = tool_name.rsplit('/').next().unwrap_or(tool_name);
    let hinted = |words: &[&str]| words.iter().any(|word| hint.contains(word));
    match kind {
        Kind::Path => match operation {
            "read" | "get" | "list" | "open" | "cat" | "head" | "download" | "stat" => EndpointClass::FsRead,
            "write" | "append" | "put" | "create" | "update" | "save" | "copy" | "move" | "rename" => {
                EndpointClass::FsWrite
            }
            "delete" | "remove" | "rm" | "unlink" | "rmdir" | "drop" | "truncate" => EndpointClass::FsDelete,
            _ if hinted(&["read", "list", "fetch", "search"]) => EndpointClass::FsRead,
            _ if hinted(&["write", "update", "save", "create"]) => EndpointClass::FsWrite,
            _ if hinted(&["delete", "remove", "rm", "drop"]) => EndpointClass::FsDelete,
            _ => EndpointClass::Other,
        },
        Kind::Host | Kind::Url => match operation {
            "dns" | "resolve" | "lookup" => EndpointClass::NetDns,
            _ => EndpointClass::NetHttp,
        },
        Kind::Other => match operation {
            "exec" | "spawn" | "run" | "shell" | "command" => EndpointClass::ProcExec,
            _ if hinted(&["exec", "shell", "command", "spawn", "run"]) => EndpointClass::ProcExec,
            _ => EndpointClass::Other,
        },
        Kind::Bucket | Kind::Queue | Kind::Repo | Kind::Table | Kind::Topic => EndpointClass::Other,
    }
}

/// Infers whether a target is destroyed.
pub(super) fn destructive(class: EndpointClass, operation: &str) -> bool {
    matches!(class, EndpointClass::FsDelete | EndpointClass::ProcExec)
        || matches!(
            operation,
            "delete" | "remove" | "rm" | "unlink" | "rmdir" | "drop" | "truncate" | "exec" | "spawn"
        )
}

/// Infers the domain of a host or URL; empty for every other kind and for what does not parse.
pub(super) fn domain(kind: Kind, value: &str) -> String {
    match kind {
        Kind::Host => host_domain(value),
        Kind::Url => url_host(value).unwrap_or_default(),
        _ => String::new(),
    }
}

/// Cuts scheme, path and port off. An address in brackets stays whole, which the reference cuts at its first colon.
fn host_domain(value: &str) -> String {
    let lower = lower(value);
    let rest = lower.strip_prefix("http://").or_else(|| lower.strip_prefix("https://")).unwrap_or(&lower);
    let rest = rest.split('/').next().unwrap_or(rest);
    if let Some((address, _)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address.to_owned();
    }
    rest.split(':').next().unwrap_or(rest).to_owned()
}

/// Returns the host name of a URL, without userinfo and port, or `None` where a strict parser sees none.
fn url_host(value: &str) -> Option<String> {
    if value.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
        return None;
    }
    let after = match value.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        _ => value,
    };
    let authority = after.strip_prefix("//")?;
    let authority = authority.split(['/', '?', '#']).next()?;
    let host = match authority.rsplit_once('@') {
        Some((userinfo, _)) if !userinfo.bytes().all(is_userinfo) => return None,
        Some((_, host)) => host,
        None => authority,
    };
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (address, port)
        }
        None => match host.rfind(':') {
            Some(colon) => host.split_at(colon),
            None => (host, ""),
        },
    };
    if !port.is_empty() && !port.strip_prefix(':')?.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(lower(&unescape_host(name)?))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

const fn is_userinfo(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.'
                | b'_'
                | b':'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b'%'
                | b'@'
        )
}

const fn is_host(byte: u8) -> bool {
    byte >= 0x80
        || byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'_'
                | b'.'
                | b'~'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
                | b':'
                | b'<'
                | b'>'
                | b'"'
        )
}

/// Undoes percent escapes, which a host may use only for bytes outside ASCII.
fn unescape_host(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(is_host(byte).then_some(byte)?);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let escaped = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
        bytes.push((escaped >= 0x80).then_some(escaped)?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// Lower-cases character by character, without the context rules that would make the digest depend on position.
pub(super) fn lower(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().map(|c| if c == '\u{130}' { 'i' } else { c.to_lowercase().next().unwrap_or(c) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains() {
        let cases = [
            (Kind::Host, "API.Example.com:8443/x", "api.example.com"),
            (Kind::Host, "https://a.b/c", "a.b"),
            (Kind::Host, "[2001:DB8::1]:443", "2001:db8::1"),
            (Kind::Host, "1.2.3.4:80", "1.2.3.4"),
            (Kind::Url, "HTTPS://U:p@API.Example.com:8443/x?q=1", "api.example.com"),
            (Kind::Url, "http://[::1]:80/", "::1"),
            (Kind::Url, "//h/p", "h"),
            (Kind::Url, "http://h?x@evil", "h"),
            (Kind::Url, "http://b%C3%BCcher.de/", "bücher.de"),
            (Kind::Url, "evil.test/p", ""),
            (Kind::Url, "mailto:a@b", ""),
            (Kind::Url, "http://good.com\\@evil.com/", ""),
            (Kind::Url, "http://h:80x/", ""),
            (Kind::Url, "http://a%2eb/", ""),
            (Kind::Url, "http://a\n.b/", ""),
            (Kind::Path, "http://h/", ""),
        ];
        for (kind, value, want) in cases {
            assert_eq!(domain(kind, value), want, "{value}");
        }
    }

    #[test]
    fn lower_is_position_independent() {
        assert_eq!(lower("ΑΣ"), "ας".replace('ς', "σ"));
        assert_eq!(lower("İX"), "ix");
    }
}
