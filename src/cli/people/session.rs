//! The login that a command is for: found among the profiles, still valid, and able to ask auth.

use super::At;
use crate::cli::Failure;
use crate::cli::names::Program;
use crate::cli::people_client::PeopleClient;
use crate::cli::profile::{Credentials, Home, Profile};
use crate::cli::terminal::one_line;
use crate::config::DEFAULT_WEB_PORT;
use crate::model::{Clock as _, Endpoint, SystemClock, Timestamp};
use crate::net::tls;
use crate::pki::PrivateKey;
use crate::pki::pem::certificates_from_pem;
use crate::web::people_api::{Certificates, Renew, Route};
use data_encoding::BASE64;

/// The ports of a proxy that is named without one, in the order in which they are tried.
const PROXY_PORTS: [u16; 2] = [443, DEFAULT_WEB_PORT];

pub fn now() -> Timestamp {
    SystemClock.now()
}

impl At {
    /// What the command line or the environment says of the proxy.
    pub fn proxy(&self) -> Option<String> {
        said(self.proxy.as_ref(), ["POSTERN_PROXY", "TELEPORT_PROXY"])
    }

    pub fn user(&self) -> Option<String> {
        said(self.user.as_ref(), ["POSTERN_USER", "TELEPORT_USER"])
    }

    /// The profile that is meant, whether its login is valid or not.
    pub fn profile(&self, home: &Home) -> Result<Option<Profile>, Failure> {
        let found = match self.proxy() {
            Some(proxy) => known(home, &proxy)?,
            None => home.current().map_err(Failure::failed)?,
        };
        Ok(found.map(|profile| match self.user() {
            Some(user) => Profile { user, ..profile },
            None => profile,
        }))
    }

    /// Those of the logins that are meant, also where the proxy's profile names somebody else or is gone. Of one proxy: the one
    /// that is said, else the current one, as long as there is one.
    pub fn those_of(&self, home: &Home, mut logins: Vec<Profile>) -> Result<Vec<Profile>, Failure> {
        let proxies: Vec<String> = match self.proxy() {
            Some(proxy) => endpoints(&proxy)?.iter().map(ToString::to_string).collect(),
            None => home
                .current()
                .ok()
                .flatten()
                .map(|profile| profile.proxy)
                .into_iter()
                .collect(),
        };
        let known = |name: &&String| logins.iter().any(|login| login.proxy == **name);
        if let Some(proxy) = proxies.iter().find(known).or_else(|| proxies.first()).cloned() {
            logins.retain(|login| login.proxy == proxy);
        }
        if let Some(user) = self.user() {
            logins.retain(|login| login.user == user);
        }
        Ok(logins)
    }
}

fn said(flag: Option<&String>, variables: [&str; 2]) -> Option<String> {
    let named = || variables.iter().find_map(|variable| std::env::var(variable).ok());
    flag.cloned().or_else(named).filter(|text| !text.is_empty())
}

/// Where a proxy may be that a person names.
pub fn endpoints(proxy: &str) -> Result<Vec<Endpoint>, Failure> {
    let ports = PROXY_PORTS.into_iter();
    let mut endpoints = ports
        .map(|port| Endpoint::parse(proxy, port).map_err(|error| Failure::usage(format!("--proxy: {error}"))))
        .collect::<Result<Vec<_>, _>>()?;
    endpoints.dedup();
    Ok(endpoints)
}

/// The profile of the proxy that a person names.
pub fn known(home: &Home, proxy: &str) -> Result<Option<Profile>, Failure> {
    for endpoint in endpoints(proxy)? {
        if let Some(profile) = home.profile(&endpoint.to_string()).map_err(Failure::failed)? {
            return Ok(Some(profile));
        }
    }
    Ok(None)
}

/// A valid login.
pub struct Session {
    pub home: Home,
    pub profile: Profile,
    pub credentials: Credentials,
}

impl Session {
    /// # Errors
    /// There is no login, or it has expired: with the command to type.
    pub fn open(program: Program, at: &At) -> Result<Self, Failure> {
        let home = Home::of_environment().map_err(Failure::failed)?;
        let Some(profile) = at.profile(&home)? else {
            return Err(not_logged_in(program, at.proxy().as_deref()));
        };
        let kept = home.credentials(&profile).map_err(Failure::failed)?;
        let Some(credentials) = kept else {
            return Err(not_logged_in(program, Some(&profile.proxy)));
        };
        if credentials.claims.valid_until <= now() {
            return Err(expired(program, &profile, &credentials));
        }
        Ok(Self {
            home,
            profile,
            credentials,
        })
    }

    pub fn client(&self) -> Result<PeopleClient, Failure> {
        let pem = |text: &str| certificates_from_pem(text.as_bytes(), "your login").map_err(Failure::failed);
        let credentials = tls::Credentials {
            chain: pem(&self.credentials.certificate)?,
            key: self.credentials.key.clone(),
        };
        let endpoint = self.profile.endpoint().map_err(Failure::failed)?;
        PeopleClient::new(endpoint, &pem(&self.credentials.host_ca)?, Some(&credentials))
    }

    /// A certificate for a database and the same key.
    pub async fn certificate(&self, client: &PeopleClient, route: Route) -> Result<Certificates, Failure> {
        let ask = Renew {
            csr: csr(&self.credentials.key, &self.profile.user)?,
            route: Some(route),
        };
        client.renew(&ask).await
    }
}

pub fn csr(key: &PrivateKey, user: &str) -> Result<String, Failure> {
    Ok(BASE64.encode(&key.csr(user).map_err(Failure::failed)?))
}

pub fn not_logged_in(program: Program, proxy: Option<&str>) -> Failure {
    let proxy = proxy.map_or_else(|| "HOST".to_owned(), one_line);
    Failure::failed(format!(
        "not logged in; type `{} login --proxy={proxy}`",
        program.of_people()
    ))
}

pub fn expired(program: Program, profile: &Profile, credentials: &Credentials) -> Failure {
    Failure::failed(format!(
        "your login at {} expired at {}; type `{} login --proxy={} --user={}`",
        one_line(&profile.proxy),
        credentials.claims.valid_until,
        program.of_people(),
        one_line(&profile.proxy),
        one_line(&profile.user)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logout_means_a_user_whom_the_proxy_s_profile_does_not_name() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path()).unwrap();
        let login = |proxy: &str, user: &str| Profile {
            proxy: proxy.to_owned(),
            user: user.to_owned(),
            cluster: "gate".to_owned(),
            roles: Vec::new(),
        };
        let logins = || {
            vec![
                login("one:3080", "alice"),
                login("one:3080", "dev"),
                login("two:443", "dev"),
            ]
        };
        let meant = |proxy: Option<&str>, user: Option<&str>| {
            let at = At {
                proxy: proxy.map(str::to_owned),
                user: user.map(str::to_owned),
            };
            at.those_of(&home, logins()).unwrap()
        };
        assert_eq!(meant(Some("one"), Some("dev")), [login("one:3080", "dev")]);
        assert_eq!(meant(None, Some("dev")), logins()[1..], "nothing is the current one");
        assert_eq!(meant(Some("one:3080"), None), logins()[..2]);
        assert_eq!(meant(Some("three"), Some("dev")), []);
        std::fs::write(dir.path().join("current-profile"), "two:443").unwrap();
        let two = serde_json::to_string(&login("two:443", "alice")).unwrap();
        std::fs::write(dir.path().join("two:443.json"), two).unwrap();
        assert_eq!(meant(None, Some("dev")), [login("two:443", "dev")]);
    }

    #[test]
    fn a_proxy_without_a_port_is_looked_for_at_443_and_3080() {
        let at = |proxy: &str| -> Vec<String> { endpoints(proxy).unwrap().iter().map(ToString::to_string).collect() };
        assert_eq!(
            at("proxy.example.com"),
            ["proxy.example.com:443", "proxy.example.com:3080"]
        );
        assert_eq!(at("proxy.example.com:444"), ["proxy.example.com:444"]);
        assert!(
            endpoints("https://proxy")
                .unwrap_err()
                .to_string()
                .starts_with("--proxy: ")
        );
    }
}
