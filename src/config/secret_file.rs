//! Tokens and pins, which the configuration gives either themselves or as a file to read when they are needed.

use super::error::ConfigError;
use crate::model::{NodeKind, Secret};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use std::io::Read;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A static token never expires and may be used any number of times, so whoever can reach the cluster may guess at it for years;
/// 16 characters are the least that cannot be found in that time.
pub const MIN_STATIC_TOKEN_BYTES: usize = 16;
/// Tokens are some dozens of bytes; a larger file is the wrong one.
const MAX_SECRET_FILE_BYTES: u64 = 4096;
const PIN_PREFIX: &str = "sha256:";
/// SHA-256 in hexadecimal.
const PIN_HEX_DIGITS: usize = 64;

/// A token: its value, or the file that holds it. A value that begins with `/` is a path.
#[derive(Debug, Clone)]
pub enum TokenSource {
    Value(Secret<String>),
    File(PathBuf),
}

impl TokenSource {
    /// Sorts values from paths.
    pub fn new(text: &str) -> Self {
        if text.starts_with('/') {
            Self::File(PathBuf::from(text))
        } else {
            Self::Value(Secret::new(text.to_owned()))
        }
    }

    /// The token; of a file without the newline at its end.
    ///
    /// # Errors
    /// The file cannot be read, is empty, too large or not text.
    pub fn read(&self) -> Result<Secret<String>, ConfigError> {
        match self {
            Self::Value(secret) => Ok(secret.clone()),
            Self::File(path) => read_file("the token", path),
        }
    }

    /// Whether both say the same; what is in their files is not looked at.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Value(one), Self::Value(two)) => {
                verify_slices_are_equal(one.expose().as_bytes(), two.expose().as_bytes()).is_ok()
            }
            (Self::File(one), Self::File(two)) => one == two,
            _ => false,
        }
    }
}

/// A join token of the configuration: good for nodes of these kinds for as long as it stands there.
#[derive(Debug, Clone)]
pub struct StaticToken {
    pub kinds: Vec<NodeKind>,
    source: TokenSource,
}

impl StaticToken {
    /// Reads `kinds:secret` or `kinds:/path`. `node` is accepted among the kinds for the guide's sake, where other services than
    /// ours are meant by it. The reason given never holds the secret.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (kinds, secret) = text
            .split_once(':')
            .ok_or("a token is written kinds:secret or kinds:/path/of/a/file, for example db:/etc/postern/token")?;
        let mut parsed = Vec::new();
        for kind in kinds.split(',').map(str::trim).filter(|kind| *kind != "node") {
            if kind.is_empty() {
                return Err("a token must name the kinds of nodes that it admits: auth, proxy, db".to_owned());
            }
            let kind = kind.parse::<NodeKind>()?;
            if !parsed.contains(&kind) {
                parsed.push(kind);
            }
        }
        if parsed.is_empty() {
            return Err("a token for `node` alone admits nothing here; name auth, proxy or db".to_owned());
        }
        let source = TokenSource::new(secret);
        if let TokenSource::Value(secret) = &source {
            check_static(secret)?;
        }
        Ok(Self { kinds: parsed, source })
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.kinds == other.kinds && self.source.is_same(&other.source)
    }

    /// The token.
    ///
    /// # Errors
    /// As of [`TokenSource::read`], and when a file's token is shorter than [`MIN_STATIC_TOKEN_BYTES`].
    pub fn read(&self) -> Result<Secret<String>, ConfigError> {
        let secret = self.source.read()?;
        match (&self.source, check_static(&secret)) {
            (TokenSource::File(path), Err(rule)) => Err(ConfigError::BadFile {
                what: "the static token",
                path: path.clone(),
                rule,
            }),
            _ => Ok(secret),
        }
    }
}

fn check_static(secret: &Secret<String>) -> Result<(), String> {
    let text = secret.expose();
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("must not contain spaces or control characters".to_owned());
    }
    if text.len() < MIN_STATIC_TOKEN_BYTES {
        return Err(format!(
            "must be at least {MIN_STATIC_TOKEN_BYTES} characters long, because it never expires and may be guessed at for ever; \
             make one with `openssl rand -hex 16`"
        ));
    }
    Ok(())
}

/// A CA pin (`sha256:` and 64 hexadecimal digits), or the file that holds one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PinSource {
    Value(String),
    File(PathBuf),
}

impl PinSource {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::File(PathBuf::from(text)));
        }
        pin(text).map(Self::Value)
    }

    /// The pins, in lower case.
    ///
    /// # Errors
    /// The file cannot be read, is empty or too large, or a line of it is not a pin.
    pub fn read(&self) -> Result<Vec<String>, ConfigError> {
        match self {
            Self::Value(pin) => Ok(vec![pin.clone()]),
            Self::File(path) => {
                let text = read_file("the CA pin", path)?;
                let lines = text.expose().lines().map(str::trim).filter(|line| !line.is_empty());
                lines
                    .map(pin)
                    .collect::<Result<_, _>>()
                    .map_err(|rule| ConfigError::BadFile {
                        what: "the CA pin",
                        path: path.clone(),
                        rule,
                    })
            }
        }
    }
}

fn pin(text: &str) -> Result<String, String> {
    let pin = text.to_ascii_lowercase();
    let digits = pin.strip_prefix(PIN_PREFIX).unwrap_or_default();
    if digits.len() == PIN_HEX_DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(pin)
    } else {
        Err(format!(
            "must be {PIN_PREFIX} and {PIN_HEX_DIGITS} hexadecimal digits, as `postern ctl status` prints it, or the path of a file"
        ))
    }
}

fn read_file(what: &'static str, path: &Path) -> Result<Secret<String>, ConfigError> {
    let bad = |rule: &str| ConfigError::BadFile {
        what,
        path: path.to_owned(),
        rule: rule.to_owned(),
    };
    let mut text = Zeroizing::new(String::new());
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_SECRET_FILE_BYTES + 1).read_to_string(&mut text))
        .map_err(|source| ConfigError::ReadFile {
            what,
            path: path.to_owned(),
            source,
        })?;
    if text.len() as u64 > MAX_SECRET_FILE_BYTES {
        return Err(bad("is larger than 4096 bytes; is this the right file?"));
    }
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.trim().is_empty() {
        return Err(bad("is empty; write it into the file, or remove the key"));
    }
    Ok(Secret::new(secret.to_owned()))
}
