//! The page that the kernel programs include is made from the one that Rust compiles.
//!
//! `GAIT_BLESS=1 cargo test -p gait-ebpf --test layout` writes `kernel/layout.h` anew. The numbers on it are the
//! compiler's own ([`STRUCTS`]); clang checks them again for its side.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot read its own crate must fail loudly"
)]

use std::fmt::Write as _;
use std::mem::offset_of;
use std::path::{Path, PathBuf};

use gait_ebpf::layout;

/// A struct as the Rust compiler lays it out.
struct Struct {
    name: &'static str,
    size: usize,
    fields: &'static [(&'static str, usize)],
}

macro_rules! structs {
    ($($name:ident { $($field:ident),* })*) => {
        &[$(Struct {
            name: stringify!($name),
            size: size_of::<layout::$name>(),
            fields: &[$((stringify!($field), offset_of!(layout::$name, $field))),*],
        }),*]
    };
}

const STRUCTS: &[Struct] = structs! {
    State { base, fallback }
    Accept { value, zero }
    Edge { check, next }
    IdentityKey { session, zero, inode }
    Identity { state, name }
    Session { cells, cell_count, names, paths, images, words, word_count, image_classes, flags }
    GrantKey { session, tid }
    Grant { object, second, until, operations, verdict }
    Counters { lost, forks_refused, members, images }
    Seed { pid, session, placed, image_class }
    Naming { process, session, found, refused }
    Memo { low, high, class, zero }
    Walk {
        dentry, mount, partial, partial_depth, partials, cells, cell_count, names, session_flags, numbered, count, bytes,
        visible, hidden, least, reason, found, state, name, depth, process, odd
    }
    Member { session, image, image_class, zero, truncating, walk, classes, hidden, memo, event, bytes }
    Event {
        at, object, second, word, second_word, operations, second_operations, device, tid, tgid, image, identity,
        identity_depth, second_identity, second_identity_depth, first_bytes, first_hidden, second_bytes, second_hidden,
        kind, flags, verdict, zero
    }
};

fn kernel() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernel")
}

/// `CamelCase` as `snake_case`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// A Rust type as a C declaration of `field`.
fn declare(ty: &str, field: &str) -> String {
    let Some(inner) = ty.strip_prefix('[').and_then(|ty| ty.strip_suffix(']')) else {
        let scalar = match ty {
            "u8" | "u32" | "u64" => ty.to_owned(),
            other => format!("struct {}", snake(other)),
        };
        return format!("{scalar} {field}");
    };
    let (element, length) = inner.split_once("; ").unwrap();
    let length = length.trim_end_matches(" as usize").trim_matches(['(', ')']);
    declare(element, &format!("{field}[{length}]"))
}

/// The C spelling of a constant's value.
fn value(text: &str) -> String {
    match text {
        "u32::MAX" => "0xffffffffu".to_owned(),
        _ if text.contains(' ') => format!("({})", text.replace('_', "")),
        _ => text.replace('_', ""),
    }
}

fn page() -> String {
    let source =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/layout.rs")).unwrap();
    let mut page = String::from(
        "/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */\n\
         /* Made from src/layout.rs, which says what it means:\n\
         \x20* GAIT_BLESS=1 cargo test -p gait-ebpf --test layout */\n\
         #pragma once\n\n",
    );
    let (mut module, mut open) = (String::new(), false);
    let mut seen = Vec::new();
    for line in source.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("pub mod ").and_then(|rest| rest.strip_suffix(" {")) {
            module = format!("{}_", name.to_uppercase());
        } else if let Some(rest) = line.strip_prefix("pub const ").filter(|rest| !rest.starts_with("fn ")) {
            let (name, rest) = rest.split_once(": ").unwrap();
            let (ty, number) = rest.trim_end_matches(';').split_once(" = ").unwrap();
            match ty {
                "&str" => {}
                "u64" => writeln!(page, "#define {module}{name} {}ull", value(number)).unwrap(),
                _ => writeln!(page, "#define {module}{name} {}", value(number)).unwrap(),
            }
        } else if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) {
            writeln!(page, "\nstruct {} {{", snake(name)).unwrap();
            seen.push(name.to_owned());
            open = true;
        } else if line == "}" && open {
            page.push_str("};\n");
            page.push_str(&asserts(seen.last().unwrap()));
            open = false;
        } else if line == "}" {
            module.clear();
        } else if let Some(field) = line.strip_prefix("pub ").filter(|_| open) {
            let (name, ty) = field.trim_end_matches(',').split_once(": ").unwrap();
            writeln!(page, "\t{};", declare(ty, name)).unwrap();
        }
    }
    assert_eq!(seen.len(), STRUCTS.len(), "every struct of layout.rs is in the list of this test");
    page
}

fn asserts(name: &str) -> String {
    let found =
        STRUCTS.iter().find(|known| known.name == name).unwrap_or_else(|| panic!("{name} is not in STRUCTS"));
    let c = snake(name);
    let mut out = format!("_Static_assert(sizeof(struct {c}) == {}, \"size of {c}\");\n", found.size);
    for (field, offset) in found.fields {
        writeln!(
            out,
            "_Static_assert(__builtin_offsetof(struct {c}, {field}) == {offset}, \"place of {c}.{field}\");"
        )
        .unwrap();
    }
    out
}

#[test]
fn the_kernel_side_has_the_same_layout() {
    let place = kernel().join("layout.h");
    if std::env::var_os("GAIT_BLESS").is_some() {
        std::fs::write(&place, page()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&place).unwrap_or_default(), page(), "see the page's first lines");
}
