//! The tree as lines: what each has to say, in the order in which it is read. How it looks is whose who prints it.

use super::{Step, StepKind, TraceTree, length};

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
    /// What, who, and how long; those that have nothing to say are not there.
    pub texts: Vec<String>,
}

impl TraceTree {
    /// The gaps, the steps, and where it is now.
    pub fn lines(&self) -> impl Iterator<Item = Line> {
        let gaps = self
            .gaps
            .iter()
            .map(|gap| Line::of(Section::Gap, String::new(), gap.clone()));
        let steps = self.steps.iter().map(|step| Line {
            section: Section::Step,
            depth: step.depth,
            at_us: Some(step.at_us),
            node: step.node.clone(),
            texts: self.texts(step),
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

    fn texts(&self, step: &Step) -> Vec<String> {
        // Whoever the cause went to sent it; another sender is worth a word.
        let parent = step.parent.and_then(|parent| self.steps.get(parent));
        let expected = parent.map(|parent| parent.to.as_str());
        let from = step.from.as_deref().filter(|from| Some(*from) != expected);
        let who = match (step.kind, from) {
            (StepKind::Message | StepKind::Arrived, Some(from)) => format!("{from} -> {}", step.to),
            (StepKind::Message, None) => format!("-> {}", step.to),
            _ => step.to.clone(),
        };
        let what = match step.kind {
            StepKind::Message => step.what.clone(),
            StepKind::Arrived => format!("{} arrived", step.what),
            StepKind::Started | StepKind::Exited => step.what.clone(),
            StepKind::State => format!("is {}", step.what),
        };
        let lasted = step.lasted();
        let mut texts = vec![what, who];
        texts.extend((!lasted.is_empty()).then_some(lasted));
        texts
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
