//! What is logged: a level, or a list of parts of the program with levels.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// Our own targets: the paths of the source, as `component` in a line has them.
const OWN: &str = "postern";
/// Of other crates nothing below is logged, whatever is asked for: at `trace` some print what they carry.
const OTHERS_AT_MOST: LevelFilter = LevelFilter::DEBUG;
/// A list is typed by a person; more is a mistake.
const DIRECTIVES_MAX: usize = 64;
const ALLOWED: &str = "write a level (off, error, warn, info, debug or trace), or parts of the program with levels, as in \
                       info,postern::actors::tunnels=debug";

/// Directives that were understood, and the filter that they stand for.
#[derive(Debug, Clone)]
pub(super) struct Directives {
    pub text: String,
    pub filter: Targets,
}

/// # Errors
/// A sentence that names what is wrong and what is allowed.
pub(super) fn parse(text: &str) -> Result<Directives, String> {
    let refuse = |part: &str, why: &str| format!("the log level {text:?} is refused: {part:?} {why}; {ALLOWED}");
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if parts.len() > DIRECTIVES_MAX {
        return Err(format!(
            "the log level has {} parts, and {DIRECTIVES_MAX} are allowed; {ALLOWED}",
            parts.len()
        ));
    }
    let (mut general, mut of_targets) = (None, Vec::new());
    for part in &parts {
        match part.split_once('=') {
            None => {
                let given = level_of(part).ok_or_else(|| refuse(part, "is not a level"))?;
                if general.replace(given).is_some() {
                    return Err(refuse(part, "is a second level for everything"));
                }
            }
            Some((target, word)) => {
                let (target, word) = (target.trim(), word.trim());
                if !is_target(target) {
                    return Err(refuse(part, "does not name a part of the program"));
                }
                of_targets.push((target, level_of(word).ok_or_else(|| refuse(word, "is not a level"))?));
            }
        }
    }
    let general = general.unwrap_or(LevelFilter::OFF);
    let mut filter = Targets::new()
        .with_default(general.min(OTHERS_AT_MOST))
        .with_target(OWN, general);
    for (target, given) in of_targets {
        let is_own = target == OWN || target.starts_with("postern::");
        filter = filter.with_target(target, if is_own { given } else { given.min(OTHERS_AT_MOST) });
    }
    Ok(Directives {
        text: parts.join(",").to_ascii_lowercase(),
        filter,
    })
}

fn level_of(word: &str) -> Option<LevelFilter> {
    Some(match word.to_ascii_lowercase().as_str() {
        "off" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => return None,
    })
}

fn is_target(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    #[test]
    fn a_level_holds_for_everything_and_a_part_may_have_its_own() {
        let filter = parse("warn, postern::actors::tunnels=debug")
            .expect("directives")
            .filter;
        assert!(filter.would_enable("postern::actors::ca", &Level::WARN));
        assert!(!filter.would_enable("postern::actors::ca", &Level::INFO));
        assert!(filter.would_enable("postern::actors::tunnels", &Level::DEBUG));
        assert_eq!(parse("INFO").expect("a level").text, "info");
    }

    #[test]
    fn other_crates_say_nothing_below_debug_whatever_is_asked() {
        let crates = [
            "hyper::proto",
            "h2",
            "rustls::conn",
            "yamux::connection",
            "tokio_rustls",
            "actix",
            "log",
        ];
        for directives in [
            "trace",
            "trace,hyper=trace,h2=trace,rustls=trace,rustls::conn=trace,yamux=trace",
        ] {
            let filter = parse(directives).expect("directives").filter;
            for target in crates {
                assert!(!filter.would_enable(target, &Level::TRACE), "{target} by {directives}");
                assert!(filter.would_enable(target, &Level::DEBUG), "{target} by {directives}");
            }
            assert!(filter.would_enable("postern::actors::ca", &Level::TRACE));
        }
    }

    #[test]
    fn what_is_no_directive_is_refused_with_what_is_allowed() {
        for (text, named) in [
            ("verbose", "\"verbose\" is not a level"),
            ("", "\"\" is not a level"),
            ("info,", "\"\" is not a level"),
            ("info,debug", "second level"),
            ("postern=loud", "\"loud\" is not a level"),
            ("[span]=info", "does not name a part"),
            ("=info", "does not name a part"),
        ] {
            let refused = parse(text).expect_err(text);
            assert!(refused.contains(named), "{refused}");
            assert!(refused.contains("off, error, warn, info, debug or trace"), "{refused}");
        }
        assert!(
            parse(&"info,".repeat(100))
                .expect_err("too long")
                .contains("64 are allowed")
        );
    }
}
