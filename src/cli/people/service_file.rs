//! The connection service file of libpq (PostgreSQL's manual, "The Connection Service File"): a section of it is ours, all the
//! rest is its owner's and stays as it is.

use crate::cli::Failure;
use crate::pki::pem::write_with;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file of services has some lines for each; a larger one is something else.
const FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Where libpq looks.
pub fn path() -> Result<PathBuf, Failure> {
    if let Some(path) = std::env::var_os("PGSERVICEFILE").filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    let home = std::env::home_dir()
        .ok_or_else(|| Failure::failed("there is no home directory; name psql's service file in PGSERVICEFILE"))?;
    Ok(home.join(".pg_service.conf"))
}

/// Sets a section: `lines` are `key=value`.
pub fn set(path: &Path, name: &str, lines: &[String]) -> Result<(), Failure> {
    check(name, lines)?;
    change(path, true, |text| with_section(text, name, lines))
}

/// Refuses what libpq would read as something else: it takes the file by lines, and blanks at the end of one away.
pub fn check(name: &str, lines: &[String]) -> Result<(), Failure> {
    let bad = |text: &str| text.contains(char::is_control) || text.ends_with(char::is_whitespace);
    let refused = Some(name).filter(|name| bad(name) || name.contains(']'));
    match refused.or_else(|| lines.iter().map(String::as_str).find(|line| bad(line))) {
        None => Ok(()),
        Some(text) => Err(Failure::failed(format!(
            "{text:?} cannot stand in psql's service file: no control characters and no blank at the end; `db connect` needs \
             no such file"
        ))),
    }
}

/// Removes sections. A file that is not there needs nothing.
pub fn remove(path: &Path, names: &[String]) -> Result<(), Failure> {
    change(path, false, |text| {
        names
            .iter()
            .fold(text.to_vec(), |text, name| without_section(&text, name))
    })
}

/// Replaces the file whole, one command after the other.
fn change(path: &Path, create: bool, edit: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<(), Failure> {
    let failed = |error: &dyn std::fmt::Display| {
        Failure::failed(format!(
            "psql's service file {} cannot be changed: {error}; name another one in PGSERVICEFILE",
            path.display()
        ))
    };
    // Where it is a link to somebody's collection of such files, that one is changed and the link stays.
    let target = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut file = match locked(&target, create) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !create => return Ok(()),
        opened => opened.map_err(|error| failed(&error))?,
    };
    let mode = file.metadata().map_err(|error| failed(&error))?;
    if mode.len() > FILE_MAX_BYTES {
        return Err(failed(&"it is larger than 1 MiB"));
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text).map_err(|error| failed(&error))?;
    let edited = edit(&text);
    if edited == text {
        return Ok(());
    }
    // Whoever looks next must find the permissions that the file had, too.
    write_with(&target, &edited, mode.permissions()).map_err(|error| failed(&error))
}

/// The file, locked. Whoever changes it puts another file in its place, so that the lock may be on one that is gone already.
fn locked(path: &Path, create: bool) -> io::Result<File> {
    loop {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(create)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        file.lock()?;
        let (ours, there) = (file.metadata()?, std::fs::metadata(path));
        if there.is_ok_and(|there| (there.dev(), there.ino()) == (ours.dev(), ours.ino())) {
            return Ok(file);
        }
    }
}

fn with_section(text: &[u8], name: &str, lines: &[String]) -> Vec<u8> {
    let section = format!("[{name}]\n{}\n", lines.join("\n"));
    let mut out = Vec::with_capacity(text.len() + section.len() + 2);
    if let Some((from, to)) = find(text, name) {
        out.extend_from_slice(&text[..from]);
        out.extend_from_slice(section.as_bytes());
        out.extend_from_slice(&text[to..]);
        return out;
    }
    out.extend_from_slice(text);
    if !text.is_empty() {
        if !text.ends_with(b"\n") {
            out.push(b'\n');
        }
        out.push(b'\n');
    }
    out.extend_from_slice(section.as_bytes());
    out
}

fn without_section(text: &[u8], name: &str) -> Vec<u8> {
    let Some((from, to)) = find(text, name) else {
        return text.to_vec();
    };
    let mut before = &text[..from];
    // The empty line that `with_section` put before it.
    if before == b"\n" || before.ends_with(b"\n\n") {
        before = &before[..before.len() - 1];
    }
    [before, &text[to..]].concat()
}

/// From the section's header to the end of the settings that follow it at once.
fn find(text: &[u8], name: &str) -> Option<(usize, usize)> {
    let header = format!("[{name}]");
    let (mut at, mut from) = (0, None);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let bare = line.trim_ascii();
        match from {
            None if bare == header.as_bytes() => from = Some(at),
            Some(from) if bare.is_empty() || bare.starts_with(b"[") || bare.starts_with(b"#") => {
                return Some((from, at));
            }
            _ => {}
        }
        at += line.len();
    }
    from.map(|from| (from, at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn lines(port: u16) -> Vec<String> {
        vec!["host=proxy".to_owned(), format!("port={port}")]
    }

    #[test]
    fn a_section_is_added_replaced_in_its_place_and_removed_between_those_of_others() {
        let theirs = b"# mine\n[one]\nhost=a\n\n[two]\nhost=b\n";
        let added = with_section(theirs, "gate-orders", &lines(1));
        let text = String::from_utf8(added.clone()).unwrap();
        assert_eq!(
            text,
            format!(
                "{}\n[gate-orders]\nhost=proxy\nport=1\n",
                String::from_utf8_lossy(theirs)
            )
        );
        let more = [added.as_slice(), b"# of three\n[three]\nhost=c"].concat();
        let replaced = with_section(&more, "gate-orders", &lines(2));
        assert_eq!(
            replaced,
            String::from_utf8(more)
                .unwrap()
                .replace("port=1", "port=2")
                .into_bytes()
        );
        assert_eq!(without_section(&added, "gate-orders"), theirs);
        assert_eq!(without_section(theirs, "gate-orders"), theirs);
        assert!(
            without_section(&added, "gate").len() == added.len(),
            "a name is a whole name"
        );
    }

    #[test]
    fn what_libpq_would_read_as_something_else_is_not_written() {
        let line = |line: &str| check("gate-orders", &[line.to_owned()]);
        assert!(line("user=o'brien x").is_ok());
        assert!(line("user=x\nhost=elsewhere").is_err() && line("user=x\r").is_err() && line("user=x ").is_err());
        assert!(check("gate]\n[mine", &[]).is_err() && check("gate ", &[]).is_err() && check("a]b", &[]).is_err());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("services");
        assert!(set(&path, "gate", &["user=x ".to_owned()]).is_err() && !path.exists());
    }

    proptest! {
        #[test]
        fn what_is_not_ours_is_the_same_byte_for_byte_after_a_login_a_change_and_a_logout(
            parts in prop::collection::vec(prop_oneof![
                Just("\n".to_owned()), Just("# a comment\r\n".to_owned()), Just("[other]\n".to_owned()),
                Just("[gate-db2]\n".to_owned()), Just("host=é\t \n".to_owned()), "[ -~]{0,20}\n",
            ], 0..20)
        ) {
            let theirs = parts.concat().into_bytes();
            prop_assume!(find(&theirs, "gate-db").is_none());
            let added = with_section(&theirs, "gate-db", &lines(1));
            prop_assert!(added.starts_with(&theirs));
            let both = with_section(&added, "gate-db3", &lines(3));
            let changed = with_section(&both, "gate-db", &lines(22));
            let one = without_section(&changed, "gate-db3");
            prop_assert_eq!(without_section(&one, "gate-db"), theirs);
        }
    }

    #[test]
    fn commands_at_the_same_time_lose_nothing_of_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let (real, path) = (dir.path().join("real.conf"), dir.path().join("link.conf"));
        std::fs::write(&real, "[mine]\nhost=x\n").unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&real, &path).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let path = &path;
                scope.spawn(move || set(path, &format!("gate-{thread}"), &lines(thread)).unwrap());
            }
        });
        let text = std::fs::read_to_string(&real).unwrap();
        for thread in 0..8 {
            assert!(
                text.contains(&format!("[gate-{thread}]\nhost=proxy\nport={thread}\n")),
                "{text}"
            );
        }
        assert!(path.is_symlink());
        assert_eq!(std::fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o644);
        let names: Vec<String> = (0..8).map(|thread| format!("gate-{thread}")).collect();
        remove(&path, &names).unwrap();
        assert_eq!(std::fs::read_to_string(&real).unwrap(), "[mine]\nhost=x\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2, "no lock is left");
        remove(&dir.path().join("none"), &names).unwrap();
    }
}
