//! From path patterns to patterns of components.
//!
//! A glob reads the text of a whole path, and the kernel reads one name after the other. What lies between two slashes
//! of a glob is a pattern of one component; where `**` may cross a slash the component that it ends in and the one that
//! it begins in are patterns of their own (`/a**b` is `/a*b`, or `/a*`, any directories, and `*b`). So every glob is
//! taken apart exactly, and nothing has to be guessed.

use super::super::glob::{Glob, Token};
use super::TooLarge;
use super::nfa::{Label, Map, Nfa, NodeId, Symbol, Trie, index};

/// How many parts one glob may fall into. Each `**` inside a component doubles them.
const MAX_PARTS: u32 = 4096;

/// A pattern of one component, a part of a glob: no separator, no `**`.
type Pattern = Vec<Token>;

/// The patterns of components, each once, and the automaton over them.
#[derive(Debug)]
pub(super) struct Splitter {
    trie: Trie,
    patterns: Map<Pattern, Symbol>,
    list: Vec<Pattern>,
}

impl Splitter {
    pub(super) fn new(limit: usize) -> Self {
        Self { trie: Trie::new(limit), patterns: Map::default(), list: Vec::new() }
    }

    /// Makes a start: that of the objects of actions, or that of images.
    pub(super) fn root(&mut self) -> NodeId {
        self.trie.root()
    }

    /// Every path that the glob matches gets the label.
    pub(super) fn insert(&mut self, root: NodeId, glob: &Glob, label: Label) -> Result<(), TooLarge> {
        if glob.is_match(b"/") {
            self.trie.ends(root, label);
        }
        let mut walk = Walk { splitter: self, tokens: glob.tokens(), label, left: MAX_PARTS };
        walk.before_first_slash(root)
    }

    /// A directory and everything below it, given by bytes, gets the label.
    pub(super) fn insert_tree(&mut self, root: NodeId, path: &[u8], label: Label) -> Result<(), TooLarge> {
        let mut node = root;
        for component in path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()) {
            node = self.component(node, vec![Token::Literal(component.into())])?;
        }
        self.trie.covers(node, label);
        Ok(())
    }

    fn component(&mut self, node: NodeId, pattern: Pattern) -> Result<NodeId, TooLarge> {
        if pattern == [Token::Star] {
            return self.trie.any(node);
        }
        let symbol = match self.patterns.get(&pattern) {
            Some(&symbol) => symbol,
            None => {
                let symbol = index(self.list.len());
                self.list.push(pattern.clone());
                self.patterns.insert(pattern, symbol);
                symbol
            }
        };
        self.trie.step(node, symbol)
    }

    /// Finishes the automaton. Patterns that lead from the same places to the same places become one group.
    pub(super) fn finish(self, roots: &[NodeId]) -> (Nfa, Vec<NodeId>, Groups) {
        let (mut nfa, roots) = self.trie.finish(roots);
        let mut places: Vec<Vec<(NodeId, NodeId)>> = vec![Vec::new(); self.list.len()];
        for (at, node) in nfa.nodes.iter().enumerate() {
            for &(symbol, target) in &node.edges {
                if let Some(list) = places.get_mut(symbol as usize) {
                    list.push((index(at), target));
                }
            }
        }
        let mut known: Map<Vec<(NodeId, NodeId)>, Symbol> = Map::default();
        let mut of_pattern = Vec::with_capacity(places.len());
        for list in places {
            let next = index(known.len());
            of_pattern.push(*known.entry(list).or_insert(next));
        }
        nfa.rename(|symbol| of_pattern.get(symbol as usize).copied().unwrap_or(symbol));
        let count = index(known.len());
        (nfa, roots, Groups { patterns: self.list, of_pattern, count })
    }
}

/// Groups of component patterns between which no path pattern tells.
#[derive(Debug)]
pub(super) struct Groups {
    patterns: Vec<Pattern>,
    of_pattern: Vec<Symbol>,
    count: u32,
}

impl Groups {
    pub(super) const fn len(&self) -> u32 {
        self.count
    }

    fn iter(&self) -> impl Iterator<Item = (&Pattern, Symbol)> {
        self.patterns.iter().zip(self.of_pattern.iter().copied())
    }

    /// Returns the groups of patterns that are exactly this name.
    pub(super) fn of_name(&self, name: &[u8]) -> Vec<Symbol> {
        let same = |pattern: &Pattern| matches!(&pattern[..], [Token::Literal(text)] if **text == *name);
        self.iter().filter(|(pattern, _)| same(pattern)).map(|(_, group)| group).collect()
    }

    /// Returns the groups that a component is in, by trying every pattern.
    pub(super) fn of_text(&self, component: &[u8]) -> Vec<Symbol> {
        let mut found: Vec<_> = self
            .iter()
            .filter(|(pattern, _)| Glob::of_tokens(pattern).is_match(component))
            .map(|(_, group)| group)
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Returns whether some pattern could take the name of a file that ends in white space for another than its text,
    /// in which that white space is written as `\xNN` (see [`crate::intent::path_text`]).
    pub(super) fn confuse_white_space(&self) -> bool {
        self.patterns.iter().any(|pattern| confuses(pattern))
    }

    /// Makes the automaton over the bytes of a component; its labels are groups.
    ///
    /// A symbol is a byte, or a class of bytes whose members the second list has.
    pub(super) fn names(
        &self,
        odd: Option<Label>,
        limit: usize,
    ) -> Result<(Nfa, NodeId, Vec<Vec<Symbol>>), TooLarge> {
        let mut trie = Trie::new(limit.saturating_mul(4));
        let mut classes = Classes::default();
        let root = trie.root();
        // Names with other bytes than ASCII are never read.
        let is_ascii = |token: &Token| !matches!(token, Token::Literal(text) if !text.is_ascii());
        for (pattern, group) in self.iter().filter(|(pattern, _)| pattern.iter().all(is_ascii)) {
            let mut node = root;
            let mut covers = false;
            for (at, token) in pattern.iter().enumerate() {
                match token {
                    Token::Literal(text) => {
                        for &byte in text {
                            node = trie.step(node, u32::from(byte))?;
                        }
                    }
                    Token::One => node = trie.any(node)?,
                    Token::Class { negated, ranges } => {
                        node = trie.step(node, classes.symbol(*negated, ranges))?
                    }
                    // A star at the end says yes to whatever comes.
                    _ if at + 1 == pattern.len() => covers = true,
                    _ => node = trie.deep(node)?,
                }
            }
            if covers { trie.covers(node, group) } else { trie.ends(node, group) }
        }
        if let Some(odd) = odd {
            let deep = trie.deep(root)?;
            let last = trie.step(deep, classes.symbol(false, &[('\t', '\r'), (' ', ' ')]))?;
            trie.ends(last, odd);
        }
        let (nfa, roots) = trie.finish(&[root]);
        Ok((nfa, roots.first().copied().unwrap_or(0), classes.members))
    }
}

/// Classes of characters as symbols, after those of single bytes.
#[derive(Debug)]
struct Classes {
    members: Vec<Vec<Symbol>>,
    known: Map<Vec<Symbol>, Symbol>,
}

impl Default for Classes {
    fn default() -> Self {
        Self { members: (0..256).map(|byte| vec![byte]).collect(), known: Map::default() }
    }
}

impl Classes {
    /// Only ASCII counts: a name with any other byte is never looked at.
    fn symbol(&mut self, negated: bool, ranges: &[(char, char)]) -> Symbol {
        let inside = |c: char| ranges.iter().any(|&(low, high)| (low..=high).contains(&c));
        let members: Vec<Symbol> = (0..0x80_u8)
            .filter(|&byte| byte != b'/' && inside(char::from(byte)) != negated)
            .map(u32::from)
            .collect();
        let next = index(self.members.len());
        let symbol = *self.known.entry(members.clone()).or_insert(next);
        if symbol == next {
            self.members.push(members);
        }
        symbol
    }
}

/// The way through one glob.
struct Walk<'a> {
    splitter: &'a mut Splitter,
    tokens: &'a [Token],
    label: Label,
    left: u32,
}

impl Walk<'_> {
    /// What may stand before the first slash of a path: nothing.
    fn before_first_slash(&mut self, root: NodeId) -> Result<(), TooLarge> {
        for (at, token) in self.tokens.iter().enumerate() {
            match token {
                Token::Literal(text) => {
                    return if text.first() == Some(&b'/') {
                        self.component(root, at, 1, Vec::new())
                    } else {
                        Ok(())
                    };
                }
                Token::One | Token::Class { .. } => return Ok(()),
                Token::Star => {}
                Token::Deep if at + 1 == self.tokens.len() => {
                    self.splitter.trie.covers(root, self.label);
                    return Ok(());
                }
                Token::Deep => {
                    let deep = self.splitter.trie.deep(root)?;
                    self.component(deep, at + 1, 0, vec![Token::Star])?;
                }
                Token::DeepDirs => {
                    let deep = self.splitter.trie.deep(root)?;
                    self.component(deep, at + 1, 0, Vec::new())?;
                }
                Token::Below => {
                    self.splitter.trie.covers(root, self.label);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Goes on at a byte of a token; `pattern` is what was read of the component so far.
    fn component(
        &mut self,
        mut node: NodeId,
        token: usize,
        offset: usize,
        mut pattern: Pattern,
    ) -> Result<(), TooLarge> {
        self.left = self.left.checked_sub(1).ok_or(TooLarge::Patterns)?;
        let tokens = self.tokens;
        for (at, token) in tokens
            .iter()
            .enumerate()
            .skip(token)
            .scan(offset, |offset, (at, token)| Some((at, (token, std::mem::take(offset)))))
        {
            let last = at + 1 == tokens.len();
            match token {
                (Token::Literal(text), offset) => {
                    let rest = text.get(offset..).unwrap_or_default();
                    let slash = rest.iter().position(|&byte| byte == b'/');
                    push_literal(&mut pattern, rest.get(..slash.unwrap_or(rest.len())).unwrap_or_default());
                    if let Some(slash) = slash {
                        // No component is empty.
                        if pattern.is_empty() {
                            return Ok(());
                        }
                        let next = self.splitter.component(node, pattern)?;
                        return self.component(next, at, offset + slash + 1, Vec::new());
                    }
                }
                (Token::Deep, _) if pattern.is_empty() => {
                    node = self.splitter.trie.deep(node)?;
                    pattern.push(Token::Star);
                }
                (Token::Deep, _) => {
                    push_star(&mut pattern);
                    let next = self.splitter.component(node, pattern.clone())?;
                    if last {
                        self.splitter.trie.covers(next, self.label);
                        return Ok(());
                    }
                    let deep = self.splitter.trie.deep(next)?;
                    self.component(deep, at + 1, 0, vec![Token::Star])?;
                }
                (Token::DeepDirs, _) if pattern.is_empty() => node = self.splitter.trie.deep(node)?,
                (Token::DeepDirs, _) => {
                    let mut whole = pattern.clone();
                    push_star(&mut whole);
                    let next = self.splitter.component(node, whole)?;
                    let deep = self.splitter.trie.deep(next)?;
                    self.component(deep, at + 1, 0, Vec::new())?;
                }
                (Token::Below, _) => {
                    if !pattern.is_empty() {
                        let next = self.splitter.component(node, pattern)?;
                        self.splitter.trie.covers(next, self.label);
                    }
                    return Ok(());
                }
                (Token::Star, _) => push_star(&mut pattern),
                (token @ (Token::One | Token::Class { .. }), _) => pattern.push(token.clone()),
            }
        }
        if !pattern.is_empty() {
            let next = self.splitter.component(node, pattern)?;
            self.splitter.trie.ends(next, self.label);
        }
        Ok(())
    }
}

fn push_star(pattern: &mut Pattern) {
    if pattern.last() != Some(&Token::Star) {
        pattern.push(Token::Star);
    }
}

fn push_literal(pattern: &mut Pattern, text: &[u8]) {
    if text.is_empty() {
        return;
    }
    if let Some(Token::Literal(before)) = pattern.last_mut() {
        *before = [before, text].concat().into();
    } else {
        pattern.push(Token::Literal(text.into()));
    }
}

/// How white space at the end of a path is written.
const ESCAPES: [&[u8]; 6] = [b"\\x09", b"\\x0a", b"\\x0b", b"\\x0c", b"\\x0d", b"\\x20"];

const fn is_white(byte: u8) -> bool {
    matches!(byte, b'\t'..=b'\r' | b' ')
}

/// Returns whether a pattern may say one thing of a name that ends in white space and another of its text.
///
/// Text that ends in something else than white space and than an escape is no end of either. Stars and text without
/// any part of an escape see the same in both.
fn confuses(pattern: &[Token]) -> bool {
    match pattern {
        [Token::Literal(text)] => ends_oddly(text) || ESCAPES.iter().any(|escape| text.ends_with(escape)),
        [.., Token::Literal(text)] => {
            ends_oddly(text) || ESCAPES.iter().any(|escape| text.ends_with(escape) || escape.ends_with(text))
        }
        // An escape begins with a backslash, so only text behind a star can be found inside of one.
        _ => pattern.iter().enumerate().any(|(at, token)| match token {
            Token::Literal(text) => {
                text.iter().any(|&byte| is_white(byte) || byte == b'\\')
                    || (at > 0
                        && ESCAPES
                            .iter()
                            .any(|escape| escape.windows(text.len()).any(|part| part == &**text)))
            }
            Token::Star => false,
            _ => true,
        }),
    }
}

fn ends_oddly(text: &[u8]) -> bool {
    text.last().is_none_or(|&byte| is_white(byte))
}
