//! The start-up parameters that a client may set: an allow-list, because a parameter of the start-up packet is a setting
//! made before anybody decided anything, and one that is ignored is one that the client believes in.

use super::command_line;
use super::error::quoted;
use super::startup::{DATABASE, PROTOCOL_OPTION_PREFIX, REPLICATION, StartupMessage, USER};
use crate::model::{Refusal, RefusalKind, Replication};

/// Settings that are passed on to PostgreSQL; their case does not matter. All are ones that any database user may also
/// change with SET, and that decide neither who someone is nor what is logged. `search_path` is one of them: it is where
/// the JDBC driver's `currentSchema` arrives, and it acts on the person's own session only.
pub const ALLOWED_PARAMETERS: &[&str] = &[
    "application_name",
    "bytea_output",
    "client_encoding",
    "client_min_messages",
    "DateStyle",
    "default_text_search_config",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "extra_float_digits",
    "geqo",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "IntervalStyle",
    "jit",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "lock_timeout",
    "plan_cache_mode",
    "search_path",
    "standard_conforming_strings",
    "statement_timeout",
    "TimeZone",
    "transaction_timeout",
    "xmloption",
];

/// Spellings of "no" and "yes" for `replication`, as PostgreSQL's documentation has them. It also takes abbreviations of them,
/// which are refused here: two readers of one word must not disagree on whether it opens a replication connection.
const NO: &[&str] = &["false", "off", "no", "0"];
const YES: &[&str] = &["true", "on", "yes", "1"];

/// Why a parameter is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// `options` is a command line. A proxy reads the settings of it; as it is, it goes nowhere.
    Options,
    /// A value of `replication` that is neither "no", "yes" nor `database`.
    Replication,
    /// `role` and `session_authorization` change who the session is.
    Identity,
    /// Not on the list.
    NotOnTheList,
}

/// What happens to one start-up parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParameterRule {
    /// It goes to PostgreSQL as it is.
    Pass,
    /// It is used here (`user`, `database`, `_pq_.` options) or says only what is so anyway (empty `options`,
    /// `replication=off`).
    Omit,
    /// It opens a replication connection, which reads every database past all grants: the roles are asked.
    Replicate(Replication),
    RefuseBecause(Reason),
}

impl ParameterRule {
    /// The rule for one parameter. A node that did not read the start-up packet itself asks again here.
    pub fn of(name: &str, value: &str) -> Self {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        // PostgreSQL compares these two exactly: `User` is a setting, and not one that exists.
        if name == USER || name == DATABASE || name.starts_with(PROTOCOL_OPTION_PREFIX) {
            Self::Omit
        } else if is("options") {
            match value.trim_ascii().is_empty() {
                true => Self::Omit,
                false => Self::RefuseBecause(Reason::Options),
            }
        } else if name == REPLICATION {
            let says = |words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word));
            if value == Replication::Logical.parameter() {
                Self::Replicate(Replication::Logical)
            } else if says(YES) {
                Self::Replicate(Replication::Physical)
            } else if says(NO) {
                Self::Omit
            } else {
                Self::RefuseBecause(Reason::Replication)
            }
        } else if is("role") || is("session_authorization") {
            Self::RefuseBecause(Reason::Identity)
        } else if ALLOWED_PARAMETERS.iter().any(|allowed| is(allowed)) {
            Self::Pass
        } else {
            Self::RefuseBecause(Reason::NotOnTheList)
        }
    }
}

impl Reason {
    fn refusal(self, name: &str) -> Refusal {
        let name = quoted(name);
        let (message, hint) = match self {
            Self::Options => (
                format!("the startup parameter {name} has something else than settings"),
                "Write each as -c name=value or --name=value, with a backslash before a space in a value; or unset PGOPTIONS.",
            ),
            Self::Replication => (
                format!("the startup parameter {name} has a value that is not carried"),
                "Use true or database for a replication connection, or leave it out.",
            ),
            Self::Identity => (
                format!("the startup parameter {name} is refused: it would change the database user"),
                "Connect as the database user that is wanted.",
            ),
            Self::NotOnTheList => (
                format!("the startup parameter {name} is not carried"),
                "Set it with SET after connecting.",
            ),
        };
        Refusal::new(RefusalKind::NotSupported, message).hint(hint)
    }
}

impl StartupMessage {
    /// The parameters for PostgreSQL's own start-up packet, in the client's order, without `user` and `database`, and with the
    /// settings of `options` as parameters of their own; or the ErrorResponse (0A000) that names the first one that is refused.
    pub fn passed_parameters(&self) -> Result<Vec<(String, String)>, Refusal> {
        let (mut passed, mut of_options) = (Vec::new(), Vec::new());
        for (name, value) in &self.parameters {
            match ParameterRule::of(name, value) {
                ParameterRule::Pass => passed.push((name.clone(), value.clone())),
                ParameterRule::RefuseBecause(Reason::Options) => of_options = settings_of(name, value)?,
                // Whether it may is decided before it is asked for: `replication`.
                ParameterRule::Omit | ParameterRule::Replicate(_) => {}
                ParameterRule::RefuseBecause(reason) => return Err(reason.refusal(name)),
            }
        }
        // PostgreSQL sets what is on the command line first, and what comes later over it (`process_startup_options`).
        for (name, value) in of_options.into_iter().rev() {
            if !passed.iter().any(|(other, _)| name.eq_ignore_ascii_case(other)) {
                passed.push((name, value));
            }
        }
        Ok(passed)
    }

    /// The replication connection that the client asks for, if it does. It is not among [`StartupMessage::passed_parameters`].
    pub fn replication(&self) -> Option<Replication> {
        self.parameters
            .iter()
            .find_map(|(name, value)| match ParameterRule::of(name, value) {
                ParameterRule::Replicate(replication) => Some(replication),
                _ => None,
            })
    }
}

/// Of `options`, settings that are carried, and nothing else.
fn settings_of(name: &str, command_line: &str) -> Result<Vec<(String, String)>, Refusal> {
    let settings = command_line::settings(command_line).ok_or_else(|| Reason::Options.refusal(name))?;
    for (setting, value) in &settings {
        match ParameterRule::of(setting, value) {
            ParameterRule::Pass => {}
            ParameterRule::RefuseBecause(reason) => return Err(reason.refusal(setting)),
            // Parameters of a start-up packet, which are no settings.
            ParameterRule::Omit | ParameterRule::Replicate(_) => return Err(Reason::NotOnTheList.refusal(setting)),
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(parameters: &[(&str, &str)]) -> StartupMessage {
        let own = |(name, value): &(&str, &str)| (String::from(*name), String::from(*value));
        StartupMessage {
            minor: 0,
            parameters: [("user", "alice")].iter().chain(parameters).map(own).collect(),
        }
    }

    #[test]
    fn allowed_parameters_pass_in_their_order_whatever_their_case() {
        let passed = startup(&[
            ("database", "app"),
            ("datestyle", "ISO, MDY"),
            ("APPLICATION_NAME", "psql"),
            ("_pq_.x", "1"),
            ("options", " "),
            ("replication", "OFF"),
        ])
        .passed_parameters()
        .expect("all are allowed");
        let names: Vec<_> = passed.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["datestyle", "APPLICATION_NAME"]);
    }

    #[test]
    fn a_replication_connection_is_told_from_all_others_and_no_value_of_it_is_guessed() {
        for (value, expected) in [
            ("true", Some(Replication::Physical)),
            ("ON", Some(Replication::Physical)),
            ("1", Some(Replication::Physical)),
            ("database", Some(Replication::Logical)),
            ("false", None),
            ("0", None),
        ] {
            let asked = startup(&[("replication", value), ("application_name", "walreceiver")]);
            assert_eq!(asked.replication(), expected, "{value}");
            let passed = asked.passed_parameters().expect("carried");
            assert_eq!(passed.len(), 1, "{value}: it is asked for apart from the others");
        }
        // PostgreSQL takes the first three for "yes", and reads `replication` in lower case only.
        for (name, value) in [
            ("replication", "t"),
            ("replication", "ye"),
            ("replication", "TRU"),
            ("replication", "Database"),
            ("replication", ""),
            ("Replication", "true"),
            ("REPLICATION", "off"),
        ] {
            let refused = startup(&[(name, value)]).passed_parameters().expect_err(value);
            assert_eq!(refused.kind.sqlstate(), "0A000");
            assert!(
                refused.message.contains(&quoted(name)) && refused.hint.is_some(),
                "{refused}"
            );
            assert_eq!(startup(&[(name, value)]).replication(), None);
        }
        assert_eq!(startup(&[]).replication(), None);
    }

    #[test]
    fn settings_of_options_pass_as_parameters_where_they_are_on_the_list_and_nothing_else_of_it() {
        let passed = startup(&[
            (
                "options",
                "-c search_path=a -c DateStyle=German --search-path=b -c datestyle=ISO",
            ),
            ("DATESTYLE", "SQL"),
        ]);
        let own = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            passed.passed_parameters().expect("all are allowed"),
            [own("DATESTYLE", "SQL"), own("search_path", "b")],
            "the last of each, and a parameter before an option"
        );
        for (options, named) in [
            ("-c search_path=a -c role=postgres", "role"),
            ("-c session-authorization=postgres", "session_authorization"),
            ("-c log_statement=none", "log_statement"),
            ("-c user=postgres", "user"),
            ("-c replication=true", "replication"),
            ("-c options=-d", "options"),
            ("-c search_path=a -d 5", "options"),
        ] {
            let refused = startup(&[("options", options)]).passed_parameters().expect_err(options);
            assert!(refused.message.contains(&quoted(named)), "{options}: {refused}");
        }
        assert_eq!(startup(&[("options", "-c replication=database")]).replication(), None);
    }

    #[test]
    fn options_role_and_session_authorization_are_refused_by_name() {
        for (name, value) in [
            ("options", "-d 5"),
            ("OPTIONS", "x=y"),
            ("role", "postgres"),
            ("Session_Authorization", "postgres"),
            ("log_statement", "none"),
            ("User", "postgres"),
            ("_PQ_.x", "1"),
            ("", "1"),
        ] {
            let refused = startup(&[(name, value)]).passed_parameters().expect_err(name);
            assert_eq!(refused.kind.sqlstate(), "0A000");
            assert!(refused.message.contains(&quoted(name)), "{refused}");
            assert!(refused.hint.is_some());
        }
    }
}
