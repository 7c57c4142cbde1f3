//! `db login`, `db logout`, `db connect`, `db env` and `db config`: certificates for databases, and psql with them.

use super::choice::{self, Opened};
use super::connection::{Connection, service_name};
use super::login::{certificate_for, log_in_to};
use super::session::{Session, now};
use super::{At, ConfigFormat, DatabaseArgs, service_file};
use crate::cli::ctl::{Format, print_as};
use crate::cli::names::Program;
use crate::cli::people_client::PeopleClient;
use crate::cli::profile::ActiveDatabase;
use crate::cli::terminal::one_line;
use crate::cli::{Failure, Outcome};
use crate::model::{DbName, DbUser};
use crate::web::people_api::{MyDatabase, Route};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use tokio::signal::unix::{SignalKind, signal};

/// What a shell says of a program that a signal ended: 128 and the signal's number.
const ENDED_BY_SIGNAL: i32 = 128;

pub async fn log_in(program: Program, args: &DatabaseArgs) -> Outcome {
    args.check()?;
    let session = Session::open(program, &args.at)?;
    let client = session.client()?;
    let databases = client.databases().await?.databases;
    let database = choice::database(program.label(), &databases, args.database.as_deref()).map_err(Failure::failed)?;
    args.permitted(database).map_err(Failure::failed)?;
    let route = Route {
        service: database.name.clone(),
        db_user: args.db_user.clone().or_else(|| Opened::AsUser.only(database)),
        db_name: args.db_name.clone().or_else(|| Opened::ByName.only(database)),
    };
    let connection = log_in_to(&session, &client, route).await?;
    print!("{}", logged_in(program, &connection));
    Ok(())
}

fn logged_in(program: Program, connection: &Connection) -> String {
    let name = one_line(&connection.name);
    let user = if connection.user.is_some() {
        ""
    } else {
        "--db-user=<user> "
    };
    let database = if connection.database.is_some() {
        ""
    } else {
        "--db-name=<name> "
    };
    format!(
        "Connection information for database \"{name}\" has been saved.\n\n\
         You can now connect to it using the following command:\n\n  \
           {program} db connect {user}{database}{name}\n\n\
         You can view the connect command for the native database CLI client:\n\n  \
           {program} db config --format=cmd {name}\n\n"
    )
}

pub fn log_out(program: Program, at: &At, asked: Option<&str>) -> Outcome {
    let session = Session::open(program, at)?;
    let databases = session.home.databases(&session.profile).map_err(Failure::failed)?;
    let meant: Vec<&str> = databases
        .iter()
        .map(|database| database.service.as_str())
        .filter(|name| asked.is_none_or(|asked| asked == *name))
        .collect();
    match (meant.is_empty(), asked) {
        (true, Some(asked)) => {
            return Err(Failure::failed(format!(
                "Not logged into database \"{}\"",
                one_line(asked)
            )));
        }
        (true, None) => {
            println!("Not logged into any databases");
            return Ok(());
        }
        _ => {}
    }
    let write = session.home.write().map_err(Failure::failed)?;
    for name in &meant {
        write.remove_database(&session.profile, name).map_err(Failure::failed)?;
    }
    drop(write);
    let names: Vec<String> = meant.iter().map(|name| service_name(&session.profile, name)).collect();
    service_file::remove(&service_file::path()?, &names)?;
    match meant.as_slice() {
        [only] => println!("Logged out of database {}", one_line(only)),
        _ => println!("Logged out of all databases"),
    }
    Ok(())
}

/// The database that is logged in to and meant.
fn active(program: Program, session: &Session, asked: Option<&str>) -> Result<ActiveDatabase, Failure> {
    let databases = session.home.databases(&session.profile).map_err(Failure::failed)?;
    let live: Vec<ActiveDatabase> = databases
        .into_iter()
        .filter(|database| database.valid_until > now())
        .collect();
    chosen(program, live, asked).map_err(Failure::failed)
}

fn chosen(program: Program, mut live: Vec<ActiveDatabase>, asked: Option<&str>) -> Result<ActiveDatabase, String> {
    if let Some(asked) = asked {
        live.retain(|database| database.service == asked);
    }
    if live.len() > 1 {
        return Err(choice::several_of(
            live.iter().map(|database| database.service.as_str()),
        ));
    }
    live.pop().ok_or_else(|| {
        format!("please login using '{program} db login' first (use '{program} db ls' to see registered databases)")
    })
}

pub fn environment(program: Program, at: &At, format: Format, asked: Option<&str>) -> Outcome {
    let session = Session::open(program, at)?;
    let active = active(program, &session, asked)?;
    let connection = Connection::of(&session.home, &session.profile, &active)?;
    if format == Format::Text {
        print!("{}", connection.exports());
        return Ok(());
    }
    let variables: serde_json::Map<String, serde_json::Value> = connection
        .variables()
        .into_iter()
        .map(|(variable, value)| (variable.to_owned(), value.into()))
        .collect();
    print_as(&variables, format)
}

pub fn config(program: Program, at: &At, format: ConfigFormat, asked: Option<&str>) -> Outcome {
    let session = Session::open(program, at)?;
    let active = active(program, &session, asked)?;
    let connection = Connection::of(&session.home, &session.profile, &active)?;
    match format {
        ConfigFormat::Text => print!("{}", connection.text()),
        ConfigFormat::Cmd => println!("{}", connection.command()),
        ConfigFormat::Json => print_as(&connection, Format::Json)?,
        ConfigFormat::Yaml => print_as(&connection, Format::Yaml)?,
    }
    Ok(())
}

pub async fn connect(program: Program, args: &DatabaseArgs) -> Outcome {
    args.check()?;
    let session = Session::open(program, &args.at)?;
    let live = session
        .home
        .databases(&session.profile)
        .map_err(Failure::failed)?
        .into_iter();
    let live: Vec<ActiveDatabase> = live.filter(|database| database.valid_until > now()).collect();
    let kept = match &args.database {
        Some(asked) => live.into_iter().find(|database| database.service == *asked),
        None => Some(chosen(program, live, None).map_err(Failure::failed)?),
    };
    let connection = match kept {
        Some(kept) if args.is_as(&kept) => Connection::of(&session.home, &session.profile, &kept)?,
        kept => {
            let client = session.client()?;
            let route = args.route(program, &client, kept.as_ref()).await?;
            match kept {
                // Its certificate is for the database, whoever opens it: what was logged in with stays.
                Some(kept) => {
                    let other = ActiveDatabase {
                        db_user: route.db_user,
                        db_name: route.db_name,
                        ..kept
                    };
                    Connection::of(&session.home, &session.profile, &other)?
                }
                None => certificate_for(&session, &client, route).await?,
            }
        }
    };
    psql(program, &connection).await
}

impl DatabaseArgs {
    /// What cannot be a name is refused before anything is asked.
    fn check(&self) -> Outcome {
        let user = self.db_user.clone().map(DbUser::new).transpose();
        user.map_err(|error| Failure::usage(format!("--db-user: {error}")))?;
        let name = self.db_name.clone().map(DbName::new).transpose();
        name.map_err(|error| Failure::usage(format!("--db-name: {error}")))?;
        Ok(())
    }

    /// Refuses what the roles do not allow, before anything is changed.
    fn permitted(&self, database: &MyDatabase) -> Result<(), String> {
        let asked = [(Opened::AsUser, &self.db_user), (Opened::ByName, &self.db_name)];
        asked
            .into_iter()
            .filter_map(|(what, asked)| Some((what, asked.as_deref()?)))
            .try_for_each(|(what, asked)| what.permitted(database, asked))
    }

    /// Whether the certificate that is there is the one that is asked for.
    fn is_as(&self, kept: &ActiveDatabase) -> bool {
        let same = |asked: &Option<String>, kept: &Option<String>| {
            kept.is_some() && asked.as_ref().is_none_or(|asked| Some(asked) == kept.as_ref())
        };
        same(&self.db_user, &kept.db_user) && same(&self.db_name, &kept.db_name)
    }

    async fn route(
        &self,
        program: Program,
        client: &PeopleClient,
        kept: Option<&ActiveDatabase>,
    ) -> Result<Route, Failure> {
        let databases = client.databases().await?.databases;
        let asked = self.database.as_deref().or(kept.map(|kept| kept.service.as_str()));
        let database = match choice::database(program.label(), &databases, asked) {
            Err(_) if kept.is_some() => return Err(no_longer_exists(program, asked)),
            found => found.map_err(Failure::failed)?,
        };
        self.permitted(database).map_err(Failure::failed)?;
        let (kept_user, kept_name) = kept.map_or((None, None), |kept| (kept.db_user.clone(), kept.db_name.clone()));
        let named = |asked: &Option<String>, kept: Option<String>, what: Opened, database: &MyDatabase| {
            let said = asked.clone().or(kept);
            said.map_or_else(|| what.needed(database), Ok).map_err(Failure::failed)
        };
        Ok(Route {
            service: database.name.clone(),
            db_user: Some(named(&self.db_user, kept_user, Opened::AsUser, database)?),
            db_name: Some(named(&self.db_name, kept_name, Opened::ByName, database)?),
        })
    }
}

fn no_longer_exists(program: Program, name: Option<&str>) -> Failure {
    let name = name.map(one_line).unwrap_or_default();
    Failure::failed(format!(
        "you are logged into a database that no longer exists in the cluster (remove it with '{program} db logout {name}')"
    ))
}

/// What is left of these in the environment would lead elsewhere, take the certificate away or ask for another way in.
const NOT_FOR_PSQL: [&str; 15] = [
    "PGHOSTADDR",
    "PGSERVICE",
    "PGPASSWORD",
    "PGREQUIREAUTH",
    "PGREQUIREPEER",
    "PGREQUIRESSL",
    "PGCHANNELBINDING",
    "PGSSLNEGOTIATION",
    "PGSSLCERTMODE",
    "PGSSLCRL",
    "PGSSLCRLDIR",
    "PGSSLSNI",
    "PGSSLMINPROTOCOLVERSION",
    "PGSSLMAXPROTOCOLVERSION",
    "PGGSSDELEGATION",
];

fn psql_command(connection: &Connection) -> tokio::process::Command {
    let mut command = tokio::process::Command::new("psql");
    // Never a password: the certificate is what is asked for.
    command.arg("--no-password").arg(connection.uri());
    for variable in NOT_FOR_PSQL {
        command.env_remove(variable);
    }
    command
}

/// Runs psql. Ctrl-C is psql's: it cancels a statement, and this program waits on.
async fn psql(program: Program, connection: &Connection) -> Outcome {
    let mut command = psql_command(connection);
    // A signal that is handled here is back to its default in the child; one that is ignored would stay ignored.
    let _caught = signal(SignalKind::interrupt()).map_err(Failure::internal)?;
    let ended = command.status().await;
    let ended = ended.map_err(|error| match error.kind() {
        ErrorKind::NotFound => Failure::failed(format!(
            "psql is not in PATH; install PostgreSQL's client, or give your own client what `{program} db config {}` prints",
            one_line(&connection.name)
        )),
        _ => Failure::failed(format!("psql cannot be run: {error}")),
    })?;
    if ended.success() {
        return Ok(());
    }
    let code = ended
        .code()
        .or_else(|| ended.signal().map(|signal| ENDED_BY_SIGNAL + signal));
    let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Err(Failure::with_code(
        code,
        format!(
            "exit status {code}: 'psql' exited with the above error. Use '{program} db ls' to see your available logins, or ask \
             your Postern administrator to grant you access."
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn kept(service: &str, user: Option<&str>) -> ActiveDatabase {
        ActiveDatabase {
            service: service.to_owned(),
            db_user: user.map(str::to_owned),
            db_name: Some("app".to_owned()),
            valid_until: Timestamp::from_secs(1),
        }
    }

    #[test]
    fn without_a_name_the_one_database_that_is_logged_in_to_is_meant() {
        let two = || vec![kept("a", None), kept("b", None)];
        assert_eq!(chosen(Program::Tsh, vec![kept("a", None)], None).unwrap().service, "a");
        assert_eq!(chosen(Program::Tsh, two(), Some("b")).unwrap().service, "b");
        assert_eq!(
            chosen(Program::Tsh, two(), None).unwrap_err(),
            "multiple databases are available (a, b), please specify one by name"
        );
        for (live, asked) in [(Vec::new(), None), (two(), Some("c"))] {
            assert_eq!(
                chosen(Program::Postern, live, asked).unwrap_err(),
                "please login using 'postern db login' first (use 'postern db ls' to see registered databases)"
            );
        }
    }

    #[test]
    fn a_database_that_has_gone_is_named_with_the_command_that_forgets_it() {
        assert_eq!(
            no_longer_exists(Program::Tsh, Some("orders")).to_string(),
            "you are logged into a database that no longer exists in the cluster (remove it with 'tsh db logout orders')"
        );
    }

    #[test]
    fn nothing_is_asked_of_auth_for_the_user_and_name_of_the_login_only() {
        let asks = |user: Option<&str>, name: Option<&str>| DatabaseArgs {
            at: At {
                proxy: None,
                user: None,
            },
            db_user: user.map(str::to_owned),
            db_name: name.map(str::to_owned),
            database: None,
        };
        let (known, unknown) = (kept("a", Some("reader")), kept("a", None));
        assert!(asks(None, None).is_as(&known) && asks(Some("reader"), Some("app")).is_as(&known));
        assert!(!asks(Some("writer"), None).is_as(&known) && !asks(None, Some("other")).is_as(&known));
        assert!(!asks(None, None).is_as(&unknown), "psql has to be told a user");
        assert!(asks(Some("a\u{1b}"), None).check().is_err());
    }

    #[test]
    fn after_a_login_the_commands_to_type_are_under_the_program_s_own_name() {
        let connection = |user: Option<&str>| Connection {
            name: "orders".to_owned(),
            host: "p".to_owned(),
            port: 1,
            user: user.map(str::to_owned),
            database: user.map(str::to_owned),
            ca: String::new(),
            cert: String::new(),
            key: String::new(),
            service: String::new(),
        };
        let psql = psql_command(&connection(Some("x")));
        for variable in ["PGSSLCERTMODE", "PGCHANNELBINDING", "PGREQUIREAUTH"] {
            assert!(
                psql.as_std()
                    .get_envs()
                    .any(|(name, value)| name == variable && value.is_none())
            );
        }
        let said = logged_in(Program::Tsh, &connection(Some("x")));
        assert!(
            said.starts_with("Connection information for database \"orders\" has been saved.\n"),
            "{said}"
        );
        assert!(
            said.contains("\n  tsh db connect orders\n") && said.contains("\n  tsh db config --format=cmd orders\n")
        );
        let said = logged_in(Program::Postern, &connection(None));
        assert!(
            said.contains("  postern db connect --db-user=<user> --db-name=<name> orders\n"),
            "{said}"
        );
    }
}
