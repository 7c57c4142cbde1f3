//! The flags that `start`, `configure` and `db` have in common, and the rules about them that a file has no need of.

use super::{Failure, Outcome};
use crate::config::{JoinSetting, Settings};
use crate::model::{NodeKind, Secret};
use clap::Args;
use std::convert::Infallible;

/// Who the node is, and by what it joins.
#[derive(Debug, Args)]
pub struct JoinFlags {
    /// What this node joins its cluster with, at its first start: a token, or the absolute path of a file with one.
    #[arg(long, value_name = "TOKEN|FILE", value_parser = secret)]
    token: Option<Secret<String>>,
    /// By which authority the node knows its cluster, as `postern ctl status` prints it; may be repeated.
    #[arg(long = "ca-pin", value_name = "PIN|FILE")]
    ca_pins: Vec<String>,
    /// The node's name, for people.
    #[arg(long, value_name = "NAME")]
    nodename: Option<String>,
    /// Where the node keeps what it has to keep.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
}

impl JoinFlags {
    pub fn settings(&self) -> Settings {
        Settings {
            nodename: self.nodename.clone(),
            data_dir: self.data_dir.clone(),
            auth_token: self.token.clone(),
            ca_pins: self.ca_pins.clone(),
            ..Settings::default()
        }
    }

    pub fn say_token_or_pin(&self) -> bool {
        self.token.is_some() || !self.ca_pins.is_empty()
    }
}

fn secret(text: &str) -> Result<Secret<String>, Infallible> {
    Ok(Secret::new(text.to_owned()))
}

pub fn join_at(flag: &'static str, address: Option<&String>, is_proxy: bool) -> Option<JoinSetting> {
    address.map(|address| JoinSetting {
        flag,
        address: address.clone(),
        is_proxy,
    })
}

/// A path of the command line is meant from where it was typed; one in a configuration has to be absolute.
pub fn absolute(path: Option<&String>) -> Result<Option<String>, Failure> {
    let Some(path) = path else { return Ok(None) };
    std::path::absolute(path)
        .map(|path| Some(path.display().to_string()))
        .map_err(|error| Failure::usage(format!("{path:?} is not a path that can be used: {error}")))
}

/// One of the services of `--roles`.
pub fn role(text: &str) -> Result<NodeKind, String> {
    match text.trim() {
        "node" | "ssh" => Err("it is Teleport's SSH service, which Postern does not have; leave it out".to_owned()),
        "app" | "discovery" | "jamf" | "kube" | "okta" | "windowsdesktop" => {
            Err("it is a service of Teleport's that Postern does not have; leave it out".to_owned())
        }
        other => other.parse(),
    }
}

/// Auth joins nothing: what a node joins with has no use beside it.
///
/// # Errors
/// The flags name a token, a pin or an address to join, and auth runs here.
pub fn refuse_to_join_as_auth(runs_auth: bool, says_where_or_how: bool) -> Outcome {
    if runs_auth && says_where_or_how {
        return Err(Failure::usage(
            "a node with auth is the beginning of its cluster and joins none: leave out --token, --ca-pin and the address to join, \
             or name --roles without auth (the tokens that auth accepts are auth_service.tokens in its file)",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_postern_does_not_have_is_no_role() {
        assert_eq!(role("proxy"), Ok(NodeKind::Proxy));
        assert!(role("node").expect_err("SSH").contains("SSH"));
        assert!(role("app").expect_err("app").contains("does not have"));
        assert!(role("proxi").expect_err("a slip").contains("auth, proxy and db"));
    }
}
