//! `postern ctl tokens`: tokens by which nodes join, and the commands to paste on the node.

use super::admin_client::AdminClient;
use super::ctl::{Format, print_as, table};
use super::terminal::{one_line, parse_duration};
use super::{Failure, Outcome};
use crate::model::{Clock as _, Labels, NodeKind, SystemClock, Timestamp};
use crate::web::api::{AddToken, RemoveToken, TokenAdded, TokenRemoved, TokenStatus, TokenStatuses};
use clap::{Args, Subcommand};
use hyper::Method;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub enum TokenVerb {
    /// Make a token, and print what to do with it on the new node.
    #[command(after_help = "Examples:\n  \
        postern ctl tokens add --type=db\n  \
        postern ctl tokens add --type=db,proxy --ttl=2h --uses=3 --format=text")]
    Add(AddArgs),
    /// List the tokens that admit nodes now.
    #[command(after_help = "Example:\n  postern ctl tokens ls")]
    Ls {
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// Refused: tokens are kept hashed.
        #[arg(long)]
        with_secrets: bool,
    },
    /// Remove a token: nobody joins with it any more. Nodes that have joined stay.
    #[command(after_help = "Example:\n  postern ctl tokens rm 3f2a")]
    Rm {
        /// The token, or its first four characters as `tokens ls` shows them.
        token: String,
    },
}

#[derive(Args)]
pub struct AddArgs {
    /// What a node that joins with it may run: db, proxy, with commas between them.
    #[arg(long = "type", value_name = "TYPES", value_delimiter = ',', required = true)]
    types: Vec<String>,
    /// How long it admits nodes.
    #[arg(long, default_value = "30m")]
    ttl: String,
    /// How many nodes it admits; any number when left out.
    #[arg(long, value_name = "N")]
    uses: Option<u64>,
    /// A token of your own choice, at least 16 characters.
    #[arg(long)]
    value: Option<String>,
    /// Notes to find it by in the list: key=value, with commas between them.
    #[arg(long, value_name = "LABELS", default_value = "")]
    labels: String,
    /// `text` prints the token alone.
    #[arg(long, value_enum)]
    format: Option<Format>,
}

impl std::fmt::Debug for AddArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AddArgs")
            .field("types", &self.types)
            .finish_non_exhaustive()
    }
}

pub async fn run(client: &AdminClient, verb: TokenVerb) -> Outcome {
    match verb {
        TokenVerb::Add(args) => add(client, args).await,
        TokenVerb::Ls { with_secrets: true, .. } => Err(Failure::usage(
            "--with-secrets cannot be done: tokens are kept hashed, and each is printed only once, by `tokens add`; make a \
             new one and remove the old one",
        )),
        TokenVerb::Ls { format, .. } => ls(client, format).await,
        TokenVerb::Rm { token } => {
            let ask = RemoveToken { token: token.clone() };
            let _removed: TokenRemoved = client.send(Method::POST, "/v1/tokens/remove", &ask).await?;
            println!("Token {} has been deleted", one_line(&token));
            Ok(())
        }
    }
}

async fn add(client: &AdminClient, args: AddArgs) -> Outcome {
    let roles = roles(&args.types)?;
    let ttl = parse_duration(&args.ttl).map_err(Failure::usage)?;
    let labels = Labels::parse(&args.labels).map_err(Failure::usage)?;
    let ask = AddToken {
        roles,
        ttl_secs: ttl.as_secs(),
        uses: args.uses,
        value: args.value,
        labels: labels.0,
    };
    let added: TokenAdded = client.send(Method::POST, "/v1/tokens", &ask).await?;
    match args.format {
        None => print!("{}", instructions(&added, ttl, args.uses, &Program::called())),
        Some(Format::Text) => println!("{}", added.token),
        Some(format) => print_as(
            &serde_json::json!({ "token": added.token, "roles": added.roles, "expires": added.expires }),
            format,
        )?,
    }
    Ok(())
}

/// The types of the command line. `node` is what configurations of Teleport name beside others for its SSH service.
fn roles(types: &[String]) -> Result<Vec<String>, Failure> {
    let mut roles = Vec::new();
    for word in types.iter().map(|word| word.trim()).filter(|word| !word.is_empty()) {
        if word == "node" {
            eprintln!("postern: type node is left out: there is no SSH service here");
            continue;
        }
        let kind = word
            .parse::<NodeKind>()
            .map_err(|_| Failure::usage(format!("{word:?} is not a type of token; types are db and proxy")))?;
        let role = kind.to_string();
        if !roles.contains(&role) {
            roles.push(role);
        }
    }
    if roles.is_empty() {
        return Err(Failure::usage(
            "a token needs a type that runs here; types are db and proxy",
        ));
    }
    Ok(roles)
}

/// What the program's commands are called where it was called so.
pub(super) struct Program {
    pub(super) product: &'static str,
    daemon: &'static str,
    ctl: &'static str,
    config: &'static str,
}

impl Program {
    pub(super) fn called() -> Self {
        let path = std::env::args_os().next().unwrap_or_default();
        let name = Path::new(&path).file_name().unwrap_or_default().to_string_lossy();
        Self::named(&name)
    }

    fn named(name: &str) -> Self {
        let teleport = Self {
            product: "Teleport",
            daemon: "teleport",
            ctl: "tctl",
            config: "/etc/teleport.yaml",
        };
        match name {
            "tctl" | "teleport" => teleport,
            _ => Self {
                product: "Postern",
                daemon: "postern",
                ctl: "postern ctl",
                config: "/etc/postern.yaml",
            },
        }
    }
}

/// What to do on the new node, ready to be pasted.
fn instructions(added: &TokenAdded, ttl: Duration, uses: Option<u64>, program: &Program) -> String {
    let mut text = format!("The invite token: {}\n", added.token);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "This token will expire in {}.", in_words(ttl));
    if let Some(uses) = uses {
        let _ = writeln!(
            text,
            "This token will admit {uses} {}.",
            if uses == 1 { "node" } else { "nodes" }
        );
    }
    let mut join = format!("   --token={} \\\n", added.token);
    for pin in &added.ca_pins {
        let _ = writeln!(join, "   --ca-pin={pin} \\");
    }
    let runs = |kind: NodeKind| added.roles.iter().any(|role| role == kind.label());
    if runs(NodeKind::Db) {
        text += &for_agent(added, &join, program);
    }
    if runs(NodeKind::Proxy) {
        text += &for_proxy(&join, program);
    }
    let _ = writeln!(
        text,
        "\nPlease note:\n  - This invitation token will expire in {}.",
        in_words(ttl)
    );
    if runs(NodeKind::Db) {
        text += &database_notes(added, program);
    }
    if runs(NodeKind::Proxy) {
        text += "  - Put the address of the auth service that the new proxy can reach in place of\n    [auth.example.com:3025].\n";
    }
    text
}

fn for_agent(added: &TokenAdded, join: &str, program: &Program) -> String {
    let Program {
        product,
        daemon,
        config,
        ..
    } = program;
    let proxy = added.proxy.as_deref().unwrap_or(PROXY_PLACEHOLDER);
    format!(
        "\nGenerate the configuration and start a {product} agent using it:\n\n> {daemon} db configure create \\\n{join}   \
         --proxy={proxy} \\\n   --name=[name] --protocol=[postgres] --uri=[host:5432] \\\n   --output file://{config}\n\n\
         > {daemon} start -c {config}\n"
    )
}

fn for_proxy(join: &str, Program { daemon, .. }: &Program) -> String {
    format!(
        "\nRun this on the new node to join the cluster as a proxy:\n\n> {daemon} start \\\n   --roles=proxy \\\n{join}   \
         --auth-server=[auth.example.com:3025]\n"
    )
}

/// Where auth does not know the address of a proxy.
pub(super) const PROXY_PLACEHOLDER: &str = "[proxy.example.com:443]";

fn database_notes(added: &TokenAdded, Program { product, ctl, .. }: &Program) -> String {
    let mut notes = String::new();
    if added.proxy.is_none() {
        notes += "  - No proxy of this cluster is up: put the public address of one in place of\n    [proxy.example.com:443].\n";
    }
    let _ = write!(
        notes,
        "  - Database address [uri] must be reachable from the new database service.\n  - When proxying an on-prem database, \
         it must be configured with {product} CA\n    and key pair issued by \"{ctl} auth sign --format=db\" command.\n"
    );
    notes
}

fn in_words(time: Duration) -> String {
    let (number, unit) = match time.as_secs() {
        seconds if seconds < 60 => (seconds, "second"),
        seconds => (seconds / 60, "minute"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

async fn ls(client: &AdminClient, format: Format) -> Outcome {
    let found: TokenStatuses = client.get("/v1/tokens", &serde_json::Value::Null).await?;
    if format != Format::Text {
        return print_as(&found.tokens, format);
    }
    if found.tokens.is_empty() {
        println!("No active tokens found.");
        return Ok(());
    }
    let mut table = table(&["Token", "Type", "Labels", "Expiry Time (UTC)"]);
    let now = SystemClock.now();
    for token in &found.tokens {
        table.add_row([
            one_line(&token.token),
            token.roles.join(","),
            one_line(&Labels(token.labels.clone()).to_string()),
            expiry(token, now),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// `2026-01-31T12:00:00Z (29m59s)`, with the uses that are left where they are counted.
fn expiry(token: &TokenStatus, now: Timestamp) -> String {
    let Some(expires) = token.expires.as_deref().and_then(Timestamp::parse_rfc3339) else {
        return "never".to_owned();
    };
    let left = expires.since(now).as_secs();
    let whole_seconds = expires.to_string();
    let whole_seconds = whole_seconds.split('.').next().unwrap_or_default();
    let mut text = format!("{whole_seconds}Z (");
    if left >= 3600 {
        let _ = write!(text, "{}h", left / 3600);
    }
    if left >= 60 {
        let _ = write!(text, "{}m", left / 60 % 60);
    }
    let _ = write!(text, "{}s)", left % 60);
    match token.uses_left {
        Some(1) => text += ", 1 use left",
        Some(uses) => text += &format!(", {uses} uses left"),
        None => {}
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(roles: &[&str], proxy: Option<&str>) -> TokenAdded {
        TokenAdded {
            token: "0123456789abcdef0123456789abcdef".to_owned(),
            roles: roles.iter().map(ToString::to_string).collect(),
            expires: "2026-01-31T12:30:00.000Z".to_owned(),
            ca_pins: vec!["sha256:aa".to_owned(), "sha256:bb".to_owned()],
            proxy: proxy.map(str::to_owned),
        }
    }

    #[test]
    fn a_database_token_is_printed_with_commands_to_paste_under_the_name_that_was_called() {
        let text = instructions(
            &added(&["db"], Some("proxy.example.com:443")),
            Duration::from_secs(3600),
            None,
            &Program::named("tctl"),
        );
        assert_eq!(
            text,
            "The invite token: 0123456789abcdef0123456789abcdef\n\
             This token will expire in 60 minutes.\n\
             \n\
             Generate the configuration and start a Teleport agent using it:\n\
             \n\
             > teleport db configure create \\\n   \
             --token=0123456789abcdef0123456789abcdef \\\n   \
             --ca-pin=sha256:aa \\\n   \
             --ca-pin=sha256:bb \\\n   \
             --proxy=proxy.example.com:443 \\\n   \
             --name=[name] --protocol=[postgres] --uri=[host:5432] \\\n   \
             --output file:///etc/teleport.yaml\n\
             \n\
             > teleport start -c /etc/teleport.yaml\n\
             \n\
             Please note:\n  \
             - This invitation token will expire in 60 minutes.\n  \
             - Database address [uri] must be reachable from the new database service.\n  \
             - When proxying an on-prem database, it must be configured with Teleport CA\n    \
             and key pair issued by \"tctl auth sign --format=db\" command.\n"
        );
    }

    #[test]
    fn what_auth_does_not_know_stands_in_brackets_with_a_note() {
        let text = instructions(
            &added(&["db", "proxy"], None),
            Duration::from_secs(90),
            Some(1),
            &Program::named("postern"),
        );
        for line in [
            "This token will expire in 1 minute.\n",
            "This token will admit 1 node.\n",
            "> postern db configure create \\\n",
            "   --proxy=[proxy.example.com:443] \\\n",
            "put the public address of one in place of\n    [proxy.example.com:443].\n",
            "> postern start \\\n   --roles=proxy \\\n   --token=0123",
            "   --auth-server=[auth.example.com:3025]\n",
            "\"postern ctl auth sign --format=db\"",
        ] {
            assert!(text.contains(line), "{line:?} is not in: {text}");
        }
    }

    #[test]
    fn types_are_taken_once_node_is_left_out_and_others_are_refused() {
        let read = |types: &[&str]| roles(&types.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(read(&["db", "node", "proxy", "db"]).unwrap(), ["db", "proxy"]);
        assert!(read(&["node"]).is_err());
        assert!(
            read(&["kube"])
                .unwrap_err()
                .to_string()
                .contains("types are db and proxy")
        );
    }

    #[test]
    fn the_list_says_when_a_token_ends_and_what_is_left_of_it() {
        let now = Timestamp::parse_rfc3339("2026-01-31T10:29:58.5Z").unwrap();
        let mut token = TokenStatus {
            expires: Some("2026-01-31T12:30:00.000Z".to_owned()),
            ..TokenStatus::default()
        };
        assert_eq!(expiry(&token, now), "2026-01-31T12:30:00Z (2h0m1s)");
        token.uses_left = Some(2);
        assert_eq!(expiry(&token, now), "2026-01-31T12:30:00Z (2h0m1s), 2 uses left");
        token.expires = None;
        assert_eq!(expiry(&token, now), "never");
    }
}
