//! `postern ctl auth sign`: certificates for a PostgreSQL server, or for a person.

use super::admin_client::AdminClient;
use super::terminal::parse_duration;
use super::{Failure, Outcome};
use crate::pki::PrivateKey;
use crate::pki::pem::write_private;
use crate::web::api::{SignDatabase, SignPerson, SignedCertificate};
use clap::{Args, Subcommand, ValueEnum};
use data_encoding::BASE64;
use hyper::Method;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub struct AuthArgs {
    #[command(subcommand)]
    verb: AuthVerb,
}

#[derive(Debug, Subcommand)]
enum AuthVerb {
    /// Sign a certificate: OUT.key, OUT.crt and OUT.cas.
    #[command(after_help = "Examples:\n  \
        postern ctl auth sign --format=db --host=db.example.com --out=server --ttl=2190h\n  \
        postern ctl auth sign --format=file --user=alice --db-service=orders --out=alice")]
    Sign(SignArgs),
}

#[derive(Debug, Args)]
struct SignArgs {
    /// For whom: `file` is a person, `db` a PostgreSQL server.
    #[arg(long, value_enum, default_value_t = CertificateFormat::File)]
    format: CertificateFormat,
    /// The server's names and addresses, with commas between them.
    #[arg(long, value_delimiter = ',', required_if_eq("format", "db"))]
    host: Vec<String>,
    /// The person.
    #[arg(long, required_if_eq("format", "file"))]
    user: Option<String>,
    /// The database service that a person's certificate is for.
    #[arg(long)]
    db_service: Option<String>,
    /// Where to: the path without its ending.
    #[arg(short, long)]
    out: PathBuf,
    /// How long it is valid.
    #[arg(long, default_value = "12h")]
    ttl: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CertificateFormat {
    File,
    Db,
}

pub async fn run(client: &AdminClient, args: AuthArgs) -> Outcome {
    let AuthVerb::Sign(args) = args.verb;
    let ttl = parse_duration(&args.ttl).map_err(Failure::usage)?;
    let key = PrivateKey::generate().map_err(Failure::internal)?;
    match args.format {
        CertificateFormat::Db => {
            let signed = sign_database(client, &key, args.host, ttl).await?;
            let [key_file, crt, cas] = write_out(&args.out, &key, &signed)?;
            println!("Database credentials have been written to {key_file}, {crt}, {cas}.");
            println!("They are valid until {}; renew them before.\n", signed.not_after);
            println!("To accept connections over TLS, put this into postgresql.conf and restart PostgreSQL:\n");
            println!("ssl = on\nssl_cert_file = '/path/to/{crt}'\nssl_key_file = '/path/to/{key_file}'");
            println!("ssl_ca_file = '/path/to/{cas}'\n");
            println!("and these lines into pg_hba.conf, before others that match:\n");
            println!("hostssl all             all             ::/0                    cert");
            println!("hostssl all             all             0.0.0.0/0               cert");
        }
        CertificateFormat::File => {
            let user = args.user.unwrap_or_default();
            let signed = sign_person(client, &key, &user, args.db_service, ttl).await?;
            let [key_file, crt, cas] = write_out(&args.out, &key, &signed)?;
            println!("The credentials of {user} have been written to {key_file}, {crt}, {cas}.");
            println!("They are valid until {}.", signed.not_after);
        }
    }
    Ok(())
}

pub async fn sign_database(
    client: &AdminClient,
    key: &PrivateKey,
    hosts: Vec<String>,
    ttl: std::time::Duration,
) -> Result<SignedCertificate, Failure> {
    let name = hosts.first().cloned().unwrap_or_default();
    let ask = SignDatabase {
        csr: csr(key, &name)?,
        hosts,
        ttl_secs: ttl.as_secs(),
    };
    client.send(Method::POST, "/v1/certificates/database", &ask).await
}

pub async fn sign_person(
    client: &AdminClient,
    key: &PrivateKey,
    user: &str,
    db_service: Option<String>,
    ttl: std::time::Duration,
) -> Result<SignedCertificate, Failure> {
    let ask = SignPerson {
        user: user.to_owned(),
        db_service,
        ttl_secs: ttl.as_secs(),
        csr: csr(key, user)?,
    };
    client.send(Method::POST, "/v1/certificates/person", &ask).await
}

fn csr(key: &PrivateKey, name: &str) -> Result<String, Failure> {
    Ok(BASE64.encode(&key.csr(name).map_err(Failure::failed)?))
}

/// Writes OUT.key, OUT.crt and OUT.cas, all 0600, and returns their file names.
pub fn write_out(out: &Path, key: &PrivateKey, signed: &SignedCertificate) -> Result<[String; 3], Failure> {
    let key_pem = key.to_pem().map_err(Failure::internal)?;
    let files = [
        ("key", key_pem.expose().as_bytes()),
        ("crt", signed.certificate.as_bytes()),
        ("cas", signed.authorities.as_bytes()),
    ];
    let mut names = Vec::new();
    for (ending, content) in files {
        let mut path = out.as_os_str().to_owned();
        path.push(".");
        path.push(ending);
        let path = PathBuf::from(path);
        write_private(&path, content).map_err(Failure::failed)?;
        names.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    names
        .try_into()
        .map_err(|_| Failure::internal("three files were to be written"))
}
