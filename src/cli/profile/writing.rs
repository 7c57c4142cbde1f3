//! What changes the directory of logins: a login is kept, a database is added, either is removed, under the lock.

use super::{
    Authorities, CERTS, CURRENT, DATABASES_ENDING, Home, PROFILE_ENDING, Profile, ProfileError, ROOTS, names_in,
    private_dir, read, remove_dir, remove_file,
};
use crate::pki::PrivateKey;
use crate::pki::pem::write_private;
use std::fs::File;

/// The lock on the directory, and what may be done under it only.
#[derive(Debug)]
pub struct Writing<'a> {
    home: &'a Home,
    _lock: Option<File>,
}

impl<'a> Writing<'a> {
    pub(super) const fn new(home: &'a Home, lock: Option<File>) -> Self {
        Self { home, _lock: lock }
    }

    /// Keeps a login, in place of the one at this proxy, and makes it the current one. Certificates for databases of the key
    /// before it are removed.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn save_login(
        &self,
        profile: &Profile,
        key: &PrivateKey,
        certificate: &str,
        authorities: &Authorities<'_>,
    ) -> Result<(), ProfileError> {
        let home = self.home;
        for dir in [home.dir.join("keys"), home.keys_dir(profile)?] {
            private_dir(&dir)?;
        }
        remove_dir(&home.of_user(profile, DATABASES_ENDING)?)?;
        write_private(&home.ca_file(profile)?, authorities.host.as_bytes())?;
        let roots = home.keys_dir(profile)?.join(ROOTS);
        match &authorities.of_machine {
            Some(of_machine) => write_private(&roots, format!("{}{of_machine}", authorities.host).as_bytes())?,
            None => drop(remove_file(&roots)?),
        }
        write_private(&home.key_file(profile)?, key.to_pem()?.expose().as_bytes())?;
        write_private(&home.certificate_file(profile)?, certificate.as_bytes())?;
        let path = home.profile_file(&profile.proxy)?;
        let text = serde_json::to_string_pretty(profile).map_err(|error| ProfileError::Damaged {
            path: path.clone(),
            why: error.to_string(),
        })?;
        write_private(&path, text.as_bytes())?;
        self.make_current(&profile.proxy)
    }

    /// # Errors
    /// The file cannot be written.
    pub fn make_current(&self, proxy: &str) -> Result<(), ProfileError> {
        Ok(write_private(
            &self.home.dir.join(CURRENT),
            format!("{proxy}\n").as_bytes(),
        )?)
    }

    /// Keeps a certificate for a database.
    ///
    /// # Errors
    /// [`ProfileError::Overtaken`] when `key` is not the key of the login any more; or a file cannot be written.
    pub fn save_database(
        &self,
        profile: &Profile,
        key: &PrivateKey,
        service: &str,
        certificate: &str,
    ) -> Result<(), ProfileError> {
        let home = self.home;
        let kept = read(&home.key_file(profile)?)?
            .map(|text| PrivateKey::from_pem(&text))
            .transpose()?;
        if kept.is_none_or(|kept| kept.public_key() != key.public_key()) {
            return Err(ProfileError::Overtaken {
                proxy: profile.proxy.clone(),
            });
        }
        for dir in [home.of_user(profile, DATABASES_ENDING)?, home.databases_dir(profile)?] {
            private_dir(&dir)?;
        }
        Ok(write_private(
            &home.database_file(profile, service)?,
            certificate.as_bytes(),
        )?)
    }

    /// Removes the certificate for a database; whether there was one.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove_database(&self, profile: &Profile, service: &str) -> Result<bool, ProfileError> {
        remove_file(&self.home.database_file(profile, service)?)
    }

    /// Removes the login of a profile: keys, certificates, databases. Another user's at the same proxy stay.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove_login(&self, profile: &Profile) -> Result<(), ProfileError> {
        let home = self.home;
        // The key first: without it nothing else is worth anything.
        remove_file(&home.key_file(profile)?)?;
        remove_file(&home.certificate_file(profile)?)?;
        remove_dir(&home.of_user(profile, DATABASES_ENDING)?)?;
        let of_another = home
            .profile(&profile.proxy)
            .is_ok_and(|kept| kept.is_some_and(|kept| kept.user != profile.user));
        if !of_another {
            remove_file(&home.profile_file(&profile.proxy)?)?;
        }
        let keys = home.keys_dir(profile)?;
        if names_in(&keys)?
            .iter()
            .all(|name| [CERTS, ROOTS].contains(&name.as_str()))
        {
            remove_dir(&keys)?;
        }
        Ok(())
    }

    /// Removes every login, also what no profile names any more.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn remove_all(&self) -> Result<(), ProfileError> {
        let dir = &self.home.dir;
        remove_dir(&dir.join("keys"))?;
        for name in names_in(dir)? {
            if name.ends_with(PROFILE_ENDING) {
                remove_file(&dir.join(name))?;
            }
        }
        remove_file(&dir.join(CURRENT))?;
        Ok(())
    }
}
