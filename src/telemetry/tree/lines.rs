//! The tree as lines: what each has to say, in the order in which it is read. How it looks is whose who prints it.

use super::{Step, StepKind, TraceTree, length};
use std::collections::HashSet;

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Section {
    /// What is not in the tree.
    Gap,
    Step,
    /// Where it is now.
    Now,
    /// What to do about the line before.
    Next,
}

/// One line of a printed tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub section: Section,
    pub depth: u32,
    /// Since the connection began.
    pub at_us: Option<i64>,
    /// The process; of a gap, none.
    pub node: String,
    /// What happened, to whom; how long it took; what came of it. Those that have nothing to say are not there.
    pub texts: Vec<String>,
}

impl TraceTree {
    /// The gaps, the steps, and where it is now. The states of an actor are told on the line of what brought them about.
    pub fn lines(&self) -> impl Iterator<Item = Line> {
        let gaps = self
            .gaps
            .iter()
            .map(|gap| Line::of(Section::Gap, String::new(), gap.clone()));
        let states = self.states();
        let steps = self.steps.iter().enumerate().filter_map(move |(place, step)| {
            let folded = states.get(place)?.as_ref()?;
            let mut line = self.line(step);
            line.texts
                .extend((!folded.is_empty()).then(|| self.passed_through(step, folded)));
            Some(line)
        });
        let now = self.now.iter().flat_map(|standing| {
            let line = Line::of(Section::Now, standing.node.clone(), standing.sentence.clone());
            let next = standing.next.clone();
            let next = next.map(|next| Line {
                depth: 1,
                ..Line::of(Section::Next, standing.node.clone(), next)
            });
            std::iter::once(line).chain(next)
        });
        gaps.chain(steps).chain(now)
    }

    /// Each step as a line of its own, also the states: whoever follows a connection is told each of them when it comes.
    pub fn news(&self) -> impl Iterator<Item = Line> {
        self.steps.iter().map(|step| self.line(step))
    }

    fn line(&self, step: &Step) -> Line {
        Line {
            section: Section::Step,
            depth: step.depth,
            at_us: Some(step.at_us),
            node: step.node.clone(),
            texts: self.texts(step),
        }
    }

    /// Of each step the states that are told with it; none of a state that is told elsewhere.
    fn states(&self) -> Vec<Option<Vec<usize>>> {
        let mut folded: Vec<Option<Vec<usize>>> = self.steps.iter().map(|_| Some(Vec::new())).collect();
        let causes: HashSet<usize> = self.steps.iter().filter_map(|step| step.parent).collect();
        for (place, step) in self.steps.iter().enumerate() {
            let Some(parent) = step.parent.filter(|_| step.kind == StepKind::State) else {
                continue;
            };
            let is_same = self.steps.get(parent).is_some_and(|parent| parent.to == step.to);
            if !is_same || causes.contains(&place) {
                continue;
            }
            if let Some(Some(states)) = folded.get_mut(parent) {
                states.push(place);
                folded[place] = None;
            }
        }
        folded
    }

    /// `greeting, opening at +3.1ms, relaying at +12.0ms`
    fn passed_through(&self, step: &Step, states: &[usize]) -> String {
        let mut before = since_begin(step.at_us);
        let mut said = Vec::new();
        for state in states.iter().filter_map(|place| self.steps.get(*place)) {
            let at = since_begin(state.at_us);
            said.push(if at == before {
                state.what.clone()
            } else {
                format!("{} at {at}", state.what)
            });
            before = at;
        }
        said.join(", ")
    }

    fn texts(&self, step: &Step) -> Vec<String> {
        // Whoever the cause went to sent it; another sender is worth a word.
        let parent = step.parent.and_then(|parent| self.steps.get(parent));
        let expected = parent.map(|parent| parent.to.as_str());
        let from = step.from.as_deref().filter(|from| Some(*from) != expected);
        let (what, to) = (&step.what, &step.to);
        let subject = match (step.kind, from) {
            (StepKind::Message, Some(from)) => format!("{what}: {from} -> {to}"),
            (StepKind::Message, None) => format!("{what} -> {to}"),
            (StepKind::Arrived, _) => format!("{what} arrived at {to}"),
            (StepKind::Started, _) => format!("{to} began"),
            (StepKind::Exited, _) => format!("{to} ended: {what}"),
            (StepKind::State, _) => format!("{to} is {what}"),
        };
        let lasted = step.lasted();
        let mut texts = vec![subject];
        texts.extend((!lasted.is_empty()).then_some(lasted));
        texts
    }
}

/// A moment of the tree: `+0.0ms`, `+12.3ms`, `+4.2s`, `+1m05s`.
pub fn since_begin(at_us: i64) -> String {
    let sign = if at_us < 0 { '-' } else { '+' };
    let micros = at_us.unsigned_abs();
    let (millis, seconds) = (micros / 1000, micros / 1_000_000);
    match seconds {
        0 => format!("{sign}{millis}.{}ms", micros % 1000 / 100),
        1..60 => format!("{sign}{seconds}.{}s", millis % 1000 / 100),
        60..3600 => format!("{sign}{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{sign}{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

impl Step {
    fn lasted(&self) -> String {
        let mut said = Vec::new();
        said.extend(self.queued_us.map(|queued| format!("queued {}", length(queued))));
        said.extend(self.busy_us.map(|busy| format!("busy {}", length(busy))));
        said.extend(
            self.answered_us
                .map(|after| format!("answered after {}", length(after))),
        );
        if self.dropped {
            said.push("never handled".to_owned());
        }
        if self.is_open() {
            said.push("under way".to_owned());
        }
        said.join(", ")
    }
}

impl Line {
    fn of(section: Section, node: String, text: String) -> Self {
        Self {
            section,
            depth: 0,
            at_us: None,
            node,
            texts: vec![text],
        }
    }
}
