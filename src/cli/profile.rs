//! What the command line keeps of logins: one profile for each proxy, with keys and certificates, in `~/.postern`.
//!
//! ```text
//! current-profile                          the proxy that commands are for
//! PROXY.json                               user, cluster and roles of the last login
//! keys/PROXY/certs.pem                     the host authority: whom to believe at that proxy (`+` for its `:`)
//! keys/PROXY/roots.pem                     where the proxy has a certificate of its own: whom psql is to believe there
//! keys/PROXY/USER.key                      the private key
//! keys/PROXY/USER-x509.pem                 the certificate
//! keys/PROXY/USER-db/CLUSTER/DB-x509.pem   one for each database that was logged in to, for the same key
//! ```
//!
//! Each file is replaced whole. A command that changes several holds the lock of `lock`, never while it waits for a person or
//! the network; the kernel gives it back however the process ends.

mod writing;

use crate::model::{Endpoint, Timestamp};
use crate::pki::pem::{MAX_PEM_BYTES, certificates_from_pem};
use crate::pki::{CertificateError, PersonClaims, PkiError, PrivateKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
pub use writing::Writing;
use zeroize::Zeroizing;

/// Where the directory is, when it is not `.postern` in the home directory.
const HOME_VARIABLES: [&str; 2] = ["POSTERN_HOME", "TELEPORT_HOME"];
const CURRENT: &str = "current-profile";
const PROFILE_ENDING: &str = ".json";
const CERTS: &str = "certs.pem";
const ROOTS: &str = "roots.pem";
const KEY_ENDING: &str = ".key";
const CERTIFICATE_ENDING: &str = "-x509.pem";
const DATABASES_ENDING: &str = "-db";

#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("there is no home directory; name a directory for your logins in POSTERN_HOME")]
    NoHome,
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{} is not yours alone to change ({why}); whoever can change it could log you in as somebody else: make it yours with \
         `chmod 700`, or name another directory in POSTERN_HOME", path.display()
    )]
    NotYours { path: PathBuf, why: String },
    #[error(
        "the private key {} can be used by other accounts (its mode is {mode:04o}); log in again for another, or, if nobody \
         has read it, make it yours with `chmod 600`", path.display()
    )]
    Exposed { path: PathBuf, mode: u32 },
    #[error("{} is damaged ({why}); `logout` removes it, then log in again", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("{what} {name:?} cannot be the name of a file; ask the cluster's administrator")]
    Name { what: &'static str, name: String },
    #[error("somebody logged in or out at {proxy} at the same time; type the command again")]
    Overtaken { proxy: String },
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// The login at one proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// Where people reach the cluster, `host:port`; also the profile's name.
    pub proxy: String,
    pub user: String,
    pub cluster: String,
    pub roles: Vec<String>,
}

impl Profile {
    /// # Errors
    /// [`ProfileError::Name`] when the profile's proxy is not an address.
    pub fn endpoint(&self) -> Result<Endpoint, ProfileError> {
        Endpoint::parse(&self.proxy, crate::config::DEFAULT_WEB_PORT).map_err(|_| ProfileError::Name {
            what: "the proxy",
            name: self.proxy.clone(),
        })
    }
}

/// The key and the certificate of a login, read but not verified: auth does that.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub key: PrivateKey,
    /// The certificate as PEM.
    pub certificate: String,
    pub claims: PersonClaims,
    /// The host authority as PEM.
    pub host_ca: String,
}

/// Whom a login makes this account believe at its proxy, as PEM.
#[derive(Debug)]
pub struct Authorities<'a> {
    /// The cluster's host authority.
    pub host: &'a str,
    /// Those of the machine, where they vouch for the proxy. They are for clients of PostgreSQL only: a certificate for a name,
    /// which any of them may sign, makes nobody the cluster's auth.
    pub of_machine: Option<String>,
}

/// A database that was logged in to.
#[derive(Debug, Clone)]
pub struct ActiveDatabase {
    pub service: String,
    pub db_user: Option<String>,
    pub db_name: Option<String>,
    pub valid_until: Timestamp,
}

/// The directory of logins.
#[derive(Debug, Clone)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// The directory of this account, or the one that the environment names.
    ///
    /// # Errors
    /// There is none, or others can change it.
    pub fn of_environment() -> Result<Self, ProfileError> {
        let named = HOME_VARIABLES
            .iter()
            .find_map(std::env::var_os)
            .filter(|dir| !dir.is_empty());
        let dir = match named {
            Some(dir) => PathBuf::from(dir),
            None => std::env::home_dir().ok_or(ProfileError::NoHome)?.join(".postern"),
        };
        Self::at(&dir)
    }

    /// # Errors
    /// Others can change the directory. That it is not there yet is no error.
    pub fn at(dir: &Path) -> Result<Self, ProfileError> {
        // Paths of it are written into files that programs with other working directories read.
        let dir = std::path::absolute(dir).map_err(file("find", dir))?;
        let home = Self { dir };
        home.check()?;
        Ok(home)
    }

    fn check(&self) -> Result<(), ProfileError> {
        let found = match std::fs::metadata(&self.dir) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(file("look at", &self.dir)(error)),
        };
        let refused = |why: String| ProfileError::NotYours {
            path: self.dir.clone(),
            why,
        };
        if !found.is_dir() {
            return Err(refused("it is no directory".to_owned()));
        }
        if found.uid() != nix::unistd::geteuid().as_raw() {
            return Err(refused(format!("it belongs to the account {}", found.uid())));
        }
        if found.mode() & 0o022 != 0 {
            return Err(refused(format!("its mode is {:04o}", found.mode() & 0o7777)));
        }
        Ok(())
    }

    /// The profile that commands are for when they name no proxy.
    ///
    /// # Errors
    /// A file cannot be read or is damaged.
    pub fn current(&self) -> Result<Option<Profile>, ProfileError> {
        let Some(name) = read(&self.dir.join(CURRENT))? else {
            return Ok(None);
        };
        self.profile(name.trim())
    }

    /// # Errors
    /// A file cannot be read or is damaged.
    pub fn profile(&self, proxy: &str) -> Result<Option<Profile>, ProfileError> {
        let path = self.profile_file(proxy)?;
        let Some(text) = read(&path)? else { return Ok(None) };
        let damaged = |error: serde_json::Error| ProfileError::Damaged {
            path,
            why: error.to_string(),
        };
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }

    /// Every profile, by the name of its proxy.
    ///
    /// # Errors
    /// A file cannot be read or is damaged.
    pub fn profiles(&self) -> Result<Vec<Profile>, ProfileError> {
        let mut profiles = Vec::new();
        for name in names_in(&self.dir)? {
            if let Some(proxy) = name.strip_suffix(PROFILE_ENDING) {
                profiles.extend(self.profile(proxy)?);
            }
        }
        Ok(profiles)
    }

    /// Every login of which something is kept here, whether or not a profile still names it: a proxy's profile names its last user
    /// only.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub fn logins(&self) -> Result<Vec<Profile>, ProfileError> {
        let _lock = self.lock(false)?;
        let mut logins = Vec::new();
        for name in names_in(&self.dir)? {
            let proxy = name.strip_suffix(PROFILE_ENDING);
            // A logout is the way out of a damaged profile.
            logins.extend(proxy.and_then(|proxy| self.profile(proxy).ok().flatten()));
        }
        let keys = self.dir.join("keys");
        for proxy in names_in(&keys)? {
            let dir = keys.join(&proxy);
            for user in users_in(&dir)? {
                let clusters = names_in(&dir.join(format!("{user}{DATABASES_ENDING}")))?;
                let login = Profile {
                    proxy: proxy.replace('+', ":"),
                    user: user.replace("%3A", ":").replace("%25", "%"),
                    cluster: clusters.into_iter().next().unwrap_or_default(),
                    roles: Vec::new(),
                };
                let same = |known: &Profile| known.proxy == login.proxy && known.user == login.user;
                if !logins.iter().any(same) {
                    logins.push(login);
                }
            }
        }
        Ok(logins)
    }

    /// Key and certificate of the profile's login; `None` after a logout, and where they do not belong together.
    ///
    /// # Errors
    /// A file cannot be read or is damaged.
    pub fn credentials(&self, profile: &Profile) -> Result<Option<Credentials>, ProfileError> {
        // Not between the files of a login that is being written.
        let _lock = self.lock(false)?;
        self.read_credentials(profile)
    }

    fn read_credentials(&self, profile: &Profile) -> Result<Option<Credentials>, ProfileError> {
        let files = (
            read_key(&self.key_file(profile)?)?,
            read(&self.certificate_file(profile)?)?,
            read(&self.ca_file(profile)?)?,
        );
        let (Some(key), Some(certificate), Some(host_ca)) = files else {
            return Ok(None);
        };
        let key = PrivateKey::from_pem(&key)?;
        let claims = claims_of(&certificate, &self.certificate_file(profile)?)?;
        if claims.public_key != key.public_key().to_spki_der() {
            return Ok(None);
        }
        Ok(Some(Credentials {
            key,
            certificate: certificate.to_string(),
            claims,
            host_ca: host_ca.to_string(),
        }))
    }

    /// The host authority of the profile's proxy: known to every user of this account while one of them is logged in.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn host_ca(&self, profile: &Profile) -> Result<Option<String>, ProfileError> {
        let _lock = self.lock(false)?;
        Ok(read(&self.ca_file(profile)?)?.map(|text| text.to_string()))
    }

    /// The databases that were logged in to with the key that is there, by name; those that have expired too.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn databases(&self, profile: &Profile) -> Result<Vec<ActiveDatabase>, ProfileError> {
        let _lock = self.lock(false)?;
        let Some(key) = read(&self.key_file(profile)?)? else {
            return Ok(Vec::new());
        };
        let public_key = PrivateKey::from_pem(&key)?.public_key().to_spki_der();
        let mut databases = Vec::new();
        for service in self.database_names(profile)? {
            let path = self.database_file(profile, &service)?;
            let Some(claims) = read(&path)?.and_then(|text| claims_of(&text, &path).ok()) else {
                continue;
            };
            let Some(route) = claims.route.filter(|_| claims.public_key == public_key) else {
                continue;
            };
            databases.push(ActiveDatabase {
                service,
                db_user: route.db_user.map(String::from),
                db_name: route.db_name.map(String::from),
                valid_until: claims.valid_until,
            });
        }
        Ok(databases)
    }

    /// The names of the files of [`Self::databases`], whatever is in them.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn database_names(&self, profile: &Profile) -> Result<Vec<String>, ProfileError> {
        let names = names_in(&self.databases_dir(profile)?)?;
        let services = names.iter().filter_map(|name| name.strip_suffix(CERTIFICATE_ENDING));
        Ok(services.map(str::to_owned).collect())
    }

    /// Takes the lock, waiting for another command that writes.
    ///
    /// # Errors
    /// The directory cannot be made or locked.
    pub fn write(&self) -> Result<Writing<'_>, ProfileError> {
        private_dir(&self.dir)?;
        self.check()?;
        let lock = self.lock(true)?;
        Ok(Writing::new(self, lock))
    }

    fn lock(&self, exclusive: bool) -> Result<Option<File>, ProfileError> {
        let path = self.dir.join("lock");
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(exclusive)
            .truncate(false)
            .mode(0o600)
            .open(&path);
        let lock = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !exclusive => return Ok(None),
            opened => opened.map_err(file("open", &path))?,
        };
        let locked = if exclusive { lock.lock() } else { lock.lock_shared() };
        locked.map_err(file("lock", &path))?;
        Ok(Some(lock))
    }

    fn profile_file(&self, proxy: &str) -> Result<PathBuf, ProfileError> {
        Ok(self.dir.join(format!("{}{PROFILE_ENDING}", part("the proxy", proxy)?)))
    }

    fn keys_dir(&self, profile: &Profile) -> Result<PathBuf, ProfileError> {
        // libpq takes what stands before a colon in `sslkey` for the name of an SSL engine.
        let proxy = part("the proxy", &profile.proxy)?.replace(':', "+");
        Ok(self.dir.join("keys").join(proxy))
    }

    fn of_user(&self, profile: &Profile, ending: &str) -> Result<PathBuf, ProfileError> {
        let user = part("the user", &profile.user)?.replace('%', "%25").replace(':', "%3A");
        Ok(self.keys_dir(profile)?.join(format!("{user}{ending}")))
    }

    /// The file of the host authority's certificates.
    ///
    /// # Errors
    /// [`ProfileError::Name`]; so with the other files.
    pub fn ca_file(&self, profile: &Profile) -> Result<PathBuf, ProfileError> {
        Ok(self.keys_dir(profile)?.join(CERTS))
    }

    /// The file of all whom a client of PostgreSQL is to believe at the proxy.
    pub fn roots_file(&self, profile: &Profile) -> Result<PathBuf, ProfileError> {
        let own = self.keys_dir(profile)?.join(ROOTS);
        if own.exists() { Ok(own) } else { self.ca_file(profile) }
    }

    /// The file of the private key.
    pub fn key_file(&self, profile: &Profile) -> Result<PathBuf, ProfileError> {
        self.of_user(profile, KEY_ENDING)
    }

    /// The file of the login's certificate.
    pub fn certificate_file(&self, profile: &Profile) -> Result<PathBuf, ProfileError> {
        self.of_user(profile, CERTIFICATE_ENDING)
    }

    fn databases_dir(&self, profile: &Profile) -> Result<PathBuf, ProfileError> {
        Ok(self
            .of_user(profile, DATABASES_ENDING)?
            .join(part("the cluster", &profile.cluster)?))
    }

    /// The file of the certificate for a database.
    pub fn database_file(&self, profile: &Profile, service: &str) -> Result<PathBuf, ProfileError> {
        let service = part("the database", service)?;
        Ok(self
            .databases_dir(profile)?
            .join(format!("{service}{CERTIFICATE_ENDING}")))
    }
}

/// Of whom there is a file in the directory of a proxy, as the files' names have it.
fn users_in(dir: &Path) -> Result<BTreeSet<String>, ProfileError> {
    let endings = [KEY_ENDING, CERTIFICATE_ENDING, DATABASES_ENDING];
    let user = |name: String| {
        endings
            .iter()
            .find_map(|ending| name.strip_suffix(ending).map(str::to_owned))
    };
    Ok(names_in(dir)?.into_iter().filter_map(user).collect())
}

fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ProfileError {
    let path = path.to_owned();
    move |source| ProfileError::File { doing, path, source }
}

/// A name that stays inside of its directory. Proxies and clusters choose theirs.
fn part<'a>(what: &'static str, name: &'a str) -> Result<&'a str, ProfileError> {
    let bad = name.is_empty() || name.starts_with('.') || name.contains(|c: char| c == '/' || c.is_control());
    if bad {
        return Err(ProfileError::Name {
            what,
            name: name.to_owned(),
        });
    }
    Ok(name)
}

fn claims_of(certificate: &str, path: &Path) -> Result<PersonClaims, ProfileError> {
    let damaged = |why: String| ProfileError::Damaged {
        path: path.to_owned(),
        why,
    };
    let found = certificates_from_pem(certificate.as_bytes(), "it").map_err(|error| damaged(error.to_string()))?;
    let first = found.first().ok_or_else(|| damaged("it is empty".to_owned()))?;
    PersonClaims::read(first).map_err(|error: CertificateError| damaged(error.to_string()))
}

/// The text of a file; `None` where there is none.
fn read(path: &Path) -> Result<Option<Zeroizing<String>>, ProfileError> {
    open(path)?.map(|opened| text_of(opened, path)).transpose()
}

/// A private key, which no other account may have read.
fn read_key(path: &Path) -> Result<Option<Zeroizing<String>>, ProfileError> {
    let Some(opened) = open(path)? else { return Ok(None) };
    let mode = opened.metadata().map_err(file("look at", path))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let path = path.to_owned();
        return Err(ProfileError::Exposed { path, mode });
    }
    text_of(opened, path).map(Some)
}

fn open(path: &Path) -> Result<Option<File>, ProfileError> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some).map_err(file("open", path)),
    }
}

fn text_of(opened: File, path: &Path) -> Result<Zeroizing<String>, ProfileError> {
    let mut text = Zeroizing::new(String::new());
    opened
        .take(MAX_PEM_BYTES as u64)
        .read_to_string(&mut text)
        .map_err(file("read", path))?;
    Ok(text)
}

/// The names in a directory, in order; none where there is no directory.
fn names_in(dir: &Path) -> Result<Vec<String>, ProfileError> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(file("read", dir))?,
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    // Files that are being written begin with a dot.
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    Ok(names)
}

fn private_dir(dir: &Path) -> Result<(), ProfileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(file("make", dir))
}

fn remove_file(path: &Path) -> Result<bool, ProfileError> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(file("remove", path)(error)),
    }
}

fn remove_dir(path: &Path) -> Result<(), ProfileError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
