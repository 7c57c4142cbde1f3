//! Which auth service `ctl` asks: the one that is named, else that of this machine, else that of the login.

use super::admin_client::AdminClient;
use super::identity_files::IdentityFiles;
use super::names::Program;
use super::people;
use super::people_client::PeopleClient;
use super::{Failure, dev};
use crate::config::{Config, ConfigError, DEFAULT_DATA_DIR, DEFAULT_WEB_PORT, default_config_path};
use crate::model::Endpoint;
use crate::node::data_dir::admin_socket_in;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What this account finds of an auth service on this machine.
#[derive(Debug)]
enum Here {
    /// There is none.
    Absent,
    /// Its data directory.
    Auth(PathBuf),
    /// There is one, or may be, that another account runs: the data directory, or why not even that is known.
    Forbidden(Result<PathBuf, ConfigError>),
}

/// Auth by a proxy, as the person of these files.
pub fn as_person(prefix: &Path, proxy: &str) -> Result<AdminClient, Failure> {
    let proxy = Endpoint::parse(proxy, DEFAULT_WEB_PORT).map_err(Failure::usage)?;
    let files = IdentityFiles::read(prefix)?;
    let client = PeopleClient::new(proxy, &files.host_authorities, Some(&files.credentials))?;
    Ok(AdminClient::remote(client))
}

/// The auth service at this data directory, or at that of this configuration file.
pub fn named(data_dir: Option<&Path>, config: Option<&Path>) -> Result<Option<AdminClient>, Failure> {
    let dir = match (data_dir, config) {
        (Some(dir), _) => dir.to_owned(),
        (None, Some(path)) => Config::load(path).map_err(Failure::usage)?.data_dir,
        (None, None) => return Ok(None),
    };
    tracing::debug!(path = %dir.display(), "auth's data directory");
    Ok(Some(AdminClient::new(&dir)))
}

/// The auth service of this machine, else that of the person's login, else that of their `postern dev`.
pub fn found(program: Program) -> Result<AdminClient, Failure> {
    let here = look(default_config_path().as_deref(), Path::new(DEFAULT_DATA_DIR)).map_err(Failure::usage)?;
    if !matches!(here, Here::Auth(_))
        && let Some(client) = people::client_of_login(program)?
    {
        tracing::debug!("asking auth as whoever is logged in");
        return Ok(AdminClient::remote(client));
    }
    match here {
        Here::Auth(dir) => {
            tracing::debug!(path = %dir.display(), "auth's data directory");
            Ok(AdminClient::new(&dir))
        }
        // Asked all the same: the socket's refusal says whose it is.
        Here::Forbidden(Ok(dir)) => Ok(AdminClient::new(&dir)),
        Here::Forbidden(Err(error)) => Err(Failure::usage(error).and(&format!(
            "repeat the command with sudo, or log in with `{} login`",
            program.of_people()
        ))),
        Here::Absent => {
            let dev = dev::usual_dir();
            if let Some(dir) = dev.as_deref().filter(|dir| is_open(dir)) {
                tracing::debug!(path = %dir.display(), "the data directory of `postern dev`");
                return Ok(AdminClient::new(dir));
            }
            let looked_at = default_config_path()
                .or(Some(DEFAULT_DATA_DIR.into()))
                .into_iter()
                .chain(dev);
            let looked_at: Vec<String> = looked_at.map(|path| path.display().to_string()).collect();
            Err(Failure::failed(format!(
                "there is no auth service at the usual places of this machine ({}) and nobody is logged in: run this with sudo \
                 on the auth node, name its data directory with --data-dir, or log in with `{} login --proxy=HOST`",
                looked_at.join(", "),
                program.of_people()
            )))
        }
    }
}

/// An auth service that this account may use is at this data directory.
fn is_open(data_dir: &Path) -> bool {
    matches!(admission(data_dir), Ok(true))
}

/// A configuration at its usual place says whether auth is here; without one, the socket in the usual data directory does.
fn look(config: Option<&Path>, usual: &Path) -> Result<Here, ConfigError> {
    let Some(path) = config else {
        return Ok(match admission(usual) {
            Ok(true) => Here::Auth(usual.to_owned()),
            Ok(false) => Here::Forbidden(Ok(usual.to_owned())),
            Err(_) => Here::Absent,
        });
    };
    match Config::load(path) {
        Ok(config) if config.auth.is_none() => Ok(Here::Absent),
        // That auth does not run at the moment is said by whoever asks it.
        Ok(config) if admission(&config.data_dir).unwrap_or(true) => Ok(Here::Auth(config.data_dir)),
        Ok(config) => Ok(Here::Forbidden(Ok(config.data_dir))),
        Err(error) if not_ours_to_read(&error) => Ok(Here::Forbidden(Err(error))),
        Err(error) => Err(error),
    }
}

/// Whether this account may use the socket in a data directory.
///
/// # Errors
/// There is none.
fn admission(data_dir: &Path) -> io::Result<bool> {
    match admin_socket_in(data_dir).symlink_metadata() {
        Ok(socket) => {
            let me = nix::unistd::geteuid();
            Ok(me.is_root() || socket.uid() == me.as_raw())
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error),
    }
}

fn not_ours_to_read(error: &ConfigError) -> bool {
    let source = match error {
        ConfigError::Read { source, .. } | ConfigError::ReadFile { source, .. } => source,
        _ => return false,
    };
    source.kind() == io::ErrorKind::PermissionDenied
}

#[cfg(test)]
mod tests {
    use super::*;

    const AUTH: &str = "auth_service: {enabled: yes, cluster_name: c}\n";
    const PROXY: &str = "  auth_server: a:3025\nauth_service: {enabled: no}\nproxy_service: {enabled: yes}\n";

    #[test]
    fn a_configuration_says_whether_auth_is_on_this_machine_and_without_one_its_socket_does() {
        let directory = tempfile::tempdir().expect("a directory");
        let data = directory.path().join("data");
        std::fs::create_dir(&data).expect("ours");
        let file = directory.path().join("postern.yaml");
        let with = |services: &str| {
            let text = format!(
                "version: v3\npostern:\n  nodename: n\n  data_dir: {}\n{services}",
                data.display()
            );
            std::fs::write(&file, text).expect("ours");
            look(Some(&file), directory.path())
        };
        assert!(matches!(look(None, &data), Ok(Here::Absent)));
        assert!(
            matches!(with(AUTH), Ok(Here::Auth(dir)) if dir == data),
            "also while it does not run"
        );
        assert!(matches!(with(PROXY), Ok(Here::Absent)), "{:?}", with(PROXY));
        std::fs::write(admin_socket_in(&data), "").expect("ours");
        assert!(matches!(look(None, &data), Ok(Here::Auth(dir)) if dir == data));
        assert!(
            matches!(with(PROXY), Ok(Here::Absent)),
            "a node that is not auth any more"
        );
        assert!(with("auth_service: {enabled: perhaps}\n").is_err());
    }

    #[test]
    fn the_auth_service_of_a_dev_cluster_is_there_while_its_socket_is() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(!is_open(directory.path()));
        std::fs::write(admin_socket_in(directory.path()), "").expect("ours");
        assert!(is_open(directory.path()));
    }

    #[test]
    fn a_file_that_another_account_keeps_to_itself_is_no_mistake_in_it() {
        let read = |kind: io::ErrorKind| ConfigError::Read {
            path: "x".into(),
            source: kind.into(),
        };
        assert!(not_ours_to_read(&read(io::ErrorKind::PermissionDenied)));
        assert!(!not_ours_to_read(&read(io::ErrorKind::InvalidData)));
    }
}
