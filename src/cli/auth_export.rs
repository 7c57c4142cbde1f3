//! `postern ctl auth export`: the certificates of the cluster's authorities, for whoever has to trust them.

use super::admin_client::AdminClient;
use super::{Failure, Outcome};
use crate::pki::CaKind;
use crate::pki::pem::certificates_from_pem;
use crate::web::api::{Authorities, Authority};
use clap::Args;
use serde_json::Value;
use std::io::Write as _;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Which authority: user, host, db or db-client; tls-user and tls-host are the same ones. With `-der` after it, as DER.
    #[arg(long = "type", value_name = "TYPE")]
    kind: String,
    /// Into this file instead of standard output.
    #[arg(short, long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print the fingerprint of the key instead, as in a CA pin.
    #[arg(long)]
    fingerprint: bool,
    /// Refused: keys never leave auth.
    #[arg(long, hide = true)]
    keys: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    authority: CaKind,
    is_der: bool,
}

const TYPES: &str = "user, host, db, db-client, tls-user, tls-host, and each of them with -der after it";

fn wanted(text: &str) -> Result<Wanted, String> {
    let (name, is_der) = match text.strip_suffix("-der") {
        Some(name) => (name, true),
        None => (text, false),
    };
    let authority = match name {
        "user" | "tls-user" => CaKind::User,
        "host" | "tls-host" => CaKind::Host,
        "db" => CaKind::Db,
        "db-client" => CaKind::DbClient,
        "openssh" | "tls-spiffe" | "saml-idp" | "windows" | "oidc-idp" | "jwt" | "github" | "awsra" => {
            return Err(format!(
                "--type={text} is an authority of Teleport's for something that Postern does not have; there are {TYPES}"
            ));
        }
        _ => return Err(format!("--type={text:?} is no authority; there are {TYPES}")),
    };
    Ok(Wanted { authority, is_der })
}

pub async fn run(client: &AdminClient, args: ExportArgs) -> Outcome {
    if args.keys {
        return Err(Failure::usage(
            "--keys cannot be done: the keys of the authorities never leave auth; to keep a copy of the cluster, back up auth's \
             data directory",
        ));
    }
    let wanted = wanted(&args.kind).map_err(Failure::usage)?;
    let found: Authorities = client.get("/v1/authorities", &Value::Null).await?;
    let label = wanted.authority.label();
    let certificates: Vec<&Authority> = found
        .authorities
        .iter()
        .filter(|authority| authority.status.authority == label)
        .collect();
    let content = if args.fingerprint {
        let lines = certificates
            .iter()
            .map(|authority| format!("{}\n", authority.fingerprint));
        lines.collect::<String>().into_bytes()
    } else {
        content(wanted, &certificates)?
    };
    write(args.out.as_deref(), &content)
}

fn content(wanted: Wanted, certificates: &[&Authority]) -> Result<Vec<u8>, Failure> {
    let pem: String = certificates
        .iter()
        .map(|authority| authority.certificate.as_str())
        .collect();
    if !wanted.is_der {
        return Ok(pem.into_bytes());
    }
    let der = certificates_from_pem(pem.as_bytes(), "auth's answer").map_err(Failure::internal)?;
    match der.as_slice() {
        [one] => Ok(one.to_vec()),
        several => Err(Failure::failed(format!(
            "the {} authority has {} certificates, and a DER file holds one; export it without -der",
            wanted.authority,
            several.len()
        ))),
    }
}

/// Certificates are public: the file has the usual mode.
fn write(out: Option<&Path>, content: &[u8]) -> Outcome {
    match out {
        Some(path) => {
            std::fs::write(path, content).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
            println!("It has been written to {}.", path.display());
            Ok(())
        }
        None => {
            let mut stdout = std::io::stdout();
            stdout
                .write_all(content)
                .and_then(|()| stdout.flush())
                .map_err(|error| Failure::failed(format!("standard output cannot be written: {error}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_an_authority_of_ours_or_is_refused_by_its_name() {
        for (text, authority, is_der) in [
            ("user", CaKind::User, false),
            ("tls-user-der", CaKind::User, true),
            ("tls-host", CaKind::Host, false),
            ("db-der", CaKind::Db, true),
            ("db-client", CaKind::DbClient, false),
            ("db-client-der", CaKind::DbClient, true),
        ] {
            assert_eq!(wanted(text), Ok(Wanted { authority, is_der }), "{text}");
        }
        for text in ["openssh", "windows", "saml-idp", "tls-spiffe"] {
            let said = wanted(text).unwrap_err();
            assert!(said.contains(text) && said.contains("does not have"), "{said}");
        }
        assert!(wanted("dbs").unwrap_err().contains("db-client"));
    }
}
