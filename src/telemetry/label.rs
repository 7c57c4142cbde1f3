//! Names of a closed set, as numbers: of messages, and of the states of actors. They come from the source, never from input,
//! so that the table is as long as the program makes it.

use serde::{Serialize, Serializer};
use std::collections::HashMap;
use std::fmt;
use std::sync::{LazyLock, PoisonError, RwLock};

/// One name of the program's.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Label(u16);

#[derive(Default)]
struct Table {
    names: Vec<&'static str>,
    numbers: HashMap<&'static str, u16>,
}

static TABLE: LazyLock<RwLock<Table>> = LazyLock::new(RwLock::default);

impl Label {
    /// The label of a name. It takes a lock: where it matters, keep the label.
    pub fn of(name: &'static str) -> Self {
        if let Some(number) = TABLE.read().unwrap_or_else(PoisonError::into_inner).numbers.get(name) {
            return Self(*number);
        }
        let mut table = TABLE.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = table.numbers.get(name) {
            return Self(*number);
        }
        // Some hundred names are in the source; beyond the number's range they would share the last one.
        let number = u16::try_from(table.names.len()).unwrap_or(u16::MAX);
        table.names.push(name);
        table.numbers.insert(name, number);
        Self(number)
    }

    pub const fn number(self) -> u16 {
        self.0
    }

    /// The label with this number, if there is one.
    pub fn numbered(number: u16) -> Option<Self> {
        let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
        (usize::from(number) < table.names.len()).then_some(Self(number))
    }

    /// The label of a name that is in use already.
    #[cfg(feature = "fault-points")]
    pub fn known(name: &str) -> Option<Self> {
        let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
        table.numbers.get(name).copied().map(Self)
    }

    pub fn name(self) -> &'static str {
        let table = TABLE.read().unwrap_or_else(PoisonError::into_inner);
        table.names.get(usize::from(self.0)).copied().unwrap_or("?")
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_label_and_a_label_its_name() {
        let label = Label::of("RegisterSession");
        assert_eq!(label, Label::of("RegisterSession"));
        assert_ne!(label, Label::of("SessionClosed"));
        assert_eq!(label.name(), "RegisterSession");
        assert_eq!(Label::numbered(label.number()), Some(label));
        assert_eq!(Label::numbered(u16::MAX), None);
    }
}
