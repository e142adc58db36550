//! Globs over paths, names and arguments.
//!
//! One implementation for the reference evaluator, the compiled matcher and the examples. It works on bytes in
//! bounded time: a wildcard never makes it look at a byte more often than once per wildcard of the pattern, so a
//! workload that chooses its file names cannot slow the gate down. Limits: at most 256 patterns
//! after braces are written out, and no negated braces.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// How many patterns one pattern may stand for once its braces are written out.
pub(super) const MAX_ALTERNATIVES: usize = 256;

/// How long a pattern may be. Longer than any path that the kernel takes.
const MAX_PATTERN_BYTES: usize = 4096;

/// What `*` and `?` do not cross.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Separator {
    /// The slash of paths.
    Slash,
    /// The dot of host names.
    Dot,
    /// Nothing: the text is one piece, as an argument is.
    None,
}

impl Separator {
    const fn is(self, byte: u8) -> bool {
        match self {
            Self::Slash => byte == b'/',
            Self::Dot => byte == b'.',
            Self::None => false,
        }
    }
}

/// The text is not a glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Nothing to match.
    #[error("a pattern cannot be empty")]
    Empty,
    /// Longer than any path.
    #[error("the pattern is longer than {MAX_PATTERN_BYTES} bytes")]
    TooLong,
    /// `[` without `]`.
    #[error("`[` is never closed; write `\\[` for the character itself")]
    OpenClass,
    /// `[]` or a range the wrong way round.
    #[error("the range `{0}-{1}` is the wrong way round")]
    Range(char, char),
    /// `{` without `}`.
    #[error("`{{` is never closed; write `\\{{` for the character itself")]
    OpenBrace,
    /// `}` without `{`.
    #[error("`}}` closes nothing; write `\\}}` for the character itself")]
    CloseBrace,
    /// A backslash at the end.
    #[error("`\\` at the end escapes nothing")]
    DanglingEscape,
    /// Braces multiply.
    #[error("the braces stand for more than {MAX_ALTERNATIVES} patterns")]
    TooMany,
}

/// A pattern without braces. Copies share its tokens.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Glob {
    tokens: Arc<[Token]>,
    separator: Separator,
}

/// A part of a glob.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Token {
    /// These bytes.
    Literal(Box<[u8]>),
    /// One character that is not a separator.
    One,
    /// One character of a set, never a separator.
    Class { negated: bool, ranges: Box<[(char, char)]> },
    /// Any number of bytes that are not separators.
    Star,
    /// Any number of bytes.
    Deep,
    /// `**/`: nothing, or anything that ends in a separator.
    DeepDirs,
    /// `/**` at the end: nothing, or a separator and anything.
    Below,
}

impl Glob {
    /// Parses a pattern into the globs that its braces stand for.
    ///
    /// # Errors
    ///
    /// Fails if a bracket, a brace or an escape is not complete, or the braces stand for too many patterns.
    pub fn parse(pattern: &str, separator: Separator) -> Result<Vec<Self>, GlobError> {
        if pattern.is_empty() {
            return Err(GlobError::Empty);
        }
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(GlobError::TooLong);
        }
        let mut scratch = Scratch::default();
        expand(pattern.as_bytes())?.iter().map(|plain| parse_plain(plain, separator, &mut scratch)).collect()
    }

    /// Makes the glob that matches exactly this text.
    #[must_use]
    pub fn literal(text: &[u8], separator: Separator) -> Self {
        Self { tokens: Arc::new([Token::Literal(text.into())]), separator }
    }

    /// Makes the glob over paths that consists of these parts.
    #[must_use]
    pub(super) fn of_tokens(tokens: &[Token]) -> Self {
        Self { tokens: tokens.into(), separator: Separator::Slash }
    }

    /// Returns the parts.
    #[must_use]
    pub(super) fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Returns whether the whole text matches.
    #[must_use]
    pub fn is_match(&self, text: &[u8]) -> bool {
        self.run(0, text, 0)
    }

    /// Returns the text that every match begins with.
    #[must_use]
    pub(super) fn prefix(&self) -> &[u8] {
        match self.tokens.first() {
            Some(Token::Literal(literal)) => literal,
            _ => b"",
        }
    }

    /// Returns the text if only that one matches.
    #[must_use]
    pub(super) fn as_literal(&self) -> Option<&[u8]> {
        match &*self.tokens {
            [Token::Literal(literal)] => Some(literal),
            _ => None,
        }
    }

    /// Returns the directory if the pattern is `directory/**`; empty for `/**`.
    #[must_use]
    pub(super) fn as_tree(&self) -> Option<&[u8]> {
        match &*self.tokens {
            [Token::Literal(literal), Token::Below] => Some(literal),
            [Token::Below] => Some(b""),
            _ => None,
        }
    }

    /// Returns a component after the first wildcard that every match contains as a whole, the last such.
    #[must_use]
    pub(super) fn component(&self) -> Option<&[u8]> {
        for (at, token) in self.tokens.iter().enumerate().skip(1).rev() {
            let Token::Literal(literal) = token else { continue };
            let starts = matches!(self.tokens.get(at - 1), Some(Token::DeepDirs));
            let ends = matches!(self.tokens.get(at + 1), None | Some(Token::Below));
            let mut pieces: Vec<&[u8]> = literal.split(|&byte| self.separator.is(byte)).collect();
            if !ends {
                pieces.pop();
            }
            let found = pieces.iter().skip(usize::from(!starts)).rev().find(|piece| !piece.is_empty());
            if let Some(piece) = found {
                return Some(piece);
            }
        }
        None
    }

    /// Returns the name below which the pattern is, if it is `?**.name`.
    #[must_use]
    pub(super) fn as_subdomains(&self) -> Option<&[u8]> {
        match &*self.tokens {
            [Token::One, Token::Deep, Token::Literal(literal)] => literal.strip_prefix(b"."),
            _ => None,
        }
    }

    /// Returns the text from the last dot on that the last component of every match ends with.
    #[must_use]
    pub(super) fn extension(&self) -> Option<&[u8]> {
        let Some(Token::Literal(literal)) = self.tokens.last() else { return None };
        let dot = literal.iter().rposition(|&byte| byte == b'.')?;
        let extension = literal.get(dot..)?;
        (!extension.iter().any(|&byte| self.separator.is(byte))).then_some(extension)
    }

    /// Matches tokens from `token` on against the text from `at` on.
    ///
    /// Two marks suffice to go back to: once a later wildcard is reached, an earlier one of the same reach cannot do
    /// better by taking more.
    fn run(&self, mut token: usize, text: &[u8], mut at: usize) -> bool {
        let mut star: Option<(usize, usize)> = None;
        let mut deep: Option<(usize, usize)> = None;
        loop {
            let step = match self.tokens.get(token) {
                None => at == text.len(),
                Some(Token::Below) => {
                    if text.get(at).is_none_or(|&byte| self.separator.is(byte)) {
                        return true;
                    }
                    false
                }
                Some(Token::Star) => {
                    star = Some((token, at));
                    true
                }
                Some(Token::Deep | Token::DeepDirs) => {
                    deep = Some((token, at));
                    star = None;
                    true
                }
                Some(other) => match self.take(other, text, at) {
                    Some(next) => {
                        at = next;
                        true
                    }
                    None => false,
                },
            };
            if step {
                if token == self.tokens.len() {
                    return true;
                }
                token += 1;
                continue;
            }
            if let Some((mark, from)) = star {
                if text.get(from).is_some_and(|&byte| !self.separator.is(byte)) {
                    star = Some((mark, from + 1));
                    (token, at) = (mark + 1, from + 1);
                    continue;
                }
                star = None;
            }
            let Some((mark, from)) = deep else { return false };
            let Some(next) = self.deeper(mark, text, from) else { return false };
            deep = Some((mark, next));
            (token, at) = (mark + 1, next);
        }
    }

    /// Returns the next place at which the deep wildcard may end.
    fn deeper(&self, mark: usize, text: &[u8], from: usize) -> Option<usize> {
        let rest = text.get(from..)?;
        if matches!(self.tokens.get(mark), Some(Token::DeepDirs)) {
            return rest.iter().position(|&byte| self.separator.is(byte)).map(|found| from + found + 1);
        }
        (!rest.is_empty()).then_some(from + 1)
    }

    /// Matches one literal or one character and returns where it ends.
    fn take(&self, token: &Token, text: &[u8], at: usize) -> Option<usize> {
        let rest = text.get(at..)?;
        match token {
            Token::Literal(literal) => rest.starts_with(literal).then_some(at + literal.len()),
            Token::One => {
                let (c, width) = first_char(rest)?;
                (!c.is_ascii() || !self.separator.is(c as u8)).then_some(at + width)
            }
            Token::Class { negated, ranges } => {
                let (c, width) = first_char(rest)?;
                if c.is_ascii() && self.separator.is(c as u8) {
                    return None;
                }
                let inside = ranges.iter().any(|&(low, high)| (low..=high).contains(&c));
                (inside != *negated).then_some(at + width)
            }
            Token::Star | Token::Deep | Token::DeepDirs | Token::Below => None,
        }
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.tokens.iter()).finish()
    }
}

/// Returns the first character and its width; a byte that is no UTF-8 counts as one character.
fn first_char(bytes: &[u8]) -> Option<(char, usize)> {
    let first = *bytes.first()?;
    if first.is_ascii() {
        return Some((char::from(first), 1));
    }
    let chunk = bytes.get(..bytes.len().min(4)).unwrap_or(bytes).utf8_chunks().next()?;
    match chunk.valid().chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None => Some((char::REPLACEMENT_CHARACTER, 1)),
    }
}

/// Returns whether a byte is more than itself where braces are written out.
fn is_special(byte: &u8) -> bool {
    matches!(byte, b'\\' | b'[' | b'{' | b'}')
}

/// Writes the braces out. Escapes stay as they are.
///
/// Every character with a meaning is ASCII, so bytes do: those of other characters are never mistaken for one.
fn expand(pattern: &[u8]) -> Result<Vec<Vec<u8>>, GlobError> {
    let mut done: Vec<Vec<u8>> = vec![Vec::with_capacity(pattern.len())];
    let mut rest = pattern;
    while let Some((&c, tail)) = rest.split_first() {
        match c {
            b'\\' => {
                let (&escaped, tail) = tail.split_first().ok_or(GlobError::DanglingEscape)?;
                for one in &mut done {
                    one.extend([c, escaped]);
                }
                rest = tail;
            }
            b'[' => {
                let end = class_end(rest)?;
                for one in &mut done {
                    one.extend_from_slice(&rest[..end]);
                }
                rest = &rest[end..];
            }
            b'{' => {
                let (alternatives, tail) = alternatives(tail)?;
                let mut inner: Vec<Cow<'_, [u8]>> = Vec::with_capacity(alternatives.len());
                for alternative in alternatives {
                    if alternative.iter().any(is_special) {
                        inner.extend(expand(alternative)?.into_iter().map(Cow::Owned));
                    } else {
                        inner.push(Cow::Borrowed(alternative));
                    }
                }
                if inner.len().saturating_mul(done.len()) > MAX_ALTERNATIVES {
                    return Err(GlobError::TooMany);
                }
                done = done
                    .iter()
                    .flat_map(|head| inner.iter().map(move |tail| [&head[..], &tail[..]].concat()))
                    .collect();
                rest = tail;
            }
            b'}' => return Err(GlobError::CloseBrace),
            _ => {
                let (plain, tail) = rest.split_at(rest.iter().position(is_special).unwrap_or(rest.len()));
                for one in &mut done {
                    one.extend_from_slice(plain);
                }
                rest = tail;
            }
        }
    }
    Ok(done)
}

/// Splits what follows a `{` into its alternatives and what follows its `}`.
fn alternatives(text: &[u8]) -> Result<(Vec<&[u8]>, &[u8]), GlobError> {
    let mut found = Vec::new();
    let (mut depth, mut start, mut at) = (0_usize, 0, 0);
    while let Some(&c) = text.get(at) {
        match c {
            b'\\' => at += 1,
            b'[' => at += class_end(&text[at..])? - 1,
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            b'}' => {
                found.push(&text[start..at]);
                return Ok((found, &text[at + 1..]));
            }
            b',' if depth == 0 => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    Err(GlobError::OpenBrace)
}

/// Returns the length of the class that begins the text, brackets included.
fn class_end(text: &[u8]) -> Result<usize, GlobError> {
    let mut at = 1;
    if matches!(text.get(at), Some(b'!' | b'^')) {
        at += 1;
    }
    // A bracket in first place is one of the characters.
    if text.get(at) == Some(&b']') {
        at += 1;
    }
    while let Some(&c) = text.get(at) {
        match c {
            b']' => return Ok(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    Err(GlobError::OpenClass)
}

/// What the globs of one pattern are put together in, one after the other.
#[derive(Default)]
struct Scratch {
    tokens: Vec<Token>,
    literal: Vec<u8>,
}

fn parse_plain(pattern: &[u8], separator: Separator, scratch: &mut Scratch) -> Result<Glob, GlobError> {
    let Scratch { tokens, literal } = scratch;
    tokens.clear();
    literal.clear();
    let mut at = 0;
    while let Some(&c) = pattern.get(at) {
        let wild = match c {
            b'\\' => {
                literal.push(*pattern.get(at + 1).ok_or(GlobError::DanglingEscape)?);
                at += 2;
                continue;
            }
            b'?' => {
                at += 1;
                Token::One
            }
            b'[' => {
                let end = class_end(&pattern[at..])?;
                let class = parse_class(&pattern[at..at + end])?;
                at += end;
                class
            }
            b'*' if pattern.get(at + 1) == Some(&b'*') => {
                let before = at == 0 || separator.is(pattern[at - 1]);
                let stars = pattern[at..].iter().take_while(|&&c| c == b'*').count();
                at += stars;
                match pattern.get(at) {
                    None if before && literal.last().is_some_and(|&c| separator.is(c)) => {
                        literal.pop();
                        Token::Below
                    }
                    Some(&c) if before && separator.is(c) => {
                        at += 1;
                        // `**/**` says nothing that the second alone does not.
                        if pattern[at..].starts_with(b"**") {
                            continue;
                        }
                        Token::DeepDirs
                    }
                    _ => Token::Deep,
                }
            }
            b'*' => {
                at += 1;
                Token::Star
            }
            _ => {
                literal.push(c);
                at += 1;
                continue;
            }
        };
        if !literal.is_empty() {
            tokens.push(Token::Literal(literal.as_slice().into()));
        }
        literal.clear();
        tokens.push(wild);
    }
    if !literal.is_empty() || tokens.is_empty() {
        tokens.push(Token::Literal(literal.as_slice().into()));
    }
    Ok(Glob { tokens: tokens.drain(..).collect(), separator })
}

fn parse_class(text: &[u8]) -> Result<Token, GlobError> {
    let inner = text.get(1..text.len().saturating_sub(1)).ok_or(GlobError::OpenClass)?;
    // The brackets are ASCII, so what is between them is text as the pattern is.
    let inner = std::str::from_utf8(inner).map_err(|_not_text| GlobError::OpenClass)?;
    let negated = inner.starts_with(['!', '^']);
    let mut chars = inner.chars().skip(usize::from(negated));
    let mut ranges = Vec::new();
    let escaped = |c: char, chars: &mut dyn Iterator<Item = char>| match c {
        '\\' => chars.next().ok_or(GlobError::DanglingEscape),
        c => Ok(c),
    };
    while let Some(c) = chars.next() {
        let low = escaped(c, &mut chars)?;
        let mut ahead = chars.clone();
        let high = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(_)) => {
                chars.next();
                let c = chars.next().ok_or(GlobError::OpenClass)?;
                escaped(c, &mut chars)?
            }
            _ => low,
        };
        if low > high {
            return Err(GlobError::Range(low, high));
        }
        ranges.push((low, high));
    }
    Ok(Token::Class { negated, ranges: ranges.into() })
}

/// Writes text so that a glob matches exactly it.
#[must_use]
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\' | ',') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use globset::GlobBuilder;
    use proptest::prelude::*;

    use super::*;

    fn hits(pattern: &str, text: &str) -> bool {
        Glob::parse(pattern, Separator::Slash).unwrap().iter().any(|glob| glob.is_match(text.as_bytes()))
    }

    #[test]
    fn wildcards() {
        let cases = [
            ("/a/*", "/a/b", true),
            ("/a/*", "/a/b/c", false),
            ("/a/*", "/a/.b", true),
            ("/a/**", "/a", true),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/ab", false),
            ("/**", "/", true),
            ("/**", "/x/y", true),
            ("**/.env", "/.env", true),
            ("**/.env", "/w/.env", true),
            ("**/.env", "/w/x.env", false),
            ("**/.env/**", "/w/.env/x", true),
            ("/a/**/b", "/a/b", true),
            ("/a/**/b", "/a/x/y/b", true),
            ("/a/**/b", "/a/xb", false),
            ("/a/*x*/b", "/a/yxz/b", true),
            ("/a/*x*/b", "/a/x/y/b", false),
            ("**/*.pem", "/a/b.c/d.pem", true),
            ("**/a/*b/**/c", "/a/x/a/yb/z/c", true),
            ("/a?c", "/abc", true),
            ("/a?c", "/aéc", true),
            ("/a?c", "/a/c", false),
            ("/[a-c]", "/b", true),
            ("/[!a-c]", "/b", false),
            ("/[!a-c]", "//", false),
            ("/[]x]", "/]", true),
            ("/x{a,b{c,d}}", "/xbd", true),
            ("/x{,y}", "/x", true),
            ("/x\\*", "/x*", true),
            ("/x\\*", "/xy", false),
            ("/a**b", "/a/x/b", true),
        ];
        for (pattern, text, want) in cases {
            assert_eq!(hits(pattern, text), want, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_is_no_glob_says_so() {
        let cases = [
            ("", GlobError::Empty),
            ("/[a", GlobError::OpenClass),
            ("/{a", GlobError::OpenBrace),
            ("/a}", GlobError::CloseBrace),
            ("/a\\", GlobError::DanglingEscape),
            ("/[z-a]", GlobError::Range('z', 'a')),
            ("{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}{a,b}", GlobError::TooMany),
        ];
        for (pattern, want) in cases {
            assert_eq!(Glob::parse(pattern, Separator::Slash), Err(want), "{pattern}");
        }
    }

    #[test]
    fn escaped_text_matches_itself_alone() {
        for text in ["/a*b", "/[x]", "/{a,b}", "/a\\b"] {
            assert!(hits(&escape(text), text), "{text}");
        }
        assert!(!hits(&escape("/a*"), "/ab"));
    }

    #[test]
    fn bytes_that_are_no_text_count_one_each() {
        let glob = &Glob::parse("/a?b", Separator::Slash).unwrap()[0];
        assert!(glob.is_match(b"/a\xffb"));
        assert!(!glob.is_match(b"/a\xff\xfeb"));
    }

    /// The patterns on which `globset` means the same as this module.
    fn shared_pattern() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => "[ab.]{1,2}",
            2 => Just("*".to_owned()),
            1 => "[ab]\\*[ab]?",
            1 => Just("?".to_owned()),
            1 => Just("[a-b]".to_owned()),
            1 => Just("{a,b.}".to_owned()),
            1 => Just("**".to_owned()),
        ];
        prop::collection::vec(piece, 1..5).prop_map(|pieces| format!("/{}", pieces.join("/")))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn same_as_globset(pattern in shared_pattern(), text in "(/[ab.]{1,3}){1,5}") {
            let theirs = GlobBuilder::new(&pattern).literal_separator(true).build().unwrap().compile_matcher();
            // `dir/**` means the directory besides, here and not there.
            let dir = pattern.strip_suffix("/**").filter(|dir| !dir.is_empty());
            let itself = dir.is_some_and(|dir| hits(dir, &text));
            prop_assert_eq!(hits(&pattern, &text), theirs.is_match(&text) || itself, "{}", pattern);
        }

        #[test]
        fn required_parts_are_in_every_match(pattern in shared_pattern(), text in "(/[ab.]{1,3}){1,5}") {
            for glob in Glob::parse(&pattern, Separator::Slash).unwrap() {
                let bytes = text.as_bytes();
                if glob.is_match(bytes) {
                    prop_assert!(bytes.starts_with(glob.prefix()));
                    if let Some(part) = glob.component() {
                        prop_assert!(bytes.split(|&b| b == b'/').any(|piece| piece == part));
                    }
                    if let Some(end) = glob.extension() {
                        prop_assert!(bytes.ends_with(end));
                        let last = bytes.rsplit(|&b| b == b'/').next().unwrap();
                        prop_assert_eq!(&last[last.iter().rposition(|&b| b == b'.').unwrap()..], end);
                    }
                }
            }
        }

        #[test]
        fn parsing_never_fails_in_another_way(pattern in "[\\[\\]{}*?!a,\\\\-]{0,12}", text in "[a/*]{0,8}") {
            if let Ok(globs) = Glob::parse(&pattern, Separator::Slash) {
                for glob in globs {
                    std::hint::black_box(glob.is_match(text.as_bytes()));
                }
            }
        }
    }
}
