//! `postern ctl lock` and `postern ctl access explain`: keeping somebody out, and why somebody is in or out.

use super::admin_client::AdminClient;
use super::ctl::{Format, print_as};
use super::terminal::{parse_duration, printable};
use super::{Failure, Outcome};
use crate::model::Replication;
use crate::web::access_api::{AddLock, ExplainQuery, Explanations, LockAdded, LockOn};
use clap::{Args, Subcommand};
use hyper::Method;

/// Whom a lock is about.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Target {
    /// A person.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Everybody who has this role.
    #[arg(long, value_name = "NAME")]
    role: Option<String>,
    /// All sessions through a proxy or an agent, by its name or its id.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// The same, as Teleport calls it.
    #[arg(long, value_name = "ID")]
    server_id: Option<String>,
}

#[derive(Debug, Args)]
pub struct LockArgs {
    #[command(flatten)]
    target: Target,
    /// What those read whom it meets.
    #[arg(long)]
    message: Option<String>,
    /// How long it is in force: 12h, 30m. For ever without --ttl and --expires.
    #[arg(long)]
    ttl: Option<String>,
    /// Until when it is in force: 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
}

pub async fn lock(client: &AdminClient, args: LockArgs) -> Outcome {
    if args.ttl.is_some() && args.expires.is_some() {
        return Err(Failure::usage("use only one of --expires and --ttl"));
    }
    let on = args.target;
    let ttl = args.ttl.as_deref().map(parse_duration).transpose();
    let ask = AddLock {
        ttl_secs: ttl.map_err(Failure::usage)?.map(|ttl| ttl.as_secs()),
        target: match (on.user, on.role, on.node.or(on.server_id)) {
            (Some(user), _, _) => LockOn::User(user),
            (None, Some(role), _) => LockOn::Role(role),
            (None, None, Some(node)) => LockOn::Node(node),
            (None, None, None) => return Err(Failure::usage("a lock needs --user, --role or --node")),
        },
        message: args.message,
        expires: args.expires,
    };
    let added: LockAdded = client.send(Method::POST, "/v1/locks", &ask).await?;
    println!("Created a lock with name {:?}.", added.name);
    Ok(())
}

#[derive(Debug, Subcommand)]
pub enum AccessVerb {
    /// Say whether somebody may use a database, and which roles, rules, options and locks make it so.
    #[command(
        after_help = "Example:\n  postern ctl access explain alice --db=orders --db-user=reader --db-name=orders"
    )]
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The person.
    user: String,
    /// The database service, as `db ls` has it.
    #[arg(long, value_name = "SERVICE")]
    db: String,
    #[arg(long)]
    db_user: String,
    /// The database user's name when left out, as in PostgreSQL.
    #[arg(long)]
    db_name: Option<String>,
    /// Of a replication connection: physical (of the whole server, replication=true) or logical (replication=database).
    #[arg(long, value_name = "MODE", value_parser = mode_of_replication)]
    replication: Option<Replication>,
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn mode_of_replication(text: &str) -> Result<Replication, String> {
    let modes = Replication::ALL;
    let found = modes.into_iter().find(|mode| mode.label() == text);
    found.ok_or_else(|| modes.map(Replication::label).join(" or "))
}

pub async fn access(client: &AdminClient, verb: AccessVerb) -> Outcome {
    let AccessVerb::Explain(args) = verb;
    let ask = ExplainQuery {
        user: args.user,
        db: args.db,
        db_user: args.db_user,
        db_name: args.db_name,
        replication: args.replication,
    };
    let explained: Explanations = client.get("/v1/access/explain", &ask).await?;
    if args.format != Format::Text {
        return print_as(&explained.agents, args.format);
    }
    for (at, agent) in explained.agents.iter().enumerate() {
        let gap = if at == 0 { "" } else { "\n" };
        println!("{gap}through agent {}:", printable(&agent.agent));
        print!("{}", printable(&agent.text));
    }
    Ok(())
}
