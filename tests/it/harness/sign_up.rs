//! A cluster of auth and a proxy for people with links, and what an authenticator app computes.

use super::cluster::{Node, ca_pin, ctl, out};
use super::configuration::Join;
use super::https::Https;
use super::wait::until;
use super::{Form, NodeConfig, PATIENCE, TestDir};
use aws_lc_rs::hmac;
use data_encoding::BASE32_NOPAD;
use postern::model::SystemClock;

const STEP_SECS: i64 = 30;
/// How long it takes at most until a code is compared.
const TYPING_SECS: i64 = 10;

/// Auth and a proxy, in one process or two.
pub struct Gate {
    pub auth: Node,
    pub proxy: Option<Node>,
    pub web: Https,
    _directory: TestDir,
}

impl Gate {
    pub fn start(form: Form) -> Self {
        let directory = TestDir::new();
        let mut config = NodeConfig::new("auth-1", directory.join("auth-1")).with_auth();
        if form == Form::OneProcess {
            config = config.with_proxy();
        }
        let mut auth = Node::new(directory.path(), config, None);
        auth.start();
        let proxy = (form == Form::Apart).then(|| {
            let join = Join::at_auth(auth.config.auth_port.expect("it listens"), &ca_pin(&auth));
            let config = NodeConfig::new("proxy-1", directory.join("proxy-1")).with_proxy();
            let mut proxy = Node::new(directory.path(), config.joining(join), None);
            proxy.start();
            proxy
        });
        // Every certificate comes with the authorities that its holder trusts.
        ctl(&auth, &["users", "add", "somebody", "--roles=access"]).ok();
        let prefix = directory.join("trust");
        ctl(
            &auth,
            &["auth", "sign", "--format=file", "--user=somebody", &out(&prefix)],
        )
        .ok();
        let port = proxy.as_ref().unwrap_or(&auth).config.proxy_port.expect("it listens");
        Self {
            web: Https::new(&prefix.with_extension("cas"), port),
            auth,
            proxy,
            _directory: directory,
        }
    }

    /// The address of a new link, by one of `ctl users`' commands; where it begins and its path.
    #[track_caller]
    pub fn link(&self, command: &str) -> (String, String) {
        let words: Vec<&str> = ["users"].into_iter().chain(command.split(' ')).collect();
        let said = ctl(&self.auth, &words).ok();
        let link = said.lines().find(|line| line.starts_with("https://")).expect("a link");
        let path = link.find("/web/").expect("a page");
        (link[..path].to_owned(), link[path..].to_owned())
    }
}

/// The secret that a page shows, as it is typed into an app.
#[track_caller]
pub fn shown_secret(page: &str) -> String {
    let (_, from) = page.split_once("<code id=\"secret\">").expect("the secret");
    from.split_once('<').expect("its end").0.replace(' ', "")
}

/// The code of this moment.
pub fn code(secret: &str) -> String {
    code_at(secret, 0)
}

/// The code of a step that is so many after this one.
pub fn code_at(secret: &str, steps: i64) -> String {
    let now = SystemClock::shared().now().as_secs().div_euclid(STEP_SECS);
    code_of_step(secret, now + steps)
}

/// The code of a step (RFC 6238 with SHA-1, 30 s and 6 digits).
pub fn code_of_step(secret: &str, step: i64) -> String {
    let key = BASE32_NOPAD.decode(secret.as_bytes()).expect("base32");
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    let place = usize::from(tag[tag.len() - 1] & 0xf);
    let four: [u8; 4] = tag[place..place + 4].try_into().expect("four bytes");
    format!("{:06}", (u32::from_be_bytes(four) & 0x7fff_ffff) % 1_000_000)
}

/// An authenticator app whose owner never types a code twice, and types the earliest one that is taken.
#[derive(Debug)]
pub struct App {
    secret: String,
    used: Option<i64>,
}

impl App {
    pub fn of(secret: String) -> Self {
        Self { secret, used: None }
    }

    /// A code that is taken for a while from now on; waits where those of this moment are used up.
    pub fn next_code(&mut self) -> String {
        let free = self.used.map_or(i64::MIN, |used| used + 1);
        let step = until("a code that is not used yet is taken", PATIENCE * 2, || {
            let now = SystemClock::shared().now().as_secs();
            let (first, last) = (
                (now + TYPING_SECS).div_euclid(STEP_SECS) - 1,
                now.div_euclid(STEP_SECS) + 1,
            );
            let step = first.max(free);
            (step <= last).then_some(step)
        });
        self.used = Some(step);
        code_of_step(&self.secret, step)
    }
}

/// Six digits that are not the code of any moment near this one.
pub fn wrong_code(secret: &str) -> String {
    let right: u32 = code(secret).parse().expect("digits");
    format!("{:06}", (right + 500_000) % 1_000_000)
}
