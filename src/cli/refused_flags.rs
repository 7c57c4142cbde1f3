//! Flags of Teleport's that Postern does not have, and the sentence that is said about each.

use super::Failure;
use super::names::Program;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use std::ffi::OsString;

type Sentences = &'static [(&'static [&'static str], &'static str)];

/// Of the commands that run nodes. A name that ends with a dash is the beginning of several.
const OF_NODES: Sentences = &[
    (
        &["--insecure"],
        "is for `start` and `db start`, at the first contact through a proxy, and no configuration holds it; give --ca-pin with \
         what `postern ctl status` prints on the auth node",
    ),
    (
        &["--labels", "--node-labels"],
        "is not supported: labels are of databases; give them to `postern db start --labels`, or as static_labels of a \
         database in the file",
    ),
    (&["--fips"], "is not supported: Postern has no FIPS build; leave it out"),
    (
        &["--permit-user-env"],
        "is of Teleport's SSH service, which Postern does not have; leave it out",
    ),
    (
        &["--insecure-no-tls"],
        "is not supported: the proxy speaks TLS itself, always; leave it out, and let a load balancer pass TCP on as it is",
    ),
    (
        &["--advertise-ip"],
        "is not supported: a node is reached through the tunnel that it dials, and a proxy by the public_addr of its \
         proxy_service; leave it out",
    ),
    (
        &["--app-"],
        "is of Teleport's application service, which Postern does not have; leave it out",
    ),
    (
        &["--aws-", "--gcp-", "--azure-", "--ad-"],
        "is for databases of a cloud or of Active Directory; Postern serves PostgreSQL by certificates of its own: leave it out \
         and name the database by --uri",
    ),
    (
        &["--skip-version-check"],
        "is not needed: nodes of any version that speak the cluster's protocol join it; leave it out",
    ),
    (
        &["--bootstrap", "--apply-on-startup"],
        "is not supported: roles and users are in auth's store, not in a file that each start reads; start auth, then run `ctl \
         create -f FILE`",
    ),
    (
        &["--config-string"],
        "is not supported: arguments are seen by every account of the machine; write the configuration to a file that only its \
         owner may read, and name it by --config",
    ),
    (
        &["--raw"],
        "is not supported: the first line that `version` prints is the name and the version; leave it out",
    ),
];

/// Of the administrator's commands.
const OF_ADMINISTRATORS: Sentences = &[
    (
        &["--auth-server"],
        "is not supported: auth is asked through its socket on its own machine (--data-dir or --config), or through a proxy as \
         whoever is logged in; leave it out",
    ),
    (
        &["--insecure"],
        "is not supported: ctl speaks to auth through a socket of the machine, or with a login whose authorities it knows; leave \
         it out",
    ),
];

pub fn invalid_argument(error: &clap::Error) -> String {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.clone(),
        _ => String::new(),
    }
}

/// The sentence about a flag of Teleport's, where `error` is about one.
pub fn sentence(program: Program, arguments: &[OsString], error: &clap::Error) -> Option<Failure> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let verb = arguments.get(1).and_then(|verb| verb.to_str()).unwrap_or_default();
    let sentences = match (program, verb) {
        (Program::Teleport, _) | (Program::Postern, "start" | "configure" | "db") | (_, "version") => OF_NODES,
        (Program::Tctl, _) | (Program::Postern, "ctl") => OF_ADMINISTRATORS,
        (Program::Postern | Program::Tsh, _) => return None,
    };
    let flag = invalid_argument(error);
    let flag = flag.split(['=', ' ']).next().unwrap_or_default();
    let named = |names: &[&str]| {
        names
            .iter()
            .any(|name| flag == *name || (name.ends_with('-') && flag.starts_with(name)))
    };
    let (_, sentence) = sentences.iter().find(|(names, _)| named(names))?;
    Some(Failure::usage(format!("{flag} {sentence}")))
}
