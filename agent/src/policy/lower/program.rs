//! What rules say about a region of paths, in three values: yes, no, and that it hangs on what the tables do not know.
//!
//! A label is one list of patterns of some rules; a region is a set of labels. Evaluation goes through the rules as the
//! gate does. Where a match is uncertain (arguments, an unknown image) both outcomes count, and only if all of them
//! agree is there a verdict.

use super::super::compile::{CompiledPolicy, CompiledRule};
use super::super::glob::{Glob, Separator};
use super::super::model::Rule;
use super::determinize::Pruning;
use super::held::Why;
use super::nfa::{Label, Map, NodeId, index};
use super::split::Splitter;
use super::{Part, TooLarge};
use crate::endpoint::{EndpointClass, Operation, TargetKind};
use crate::gate::Verdict;

/// The paths of `hidden`.
pub(super) const HIDDEN: Label = 0;
/// The patterns of `exec.protect`.
pub(super) const PROTECT: Label = 1;

const ABSENT: u32 = u32::MAX;

/// What a label is to a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Paths,
    NotPaths,
    Values,
}

/// What of a rule the tables know.
#[derive(Debug, Default)]
struct RuleLabels {
    paths: Option<Label>,
    not_paths: Option<Label>,
    values: Vec<Label>,
    /// A label of images.
    image: Option<Label>,
}

/// Operations for which the same rules come in the same order.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) operations: Vec<Operation>,
    steps: Vec<usize>,
    /// Place of each rule among the steps.
    order: Vec<u32>,
    /// Places of the steps that ask for no path.
    pathless: Vec<u32>,
    changes: bool,
    fail_closed: bool,
}

/// Labels of lists, so that equal lists have one.
type Lists<'p> = Map<&'p [Glob], Label>;

/// The rules over paths, and their labels.
#[derive(Debug)]
pub(super) struct Rules<'p> {
    policy: &'p CompiledPolicy,
    labels: Vec<Vec<(usize, Role)>>,
    rules: Vec<RuleLabels>,
    pub(super) groups: Vec<Group>,
}

/// What comes out for a region: every decision that is possible.
#[derive(Debug, Default, Clone)]
pub(super) struct Outcome {
    /// The verdicts, and the rules that they come from.
    possible: Vec<(Verdict, Option<usize>)>,
    /// Rules of which is not known whether they match or what they say.
    uncertain: Vec<(usize, Why)>,
    /// Whether it hangs on the operation itself, so that the gate must be asked for each.
    pub(super) by_operation: bool,
    /// Whether it hangs on the image.
    pub(super) by_image: bool,
}

impl Outcome {
    /// Returns the verdict if there is only one, and otherwise what makes it uncertain.
    pub(super) fn verdict(&self) -> Result<Verdict, (Option<usize>, Why)> {
        let Some(&(first, rule)) = self.possible.first() else { return Ok(Verdict::Block) };
        if self.possible.iter().any(|&(verdict, _)| verdict != first)
            && let Some(&(rule, why)) = self.uncertain.first()
        {
            return Err((Some(rule), why));
        }
        match first {
            Verdict::Allow | Verdict::Block => Ok(first),
            Verdict::RequireApproval => Err((rule, Why::Approval)),
            Verdict::DryRun => Err((rule, Why::DryRun)),
        }
    }
}

impl<'p> Rules<'p> {
    /// Gives labels to the lists of the first rules of a policy, and puts their patterns into the automaton.
    pub(super) fn collect(
        policy: &'p CompiledPolicy,
        hidden: &[Vec<u8>],
        part: Part,
        roots: (NodeId, NodeId),
        splitter: &mut Splitter,
    ) -> Result<Self, TooLarge> {
        let mut all =
            Self { policy, labels: vec![Vec::new(), Vec::new()], rules: Vec::new(), groups: Vec::new() };
        for path in hidden {
            if is_tree(path) {
                splitter.insert_tree(roots.0, path, HIDDEN)?;
            } else if path == b"/" {
                splitter.insert(roots.0, &Glob::literal(path, Separator::Slash), HIDDEN)?;
            }
        }
        for glob in policy.protect.iter().flatten() {
            splitter.insert(roots.0, glob, PROTECT)?;
        }
        let mut used = vec![false; policy.rules.len()];
        for operation in path_operations() {
            let steps =
                policy.programs.get(usize::from(operation as u8)).map_or(&[][..], |program| &program.steps);
            for step in steps.iter().filter(|step| part.has(step.rule)) {
                if let Some(slot) = used.get_mut(usize::from(step.rule)) {
                    *slot = true;
                }
            }
        }
        let mut images = Lists::default();
        let mut lists = Lists::default();
        for (at, (rule, used)) in policy.rules.iter().zip(used).enumerate() {
            let labels = if used {
                all.label(at, rule, roots, splitter, (&mut lists, &mut images))?
            } else {
                RuleLabels::default()
            };
            all.rules.push(labels);
        }
        all.group(part);
        Ok(all)
    }

    fn label(
        &mut self,
        at: usize,
        rule: &'p CompiledRule,
        roots: (NodeId, NodeId),
        splitter: &mut Splitter,
        (lists, images): (&mut Lists<'p>, &mut Lists<'p>),
    ) -> Result<RuleLabels, TooLarge> {
        let mut found = RuleLabels::default();
        let globs = [
            (rule.path_set.and(rule.path_globs.as_deref()), Role::Paths),
            (rule.not_path_set.map(|_set| &*rule.not_path_globs), Role::NotPaths),
        ];
        for (globs, role) in globs {
            let Some(globs) = globs else { continue };
            let label = match lists.get(globs) {
                Some(&label) => label,
                None => {
                    let label = self.fresh();
                    lists.insert(globs, label);
                    globs.iter().try_for_each(|glob| splitter.insert(roots.0, glob, label))?;
                    label
                }
            };
            self.uses(label, at, role);
            *(if role == Role::Paths { &mut found.paths } else { &mut found.not_paths }) = Some(label);
        }
        for list in &rule.values {
            let label = self.fresh();
            for value in list.iter().filter(|value| value.starts_with('/')) {
                splitter.insert(roots.0, &Glob::literal(value.as_bytes(), Separator::Slash), label)?;
            }
            self.uses(label, at, Role::Values);
            found.values.push(label);
        }
        if let Some(globs) = rule.executables.as_deref() {
            let next = index(images.len());
            let label = *images.entry(globs).or_insert(next);
            if label == next {
                globs.iter().try_for_each(|glob| splitter.insert(roots.1, glob, label))?;
            }
            found.image = Some(label);
        }
        Ok(found)
    }

    fn fresh(&mut self) -> Label {
        self.labels.push(Vec::new());
        index(self.labels.len() - 1)
    }

    fn uses(&mut self, label: Label, rule: usize, role: Role) {
        if let Some(list) = self.labels.get_mut(label as usize) {
            list.push((rule, role));
        }
    }

    fn group(&mut self, part: Part) {
        for operation in path_operations() {
            let Some(program) = self.policy.programs.get(usize::from(operation as u8)) else { continue };
            let steps: Vec<usize> = program
                .steps
                .iter()
                .filter(|step| part.has(step.rule))
                .map(|step| usize::from(step.rule))
                .collect();
            let changes = matches!(operation.class(), EndpointClass::FsWrite | EndpointClass::FsDelete);
            // Arguments are known for no other operation.
            let exec = operation == Operation::Exec;
            let same = |group: &&mut Group| {
                let first = group.operations.first().copied();
                group.steps == steps
                    && group.changes == changes
                    && group.fail_closed == program.fail_closed
                    && (first == Some(Operation::Exec)) == exec
            };
            if let Some(group) = self.groups.iter_mut().find(same) {
                group.operations.push(operation);
                continue;
            }
            let mut order = vec![ABSENT; self.rules.len()];
            let mut pathless = Vec::new();
            for (at, &rule) in steps.iter().enumerate() {
                if let Some(slot) = order.get_mut(rule) {
                    *slot = index(at);
                }
                if self.rules.get(rule).is_none_or(|labels| labels.paths.is_none()) {
                    pathless.push(index(at));
                }
            }
            let fail_closed = program.fail_closed;
            let operations = vec![operation];
            self.groups.push(Group { operations, steps, order, pathless, changes, fail_closed });
        }
    }

    fn rule(&self, at: usize) -> Option<(&RuleLabels, &CompiledRule, &Rule)> {
        Some((self.rules.get(at)?, self.policy.rules.get(at)?, self.policy.policy().rules().get(at)?))
    }

    /// Returns the labels of a region that a group of operations asks for.
    pub(super) fn relevant(&self, region: &[Label], group: &Group) -> Vec<Label> {
        let asks = |label: &Label| match *label {
            HIDDEN => true,
            PROTECT => group.changes,
            label => {
                let uses = self.labels.get(label as usize).map_or(&[][..], Vec::as_slice);
                uses.iter().any(|&(rule, _)| group.order.get(rule).is_some_and(|&place| place != ABSENT))
            }
        };
        region.iter().copied().filter(asks).collect()
    }

    /// Returns whether some operation asks for a rule.
    pub(super) fn uses_rule(&self, at: usize) -> bool {
        let place = |group: &Group| group.order.get(at).copied().unwrap_or(ABSENT);
        self.groups.iter().any(|group| place(group) != ABSENT)
    }

    /// Returns whether a rule matches wherever its paths do.
    fn is_definite(&self, at: usize) -> bool {
        self.rule(at).is_some_and(|(labels, rule, _)| labels.not_paths.is_none() && !rule.narrow)
    }

    /// Returns what the rules say about paths with these labels. Without an image, its labels are not known.
    pub(super) fn evaluate(&self, region: &[Label], group: &Group, image: Option<&[Label]>) -> Outcome {
        let mut out = Outcome::default();
        let has = |label: Label| region.binary_search(&label).is_ok();
        if has(HIDDEN) || (group.changes && has(PROTECT)) || group.fail_closed {
            out.possible.push((Verdict::Block, None));
            return out;
        }
        for place in self.candidates(region, group) {
            let Some(&at) = group.steps.get(place as usize) else { continue };
            let Some((labels, rule, source)) = self.rule(at) else { continue };
            if labels.not_paths.is_some_and(has) || !labels.values.iter().all(|&label| has(label)) {
                continue;
            }
            let mut certain = true;
            if let Some(label) = labels.image {
                out.by_image = true;
                match image {
                    None => {
                        out.uncertain.push((at, Why::Image));
                        certain = false;
                    }
                    Some(image) if image.binary_search(&label).is_ok() => {}
                    Some(_) => continue,
                }
            }
            if rule.argv.is_some() {
                // Nothing else has arguments.
                if group.operations.first() != Some(&Operation::Exec) {
                    continue;
                }
                out.uncertain.push((at, Why::Arguments));
                certain = false;
            }
            self.say(&mut out, at, rule.effect, source);
            if certain {
                return out;
            }
        }
        out.possible.push((self.policy.policy().default_verdict(), None));
        out
    }

    /// The places of the steps whose paths a region is in, in order.
    fn candidates(&self, region: &[Label], group: &Group) -> Vec<u32> {
        let mut places = group.pathless.clone();
        for &(rule, role) in region.iter().filter_map(|&label| self.labels.get(label as usize)).flatten() {
            let place = group.order.get(rule).copied().unwrap_or(ABSENT);
            if role == Role::Paths && place != ABSENT {
                places.push(place);
            }
        }
        places.sort_unstable();
        places.dedup();
        places
    }

    /// Adds what a rule says where it matches.
    fn say(&self, out: &mut Outcome, at: usize, effect: Verdict, rule: &Rule) {
        // Nothing is stricter than a block.
        if effect == Verdict::Block || (rule.endpoint.is_none() && rule.dataflow.is_none()) {
            out.possible.push((effect, Some(at)));
            return;
        }
        let by_path =
            rule.endpoint.as_ref().is_some_and(|endpoint| {
                !endpoint.path_allowlist.is_empty() || !endpoint.path_denylist.is_empty()
            }) || rule.dataflow.as_ref().is_some_and(|dataflow| !dataflow.destination_values.is_empty());
        if by_path || !out.possible.is_empty() || !out.uncertain.is_empty() {
            out.uncertain.push((at, Why::Constraint));
            out.possible.extend([(Verdict::Allow, Some(at)), (Verdict::Block, Some(at))]);
        } else {
            out.by_operation = true;
            out.possible.push((effect, Some(at)));
        }
    }
}

/// Which steps can still be reached once some labels are settled.
#[derive(Debug)]
pub(super) struct View {
    /// Nothing matters any more.
    over: bool,
    /// Of each group, how many steps.
    stops: Vec<u32>,
    /// Rules that cannot match any more, sorted.
    dead: Vec<usize>,
}

/// Labels matter as long as a step that asks for them can be reached.
#[derive(Debug)]
pub(super) struct Reachable<'r, 'p>(pub(super) &'r Rules<'p>);

impl Reachable<'_, '_> {
    fn live(&self, view: &View, label: Label) -> bool {
        let rules = self.0;
        if view.over || label == HIDDEN {
            return label == HIDDEN;
        }
        if label == PROTECT {
            return true;
        }
        let uses = rules.labels.get(label as usize).map_or(&[][..], Vec::as_slice);
        uses.iter().any(|&(rule, role)| {
            // What keeps a rule dead must not be forgotten.
            let counts = role == Role::NotPaths || view.dead.binary_search(&rule).is_err();
            let place = |group: &Group| group.order.get(rule).copied().unwrap_or(ABSENT);
            counts && rules.groups.iter().zip(&view.stops).any(|(group, &stop)| place(group) < stop)
        })
    }
}

impl Pruning for Reachable<'_, '_> {
    type View = View;

    fn settle(&mut self, done: &mut Vec<Label>) -> View {
        let rules = self.0;
        let has = |label: Label| done.binary_search(&label).is_ok();
        let mut view = View { over: has(HIDDEN), stops: Vec::new(), dead: Vec::new() };
        let protected = has(PROTECT);
        view.stops.extend(rules.groups.iter().map(|group| {
            let over = group.fail_closed || (group.changes && protected);
            if over { 0 } else { index(group.steps.len()) }
        }));
        for &(rule, role) in done.iter().filter_map(|&label| rules.labels.get(label as usize)).flatten() {
            match role {
                Role::NotPaths => view.dead.push(rule),
                Role::Paths if rules.is_definite(rule) => {
                    for (group, stop) in rules.groups.iter().zip(&mut view.stops) {
                        let place = group.order.get(rule).copied().unwrap_or(ABSENT);
                        *stop = (*stop).min(place.saturating_add(1));
                    }
                }
                Role::Paths | Role::Values => {}
            }
        }
        view.dead.sort_unstable();
        done.retain(|&label| self.live(&view, label));
        view
    }

    fn wanted(&self, view: &View, label: Label) -> bool {
        self.live(view, label)
    }
}

/// Operations on paths.
pub(super) fn path_operations() -> impl Iterator<Item = Operation> {
    Operation::ALL.iter().copied().filter(|operation| operation.target_kind() == TargetKind::Path)
}

/// Returns whether a hidden path is one that a resolved path can be at or below.
pub(super) fn is_tree(path: &[u8]) -> bool {
    let mut parts = path.split(|&byte| byte == b'/');
    parts.next() == Some(b"") && !parts.any(|part| matches!(part, b"" | b"." | b".."))
}
