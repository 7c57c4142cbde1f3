//! `status` and `env`: who one is, where, and until when.

use super::At;
use super::session::{expired, not_logged_in, now};
use crate::cli::ctl::{Format, print_as};
use crate::cli::names::Program;
use crate::cli::profile::{Credentials, Home, Profile};
use crate::cli::terminal::one_line;
use crate::cli::{Failure, Outcome};
use crate::model::Timestamp;
use serde_json::{Value, json};
use std::time::Duration;

/// A profile with what is kept of its login.
struct Shown {
    profile: Profile,
    credentials: Option<Credentials>,
    databases: Vec<String>,
}

impl Shown {
    fn of(home: &Home, mut profile: Profile) -> Result<Self, Failure> {
        let databases = home.databases(&profile).map_err(Failure::failed)?.into_iter();
        let live = databases.filter(|database| database.valid_until > now());
        let credentials = home.credentials(&profile).map_err(Failure::failed)?;
        if let Some(kept) = &credentials {
            // The profile has those of the proxy's last user.
            profile.roles = kept.claims.roles.iter().map(ToString::to_string).collect();
        }
        Ok(Self {
            credentials,
            databases: live.map(|database| database.service).collect(),
            profile,
        })
    }

    fn block(&self, current: bool, now: Timestamp) -> String {
        let until = match &self.credentials {
            Some(credentials) => valid_until(credentials.claims.valid_until, now),
            None => "[LOGGED OUT]".to_owned(),
        };
        let mut rows = vec![
            ("Profile URL:", format!("https://{}", self.profile.proxy)),
            ("Logged in as:", self.profile.user.clone()),
            ("Cluster:", self.profile.cluster.clone()),
            ("Roles:", self.profile.roles.join(", ")),
        ];
        if !self.databases.is_empty() {
            rows.push(("Databases:", self.databases.join(", ")));
        }
        rows.push(("Valid until:", until));
        let mut mark = if current { "> " } else { "  " };
        let mut text = String::new();
        for (name, value) in rows {
            text.push_str(&format!("{mark}{name:<20}{}\n", one_line(&value)));
            mark = "  ";
        }
        text
    }

    fn json(&self) -> Value {
        json!({
            "profile_url": format!("https://{}", self.profile.proxy),
            "username": self.profile.user,
            "cluster": self.profile.cluster,
            "roles": self.profile.roles,
            "databases": self.databases,
            "valid_until": self.credentials.as_ref().map(|credentials| credentials.claims.valid_until.to_string()),
        })
    }
}

/// `2026-01-31 12:00:00 +0000 UTC [valid for 11h52m0s]`
fn valid_until(end: Timestamp, now: Timestamp) -> String {
    let written = end.to_string();
    let date = written.get(..19).unwrap_or(&written).replace('T', " ");
    let left = if end > now {
        format!("valid for {}", in_hours(end.since(now)))
    } else {
        "EXPIRED".to_owned()
    };
    format!("{date} +0000 UTC [{left}]")
}

/// `11h52m0s`
fn in_hours(time: Duration) -> String {
    let seconds = time.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, _) => format!("{minutes}m{seconds}s"),
        _ => format!("{hours}h{minutes}m{seconds}s"),
    }
}

pub fn show(program: Program, format: Format) -> Outcome {
    let home = Home::of_environment().map_err(Failure::failed)?;
    // Whom the other commands are for: the environment may name another than the last one.
    let meant = At {
        proxy: None,
        user: None,
    };
    let current = meant.profile(&home)?;
    let current = current.map(|profile| Shown::of(&home, profile)).transpose()?;
    let others = home.profiles().map_err(Failure::failed)?.into_iter();
    let others = others.filter(|profile| {
        let same = |shown: &Shown| shown.profile.proxy == profile.proxy && shown.profile.user == profile.user;
        !current.as_ref().is_some_and(same)
    });
    let others = others
        .map(|profile| Shown::of(&home, profile))
        .collect::<Result<Vec<_>, _>>()?;
    if format == Format::Text {
        let blocks = current.iter().map(|shown| shown.block(true, now()));
        let blocks: Vec<String> = blocks
            .chain(others.iter().map(|shown| shown.block(false, now())))
            .collect();
        print!("{}", blocks.join("\n"));
    } else {
        let others: Vec<Value> = others.iter().map(Shown::json).collect();
        print_as(
            &json!({ "active": current.as_ref().map(Shown::json), "profiles": others }),
            format,
        )?;
    }
    valid(program, current.as_ref())
}

/// What is printed after a login.
pub fn show_login(program: Program, home: &Home, profile: &Profile) -> Outcome {
    let shown = Shown::of(home, profile.clone())?;
    print!("{}", shown.block(true, now()));
    valid(program, Some(&shown))
}

fn valid(program: Program, current: Option<&Shown>) -> Outcome {
    let Some(shown) = current else {
        return Err(not_logged_in(program, None));
    };
    match &shown.credentials {
        None => Err(not_logged_in(program, Some(&shown.profile.proxy))),
        Some(credentials) if credentials.claims.valid_until <= now() => {
            Err(expired(program, &shown.profile, credentials))
        }
        Some(_) => Ok(()),
    }
}

/// The variables that other commands of this program read.
pub fn environment(program: Program, unset: bool) -> Outcome {
    let prefix = if program == Program::Tsh { "TELEPORT" } else { "POSTERN" };
    if unset {
        print!("unset {prefix}_PROXY\nunset {prefix}_CLUSTER\n");
        return Ok(());
    }
    let home = Home::of_environment().map_err(Failure::failed)?;
    let current = home.current().map_err(Failure::failed)?;
    let profile = current.ok_or_else(|| not_logged_in(program, None))?;
    let word = super::connection::shell_word;
    print!(
        "export {prefix}_PROXY={}\nexport {prefix}_CLUSTER={}\n",
        word(&profile.proxy),
        word(&profile.cluster)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_has_the_rows_that_people_know() {
        let shown = Shown {
            profile: Profile {
                proxy: "proxy.example.com:443".to_owned(),
                user: "ali\u{1b}ce".to_owned(),
                cluster: "gate".to_owned(),
                roles: vec!["access".to_owned(), "auditor".to_owned()],
            },
            credentials: None,
            databases: vec!["orders".to_owned()],
        };
        assert_eq!(
            shown.block(true, Timestamp::from_secs(0)),
            "> Profile URL:        https://proxy.example.com:443\n  \
               Logged in as:       ali\\u{1b}ce\n  \
               Cluster:            gate\n  \
               Roles:              access, auditor\n  \
               Databases:          orders\n  \
               Valid until:        [LOGGED OUT]\n"
        );
        let end = Timestamp::parse_rfc3339("2026-01-31T12:00:00Z").unwrap();
        assert_eq!(
            valid_until(end, end - Duration::from_secs(11 * 3600 + 52 * 60)),
            "2026-01-31 12:00:00 +0000 UTC [valid for 11h52m0s]"
        );
        assert!(valid_until(end, end).ends_with("[EXPIRED]"));
    }
}
