//! `login` and `logout`: from password and one-time code to key and certificate, and away again.

use super::connection::{Connection, service_name};
use super::session::{self, Session};
use super::{At, LoginArgs, prompt, service_file, status};
use crate::actors::accounts::LoginRefused;
use crate::cli::names::Program;
use crate::cli::people_client::{Contact, PeopleClient, WebTrust, machine_authorities, ping};
use crate::cli::profile::{ActiveDatabase, Authorities, Home, Profile};
use crate::cli::terminal::{one_line, parse_duration};
use crate::cli::{Failure, Outcome};
use crate::model::Endpoint;
use crate::pki::pem::{certificates_from_pem, certificates_to_pem};
use crate::pki::{CaPin, PersonClaims, PrivateKey};
use crate::web::people_api::{Certificates, Login, Route};
use std::time::Duration;

pub async fn log_in(program: Program, args: &LoginArgs) -> Outcome {
    let home = Home::of_environment().map_err(Failure::failed)?;
    let pins = args.ca_pin.iter().map(|pin| pin.parse::<CaPin>());
    let pins = pins.collect::<Result<Vec<_>, _>>().map_err(Failure::usage)?;
    let ttl = args.ttl.as_deref().map(lifetime).transpose().map_err(Failure::usage)?;
    let known = args.at.profile(&home)?;
    if let Some(profile) = &known
        && still_valid(&home, profile)?
    {
        let write = home.write().map_err(Failure::failed)?;
        write.make_current(&profile.proxy).map_err(Failure::failed)?;
        drop(write);
        return status::show_login(program, &home, profile);
    }
    let (proxies, user) = whom(args, known.as_ref())?;
    let mut trust = WebTrust {
        host_authorities: Vec::new(),
        pins,
        insecure: args.insecure,
    };
    if let Some(profile) = &known
        && let Some(host_ca) = home.host_ca(profile).map_err(Failure::failed)?
    {
        trust.host_authorities = certificates_from_pem(host_ca.as_bytes(), "the profile").map_err(Failure::failed)?;
    }
    let (proxy, found) = first_that_answers(&proxies, &trust).await?;
    let authorities =
        certificates_from_pem(found.ping.host_ca.as_bytes(), "the proxy's answer").map_err(Failure::failed)?;
    let client = PeopleClient::new(proxy.clone(), &authorities, None)?;
    let (password, code) = prompt::password_and_code(&user)?;
    let key = PrivateKey::generate().map_err(Failure::internal)?;
    let ask = Login {
        user: user.clone(),
        password: password.expose().clone(),
        code: code.expose().clone(),
        ttl_secs: ttl.map(|ttl| ttl.as_secs()),
        csr: session::csr(&key, &user)?,
    };
    let answer = client.log_in(&ask).await.map_err(|failure| denied(failure, &user))?;
    check(&answer, &key)?;
    let profile = Profile {
        proxy: proxy.to_string(),
        user,
        cluster: answer.cluster.clone(),
        roles: answer.roles.clone(),
    };
    let databases = home.databases(&profile).map_err(Failure::failed)?;
    let write = home.write().map_err(Failure::failed)?;
    write
        .save_login(&profile, &key, &answer.certificate, &authorities_of(&found, &answer)?)
        .map_err(Failure::failed)?;
    drop(write);
    log_in_again(program, &args.at, &profile, databases).await?;
    status::show_login(program, &home, &profile)
}

/// A proxy with a certificate of its own presents that one to psql, which then has to know its issuer; without one, or once it
/// is taken away, the cluster's. Both have to verify. All of this machine's authorities, because the next certificate may have
/// another issuer.
fn authorities_of<'a>(found: &Contact, answer: &'a Certificates) -> Result<Authorities<'a>, Failure> {
    let of_machine = found
        .vouched_for_by_machine
        .then(|| certificates_to_pem(&machine_authorities()));
    Ok(Authorities {
        host: &answer.host_ca,
        of_machine: of_machine.transpose().map_err(Failure::internal)?,
    })
}

fn still_valid(home: &Home, profile: &Profile) -> Result<bool, Failure> {
    // Of a login that is damaged, a new one is the way out.
    let kept = home.credentials(profile).unwrap_or_default();
    Ok(kept.is_some_and(|kept| kept.claims.valid_until > session::now()))
}

/// The proxies to try, and who logs in.
fn whom(args: &LoginArgs, known: Option<&Profile>) -> Result<(Vec<Endpoint>, String), Failure> {
    let proxies = match (known, args.at.proxy()) {
        (Some(profile), _) => vec![profile.endpoint().map_err(Failure::failed)?],
        (None, Some(proxy)) => session::endpoints(&proxy)?,
        (None, None) => {
            return Err(Failure::usage(
                "no proxy is known yet; give --proxy=HOST[:PORT], or set POSTERN_PROXY",
            ));
        }
    };
    let user = args.at.user().or_else(|| known.map(|profile| profile.user.clone()));
    let account = || {
        let account = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        account.map(|account| account.name)
    };
    let user = user
        .or_else(account)
        .ok_or_else(|| Failure::usage("your account here has no name; give --user=NAME"))?;
    Ok((proxies, user))
}

/// `720` are minutes, as the reference has it; `8h` is a duration.
fn lifetime(text: &str) -> Result<Duration, String> {
    match text.parse::<u32>() {
        Ok(0) => Err("--ttl: a login of no time is none; write minutes, or for example 8h".to_owned()),
        Ok(minutes) => Ok(Duration::from_secs(u64::from(minutes) * 60)),
        Err(_) => parse_duration(text).map_err(|error| format!("--ttl: {error}")),
    }
}

async fn first_that_answers(proxies: &[Endpoint], trust: &WebTrust) -> Result<(Endpoint, Contact), Failure> {
    let mut why = Vec::new();
    for proxy in proxies {
        match ping(proxy, trust).await {
            Ok(found) => return Ok((proxy.clone(), found)),
            Err(failure) => why.push(failure.to_string()),
        }
    }
    Err(Failure::failed(why.join("; ")))
}

/// What auth says of a wrong name and a wrong password is the same; the person can compare the name.
fn denied(failure: Failure, user: &str) -> Failure {
    if failure.to_string() != LoginRefused::Denied.to_string() {
        return failure;
    }
    failure.and(&format!(
        "you are logging in as \"{}\": give another name with --user, or ask an administrator, who sees the names with `ctl users \
         ls` and makes a new password with `ctl users reset`",
        one_line(user)
    ))
}

/// A certificate that is kept is one for the key beside it.
fn check(answer: &Certificates, key: &PrivateKey) -> Outcome {
    let not_understood = |why: String| Failure::internal(format!("auth's answer is not understood: {why}"));
    let chain = certificates_from_pem(answer.certificate.as_bytes(), "the certificate");
    let chain = chain.map_err(|error| not_understood(error.to_string()))?;
    let claims = chain.first().map(PersonClaims::read);
    let claims = claims
        .and_then(Result::ok)
        .ok_or_else(|| not_understood("no person's certificate".to_owned()))?;
    if claims.public_key != key.public_key().to_spki_der() {
        return Err(not_understood("the certificate is for another key".to_owned()));
    }
    Ok(())
}

/// The databases that were logged in to before: their certificates were for the key before. What does not work any more is
/// told, and does not keep the person from the login.
async fn log_in_again(program: Program, at: &At, profile: &Profile, databases: Vec<ActiveDatabase>) -> Outcome {
    if databases.is_empty() {
        return Ok(());
    }
    let at = At {
        proxy: Some(profile.proxy.clone()),
        user: at.user.clone(),
    };
    let session = Session::open(program, &at)?;
    let client = session.client()?;
    for database in databases {
        let route = Route {
            service: database.service.clone(),
            db_user: database.db_user.clone(),
            db_name: database.db_name.clone(),
        };
        if let Err(failure) = log_in_to(&session, &client, route).await {
            let names = [service_name(&session.profile, &database.service)];
            service_file::remove(&service_file::path()?, &names)?;
            let (name, why) = (one_line(&database.service), one_line(&failure.to_string()));
            eprintln!("{program}: you are logged out of database {name}: {why}");
        }
    }
    Ok(())
}

/// Asks for the certificate of a database, keeps it, and makes the database a service of psql.
pub async fn log_in_to(session: &Session, client: &PeopleClient, route: Route) -> Result<Connection, Failure> {
    let connection = connection(session, route.clone())?;
    service_file::check(&connection.service, &connection.service_lines())?;
    let connection = certificate_for(session, client, route).await?;
    service_file::set(&service_file::path()?, &connection.service, &connection.service_lines())?;
    Ok(connection)
}

/// Asks for the certificate of a database and keeps it.
pub async fn certificate_for(session: &Session, client: &PeopleClient, route: Route) -> Result<Connection, Failure> {
    let answer = session.certificate(client, route.clone()).await?;
    check(&answer, &session.credentials.key)?;
    let write = session.home.write().map_err(Failure::failed)?;
    write
        .save_database(
            &session.profile,
            &session.credentials.key,
            &route.service,
            &answer.certificate,
        )
        .map_err(Failure::failed)?;
    drop(write);
    connection(session, route)
}

fn connection(session: &Session, route: Route) -> Result<Connection, Failure> {
    let active = ActiveDatabase {
        service: route.service,
        db_user: route.db_user,
        db_name: route.db_name,
        valid_until: session.credentials.claims.valid_until,
    };
    Connection::of(&session.home, &session.profile, &active)
}

pub fn log_out(at: &At) -> Outcome {
    let home = Home::of_environment().map_err(Failure::failed)?;
    let all = at.proxy.is_none() && at.user.is_none();
    let mut meant = home.logins().map_err(Failure::failed)?;
    if !all {
        meant = at.those_of(&home, meant)?;
    }
    let sections = meant.iter().flat_map(|profile| {
        let databases = home.database_names(profile).unwrap_or_default();
        databases.into_iter().map(|database| service_name(profile, &database))
    });
    let sections: Vec<String> = sections.collect();
    // A service file that cannot be changed keeps nobody's key here.
    let forgotten = service_file::path().and_then(|path| service_file::remove(&path, &sections));
    let write = home.write().map_err(Failure::failed)?;
    if all {
        write.remove_all().map_err(Failure::failed)?;
    } else {
        for profile in &meant {
            write.remove_login(profile).map_err(Failure::failed)?;
        }
    }
    drop(write);
    for profile in &meant {
        println!(
            "Logged out {} from {}.",
            one_line(&profile.user),
            one_line(&profile.proxy)
        );
    }
    if meant.is_empty() {
        println!("You are not logged in.");
    } else if all {
        println!("Logged out all users from all proxies.");
    }
    forgotten
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_denied_reads_the_name_that_was_given_and_nothing_else_is_added_to() {
        let said = denied(Failure::failed(LoginRefused::Denied), "test\u{1b}user").to_string();
        assert!(
            said.starts_with(
                "invalid username, password or second factor; you are logging in as \"test\\u{1b}user\": "
            ),
            "{said}"
        );
        assert!(said.contains("--user") && said.contains("`ctl users ls`"), "{said}");
        assert_eq!(denied(Failure::failed("no answer"), "a").to_string(), "no answer");
    }

    #[test]
    fn a_lifetime_is_minutes_or_a_duration() {
        assert_eq!(lifetime("720"), Ok(Duration::from_secs(12 * 3600)));
        assert_eq!(lifetime("8h"), Ok(Duration::from_secs(8 * 3600)));
        assert!(lifetime("0").is_err() && lifetime("soon").unwrap_err().starts_with("--ttl: "));
    }
}
