//! From the tree to the sections of auth and proxy, and what sections have in common.

use super::address::ListenAddr;
use super::error::ConfigError;
use super::file::{Node, Value};
use super::resolve::absolute_path;
use super::secret_file::StaticToken;
use super::section::Section;
use super::{
    AcmeConfig, AuthConfig, DEFAULT_AUTH_PORT, DEFAULT_POLICY_MAX_AGE, DEFAULT_WEB_PORT, KeyPair, MAX_POLICY_MAX_AGE,
    MIN_POLICY_MAX_AGE, ProxyConfig, ProxyProtocol, keys,
};
use crate::model::{ClusterName, NodeName};
use crate::model::{Endpoint, IpNetwork};
use std::time::Duration;

/// Resolves `auth_service`; `None` when it says `enabled: no`. What a disabled section says is checked all the same.
pub(super) fn auth(node: Node, nodename: &NodeName) -> Result<Option<AuthConfig>, ConfigError> {
    let mut section = Section::open(node, "auth_service", &keys::AUTH)?;
    let enabled = section.flag("enabled")?.unwrap_or(true);
    let cluster_name = match section.text("cluster_name", "a name")? {
        Some(text) => text.read(str::parse::<ClusterName>)?,
        None => ClusterName::new(nodename.as_str())
            .map_err(|error| section.missing("cluster_name", format!("the node's name cannot be used ({error})")))?,
    };
    let tokens = section.texts("tokens", "a list of kinds:secret")?;
    let config = AuthConfig {
        cluster_name,
        listen_addr: listen_addr(&mut section, "listen_addr", DEFAULT_AUTH_PORT)?,
        tokens: tokens
            .iter()
            .map(|text| text.read(StaticToken::parse))
            .collect::<Result<_, _>>()?,
        policy_max_age: policy_max_age(&mut section)?,
    };
    Ok(enabled.then_some(config))
}

fn policy_max_age(section: &mut Section) -> Result<Duration, ConfigError> {
    let Some(text) = section.text("policy_max_age", "a duration such as 5m")? else {
        return Ok(DEFAULT_POLICY_MAX_AGE);
    };
    let age = text.read(parse_duration)?;
    if (MIN_POLICY_MAX_AGE..=MAX_POLICY_MAX_AGE).contains(&age) {
        Ok(age)
    } else {
        Err(text.refuse(format!("{:?} is not between 10s and 1h", text.value)))
    }
}

/// Reads `90s`, `5m`, `1h30m`: whole numbers with a unit each.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration; write for example 30s, 5m or 1h30m");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let number: u32 = rest[..unit_at].parse().map_err(|_| bad())?;
        let unit_and_rest = &rest[unit_at..];
        let next = unit_and_rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(unit_and_rest.len());
        let seconds = match &unit_and_rest[..next] {
            "s" => 1,
            "m" => 60,
            "h" => 60 * 60,
            _ => return Err(bad()),
        };
        total += Duration::from_secs(u64::from(number) * seconds);
        rest = &unit_and_rest[next..];
    }
    if text.is_empty() { Err(bad()) } else { Ok(total) }
}

/// Resolves `proxy_service`; `None` when it says `enabled: no`.
pub(super) fn proxy(node: Node) -> Result<Option<ProxyConfig>, ConfigError> {
    let mut section = Section::open(node, "proxy_service", &keys::PROXY)?;
    let enabled = section.flag("enabled")?.unwrap_or(true);
    let web_listen_addr = listen_addr(&mut section, "web_listen_addr", DEFAULT_WEB_PORT)?;
    // A public address without a port has that of the listener, also where the system chooses it.
    let port = web_listen_addr.port;
    let public_addr = section
        .texts("public_addr", "an address host:port or a list of them")?
        .iter()
        .map(|text| text.read(|value| Endpoint::parse(value, port)))
        .collect::<Result<_, _>>()?;
    let config = ProxyConfig {
        web_listen_addr,
        public_addr,
        https_keypairs: keypairs(&mut section)?,
        cancel_without_tls: section.flag("cancel_without_tls")?.unwrap_or(true),
        acme: acme(&mut section)?,
        proxy_protocol: proxy_protocol(&mut section)?,
    };
    Ok(enabled.then_some(config))
}

/// Off unless it says `on`. Teleport accepts headers where nothing is said; a header that anybody may send says nothing.
fn proxy_protocol(section: &mut Section) -> Result<ProxyProtocol, ConfigError> {
    let is_on = section.flag("proxy_protocol")?.unwrap_or(false);
    let from = section.texts("proxy_protocol_from", "a network such as 10.0.0.0/8, or a list of them")?;
    match from.first() {
        Some(text) if !is_on => Err(text.refuse("it says nothing without proxy_protocol: on")),
        _ if !is_on => Ok(ProxyProtocol::Off),
        _ => Ok(ProxyProtocol::On {
            from: from
                .iter()
                .map(|text| text.read(str::parse::<IpNetwork>))
                .collect::<Result<_, _>>()?,
        }),
    }
}

fn keypairs(section: &mut Section) -> Result<Vec<KeyPair>, ConfigError> {
    let entries = match section.take("https_keypairs") {
        None => return Ok(Vec::new()),
        Some(Node {
            value: Value::List(entries),
            ..
        }) => entries,
        Some(other) => {
            return Err(other.wrong_type("https_keypairs in proxy_service", "a list of cert_file and key_file"));
        }
    };
    entries.into_iter().map(keypair).collect()
}

fn keypair(node: Node) -> Result<KeyPair, ConfigError> {
    let mut pair = Section::open(node, "an entry of https_keypairs", &keys::KEYPAIR)?;
    let mut path = |key: &'static str| match pair.text(key, "a path")? {
        Some(text) => absolute_path(&text),
        None => Err(pair.missing(key, "a certificate is of no use without its key")),
    };
    Ok(KeyPair {
        cert_file: path("cert_file")?,
        key_file: path("key_file")?,
    })
}

/// Off unless it says `enabled: yes`, as in Teleport: a file may keep the e-mail address of an issuer that it does not use.
fn acme(section: &mut Section) -> Result<Option<AcmeConfig>, ConfigError> {
    let name = section.subject("acme");
    let Some(node) = section.take("acme") else {
        return Ok(None);
    };
    let mut acme = Section::open(node, &name, &keys::ACME)?;
    let enabled = acme.flag("enabled")?.unwrap_or(false);
    let email = acme.text("email", "an e-mail address")?;
    if let Some(text) = &email
        && (!text.value.contains('@') || text.value.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        return Err(text.refuse(format!("{:?} is not an e-mail address", text.value)));
    }
    let uri = acme.text("uri", "an https:// address")?;
    if let Some(text) = uri.as_ref().filter(|text| !text.value.starts_with("https://")) {
        return Err(text.refuse(format!("{:?} must begin with https://", text.value)));
    }
    let config = AcmeConfig {
        email: email.map(|text| text.value),
        uri: uri.map(|text| text.value),
    };
    Ok(enabled.then_some(config))
}

fn listen_addr(section: &mut Section, key: &str, default_port: u16) -> Result<ListenAddr, ConfigError> {
    match section.text(key, "an address host:port")? {
        Some(text) => text.read(|value| ListenAddr::parse(value, default_port)),
        None => Ok(ListenAddr::any_v4(default_port)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn headers_of_balancers_are_off_and_say_whose_are_believed() {
        let protocol = |text: &str| {
            let config = Config::parse(&format!("auth_service: {{}}\nproxy_service: {{{text}}}"), "x");
            config.map(|config| config.proxy.map(|proxy| proxy.proxy_protocol))
        };
        let on = |from: &[&str]| {
            let from = from.iter().map(|text| text.parse().unwrap()).collect();
            Some(ProxyProtocol::On { from })
        };
        for (text, expected) in [
            ("", Some(ProxyProtocol::Off)),
            ("proxy_protocol: off", Some(ProxyProtocol::Off)),
            ("proxy_protocol: on", on(&[])),
            (
                "proxy_protocol: \"on\", proxy_protocol_from: 10.0.0.7",
                on(&["10.0.0.7/32"]),
            ),
            (
                "proxy_protocol: on, proxy_protocol_from: [10.0.0.0/8, \"2001:db8::/32\"]",
                on(&["10.0.0.0/8", "2001:db8::/32"]),
            ),
        ] {
            assert_eq!(protocol(text).expect(text), expected, "{text}");
        }
        for (text, why) in [
            ("proxy_protocol: v2", "neither yes nor no"),
            ("proxy_protocol: on, proxy_protocol_from: [10.0.0.1/8]", "10.0.0.0/8"),
            (
                "proxy_protocol: on, proxy_protocol_from: balancer.example",
                "not a network",
            ),
            ("proxy_protocol_from: 10.0.0.0/8", "without proxy_protocol: on"),
        ] {
            let refused = protocol(text).expect_err(text).to_string();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn the_age_of_the_policy_has_a_unit_and_limits() {
        let age = |text: &str| {
            let config = Config::parse(&format!("auth_service: {{policy_max_age: {text}}}"), "x");
            config.map(|config| config.auth.map(|auth| auth.policy_max_age))
        };
        assert_eq!(age("1m30s").expect("valid"), Some(Duration::from_secs(90)));
        for bad in [
            "300",
            "5 m",
            "m",
            "99999999999h",
            "4294967295h",
            "1s",
            "2h",
            "-5m",
            "5µ",
        ] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }
}
