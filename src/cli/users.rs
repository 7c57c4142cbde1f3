//! `postern ctl users`: people, their roles and traits, and the links by which they set a password.

use super::admin_client::AdminClient;
use super::ctl::{Format, print_as, table};
use super::terminal::{one_line, parse_duration};
use super::tokens::{PROXY_PLACEHOLDER, Program};
use super::{Failure, Outcome};
use crate::actors::accounts::InviteKind;
use crate::model::percent_encoded;
use crate::web::api::{AddUser, ResetUser, UpdateUser, UserInvited, UserStatuses, UserUpdated};
use clap::{Args, Subcommand};
use hyper::Method;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub enum UserVerb {
    /// Make a user, and print the link by which the person sets a password and a second factor.
    #[command(after_help = "Examples:\n  \
        postern ctl users add alice --roles=access --db-users=reader \\\n     --db-names=orders,stock\n  \
        postern ctl users add bob --roles=access,auditor --ttl=8h")]
    Add(AddArgs),
    /// List the users and their roles.
    #[command(after_help = "Example:\n  postern ctl users ls")]
    Ls {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Replace roles or traits of a user; what is not named stays.
    #[command(after_help = "Example:\n  postern ctl users update alice --set-roles=access,auditor --set-db-names='*'")]
    Update(UpdateArgs),
    /// Take the password and the second factor of a user away, and print the link by which the person sets new ones.
    #[command(after_help = "Example:\n  postern ctl users reset alice --ttl=1h")]
    Reset {
        name: String,
        /// How long the link is valid; at most 24 hours.
        #[arg(long, default_value = "8h")]
        ttl: String,
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Remove users, with commas between them. Their sessions end.
    #[command(after_help = "Example:\n  postern ctl users rm alice")]
    Rm {
        #[arg(value_delimiter = ',', required = true, value_name = "NAMES")]
        names: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct AddArgs {
    name: String,
    /// The roles of the user, with commas between them.
    #[arg(long, value_name = "ROLES", value_delimiter = ',', required = true)]
    roles: Vec<String>,
    /// Logins of machines; kept as a trait, for roles that refer to it.
    #[arg(long, value_name = "LOGINS", value_delimiter = ',')]
    logins: Vec<String>,
    /// Database users that the user may be: the trait that the role `access` refers to.
    #[arg(long, value_name = "USERS", value_delimiter = ',')]
    db_users: Vec<String>,
    /// Databases that the user may open: the trait that the role `access` refers to.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    db_names: Vec<String>,
    /// How long the link is valid; at most 48 hours.
    #[arg(long, default_value = "1h")]
    ttl: String,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Args)]
pub struct UpdateArgs {
    name: String,
    #[arg(long, value_name = "ROLES", value_delimiter = ',')]
    set_roles: Option<Vec<String>>,
    /// An empty list removes the trait; so with the other lists.
    #[arg(long, value_name = "LOGINS", value_delimiter = ',')]
    set_logins: Option<Vec<String>>,
    #[arg(long, value_name = "USERS", value_delimiter = ',')]
    set_db_users: Option<Vec<String>>,
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    set_db_names: Option<Vec<String>>,
}

/// The traits that have flags of their own, and what the answer to an update calls them.
const LOGINS: (&str, &str) = ("logins", "logins");
const DB_USERS: (&str, &str) = ("db_users", "database users");
const DB_NAMES: (&str, &str) = ("db_names", "database names");

pub async fn run(client: &AdminClient, verb: UserVerb) -> Outcome {
    match verb {
        UserVerb::Add(args) => add(client, args).await,
        UserVerb::Ls { format } => ls(client, format).await,
        UserVerb::Update(args) => update(client, args).await,
        UserVerb::Reset { name, ttl, format } => reset(client, &name, &ttl, format).await,
        UserVerb::Rm { names } => {
            for name in listed(names) {
                let _removed: serde_json::Value = client.delete(&path_of(&name)).await?;
                println!("User \"{}\" has been deleted", one_line(&name));
            }
            Ok(())
        }
    }
}

fn path_of(name: &str) -> String {
    format!("/v1/users/{}", percent_encoded(name))
}

/// The words of repeated flags and comma lists, each once.
fn listed(words: Vec<String>) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for word in words {
        let word = word.trim().to_owned();
        if !word.is_empty() && !list.contains(&word) {
            list.push(word);
        }
    }
    list
}

async fn add(client: &AdminClient, args: AddArgs) -> Outcome {
    let ttl = ttl_of(&args.ttl, InviteKind::Invite)?;
    let traits = [
        (LOGINS, args.logins),
        (DB_USERS, args.db_users),
        (DB_NAMES, args.db_names),
    ];
    let traits = traits
        .into_iter()
        .map(|((key, _), words)| (key.to_owned(), listed(words)));
    let ask = AddUser {
        name: args.name.clone(),
        roles: listed(args.roles),
        traits: traits.filter(|(_, words)| !words.is_empty()).collect(),
        ttl_secs: ttl.as_secs(),
    };
    let invited: UserInvited = client.send(Method::POST, "/v1/users", &ask).await?;
    let said = format!(
        "User \"{}\" has been created but requires a password. Share this URL with the user to complete user setup",
        one_line(&args.name)
    );
    print_link(&said, &invited, ttl, args.format)
}

async fn reset(client: &AdminClient, name: &str, ttl: &str, format: Format) -> Outcome {
    let ttl = ttl_of(ttl, InviteKind::Reset)?;
    let ask = ResetUser {
        ttl_secs: ttl.as_secs(),
    };
    let path = format!("{}/reset", path_of(name));
    let invited: UserInvited = client.send(Method::POST, &path, &ask).await?;
    let said = format!(
        "User \"{}\" has been reset. Share this URL with the user to complete password reset",
        one_line(name)
    );
    print_link(&said, &invited, ttl, format)
}

fn ttl_of(text: &str, kind: InviteKind) -> Result<Duration, Failure> {
    let ttl = parse_duration(text).map_err(Failure::usage)?;
    if ttl < Duration::from_secs(1) || ttl > kind.ttl_max() {
        let max = in_short(kind.ttl_max());
        return Err(Failure::usage(format!(
            "--ttl {} is not possible: this link is valid for 1s to {max}",
            one_line(text)
        )));
    }
    Ok(ttl)
}

fn print_link(said: &str, invited: &UserInvited, ttl: Duration, format: Format) -> Outcome {
    if format != Format::Text {
        return print_as(
            &serde_json::json!({ "token": invited.token, "url": invited.url, "expires": invited.expires }),
            format,
        );
    }
    print!("{}", link(said, invited, ttl, Program::called().product));
    Ok(())
}

/// The address stands alone on its line, and no other stands before it: it is what people select with the mouse and scripts cut
/// out.
fn link(said: &str, invited: &UserInvited, ttl: Duration, product: &str) -> String {
    let placeholder = || format!("https://{PROXY_PLACEHOLDER}{}", invited.path);
    let url = invited.url.clone().unwrap_or_else(placeholder);
    let mut text = format!("{said}, link is valid for {}:\n{}\n\n", in_short(ttl), one_line(&url));
    // Writing to a String cannot fail.
    let _ = match &invited.proxy {
        Some(proxy) => writeln!(
            text,
            "NOTE: Make sure {} points at a {product} proxy which users can access.",
            one_line(proxy)
        ),
        None => writeln!(
            text,
            "NOTE: No proxy runs in the process of this auth service: put the public address of one in place of \
             {PROXY_PLACEHOLDER}."
        ),
    };
    text
}

/// `1h`, `1h30m`, `45s`: without the parts that are zero.
fn in_short(time: Duration) -> String {
    let seconds = time.as_secs();
    let parts = [(seconds / 3600, 'h'), (seconds / 60 % 60, 'm'), (seconds % 60, 's')];
    let parts = parts.into_iter().filter(|(number, _)| *number > 0);
    parts.map(|(number, unit)| format!("{number}{unit}")).collect()
}

async fn update(client: &AdminClient, args: UpdateArgs) -> Outcome {
    let roles = args.set_roles.map(listed);
    let sets = [
        (LOGINS, args.set_logins),
        (DB_USERS, args.set_db_users),
        (DB_NAMES, args.set_db_names),
    ];
    let mut traits = BTreeMap::new();
    let mut said = String::new();
    if let Some(roles) = &roles {
        said += &format!("\tNew roles: {}\n", one_line(&roles.join(",")));
    }
    for ((key, words), values) in sets {
        if let Some(values) = values.map(listed) {
            said += &format!("\tNew {words}: {}\n", one_line(&values.join(",")));
            traits.insert(key.to_owned(), values);
        }
    }
    if said.is_empty() {
        return Err(Failure::usage(
            "Nothing to update. Please provide at least one --set flag.",
        ));
    }
    let ask = UpdateUser { roles, traits };
    let _updated: UserUpdated = client.send(Method::PATCH, &path_of(&args.name), &ask).await?;
    print!("User {} has been updated:\n{said}", one_line(&args.name));
    Ok(())
}

async fn ls(client: &AdminClient, format: Format) -> Outcome {
    let found: UserStatuses = client.get("/v1/users", &serde_json::Value::Null).await?;
    if format != Format::Text {
        return print_as(&found.users, format);
    }
    if found.users.is_empty() {
        println!("No users found");
        return Ok(());
    }
    let mut table = table(&["User", "Roles"]);
    for user in &found.users {
        table.add_row([one_line(&user.name), one_line(&user.roles.join(","))]);
    }
    println!("{table}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invited(proxy: Option<&str>) -> UserInvited {
        UserInvited {
            token: "0123456789abcdef0123456789abcdef".to_owned(),
            expires: "2026-01-31T12:30:00.000Z".to_owned(),
            url: proxy.map(|proxy| format!("https://{proxy}/web/invite/0123456789abcdef0123456789abcdef")),
            path: "/web/invite/0123456789abcdef0123456789abcdef".to_owned(),
            proxy: proxy.map(str::to_owned),
        }
    }

    #[test]
    fn the_link_stands_alone_on_its_line() {
        let hour = Duration::from_secs(3600);
        assert_eq!(
            link("Said", &invited(Some("proxy.example.com:443")), hour, "Teleport"),
            "Said, link is valid for 1h:\n\
             https://proxy.example.com:443/web/invite/0123456789abcdef0123456789abcdef\n\
             \n\
             NOTE: Make sure proxy.example.com:443 points at a Teleport proxy which users can access.\n"
        );
        let unknown = link("Said", &invited(None), hour, "Postern");
        let url = unknown.lines().find(|line| line.contains("https://"));
        assert_eq!(
            url,
            Some("https://[proxy.example.com:443]/web/invite/0123456789abcdef0123456789abcdef")
        );
        assert!(unknown.contains("in place of [proxy.example.com:443]."), "{unknown}");
    }

    #[test]
    fn times_are_short_and_lists_have_each_word_once() {
        for (seconds, text) in [
            (3600, "1h"),
            (5400, "1h30m"),
            (45, "45s"),
            (48 * 3600, "48h"),
            (61, "1m1s"),
        ] {
            assert_eq!(in_short(Duration::from_secs(seconds)), text);
        }
        let words = ["a", " b", "a", ""].map(str::to_owned).to_vec();
        assert_eq!(listed(words), ["a", "b"]);
    }

    #[test]
    fn a_link_of_more_than_the_limit_is_refused_before_anything_is_asked() {
        assert!(ttl_of("48h", InviteKind::Invite).is_ok() && ttl_of("24h", InviteKind::Reset).is_ok());
        let said = ttl_of("48h1s", InviteKind::Invite).unwrap_err().to_string();
        assert!(said.contains("1s to 48h"), "{said}");
        assert!(ttl_of("25h", InviteKind::Reset).is_err());
    }
}
