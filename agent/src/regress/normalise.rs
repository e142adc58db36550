//! What of a target stays the same when a command runs again: random names, process ids, ports that the kernel picks
//! and the places of one machine are replaced by what they stand for.
//!
//! `docs/regress.md` has the table of the rules; tests hold them. They are deliberately narrow: a name that is taken
//! for random hides every other name of that shape, so outside of directories for temporary files a name must look
//! random beyond doubt.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

/// The first port that Linux hands out by itself (`net.ipv4.ip_local_port_range`).
const FIRST_EPHEMERAL_PORT: u16 = 32768;
/// The number of characters that make a run of hexadecimal digits a digest rather than a word.
const DIGEST_DIGITS: usize = 16;
/// The number of random characters in a name made by mkstemp(3).
const MKSTEMP: usize = 6;
/// Whether a path lies in one of these, its names are expected to be made up.
const TEMPORARY: [&str; 5] = ["${tmp}", "${run_dir}", "/tmp", "/var/tmp", "/dev/shm"];

/// The places of the machine that a run took place on, in the text form of [`crate::intent::path_text`]; empty if
/// unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Places<'a> {
    /// `${workspace}`.
    pub workspace: &'a str,
    /// `${home}`.
    pub home: &'a str,
    /// `${tmp}`.
    pub tmp: &'a str,
    /// `${run_dir}`.
    pub run_dir: &'a str,
}

/// Returns the target without what differs between two runs of one command.
///
/// `kind` is the contract's: `path`, `host` and everything else. Applying it twice changes nothing more.
#[must_use]
pub fn normalise(places: &Places<'_>, kind: &str, value: &str) -> String {
    match kind {
        "path" => path(places, value),
        "host" => host(value),
        _ => pieces(value, Manner::Temporary),
    }
}

/// How readily a name is taken for random.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Only beyond doubt.
    Lasting,
    /// Names here are made up by programs.
    Temporary,
}

fn path(places: &Places<'_>, value: &str) -> String {
    let placed = place(places, value);
    if let Some(rest) = placed.strip_prefix("/proc/") {
        return format!("/proc/{}", process(rest));
    }
    let temporary = TEMPORARY.iter().any(|directory| below(directory, &placed).is_some());
    let mut out = String::with_capacity(placed.len() + 16);
    let mut before = "";
    let mut components = placed.split('/').peekable();
    let mut first = true;
    while let Some(component) = components.next() {
        if !first {
            out.push('/');
        }
        first = false;
        let next = components.peek().copied().unwrap_or_default();
        if is_variable(component) {
            out.push_str(component);
        } else if before == "objects" && is_hex(component, 2..=2) && is_hex(next, 38..=62) {
            // git(1) names objects by their digest, of which two digits are the directory.
            out.push_str("${hex}");
            components.next();
        } else {
            out.push_str(&name(component, if temporary { Manner::Temporary } else { Manner::Lasting }));
        }
        before = component;
    }
    out
}

/// Puts the variable of the innermost place at the beginning of a path.
fn place<'a>(places: &Places<'_>, value: &'a str) -> Cow<'a, str> {
    let all = [
        ("${workspace}", places.workspace),
        ("${home}", places.home),
        ("${tmp}", places.tmp),
        ("${run_dir}", places.run_dir),
    ];
    let mut best: Option<(&str, &str, &str)> = None;
    for (variable, directory) in all {
        let directory = directory.trim_end_matches('/');
        if let Some(rest) = below(directory, value)
            && best.is_none_or(|(_, known, _)| directory.len() > known.len())
        {
            best = Some((variable, directory, rest));
        }
    }
    best.map_or(Cow::Borrowed(value), |(variable, _, rest)| Cow::Owned(format!("{variable}{rest}")))
}

/// Returns what follows a directory in a path that is it or lies below it.
fn below<'a>(directory: &str, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(directory).filter(|_| !directory.is_empty())?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

/// Normalises what follows `/proc/`.
fn process(rest: &str) -> String {
    let mut before = "";
    let mut parts = Vec::new();
    for component in rest.split('/') {
        let number = !component.is_empty() && component.bytes().all(|byte| byte.is_ascii_digit());
        parts.push(match before {
            "" if number => "${pid}",
            "task" if number => "${tid}",
            "fd" | "fdinfo" | "map_files" if number => "${fd}",
            _ => component,
        });
        before = component;
    }
    parts.join("/")
}

/// Normalises one component of a path.
fn name(component: &str, manner: Manner) -> Cow<'_, str> {
    if let Some(made_up) = made_up(component, manner) {
        return Cow::Owned(made_up);
    }
    let stem = component.trim_start_matches('.');
    let says_temporary = ["tmp", "temp"].into_iter().any(|word| {
        let mut words = component.split(['.', '-', '_']);
        words.next_back() == Some(word) || stem.split(['.', '-', '_']).next() == Some(word)
    });
    let manner = if says_temporary { Manner::Temporary } else { manner };
    Cow::Owned(pieces(component, manner))
}

/// Normalises a name that is `tmp` and random characters, as tempfile(3) and the like make them.
fn made_up(component: &str, manner: Manner) -> Option<String> {
    let dots = component.len() - component.trim_start_matches('.').len();
    let stem = component.get(dots..)?;
    let prefix = ["tmp", "temp"].into_iter().find(|prefix| {
        let rest = stem.strip_prefix(prefix).unwrap_or_default();
        let random = rest.get(..word_length(rest)).unwrap_or_default();
        random.len() >= MKSTEMP
            && (manner == Manner::Temporary
                || random.bytes().any(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase()))
    })?;
    let rest = stem.strip_prefix(prefix)?;
    let after = rest.get(word_length(rest)..)?;
    Some(format!("{}{prefix}${{random}}{}", component.get(..dots)?, pieces(after, manner)))
}

fn word_length(text: &str) -> usize {
    text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()
}

/// Normalises the runs of letters and digits of a name.
fn pieces(text: &str, manner: Manner) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before = "";
    while !rest.is_empty() {
        if let Some(tail) = variable(rest) {
            out.push_str(rest.strip_suffix(tail).unwrap_or_default());
            rest = tail;
            continue;
        }
        if let Some(tail) = uuid(rest).filter(|_| !before.ends_with(|c: char| c.is_ascii_alphanumeric())) {
            out.push_str("${uuid}");
            rest = tail;
            before = "";
            continue;
        }
        let length = rest.bytes().take_while(u8::is_ascii_alphanumeric).count();
        if length == 0 {
            let next = rest.chars().next().map_or(1, char::len_utf8);
            let (separator, tail) = rest.split_at(next);
            out.push_str(separator);
            (before, rest) = (separator, tail);
            continue;
        }
        let (piece, tail) = rest.split_at(length);
        // Run ids of gait and of others: a time, then something that tells runs of one second apart.
        let of_run = out.ends_with("${time}_") && is_hex(piece, 4..=16);
        let stands_for = if of_run { Some("${hex}") } else { variable_of(piece, before, tail, manner) };
        out.push_str(stands_for.unwrap_or(piece));
        (before, rest) = (piece, tail);
    }
    out
}

/// Returns what a run of letters and digits stands for, if it is not a word.
fn variable_of(piece: &str, before: &str, after: &str, manner: Manner) -> Option<&'static str> {
    let count = |wanted: fn(&u8) -> bool| piece.bytes().filter(wanted).count();
    let digits = count(u8::is_ascii_digit);
    let (upper, lower) = (count(u8::is_ascii_uppercase), count(u8::is_ascii_lowercase));
    let length = piece.len();
    let hex = piece.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_time(piece) {
        return Some("${time}");
    }
    if digits == length {
        let least = if manner == Manner::Temporary { 3 } else { 8 };
        return (length >= least).then_some("${number}");
    }
    if hex && length >= DIGEST_DIGITS && digits > 0 {
        return Some("${hex}");
    }
    let capital_inside = piece.bytes().skip(1).any(|byte| byte.is_ascii_uppercase());
    let random = match manner {
        Manner::Temporary => length >= MKSTEMP && (digits > 0 || capital_inside),
        Manner::Lasting => {
            let mixed = digits > 0 && upper > 0 && lower > 0;
            let (ends, follows) = (after.is_empty(), before == "." || before == "-" || before == "_");
            mixed && ends && follows && matches!(length, MKSTEMP | 10)
        }
    };
    random.then_some("${random}")
}

/// Whether it is a time in compact ISO 8601, such as `20261125T172932Z`.
fn is_time(piece: &str) -> bool {
    let form = |shape: &str| {
        piece.len() == shape.len()
            && piece.bytes().zip(shape.bytes()).all(|(byte, shape)| match shape {
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            })
    };
    form("00000000T000000Z") || form("00000000T000000")
}

fn is_hex(text: &str, lengths: std::ops::RangeInclusive<usize>) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Whether a component is one of the variables that stand for a place.
fn is_variable(component: &str) -> bool {
    variable(component) == Some("")
}

/// Splits a variable off the front.
fn variable(text: &str) -> Option<&str> {
    let names = [
        "workspace",
        "home",
        "tmp",
        "run_dir",
        "pid",
        "tid",
        "fd",
        "port",
        "uuid",
        "time",
        "number",
        "hex",
        "random",
    ];
    let rest = text.strip_prefix("${")?;
    names.into_iter().find_map(|name| rest.strip_prefix(name)?.strip_prefix('}'))
}

/// Splits a UUID off the front.
fn uuid(text: &str) -> Option<&str> {
    let (head, tail) = text.split_at_checked(36)?;
    let shape = head.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    });
    (shape && !tail.starts_with(|c: char| c.is_ascii_alphanumeric())).then_some(tail)
}

/// Normalises a peer: a port that the kernel picked on this machine says nothing.
fn host(value: &str) -> String {
    let local = |address: IpAddr| {
        let address = address.to_canonical();
        address.is_loopback() || address.is_unspecified()
    };
    match value.parse::<SocketAddr>() {
        Ok(peer) if local(peer.ip()) && is_ephemeral(peer.port()) => match peer.ip() {
            IpAddr::V4(address) => format!("{address}:${{port}}"),
            IpAddr::V6(address) => format!("[{address}]:${{port}}"),
        },
        Ok(_) => value.to_owned(),
        Err(_not_an_address) => match value.rsplit_once(':') {
            Some(("localhost", port)) if port.parse().is_ok_and(is_ephemeral) => {
                "localhost:${port}".to_owned()
            }
            _ => value.to_owned(),
        },
    }
}

const fn is_ephemeral(port: u16) -> bool {
    port == 0 || port >= FIRST_EPHEMERAL_PORT
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACES: Places<'_> =
        Places { workspace: "/home/me/work", home: "/home/me", tmp: "/tmp", run_dir: "/run/user/1000" };

    fn paths(cases: &[(&str, &str)]) {
        for (value, want) in cases {
            assert_eq!(normalise(&PLACES, "path", value), *want, "{value}");
        }
    }

    #[test]
    fn places_are_named_and_the_innermost_wins() {
        paths(&[
            ("/home/me/work", "${workspace}"),
            ("/home/me/work/a.txt", "${workspace}/a.txt"),
            ("/home/me/worker/a.txt", "${home}/worker/a.txt"),
            ("/home/me/.ssh/id_ed25519", "${home}/.ssh/id_ed25519"),
            ("/home/other/x", "/home/other/x"),
            ("/run/user/1000/bus", "${run_dir}/bus"),
            ("/etc/passwd", "/etc/passwd"),
        ]);
        let inside = Places { workspace: "/tmp/w", ..PLACES };
        assert_eq!(normalise(&inside, "path", "/tmp/w/tmpfile1"), "${workspace}/tmpfile1");
        assert_eq!(normalise(&Places::default(), "path", "/home/me/a"), "/home/me/a");
        assert_eq!(normalise(&Places { workspace: "/", ..Places::default() }, "path", "/etc/x"), "/etc/x");
    }

    #[test]
    fn process_ids_are_not_the_process() {
        paths(&[
            ("/proc/4711/status", "/proc/${pid}/status"),
            ("/proc/4711/task/4712/comm", "/proc/${pid}/task/${tid}/comm"),
            ("/proc/4711/fd/3", "/proc/${pid}/fd/${fd}"),
            ("/proc/sys/vm/overcommit_memory", "/proc/sys/vm/overcommit_memory"),
            ("/proc/cpuinfo", "/proc/cpuinfo"),
        ]);
    }

    #[test]
    fn names_of_temporary_files_are_random() {
        paths(&[
            ("/tmp/tmpab_2c3df", "${tmp}/tmp${random}"),
            ("/tmp/tmpabcdefgh/x.py", "${tmp}/tmp${random}/x.py"),
            ("/tmp/tmp.aB3dE9fGh1", "${tmp}/tmp.${random}"),
            ("/tmp/cc0Zb1Qx.s", "${tmp}/${random}.s"),
            ("/tmp/build-4711.log", "${tmp}/build-${number}.log"),
            ("/tmp/notes.txt", "${tmp}/notes.txt"),
            ("/var/tmp/sess-9f8e7d6c", "/var/tmp/sess-${random}"),
            ("/dev/shm/sem.Ab3dE9", "/dev/shm/sem.${random}"),
            ("/home/me/work/.git/objects/3f/tmp_obj_Q1w2E3", "${workspace}/.git/objects/3f/tmp${random}"),
            ("/home/me/work/.tmpx7Gh2k", "${workspace}/.tmp${random}"),
            ("/home/me/work/.state.json.0123456789abcdef.tmp", "${workspace}/.state.json.${hex}.tmp"),
            ("/home/me/work/cfg.aB3dE9", "${workspace}/cfg.${random}"),
            ("/home/me/work/m.cpython-311.pyc.140234567890", "${workspace}/m.cpython-311.pyc.${number}"),
        ]);
    }

    #[test]
    fn names_by_content_and_by_time_are_not_names() {
        let object = format!("/home/me/work/.git/objects/3f/{}", "0a".repeat(19));
        let uuid = "/home/me/work/8c0f7c1e-52a4-4b6e-9d3c-7a1f0e2b3c4d.json";
        paths(&[
            (&object, "${workspace}/.git/objects/${hex}"),
            (uuid, "${workspace}/${uuid}.json"),
            (
                "/home/me/work/gait-out/run_20261125T172932Z_d0091401",
                "${workspace}/gait-out/run_${time}_${hex}",
            ),
            ("/home/me/.cache/pip/wheels/0123456789abcdef0123/x", "${home}/.cache/pip/wheels/${hex}/x"),
            ("/home/me/work/dump-1764091772.json", "${workspace}/dump-${number}.json"),
        ]);
    }

    /// What is taken for random would hide other names of its shape.
    #[test]
    fn words_versions_and_architectures_stay() {
        for path in [
            "/usr/lib/python3.11/tempfile.py",
            "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
            "/usr/share/zoneinfo/Etc/GMT+12",
            "/usr/include/template.h",
            "/usr/lib/tmpfiles.d/systemd.conf",
            "/opt/Python3/MyClass2/README2.md",
            "/usr/bin/sha256sum",
            "/etc/ssl/certs/facade.pem",
            "/opt/temporary_files",
            "/usr/lib/libfoo-1.2.3.so",
            "/etc/localtime.20240101",
        ] {
            let want = if path.ends_with("20240101") { "/etc/localtime.${number}" } else { path };
            assert_eq!(normalise(&PLACES, "path", path), want);
        }
    }

    #[test]
    fn ports_that_the_kernel_picked_are_no_endpoints() {
        for (value, want) in [
            ("127.0.0.1:42085", "127.0.0.1:${port}"),
            ("[::1]:50000", "[::1]:${port}"),
            ("0.0.0.0:0", "0.0.0.0:${port}"),
            ("localhost:40000", "localhost:${port}"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("10.0.0.1:42085", "10.0.0.1:42085"),
            ("example.com:443", "example.com:443"),
            ("example.com", "example.com"),
        ] {
            assert_eq!(normalise(&PLACES, "host", value), want);
        }
        assert_eq!(normalise(&PLACES, "other", "unix:@bus-4711"), "unix:@bus-${number}");
        assert_eq!(normalise(&PLACES, "other", "io_uring_setup"), "io_uring_setup");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn once_is_enough(
            kind in prop_oneof![Just("path"), Just("host"), Just("other")],
            value in "(/(tmp|home/me|proc|objects|[a-zA-Z0-9._-]{1,12}|tmp[a-zA-Z0-9_]{4,9}|[0-9a-f]{2}|[0-9a-f]{38}|ä\\$\\{x\\})){1,5}",
        ) {
            let once = normalise(&PLACES, kind, &value);
            prop_assert_eq!(normalise(&PLACES, kind, &once), once);
        }

        /// Whatever mkstemp(3) makes of a template in the directory for temporary files, it is one endpoint.
        #[test]
        fn two_random_names_are_one(one in "[a-z0-9_]{8}", two in "[a-z0-9_]{8}") {
            let [one, two] = [one, two].map(|name| normalise(&PLACES, "path", &format!("/tmp/tmp{name}/f")));
            prop_assert_eq!(one, two);
        }
    }
}
