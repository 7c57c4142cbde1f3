//! What differs between two configurations, by the names of the keys in the file.

use super::{AuthConfig, Config, ProxyConfig};

/// The keys that differ.
#[derive(Default)]
struct Changes(Vec<&'static str>);

impl Changes {
    fn note(&mut self, key: &'static str, is_same: bool) {
        if !is_same {
            self.0.push(key);
        }
    }

    /// A service that is switched on or off is one change; else its keys are compared.
    fn service<T>(
        &mut self,
        key: &'static str,
        old: Option<&T>,
        new: Option<&T>,
        keys: impl FnOnce(&mut Self, &T, &T),
    ) {
        match (old, new) {
            (Some(old), Some(new)) => keys(self, old, new),
            (None, None) => {}
            _ => self.note(key, false),
        }
    }
}

impl Config {
    /// The keys whose values differ from `new`'s. Files that are named are not looked into.
    pub fn changed_keys(&self, new: &Self) -> Vec<&'static str> {
        // Every field by its name, so that a new one cannot be forgotten here.
        let Self {
            version,
            nodename,
            data_dir,
            pid_file,
            auth_token,
            ca_pins,
            join,
            log,
            diag_addr,
            shutdown_grace,
            worker_threads,
            auth,
            proxy,
            db,
        } = self;
        let mut changes = Changes::default();
        let same_token = match (auth_token, &new.auth_token) {
            (Some(old), Some(new)) => old.is_same(new),
            (old, new) => old.is_none() && new.is_none(),
        };
        changes.note("version", *version == new.version);
        changes.note("nodename", *nodename == new.nodename);
        changes.note("data_dir", *data_dir == new.data_dir);
        changes.note("pid_file", *pid_file == new.pid_file);
        changes.note("auth_token", same_token);
        changes.note("ca_pin", *ca_pins == new.ca_pins);
        changes.note("auth_server or proxy_server", *join == new.join);
        changes.note("log", *log == new.log);
        changes.note("diag_addr", *diag_addr == new.diag_addr);
        changes.note("shutdown_grace", *shutdown_grace == new.shutdown_grace);
        changes.note("worker_threads", *worker_threads == new.worker_threads);
        changes.service("auth_service", auth.as_ref(), new.auth.as_ref(), auth_keys);
        changes.service("proxy_service", proxy.as_ref(), new.proxy.as_ref(), proxy_keys);
        changes.service("db_service", db.as_ref(), new.db.as_ref(), |changes, old, new| {
            changes.note("db_service.databases", old.databases == new.databases);
            changes.note("db_service.resources", old.resources == new.resources);
        });
        changes.0
    }
}

fn auth_keys(changes: &mut Changes, old: &AuthConfig, new: &AuthConfig) {
    let AuthConfig {
        cluster_name,
        listen_addr,
        tokens,
        policy_max_age,
    } = old;
    let same_tokens =
        tokens.len() == new.tokens.len() && tokens.iter().zip(&new.tokens).all(|(old, new)| old.is_same(new));
    changes.note("auth_service.cluster_name", *cluster_name == new.cluster_name);
    changes.note("auth_service.listen_addr", *listen_addr == new.listen_addr);
    changes.note("auth_service.tokens", same_tokens);
    changes.note("auth_service.policy_max_age", *policy_max_age == new.policy_max_age);
}

fn proxy_keys(changes: &mut Changes, old: &ProxyConfig, new: &ProxyConfig) {
    let ProxyConfig {
        web_listen_addr,
        public_addr,
        https_keypairs,
        cancel_without_tls,
        acme,
        proxy_protocol,
    } = old;
    changes.note("proxy_service.web_listen_addr", *web_listen_addr == new.web_listen_addr);
    changes.note("proxy_service.public_addr", *public_addr == new.public_addr);
    changes.note("proxy_service.https_keypairs", *https_keypairs == new.https_keypairs);
    changes.note(
        "proxy_service.cancel_without_tls",
        *cancel_without_tls == new.cancel_without_tls,
    );
    changes.note("proxy_service.acme", *acme == new.acme);
    changes.note("proxy_service.proxy_protocol", *proxy_protocol == new.proxy_protocol);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "version: v3\npostern: {nodename: one, data_dir: /data, log: {severity: info}}\n\
                        auth_service: {cluster_name: c, tokens: [\"db:0123456789abcdef\"]}\n\
                        proxy_service: {public_addr: a}\n\
                        db_service: {databases: [{name: d, protocol: postgres, uri: \"h:5432\"}]}\n";

    fn changed(from: &str, to: &str) -> Vec<&'static str> {
        let read = |text: &str| Config::parse(text, "test").expect("valid");
        read(FILE).changed_keys(&read(&FILE.replace(from, to)))
    }

    #[test]
    fn a_file_that_says_the_same_has_no_changes() {
        assert_eq!(changed("", ""), Vec::<&str>::new());
    }

    #[test]
    fn each_setting_that_differs_is_named() {
        for (from, to, key) in [
            ("nodename: one", "nodename: two", "nodename"),
            ("/data", "/other", "data_dir"),
            ("nodename: one", "nodename: one, shutdown_grace: 1s", "shutdown_grace"),
            (
                "nodename: one",
                "nodename: one, diag_addr: \"127.0.0.1:3000\"",
                "diag_addr",
            ),
            ("severity: info", "severity: debug", "log"),
            ("0123456789abcdef", "0123456789abcdeg", "auth_service.tokens"),
            ("cluster_name: c", "cluster_name: e", "auth_service.cluster_name"),
            ("public_addr: a", "public_addr: b", "proxy_service.public_addr"),
            (
                "public_addr: a",
                "public_addr: a, cancel_without_tls: no",
                "proxy_service.cancel_without_tls",
            ),
            ("name: d", "name: e", "db_service.databases"),
            ("public_addr: a", "enabled: no", "proxy_service"),
        ] {
            assert_eq!(changed(from, to), [key], "{from} -> {to}");
        }
    }
}
