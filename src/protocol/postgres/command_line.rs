//! The start-up parameter `options`: a command line for PostgreSQL's own process, of which only settings are read.

/// The settings of a command line, in its order; `None` where it has anything else.
///
/// Words are cut as PostgreSQL cuts them (`pg_split_opts`, src/backend/utils/init/postinit.c), and a setting is one of its
/// `-c name=value`, `-cname=value` and `--name=value` (`process_postgres_switches`, src/backend/tcop/postgres.c; `ParseLongOption`),
/// where a `-` in a name is a `_`.
pub fn settings(command_line: &str) -> Option<Vec<(String, String)>> {
    let mut words = words(command_line).into_iter();
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--") {
            Some(setting) => setting.to_owned(),
            None => match word.strip_prefix("-c")? {
                "" => words.next()?,
                attached => attached.to_owned(),
            },
        };
        let (name, value) = setting.split_once('=')?;
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Some(settings)
}

/// A backslash takes the next character for itself.
fn words(command_line: &str) -> Vec<String> {
    // C's isspace, in the locale "C".
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r');
    let (mut words, mut word, mut is_escaped) = (Vec::new(), None::<String>, false);
    for c in command_line.chars() {
        if is_space(c) && !is_escaped {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        if c == '\\' && !is_escaped {
            is_escaped = true;
        } else {
            is_escaped = false;
            word.push(c);
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_in_each_form_that_postgresql_takes() {
        let own = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            Some(pairs.collect::<Vec<_>>())
        };
        for (command_line, expected) in [
            ("", &[][..]),
            (" \t ", &[]),
            ("-c search_path=shop", &[("search_path", "shop")]),
            ("-csearch_path=shop", &[("search_path", "shop")]),
            ("--statement-timeout=5s", &[("statement_timeout", "5s")]),
            ("-c DateStyle=", &[("DateStyle", "")]),
            ("-c a=b=c", &[("a", "b=c")]),
            (
                r"-c search_path=a,\ b -c application_name=back\\slash",
                &[("search_path", "a, b"), ("application_name", r"back\slash")],
            ),
            // What a subscription of PostgreSQL's sends.
            (
                "-c datestyle=ISO -c intervalstyle=postgres -c extra_float_digits=3",
                &[
                    ("datestyle", "ISO"),
                    ("intervalstyle", "postgres"),
                    ("extra_float_digits", "3"),
                ],
            ),
        ] {
            assert_eq!(settings(command_line), own(expected), "{command_line}");
        }
    }

    #[test]
    fn whatever_else_a_server_takes_is_no_setting() {
        for command_line in [
            "-c",
            "-c name",
            "--name",
            "-d 5",
            "-B 16",
            "search_path=shop",
            "-S 64",
            "-W 60",
            "-P",
            "-cx=1 -e",
            "- c=d",
            r"\ ",
        ] {
            assert_eq!(settings(command_line), None, "{command_line}");
        }
    }
}
