//! `postern ctl auth sign`: certificates for a PostgreSQL server, or for a person.

use super::admin_client::AdminClient;
use super::auth_export::{self, ExportArgs};
use super::names::Program;
use super::status::{DATABASE_TTL, SOON};
use super::terminal::{one_line, parse_duration};
use super::{Failure, Outcome};
use crate::model::Timestamp;
use crate::pki::PrivateKey;
use crate::pki::pem::write_private;
use crate::web::api::{SignDatabase, SignPerson, SignedCertificate};
use clap::{Args, Subcommand, ValueEnum};
use data_encoding::BASE64;
use hyper::Method;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Args)]
pub struct AuthArgs {
    #[command(subcommand)]
    verb: AuthVerb,
}

#[derive(Debug, Subcommand)]
enum AuthVerb {
    /// Sign a certificate: OUT.key, OUT.crt and OUT.cas.
    #[command(after_help = "Examples:\n  \
        postern ctl auth sign --format=db --host=db.example.com \\\n     --out=server --ttl=2190h\n  \
        postern ctl auth sign --format=file --user=alice --db-service=orders \\\n     --out=alice")]
    Sign(SignArgs),
    /// Print the certificates of an authority, for whoever has to trust it.
    #[command(after_help = "Examples:\n  \
        postern ctl auth export --type=db-client > client.cas\n  \
        postern ctl auth export --type=host --fingerprint")]
    Export(ExportArgs),
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
    /// How long it is valid; for a database server rather 2190h, which is three months.
    #[arg(long, default_value = "12h")]
    ttl: String,
    /// Replace files that are there.
    #[arg(long)]
    overwrite: bool,
    /// Refused: the files are written apart.
    #[arg(long, hide = true)]
    tar: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CertificateFormat {
    File,
    Db,
}

pub async fn run(client: &AdminClient, program: Program, args: AuthArgs) -> Outcome {
    match args.verb {
        AuthVerb::Sign(args) => sign(client, program, args).await,
        AuthVerb::Export(args) => auth_export::run(client, args).await,
    }
}

async fn sign(client: &AdminClient, program: Program, args: SignArgs) -> Outcome {
    if args.tar {
        return Err(Failure::usage(
            "--tar is not supported: the files are written to --out, readable by this account only; pack them with tar, or copy \
             them with scp",
        ));
    }
    let ttl = parse_duration(&args.ttl).map_err(Failure::usage)?;
    if !args.overwrite {
        refuse_to_overwrite(&args.out)?;
    }
    let key = PrivateKey::generate().map_err(Failure::internal)?;
    match args.format {
        CertificateFormat::Db => {
            let hosts = args.host.join(",");
            let signed = sign_database(client, &key, args.host, ttl).await?;
            let files = write_out(&args.out, &key, &signed)?;
            let paths = absolute_paths(&args.out)?;
            let renew = format!(
                "{} auth sign --format=db --host={hosts} --ttl={DATABASE_TTL} --out={} --overwrite",
                program.ctl(),
                args.out.display()
            );
            print!("{}", for_database(&files, &paths, &signed.not_after, ttl, &renew));
            if ttl < SOON {
                eprintln!("{}", short_warning(program, &args.ttl));
            }
        }
        CertificateFormat::File => {
            let user = args.user.unwrap_or_default();
            let signed = sign_person(client, &key, &user, args.db_service, ttl).await?;
            let [key_file, crt, cas] = write_out(&args.out, &key, &signed)?.map(|name| one_line(&name));
            println!(
                "The credentials of {} have been written to {key_file}, {crt}, {cas}.",
                one_line(&user)
            );
            println!("They are valid until {}.", signed.not_after);
        }
    }
    Ok(())
}

/// Before anything is signed: a key that is replaced by mistake is gone.
fn refuse_to_overwrite(out: &Path) -> Outcome {
    for ending in ENDINGS {
        let path = with_ending(out, ending);
        if path.symlink_metadata().is_ok() {
            return Err(Failure::failed(format!(
                "{} exists already and is not overwritten; choose another --out, or give --overwrite",
                path.display()
            )));
        }
    }
    Ok(())
}

/// What the administrator of the database does with the files.
fn for_database(files: &[String; 3], paths: &[String; 3], not_after: &str, ttl: Duration, renew: &str) -> String {
    let [key_file, crt, cas] = files.each_ref().map(|name| one_line(name));
    let [key_path, crt_path, cas_path] = paths.each_ref().map(|path| one_line(&in_postgres_quotes(path)));
    let by = renew_by(not_after, ttl).map_or_else(String::new, |by| format!(" by {by}"));
    format!(
        "Database credentials have been written to {key_file}, {crt}, {cas}.\nThey are valid until {not_after}. Renew \
         them{by}: PostgreSQL goes on presenting a certificate that has ended, and agents refuse it.\n\n> {}\n\n\
         To accept connections over TLS, put this into postgresql.conf and restart PostgreSQL, whose account has to be\n\
         able to read the files and to own the key:\n\n\
         ssl = on\nssl_cert_file = {crt_path}\nssl_key_file = {key_path}\nssl_ca_file = {cas_path}\n\n\
         and these lines into pg_hba.conf, before others that match:\n\n\
         hostssl all             all             ::/0                    cert\n\
         hostssl all             all             0.0.0.0/0               cert\n",
        one_line(renew)
    )
}

/// With a month left, or a third of the time where that is less.
fn renew_by(not_after: &str, ttl: Duration) -> Option<Timestamp> {
    let end = Timestamp::parse_rfc3339(not_after)?;
    Some(end - SOON.min(ttl / 3))
}

/// A text in postgresql.conf.
fn in_postgres_quotes(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

fn short_warning(program: Program, ttl: &str) -> String {
    format!(
        "{program}: warning: in {ttl} this certificate ends, and nobody gets into the database until it is renewed; for a \
         database that stays, give --ttl={DATABASE_TTL} (three months)"
    )
}

pub async fn sign_database(
    client: &AdminClient,
    key: &PrivateKey,
    hosts: Vec<String>,
    ttl: Duration,
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
    ttl: Duration,
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

const ENDINGS: [&str; 3] = ["key", "crt", "cas"];

fn with_ending(out: &Path, ending: &str) -> PathBuf {
    let mut path = out.as_os_str().to_owned();
    path.push(".");
    path.push(ending);
    PathBuf::from(path)
}

/// Writes OUT.key, OUT.crt and OUT.cas, all 0600, and returns their file names.
pub fn write_out(out: &Path, key: &PrivateKey, signed: &SignedCertificate) -> Result<[String; 3], Failure> {
    let key_pem = key.to_pem().map_err(Failure::internal)?;
    let contents = [
        key_pem.expose().as_bytes(),
        signed.certificate.as_bytes(),
        signed.authorities.as_bytes(),
    ];
    let paths = ENDINGS.map(|ending| with_ending(out, ending));
    for (path, content) in paths.iter().zip(contents) {
        write_private(path, content).map_err(Failure::failed)?;
    }
    Ok(paths.map(|path| path.file_name().unwrap_or_default().to_string_lossy().into_owned()))
}

fn absolute_paths(out: &Path) -> Result<[String; 3], Failure> {
    let out = std::path::absolute(out).map_err(|error| Failure::failed(format!("{}: {error}", out.display())))?;
    Ok(ENDINGS.map(|ending| with_ending(&out, ending).display().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_for_a_database_says_when_to_renew_and_has_the_paths_to_paste() {
        let files = ["server.key", "server.crt", "server.cas"].map(str::to_owned);
        let paths = ["/o'b/server.key", "/o'b/server.crt", "/o'b/server.cas"].map(str::to_owned);
        let three_months = Duration::from_secs(2190 * 3600);
        let text = for_database(
            &files,
            &paths,
            "2026-04-02T06:00:00.000Z",
            three_months,
            "tctl auth sign …",
        );
        assert_eq!(
            text.lines().next(),
            Some("Database credentials have been written to server.key, server.crt, server.cas.")
        );
        for line in [
            "valid until 2026-04-02T06:00:00.000Z. Renew them by 2026-03-03T06:00:00.000Z:",
            "\n> tctl auth sign …\n",
            "ssl = on\nssl_cert_file = '/o''b/server.crt'\nssl_key_file = '/o''b/server.key'\nssl_ca_file = '/o''b/server.cas'\n",
            "hostssl all             all             ::/0                    cert\n",
        ] {
            assert!(text.contains(line), "{line:?} is not in: {text}");
        }
    }

    #[test]
    fn a_short_certificate_is_renewed_in_its_last_third() {
        let by = renew_by("2026-04-02T06:00:00.000Z", Duration::from_secs(12 * 3600));
        assert_eq!(by.unwrap().to_string(), "2026-04-02T02:00:00.000Z");
        assert!(short_warning(Program::Tctl, "12h").contains("--ttl=2190h"));
    }

    #[test]
    fn a_file_that_is_there_is_not_overwritten_unless_it_is_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("server");
        assert!(refuse_to_overwrite(&out).is_ok());
        std::fs::write(directory.path().join("server.crt"), "x").unwrap();
        let said = refuse_to_overwrite(&out).unwrap_err().to_string();
        assert!(said.contains("server.crt") && said.contains("--overwrite"), "{said}");
    }
}
