//! How a database is connected to, in the forms that other programs read.

use crate::cli::Failure;
use crate::cli::profile::{ActiveDatabase, Home, Profile};
use crate::cli::terminal::one_line;
use crate::model::percent_encoded;
use serde::Serialize;
use std::path::Path;

/// Everything that a client of PostgreSQL needs. The key is a file of its owner alone.
#[derive(Debug, Clone, Serialize)]
pub struct Connection {
    pub name: String,
    pub host: String,
    pub port: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    pub ca: String,
    pub cert: String,
    pub key: String,
    /// The section of psql's service file.
    #[serde(skip)]
    pub service: String,
}

impl Connection {
    pub fn of(home: &Home, profile: &Profile, active: &ActiveDatabase) -> Result<Self, Failure> {
        let endpoint = profile.endpoint().map_err(Failure::failed)?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Ok(Self {
            name: active.service.clone(),
            host: endpoint.host,
            port: endpoint.port,
            user: active.db_user.clone(),
            database: active.db_name.clone(),
            ca: text(&home.roots_file(profile).map_err(Failure::failed)?),
            cert: text(&home.database_file(profile, &active.service).map_err(Failure::failed)?),
            key: text(&home.key_file(profile).map_err(Failure::failed)?),
            service: service_name(profile, &active.service),
        })
    }

    /// Keyword of a service file, variable of libpq, value.
    fn settings(&self) -> Vec<(&'static str, &'static str, String)> {
        let mut settings = vec![
            ("host", "PGHOST", self.host.clone()),
            ("port", "PGPORT", self.port.to_string()),
        ];
        settings.extend(self.user.clone().map(|user| ("user", "PGUSER", user)));
        settings.extend(self.database.clone().map(|name| ("dbname", "PGDATABASE", name)));
        settings.extend([
            ("sslmode", "PGSSLMODE", "verify-full".to_owned()),
            ("sslrootcert", "PGSSLROOTCERT", self.ca.clone()),
            ("sslcert", "PGSSLCERT", self.cert.clone()),
            ("sslkey", "PGSSLKEY", self.key.clone()),
            ("gssencmode", "PGGSSENCMODE", "disable".to_owned()),
        ]);
        settings
    }

    pub fn service_lines(&self) -> Vec<String> {
        let settings = self.settings().into_iter();
        settings
            .map(|(keyword, _, value)| format!("{keyword}={value}"))
            .collect()
    }

    pub fn variables(&self) -> Vec<(&'static str, String)> {
        self.settings()
            .into_iter()
            .map(|(_, variable, value)| (variable, value))
            .collect()
    }

    pub fn exports(&self) -> String {
        let variables = self.variables().into_iter();
        variables
            .map(|(variable, value)| format!("export {variable}={}\n", shell_word(&value)))
            .collect()
    }

    /// `Name: …`, one a line.
    pub fn text(&self) -> String {
        let said = |value: &Option<String>| value.as_deref().map(one_line).unwrap_or_default();
        format!(
            "Name:      {}\nHost:      {}\nPort:      {}\nUser:      {}\nDatabase:  {}\nCA:        {}\nCert:      {}\nKey:       {}\n",
            self.name,
            self.host,
            self.port,
            said(&self.user),
            said(&self.database),
            one_line(&self.ca),
            one_line(&self.cert),
            one_line(&self.key)
        )
    }

    /// The URI of libpq (PostgreSQL's manual, "Connection URIs").
    pub fn uri(&self) -> String {
        let user = self.user.as_deref().map(|user| format!("{}@", percent_encoded(user)));
        let name = self.database.as_deref().map(percent_encoded).unwrap_or_default();
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        format!(
            "postgres://{}{host}:{}/{name}?sslrootcert={}&sslcert={}&sslkey={}&sslmode=verify-full&gssencmode=disable",
            user.unwrap_or_default(),
            self.port,
            percent_encoded(&self.ca),
            percent_encoded(&self.cert),
            percent_encoded(&self.key)
        )
    }

    pub fn command(&self) -> String {
        format!("psql \"{}\"", self.uri())
    }
}

pub fn service_name(profile: &Profile, service: &str) -> String {
    format!("{}-{service}", profile.cluster)
}

/// A word of a shell: in quotes where it is not plain.
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        Connection {
            name: "orders".to_owned(),
            host: "proxy.example.com".to_owned(),
            port: 443,
            user: Some("o'brien".to_owned()),
            database: Some("my db".to_owned()),
            ca: "/h/ca.pem".to_owned(),
            cert: "/h/c.pem".to_owned(),
            key: "/h/k.key".to_owned(),
            service: "gate-orders".to_owned(),
        }
    }

    #[test]
    fn every_form_says_the_same_and_quotes_what_others_chose() {
        let connection = connection();
        let exports = connection.exports();
        for line in [
            "export PGHOST=proxy.example.com\n",
            "export PGPORT=443\n",
            "export PGUSER='o'\\''brien'\n",
            "export PGDATABASE='my db'\n",
            "export PGSSLMODE=verify-full\n",
            "export PGSSLROOTCERT=/h/ca.pem\n",
            "export PGSSLCERT=/h/c.pem\n",
            "export PGSSLKEY=/h/k.key\n",
            "export PGGSSENCMODE=disable\n",
        ] {
            assert!(exports.contains(line), "{line}: {exports}");
        }
        assert!(connection.service_lines().contains(&"dbname=my db".to_owned()));
        let uri = connection.uri();
        assert!(
            uri.starts_with("postgres://o%27brien@proxy.example.com:443/my%20db?sslrootcert="),
            "{uri}"
        );
        assert!(!connection.command()["psql \"".len()..connection.command().len() - 1].contains(['"', '$', '`', '\\']));
        let json = serde_json::to_value(&connection).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["name", "host", "port", "user", "database", "ca", "cert", "key"]);
    }

    #[test]
    fn what_is_not_known_is_left_to_the_client() {
        let connection = Connection {
            user: None,
            database: None,
            host: "::1".to_owned(),
            ..connection()
        };
        assert!(connection.uri().starts_with("postgres://[::1]:443/?sslrootcert="));
        assert!(!connection.exports().contains("PGUSER"));
    }
}
