//! The kinds of resources that administrators name, and what can be done with each: the one list that the API and `ctl` share.

/// A kind of resource.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// As a document writes it.
    pub name: &'static str,
    /// What else people type.
    pub aliases: &'static [&'static str],
    /// Why no document of this kind is written, and what to do instead; `None` when it can be.
    pub not_written: Option<&'static str>,
    /// The same for removing one.
    pub not_removed: Option<&'static str>,
}

/// Those that can be written come first, in the order in which a backup of them is read back.
pub const KINDS: &[Kind] = &[
    Kind {
        name: "role",
        aliases: &["roles"],
        not_written: None,
        not_removed: None,
    },
    Kind {
        name: "user",
        aliases: &["users"],
        not_written: None,
        not_removed: None,
    },
    Kind {
        name: "db",
        aliases: &["dbs"],
        not_written: None,
        not_removed: None,
    },
    Kind {
        name: "lock",
        aliases: &["locks"],
        not_written: None,
        not_removed: None,
    },
    Kind {
        name: "node",
        aliases: &["nodes"],
        not_written: Some("a node joins with a token; make one with: ctl tokens add --type=db"),
        not_removed: None,
    },
    Kind {
        name: "token",
        aliases: &["tokens"],
        not_written: Some("auth makes tokens and keeps their hashes only; make one with: ctl tokens add --type=db"),
        not_removed: None,
    },
    Kind {
        name: "cert_authority",
        aliases: &["cert_authorities", "ca", "cas"],
        not_written: Some("auth makes the cluster's authorities itself, at its first start"),
        not_removed: Some("the cluster cannot be without one of its authorities"),
    },
    Kind {
        name: "db_server",
        aliases: &["db_servers"],
        not_written: Some(
            "an agent announces the databases of its own configuration; see: postern db configure create --help",
        ),
        not_removed: Some(
            "it is what an agent serves; take the database out of the agent's configuration, or remove the agent: ctl rm \
             node/NAME",
        ),
    },
];

/// The kind that `word` is.
///
/// # Errors
/// None is called so; the sentence names those that there are.
pub fn find(word: &str) -> Result<&'static Kind, String> {
    let asked = word.trim().to_ascii_lowercase();
    KINDS
        .iter()
        .find(|kind| kind.name == asked || kind.aliases.contains(&asked.as_str()))
        .ok_or_else(|| {
            let names: Vec<&str> = KINDS.iter().map(|kind| kind.name).collect();
            format!("{word:?} is not a kind of resource; there are {}", names.join(", "))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_found_by_each_of_its_names_and_another_is_told_which_there_are() {
        for (word, name) in [("role", "role"), ("Users", "user"), ("cas", "cert_authority")] {
            assert_eq!(find(word).map(|kind| kind.name), Ok(name));
        }
        let said = find("roel").unwrap_err();
        assert!(said.contains("\"roel\"") && said.contains("db_server"), "{said}");
    }
}
